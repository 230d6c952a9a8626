"""The interface between models and the decoder.

A model opens a *session* for a batch of B rows. Patches are ``[B, T, C, P]``; T is the same for all rows, and rows that
need fewer are rolled back. ``lengths`` is on the host, where the decoder keeps track of the rows.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from leapcast.models.layers.patches import shared

Moments = tuple[Tensor, Tensor | None]  # mean and log-variance (None for a model without learned variances)
Draw = Callable[[int, Tensor, Tensor | None], Tensor]


def mean_draw(i: int, mean: Tensor, log_var: Tensor | None) -> Tensor:
    """Continue with the mean, for point forecasts."""
    return mean


def chosen(moments: Moments | None, rows: Tensor) -> Moments | None:
    """These rows of moments."""
    if moments is None:
        return None
    return moments[0][rows], None if moments[1] is None else moments[1][rows]


class Session(Protocol):
    """The state of a model for the rows of one batch."""

    emitted_only: bool  # whether it reads emitted patches only, not accepted proposals that differ from them
    asked: bool  # whether the last proposals took a call of the model

    @property
    def lengths(self) -> Tensor:
        """``[B]``, on the host: patches processed per row."""

    def extend(self, patches: Tensor, want: int) -> Moments:
        """Process T patches per row and predict the patch after each of the last ``want`` of them.

        Returns:
            mean ``[B, want, C, P]`` and log-variance (or None) of the same shape.
        """

    def rollback(self, lengths: Tensor, read: Tensor | None = None) -> None:
        """Keep the first ``lengths[b]`` patches of row b, with their keys, values and statistics.

        Draft heads on this session read its hidden state after ``read[b]`` patches (default: ``lengths[b]``).
        """

    def keep(self, rows: Tensor) -> None:
        """Keep these rows only, in this order."""

    def repeat(self, samples: int) -> None:
        """Replace each row by ``samples`` consecutive copies."""

    def propose(self, pending: Tensor, k: int, draw: Draw) -> tuple[Tensor, Tensor, Tensor | None]:
        """Roll out k patches after the pending ones: a draft's proposals, or a model's own rollout.

        Args:
            pending: ``[B, T, C, P]``, patches not processed yet.
            k: number of proposals, at least 1. The last one is not processed.
            draw: ``draw(i, mean, log_var) -> patches`` makes proposals ``[B, n, C, P]``, from the i-th on, from their
                means and log-variances.

        Returns:
            patches, means and log-variances (or None), each ``[B, k, C, P]``.
        """


class TargetSession(Session, Protocol):
    """The additional interface of targets."""

    restarted: int  # rows whose window the last ``extend`` recomputed in an additional pass

    def room(self) -> Tensor | None:
        """``[B]``, on the host: patches that each row can emit before its window is recomputed; None: any number."""

    def settle(self, first: Tensor, emitted: Tensor) -> None:
        """Store the patches ``[B, T, C, P]`` emitted from position ``first[b]`` on, for recomputed windows."""

    def last_features(self) -> tuple[Tensor, ...]:
        """Inputs of draft heads, each ``[B, 1, C, ...]``; :meth:`rollback` sets their position."""

    def outputs(self, ahead: int) -> tuple[Moments, Tensor] | None:
        """The moments of the last pass from the position of :meth:`last_features` on; None before the first pass.

        Returns:
            mean ``[B, 1 + ahead, C, P]``, log-variance (or None), and ``[B]``, on the host: how many of those after the
            first the pass predicted; beyond them the last one is repeated.
        """

    def ahead(self) -> tuple[Tensor, Tensor]:
        """Of a target with a long head (``config.long_head``): its patches at the end of the context.

        Returns:
            means ``[B, patches, C, P]`` and quantiles ``[B, patches, C, P, levels]``.
        """

    def own_quantiles(self, rows: Tensor | slice, steps: int) -> Tensor | None:
        """Quantiles of the first ``steps`` patches after the context that were recorded for these rows.

        Returns:
            ``[rows, steps, C, P, levels]``; None where none were (``Rollout.quantiles``).
        """


class Rollout(Protocol):
    """Rollout settings of a target, see ``utils/decoding/config.py``."""

    @property
    def rollout(self) -> str: ...
    @property
    def renorm_every(self) -> int: ...
    @property
    def attention_window(self) -> int: ...
    @property
    def quantiles(self) -> str: ...


class Target(Protocol):
    """A model that can verify."""

    config: Any  # input_token_len, channels, stochastic_head

    def open_target(self, context: Tensor, capacity: int, how: Rollout) -> TargetSession:
        """A session of ``capacity`` patches per row for this context ``[B, N, C, P]``, which is not processed yet."""


class Draft(Protocol):
    """A model that can propose."""

    config: Any  # input_token_len, channels, stochastic_head
    at_once: int  # patches proposed per call
    reads_target: bool  # whether it reads the target's hidden states, and so needs its first pass

    def open_draft(self, context: Tensor, capacity: int, target: TargetSession | None = None) -> Session:
        """As :meth:`Target.open_target`; ``target`` is the session whose hidden states it may read."""


class BaseSession:
    """The shared part of all sessions."""

    lengths: Tensor
    emitted_only, asked = False, True
    restarted = 0
    # of the last pass over all rows: inputs of the heads (models/timer_xl.py, run), patches per row after the pass, and
    # the patch after which draft heads read
    features: tuple[Tensor, ...] = ()
    moments_out: Moments | None = None
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
        """Nothing to do: only recomputed windows need emitted patches."""

    def ahead(self) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def own_quantiles(self, rows: Tensor | slice, steps: int) -> Tensor | None:
        return None

    def last_features(self) -> tuple[Tensor, ...]:
        back = self.features_end - self.features_at
        same, device = shared(back), self.features[0].device
        if same is not None:
            return tuple(f.narrow(1, max(f.shape[1] - 1 - same, 0), 1) for f in self.features)
        rows, back = torch.arange(len(back), device=device), back.to(device)
        return tuple(f[rows, (f.shape[1] - 1 - back).clamp(min=0)].unsqueeze(1) for f in self.features)

    def outputs(self, ahead: int) -> tuple[Moments, Tensor] | None:
        return self._outputs(ahead)

    def _outputs(self, ahead: int, most: Tensor | None = None) -> tuple[Moments, Tensor] | None:
        """:meth:`outputs`, of which at most ``most[b]`` after the first count."""
        if self.moments_out is None:
            return None
        last = self.moments_out[0].shape[1] - 1
        back = (self.features_end - self.features_at).clamp(max=last)  # a shared prefill predicts from its last only
        valid = back if most is None else back.minimum(most)
        start, least, device = shared(back), int(valid.min()), self.moments_out[0].device
        where: tuple[slice | Tensor, slice | Tensor]
        if start is not None and least >= ahead:
            where = slice(None), slice(last - start, last - start + ahead + 1)
        else:
            at = (last - back).unsqueeze(1) + torch.arange(1 + ahead).minimum(valid.unsqueeze(1))
            where = torch.arange(len(at), device=device).unsqueeze(1), at.to(device)
        mean, log_var = self.moments_out
        return (mean[where], None if log_var is None else log_var[where]), valid

    def propose(self, pending: Tensor, k: int, draw: Draw) -> tuple[Tensor, Tensor, Tensor | None]:
        patches, means, log_vars = [], [], []
        for i in range(k):
            mean, log_var = self.extend(pending, 1)
            pending = draw(i, mean, log_var)
            patches.append(pending)
            means.append(mean)
            log_vars += [] if log_var is None else [log_var]
        return torch.cat(patches, 1), torch.cat(means, 1), torch.cat(log_vars, 1) if log_vars else None
