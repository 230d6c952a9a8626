"""Precomputed tables by position: rotary embeddings, attention masks and attention biases."""

import torch
from torch import Tensor


class Tables:
    """Tables for a Timer-XL network and at most ``capacity`` patches of C variables.

    Args:
        model: a Timer-XL network (``models/timer_xl.py``).
        capacity: most patches per row.
        variables: C.
        attention_window: how many patches back a query sees; 0 means all.
    """

    def __init__(self, model, capacity: int, variables: int, attention_window: int):
        like = model.blocks.norm.weight
        time = torch.arange(capacity)
        index = time.unsqueeze(1).expand(-1, variables)
        if model.config.rope_index == "flat":  # variable-major token index
            index = index + capacity * torch.arange(variables)
        precise = like.dtype == torch.float64
        rotations = model.turns(index).unsqueeze(2)
        self.turn = rotations.to(like.device, torch.complex128 if precise else torch.complex64)  # [capacity, C, 1, D/2]
        # mask values by the offset of a key from its query, 1 - capacity … capacity - 1 patches
        offset = torch.arange(1 - capacity, capacity)
        seen = (offset <= 0) & (offset > -(attention_window or capacity))
        self.seen = torch.zeros(seen.shape).masked_fill(~seen, float("-inf")).to(like)
        self.capacity = capacity
        self.biases = [block.bias(variables) for block in model.blocks.attn_layers]
        self.attention_window = attention_window

    def rotations(self, index: slice | Tensor) -> Tensor:
        """Rotations of tokens of patches ``index`` (a slice for all rows, or ``[B, T]``): ``[(B,) T·C, 1, D / 2]``."""
        return self.turn[index].flatten(-4, -3)

    def mask(self, layer: int, index: slice | Tensor, queries: int, keys: int) -> Tensor | None:
        """Mask from the last ``queries`` of the patches ``index`` to the first ``keys`` patches; None: all are seen."""
        bias = self.biases[layer]
        if bias is None and queries == 1 and isinstance(index, slice) and not self.attention_window:
            return None
        seen = self._seen(index, queries, keys)
        if bias is None:
            return seen.unsqueeze(-3) if seen.ndim == 3 else seen
        mask = seen[..., None, :, None, :, None] + bias  # tokens are time-major
        return mask.flatten(-2).flatten(-3, -2).expand(-1 if seen.ndim == 3 else 1, -1, -1, -1)

    def _seen(self, index: slice | Tensor, queries: int, keys: int) -> Tensor:
        """``[(B,) queries, keys]``: 0 where a query sees a key, minus infinity elsewhere."""
        if isinstance(index, slice):  # unfolding gives the rows from the last query to the first
            first = self.capacity - index.stop
            rows = self.seen[first : first + queries + keys - 1].unfold(0, keys, 1)
            return rows if queries == 1 else rows.flip(0)
        first = self.capacity - 1 - index[..., -queries:].unsqueeze(-1)
        return self.seen[first + torch.arange(keys, device=index.device)]
