"""Cached sessions of models that normalise by all values so far, and forecast quantiles."""

import torch
from torch import Tensor

from leapcast.models.layers.normalisation import cumulative_sums, statistics_of_sums
from leapcast.models.layers.patches import padding, put
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
    reads_padding = True

    def __init__(self, model, context: Tensor, capacity: int, quantiles: str = "none"):
        super().__init__(model, context, capacity)
        self.context = context.shape[1]
        self.tables = self.tables.padded(padding(model.split(context)))
        self.deciles: Tensor | None = None  # of the last pass, [B, want, 1, P, 9]
        self.opening: tuple[Tensor, ...] = ()  # inputs of the heads at the end of the context
        self.quantiles = quantiles
        self.long: tuple[Tensor, Tensor] | None = None
        size = (len(context), capacity + 1 - self.context, *context.shape[2:], len(model.config.levels))
        self.recorded = context.new_empty(size) if quantiles != "none" else None

    def open_statistics(self, context: Tensor) -> None:
        self.sums = context.new_zeros(len(context), 1 + self.capacity * self.width, 3, dtype=torch.float64)

    def statistics(
        self, patches: Tensor, row: Tensor | None, patch: slice | Tensor, first: Tensor | None, whole: bool
    ) -> tuple[Tensor, Tensor]:
        """Level and scale of new tokens, ``[B, T · tokens per patch]`` each."""
        tokens = self.model.split(patches)
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
        median, self.deciles = self.model.next(*features)
        return median, None

    def extend(self, patches: Tensor, want: int, rows: Tensor | None = None) -> Moments:
        begins = not self.opening
        moments = super().extend(patches, want, rows)
        if begins:  # the first of the wanted outputs is that after the context
            self.opening = tuple(f[:, :1] for f in self.features)
        if self.recorded is not None:
            assert self.deciles is not None, "of the pass just made"
            put(self.recorded, self.lengths - want + 1 - self.context, self.deciles)
        return moments

    def ahead(self) -> tuple[Tensor, Tensor]:
        """Medians ``[B, patches, 1, P]`` and deciles of the long head at the end of the context; computed once."""
        if self.long is None:
            self.long = self.model.ahead(*self.opening)
        return self.long

    def own_quantiles(self, rows: Tensor | slice, steps: int) -> Tensor | None:
        if self.recorded is None:
            return None
        own = self.recorded[rows, :steps]
        if self.quantiles == "own":
            return own
        (ahead, deciles), median = self.ahead(), len(self.model.config.levels) // 2
        move = own[..., median] - ahead[rows, :steps]
        return deciles[rows, :steps] + move.unsqueeze(-1)

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        rows = rows.to(self.keys[0].device)
        self.opening = tuple(f[rows] for f in self.opening)
        self.recorded = None if self.recorded is None else self.recorded[rows]
        self.long = self.long and (self.long[0][rows], self.long[1][rows])
        self.deciles = None
