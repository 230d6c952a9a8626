"""Closed forms: what a configuration gives before it is run. Imports nothing of the project."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def acceptance_rate(distance: Tensor, bias: float = 1.0) -> Tensor:
    """Probability that a proposal is accepted, p and q of the same covariance.

    Φ(ln b/d - d/2) + b Φ(-ln b/d - d/2) with d = ‖Σ^-½ (μ_q - μ_p)‖; at bias b = 1 it is 2Φ(-d/2). 1 at d = 0.
    """
    d = distance.clamp(min=1e-12)
    cdf = torch.special.ndtr
    shift = math.log(bias) / d
    return (cdf(shift - d / 2) + bias * cdf(-shift - d / 2)).clamp(max=1.0)


def patches_per_round(rates: list[float]) -> float:
    """Expected patches emitted in one round: 1 + Σ_k Π_{i<=k} α_i, α_i the acceptance at position i once reached."""
    expected, reached = 1.0, 1.0
    for rate in rates:
        reached *= rate
        expected += reached
    return expected


def expected_time(
    first_cost: Callable[[int], float], cost: Callable[[int], float], rates: list[float], steps: int
) -> float:
    """Expected seconds to forecast ``steps`` patches by rounds of at most K = ``len(rates)`` proposals.

    T(r) = cost(k) + Σ_j P(j patches emitted) T(r - j) with k = min(K, r - 1); T(0) = 0.

    Args:
        first_cost: seconds of the first round by its number of proposals: the prefill is its verification.
        cost: the same of every later round, what is drafted, verified and tested in it.
        rates: α_i, the acceptance at position i of a round once it is reached.
        steps: patches; none take no time.
    """
    expected = [0.0]
    for left in range(1, steps + 1):
        k = min(len(rates), left - 1)
        expected.append((first_cost if left == steps else cost)(k) + _afterwards(expected, rates, k))
    return expected[steps]


def best_rounds(first: list[float], later: list[float], rates: list[float], steps: int) -> tuple[float, list[int]]:
    """As :func:`expected_time`, with the k of every round chosen so that the expected time is least.

    T(r) = min_k cost(k) + Σ_j P(j emitted | k) T(r - j).

    Args:
        first, later: seconds of the first round and of others with k = 0 … K proposals.

    Returns:
        seconds, and the best k with 0 … ``steps`` patches left; the last is for the first round.
    """
    expected, best = [0.0], [0]
    for left in range(1, steps + 1):
        prices = first if left == steps else later
        seconds, k = min((prices[k] + _afterwards(expected, rates, k), k) for k in range(min(len(rates), left - 1) + 1))
        expected.append(seconds)
        best.append(k)
    return expected[steps], best


def _afterwards(expected: list[float], rates: list[float], k: int) -> float:
    """Σ_j P(j emitted) T(r - j) of a round with k proposals, r the patches left; ``expected`` is T(0) … T(r - 1)."""
    total, reached = 0.0, 1.0
    for emitted, rate in enumerate(rates[:k], 1):  # the rejected proposal is replaced, and ends the round
        total += reached * (1 - rate) * expected[-emitted]
        reached *= rate
    return total + reached * expected[-k - 1]
