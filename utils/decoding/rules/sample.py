"""Sample mode: proposals are draws from the draft; emitted patches are distributed as draws from the target."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from leapcast.utils.decoding import acceptance, noise, theory
from leapcast.utils.decoding.covariance import Spread
from leapcast.utils.decoding.round import Place, Proposal, Verdict, Verified
from leapcast.utils.decoding.rules.base import Rule, squared_distance


@dataclass(frozen=True)
class Noise:
    """Standard normal noise of patches, with the keys that generate it."""

    key: tuple[Tensor, Tensor]  # series [b, 1] and patches [b or 1, n]
    z: Tensor  # [b, n, C, P]
    spread: Spread
    log_var: Tensor | None = None  # [b, 1, C, P], the target's last known log-variance, if it has learned variances

    @cached_property
    def coloured(self) -> Tensor:
        """Σ^½ z."""
        return self.spread.colour(self.z)


class Drawn(Rule):
    """A rule whose patches are draws: x = μ + Σ^½ z, the noise z keyed by seed, series and patch."""

    draws = True

    def noise(self, place: Place) -> Noise:
        assert place.z is not None, "this rule draws"
        device = place.series.device
        patch = place.done.to(device).unsqueeze(1) + torch.arange(place.z.shape[1], device=device)
        return Noise((place.series.unsqueeze(1), patch), place.z, place.spread, place.log_var)

    def draw(self, noise: Noise, i: int, mean: Tensor, log_var: Tensor | None) -> Tensor:
        here = slice(i, i + mean.shape[1])
        if self.learned and log_var is not None:
            return mean + noise.z[:, here] * (0.5 * log_var).exp()
        return mean + noise.coloured[:, here]

    def own(self, noise: Noise, verified: Verified) -> Tensor:
        if verified.log_var is not None:
            return verified.mean + noise.z * (0.5 * verified.log_var).exp()
        return verified.mean + noise.coloured


class Sample(Drawn):
    """Speculative sampling (Leviathan, Kalman, Matias 2023) of Gaussian patches, see ``utils/decoding/acceptance.py``.

    Without learned variances both models have the same covariance, and a rejected proposal is reflected. With learned
    variances the covariances differ, and a rejected proposal is replaced by a draw from the residual distribution.
    """

    emits_proposals = True
    help = (
        "draw sample paths with the target's own distribution, lossless where bias is 1 and the tolerance 0: where "
        "exactness is worth its price"
    )
    settings = (
        "sigma",
        "accept_bias",
        "accept_mse_tol",
        "max_draws",
        "sigma_mode",
        "target_acceptance",
        "sigma_min",
        "sigma_max",
    )
    default_tolerance = 0.0
    presets: ClassVar[dict[str, dict[str, list]]] = {
        "original": {
            "sigma": [0.5, 1.0, 1.5, 2.0],
            "accept_bias": [1.0, 2.0, 5.0, 10.0],
            "accept_mse_tol": [0.0, 0.5, 1.0, 2.0],
            "k": [1, 2, 3],
        },
        "sample": {
            "sigma": [0.25, 0.5, 1.0, 2.0, "calibrated"],
            "accept_bias": [1.0],
            "accept_mse_tol": [0.0],
            "k": [1, 2, 3],
        },
        "adaptive_sigma": {
            "sigma": [0.5, "calibrated"],
            "accept_bias": [1.0],
            "accept_mse_tol": [0.0],
            "k": [3],
            "sigma_mode": ["adaptive"],
            "target_acceptance": [0.4, 0.6, 0.8],
        },
    }

    @property
    def exact(self) -> bool:
        config = self.config
        return config.accept_mse_tol <= 0 and config.accept_bias == 1 and not config.steered

    def judge(self, proposal: Proposal, verified: Verified) -> Verdict:
        k, limit, drawn = proposal.k, proposal.limit, proposal.noise
        emitted = self.own(drawn, verified)
        if not k:
            return Verdict(limit, limit, emitted, emitted.new_empty(len(limit), 0))
        config, key = self.config, (drawn.key[0], drawn.key[1][:, :k])
        log_u = noise.uniform(config.seed, noise.ACCEPTANCE, *key, 1).squeeze(-1).log()
        delta = None
        if self.learned:
            moments = self._moments(proposal, verified)
            passed = acceptance.accept_learned(proposal.patches.flatten(2), *moments, log_u, config.accept_bias)
        else:
            delta = drawn.spread.whiten(proposal.mean - verified.mean[:, :k]).flatten(2)
            passed = acceptance.accept_shared(drawn.z[:, :k].flatten(2), delta, log_u, config.accept_bias)
        if config.accept_mse_tol > 0:
            error = acceptance.mean_square(verified.mean[:, :k].flatten(2), proposal.patches.flatten(2))
            passed = passed | (error <= config.accept_mse_tol)
        accepted = acceptance.leading(passed).cpu().minimum(limit)  # the only device synchronisation of the round

        hits: Tensor | int = 0
        rejected = torch.nonzero(accepted < limit).squeeze(1)
        if len(rejected):
            rows, at = rejected.to(emitted.device), accepted[rejected].to(emitted.device)
            if delta is None:
                corrected, hits = self._residual(proposal, moments, rows, at)
            else:
                z = acceptance.reflect(drawn.z[rows, at].flatten(1), delta[rows, at])
                z = z.unflatten(-1, emitted.shape[2:]).unsqueeze(1)
                corrected = verified.mean[rows, at] + drawn.spread.select(rejected).colour(z).squeeze(1)
            emitted[rows, at] = corrected
        verdict = Verdict(accepted, limit, emitted, squared_distance(proposal, verified), bound_hits=hits)
        kept = verdict.kept[..., None, None].to(emitted.device)
        emitted[:, :k] = torch.where(kept, proposal.patches, emitted[:, :k])
        if delta is None:
            return verdict
        tested = tuple(t.to(emitted.device) for t in torch.nonzero(verdict.tested, as_tuple=True))
        return Verdict(accepted, limit, emitted, verdict.squared, delta[tested].norm(dim=-1), hits)

    def distance(self, proposal: Proposal, verified: Verified) -> Tensor:
        """‖δ‖, ``[b, k]``."""
        delta = proposal.noise.spread.whiten(proposal.mean - verified.mean[:, : proposal.k])
        return delta.flatten(2).norm(dim=-1)

    def rates(self, distance: Tensor, size: int) -> Tensor | None:
        config = self.config
        if config.steered:  # the distances at one sigma do not tell
            return None
        if config.accept_mse_tol <= 0:
            return theory.acceptance_rate(distance, config.accept_bias)
        if not isinstance(config.sigma, float):
            return None
        tolerance = min(config.accept_mse_tol / config.sigma**2, 1e6)
        return theory.acceptance_rate_with_tolerance(distance, config.accept_bias, tolerance, size)

    def _moments(self, proposal: Proposal, verified: Verified) -> tuple[tuple, tuple]:
        """Mean and log-variance of target and draft at the proposals, each ``[b, k, D]``."""
        log_var = proposal.log_var
        if log_var is None:
            log_var = torch.full_like(proposal.mean, 2 * math.log(self.config.sigma))
        assert verified.log_var is not None, "the target must have learned variances"
        target = verified.mean[:, : proposal.k].flatten(2), verified.log_var[:, : proposal.k].flatten(2)
        return target, (proposal.mean.flatten(2), log_var.flatten(2))

    def _residual(self, proposal: Proposal, moments: tuple, rows: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        target, draft = (tuple(moment[rows, at] for moment in side) for side in moments)
        seed, most, shape = self.config.seed, self.config.max_draws, proposal.mean.shape[2:]
        key = proposal.noise.key[0][rows], proposal.noise.key[1][rows, at].unsqueeze(1)
        z = noise.normal(seed, noise.RESIDUAL, *key, most * shape.numel()).to(target[0].dtype)
        u = noise.uniform(seed, noise.RESIDUAL_ACCEPTANCE, *key, most).squeeze(1)
        y, hit = acceptance.residual(z.view(len(rows), most, shape.numel()), u, target, draft)
        return y.unflatten(-1, shape), hit.sum()
