"""Precomputed tables by position: rotary embeddings, attention masks and attention biases."""

from copy import copy
from typing import Self

import torch
from torch import Tensor

from leapcast.models.layers.rotary import turns


def next_power(count: int) -> int:
    """The least power of two that is at least ``count``."""
    return 1 << (count - 1).bit_length()


class Padded:
    """Tables for rows that begin with padding, which has no position and is seen by padding only.

    Padding sees padding, so that no row of the attention is empty.
    """

    index: Tensor  # 0, 1, …
    before: Tensor | None = None  # [B, 1], how many entries of each row are padding; None without

    def padded(self, before: Tensor | None) -> Self:
        """These tables for rows that begin with so many padded entries, ``[B]``."""
        if before is None or not before.any():
            return self
        tables = copy(self)
        tables.before = before.unsqueeze(1)
        return tables

    def of(self, rows: Tensor) -> Self:
        """The tables of these rows."""
        if self.before is None:
            return self
        tables = copy(self)
        tables.before = self.before[rows]
        return tables

    def places(self, index: slice | Tensor) -> slice | Tensor:
        """Positions of the entries ``index`` (a slice for all rows, or ``[B, T]``), which do not count the padding."""
        return index if self.before is None else (self.index[index] - self.before).clamp(min=0)

    def hidden(self, query: Tensor, keys: int) -> Tensor:
        """Whether each of the first ``keys`` entries is padding that ``query`` ``[(B,) T]`` does not see."""
        assert self.before is not None, "without padding nothing is hidden"
        before = self.before.unsqueeze(-1)
        return (self.index[:keys] < before) & (query.unsqueeze(-1) >= before)


class Tables(Padded):
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
        self.index = time.to(like.device)

    def rotations(self, index: slice | Tensor) -> Tensor:
        """Rotations of tokens of patches ``index`` (a slice for all rows, or ``[B, T]``): ``[(B,) T·C, 1, D / 2]``."""
        return self.turn[self.places(index)].flatten(-4, -3)

    def mask(self, layer: int, index: slice | Tensor, queries: int, keys: int) -> Tensor | None:
        """Mask from the last ``queries`` of the patches ``index`` to the first ``keys`` patches; None: all are seen."""
        bias = self.biases[layer]
        alike = isinstance(index, slice) and self.before is None
        if bias is None and queries == 1 and alike and not self.attention_window:
            return None
        seen = self._seen(index, queries, keys)
        if self.before is not None:
            padded = self.hidden(self.index[index][..., -queries:], keys)
            seen = seen.masked_fill(padded, float("-inf"))
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


class TokenTables(Padded):
    """Angles and mask of tokens, for rotary embeddings in halves.

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

    def turns(self, place: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine at tokens ``place`` (a slice, or ``[B, T]``): ``[1 or B, T, 1, D / 2]`` each."""
        index = self.places(place)
        cos, sin = self.cos[index], self.sin[index]
        return (cos, sin) if cos.ndim > 3 else (cos[None], sin[None])

    def mask(self, place: slice | Tensor, keys: int) -> Tensor:
        """Whether tokens see each of the first ``keys`` tokens: ``[1 or B, 1, T, keys]``."""
        query = self.index[place]
        seen = query.unsqueeze(-1) >= self.index[:keys]
        if self.before is not None:
            seen = seen & ~self.hidden(query, keys)
        return seen.unsqueeze(-3) if seen.ndim == 3 else seen[None, None]
