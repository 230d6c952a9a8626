"""What a configuration will do, from watching rounds that accept nothing: every start of a round is seen once."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from utils import theory
from utils.adaptive import Prices
from utils.speculative_decoder import Point, Sample, SpeculativeConfig, SpeculativeDecoder

NOT_PREDICTED = dict.fromkeys(("acceptance", "patches_per_target_pass", "speedup", "mse_added"))


class _Watching:
    """A rule that rejects everything, so that the target goes on alone, and notes how far the draft was off."""

    def __init__(self, found: list, *rest):
        super().__init__(*rest)
        self.found = found

    def test(self) -> Tensor:
        super().test()
        done = int(self.rows.held[0]) - self.rows.context_len
        self.found.append((done, self.distance().cpu()))
        return torch.zeros_like(self.squared, dtype=torch.bool)


class WatchingPoint(_Watching, Point):
    def distance(self) -> Tensor:
        return self.squared


class WatchingSample(_Watching, Sample):
    def distance(self) -> Tensor:
        return self.delta.norm(dim=-1)

    def emit(self, accepted: Tensor, limit: Tensor) -> Tensor:
        return self.verified[0] + self.noise  # not the draw of a rejection, which is p's only among all draws


def watch(
    target, draft, config: SpeculativeConfig, x: Tensor, steps: int, series: Tensor
) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """The target's own forecast ``[B, steps·P, C]``, and how far the draft is from it.

    Returns:
        the forecast, and for each round: patches before it, and ``[rows, k]`` distances of its proposals (in point mode
        mean squares of the difference of means, in sample mode ‖δ‖).
    """
    found, decoder = [], SpeculativeDecoder(target, draft, config)
    rule = WatchingPoint if config.mode == "point" else WatchingSample
    decoder.rule = lambda *rest: rule(found, *rest)
    forecast, _ = decoder.generate(x, steps, series)
    return forecast, found


def joined(batches: list[list[tuple[int, Tensor]]], steps: int, most: int) -> Tensor:
    """What :func:`watch` found for each batch, as ``[rows, steps, K]``; 0 where nothing can be proposed."""
    tables = []
    for found in batches:
        starts = {}
        for done, distances in found:  # a large batch is decoded in parts
            starts.setdefault(done, []).append(distances)
        starts = {done: torch.cat(parts) for done, parts in starts.items()}
        table = torch.zeros(len(next(iter(starts.values()))), steps, most, dtype=torch.double)
        for done, distances in starts.items():
            table[:, done, : distances.shape[1]] = distances
        tables.append(table)
    return torch.cat(tables)


@dataclass(frozen=True)
class Outlook:
    """What is known of a mode and a σ before any configuration is run."""

    distances: Tensor  # [rows, steps, K], of the proposal at position i of a round begun after t patches
    injected: float  # MSE of the target's sample paths above that of its point forecast; 0 in point mode
    prices: Prices
    rows: int  # of a batch to which the prices belong
    latency: bool  # whether fewer rows cost as much: on a GPU
    size: int  # D: numbers in a patch of a row
    known: dict = field(default_factory=dict)  # rates, which do not depend on K

    def rates(self, config: SpeculativeConfig) -> Tensor | None:
        """Acceptance of every proposal, ``[rows, steps, K]``; None where there is no closed form."""
        key = config.mode, config.accept_bias, config.accept_mse_tol
        if key not in self.known:
            self.known[key] = self._rates(*key, config.sigma)
        return None if self.known[key] is None else self.known[key][..., : config.k]

    def _rates(self, mode: str, bias: float, tolerance: float, sigma) -> Tensor | None:
        if mode == "point":
            return (self.distances <= tolerance).double()
        if tolerance <= 0:
            return theory.acceptance_rate(self.distances, bias)
        if not isinstance(sigma, float):
            return None
        tolerance = min(tolerance / sigma**2, 1e6)
        return theory.acceptance_rate_with_tolerance(self.distances, bias, tolerance, self.size)

    def predict(self, config: SpeculativeConfig, samples: int = 1) -> dict:
        """Acceptance rate, patches per target pass, speed-up over the target alone, and the MSE that noise adds."""
        rates = self.rates(config)
        if rates is None:
            return dict(NOT_PREDICTED)
        first, later, steps = self.prices.first, self.prices.later, rates.shape[1]
        told = theory.expected_decoding(rates, first, later)
        tested, alone = told.tested.sum().item(), self.prices.alone(steps)
        return {
            "acceptance": told.accepted.sum().item() / tested if tested else None,
            "patches_per_target_pass": steps * len(rates) / told.rounds.sum().item(),
            "speedup": alone / theory.batch_time(rates, first, later, self.rows, self.latency),
            "mse_added": self.injected / samples,
        }
