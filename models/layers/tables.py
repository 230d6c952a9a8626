"""Precomputed tables by position: rotary embeddings, attention masks and attention biases."""

from copy import copy

import torch
from torch import Tensor

from leapcast.models.layers.rotary import turns


class Tables:
    """Tables for a Timer-XL network and at most ``capacity`` patches of C variables.

    Args:
        model: a Timer-XL network (``models/timer_xl.py``).
        capacity: most patches per row.
        variables: C.
        attention_window: how many patches back a query sees; 0 means all.
    """

    def __init__(self, model, capacity: int, variables: int, attention_window: int):
        self.like = like = model.blocks.norm.weight  # of the dtype and on the device of keys and values
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


class TokenTables:
    """Angles and mask of tokens whose positions do not count the padding before them, for rotary embeddings in halves.

    Args:
        model: has ``stacked_xf`` and ``head_dim`` as ``models/timesfm.py``.
        capacity: most patches per row.
        tokens: per patch.
    """

    def __init__(self, model, capacity: int, tokens: int):
        self.like = like = model.stacked_xf[0].pre_attn_ln.scale  # of the dtype and on the device of keys and values
        count = capacity * tokens
        self.index = torch.arange(count, device=like.device)
        turn = turns(torch.arange(count), model.head_dim, model.head_dim).to(like.device)
        precise = torch.float64 if like.dtype == torch.float64 else torch.float32
        self.cos, self.sin = (part.to(precise).unsqueeze(1) for part in (turn.real, turn.imag))
        self.before: Tensor | None = None  # [B, 1], padded tokens of each row; None without

    def padded(self, before: Tensor) -> "TokenTables":
        """These tables for rows that begin with so many padded tokens, ``[B]``."""
        if not before.any():
            return self
        tables = copy(self)
        tables.before = before.unsqueeze(1)
        return tables

    def of(self, rows: Tensor) -> "TokenTables":
        """The tables of these rows."""
        if self.before is None:
            return self
        tables = copy(self)
        tables.before = self.before[rows]
        return tables

    def turns(self, place: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine at tokens ``place`` (a slice, or ``[B, T]``): ``[1 or B, T, 1, D / 2]`` each."""
        index = self.index[place] if self.before is None else (self.index[place] - self.before).clamp(min=0)
        cos, sin = self.cos[index], self.sin[index]
        return (cos, sin) if index.ndim > 1 else (cos[None], sin[None])

    def mask(self, place: slice | Tensor, keys: int) -> Tensor:
        """Whether tokens see each of the first ``keys`` tokens: ``[1 or B, 1, T, keys]``.

        Padding is seen by padding only, so that no row of the attention is empty.
        """
        query, key = self.index[place].unsqueeze(-1), self.index[:keys]
        seen = query >= key
        if self.before is not None:
            before = self.before.unsqueeze(-1)
            seen = seen & ((key >= before) | (query < before))
        return seen.unsqueeze(-3) if seen.ndim == 3 else seen[None, None]
