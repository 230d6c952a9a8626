"""Cached sessions of models that normalise by all values so far, and forecast quantiles."""

import torch
from torch import Tensor

from leapcast.models.layers.normalisation import cumulative_sums, statistics_of_sums
from leapcast.models.layers.patches import put
from leapcast.models.sessions.base import Moments
from leapcast.models.sessions.cached import CachedSession


class RunningSession(CachedSession):
    """A cached session of TimesFM (``models/timesfm.py``): statistics of all tokens so far, padding, and quantiles.

    Args:
        model: the network.
        context: ``[B, N, 1, P]``, padded on the left by NaN.
        capacity: most patches per row, proposals included.
        quantiles: of the patches after the context, what is recorded: ``none``, ``own``, or ``long`` (those of the
            long head, moved to the rollout's median).
    """

    statistics_held = ("sums",)

    def __init__(self, model, context: Tensor, capacity: int, quantiles: str = "none"):
        super().__init__(model, context, capacity)
        self.context = context.shape[1]
        tokens = context.flatten(1).unflatten(1, (-1, model.config.token_len))
        self.tables = self.tables.padded(tokens[..., -1].isnan().sum(1))
        self.columns: Tensor | None = None  # of the last pass, [B, want, 1, P, 10]
        self.opening: tuple[Tensor, ...] = ()  # inputs of the heads at the end of the context
        self.quantiles, self.long = quantiles, None
        size = (*context.shape[:1], capacity + 1 - self.context, *context.shape[2:], len(model.levels))
        self.recorded = context.new_empty(size) if quantiles != "none" else None

    def open_statistics(self, context: Tensor) -> None:
        self.sums = context.new_zeros(len(context), 1 + self.capacity * self.width, 3, dtype=torch.float64)

    def statistics(
        self, patches: Tensor, row: Tensor | None, patch: slice | Tensor, first: Tensor | None, whole: bool
    ) -> tuple[Tensor, Tensor]:
        """Level and scale of new tokens, ``[B, T · tokens per patch]`` each."""
        tokens = patches.flatten(1).unflatten(1, (-1, self.model.config.token_len))
        count = tokens.shape[1]
        if isinstance(patch, slice):
            start = patch.start * self.width
            sums = cumulative_sums(tokens, self.sums[:, start : start + 1])
            self.sums[:, start + 1 : start + 1 + count] = sums
        else:
            place = patch[:, :1] * self.width + torch.arange(1 + count, device=patch.device)
            sums = cumulative_sums(tokens, self.sums[row, place[:, :1]])
            self.sums[row, place[:, 1:]] = sums
        return statistics_of_sums(sums, patches.dtype)

    def emit(self, features: tuple[Tensor, ...]) -> Moments:
        median, self.columns = self.model.emit(*features)
        return median, None

    def extend(self, patches: Tensor, want: int, rows: Tensor | None = None) -> Moments:
        begins = not self.opening
        moments = super().extend(patches, want, rows)
        if begins:  # the first of the wanted outputs is that after the context
            self.opening = tuple(f[:, :1] for f in self.features)
        if self.recorded is not None:
            put(self.recorded, self.lengths - want + 1 - self.context, self.columns[..., 1:])
        return moments

    def ahead(self) -> Tensor:
        """All columns of the long head at the end of the context, ``[B, patches, 1, P, 10]``; computed once."""
        if self.long is None:
            self.long = self.model.ahead(*self.opening)[:, 0].unflatten(2, (self.model.long_head, -1)).transpose(1, 2)
        return self.long

    def forecast_quantiles(self, rows: Tensor | slice, steps: int) -> Tensor | None:
        """Recorded quantiles of the first ``steps`` patches of these rows, ``[rows, steps, 1, P, 9]``."""
        if self.recorded is None:
            return None
        own = self.recorded[rows, :steps]
        if self.quantiles == "own":
            return own
        ahead, median = self.ahead()[rows, :steps, ..., 1:], len(self.model.levels) // 2
        return ahead - ahead[..., median : median + 1] + own[..., median : median + 1]

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        rows = rows.to(self.keys[0].device)
        self.tables, self.opening = self.tables.of(rows), tuple(f[rows] for f in self.opening)
        self.recorded = None if self.recorded is None else self.recorded[rows]
        self.long = None if self.long is None else self.long[rows]
        self.columns = None
