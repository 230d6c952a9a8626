"""Expected acceptance, block efficiency and time in closed form; independent of the rest of the package."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def acceptance_rate(distance: Tensor, bias: float = 1.0) -> Tensor:
    """Probability of accepting a proposal when p and q have the same covariance.

    Φ(ln b/d - d/2) + b Φ(-ln b/d - d/2) with d = ‖Σ^-½ (μ_q - μ_p)‖; at bias b = 1 it is 2Φ(-d/2). 1 at d = 0.
    """
    d = distance.clamp(min=1e-12)
    cdf = torch.special.ndtr
    shift = math.log(bias) / d
    return (cdf(shift - d / 2) + bias * cdf(-shift - d / 2)).clamp(max=1.0)


def acceptance_rate_with_tolerance(distance: Tensor, bias: float, tolerance: float, size: int) -> Tensor:
    """As :func:`acceptance_rate` where a proposal x also passes if MSE(x, μ_p) <= mse_tol, for Σ = σ²I.

    The speculative test depends only on s ~ N(0, 1), the component of the noise z along δ, and MSE(x, μ_p) is
    σ²/D · ((s + d)² + χ²_{D-1}). The acceptance rate is E_s[a(s) + (1 - a(s)) F(D · mse_tol/σ² - (s + d)²)], with
    a(s) = min(1, b exp(-s d - d²/2)) and F the distribution of χ²_{D-1}.

    Args:
        distance: d, of any shape.
        bias: factor on the likelihood ratio.
        tolerance: mse_tol/σ²; 0 or less disables the second test.
        size: D, the number of values in one patch of one row.
    """
    if tolerance <= 0:
        return acceptance_rate(distance, bias)
    d = distance.double().unsqueeze(-1)
    s = torch.linspace(-6, 6, 121, dtype=d.dtype, device=d.device)
    weight = torch.exp(-s.square() / 2)
    passed = torch.exp(math.log(bias) - s * d - d.square() / 2).clamp(max=1.0)
    below = (size * tolerance - (s + d).square()).clamp(min=0)
    near = torch.special.gammainc(torch.full_like(below, (size - 1) / 2), below / 2)
    also = ((1 - passed) * near * weight).sum(-1) / weight.sum()
    return (acceptance_rate(distance.double(), bias) + also).clamp(max=1.0).to(distance)


@dataclass(frozen=True)
class Expected:
    """Expected counts and time of decoding, each ``[rows]``."""

    accepted: Tensor
    tested: Tensor
    rounds: Tensor  # target passes
    seconds: Tensor


def expected_decoding(rates: Tensor, first: list[float], later: list[float]) -> Expected:
    """Expectations for rounds that propose as many patches as possible, at most K.

    T(r) = cost(k) + Σ_j P(j patches emitted) T(r - j) with k = min(K, r - 1), T(0) = 0; the counts likewise.

    Args:
        rates: ``[rows, steps, K]`` α_i of a round begun after 0 … steps - 1 patches: the acceptance rate at position i,
            given that it is reached.
        first, later: seconds of the first round (with the prefill) and of later ones, by number of proposals 0 … K; inf
            where the draft cannot propose.
    """
    rows, steps, most = rates.shape
    expected = [rates.new_zeros(rows, 4)]  # by patches left: accepted, tested, rounds, seconds
    for left in range(1, steps + 1):
        prices = first if left == steps else later
        k = max(i for i in range(min(most, left - 1) + 1) if prices[i] < math.inf)
        total = rates.new_tensor([0, 0, 1, prices[k]]).expand(rows, 4).clone()
        reached = rates.new_ones(rows, 1)
        for i in range(k):
            rate = rates[:, steps - left, i, None]
            total[:, 1:2] += reached
            total[:, 0:1] += reached * rate
            total += reached * (1 - rate) * expected[left - 1 - i]  # a rejection ends the round after its replacement
            reached = reached * rate
        expected.append(total + reached * expected[left - 1 - k])
    return Expected(*expected[steps].unbind(1))


def batch_time(
    rates: Tensor, first: list[float], later: list[float], rows: int, latency: bool = False, draws: int = 4
) -> float:
    """Mean seconds of a batch whose rows accept independently, by simulating :func:`expected_decoding`.

    Each round proposes as many patches as the row with most patches left allows; the batch ends with its slowest row.

    Args:
        rates, first, later: see :func:`expected_decoding`; the seconds are those of a full batch.
        rows: rows per batch; an incomplete last batch is left out, unless it is the only one.
        latency: whether the cost of a round is constant; else it is proportional to the unfinished rows.
        draws: simulations of each batch, from a fixed seed.
    """
    rows = min(rows, len(rates))
    table = rates[: len(rates) // rows * rows].repeat(draws, 1, 1).unflatten(0, (-1, rows))
    (_, _, steps, most), generator = table.shape, torch.Generator().manual_seed(0)
    most = min(most, max(k for k, price in enumerate(later) if price < math.inf))
    left, seconds = torch.full(table.shape[:2], steps), torch.zeros(len(table), dtype=torch.double)
    while (left > 0).any():
        begun = left.amax() == steps
        prices = torch.tensor(first if begun else later, dtype=torch.double)
        room = (left - 1).clamp(0, 0 if begun and math.isinf(max(first)) else most)
        here = (left > 0).double()
        seconds += prices[room.amax(1)] * (here.amax(1) if latency else here.mean(1))
        start = (steps - left).clamp(max=steps - 1)[..., None, None].expand(-1, -1, 1, table.shape[3])
        rate = table.gather(2, start)[:, :, 0]
        passed = torch.rand(rate.shape, generator=generator, dtype=rate.dtype) < rate
        ahead = passed.int().cumprod(2).sum(2).minimum(room)
        left = torch.where(left > 0, left - ahead - 1, left)
    return seconds.mean().item()


def expected_time(first: list[float], later: list[float], rates: list[float], steps: int) -> float:
    """Seconds of :func:`expected_decoding` for rates that depend on the position alone, at most K = len(rates)."""
    table = torch.tensor(rates, dtype=torch.double).expand(1, steps, len(rates))
    return expected_decoding(table, first, later).seconds.item()


def best_rounds(first: list[float], later: list[float], rates: list[float], steps: int) -> tuple[float, list[int]]:
    """The number of proposals per round of least expected time: T(r) = min_k cost(k) + Σ_j P(j emitted | k) T(r - j).

    Args:
        first, later: seconds of the first round (with the prefill) and of later ones, for k = 0 … K proposals.
        rates: α_i, the acceptance rate at position i of a round, given that it is reached.
        steps: patches of the horizon.

    Returns:
        expected seconds, and the best k with 0 … ``steps`` patches left (the last: first round).
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
    for emitted, rate in enumerate(rates[:k], 1):  # a rejection ends the round after its replacement
        total += reached * (1 - rate) * expected[-emitted]
        reached *= rate
    return total + reached * expected[-k - 1]
