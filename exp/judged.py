"""What ``predict`` says of a forecast beyond its values: its picture, and what is not as one may think."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np

from leapcast.backtest import last_seasons
from leapcast.data_provider import seasons
from leapcast.data_provider.histories import History, Table
from leapcast.utils.decoding.plan import Decision
from leapcast.utils.io import checkpoint

PANELS = 8  # in the figure
BAND = 0.1, 0.9  # levels of the interval in it
MOST_PAST = 1024  # time steps of the past in it
LONG, SHORT_SEASONS = 12, 4  # the usual horizon is a season of at least 12 steps, or four shorter ones


def replaced(path: Path, now: Decision | None) -> str | None:
    """A line where ``path``, the record of a finished forecast, was made by another plan than ``now``; else None."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        if path.is_file():  # reading a pipe might never end
            record = json.loads(path.read_text())
            before = Decision.of(record["plan"])
            if before and now and before.use != now.use:
                return f"the forecast of {record['created']} in {path.parent} is replaced: its {before}"
    return None


def usual_horizon(target: str | None, past: list[np.ndarray], step) -> tuple[int, str]:
    """The horizon where none is given, and where it is from: what a model folder was tested on, else by the season.

    Args:
        target: path or name of the checkpoint, if given.
        past: values of the first series, each ``[rows, C]``.
        step: time between their rows.
    """
    if target and (folder := checkpoint.model_folder(target)):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            horizon = json.loads((folder / "report.json").read_text())["sizes"]["horizon"]
            if type(horizon) is int and horizon > 0:
                return horizon, f"{horizon}, as {target} was fitted for"
    rows = max(map(len, past))
    season = seasons.find(past, step, max(2, rows // 2)).length
    horizon = season if season >= LONG else SHORT_SEASONS * season if season > 1 else LONG
    horizon = max(1, min(horizon, rows // 4))
    return horizon, f"{horizon}" + (f", by the season of {season}" if season > 1 else ", as no season was found")


def season_of(series: list[History]) -> int:
    """The longest season of these series."""
    values = [history.values for history in series]
    return seasons.find(values, series[0].step, max(map(len, values))).length


def panels(
    table: Table,
    series: list[History],
    drawn: np.ndarray,
    own: np.ndarray | None,
    levels: tuple[float, ...],
    context: int,
    season: int,
) -> list[tuple]:
    """The first column of each series, or the first columns of a single one, for :func:`prediction_figure`.

    Args:
        table: the table of the series.
        series: at most PANELS.
        drawn: their paths ``[series, S, H, C]``.
        own, levels: the target's own quantiles ``[series, H, C, levels]``, and their levels; None without.
        context: time steps of the past to show, at most MOST_PAST unless the horizon is longer.
        season: of the seasons beside the forecast.
    """
    wide = [(0, column) for column in range(min(PANELS, table.variables))]
    horizon, result = drawn.shape[2], []
    for i, column in wide if table.id is None else [(i, 0) for i in range(len(series))]:
        history, rows = series[i], max(min(context, MOST_PAST), horizon)
        mean, band = drawn[i, :, :, column].mean(0), None
        if drawn.shape[1] > 1:
            band = np.quantile(drawn[i, :, :, column], BAND, axis=0)
        elif own is not None:
            band = np.stack([own[i, :, column, levels.index(level)] for level in BAND])
        title = table.columns[column] if history.name is None else f"{history.name}: {table.columns[0]}"
        beside = {name: values[:, column] for name, values in last_seasons(history, season, horizon).items()}
        past = history.times[-rows:], history.values[-rows:, column]
        result.append((title, *past, history.ahead(horizon), mean, band, beside))
    return result
