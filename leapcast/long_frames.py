"""Forecasts of long frames, in which every row has an id, a time stamp and values: ``predict_df``."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from leapcast.data_provider.histories import Table, short
from leapcast.inputs import REPEAT, SHORT, LeftOut, series_of, tell_filled, tell_frequency, whole
from leapcast.models.errors import UserError
from leapcast.outputs import checked_levels, paths_for, quantiles_of, total

CALLER = 4  # frames up to the one that called predict_df, for warnings


def predict_frame(
    forecaster: Any,
    df: pd.DataFrame,
    horizon: int,
    id_column: str | None,
    time_column: str,
    columns: list[str],
    levels: Sequence[float],
    num_samples: int,
    batch_size: int | None,
    too_short: str,
    missing: str,
    seed: int,
) -> pd.DataFrame:
    """See :meth:`leapcast.forecaster.SpeculativeForecaster.predict_df`.

    Raises:
        UserError: the frame or an argument is invalid, or all series are too short.
    """
    if not isinstance(df, pd.DataFrame):
        raise UserError(f"`df` of type {type(df).__name__}: give a pandas frame")
    if too_short not in (*SHORT, REPEAT):
        raise UserError(f"`short` {too_short!r}: give {', '.join(SHORT)} or {REPEAT}")
    if not columns:
        raise UserError("`target` is empty: give the name of a column, or several")
    if id_column is not None and id_column not in df and id_column not in df.index.names:
        raise UserError(f"the frame has no column {id_column!r}: name it by `id_column`, None for one series")
    horizon, levels = whole("prediction_length", horizon), checked_levels(levels)
    batch_size = None if batch_size is None else whole("batch_size", batch_size)
    samples = paths_for(forecaster, levels, whole("num_samples", num_samples))
    names = [*([] if id_column is None else [id_column]), time_column, "target_name", "predictions", *map(str, levels)]
    if len(set(names)) < len(names):
        raise UserError(f"the forecast has columns {', '.join(map(short, names))}: rename the one that is doubled")
    table = Table(df, columns, time_column, id_column, missing, any_order=True)
    frame: Any = table.source  # with its index as columns
    asked = list(dict.fromkeys(columns))  # in the order of the call
    places = [table.columns.index(name) for name in asked]
    left_out = None if too_short == "error" else LeftOut(forecaster.least, too_short == REPEAT)
    histories = list(series_of(table, left_out))
    if left_out and left_out.number:
        warnings.warn(left_out.told(), stacklevel=CALLER - 1)
    parts: list[tuple] = []
    told: list[str] = []
    # the longest first: they tell most of the spread and the season, and those of a batch are of similar lengths
    order = np.argsort([-len(history.values) for history in histories], kind="stable")
    sorted_ones = (histories[i] for i in order)
    for batch, drawn, statistics in forecaster.stream(sorted_ones, horizon, samples, seed, batch_size, always=True):
        tell_frequency(forecaster.trained_step, batch, told, CALLER)
        values = quantiles_of(drawn, statistics.quantiles, forecaster.target.config.levels, levels)
        parts.append((values[..., places].transpose(0, 1, 3, 2), statistics))  # [1 + levels, series, C, H]
    tell_filled(histories, CALLER)
    forecaster.tell_cost(total(parts), CALLER)
    found = np.concatenate([part[0] for part in parts], 1)[:, np.argsort(order)].reshape(1 + len(levels), -1)
    ahead = [history.ahead(horizon) for history in histories for _ in asked]
    ids = pd.Series(
        [history.name for history in histories], dtype=None if id_column is None else frame[id_column].dtype
    )
    columns_of = {
        **({} if id_column is None else {id_column: ids.repeat(len(asked) * horizon).reset_index(drop=True)}),
        time_column: ahead[0].append(ahead[1:]),
        "target_name": np.tile(np.repeat(np.array(asked, object), horizon), len(histories)),
        "predictions": found[0],
        **{str(level): values for level, values in zip(levels, found[1:], strict=True)},
    }
    return pd.DataFrame(columns_of)
