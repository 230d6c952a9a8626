"""TimesFM 2.5 (Das et al. 2024, https://arxiv.org/abs/2310.10688) for univariate series, in its public layout.

The checkpoint is Hugging Face's ``google/timesfm-2.5-200m-pytorch``. A token is 32 values; the output at a token is
the 128 values after it, their mean and deciles. The decoder's patch is that output: four tokens. A second, long head
forecasts up to 1,024 values from one token.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from math import log, sqrt
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leapcast.models import timer_xl
from leapcast.models.errors import UserError
from leapcast.models.fields import checked, choice, flag, real, shown, whole
from leapcast.models.layers.normalisation import cumulative_sums, statistics_of_sums
from leapcast.models.layers.patches import padding
from leapcast.models.layers.tables import TokenTables, next_power
from leapcast.models.sessions.base import Rollout, TargetSession
from leapcast.models.sessions.running import RunningSession

LEVELS = tuple(
    tenths / 10 for tenths in range(1, 10)
)  # of the deciles, columns 1 to 9 of an output; column 0: the mean
MEDIAN = 5  # the column that is fed back, and the point forecast
TESTED = 2048  # time steps of context in tests on a data set
EPS = 1e-6  # of RMS norms
LEAST_SCALE = 1e-6  # a smaller standard deviation does not divide
FIELDS = {  # name in a config.json, of which the public one need have none -> field of Config
    "model_dims": "d_model",
    "hidden_dims": "d_ff",
    "num_heads": "n_heads",
    "num_layers": "e_layers",
    "input_patch_len": "token_len",
    "output_patch_len": "input_token_len",
    "output_quantile_len": "head_len",
}
MARK = "output_projection_quantiles.output_layer.weight"  # a name by which the public weights are known


@dataclass(frozen=True)
class Config(timer_xl.Config):
    """Sizes of the network; the defaults are those of the public model with 200 million parameters.

    ``input_token_len`` is the decoder's patch, ``seq_len`` the limit of context and horizon together.
    """

    input_token_len: int = whole(128, 2**16)
    output_token_len: int = whole(128, 2**16)
    seq_len: int = whole(16384, 2**24)
    d_model: int = whole(1280, 2**16)
    n_heads: int = whole(16, 2**12)
    d_ff: int = whole(1280, 2**18)
    e_layers: int = whole(20, 2**10)
    dropout: float = real(0.0, 0, 0.99)
    activation: str = choice("silu")
    norm: str = choice("running")
    channels: str = choice("independent")
    any_length: bool = flag(True)
    token_len: int = whole(32, 2**16)
    head_len: int = whole(1024, 2**20)  # time steps that the long head forecasts
    head_multiple: ClassVar[int] = 2
    pads: ClassVar[bool] = True
    slides: ClassVar[bool] = False
    levels: ClassVar[tuple[float, ...]] = LEVELS
    shortest: ClassVar[int] = 1

    def __post_init__(self):
        super().__post_init__()
        if self.input_token_len % self.token_len:
            raise UserError(
                f"`input_token_len` {self.input_token_len} must be a multiple of the token, {self.token_len}"
            )

    @property
    def long_head(self) -> int:
        """Patches that the long head forecasts."""
        return self.head_len // self.input_token_len

    @property
    def tested(self) -> int:
        """See :class:`timer_xl.Config`."""
        return min(self.context, max(1, TESTED // self.input_token_len) * self.input_token_len)

    def reads(self, context: int, horizon: int) -> int:
        """``seq_len`` is the limit of both together; the horizon is decoded in whole patches."""
        return min(context, self.seq_len - -(-horizon // self.input_token_len) * self.input_token_len)


def from_public(config: Any, weights: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """Configuration values and state dict of :class:`Model` from a public ``config.json`` and its weights.

    The public model has its sizes in code. Here they are those of the weights; what ``config.json`` says of them must
    agree.

    Raises:
        UserError: a config.json of another model, or weights that are not those of TimesFM 2.5.
    """
    rules = {field.name: field for field in fields(Config)}
    columns = len(LEVELS) + 1
    try:
        layers = [re.match(r"stacked_xf\.(\d+)\.", name) for name in weights]
        sizes = {
            "d_model": (width := len(weights["tokenizer.output_layer.weight"])),
            "d_ff": len(weights["stacked_xf.0.ff0.weight"]),
            "n_heads": width // len(weights["stacked_xf.0.attn.query_ln.scale"]),
            "e_layers": len({layer[1] for layer in layers if layer}),
            "token_len": weights["tokenizer.hidden_layer.weight"].shape[1] // 2,  # values and their padding
            "input_token_len": len(weights["output_projection_point.output_layer.weight"]) // columns,
            "head_len": len(weights[MARK]) // columns,
        }
        values = {name: checked(rules[name], size, name) for name, size in sizes.items()}
    except (KeyError, IndexError, TypeError, ZeroDivisionError, UserError) as error:
        raise UserError(f"model.safetensors is not that of TimesFM 2.5 ({error}): copy it again") from error
    if not isinstance(config, dict):
        raise UserError("config.json is not a JSON object: copy it again")
    kind = str(config.get("model_type", "timesfm"))
    if "timesfm" not in kind.lower():
        raise UserError(f"config.json is of the model {shown(kind)}, the weights are of TimesFM 2.5: copy both again")
    given = {name: config[name] for name in FIELDS if name in config}
    known = {name: values[ours] for name, ours in FIELDS.items()} | {"quantiles": list(LEVELS), "decode_index": MEDIAN}
    given |= {name: config[name] for name in ("quantiles", "decode_index") if name in config}
    for name, value in given.items():
        if value != known[name] or isinstance(value, bool):
            raise UserError(f"config.json says {name} {shown(value)}, the weights {known[name]}: copy both again")
    patch = values["output_token_len"] = values["input_token_len"]
    values["seq_len"] = max(1, Config.seq_len // patch) * patch
    return values, dict(weights)


class ResidualBlock(nn.Module):
    """A hidden layer, and a linear map beside it."""

    def __init__(self, inputs: int, width: int, outputs: int, bias: bool):
        super().__init__()
        self.hidden_layer = nn.Linear(inputs, width, bias=bias)
        self.output_layer = nn.Linear(width, outputs, bias=bias)
        self.residual_layer = nn.Linear(inputs, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_layer(F.silu(self.hidden_layer(x))) + self.residual_layer(x)


class RMSNorm(nn.Module):
    """Division by the root mean square of the features, times a scale."""

    def __init__(self, features: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.scale.shape, self.scale.to(x.dtype), EPS)


class Attention(nn.Module):
    """Multi-head attention; queries and keys are rotated, then normalised, and queries scaled by dimension."""

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        self.n_heads, head_dim = n_heads, d_model // n_heads
        self.qkv_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.query_ln, self.key_ln = RMSNorm(head_dim), RMSNorm(head_dim)
        self.per_dim_scale: Any = nn.Module()
        self.per_dim_scale.per_dim_scale = nn.Parameter(torch.zeros(head_dim))

    def forward(self, x: Tensor, wanted: slice, mask: Tensor, turn: tuple[Tensor, Tensor], store: Callable) -> Tensor:
        """Attend from the ``wanted`` tokens of x ``[B, tokens, d_model]`` to all that ``store`` returns.

        Args:
            wanted: a slice of the tokens.
            mask: whether a key is seen, ``[1 or B, 1, wanted tokens, keys]``.
            turn: cosine and sine of the tokens' angles, ``[1 or B, tokens, 1, D / 2]`` each.
            store: see :class:`models.layers.attention.Attention`.
        """
        qkv = self.qkv_proj(x).unflatten(-1, (3 * self.n_heads, -1))
        first, second = qkv[:, :, : 2 * self.n_heads].chunk(2, -1)
        cos, sin = turn
        turned = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
        query, key = turned.chunk(2, 2)
        size = query.shape[-1]
        scale = self.query_ln.scale * F.softplus(self.per_dim_scale.per_dim_scale) / (log(2) * sqrt(size))
        query = F.rms_norm(query[:, wanted], (size,), scale.to(query.dtype), EPS).to(x.dtype)
        key, value = self.key_ln(key).to(x.dtype), qkv[:, :, 2 * self.n_heads :]
        key, value = store(key.transpose(1, 2), value.transpose(1, 2))
        attended = F.scaled_dot_product_attention(query.transpose(1, 2), key, value, attn_mask=mask, scale=1.0)
        return self.out(attended.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A transformer layer with norms before and after each part."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int):
        super().__init__()
        self.attn = Attention(d_model, n_heads)
        self.pre_attn_ln, self.post_attn_ln = RMSNorm(d_model), RMSNorm(d_model)
        self.pre_ff_ln, self.post_ff_ln = RMSNorm(d_model), RMSNorm(d_model)
        self.ff0 = nn.Linear(d_model, d_ff, bias=False)
        self.ff1 = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor, wanted: slice, mask: Tensor, turn: tuple[Tensor, Tensor], store: Callable) -> Tensor:
        """See :meth:`Attention.forward`."""
        x = x[:, wanted] + self.post_attn_ln(self.attn(self.pre_attn_ln(x), wanted, mask, turn, store))
        return x + self.post_ff_ln(self.ff1(F.silu(self.ff0(self.pre_ff_ln(x)))))


class Model(nn.Module):
    """The TimesFM 2.5 network. State-dict names and shapes are those of the public code.

    A context is padded on the left by NaN. Padding has no part in statistics, positions and attention.
    """

    reads_target = False
    one_call, at_once = False, 1
    usual: ClassVar[dict[str, bool]] = {"flip_invariance": True, "nonnegative": True}  # as in the public code

    def __init__(self, configs: Config):
        super().__init__()
        configs = Config.of(configs)
        self.configs = self.config = configs
        self.n_heads, self.head_dim = configs.n_heads, configs.d_model // configs.n_heads
        self.tokens = configs.input_token_len // configs.token_len  # per patch
        width, columns = configs.d_model, len(LEVELS) + 1
        self.tokenizer = ResidualBlock(2 * configs.token_len, width, width, bias=True)
        self.stacked_xf = nn.ModuleList(Layer(width, configs.n_heads, configs.d_ff) for _ in range(configs.e_layers))
        self.output_projection_point = ResidualBlock(width, width, configs.input_token_len * columns, bias=False)
        self.output_projection_quantiles = ResidualBlock(width, width, configs.head_len * columns, bias=False)
        self.kept_tables: dict[int, TokenTables] | None = None
        self.compiled_pass: Callable | None = None

    @property
    def draft_itself(self) -> str:
        """See :class:`timer_xl.Model`."""
        return "long_head" if self.config.long_head else "self"

    def prepare(self) -> None:
        """Fix the weights: cache tables. Passes of this model are not compiled."""
        self.kept_tables = {}

    def forward(self, x: Tensor, padded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Every output of whole contexts, as the public network gives them.

        Args:
            x: ``[B, N·token_len]``, N tokens.
            padded: the same shape, True on padding, which is on the left.

        Returns:
            the values after each token ``[B, N, P, 10]`` (mean and deciles), and those of the long head after the last,
            ``[B, head_len, 10]``.
        """
        tokens = (x if padded is None else x.masked_fill(padded, torch.nan)).unflatten(1, (-1, self.config.token_len))
        level, scale = statistics_of_sums(cumulative_sums(tokens), x.dtype)
        count = tokens.shape[1]
        tables = TokenTables(self, count, 1).padded(padding(tokens))
        hidden = self.hidden(
            tokens, level, scale, tables, slice(0, count), count, slice(None), lambda i, key, value: (key, value)
        )
        moments = level[..., None, None], scale[..., None, None]
        every = self.columns(self.output_projection_point, hidden, *moments)
        last = (part[:, -1] for part in (hidden, *moments))
        return every, self.columns(self.output_projection_quantiles, *last)

    def split(self, patches: Tensor) -> Tensor:
        """The tokens of patches ``[B, T, 1, P]``: ``[B, T·tokens, token_len]``."""
        return patches.flatten(1).unflatten(1, (-1, self.config.token_len))

    def predict(self, patches: Tensor, want: int | None = None) -> tuple[Tensor, None]:
        """Median after the last ``want`` (all by default) patches of whole contexts ``[B, N, 1, P]``."""
        return self.emit(*self.features(patches, want))

    def features(self, patches: Tensor, want: int | None = None) -> tuple[Tensor, ...]:
        """Inputs of the output heads, see :meth:`run`; arguments as of :meth:`predict`."""
        session = RunningSession(self, patches, patches.shape[1])
        session.extend(patches, want or patches.shape[1])
        return session.features

    def tables(self, capacity: int, variables: int = 1, attention_window: int = 0) -> TokenTables:
        """Tables for passes over at most ``capacity`` patches."""
        if self.kept_tables is None:
            return TokenTables(self, capacity, self.tokens)
        capacity = next_power(capacity)  # what is kept serves shorter ones, too
        if capacity not in self.kept_tables:
            self.kept_tables[capacity] = TokenTables(self, capacity, self.tokens)
        return self.kept_tables[capacity]

    def open_target(self, context: Tensor, capacity: int, how: Rollout) -> RunningSession:
        """See :class:`models.sessions.base.Target`; ``how.quantiles`` are recorded."""
        return RunningSession(self, context, capacity, how.quantiles)

    def open_draft(self, context: Tensor, capacity: int, target: TargetSession | None = None) -> RunningSession:
        """See :class:`models.sessions.base.Draft`."""
        return RunningSession(self, context, capacity)

    def run(
        self,
        patches: Tensor,
        level: Tensor,
        scale: Tensor,
        tables: TokenTables,
        index: slice | Tensor,
        keys: int,
        want: int,
        store,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One pass over new patches ``[B, T, 1, P]``; level and scale are those of tokens, ``[B, T·tokens]``.

        The output of a patch is that of its last token. Other arguments and the result as in Timer-XL's.
        """
        size = self.tokens
        tokens = self.split(patches)
        count = tokens.shape[1]
        wanted = slice(count - (want - 1) * size - 1, count, size)
        place = (
            slice(index.start * size, index.stop * size)
            if isinstance(index, slice)
            else (index.unsqueeze(-1) * size + torch.arange(size, device=index.device)).flatten(1)
        )
        hidden = self.hidden(tokens, level, scale, tables, place, keys * size, wanted, store)
        return hidden.unsqueeze(2), level[:, wanted, None, None], scale[:, wanted, None, None]

    def hidden(
        self,
        tokens: Tensor,
        level: Tensor,
        scale: Tensor,
        tables: TokenTables,
        place: slice | Tensor,
        keys: int,
        wanted: slice,
        store,
    ) -> Tensor:
        """Last hidden states of the ``wanted`` of these tokens ``[B, T, token_len]``: ``[B, wanted, d_model]``."""
        unknown = tokens.isnan()
        x = (tokens - level.unsqueeze(-1)) / torch.where(scale < LEAST_SCALE, 1.0, scale).unsqueeze(-1)
        x = torch.cat((x.masked_fill(unknown, 0), unknown), -1).to(tables.like.dtype)
        x, turn, mask = self.tokenizer(x), tables.turns(place), tables.mask(place, keys)
        last = len(self.stacked_xf) - 1
        for i, layer in enumerate(self.stacked_xf):
            some = wanted if i == last else slice(None)
            x = layer(x, some, mask[:, :, some], turn, lambda key, value, i=i: store(i, key, value))
        return x

    def next(self, hidden: Tensor, level: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """The next patches ``[B, want, 1, P]``, which are medians, and their deciles ``[B, want, 1, P, 9]``."""
        columns = self.columns(self.output_projection_point, hidden, level.unsqueeze(-1), scale.unsqueeze(-1))
        return columns[..., MEDIAN].contiguous(), columns[..., 1:]

    def emit(self, hidden: Tensor, level: Tensor, scale: Tensor) -> tuple[Tensor, None]:
        """As :meth:`next`, in the form of Timer-XL's: mean and log-variance."""
        return self.next(hidden, level, scale)[0], None

    def ahead(self, hidden: Tensor, level: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """The long head's medians ``[B, long_head, 1, P]`` and deciles ``[…, 9]`` after positions ``[B, 1, 1]``."""
        columns = self.columns(self.output_projection_quantiles, hidden, level.unsqueeze(-1), scale.unsqueeze(-1))
        size = self.config.long_head, self.config.input_token_len
        columns = columns[:, 0, :, : size[0] * size[1]].unflatten(2, size).transpose(1, 2)
        return columns[..., MEDIAN], columns[..., 1:]

    @staticmethod
    def columns(head: ResidualBlock, hidden: Tensor, level: Tensor, scale: Tensor) -> Tensor:
        """Outputs ``[..., values, 10]`` of a head in the units of its input."""
        return torch.addcmul(level, head(hidden).unflatten(-1, (-1, len(LEVELS) + 1)).to(level.dtype), scale)
