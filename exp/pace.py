"""Whether speculation pays, measured on the first batch of series that ``predict`` reads."""

import time
from copy import copy

import numpy as np
import torch

from leapcast.data_provider.histories import History
from leapcast.forecaster import SpeculativeForecaster
from leapcast.utils.analysis.metrics import Drift
from leapcast.utils.decoding.plan import Decision
from leapcast.utils.decoding.rules import RULES
from leapcast.utils.decoding.timing import speedup, timed

TRIALS, TRIAL_SECONDS = 4, 2.0  # most runs and seconds; at least one run


def time_beside(
    forecaster: SpeculativeForecaster, first: list[History], horizon: int, samples: int, sigma, limit: float
) -> dict:
    """Time the target alone and speculation alternately, and compare their forecasts: an audit, as a server makes it.

    Args:
        forecaster: with the draft that is used; it is not changed.
        first: series.
        horizon, samples, sigma: see :meth:`leapcast.forecaster.SpeculativeForecaster.decode`.
        limit: of the drift of a series.

    Returns:
        ``series`` and ``runs``, their numbers; ``speedup``, the median of ratios; ``drift`` (see
        :class:`utils.analysis.metrics.Drift`) in standard deviations of each column's context, without columns that are
        constant there; ``above``, the share of series whose drift is above ``limit``.
    """
    begun = time.monotonic()
    ways = {name: copy(forecaster) for name in ("target", "speculative")}  # no adaptive state is shared
    for way in ways.values():
        way.decoder = None
    ways["target"].drafting = None
    forecasts: dict[str, np.ndarray] = {}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for runs in range(1, TRIALS + 1):
        for name, way in ways.items():
            (forecasts[name], _), spent = timed(way.decode, forecaster.device, first, horizon, samples, sigma)
            seconds[name].append(spent)
        # with adaptive K the first run measures the cost model
        if time.monotonic() - begun > TRIAL_SECONDS and (runs > 1 or forecaster.adaptive != "online"):
            break
    # the first run is a warm-up, unless it is the only one
    ratio = speedup(*(seconds[name][runs > 1 :] for name in ways))[0]
    drift = Drift(paths=RULES[forecaster.mode_of(samples)].draws)
    drifts: list[float | None] = []
    for history, speculative, alone in zip(first, forecasts["speculative"], forecasts["target"], strict=True):
        context = history.values[-forecaster.context :]
        spread, most = context.std(0), np.abs(context).max(0)
        varied = spread > 1e-12 * most  # less is rounding error
        speculative, alone = (
            torch.from_numpy(paths[None, ..., varied] / spread[varied]) for paths in (speculative, alone)
        )
        each = Drift(drift.paths)
        each.add(*(paths if samples > 1 else paths[:, 0] for paths in (speculative, alone)))
        drift.squared, drift.count = drift.squared + each.squared, drift.count + each.count
        drifts.append(each.record())
    known = [one > limit for one in drifts if one is not None]
    above = sum(known) / len(known) if known else None
    found = {"series": len(first), "runs": runs, "speedup": ratio, "drift": drift.record()}
    return found | {"above": above, "limit": limit}


def measured_slower(beside: dict | None, args, plan: Decision | None) -> Decision | None:
    """The target alone, where speculation was measured slower on the first batch of series and the plan is not pinned.

    Args:
        beside: what was measured, see :meth:`exp.exp_predict.ExpPredict.beside`.
        args: of run.py.
        plan: what was decided before.
    """
    if beside is None or plan is None or args.spec_plan or beside["speedup"] >= 1:
        return None
    of = f"{plan.draft}, {beside['speedup']:.2f} x the target alone"
    return Decision(None, None, None, f"{of} when both were timed on the first batch of series ({beside['series']})")
