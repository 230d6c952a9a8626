"""Accuracy of forecasts, in the units of the standardised data."""

import numpy as np
import torch
from scoringrules import crps_ensemble
from torch import Tensor

INTERVALS = (50, 80, 95)  # per cent, central


def crps(truth: np.ndarray, paths: np.ndarray, axis: int) -> np.ndarray:
    """CRPS of every value of ``truth``, from several paths of it along this axis of ``paths``."""
    # "pwm" is unbiased for any number of paths; the default estimator is not
    return crps_ensemble(truth, paths, m_axis=axis, estimator="pwm")


class Drift:
    """Mean squared difference between speculative and target forecasts, accumulated per batch in float64.

    Point forecasts are compared: the means, or the averages over sample paths. With a single path per window the
    drift is None, since the difference of two independent draws does not measure it.

    Args:
        paths: whether the forecasts are sample paths.
    """

    def __init__(self, paths: bool):
        self.paths, self.squared, self.count = paths, 0.0, 0

    def add(self, ours: Tensor, own: Tensor) -> None:
        """Add a batch of speculative (``ours``) and target (``own``) forecasts.

        Both are ``[B, H, C]``, or sample paths ``[B, S, H, C]``.
        """
        if ours.ndim == 3 and self.paths:
            return
        ours, own = (forecast.double().mean(1) if forecast.ndim == 4 else forecast.double() for forecast in (ours, own))
        self.squared += (ours - own).square().sum().item()
        self.count += ours.numel()

    def record(self) -> float | None:
        return self.squared / self.count if self.count else None


class PathDeviation(Drift):
    """Mean squared difference between the sample paths of speculation and of the target alone with the same noise.

    Path by path, so that it also measures single paths; None for point forecasts.
    """

    def add(self, ours: Tensor, own: Tensor) -> None:
        if self.paths:
            self.squared += (ours.double() - own.double()).square().sum().item()
            self.count += ours.numel()


class Accuracy:
    """Forecast errors averaged over windows, horizon and variables, accumulated per batch.

    Args:
        patch: time steps per patch; coverage is also reported for the first patch alone.
    """

    def __init__(self, patch: int):
        self.patch = patch
        self.squared = self.absolute = self.crps = 0.0
        self.count = self.first = 0
        self.covered: Tensor | None = None
        self.covered_first: Tensor | None = None

    def add(self, forecast: Tensor, truth: Tensor) -> None:
        """Add a batch: a point forecast ``[B, H, C]``, or sample paths ``[B, S, H, C]`` and their mean.

        ``truth`` is ``[B, H, C]``.
        """
        if forecast.ndim == 4:
            self._add_paths(forecast, truth)
            forecast = forecast.mean(1)
        error = (forecast - truth).double()
        self.squared += error.square().sum().item()
        self.absolute += error.abs().sum().item()
        self.count += error.numel()

    def _add_paths(self, paths: Tensor, truth: Tensor) -> None:
        each = crps(truth.cpu().numpy(), paths.cpu().numpy(), 1)
        self.crps += float(each.sum(dtype="float64"))
        # plotting positions at which S paths from the true distribution have the nominal coverage
        count = paths.shape[1]
        shares = [((100 - interval) / 200 * (count + 1) - 1) / (count - 1) for interval in INTERVALS]
        self.known = [share >= 0 for share in shares]
        tails = torch.tensor(shares, dtype=paths.dtype, device=paths.device).clamp(min=0)
        low, high = paths.quantile(tails, 1), paths.quantile(1 - tails, 1)  # each [3, B, H, C]
        inside = ((low <= truth) & (truth <= high)).double()
        first = inside[:, :, : self.patch]
        if self.covered is None or self.covered_first is None:
            self.covered = self.covered_first = torch.zeros(len(INTERVALS), dtype=torch.float64)
        self.covered = self.covered + inside.sum((1, 2, 3)).cpu()
        self.covered_first = self.covered_first + first.sum((1, 2, 3)).cpu()
        self.first += first[0].numel()

    def record(self) -> dict:
        """``mse``, ``mae``, ``crps`` and coverage (shares, over the whole horizon and over its first patch).

        ``crps`` and coverage are None without sample paths. The coverage of an interval is None where there are too
        few paths for it: the 95 % interval needs 39.
        """
        record = {"mse": self.squared / self.count, "mae": self.absolute / self.count}
        if self.covered is None or self.covered_first is None:
            return record | {"crps": None, "coverage": None, "coverage_first_patch": None}

        def shares(covered: Tensor, count: int) -> dict:
            return {
                str(interval): share if known else None
                for interval, share, known in zip(INTERVALS, (covered / count).tolist(), self.known, strict=True)
            }

        return record | {
            "crps": self.crps / self.count,
            "coverage": shares(self.covered, self.count),
            "coverage_first_patch": shares(self.covered_first, self.first),
        }
