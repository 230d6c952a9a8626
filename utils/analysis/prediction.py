"""Prediction of a configuration's speed and accuracy from one decoding in which every proposal is rejected.

Every round then advances by one patch, so that the draft is compared with the target from every position.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from leapcast.models.sessions.base import Draft, Target
from leapcast.utils.decoding import theory
from leapcast.utils.decoding.adaptive import Prices
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.round import Proposal, Verdict, Verified
from leapcast.utils.decoding.rules import Rule
from leapcast.utils.speculative_decoder import SpeculativeDecoder

NOT_PREDICTED = dict.fromkeys(("acceptance", "patches_per_target_pass", "speedup", "mse_added"))


class Watching(Rule):
    """An acceptance rule that rejects every proposal and records the distance between draft and target.

    Attributes:
        found: for each round, ``[rows, k]`` distances of its proposals.
    """

    def __init__(self, rule: Rule):
        super().__init__(rule.config, rule.learned)
        self.rule = rule
        self.found: list[Tensor] = []
        for name in ("noise", "draw", "own", "draws", "emits_proposals"):
            setattr(self, name, getattr(rule, name))

    def judge(self, proposal: Proposal, verified: Verified) -> Verdict:
        # emit a draw of the target: the residual distribution of a rejection is correct only if others are accepted
        emitted = self.own(proposal.noise, verified)
        none = torch.zeros_like(proposal.limit)
        if proposal.k:
            self.found.append(self.rule.distance(proposal, verified).cpu())
        return Verdict(none, proposal.limit, emitted, torch.zeros(proposal.mean.shape[:2], device=emitted.device))


def watch(
    target: Target, draft: Draft, config: SpeculativeConfig, x: Tensor, steps: int, series: Tensor
) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """The forecast of the target alone, and the distance of the draft from it in every round.

    Args:
        x: contexts ``[B, L, C]``.
        steps: patches to forecast.
        series: ``[B]``, the numbers of the series, which key the noise.

    Returns:
        the forecast ``[B, steps·P, C]``, and for each round the number of patches before it and the ``[rows, k]``
        distances of its proposals (point mode: mean squared difference of the means; sample mode: ‖δ‖).
    """
    rule = Watching(config.rule(config, target.config.stochastic_head))
    forecast, _ = SpeculativeDecoder(target, draft, config, rule=rule).generate(x, steps, series)
    # every round emits one patch; rounds without proposals (the last, and the first of drafting heads) record nothing
    first = int(draft.reads_target)
    rounds = steps - 1 - first
    return forecast, [(first + i % rounds, distances) for i, distances in enumerate(rule.found)]


def joined(batches: list[list[tuple[int, Tensor]]], steps: int, most: int) -> Tensor:
    """The distances from :func:`watch`, batches joined: ``[rows, steps, K]``, 0 where nothing can be proposed."""
    tables = []
    for batch in batches:
        starts: dict[int, list[Tensor]] = {}
        for done, distances in batch:  # a large batch is decoded in parts, each with its own rounds
            starts.setdefault(done, []).append(distances)
        whole = {done: torch.cat(parts) for done, parts in starts.items()}
        table = torch.zeros(len(next(iter(whole.values()))), steps, most, dtype=torch.double)
        for done, distances in whole.items():
            table[:, done, : distances.shape[1]] = distances
        tables.append(table)
    return torch.cat(tables)


@dataclass(frozen=True)
class Outlook:
    """Measurements for one mode and σ, from which the results of its configurations are predicted."""

    distances: Tensor  # [rows, steps, K]; entry [r, t, i]: proposal i of a round that starts after t patches
    injected: float  # MSE of one sample path of the target minus that of its point forecast; 0 in point mode
    prices: Prices
    rows: int  # batch size at which the prices were measured
    latency: bool  # whether the cost does not fall with fewer rows, as on a GPU
    size: int  # D: values in a patch of one row
    known: dict = field(default_factory=dict)  # cache of the rates, which do not depend on K

    def rates(self, config: SpeculativeConfig) -> Tensor | None:
        """Acceptance probability of every proposal, ``[rows, steps, K]``; None where there is no closed form."""
        key = config.mode, config.accept_bias, config.accept_mse_tol
        if key not in self.known:
            self.known[key] = config.rule(config).rates(self.distances, self.size)
        return None if self.known[key] is None else self.known[key][..., : config.k]

    def predict(self, config: SpeculativeConfig, samples: int = 1) -> dict:
        """Predicted acceptance rate, patches per target pass, speed-up over the target alone, and MSE added by noise.

        All are None where the acceptance rule has no closed form.
        """
        rates = self.rates(config)
        if rates is None:
            return dict(NOT_PREDICTED)
        first, later, steps = self.prices.first, self.prices.later, rates.shape[1]
        expected = theory.expected_decoding(rates, first, later)
        tested, alone = expected.tested.sum().item(), self.prices.alone(steps)
        return {
            "acceptance": expected.accepted.sum().item() / tested if tested else None,
            "patches_per_target_pass": steps * len(rates) / expected.rounds.sum().item(),
            "speedup": alone / theory.batch_time(rates, first, later, self.rows, self.latency),
            "mse_added": self.injected / samples,
        }
