"""Coupled mode: draft and target draw with the same noise; the target's draws are emitted."""

import math
from typing import ClassVar

from torch import Tensor

from leapcast.utils.decoding import acceptance
from leapcast.utils.decoding.round import Proposal, Verdict, Verified
from leapcast.utils.decoding.rules.sample import Drawn, Noise


class Coupled(Drawn):
    """Accept a draw of the draft if its MSE to the target's draw with the same noise is at most ``accept_mse_tol``.

    With its noise given, a sample path is a deterministic function of the context, x_n = μ_p(x_<n) + Σ^½ z_n, and point
    mode applies to it: caches keep the proposal μ_q + Σ^½ z_n, and the target's own draw x_n is emitted. With tolerance
    0 the paths are the target's own for the seed; above it, every emitted patch is an exact draw of the target given a
    prefix whose MSE is at most the tolerance per patch. (Synchronous coupling; Wiggers & Hoogeboom 2020,
    https://arxiv.org/abs/2002.09928, is a predecessor for discrete data.)
    """

    emits_proposals = False
    help = (
        "draw sample paths near those that the target alone draws with the same noise, each patch its own draw on a "
        "prefix off by at most the tolerance: quantiles, several times faster"
    )
    settings = ("sigma", "accept_mse_tol")
    default_tolerance = 0.005
    presets: ClassVar[dict[str, dict[str, list]]] = {
        "coupled": {
            "sigma": [0.5, "calibrated"],
            "accept_mse_tol": [0.0, 0.0025, 0.005, 0.01, 0.02, math.inf],
            "k": [1, 3, 7],
        }
    }

    @property
    def exact(self) -> bool:
        return self.config.accept_mse_tol <= 0

    def draw(self, noise: Noise, i: int, mean: Tensor, log_var: Tensor | None) -> Tensor:
        if self.learned and log_var is None and noise.log_var is not None:
            log_var = noise.log_var  # a draft without variances uses the target's last ones
        return super().draw(noise, i, mean, log_var)

    def judge(self, proposal: Proposal, verified: Verified) -> Verdict:
        emitted = self.own(proposal.noise, verified)
        squared = acceptance.mean_square(emitted[:, : proposal.k].flatten(2), proposal.patches.flatten(2))
        accepted = acceptance.leading(squared <= self.config.accept_mse_tol).cpu().minimum(proposal.limit)
        return Verdict(accepted, proposal.limit, emitted, squared)

    def distance(self, proposal: Proposal, verified: Verified) -> Tensor:
        return self.judge(proposal, verified).squared

    def rates(self, distance: Tensor, size: int) -> Tensor:
        return (distance <= self.config.accept_mse_tol).double()
