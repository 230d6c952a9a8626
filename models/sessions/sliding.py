"""Sessions with a sliding window that is recomputed for every patch, as in the public code."""

import torch
from torch import Tensor

from leapcast.models.layers.patches import padded_patches, put, take, windows_of
from leapcast.models.sessions.base import BaseSession, Moments, chosen


class SlidingSession(BaseSession):
    """A sliding-window session of a Timer-XL network.

    Args:
        model: has ``features(windows, want)`` and ``emit``.
        context: ``[B, N, C, P]``, shorter rows padded on the left by patches of NaN; its length is that of the window.
        capacity: most patches per row, proposals included.
        lean: compute the output of the last position only; the public code computes all positions.
    """

    emitted_only = True

    def __init__(self, model, context: Tensor, capacity: int, lean: bool = True):
        self.model, self.window, self.lean = model, context.shape[1], lean
        self.before = padded_patches(context)  # a shorter row has a shorter window
        self.history = context.new_zeros(len(context), capacity, *context.shape[2:])
        self.lengths = self.features_end = self.features_at = torch.zeros(len(context), dtype=torch.long)

    def extend(self, patches: Tensor, want: int) -> Moments:
        put(self.history, self.lengths, patches if self.before is None else patches.nan_to_num(0))
        self.lengths = self.lengths + patches.shape[1]
        span = take(self.history, self.lengths - self.window - want + 1, self.window + want - 1)
        before = None if self.before is None else self.before.repeat_interleave(want)
        features = self.model.features(windows_of(span, self.window), 1 if self.lean else None, before)
        mean, log_var = self.model.emit(*features)
        self.features = tuple(f[:, -1].unflatten(0, (-1, want)) for f in features)
        self.features_end = self.features_at = self.lengths
        mean = mean[:, -1].unflatten(0, (-1, want))
        self.moments_out = mean, None if log_var is None else log_var[:, -1].unflatten(0, (-1, want))
        return self.moments_out

    def keep(self, rows: Tensor) -> None:
        self.lengths = self.lengths[rows]
        self.features_end, self.features_at = self.features_end[rows], self.features_at[rows]
        rows = rows.to(self.history.device)
        self.history, self.features = self.history[rows], tuple(f[rows] for f in self.features)
        self.before = None if self.before is None else self.before[rows]
        self.moments_out = chosen(self.moments_out, rows)
