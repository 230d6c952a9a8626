"""What a configuration will do, from watching rounds that accept nothing: every start of a round is seen once."""

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
    """Rejects everything, so that the target goes on alone, and notes how far the draft was off.

    Attributes:
        found: ``[rows, k]`` distances of the proposals of each round.
    """

    def __init__(self, rule: Rule):
        super().__init__(rule.config, rule.learned)
        self.rule = rule
        self.found: list[Tensor] = []
        for name in ("noise", "draw", "own", "emits_proposals"):
            setattr(self, name, getattr(rule, name))

    def judge(self, proposal: Proposal, verified: Verified) -> Verdict:
        # what is emitted is the target's own draw, not that of a rejection, which is p's only among all draws
        emitted = self.own(proposal.noise, verified)
        none = torch.zeros_like(proposal.limit)
        if proposal.k:
            self.found.append(self.rule.distance(proposal, verified).cpu())
        return Verdict(none, proposal.limit, emitted, torch.zeros(proposal.mean.shape[:2], device=emitted.device))


def watch(
    target: Target, draft: Draft, config: SpeculativeConfig, x: Tensor, steps: int, series: Tensor
) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """The target's own forecast ``[B, steps·P, C]``, and how far the draft is from it.

    Returns:
        the forecast, and for each round: patches before it, and ``[rows, k]`` distances of its proposals (in point mode
        mean squares of the difference of means, in sample mode ‖δ‖).
    """
    rule = Watching(config.rule(config, target.config.stochastic_head))
    forecast, _ = SpeculativeDecoder(target, draft, config, rule=rule).generate(x, steps, series)
    # every round emits one patch; one that proposes nothing (the last, or before heads can propose) notes nothing
    first = int(draft.reads_target)
    rounds = steps - 1 - first
    return forecast, [(first + i % rounds, distances) for i, distances in enumerate(rule.found)]


def joined(batches: list[list[tuple[int, Tensor]]], steps: int, most: int) -> Tensor:
    """What :func:`watch` found for each batch, as ``[rows, steps, K]``; 0 where nothing can be proposed."""
    tables = []
    for found in batches:
        starts: dict[int, list[Tensor]] = {}
        for done, distances in found:  # a large batch is decoded in parts
            starts.setdefault(done, []).append(distances)
        whole = {done: torch.cat(parts) for done, parts in starts.items()}
        table = torch.zeros(len(next(iter(whole.values()))), steps, most, dtype=torch.double)
        for done, distances in whole.items():
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
            self.known[key] = config.rule(config).rates(self.distances, self.size)
        return None if self.known[key] is None else self.known[key][..., : config.k]

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
