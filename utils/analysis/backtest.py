"""Backtest: errors of a model and of simple rivals at past origins, as sums that grow series by series.

Sums are plain JSON values, so that an interrupted run can go on with them.
"""

import math
from typing import Any

import numpy as np

from leapcast.utils.analysis import rivals
from leapcast.utils.analysis.metrics import crps

ORIGINS = 4
MODEL = "model"
ADVICE = "train a model on this table (leapcast fit)"  # where a rival is better
SAME = 0.005  # relative difference up to which two errors count as equal
MOST = 1e290  # errors are cut off here, so that sums are finite


def origins(rows: int, least: int, horizon: int, count: int) -> list[int]:
    """The rows before each origin, ascending: the last ``count`` origins of a series, or fewer where it is short.

    They are a horizon apart where there is room, else closer, evenly, and at least a step apart.

    Args:
        rows: of the series.
        least: rows before an origin, at least.
        horizon: time steps after an origin.
        count: most origins.
    """
    last = rows - horizon
    if last < least or count < 1:
        return []
    room = last - least
    step = max(1, min(horizon, room // max(1, count - 1)))
    return [last - i * step for i in range(min(count, 1 + room // step))][::-1]


def nothing(methods: list[str], columns: int) -> dict:
    """The sums over no series; ``methods``: the model's and the rivals' names."""
    zeros = [0.0] * columns
    return {
        "series": 0,
        "short": 0,  # series without an origin
        "beyond": 0,  # series that were not tested
        "origins": 0,  # over all series
        "trained": 0,  # of these, those followed by rows that the model was trained on
        "most": 0,  # origins of one series
        "known": [0] * columns,  # origins after which the column has values that were not filled
        "kept": [0] * columns,  # origins before which the column varies
        "compared": 0,  # series with such a column
        "worse": dict.fromkeys(methods[1:], 0),  # series on which the model is worse than the rival
        "worst": dict.fromkeys(methods[1:]),  # of these the worst: difference, name, the model's MASE, the rival's
        "errors": {
            name: {"mae": zeros, "crps": zeros, "mase": zeros, "mae_scaled": 0.0, "crps_scaled": 0.0}
            for name in methods
        },
    }


def add(sums: dict, more: dict) -> dict:
    """Two sums together."""
    total: dict[str, Any] = {}
    for key, value in sums.items():
        other = more[key]
        if key == "worst":
            total[key] = {name: max(filter(None, (value[name], other[name])), default=None, key=gap) for name in value}
        elif isinstance(value, dict):
            total[key] = add(value, other)
        elif isinstance(value, list):
            total[key] = [a + b for a, b in zip(value, other, strict=True)]
        else:
            total[key] = max(value, other) if key == "most" else value + other
    return total


def gap(worst: list) -> float:
    return worst[0]


def sound(sums, like: dict) -> bool:
    """Whether ``sums``, read from a file, have the form of ``like`` and no impossible numbers."""
    if isinstance(like, dict):
        return isinstance(sums, dict) and sums.keys() == like.keys() and all(sound(sums[k], like[k]) for k in like)
    if isinstance(like, list):
        return isinstance(sums, list) and len(sums) == len(like) and all(map(sound, sums, like))
    if like is None:  # the worst series
        numbers = [*sums[:1], *sums[2:]] if isinstance(sums, list) and len(sums) == 4 else None
        return sums is None or (numbers is not None and all(type(x) is float and math.isfinite(x) for x in numbers))
    # unbiased estimates of CRPS may be below 0
    return type(sums) is type(like) and math.isfinite(sums) and (isinstance(like, float) or sums >= 0)


def scales(past: np.ndarray, season: int) -> tuple[np.ndarray, np.ndarray]:
    """What errors are divided by, for MASE and for the scaled MAE and CRPS: each ``[C]``, 0 where a column is constant.

    The mean absolute difference over a season, and the standard deviation. A column that repeats itself exactly has no
    such difference: its mean absolute deviation stands for it, so that errors there count.

    Args:
        past: ``[L, C]``, L above ``season``.
        season: in time steps.
    """
    deviation = np.abs(past - past.mean(0)).mean(0)
    change = np.abs(past[season:] - past[:-season]).mean(0)
    return np.where(change > 1e-9 * deviation, change, deviation), past.std(0)


def of_series(
    name: str | None,
    values: np.ndarray,
    pasts: list[np.ndarray],
    drawn: np.ndarray,
    kinds: dict[str, tuple[int, int]],
    trained: int = 0,
    gaps: np.ndarray | None = None,
) -> dict:
    """The sums of one series.

    Args:
        name: of the series.
        values: ``[L, C]``.
        pasts: of O origins (see :func:`origins`), what was known before each, ``[origin, C]``.
        drawn: the model's paths ``[O, S, H, C]``; S is 1 for a point forecast.
        kinds: the rivals, see :func:`rivals.names`.
        trained: of the origins, those followed by rows that the model was trained on.
        gaps: ``[L, C]``, which values were filled, and so are no truth; None where none is.
    """
    horizon, columns = drawn.shape[2:]
    real = np.ones(values.shape) if gaps is None else 1.0 - gaps
    sums = nothing([MODEL, *kinds], columns)
    longest = max(season for season, _ in kinds.values())
    with np.errstate(over="ignore", invalid="ignore"):  # cut off below
        first = values[:1]  # large values that vary little would cancel
        unit = np.ldexp(1.0, np.frexp(np.abs(values - first).max(0))[1] - 1)  # keeps squares from under- and overflow
        values, drawn = (values - first) / unit, (drawn - first) / unit
    for known, paths in zip(pasts, drawn, strict=True):
        truth, share = (part[len(known) : len(known) + horizon] for part in (values, real))
        count = share.sum(0)
        share = share * horizon / np.maximum(count, 1)  # weights with a mean of 1
        with np.errstate(over="ignore", invalid="ignore"):
            past = (known - first) / unit
            scale, deviation = scales(past, longest)
            # less is rounding error
            varied = (scale > 1e-12 * (np.abs(known).max(0) / unit)) & (deviation > 0) & np.isfinite(scale + deviation)
            varied &= count > 0
            forecasts = {MODEL: paths} | {
                rival: rivals.members(past, season, horizon, many) for rival, (season, many) in kinds.items()
            }
            for method, members in forecasts.items():
                errors = members - truth
                absolute = (share * np.abs(errors[0] + (errors - errors[:1]).mean(0))).mean(0)  # exact where equal
                each = absolute if len(members) == 1 else (share * crps(np.zeros_like(truth), errors, 0)).mean(0)
                own = sums["errors"][method]
                own["mae"] = plus(own["mae"], absolute * unit)
                own["crps"] = plus(own["crps"], each * unit)
                own["mase"] = plus(own["mase"], over(absolute, scale, varied))
                own["mae_scaled"] += float(over(absolute, deviation, varied).sum())
                own["crps_scaled"] += float(over(each, deviation, varied).sum())
        sums["known"] = [before + int(one) for before, one in zip(sums["known"], count > 0, strict=True)]
        sums["kept"] = [count + int(one) for count, one in zip(sums["kept"], varied, strict=True)]
    sums |= {"series": 1, "origins": len(pasts), "trained": trained, "most": len(pasts)}
    if kept := sum(sums["kept"]):
        mase = {method: sum(own["mase"]) / kept for method, own in sums["errors"].items()}
        sums["compared"] = 1
        for rival in kinds:
            if worse(mase[MODEL], mase[rival]):
                sums["worse"][rival] = 1
                sums["worst"][rival] = [mase[MODEL] - mase[rival], name, mase[MODEL], mase[rival]]
    return sums


def cut(errors: np.ndarray) -> np.ndarray:
    return np.clip(np.nan_to_num(errors, nan=MOST, posinf=MOST, neginf=-MOST), -MOST, MOST)


def plus(sums: list[float], errors: np.ndarray) -> list[float]:
    return (np.array(sums) + cut(errors)).tolist()


def over(errors: np.ndarray, scale: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Scaled errors ``[C]``, 0 where a column is left out."""
    return cut(np.divide(errors, scale, out=np.zeros_like(errors), where=where))


def worse(ours: float, other: float) -> bool:
    """Whether an error is larger than another by more than SAME of it."""
    return ours > other * (1 + SAME)


def record(
    sums: dict,
    told: dict[str, str],
    columns: list[str],
    horizon: int,
    asked: int,
    least: int,
    advice: str = ADVICE,
) -> dict:
    """The results, for JSON. Errors that are not known are None.

    Args:
        sums: over all series.
        told: method -> its name in messages; the model first.
        columns: names.
        horizon, asked: time steps of each forecast, and origins asked for.
        least: rows that an origin needs before it.
        advice: what to do where a rival is better.

    Returns:
        ``methods`` has, for each, the mean MASE over columns, series and origins, and MAE and CRPS divided by the
        column's standard deviation before the origin (``mae_scaled``, ``crps_scaled``). ``columns`` has MAE and CRPS in
        the units of the data. The CRPS of a point forecast is its MAE. ``better``: 1 - the model's MASE over the best
        rival's. ``line`` is the result in a line, ``short`` the same for a title.
    """
    kept, seen = sum(sums["kept"]), sums["origins"]

    def mean(total: float, count: int) -> float | None:
        return total / count if count else None

    methods: dict[str, dict[str, Any]] = {
        name: {"told": told[name], "mase": mean(sum(own["mase"]), kept)}
        | {key: mean(own[key], kept) for key in ("mae_scaled", "crps_scaled")}
        for name, own in sums["errors"].items()
    }
    by_column = {
        column: {
            name: {"mae": mean(own["mae"][i], sums["known"][i]), "mase": mean(own["mase"][i], sums["kept"][i])}
            | {"crps": mean(own["crps"][i], sums["known"][i])}
            for name, own in sums["errors"].items()
        }
        for i, column in enumerate(columns if seen else ())
    }
    best = min(list(methods)[1:], key=lambda name: methods[name]["mase"]) if kept else None
    own, rival = (methods[name]["mase"] for name in (MODEL, best)) if best else (0.0, 0.0)
    worst = sums["worst"][best] if best else None
    found: dict[str, Any] = {
        "horizon": horizon,
        "origins": sums["most"],
        "origins_asked": asked,
        "trained_on": sums["trained"] / seen if seen else 0.0,  # share of origins followed by rows trained on
        "series": sums["series"],
        "series_too_short": sums["short"],
        "series_not_tested": sums["beyond"],
        "constant": sum(sums["known"]) - kept,  # columns before an origin, left out of scaled errors
        "methods": methods,
        "columns": by_column,
        "best_rival": best,
        "better": 1 - own / rival if rival else None,
        "warning": worse(own, rival),
        "series_worse": mean(sums["worse"][best], sums["compared"]) if best else None,
        "worst_series": worst and {"series": worst[1], "mase": worst[2], "mase_rival": worst[3]},
    }
    return found | {"line": line(found, least, advice), "short": short(found)}


def shown(mase: float) -> str:
    return f"{mase:.2f}" if mase == 0 or 0.1 <= mase < 1000 else f"{mase:.2g}"


def judged(found: dict) -> str:
    """The model beside the best rival, in words."""
    best = found["methods"][found["best_rival"]]["told"]
    own, rival = (found["methods"][name]["mase"] for name in (MODEL, found["best_rival"]))
    if found["warning"]:
        text = f"the {best} is {100 * (1 - rival / own):.0f} % better than the model"
    elif not worse(rival, own):
        text = f"the model is as good as the best rival, the {best}"
    else:
        text = f"the model is {100 * found['better']:.0f} % better than the best rival"
    if share := found["trained_on"]:
        text += f"{f', {100 * share:.0f} % of it' * (share < 1)} on rows that the model was trained on"
    return text


def line(found: dict, least: int, advice: str = ADVICE) -> str:
    if not found["series"]:
        needed = least + found["horizon"]
        return (
            f"no backtest, so it is not known how good this forecast is: it takes series of {needed:,} rows ({least:,} "
            f"before an origin, {found['horizon']:,} after it), more than the first series have"
        )
    text = f"backtest on {found['origins']} origin{'s' * (found['origins'] > 1)}"
    if found["origins"] < found["origins_asked"]:
        text += f" (of {found['origins_asked']}: the history has no room for more)"
    text += f", {found['horizon']} steps ahead"
    if found["best_rival"] is None:
        return f"{text}: every column is constant before them, so there is no MASE"
    methods = found["methods"]
    others = sorted(list(methods)[1:], key=lambda name: methods[name]["mase"])
    text += f": MASE {shown(methods[MODEL]['mase'])}, "
    text += ", ".join(f"{methods[name]['told']} {shown(methods[name]['mase'])}" for name in others)
    text += f": {judged(found)}"
    if found["warning"]:
        text = f"WARNING: {text}: use it, or {advice}"
    parts, tested = [text], found["series"] + found["series_too_short"] + found["series_not_tested"]
    if tested > 1 and found["series_worse"] is not None:
        parts.append(f"the model is worse than it on {100 * found['series_worse']:.0f} % of {found['series']:,} series")
    if tested > 1 and (worst := found["worst_series"]):
        name = worst["series"] if len(worst["series"] or "") <= 60 else f"{worst['series'][:59]}…"
        parts[-1] += f", worst on {name} ({shown(worst['mase'])}, there {shown(worst['mase_rival'])})"
    if found["series_too_short"]:
        parts.append(f"{found['series_too_short']:,} series are too short for it")
    if found["series_not_tested"]:
        parts.append(f"{found['series_not_tested']:,} later series were not tested")
    if found["constant"]:
        parts.append(f"{found['constant']:,} column{'s' * (found['constant'] > 1)} constant before an origin left out")
    return "; ".join(parts)


def short(found: dict) -> str:
    """For a title."""
    if not found["series"]:
        return "no backtest: the history is too short"
    if found["best_rival"] is None:
        return "backtest: every column is constant"
    own = found["methods"][MODEL]["mase"]
    return f"{'WARNING: ' * found['warning']}backtest MASE {shown(own)}: {judged(found)}"
