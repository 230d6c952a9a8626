"""One round of speculation, as values: what was proposed, what the target said of it, and what came of it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from leapcast.utils.decoding.covariance import Spread


@dataclass(frozen=True)
class Place:
    """Where rows stand: all that a rule may know of them."""

    series: Tensor  # [b], keys the noise of each row
    done: Tensor  # [b] or [1], patches emitted so far
    spread: Spread  # the covariance of each row's patches


@dataclass(frozen=True)
class Proposal:
    """k patches for each row, of which row b has room for the first ``limit[b]``."""

    limit: Tensor  # [b], on the host
    noise: Any  # what the rule drew for k + 1 patches
    patches: Tensor  # [b, k, C, P]
    mean: Tensor  # the draft's, likewise
    log_var: Tensor | None = None  # None for a draft without one

    @property
    def k(self) -> int:
        return self.patches.shape[1]


@dataclass(frozen=True)
class Verified:
    """The target's distributions of the k + 1 patches that follow what was emitted, given the proposals before them."""

    mean: Tensor  # [b, k + 1, C, P]
    log_var: Tensor | None = None  # None for a target without one


@dataclass(frozen=True)
class Verdict:
    """Row b accepts the first ``accepted[b]`` proposals and emits the first ``accepted[b] + 1`` patches."""

    accepted: Tensor  # [b], on the host
    limit: Tensor  # [b], on the host, of the proposal
    emitted: Tensor  # [b, k + 1, C, P]
    squared: Tensor  # [b, k], mean squared distances of the draft's means from the target's
    distances: Tensor | None = None  # [tested], ‖δ‖ of each tested proposal (one covariance only)
    bound_hits: Tensor | int = 0  # residual draws that ended at their bound

    @cached_property
    def kept(self) -> Tensor:
        """``[b, k]``, on the host: which proposals were accepted."""
        return self._position < self.accepted.unsqueeze(1)

    @cached_property
    def tested(self) -> Tensor:
        """``[b, k]``, on the host: those up to the first rejection."""
        return self._position < (self.accepted + 1).minimum(self.limit).unsqueeze(1)

    @property
    def _position(self) -> Tensor:
        return torch.arange(self.emitted.shape[1] - 1)
