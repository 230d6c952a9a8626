"""A model function for fev's forecasting tasks: ``pip install leapcast[fev]``."""

import time

import datasets
import fev
import pandas as pd
from pandas.tseries.frequencies import to_offset

from leapcast.forecaster import SpeculativeForecaster
from leapcast.inputs import REPEAT
from leapcast.models.errors import UserError


def predict_task(
    task: fev.Task, forecaster: SpeculativeForecaster, num_samples: int = 100, ignore_covariates: bool = False
) -> tuple[list[datasets.DatasetDict], float]:
    """Forecast all windows of a task, for ``task.evaluation_summary``.

    NaN are filled by straight lines, and series that are shorter than the target needs by their first values, with a
    warning; those of one row, too. Static columns are not read.

    Args:
        task: one target or several.
        forecaster: what forecasts.
        num_samples: see :meth:`leapcast.forecaster.SpeculativeForecaster.predict_df`.
        ignore_covariates: forecast tasks with dynamic columns, without reading these; else they are refused.

    Returns:
        the predictions, one set for each window, and the seconds that forecasting took.

    Raises:
        UserError: the task has covariates.
    """
    covariates = [*task.known_dynamic_columns, *task.past_dynamic_columns]
    if covariates and not ignore_covariates:
        raise UserError(
            f"the task has covariates, {', '.join(covariates)}, which are not forecast with: leave them out, or give "
            "ignore_covariates=True"
        )
    predictions, seconds = [], 0.0
    for window in task.iter_windows():
        past, *_ = fev.convert_input_data(window, adapter="pandas")
        past = without_single_rows(past, task)
        began = time.monotonic()
        found = forecaster.predict_df(
            past,
            task.horizon,
            task.quantile_levels,
            task.id_column,
            task.timestamp_column,
            task.target_columns,
            num_samples=num_samples,
            short=REPEAT,  # a task wants a forecast of every series
            missing="interpolate",
        )
        seconds += time.monotonic() - began
        names = ["predictions", *map(str, task.quantile_levels)]
        by_target = {}
        for target, part in found.groupby("target_name"):
            values = {name: part[name].to_numpy().reshape(-1, task.horizon) for name in names}
            by_target[target] = datasets.Dataset.from_dict(values)
        predictions.append(datasets.DatasetDict(by_target))
    return predictions, seconds


def without_single_rows(past: pd.DataFrame, task: fev.Task) -> pd.DataFrame:
    """With the row of each series of a single one also a step of the task before it: alone it tells no step."""
    single = past[~past[task.id_column].duplicated(keep=False)]
    earlier = single[task.timestamp_column].map(lambda stamp: stamp - to_offset(task.freq))
    return pd.concat((past, single.assign(**{task.timestamp_column: earlier})), ignore_index=True)
