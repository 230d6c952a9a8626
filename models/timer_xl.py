"""Timer-XL (Liu et al. 2024, https://arxiv.org/abs/2410.04803): a causal transformer over patches of every variable."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from leapcast.models.errors import UserError
from leapcast.models.fields import checked, choice, flag, lengths, real, whole
from leapcast.models.layers.attention import Block
from leapcast.models.layers.normalisation import patch_moments, running_statistics, window_statistics
from leapcast.models.layers.patches import from_patches, to_patches
from leapcast.models.layers.rotary import turns
from leapcast.models.layers.tables import Tables, next_power
from leapcast.models.sessions.base import Rollout, TargetSession
from leapcast.models.sessions.cached import CachedSession
from leapcast.models.sessions.renormed import RenormedSession
from leapcast.models.sessions.sliding import SlidingSession

LEAST = 2  # patches in the shortest context of a model of any length
MIN_LOG_VAR = -9.2  # variance floor 1e-4 in normalised units, which bounds the likelihood


@dataclass(frozen=True)
class Config:
    """Configuration of a network, stored in its checkpoint. Lengths are in time steps, widths in features."""

    input_token_len: int = whole(96, 2**16)
    output_token_len: int = whole(96, 2**16)
    seq_len: int = whole(672, 2**24)  # training context; with norm='causal' the span of the statistics
    d_model: int = whole(512, 2**16)
    n_heads: int = whole(8, 2**12)
    d_ff: int = whole(2048, 2**18)
    e_layers: int = whole(1, 2**10)
    dropout: float = real(0.1, 0, 0.99)
    activation: str = choice("relu", "gelu")
    norm: str = choice("causal", "window", "none")
    rope_index: str = choice("time", "flat")
    channels: str = choice("joint", "independent")
    stochastic_head: bool = flag(False)
    # seasons in time steps whose profile is left out of what the model reads (models/layers/profile.py)
    profile: str = lengths("none", "found", most=2**24)
    any_length: bool = flag(False, late=True)  # trained on contexts from LEAST patches up to seq_len
    usual_len: int = whole(2**24, 2**24, late=True)  # longest context that is read unless another is asked for
    head_multiple: ClassVar[int] = 4  # of the width of a head: half of its rotary pairs rotate
    # what a family may offer beside: contexts of any number of time steps, padded on the left by NaN; decoding by a
    # sliding window and other variants of the rollout; levels of own quantiles
    pads: ClassVar[bool] = False
    slides: ClassVar[bool] = True
    levels: ClassVar[tuple[float, ...]] = ()

    def __post_init__(self):
        for field in fields(self):  # as built-in types, for checkpoints
            object.__setattr__(self, field.name, checked(field, getattr(self, field.name), f"`{field.name}`"))
        if self.input_token_len != self.output_token_len:
            raise UserError("`output_token_len` must equal `input_token_len`: forecasts are fed back as patches")
        if self.d_model % (self.n_heads * self.head_multiple):
            raise UserError(
                f"`d_model` {self.d_model} must be `n_heads` {self.n_heads} times a multiple of {self.head_multiple} "
                "(rotary pairs)"
            )
        if self.seq_len < self.input_token_len or self.seq_len % self.input_token_len:
            raise UserError(
                f"`seq_len` {self.seq_len} must be a multiple of the patch, `input_token_len` {self.input_token_len}"
            )

    @property
    def context(self) -> int:
        """Time steps of context that are read unless others are asked for."""
        return min(self.seq_len, self.usual_len // self.input_token_len * self.input_token_len)

    @property
    def long_head(self) -> int:
        """Patches that a second head forecasts in one pass; 0 without."""
        return 0

    @property
    def tested(self) -> int:
        """Time steps of context in tests on a data set, unless others are asked for."""
        return self.context

    @property
    def shortest(self) -> int:
        """Time steps that a model of any length needs at least."""
        return LEAST * self.input_token_len

    def reads(self, context: int, horizon: int) -> int:
        """How many of these time steps of context are read for a forecast of ``horizon``."""
        return context

    def planned(self, context: int) -> int:
        """The context under which speed-ups are stored: this one, or a common one where every series has its own."""
        return self.seq_len if self.pads else context

    def cacheable(self, variables: int) -> bool:
        """Whether cached keys stay valid: not with a rotary index that depends on the length of the sequence."""
        return self.rope_index == "time" or self.channels == "independent" or variables == 1

    @classmethod
    def of(cls, configs) -> Self:
        """From any object with attributes of these names; others are ignored.

        With ``use_norm``, as in the public code, defaults are its window normalisation and flat rotary index.

        Raises:
            UserError: invalid values.
        """
        if isinstance(configs, cls):
            return configs
        given = vars(configs)
        values = {field.name: given[field.name] for field in fields(cls) if field.name in given}
        if "use_norm" in given:
            values = {"norm": "window" if given["use_norm"] else "none", "rope_index": "flat"} | values
        return cls(**values)

    def scaled(self, d_model: float, n_heads: float, d_ff: float, e_layers: float) -> "Config":
        """This configuration with its sizes multiplied, rounded so that heads divide the width into rotary pairs."""
        heads = max(1, round(self.n_heads * n_heads))
        return replace(
            self,
            n_heads=heads,
            d_model=4 * heads * max(1, round(self.d_model * d_model / (4 * heads))),
            d_ff=max(1, round(self.d_ff * d_ff)),
            e_layers=max(1, round(self.e_layers * e_layers)),
        )


class Model(nn.Module):
    """The Timer-XL network. State-dict names and shapes are those of the public (OpenLTM) code."""

    one_call, at_once = False, 1  # as a draft it proposes one patch per call
    reads_target = False
    draft_itself = "self"  # the draft that is used where none is named and none was trained
    usual: ClassVar[dict[str, bool]] = {}  # options of the forecaster whose default is True for this model
    tokens = 1  # per patch and variable
    biased = True  # whether embedding and head have biases
    layer: type[nn.Module] = Block
    statistics = staticmethod(window_statistics)  # for norm='window'

    def __init__(self, configs: Config):
        super().__init__()
        configs = Config.of(configs)
        self.configs = configs  # as given, for the checkpoint
        self.config = configs  # sizes of this network, which a draft scales
        self.n_heads = configs.n_heads
        self.head_dim = configs.d_model // configs.n_heads
        self.embedding = nn.Linear(configs.input_token_len, configs.d_model, bias=self.biased)
        self.blocks: Any = nn.Module()
        self.blocks.attn_layers = nn.ModuleList(
            self.layer(configs.d_model, configs.n_heads, configs.d_ff, configs.dropout, configs.activation)
            for _ in range(configs.e_layers)
        )
        self.blocks.norm = nn.LayerNorm(configs.d_model)
        self.head = nn.Linear(configs.d_model, configs.output_token_len, bias=self.biased)
        if configs.stochastic_head:
            self.log_var_head = nn.Linear(configs.d_model, configs.output_token_len)
        # set by :meth:`prepare`: cached tables, and a compiled pass
        self.kept_tables: dict[tuple, Tables] | None = None
        self.compiled_pass: Callable | None = None

    def prepare(self, compiled_pass: Callable | None = None) -> None:
        """Fix the weights: cache tables, and run passes of static shape with ``compiled_pass``, if given."""
        self.kept_tables, self.compiled_pass = {}, compiled_pass

    def forward(self, x: Tensor, x_mark: Tensor | None = None, y_mark: Tensor | None = None) -> Tensor:
        """The mean of the patch that follows each patch of x.

        Args:
            x: ``[B, L, C]``, L a multiple of the patch length.
            x_mark, y_mark: time features, unused; for compatibility with the common signature.

        Returns:
            ``[B, N·P, C]``: patch n is the forecast of what follows input patch n.
        """
        return from_patches(self.predict(to_patches(x, self.config.input_token_len))[0])

    def predict(self, patches: Tensor, want: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance after the last ``want`` (all by default) patches of whole windows ``[B, N, C, P]``."""
        return self.emit(*self.features(patches, want))

    def features(
        self, patches: Tensor, want: int | None = None, before: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the output heads, see :meth:`run`; ``want`` as in :meth:`predict`.

        The first ``before[b]`` patches of row b are padding.
        """
        count = patches.shape[1]
        if self.config.norm == "window":
            level, scale = self.window_statistics(patches, before)
        elif self.config.norm == "causal":
            window = self.config.seq_len // self.config.input_token_len
            moments = nn.functional.pad(patch_moments(patches), (0, 0, 0, 0, window - 1, 0))
            first = torch.zeros(1, dtype=torch.long, device=patches.device) if before is None else -before
            level, scale = running_statistics(moments, window, first)
        else:
            level, scale = patches.new_zeros(len(patches), 1, 1), patches.new_ones(len(patches), 1, 1)
        tables = self.tables(count, patches.shape[2]).padded(before)
        return self.run(
            patches, level, scale, tables, slice(0, count), count, want or count, lambda layer, key, value: (key, value)
        )

    def window_statistics(self, patches: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Level and scale of windows ``[B, N, C, P]``; the first ``before[b]`` patches of row b are padding."""
        if before is None:
            return self.statistics(patches)
        level, scale = patches.new_zeros(2, len(patches), 1, patches.shape[2])
        for count in before.unique().tolist():
            rows = before == count
            level[rows], scale[rows] = self.statistics(patches[rows, count:])
        return level, scale

    def turns(self, index: Tensor) -> Tensor:
        """Rotary embeddings at these positions, of the first half of every head."""
        return turns(index, self.head_dim, self.head_dim // 2)

    def tables(self, capacity: int, variables: int, attention_window: int = 0) -> Tables:
        """Tables for passes over at most ``capacity`` patches."""
        if self.kept_tables is None:
            return Tables(self, capacity, variables, attention_window)
        if self.config.rope_index == "time":
            capacity = next_power(capacity)  # what is kept serves shorter ones, too
        key = capacity, variables, attention_window
        if key not in self.kept_tables:
            self.kept_tables[key] = Tables(self, *key)
        return self.kept_tables[key]

    def open_target(self, context: Tensor, capacity: int, how: Rollout) -> TargetSession:
        """See :class:`models.sessions.base.Target`."""
        if how.rollout == "sliding":
            return SlidingSession(self, context, capacity)
        session = CachedSession(self, context, capacity, how.attention_window)
        return RenormedSession(session, context, capacity, how.renorm_every) if how.renorm_every else session

    def open_draft(
        self, context: Tensor, capacity: int, target: TargetSession | None = None
    ) -> CachedSession | SlidingSession:
        """See :class:`models.sessions.base.Draft`; cached if exact and without window statistics, else sliding."""
        cached = self.config.norm != "window" and self.config.cacheable(context.shape[2])
        return (CachedSession if cached else SlidingSession)(self, context, capacity)

    def run(
        self,
        patches: Tensor,
        level: Tensor,
        scale: Tensor,
        tables: Tables,
        index: slice | Tensor,
        keys: int,
        want: int,
        store,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One pass over T new patches ``[B, T, C, P]``.

        Args:
            level, scale: normalisation of the patches, ``[B, T or 1, C]`` each.
            tables: see :meth:`tables`.
            index: positions of the patches; a slice, or ``[B, T]`` where rows differ.
            keys: number of patches that ``store`` returns.
            want: number of last positions to predict; the last layer computes only these.
            store: ``store(layer, keys, values)``, see :class:`Attention`.

        Returns:
            last hidden states ``[B, want, C, d_model]``, and level and scale of their patches, each
            ``[B, want or 1, C, 1]``; the arguments of :meth:`emit`.
        """
        count, variables = patches.shape[1:3]
        normalised = (patches - level.unsqueeze(-1)) / scale.unsqueeze(-1)
        x = self.embedding(normalised.to(self.blocks.norm.weight.dtype).flatten(1, 2))
        turn = tables.rotations(index)
        last = len(self.blocks.attn_layers) - 1
        for i, block in enumerate(self.blocks.attn_layers):
            queries = want if i == last else count
            mask = tables.mask(i, index, queries, keys)
            x = block(x, queries * variables, mask, turn, lambda key, value, i=i: store(i, key, value))
        x = self.blocks.norm(x).unflatten(1, (want, variables))

        return x, level[:, -want:].unsqueeze(-1), scale[:, -want:].unsqueeze(-1)

    def emit(self, hidden: Tensor, level: Tensor, scale: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance (None without ``stochastic_head``) of the next patch, each ``[B, want, C, P]``."""
        tokens, shape = hidden.flatten(1, 2), hidden.shape[1:3]  # flattened, so that the linear map is a single call
        mean = torch.addcmul(level, self.head(tokens).unflatten(1, shape).to(level.dtype), scale)
        if not self.config.stochastic_head:
            return mean, None
        log_var = self.log_var_head(tokens).unflatten(1, shape).to(level.dtype)
        return mean, log_var.clamp(min=MIN_LOG_VAR) + 2 * scale.log()
