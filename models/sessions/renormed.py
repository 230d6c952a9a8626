"""A cached session that recomputes a row's window and its statistics after every R emitted patches."""

import torch
from torch import Tensor

from leapcast.models.layers.patches import put, take
from leapcast.models.sessions.base import BaseSession, Moments
from leapcast.models.sessions.cached import CachedSession


class RenormedSession(BaseSession):
    """The session of ``--renorm_every R``. Each row has its own segment boundaries.

    Args:
        inner: a new session for the same context; its rows are restarted at each boundary.
        context: ``[B, N, C, P]``; its length is that of the window.
        capacity: most patches per row, proposals included.
        renorm_every: R, patches per segment.
    """

    def __init__(self, inner: CachedSession, context: Tensor, capacity: int, renorm_every: int):
        self.inner, self.window, self.every = inner, context.shape[1], renorm_every
        self.history = context.new_zeros(len(context), capacity, *context.shape[2:])
        self.start = torch.zeros(len(context), dtype=torch.long)  # the first patch of each row's window
        self.lengths = inner.lengths

    def room(self) -> Tensor:
        """See :meth:`TargetSession.room`; a full segment remains if only the last patch of one is unprocessed."""
        return self.every - (self.lengths + 1 - self.start - self.window).clamp(min=0) % self.every

    def extend(self, patches: Tensor, want: int) -> Moments:
        put(self.history, self.lengths, patches)
        due = torch.nonzero(self.lengths + 1 - self.start - self.window == self.every).squeeze(1)
        self.restarted = 0
        if len(due):
            window = take(self.history, self.lengths + 1 - self.window, self.window)[due.to(self.history.device)]
            self.start[due] = self.lengths[due] + 1 - self.window
            self.inner.restart(window, due)
            if len(due) == len(self.start):
                patches = torch.cat((window[:, :-1], patches), 1)
            elif self.window > 1:  # an additional pass over the restarted rows only
                self.inner.extend(window[:, :-1], 1, rows=due)
                self.restarted = len(due)
        moments = self.inner.extend(patches, want)
        self.lengths = self.inner.lengths + self.start
        return moments

    def settle(self, first: Tensor, emitted: Tensor) -> None:
        put(self.history, first, emitted)

    def rollback(self, lengths: Tensor, read: Tensor | None = None) -> None:
        self.inner.rollback(lengths - self.start, None if read is None else read - self.start)
        self.lengths = lengths.clone()

    def keep(self, rows: Tensor) -> None:
        self.inner.keep(rows)
        self.lengths = self.lengths[rows]
        self.start, self.history = self.start[rows], self.history[rows.to(self.history.device)]

    def last_features(self) -> tuple[Tensor, ...]:
        return self.inner.last_features()

    def outputs(self, ahead: int) -> tuple[Moments, Tensor] | None:
        # those past the end of a row's segment are there for the sake of other rows
        within = self.window + self.every - 1 - self.inner.features_at
        return self.inner._outputs(ahead, within.clamp(min=0))
