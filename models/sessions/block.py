"""A sliding window of emitted patches for drafts that forecast a block of patches per call."""

import torch
from torch import Tensor

from leapcast.models.layers.patches import put, take
from leapcast.models.sessions.base import BaseSession, Draw, Moments, mean_draw


class BlockSession(BaseSession):
    """A session of a :class:`models.block_draft.BlockDraft`.

    Args:
        model: has ``forecast(windows)``, which returns at least one patch, and a window of ``config.seq_len``.
        context: ``[B, N, C, P]``; where it is shorter than the window, or padded by NaN, 0 is read before it.
        capacity: most patches per row, proposals included.
    """

    emitted_only = True

    def __init__(self, model, context: Tensor, capacity: int):
        self.model, self.window = model, model.config.seq_len // model.config.input_token_len
        self.lack = max(0, self.window - context.shape[1])
        self.history = context.new_zeros(len(context), self.lack + capacity, *context.shape[2:])
        self.lengths = torch.zeros(len(context), dtype=torch.long)

    def extend(self, patches: Tensor, want: int) -> Moments:
        """Process patches and return the mean of the next one (``want`` is 1)."""
        return self.propose(patches, want, mean_draw)[1], None

    def propose(self, pending: Tensor, k: int, draw: Draw) -> tuple[Tensor, Tensor, None]:
        patches, means, done = [], [], 0
        while done < k:
            put(self.history, self.lack + self.lengths, pending.nan_to_num(0))
            self.lengths = self.lengths + pending.shape[1]
            window = take(self.history, self.lack + self.lengths - self.window, self.window)
            mean = self.model.forecast(window)[:, : k - done]
            pending = draw(done, mean, None)
            patches.append(pending)
            means.append(mean)
            done += mean.shape[1]
        return torch.cat(patches, 1), torch.cat(means, 1), None

    def keep(self, rows: Tensor) -> None:
        self.lengths, self.history = self.lengths[rows], self.history[rows.to(self.history.device)]
