"""The cost model at work: how many patches to propose, possibly none, so that the expected time is least.

The price of a round is measured once for a batch size, by forecasts that accept everything; how likely a proposal is
accepted is estimated from those tested so far.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.decoding.theory import best_rounds
from leapcast.utils.decoding.timing import clock, timed
from leapcast.utils.speculative_decoder import SpeculativeDecoder, in_parts

TRIALS = 2.0  # as many accepted proposals are assumed at first: what was never tried is worth a try
FORGET = 0.99  # a call: what was learned long ago is tried again
OFTEN = 16  # calls between two plans
TRUST = 0.3  # in the time of the last call
WORTH = 0.97  # of the target's own time: what is expected to save less is not tried
SECONDS, MOST = 4.0, 9  # of measuring prices, and how often each at most


@dataclass(frozen=True)
class Prices:
    """Seconds of a round by its number of proposals, 0 … K. The first includes the prefill; inf: it cannot be."""

    first: list[float]
    later: list[float]

    def alone(self, steps: int) -> float:
        """Seconds of the target alone."""
        return self.first[0] + (steps - 1) * self.later[0]

    @classmethod
    def measure(cls, forecast: Callable, most: int, steps: int, opens: bool, device: torch.device) -> "Prices":
        """By ``forecast(steps, k)``, which accepts every proposal; k = 0 is the target alone.

        Args:
            most: K.
            steps: patches of the horizon, at least 2; for the price of a step of the target alone.
            opens: whether the draft can propose before the target's first pass.
        """

        some = sorted({1, (1 + most) // 2, most})
        wanted = [(1, 0), (steps, 0)]
        wanted += [(k + 1, k) for k in some] + [(2 * k + 2, k) for k in some] if opens else [(k + 2, k) for k in some]
        spent = dict.fromkeys(wanted, math.inf)  # the least: noise only ever adds
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
            later[k] = max(beyond, later[0])  # a difference of two noisy numbers
        between = [_between(later, k) for k in range(most + 1)]
        opening = [_between(first, k) if opens else float("inf") for k in range(1, most + 1)]
        return cls([prefill, *opening], between)


def _between(points: dict[int, float], k: int) -> float:
    return float(np.interp(k, list(points), list(points.values())))


class Pace:
    """What a decoder has learned of its prices and of acceptance."""

    def __init__(self, most: int):
        self.most = most
        self.prices: dict[tuple, dict[int, Prices]] = {}  # of a shape of windows and a number of rows
        self.accepted, self.tested = torch.zeros(most, dtype=torch.double), torch.zeros(most, dtype=torch.double)
        self.calls = 0
        self.plans: dict[tuple, tuple[float, list[int]]] = {}
        self.slower = 1.0  # than expected, by what factor calls with a draft were: a batch waits for its slowest row

    def known(self, shape: tuple, rows: int) -> Prices | None:
        """Prices measured with about as many rows: neither more than twice nor less than half."""
        prices = self.prices.get(shape, {})
        near = [n for n in prices if rows <= 2 * n and n <= 2 * rows]
        return prices[min(near, key=lambda n: abs(n - rows))] if near else None

    def rates(self) -> list[float]:
        """α_i: the acceptance at each position of a round once it is reached."""
        return ((self.accepted + TRIALS) / (self.tested + TRIALS)).tolist()

    def learn(self, accepted: Tensor, tested: Tensor, slower: float | None = None) -> None:
        """Count what a call tested, ``[K]`` each, and how much slower than expected it was; None without a draft."""
        self.accepted, self.tested = FORGET * self.accepted + accepted, FORGET * self.tested + tested
        self.slower += (1 - FORGET) * (1 - self.slower) if slower is None else TRUST * (slower - self.slower)
        self.calls += 1
        if self.calls < OFTEN or self.calls % OFTEN == 0:  # to plan is not free either
            self.plans = {}

    def plan(self, shape: tuple, rows: int, steps: int) -> tuple[float, list[int]]:
        """Expected seconds, and how many patches to propose with 0 … ``steps`` left; the last is for the first round.

        All 0 where the target alone is expected to be as quick.
        """
        key = shape, rows, steps
        if key not in self.plans:
            prices = self.known(shape, rows)
            assert prices is not None, "prices are measured before a plan is made"
            seconds, plan = best_rounds(prices.first, prices.later, self.rates(), steps)
            alone = prices.alone(steps)
            pays = seconds * self.slower < WORTH * alone
            self.plans[key] = (seconds, plan) if pays else (alone, [0] * (steps + 1))
        return self.plans[key]


def prices(decoder: SpeculativeDecoder, x: Tensor, steps: int, series: Tensor, samples: int = 1) -> Prices:
    """Measured seconds of rounds of these windows ``[B, L, C]``, of which all are decoded together."""
    config = decoder.config
    forced = config.rule(replace(config, accept_mse_tol=math.inf), decoder.target.config.stochastic_head)

    def forecast(count: int, k: int) -> None:
        plan = [0, *(min(k, left) for left in range(count))]
        decoder.decode(x, count, series, samples, plan, forced)

    opens = samples == 1 and not decoder.draft.reads_target
    return Prices.measure(forecast, config.k, steps, opens, x.device)


class AdaptiveDecoder:
    """A decoder whose rounds propose as many patches as is expected to be quickest, ``config.k`` at most, perhaps none.

    Args:
        decoder: decodes by the plans that are made here.
        pace: what another one with this mode and k has learned.
    """

    def __init__(self, decoder: SpeculativeDecoder, pace: Pace | None = None):
        self.decoder, self.config = decoder, decoder.config
        self.pace = pace or Pace(decoder.config.k)

    def generate(
        self, x: Tensor, steps: int, series: Tensor | None = None, samples: int = 1
    ) -> tuple[Tensor, Statistics]:
        """See :meth:`SpeculativeDecoder.generate`."""
        return in_parts(self.decode, self.decoder, x, steps, series, samples)

    def decode(self, x: Tensor, steps: int, series: Tensor, samples: int) -> tuple[Tensor, Statistics]:
        """Of windows that are decoded together; the first of a kind are priced before."""
        if steps == 1:
            return self.decoder.decode(x, steps, series, samples)
        shape, rows = (samples == 1, *x.shape[1:]), samples * len(x)
        if self.pace.known(shape, rows) is None:
            self.pace.prices.setdefault(shape, {})[rows] = prices(self.decoder, x, steps, series, samples)
        expected, plan = self.pace.plan(shape, rows, steps)
        begun = clock(x.device)
        forecast, statistics = self.decoder.decode(x, steps, series, samples, plan)
        slower = (clock(x.device) - begun) / expected if any(plan) else None
        self.pace.learn(statistics.accepted, statistics.attempted, slower)
        return forecast, statistics


def make_decoder(
    target, draft, config: SpeculativeConfig, adaptive: bool = False, trace=None, pace: Pace | None = None
) -> SpeculativeDecoder | AdaptiveDecoder:
    """A decoder that proposes ``config.k`` patches, or one that adapts."""
    decoder = SpeculativeDecoder(target, draft, config, trace)
    return AdaptiveDecoder(decoder, pace) if adaptive else decoder
