"""Σ, the covariance of a patch given what came before it: what target and draft share in sample mode."""

import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor


class Isotropic:
    """Σ = σ² I."""

    def __init__(self, sigma: float):
        self.sigma = sigma

    def colour(self, z: Tensor, variable: Tensor | None) -> Tensor:
        return z * self.sigma

    def whiten(self, x: Tensor, variable: Tensor | None) -> Tensor:
        return x / self.sigma


class Calibrated:
    """A matrix for each variable; variables are taken as independent of each other, given the past.

    Args:
        matrices: ``[C, P, P]``.
    """

    def __init__(self, matrices: Tensor):
        self.factor = torch.linalg.cholesky(matrices.double())
        self.inverse = torch.linalg.inv(self.factor)

    def colour(self, z: Tensor, variable: Tensor | None) -> Tensor:
        """Σ^½ z for z ``[b, n, C, P]``, or for rows of one variable ``[b, n, 1, P]``, ``variable`` ``[b]`` on the host."""
        return _apply(self.factor, z, variable)

    def whiten(self, x: Tensor, variable: Tensor | None) -> Tensor:
        """Σ^-½ x, shapes as in :meth:`colour`."""
        return _apply(self.inverse, x, variable)


def _apply(matrices: Tensor, x: Tensor, variable: Tensor | None) -> Tensor:
    matrices = matrices.to(x)
    if variable is None:
        return torch.einsum("bncp,cqp->bncq", x, matrices)
    # One product a variable, over all its rows: a matrix a row would not fit in memory.
    out = torch.empty_like(x)
    for c in variable.unique().tolist():
        rows = torch.nonzero(variable == c).squeeze(1).to(x.device)
        out[rows] = x[rows] @ matrices[c].mT
    return out


def calibrate(residuals: Tensor) -> Tensor:
    """The covariance of each variable's residuals about 0, shrunk after Ledoit and Wolf (2004).

    About 0 and not about their mean: forecasts are not shifted, so what bias they have is part of their spread.

    Args:
        residuals: ``[windows, C, P]`` of next-patch forecasts, in units of the standardised data.

    Returns:
        ``[C, P, P]`` float64.
    """
    fits = [LedoitWolf(assume_centered=True).fit(variable.double().numpy()) for variable in residuals.unbind(1)]
    return torch.stack([torch.from_numpy(fit.covariance_) for fit in fits])
