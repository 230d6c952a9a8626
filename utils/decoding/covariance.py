"""Σ, the conditional covariance of a patch given its past, shared by target and draft in sample mode."""

from copy import copy
from typing import Self

import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor
from torch.special import ndtri

from leapcast.models.layers.patches import from_patches, from_rows, row_patches, to_patches

EPS = 1e-2  # added to the variance of a context, so that a constant context has a positive scale
FLOOR = 1e-8  # lower bound on a calibrated variance
COVERED = 0.8  # coverage of the central interval that calibration matches


def context_scale(context: Tensor) -> Tensor:
    """Standard deviation of each variable over its context, without NaN: ``[B, N, C, P]`` -> ``[B, C]``."""
    variance = context.var((1, 3), correction=0)
    if variance.isnan().any():  # rows with padding
        mean = context.nanmean((1, 3), keepdim=True)
        variance = torch.where(variance.isnan(), (context - mean).square().nanmean((1, 3)), variance)
    return (variance + EPS).sqrt()


def calibrate(residuals: Tensor, scale: Tensor) -> Tensor:
    """The covariance of each variable's next-patch residuals, in units of its context's standard deviation.

    The second moments about 0 (bias is not removed, so it counts towards the covariance) are shrunk after Ledoit and
    Wolf (2004). Because residuals have heavier tails than a Gaussian with the same second moments, the matrix is then
    scaled so that its central 80 % interval covers 80 % of the residuals.

    Args:
        residuals: ``[windows, C, P]`` in units of the standardised data; windows in which a variable has non-finite
            residuals are left out for that variable.
        scale: ``[windows, C]``, see :func:`context_scale`.

    Returns:
        ``[C, P, P]`` float64.
    """
    matrices = []
    for variable in (residuals / scale.unsqueeze(-1)).double().unbind(1):
        variable = variable[variable.isfinite().all(1)]
        variable = variable if len(variable) else variable.new_zeros(2, residuals.shape[2])
        matrix = torch.from_numpy(LedoitWolf(assume_centered=True).fit(variable.numpy()).covariance_)
        floor = 1e-6 * matrix.diagonal().mean() + FLOOR
        matrix = matrix + floor * torch.eye(len(matrix), dtype=matrix.dtype)  # constant residuals have no covariance
        relative = (variable.abs() / matrix.diagonal().sqrt()).flatten()
        covered = relative.kthvalue(max(1, round(COVERED * len(relative)))).values
        factor = covered / ndtri(torch.tensor((1 + COVERED) / 2, dtype=torch.float64))
        matrices.append(matrix * factor.square() + floor * torch.eye(len(matrix), dtype=matrix.dtype))
    return torch.stack(matrices)


def sound(matrices, shape: tuple[int, int, int]) -> bool:
    """Whether ``matrices`` are float64 covariances of this shape ``[C, P, P]``, as ``calibrate`` returns."""
    if not isinstance(matrices, Tensor) or matrices.dtype != torch.float64 or matrices.shape != shape:
        return False
    if not matrices.float().isfinite().all() or not torch.allclose(matrices, matrices.mT):
        return False
    least = 0.5 * FLOOR * torch.eye(shape[-1], dtype=matrices.dtype)  # a lower bound of all eigenvalues
    return not torch.linalg.cholesky_ex(matrices - least).info.any()


def next_patch_errors(model, x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The arguments of :func:`calibrate`: residuals ``[B, C, P]`` and context scales ``[B, C]``.

    Args:
        x: context ``[B, L, C]``.
        truth: the observed next patch ``[B, P, C]``.
    """
    config, device = model.config, next(model.parameters()).device
    with torch.inference_mode():
        rows = row_patches(x.to(device), config)
        mean = from_rows(from_patches(model.predict(rows, 1)[0]), config.channels, x.shape[2]).cpu()
    return (truth - mean).transpose(1, 2), context_scale(to_patches(x, config.input_token_len))


class Calibration:
    """Calibrated covariances ``[C, P, P]`` from :func:`calibrate`; variables are conditionally independent."""

    def __init__(self, matrices: Tensor):
        self.factor = torch.linalg.cholesky(matrices.double())
        self.inverse = torch.linalg.inv(self.factor)
        self._cast: dict[tuple, Tensor] = {}

    def pooled(self) -> "Calibration":
        """The mean of the variables' covariances, for rows of any variable."""
        return Calibration((self.factor @ self.factor.mT).mean(0, keepdim=True))

    def cast(self, name: str, like: Tensor) -> Tensor:
        """``factor`` or ``inverse`` with the device and dtype of ``like``, cached."""
        key = name, like.device, like.dtype
        if key not in self._cast:
            with torch.inference_mode(False):  # training may use it later
                self._cast[key] = getattr(self, name).to(device=like.device, dtype=like.dtype)
        return self._cast[key]


class Spread:
    """Σ of every row of a batch: σ²I, or the variable's calibrated matrix times the variance of the row's context.

    Args:
        sigma: σ, or a calibration.
        context: ``[B, N, C, P]``; with independent channels C is 1 and the variables of a series are consecutive rows.
    """

    def __init__(self, sigma: float | Calibration, context: Tensor):
        self.sigma, self.variable, self.scale = sigma, None, None
        self.course: list[Tensor] = []  # of a factor that changes, see :mod:`utils.decoding.steering`
        if isinstance(sigma, Calibration):
            self.scale = context_scale(context)[:, None, :, None]
            variables = len(sigma.factor)
            if variables != context.shape[2]:
                self.variable = torch.arange(variables).repeat(len(context) // variables)

    def colour(self, z: Tensor) -> Tensor:
        """Σ^½ z, ``[B, n, C, P]``."""
        if not isinstance(self.sigma, Calibration):
            return z * self.sigma
        assert self.scale is not None
        return self._apply(self.sigma.cast("factor", z), z) * self.scale

    def whiten(self, x: Tensor) -> Tensor:
        """Σ^-½ x, ``[B, n, C, P]``."""
        if not isinstance(self.sigma, Calibration):
            return x / self.sigma
        assert self.scale is not None
        return self._apply(self.sigma.cast("inverse", x), x / self.scale)

    def select(self, rows: Tensor) -> Self:
        """The spread of the given rows, in the given order."""
        if self.scale is None:
            return self
        chosen = copy(self)
        chosen.scale = self.scale[rows.to(self.scale.device)]
        chosen.variable = None if self.variable is None else self.variable[rows.cpu()]
        return chosen

    def after(self, verdict) -> Self:
        """The spread of the round after the one with this verdict."""
        return self

    def _apply(self, matrices: Tensor, x: Tensor) -> Tensor:
        if self.variable is None:
            return torch.einsum("bncp,cqp->bncq", x, matrices)
        # one product per variable over all its rows: one matrix per row would not fit in memory
        out = torch.empty_like(x)
        for c in self.variable.unique().tolist():
            rows = torch.nonzero(self.variable == c).squeeze(1).to(x.device)
            out[rows] = x[rows] @ matrices[c].mT
        return out
