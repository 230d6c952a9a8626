"""Counts of accepted and tested proposals, passes and emitted patches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from leapcast.models.layers.patches import joined
from leapcast.utils.decoding.round import Verdict

LAST = {"accepted_patches": False, "quantiles": math.nan}  # what is known of the last call only -> beyond a horizon


@dataclass(frozen=True)
class Outcome:
    """What is counted of a round: parts of its :class:`Verdict`.

    ``restarted``: rows whose window was formed anew; ``asked``: whether the draft was called.
    """

    accepted: Tensor
    limit: Tensor
    squared: Tensor
    distances: Tensor | None
    bound_hits: Tensor | int
    restarted: int
    asked: bool

    @classmethod
    def of(cls, verdict: Verdict, restarted: int, asked: bool) -> "Outcome":
        """Without the emitted patches, whose memory is needed."""
        return cls(
            verdict.accepted, verdict.limit, verdict.squared, verdict.distances, verdict.bound_hits, restarted, asked
        )


@dataclass(repr=False)
class Statistics:
    """Counts over one or more calls of ``generate``. Lists have one entry per position in the round, K at most."""

    accepted: Tensor  # [K]
    attempted: Tensor  # [K], proposals tested; those after the first rejection of a round are not tested
    squared: Tensor  # [K], sum over tested proposals of the mean squared distance between the two means
    rounds: Tensor  # [K + 1], by the number of patches proposed
    distances: list[Tensor] = field(default_factory=list)  # ‖δ‖ of every tested proposal (one covariance only)
    # adaptive sigma, [rows, 3] of every round: patches before it, patches emitted, factor on sigma
    factors: list[Tensor] = field(default_factory=list)
    target_passes: int = 0
    draft_passes: int = 0
    row_passes: int = 0  # target passes, summed over the rows in each
    emitted: int = 0  # patches, over all rows
    bound_hits: int = 0  # residual draws that reached max_draws
    # of the last call only: whether each patch was emitted after an accepted proposal, [rows, steps]; and the target's
    # own quantiles, [B, H, C, levels]
    accepted_patches: Tensor | None = None
    quantiles: Any = None  # a tensor; of a forecast in the units of the data an array

    def __repr__(self) -> str:
        return f"Statistics(rate={self.rate}, patches_per_target_pass={self.patches_per_target_pass})"

    @classmethod
    def empty(cls, k: int = 0) -> "Statistics":
        accepted, attempted, rounds = (torch.zeros(size, dtype=torch.long) for size in (k, k, k + 1))
        return cls(accepted, attempted, torch.zeros(k, dtype=torch.double), rounds)

    @classmethod
    def alone(cls, steps: Tensor, k: int = 0) -> "Statistics":
        """Statistics of a target-only rollout over ``steps[b]`` patches of row b."""
        statistics, furthest = cls.empty(k), int(steps.max())
        statistics.rounds[0] = statistics.target_passes = furthest
        statistics.emitted = statistics.row_passes = int(steps.sum())
        statistics.accepted_patches = torch.zeros(len(steps), furthest, dtype=torch.bool)
        return statistics

    @classmethod
    def joined(cls, parts: Sequence["Statistics"]) -> "Statistics":
        """Combined statistics of the parts of a batch."""
        whole = parts[0].counts()
        for part in parts[1:]:
            whole.add(part)
        for name, beyond in LAST.items():
            found = [value for part in parts if (value := getattr(part, name)) is not None]
            setattr(whole, name, joined(found, 1, beyond) if len(found) == len(parts) else None)
        return whole

    @classmethod
    def of(cls, rounds: Sequence[Outcome], k: int, at_once: int) -> "Statistics":
        """Counts of all rounds of a batch, made at its end: each operation takes longer than its few numbers.

        Args:
            rounds: their outcomes.
            k: most patches proposed per round.
            at_once: patches that the draft proposes per call; 0 without a call.
        """
        accepted, limit = (torch.cat([getattr(one, name) for one in rounds]) for name in ("accepted", "limit"))
        position = torch.arange(k)
        tested = position < (accepted + 1).minimum(limit).unsqueeze(1)  # [all rows of all rounds, K]
        squared = torch.cat([pad(one.squared, (0, k - one.squared.shape[1])) for one in rounds])
        proposed, restarted = [one.squared.shape[1] for one in rounds], [one.restarted for one in rounds]
        return cls(
            accepted=(position < accepted.unsqueeze(1)).sum(0),
            attempted=tested.sum(0),
            squared=(squared.double() * tested.to(squared.device)).sum(0).cpu(),
            rounds=torch.bincount(torch.tensor(proposed), minlength=k + 1),
            distances=[one.distances for one in rounds if one.distances is not None],
            target_passes=len(rounds) + sum(map(bool, restarted)),
            draft_passes=sum(-(-one.squared.shape[1] // at_once) for one in rounds if one.asked) if at_once else 0,
            row_passes=len(accepted) + sum(restarted),
            emitted=len(accepted) + int(accepted.sum()),
            bound_hits=int(sum(one.bound_hits for one in rounds)),
        )

    def counts(self) -> "Statistics":
        """Without what is known of the last call only."""
        return replace(self, accepted_patches=None, quantiles=None)

    def add(self, other: "Statistics") -> None:
        """Add the counts of another call."""
        for item in fields(self):
            if item.name not in LAST:
                setattr(self, item.name, total(getattr(self, item.name), getattr(other, item.name)))

    @property
    def rate(self) -> float | None:
        """Acceptance rate α, accepted / tested; None if nothing was tested."""
        tested = int(self.attempted.sum())
        return int(self.accepted.sum()) / tested if tested else None

    @property
    def by_position(self) -> list[float | None]:
        """Acceptance rate at each position of a round; None where no proposal was tested."""
        return [int(a) / int(t) if t else None for a, t in zip(self.accepted, self.attempted, strict=True)]

    @property
    def rms_by_position(self) -> list[float | None]:
        """RMS distance between the draft's and the target's means at each position, over tested proposals."""
        return [math.sqrt(float(s) / int(t)) if t else None for s, t in zip(self.squared, self.attempted, strict=True)]

    @property
    def patches_per_target_pass(self) -> float | None:
        """Block efficiency τ: emitted patches per target pass and row; None if there was no target pass."""
        return self.emitted / self.row_passes if self.row_passes else None


def total(one, other):
    """The sum; counts by position may be of different length, where K was chosen by the horizon."""
    if isinstance(one, Tensor) and one.ndim and len(one) != len(other):
        one, other = (pad(counts, (0, max(len(one), len(other)) - len(counts))) for counts in (one, other))
    return one + other
