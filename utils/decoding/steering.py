"""Adaptive sigma: a factor on Σ^½ by row, steered from round to round to a wanted acceptance rate.

Every patch is an exact draw from N(μ_p, s²Σ) for the factor s of its round, which depends on earlier patches only. But
s follows the distance between draft and target, so the paths are no forecast of anybody's uncertainty.
"""

import math
from copy import copy
from typing import Self

import numpy as np
import torch
from torch import Tensor

from leapcast.utils.decoding.covariance import Calibration, Spread
from leapcast.utils.decoding.round import Verdict
from leapcast.utils.decoding.theory import acceptance_rate

FORGET = 0.3  # decay of the estimated distance per tested proposal
RECOVER = 2.0  # tested proposals in which a deficit of acceptance is made up for
MOST_MISSING = 2.0  # deficit that is remembered, in proposals: more could not be made up for at a bound of sigma
LEAST = 1e-9  # lower bound of a measured distance, whose logarithm is taken


def reach(rate):
    """The distance ‖δ‖ at which this share of proposals is accepted, the inverse of 2Φ(-‖δ‖/2)."""
    return -2 * torch.special.ndtri(torch.as_tensor(rate, dtype=torch.float64) / 2)


def first_factor(distances: Tensor, wanted: float) -> float:
    """The factor at which a round's proposals at these distances ``[rows, K]`` are accepted at the wanted rate.

    Proposals after the first rejection are not tested. ``distances`` are those at factor 1.
    """
    low, high = -20.0, 20.0  # log2; the rate grows with the factor
    for _ in range(50):
        middle = (low + high) / 2
        rates = acceptance_rate(distances.double() / 2**middle)
        tested = torch.cat((torch.ones_like(rates[:, :1]), rates[:, :-1].cumprod(1)), 1)
        low, high = (low, middle) if (tested * rates).sum() > wanted * tested.sum() else (middle, high)
    return 2 ** ((low + high) / 2)


def bounds(config) -> tuple[float, float]:
    """The least and the greatest factor: sigma_min and sigma_max bound σ itself where it is a number."""
    unit = 1.0 if isinstance(config.sigma, Calibration) else config.sigma
    return config.sigma_min / unit, config.sigma_max / unit


def clipped(factor: float, config) -> float:
    """The factor, or the nearer of its bounds."""
    low, high = bounds(config)
    return min(max(factor, low), high)


class Steered(Spread):
    """s²Σ of every row, where Σ is that of :class:`Spread` and s the row's own factor.

    The distance at factor 1 is estimated from the tested proposals of the row's earlier rounds (those that were not
    tested depend on noise that is still to be emitted). It gives the factor of the next round by the closed form
    2Φ(-‖δ‖/2s), at a rate that makes up for what acceptance has lacked so far.

    Args:
        config: a :class:`SpeculativeConfig` with sigma_mode ``adaptive``.
        context: ``[B, N, C, P]``.
    """

    def __init__(self, config, context: Tensor):
        super().__init__(config.sigma, context)
        self.wanted: float = config.target_acceptance
        self.lead: float = config.sigma_lead
        self.bounds, first = bounds(config), clipped(config.sigma_first, config)
        rows = context.new_ones(len(context), dtype=torch.float64)
        self.factor = first * rows
        self.distance = rows * math.log(first * reach(self.wanted))  # log ‖δ‖ at factor 1
        self.missing = 0 * rows  # accepted proposals below the wanted rate, as expected at the measured distances
        self.done = torch.zeros(len(context), dtype=torch.long)  # patches emitted, on the host

    def colour(self, z: Tensor) -> Tensor:
        return super().colour(z) * self.factor.to(z)[:, None, None, None]

    def whiten(self, x: Tensor) -> Tensor:
        return super().whiten(x) / self.factor.to(x)[:, None, None, None]

    def select(self, rows: Tensor) -> Self:
        chosen = copy(super().select(rows))
        there = rows.to(self.factor.device)
        chosen.factor, chosen.distance, chosen.missing = (
            state[there] for state in (self.factor, self.distance, self.missing)
        )
        chosen.done = self.done[rows.cpu()]
        return chosen

    def after(self, verdict: Verdict) -> Self:
        following = copy(self)
        emitted = (verdict.accepted + 1).to(self.factor)
        self.course.append(torch.stack((self.done.to(self.factor), emitted, self.factor), 1))
        following.done = self.done + verdict.accepted + 1
        if verdict.distances is None or not len(verdict.distances):
            return following
        measured = verdict.distances.double().clamp(min=LEAST)
        row = torch.nonzero(verdict.tested)[:, 0].to(measured.device)

        def by_row(values: Tensor) -> Tensor:
            return torch.zeros_like(self.factor).index_add(0, row, values)

        tested = by_row(torch.ones_like(measured))
        mean = by_row(measured.log()) / tested.clamp(min=1) + self.factor.log()
        following.distance = self.distance + (1 - FORGET**tested) * (mean - self.distance)
        missing = self.missing + by_row(self.wanted - acceptance_rate(measured))
        following.missing = missing.clamp(-MOST_MISSING, MOST_MISSING)
        rate = self.wanted + following.missing / RECOVER
        rate = rate.clamp(self.wanted / 2, (1 + self.wanted) / 2)
        factor = (self.lead * following.distance.exp() / reach(rate)).clamp(*self.bounds)
        following.factor = torch.where(tested > 0, factor, self.factor)
        return following


def course(rounds: list[Tensor], config) -> dict | None:
    """The factor on Σ^½: a row's first, its mean and quartiles by patch of the horizon, and how often it is at a bound.

    ``rounds``: ``[rows, 3]`` of each round, the number of patches before it, of those that it emitted, and its factor.
    """
    if not rounds:
        return None
    done, emitted, factor = torch.cat(rounds).unbind(1)
    patches = []
    for patch in range(int((done + emitted).max())):
        patches.append(factor[(done <= patch) & (patch < done + emitted)])
    low, high = bounds(config)
    bound = torch.cat([(p <= low * (1 + 1e-9)) | (p >= high * (1 - 1e-9)) for p in patches])
    return {
        "first": clipped(config.sigma_first, config),
        "lead": config.sigma_lead,
        "mean": [p.mean().item() for p in patches],
        "quartiles": [np.quantile(p.numpy(), (0.25, 0.5, 0.75)).tolist() for p in patches],
        "at_bounds": bound.double().mean().item(),
    }
