"""Timer (Liu et al. 2024, https://arxiv.org/abs/2402.02368) for univariate series, in its public checkpoint's layout.

The checkpoint is Hugging Face's ``thuml/timer-base-84m``. Unlike Timer-XL it has gated feed-forward layers and applies
rotary embeddings to whole heads.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from leapcast.models import timer_xl
from leapcast.models.errors import UserError
from leapcast.models.fields import checked, choice, real, shown, whole
from leapcast.models.layers.normalisation import sample_statistics
from leapcast.models.layers.rotary import rotate, turns

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "gelu": F.gelu, "relu": F.relu}
FIELDS = {  # name in a public config.json -> field of Config
    "input_token_len": "input_token_len",
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "num_hidden_layers": "e_layers",
    "num_attention_heads": "n_heads",
    "hidden_act": "activation",
    "rope_theta": "rope_theta",
}
MARK = "model.embed_layer.emb.weight"  # a name by which the public weights are known
NAMES = {  # pattern of a parameter name in a public file -> name in Model
    r"model\.embed_layer\.emb\.": "embedding.",
    r"model\.layers\.": "blocks.attn_layers.",
    r"model\.norm\.": "blocks.norm.",
}


@dataclass(frozen=True)
class Config(timer_xl.Config):
    """Sizes of the network; the defaults are those of the public model with 84 million parameters."""

    seq_len: int = whole(2880, 2**24)
    d_model: int = whole(1024, 2**16)
    e_layers: int = whole(8, 2**10)
    dropout: float = real(0.0, 0, 0.99)
    activation: str = choice(*ACTIVATIONS)
    norm: str = choice("window", "causal", "none")
    channels: str = choice("independent")  # the network is univariate
    rope_theta: float = real(10000.0, 1, 1e12)
    head_multiple: ClassVar[int] = 2


def from_public(config: dict, weights: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """Configuration values and state dict of :class:`Model` from a public ``config.json`` and its weights.

    Of several output heads, the one whose length equals the input patch is used.

    Raises:
        UserError: a config.json that is not of a public Timer, or two parameters of one name.
    """
    rules, lengths = {field.name: field for field in fields(Config)}, "output_token_lens"
    try:
        if not isinstance(config, dict):
            raise UserError("it is not a JSON object")
        lacking = [name for name in (*FIELDS, lengths) if name not in config]
        if lacking:
            raise UserError(f"it lacks {lacking[0]}")
        values = {ours: checked(rules[ours], config[name], name) for name, ours in FIELDS.items()}
        if not isinstance(config[lengths], list):
            raise UserError(f"{lengths} {shown(config[lengths])} must be a list of whole numbers")
        heads = [checked(rules["output_token_len"], length, lengths) for length in config[lengths]]
        if values["input_token_len"] not in heads:
            raise UserError(f"{lengths} {shown(heads)} must have input_token_len {values['input_token_len']} in it")
    except UserError as error:
        raise UserError(f"config.json is not that of a public Timer ({error}): copy it again") from error
    head = heads.index(values["input_token_len"])
    values["output_token_len"] = patch = values["input_token_len"]
    values["seq_len"] = max(1, Config.seq_len // patch) * patch
    values["any_length"] = True
    state = {}
    for name, value in weights.items():
        if name.startswith("lm_heads."):
            if not name.startswith(f"lm_heads.{head}."):
                continue
            name = re.sub(r"^lm_heads\.\d+", "head", name)
        for theirs, ours in NAMES.items():
            name = re.sub("^" + theirs, ours, name)
        if name in state:
            raise UserError(f"model.safetensors has {shown(name)} twice, under two names: copy it again")
        state[name] = value
    return values, state


class Block(nn.Module):
    """Post-norm transformer layer with a gated feed-forward part; module names follow the public checkpoint."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float, activation: str):
        super().__init__()
        self.n_heads = n_heads
        self.self_attn = nn.ModuleDict({name: nn.Linear(d_model, d_model) for name in ("q_proj", "k_proj", "v_proj")})
        self.self_attn["o_proj"] = nn.Linear(d_model, d_model, bias=False)
        sizes = {"gate_proj": (d_model, d_ff), "up_proj": (d_model, d_ff), "down_proj": (d_ff, d_model)}
        self.ffn_layer = nn.ModuleDict({name: nn.Linear(*size, bias=False) for name, size in sizes.items()})
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.dropout, self.activation = nn.Dropout(dropout), ACTIVATIONS[activation]

    def bias(self, variables: int) -> None:
        """None: there is no attention bias."""

    def forward(self, x: Tensor, queries: int, mask: Tensor | None, turn: Tensor, store: Callable) -> Tensor:
        """See ``models/layers/attention.py``."""

        def heads(name: str, tokens: Tensor) -> Tensor:
            return self.self_attn[name](tokens).unflatten(-1, (self.n_heads, -1))

        def turned(tokens: Tensor, by: Tensor) -> Tensor:
            # rotary pairs are (i, i + D/2) here; interleaving queries and keys alike leaves the scores unchanged
            return rotate(tokens.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2), by)

        query = turned(heads("q_proj", x[:, -queries:]), turn[..., -queries:, :, :])
        key, value = turned(heads("k_proj", x), turn), heads("v_proj", x)
        key, value = store(key.transpose(1, 2), value.transpose(1, 2))
        attended = F.scaled_dot_product_attention(query.transpose(1, 2), key, value, attn_mask=mask)
        attended = self.self_attn["o_proj"](attended.transpose(1, 2).flatten(2))
        x = self.norm1(x[:, -queries:] + self.dropout(attended))
        wide = self.activation(self.ffn_layer["gate_proj"](x)) * self.ffn_layer["up_proj"](x)
        return self.norm2(x + self.dropout(self.ffn_layer["down_proj"](self.dropout(wide))))


class Model(timer_xl.Model):
    """The Timer network, with normalisation by the sample statistics of the window."""

    config: Config
    biased = False
    layer = Block
    statistics = staticmethod(sample_statistics)

    def turns(self, index: Tensor) -> Tensor:
        """Rotary embeddings at these positions, of whole heads."""
        return turns(index, self.head_dim, self.head_dim, self.config.rope_theta)
