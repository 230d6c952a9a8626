"""What ``measure`` makes of its forecasts: their errors, and the lines of its table."""

import statistics
from dataclasses import dataclass

import numpy as np

from leapcast.data_provider.histories import History
from leapcast.forecaster import SpeculativeForecaster
from leapcast.inputs import standardise
from leapcast.outputs import total
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.decoding.timing import speedup
from leapcast.utils.reporting.measured import ALONE, RIVAL, label


@dataclass(frozen=True)
class Method:
    """A way to forecast: the draft's name in the registry, or None for the target alone, and the tolerance."""

    draft: str | None
    allowed: float
    forecaster: SpeculativeForecaster


@dataclass(frozen=True)
class Round:
    """What every method took and counted in one call, and the errors of each forecast of it, see :func:`errors`."""

    seconds: list[float]
    counts: list[Statistics]
    errors: list[np.ndarray]


def errors(one: History, past: History, forecasts: list[np.ndarray], context: int) -> np.ndarray:
    """MSE and MAE of forecasts from one origin, in standard deviations of the context: ``[forecasts, 2]``.

    Columns that are constant in the context, and values that were filled in, are left out; NaN where nothing is left.

    Args:
        one: the series.
        past: the same, cut at the origin.
        forecasts: each ``[H, C]``.
        context: time steps that the target reads.
    """
    ahead = slice(len(past.values), len(past.values) + len(forecasts[0]))
    windows = np.stack([np.concatenate((past.values[-context:], each)) for each in (one.values[ahead], *forecasts)])
    scaled, _, scale = standardise(windows, context)
    counted = np.broadcast_to(scale[0] > 0, forecasts[0].shape)
    if one.gaps is not None:
        counted = counted & ~one.gaps[ahead]
    if not counted.any():
        return np.full((len(forecasts), 2), np.nan)
    error = (scaled[1:] - scaled[0])[:, context:][:, counted]
    return np.stack([np.square(error).mean(1), np.abs(error).mean(1)], 1)


def rows(methods: list[Method], rounds: list[Round], simple: list[str]) -> list[dict]:
    """The lines of the table, for JSON: of the methods, the target alone first, then of the rivals of these names.

    What does not apply is None. ``seconds`` is the median over calls, ``speedup`` the median of ratios, ``ratio`` the
    MSE over that of the target alone.
    """
    found = np.array([one for each in rounds for one in each.errors])
    known = found[~np.isnan(found).any((1, 2))]
    means = known.mean(0).tolist() if len(known) else [[None, None]] * found.shape[1]
    seconds, counts = (
        [*zip(*parts, strict=True)] for parts in zip(*((r.seconds, r.counts) for r in rounds), strict=True)
    )
    own, result = means[0][0], []
    for i, (mse, mae) in enumerate(means):
        ratio = mse / own if own else None
        row = dict.fromkeys(
            ("method", "mode", "mse_tol", "label", "seconds", "speedup", "acceptance", "patches_per_target_pass")
        )
        if i < len(methods):
            method, summed = methods[i], total([(one,) for one in counts[i]])
            row |= {"method": method.draft or ALONE, "mode": method.forecaster.mode, "label": ALONE}
            row |= {"seconds": statistics.median(seconds[i]), "speedup": speedup(list(seconds[0]), list(seconds[i]))[0]}
            if method.draft:
                row |= {"mse_tol": method.allowed, "label": label(method.allowed, ratio), "acceptance": summed.rate}
                row["patches_per_target_pass"] = summed.patches_per_target_pass
        else:
            row |= {"method": simple[i - len(methods)], "label": RIVAL}
        result.append(row | {"mse": mse, "mae": mae, "ratio": ratio})
    return result
