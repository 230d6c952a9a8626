"""The values of one round of speculation: proposal, verification and verdict."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from leapcast.utils.decoding.covariance import Spread


@dataclass(frozen=True)
class Place:
    """The state of the rows that an acceptance rule may use."""

    series: Tensor  # [b], keys the noise of each row
    done: Tensor  # [b] or [1], patches emitted so far
    spread: Spread  # the covariance of each row's patches
    z: Tensor | None = None  # [b, n, C, P], standard normal noise of the next n patches; None for a rule without noise
    log_var: Tensor | None = None  # [b, 1, C, P], the target's last known log-variance; None for fixed variances


@dataclass(frozen=True)
class Proposal:
    """k proposed patches per row, of which only the first ``limit[b]`` count in row b."""

    limit: Tensor  # [b], on the host
    noise: Any  # from :meth:`Rule.noise`, for k + 1 patches
    patches: Tensor  # [b, k, C, P]
    mean: Tensor  # the draft's means, [b, k, C, P]
    log_var: Tensor | None = None  # [b, k, C, P]; None for a draft without learned variances

    @property
    def k(self) -> int:
        return self.patches.shape[1]


@dataclass(frozen=True)
class Verified:
    """The target's distributions of the next k + 1 patches, each given the proposals before it."""

    mean: Tensor  # [b, k + 1, C, P]
    log_var: Tensor | None = None  # [b, k + 1, C, P]; None for a target without learned variances


@dataclass(frozen=True)
class Verdict:
    """Row b accepts the first ``accepted[b]`` proposals and emits the first ``accepted[b] + 1`` patches."""

    accepted: Tensor  # [b], on the host
    limit: Tensor  # [b], on the host, see Proposal
    emitted: Tensor  # [b, k + 1, C, P]
    squared: Tensor  # [b, k], mean squared distances between the draft's and the target's means
    distances: Tensor | None = None  # [tested], ‖δ‖ of each tested proposal (one covariance only)
    bound_hits: Tensor | int = 0  # residual draws that reached max_draws

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
