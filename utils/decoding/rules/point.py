"""Point mode: proposals are the draft's means; the target's means are emitted."""

import math
from typing import ClassVar

from torch import Tensor

from leapcast.utils.decoding import acceptance
from leapcast.utils.decoding.round import Proposal, Verdict, Verified
from leapcast.utils.decoding.rules.base import Rule, squared_distance


class Point(Rule):
    """Accept a proposal if MSE(μ_p, μ_q) is at most ``accept_mse_tol``; caches keep the proposal, μ_p is emitted.

    Every emitted patch is the target's mean given a prefix whose MSE is at most the tolerance per patch. The drift from
    the target's own rollout over many patches is not bounded.
    """

    draws, emits_proposals = False, False
    help = "emit the target's means, each on a prefix off by at most the tolerance: point forecasts"
    settings = ("accept_mse_tol",)
    default_tolerance = 0.005
    presets: ClassVar[dict[str, dict[str, list]]] = {
        "point": {"accept_mse_tol": [0.0, 0.001, 0.0025, 0.005, 0.01, 0.02, math.inf], "k": [1, 2, 3, 5, 7]}
    }

    @property
    def exact(self) -> bool:
        return self.config.accept_mse_tol <= 0

    def judge(self, proposal: Proposal, verified: Verified) -> Verdict:
        squared = squared_distance(proposal, verified)
        accepted = acceptance.leading(squared <= self.config.accept_mse_tol).cpu().minimum(proposal.limit)
        return Verdict(accepted, proposal.limit, verified.mean, squared)

    def distance(self, proposal: Proposal, verified: Verified) -> Tensor:
        return squared_distance(proposal, verified)

    def rates(self, distance: Tensor, size: int) -> Tensor:
        return (distance <= self.config.accept_mse_tol).double()
