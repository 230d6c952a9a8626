"""A Timer-XL block for inference: the arithmetic of ``models/layers/attention.py`` in fewer, larger calls.

With few tokens the launch of an operation costs more than its arithmetic.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leapcast.models.layers.attention import Block
from leapcast.models.layers.linear import linear_map
from leapcast.models.layers.rotary import rotate


class FusedBlock(nn.Module):
    """An inference version of a :class:`Block` in evaluation mode; it takes over the weights of that block.

    Args:
        block: loses its projections.
        last: whether it is the last layer, which may compute fewer queries than keys.
    """

    def __init__(self, block: Block, last: bool):
        super().__init__()
        attention = block.attention
        self.heads = attention.n_heads, attention.head_dim
        self.bias = attention.bias  # the projections are deleted below
        parts = [attention.query_projection, attention.key_projection, attention.value_projection]
        self.query_key_value = _joined(parts)
        if last:
            self.query, self.key_value = _joined(parts[:1]), _joined(parts[1:])
        self.out = _joined([attention.out_projection])
        del attention.query_projection, attention.key_projection, attention.value_projection, attention.out_projection
        self.widen, self.narrow = _joined([block.conv1]), _joined([block.conv2])
        self.norm1, self.norm2 = _layer_norm(block.norm1), _layer_norm(block.norm2)
        self.activation = block.activation

    def forward(self, x: Tensor, queries: int, mask: Tensor | None, turn: Tensor, store) -> Tensor:
        """As :meth:`Block.forward`."""
        if queries == x.shape[1]:
            new = self.query_key_value(x).unflatten(-1, (3, *self.heads))
            query, key = rotate(new[:, :, :2], turn.unsqueeze(-2)).unbind(2)
        else:
            new = self.key_value(x).unflatten(-1, (2, *self.heads))
            key, x = rotate(new[:, :, 0], turn), x[:, -queries:]
            query = rotate(self.query(x).unflatten(-1, self.heads), turn[..., -queries:, :, :])
        key, value = store(key.transpose(1, 2), new[:, :, -1].transpose(1, 2))
        attended = F.scaled_dot_product_attention(query.transpose(1, 2), key, value, attn_mask=mask)
        x = self.norm1(x + self.out(attended.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.narrow(self.activation(self.widen(x))))


def _joined(maps: Sequence[Any]) -> Callable[[Tensor], Tensor]:
    """One linear map whose output concatenates those of all maps."""
    return linear_map(torch.cat([m.weight.flatten(1) for m in maps]), torch.cat([m.bias for m in maps]))


def _layer_norm(norm: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    shape, weight, bias = list(norm.normalized_shape), norm.weight.detach(), norm.bias.detach()
    return partial(F.layer_norm, normalized_shape=shape, weight=weight, bias=bias, eps=norm.eps)
