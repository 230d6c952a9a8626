"""What a decodable model offers to the decoder, which knows nothing else of models.

A model opens a *session* for a batch of B rows. Patches are ``[B, T, C, P]``; T is the same for all rows, and rows that
need fewer are rolled back. ``lengths`` lives on the host: there the decoder knows after a round what each row keeps.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from leapcast.models.layers.patches import shared

Moments = tuple[Tensor, Tensor | None]  # mean and log-variance (None for a model without one)
Draw = Callable[[int, Tensor, Tensor | None], Tensor]


def mean_draw(i: int, mean: Tensor, log_var: Tensor | None) -> Tensor:
    """A point forecast is continued by its means."""
    return mean


class Session(Protocol):
    """The rows of one batch inside a model."""

    lengths: Tensor  # [B], on the host: patches held by each row
    emitted_only: bool  # whether it is given emitted values only, never proposals that were accepted in their place

    def extend(self, patches: Tensor, want: int) -> Moments:
        """Take in T patches per row and predict the patch after each of the last ``want`` of them.

        Returns:
            mean ``[B, want, C, P]`` and log-variance of the same shape.
        """

    def rollback(self, lengths: Tensor, read: Tensor | None = None) -> None:
        """Keep the first ``lengths[b]`` patches of row b, with their keys, values and statistics.

        Heads on the hidden states of this session read on after ``read[b]`` patches (default: ``lengths[b]``).
        """

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in this order."""

    def repeat(self, samples: int) -> None:
        """Each row becomes ``samples`` consecutive ones."""

    def propose(self, pending: Tensor, k: int, draw: Draw) -> tuple[Tensor, Tensor, Tensor | None]:
        """Go on by k patches after the pending ones: a draft's proposals, or a model's own rollout.

        Args:
            pending: ``[B, T, C, P]``, what the rows have not taken in yet.
            k: number of proposals, at least 1. The last one is not taken in.
            draw: ``draw(i, mean, log_var) -> patches``: how proposals, from the i-th on, are made from their
                distributions, ``[B, n, C, P]``.

        Returns:
            patches, means and log-variances (or None), each ``[B, k, C, P]``.
        """


class TargetSession(Session, Protocol):
    """What only targets are asked for."""

    restarted: int  # rows that the last ``extend`` formed anew in a pass of their own

    def room(self) -> Tensor | None:
        """``[B]``, on the host: patches that each row can emit before its window is formed anew; None: any number."""

    def settle(self, first: Tensor, emitted: Tensor) -> None:
        """What was emitted from patch ``first[b]`` on, ``[B, T, C, P]``: a window that is formed anew has these."""

    def last_features(self) -> tuple[Tensor, ...]:
        """What heads read (see :meth:`rollback` for where), each ``[B, 1, C, ...]``."""


class Rollout(Protocol):
    """How a target is continued, see ``utils/decoding/config.py``."""

    @property
    def rollout(self) -> str: ...
    @property
    def renorm_every(self) -> int: ...
    @property
    def attention_window(self) -> int: ...


class Target(Protocol):
    """A model that can verify."""

    config: Any  # input_token_len, channels, stochastic_head

    def open_target(self, context: Tensor, capacity: int, how: Rollout) -> TargetSession:
        """A session for rows with this context ``[B, N, C, P]``, which is not taken in yet, of ``capacity`` patches."""


class Draft(Protocol):
    """A model that can propose."""

    config: Any  # input_token_len, channels, stochastic_head
    at_once: int  # patches that it proposes in one call
    reads_target: bool  # whether it reads the target's hidden states, and so follows its first pass

    def open_draft(self, context: Tensor, capacity: int, target: TargetSession | None = None) -> Session:
        """As :meth:`Target.open_target`; ``target`` is the session whose hidden states it may read."""


class BaseSession:
    """The part that all sessions share."""

    lengths: Tensor
    emitted_only = False
    restarted = 0
    # of the last pass over all rows: what the heads read (models/timer_xl.py, run), patches held after it, and after
    # which of them the heads of a draft read
    features: tuple[Tensor, ...] = ()
    features_end: Tensor
    features_at: Tensor

    def extend(self, patches: Tensor, want: int) -> Moments:
        raise NotImplementedError

    def keep(self, rows: Tensor) -> None:
        raise NotImplementedError

    def rollback(self, lengths: Tensor, read: Tensor | None = None) -> None:
        self.lengths = lengths.clone()
        self.features_at = self.lengths if read is None else read

    def repeat(self, samples: int) -> None:
        self.keep(torch.arange(len(self.lengths)).repeat_interleave(samples))

    def room(self) -> Tensor | None:
        return None

    def settle(self, first: Tensor, emitted: Tensor) -> None:
        """Emitted values matter only where a window is formed anew."""

    def last_features(self) -> tuple[Tensor, ...]:
        back = self.features_end - self.features_at
        same, device = shared(back), self.features[0].device
        if same is not None:
            return tuple(f.narrow(1, max(f.shape[1] - 1 - same, 0), 1) for f in self.features)
        rows, back = torch.arange(len(back), device=device), back.to(device)
        return tuple(f[rows, (f.shape[1] - 1 - back).clamp(min=0)].unsqueeze(1) for f in self.features)

    def propose(self, pending: Tensor, k: int, draw: Draw) -> tuple[Tensor, Tensor, Tensor | None]:
        patches, means, log_vars = [], [], []
        for i in range(k):
            mean, log_var = self.extend(pending, 1)
            pending = draw(i, mean, log_var)
            patches.append(pending)
            means.append(mean)
            log_vars += [] if log_var is None else [log_var]
        return torch.cat(patches, 1), torch.cat(means, 1), torch.cat(log_vars, 1) if log_vars else None
