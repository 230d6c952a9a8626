"""Choice of the number of proposals per round, possibly none, that minimises the expected time of the cost model.

The cost of a round is measured once per batch size, with forecasts that accept every proposal; acceptance rates are
estimated from the proposals tested so far.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.statistics import Statistics, total
from leapcast.utils.decoding.theory import best_rounds
from leapcast.utils.decoding.timing import clock, timed
from leapcast.utils.speculative_decoder import SpeculativeDecoder, in_parts

TRIALS = 2.0  # optimistic prior: accepted proposals assumed at every position before any is tested
FORGET = 0.99  # decay of the counts per call
OFTEN = 16  # calls between updates of the plan
TRUST = 0.3  # weight of the last call in the estimated slowdown
WORTH = 0.97  # speculate only if the expected time is below this fraction of the target-only time
SECONDS, MOST = 4.0, 9  # limits of measuring costs: seconds in all, repetitions


@dataclass(frozen=True)
class Prices:
    """Seconds per round by its number of proposals, 0 … K. The first round includes the prefill; inf: impossible."""

    first: list[float]
    later: list[float]

    def alone(self, steps: int) -> float:
        """Seconds of a target-only rollout of ``steps`` patches."""
        return self.first[0] + (steps - 1) * self.later[0]

    @classmethod
    def measure(cls, forecast: Callable, most: int, steps: int, opens: bool, device: torch.device) -> "Prices":
        """Measure with ``forecast(steps, k)``, which accepts every proposal; k = 0 is the target alone.

        Args:
            forecast: the call that is timed.
            most: K.
            steps: patches of the horizon, at least 2; sets the cost per step of the target alone.
            opens: whether the draft can propose before the target's first pass.
            device: synchronised before each reading of the clock.
        """

        some = sorted({1, (1 + most) // 2, most})
        wanted = [(1, 0), (steps, 0)]
        wanted += [(k + 1, k) for k in some] + [(2 * k + 2, k) for k in some] if opens else [(k + 2, k) for k in some]
        spent = dict.fromkeys(wanted, math.inf)  # the minimum, as timing noise is never negative
        for point in ((1, 0), (2, 1)):  # warm-up
            forecast(*point)
        for done in range(MOST):
            runs = {point: timed(forecast, device, *point)[1] for point in wanted}
            spent = {point: min(spent[point], seconds) for point, seconds in runs.items()}
            if (done + 1) * sum(runs.values()) > SECONDS:
                break

        prefill = spent[1, 0]
        first, later = {0: prefill}, {0: (spent[steps, 0] - prefill) / (steps - 1)}
        for k in some:
            if opens:
                first[k] = spent[k + 1, k]
            beyond = spent[2 * k + 2, k] - first[k] if opens else spent[k + 2, k] - prefill
            later[k] = max(beyond, later[0])  # the difference of two noisy measurements
        between = [_between(later, k) for k in range(most + 1)]
        opening = [_between(first, k) if opens else float("inf") for k in range(1, most + 1)]
        return cls([prefill, *opening], between)


def _between(points: dict[int, float], k: int) -> float:
    return float(np.interp(k, list(points), list(points.values())))


class Pace:
    """Measured round costs, estimated acceptance rates and plans of a decoder."""

    def __init__(self):
        self.prices: dict[tuple, dict[int, Prices]] = {}  # by window shape, then by number of rows
        self.accepted, self.tested = torch.zeros(0, dtype=torch.double), torch.zeros(0, dtype=torch.double)
        self.calls = 0
        self.plans: dict[tuple, tuple[float, list[int]]] = {}
        self.slower = 1.0  # measured / expected time of calls with a draft; a batch waits for its slowest row

    def known(self, shape: tuple, rows: int) -> Prices | None:
        """Costs measured with between half and twice as many rows, the nearest; None if there are none."""
        prices = self.prices.get(shape, {})
        close = [n for n in prices if rows <= 2 * n and n <= 2 * rows]
        return prices[min(close, key=lambda n: abs(n - rows))] if close else None

    def rates(self, most: int) -> list[float]:
        """α_i: the acceptance rate at each of ``most`` positions of a round, given that it is reached."""
        accepted, tested = (
            total(counts[:most], torch.full((most,), TRIALS)) for counts in (self.accepted, self.tested)
        )
        return (accepted / tested).tolist()

    def learn(self, accepted: Tensor, tested: Tensor, slower: float | None = None) -> None:
        """Add a call's counts, ``[K]`` each, and its measured / expected time (None without a draft)."""
        self.accepted, self.tested = total(FORGET * self.accepted, accepted), total(FORGET * self.tested, tested)
        self.slower += (1 - FORGET) * (1 - self.slower) if slower is None else TRUST * (slower - self.slower)
        self.calls += 1
        if self.calls < OFTEN or self.calls % OFTEN == 0:  # planning costs time too
            self.plans = {}

    def plan(self, shape: tuple, rows: int, steps: int) -> tuple[float, list[int]]:
        """Expected seconds, and the number of proposals with 0 … ``steps`` patches left (the last: first round).

        All are 0 where speculation is not expected to be faster than the target alone.
        """
        key = shape, rows, steps
        if key not in self.plans:
            prices = self.known(shape, rows)
            assert prices is not None, "measure prices before planning"
            seconds, plan = best_rounds(prices.first, prices.later, self.rates(len(prices.later) - 1), steps)
            alone = prices.alone(steps)
            pays = seconds * self.slower < WORTH * alone
            self.plans[key] = (seconds, plan) if pays else (alone, [0] * (steps + 1))
        return self.plans[key]


def prices(decoder: SpeculativeDecoder, x: Tensor, steps: int, series: Tensor, samples: int = 1) -> Prices:
    """Measure the seconds per round of these windows ``[B, L, C]``, all decoded together."""
    config = decoder.config
    all_accepted = replace(config, sigma_mode="fixed", accept_mse_tol=math.inf)
    forced = config.rule(all_accepted, decoder.target.config.stochastic_head)

    def forecast(count: int, k: int) -> None:
        plan = [0, *(min(k, left) for left in range(count))]
        decoder.decode(x, count, series, samples, plan, forced)

    opens = samples == 1 and not decoder.draft.reads_target
    return Prices.measure(forecast, decoder.most(x, steps, samples), steps, opens, x.device)


class AdaptiveDecoder:
    """A decoder that proposes, per round, the number of patches (0 to K) of least expected time.

    Args:
        decoder: executes the plans.
        pace: shares the measurements of another decoder with the same mode and k.
    """

    def __init__(self, decoder: SpeculativeDecoder, pace: Pace | None = None):
        self.decoder, self.config = decoder, decoder.config
        self.pace = pace or Pace()

    def generate(
        self, x: Tensor, steps: int | Tensor, series: Tensor | None = None, samples: int = 1
    ) -> tuple[Tensor, Statistics]:
        """See :meth:`SpeculativeDecoder.generate`."""
        return in_parts(self.decode, self.decoder, x, steps, series, samples)

    def decode(self, x: Tensor, steps: Tensor, series: Tensor, samples: int) -> tuple[Tensor, Statistics]:
        """Decode windows as one batch, after measuring the costs of a new window shape or batch size."""
        furthest = int(steps.max())
        if furthest == 1:
            return self.decoder.decode(x, steps, series, samples)
        shape, rows = (samples == 1, *x.shape[1:]), samples * len(x)
        if self.pace.known(shape, rows) is None:
            self.pace.prices.setdefault(shape, {})[rows] = prices(self.decoder, x, furthest, series, samples)
        expected, plan = self.pace.plan(shape, rows, furthest)
        begun = clock(x.device)
        forecast, statistics = self.decoder.decode(x, steps, series, samples, plan)
        slower = (clock(x.device) - begun) / expected if any(plan) else None
        self.pace.learn(statistics.accepted, statistics.attempted, slower)
        return forecast, statistics


def make_decoder(
    target, draft, config: SpeculativeConfig, adaptive: bool = False, trace=None, pace: Pace | None = None
) -> SpeculativeDecoder | AdaptiveDecoder:
    """A decoder with a fixed number of proposals, ``config.k``, or an adaptive one."""
    decoder = SpeculativeDecoder(target, draft, config, trace)
    return AdaptiveDecoder(decoder, pace) if adaptive else decoder
