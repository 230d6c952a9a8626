"""The Timer-XL block. Module names follow the public (OpenLTM) state dict, so that its checkpoints load strictly."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leapcast.models.layers.linear import Pointwise
from leapcast.models.layers.rotary import rotate


class VariableBias(nn.Module):
    """A learned attention bias per head, for keys of the same variable (row 1) and of other variables (row 0)."""

    def __init__(self, n_heads: int):
        super().__init__()
        self.emb = nn.Embedding(2, n_heads)

    def forward(self, variables: int) -> Tensor:
        """The bias between variables, ``[H, C, C]``."""
        same = torch.eye(variables, dtype=torch.long, device=self.emb.weight.device)
        return self.emb(same).permute(2, 0, 1)


class Attention(nn.Module):
    """Multi-head attention with rotary embeddings and a bias between variables."""

    def __init__(self, d_model: int, n_heads: int):
        super().__init__()
        self.n_heads, self.head_dim = n_heads, d_model // n_heads
        self.query_projection = nn.Linear(d_model, d_model)
        self.key_projection = nn.Linear(d_model, d_model)
        self.value_projection = nn.Linear(d_model, d_model)
        self.out_projection = nn.Linear(d_model, d_model)
        self.inner_attention: Any = nn.Module()
        self.inner_attention.attn_bias = VariableBias(n_heads)

    def bias(self, variables: int) -> Tensor | None:
        """The attention bias between variables, ``[H, 1, C, 1, C]``, equal for all times.

        None for one variable, where a constant bias does not change the softmax.
        """
        if variables == 1:
            return None
        return (self.inner_attention.attn_bias(variables) * self.head_dim**-0.5)[:, None, :, None]

    def forward(self, x: Tensor, queries: int, mask: Tensor | None, turn: Tensor, store) -> Tensor:
        """Attend from the last ``queries`` tokens of x ``[B, tokens, d_model]`` to all that ``store`` returns.

        Args:
            mask: added to the scores, ``[1 or B, 1 or H, queries, keys]``; None where every key is seen.
            turn: rotary embeddings of the tokens, ``[(B,) tokens, 1, D / 2]``.
            store: ``store(keys, values)`` takes those of the new tokens, ``[B, H, tokens, D]``, and returns those to
                attend to, including the cached ones.
        """

        def heads(projection, tokens):
            return projection(tokens).unflatten(-1, (self.n_heads, -1))

        query = rotate(heads(self.query_projection, x[:, -queries:]), turn[..., -queries:, :, :])
        key = rotate(heads(self.key_projection, x), turn).transpose(1, 2)
        key, value = store(key, heads(self.value_projection, x).transpose(1, 2))
        query, attend = query.transpose(1, 2), F.scaled_dot_product_attention
        if not torch.is_autocast_enabled(x.device.type):
            out = attend(query, key, value, attn_mask=mask)
        else:  # in training: CPUs are slow backwards in bfloat16
            with torch.autocast(x.device.type, enabled=False):
                out = attend(query.float(), key.float(), value.float(), attn_mask=mask)
        return self.out_projection(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Post-norm transformer layer; ``models/layers/fused.py`` is its inference version."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float, activation: str):
        super().__init__()
        self.attention = Attention(d_model, n_heads)
        self.conv1 = Pointwise(d_model, d_ff)
        self.conv2 = Pointwise(d_ff, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.activation = {"relu": torch.relu_, "gelu": F.gelu}[activation]  # in place, as this is the largest tensor

    def bias(self, variables: int) -> Tensor | None:
        """See :meth:`Attention.bias`."""
        return self.attention.bias(variables)

    def forward(self, x: Tensor, queries: int, mask: Tensor | None, turn: Tensor, store) -> Tensor:
        """x ``[B, tokens, d_model]`` -> the last ``queries`` tokens, ``[B, queries, d_model]``."""
        attended = self.attention(x, queries, mask, turn, store)
        x = self.norm1(x[:, -queries:] + self.dropout(attended))
        return self.norm2(x + self.dropout(self.conv2(self.dropout(self.activation(self.conv1(x))))))
