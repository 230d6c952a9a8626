"""Acceptance tests for proposals, and replacements for the first rejected one. Pure functions, no model.

The last dimension D holds all values of one patch of one row (with joint channels, of all variables): the test is made
per row. p is the target's distribution, q the draft's, both Gaussian. Units are those of the standardised data.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize


def mean_square(target_mean: Tensor, draft_mean: Tensor) -> Tensor:
    """Mean squared distance, ``[..., D]`` -> ``[...]``. Point mode accepts if it is at most ``accept_mse_tol``."""
    return (target_mean - draft_mean).square().mean(-1)


def accept_shared(z: Tensor, delta: Tensor, log_u: Tensor, bias: float = 1.0) -> Tensor:
    """Speculative test of x = μ_q + Σ^½ z against p and q of the same covariance Σ.

    log p(x)/q(x) = -zᵀδ - ½‖δ‖² with δ = Σ^-½ (μ_q - μ_p), so that at bias 1 the acceptance rate is 2Φ(-‖δ‖/2), the
    maximum of any lossless rule (the overlap of p and q).

    Args:
        z: ``[..., D]`` standard normal.
        delta: ``[..., D]``, δ.
        log_u: ``[...]`` logarithm of a uniform number.
        bias: factor on the ratio; above 1 the test is not lossless.

    Returns:
        whether each proposal is accepted, ``[...]``.
    """
    return log_u <= math.log(bias) - (z * delta).sum(-1) - 0.5 * delta.square().sum(-1)


def reflect(z: Tensor, delta: Tensor) -> Tensor:
    """The noise z' of the patch emitted on rejection, μ_p + Σ^½ z': z reflected along δ, ``[..., D]``.

    With :func:`accept_shared` this is the reflection maximal coupling (Bou-Rabee, Eberle, Zimmer 2020; for speculative
    sampling De Bortoli et al. 2025): the result has exactly the distribution p, with one draw and no loop.
    """
    e = normalize(delta, dim=-1)  # 0 where δ = 0; such a proposal is never rejected
    return z - 2 * (z * e).sum(-1, keepdim=True) * e


def log_density(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Log-density of independent Gaussians up to an additive constant: ``[..., D]`` -> ``[...]``."""
    return -0.5 * ((x - mean).square() * (-log_var).exp() + log_var).sum(-1)


def accept_learned(
    x: Tensor, target: tuple[Tensor, Tensor], draft: tuple[Tensor, Tensor], log_u: Tensor, bias: float = 1.0
) -> Tensor:
    """Speculative test of x ~ q for different diagonal covariances; ``target``, ``draft``: mean and log-variance."""
    return log_u <= math.log(bias) + log_density(x, *target) - log_density(x, *draft)


def residual(
    z: Tensor, u: Tensor, target: tuple[Tensor, Tensor], draft: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """A draw from the residual distribution max(0, p - q) / β, with which the output is distributed exactly as p.

    Returns the first y ~ p with u < 1 - min(1, q(y)/p(y)). If none of the M draws passes, the last one is returned; the
    resulting error is at most 1/(e(M + 1)) in total variation.

    Args:
        z: ``[R, M, D]`` standard normal.
        u: ``[R, M]`` uniform.
        target, draft: mean and log-variance, each ``[R, D]``.

    Returns:
        y ``[R, D]`` and whether the bound was hit ``[R]``.
    """
    target, draft = ((side[0].unsqueeze(1), side[1].unsqueeze(1)) for side in (target, draft))
    y = target[0] + (0.5 * target[1]).exp() * z
    passed = u < -torch.expm1((log_density(y, *draft) - log_density(y, *target)).clamp(max=0))
    first = torch.where(passed.any(1), passed.int().argmax(1), passed.shape[1] - 1)
    return y[torch.arange(len(y), device=y.device), first], ~passed.any(1)


def leading(accepted: Tensor) -> Tensor:
    """How many proposals are accepted before the first rejection: ``[B, K]`` -> ``[B]``."""
    return accepted.int().cumprod(1).sum(1)
