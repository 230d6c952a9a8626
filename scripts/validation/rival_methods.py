"""The rivals: how each is trained, and how it forecasts the windows of a data set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from leapcast.data_provider.data_factory import seasons
from leapcast.data_provider.data_loader import Series, Windows
from leapcast.utils.analysis import rivals
from scripts.validation.cases import CONTEXT, HORIZONS, SEEDS, WINDOWS, batches

HORIZON = max(HORIZONS)
DAY, WEEK = 24, 168
FITTED_ON = 30_000  # rows of evenly spaced training windows, for the linear map
LINEAR = tuple(
    f"{less}, {penalty}" for less in ("nothing", "mean", "last") for penalty in (10, 1_000, 100_000, 10_000_000)
)
TRANSFORMS = "none", "local scaling", "seasonal differences"
BOOSTING = {
    "n_estimators": 300,
    "learning_rate": 0.05,
    "num_leaves": 63,
    "min_child_samples": 100,
    "subsample": 0.8,
    "subsample_freq": 1,
    "colsample_bytree": 0.8,
}
# from contexts [B, L, C] and the rows of the series after them [B]: the forecast [B, H, C]
Forecast = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Rival:
    """A method of forecasting.

    Attributes:
        prepare: series, seed and an option -> the forecast of its windows, after training where there is any.
        settings: for the record; with others it is measured again.
        libraries: the distributions that it needs.
        seeds: None where it draws nothing.
        batch: windows that are forecast at once.
        options: of these ``prepare`` takes the one with the lowest error on validation.
    """

    prepare: Callable[..., Forecast]
    settings: dict
    libraries: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None
    batch: int = WINDOWS
    options: tuple[str, ...] = ()


def names(data: str) -> list[str]:
    """The rivals on a data set, the quickest first."""
    return [*rivals.names(seasons(data), CONTEXT), *FITTED]


def rival(data: str, name: str) -> Rival:
    """The rival of this name on a data set."""
    if name in FITTED:
        return FITTED[name](data)
    season, count = rivals.names(seasons(data), CONTEXT)[name]
    return Rival(partial(repeated, season, count), {"season": season, "count": count})


def repeated(season: int, count: int, series: Series, seed: int) -> Forecast:
    """The last seasons again."""
    return lambda x, rows: torch.from_numpy(rivals.repeated(x.numpy(), season, HORIZON, count))


def linear(series: Series, seed: int, option: str) -> Forecast:
    """A DLinear in closed form: ridge regression from contexts to horizons, one map for all variables.

    Trend and rest are linear in the context, so that a DLinear is any affine map of it, and this one the minimum of its
    training loss with a penalty. ``option``: what is subtracted from context and horizon, and the penalty on a squared
    weight.
    """
    less, penalty = option.split(", ")
    windows = Windows(series, "train", CONTEXT, HORIZON)
    gram, moments = torch.zeros(CONTEXT + 1, CONTEXT + 1).double(), torch.zeros(CONTEXT + 1, HORIZON).double()
    for _, x, truth in batches(windows, windows.evenly(FITTED_ON // series.values.shape[1]), WINDOWS):
        rows, level = centred(x, less)
        ahead = truth.transpose(1, 2).flatten(0, 1).double() - level
        gram, moments = gram + rows.mT @ rows, moments + rows.mT @ ahead
    # the intercept, too: not penalised, it was worse on validation of ETTh1 and ETTh2
    weights = torch.linalg.solve(gram + float(penalty) * torch.eye(len(gram)).double(), moments)

    def forecast(x: Tensor, rows: Tensor) -> Tensor:
        past, level = centred(x, less)
        return (past @ weights + level).unflatten(0, (len(x), -1)).transpose(1, 2)

    return forecast


def centred(x: Tensor, less: str) -> tuple[Tensor, Tensor]:
    """Contexts ``[B, L, C]`` as rows ``[B * C, L + 1]`` with a one, and what is subtracted from them ``[B * C, 1]``."""
    rows = x.transpose(1, 2).flatten(0, 1).double()
    level = {"nothing": torch.zeros_like(rows[:, :1]), "mean": rows.mean(1, keepdim=True), "last": rows[:, -1:]}[less]
    return torch.cat((rows - level, torch.ones_like(level)), 1), level


def statistical(name: str, season: int, series: Series, seed: int) -> Forecast:
    """A model of statsforecast, fitted to every context by itself."""
    from statsforecast import models

    make = getattr(models, name)
    make(season_length=season).forecast(y=series.values[:CONTEXT, 0].double().numpy(), h=1)  # compiles

    def forecast(x: Tensor, rows: Tensor) -> Tensor:
        past = x.double().transpose(1, 2).flatten(0, 1).numpy()
        ahead = [make(season_length=season).forecast(y=one, h=HORIZON)["mean"] for one in past]
        return torch.from_numpy(np.stack(ahead)).unflatten(0, (len(x), -1)).transpose(1, 2)

    return forecast


def frame(values: Tensor, first: Tensor, step: pd.Timedelta) -> pd.DataFrame:
    """Series ``[B, T, C]`` that begin at these rows as a long table; its calendar begins with a Monday at row 0."""
    count, length, variables = values.shape
    rows = first[:, None, None] + torch.arange(length)
    columns = {
        "unique_id": np.repeat(np.arange(count * variables), length),
        "ds": pd.Timestamp("2001-01-01") + rows.expand(count, variables, length).flatten().numpy() * step,
        "y": values.transpose(1, 2).flatten().numpy(),
        "variable": np.tile(np.repeat(np.arange(variables), length), count),
    }
    return pd.DataFrame(columns).astype({"variable": "category"})


def boosted(series: Series, seed: int, transform: str) -> Forecast:
    """One LightGBM for all variables, applied recursively; ``transform``: one of TRANSFORMS, of all values."""
    from lightgbm import LGBMRegressor
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMean, SeasonalRollingMean
    from mlforecast.target_transforms import Differences, LocalStandardScaler

    hourly = series.step == pd.Timedelta("1h")
    differences = Differences([DAY if hourly else 1])
    transforms = dict(zip(TRANSFORMS, ([], [LocalStandardScaler()], [differences]), strict=True))
    weekly, daily = SeasonalRollingMean(season_length=WEEK, window_size=3), SeasonalRollingMean(DAY, window_size=7)
    means = {1: [RollingMean(DAY), RollingMean(WEEK)], DAY: [daily], WEEK: [weekly]}
    model = MLForecast(
        models=LGBMRegressor(**BOOSTING, random_state=seed, num_threads=1, verbosity=-1),
        freq=pd.tseries.frequencies.to_offset(series.step),
        lags=[1, 2, 3, 24, 48, 168, 336] if hourly else [1, 2, 3, 4, 5, 10, 20],
        lag_transforms=means if hourly else {1: [RollingMean(5), RollingMean(20), RollingMean(100)]},
        date_features=["hour", "dayofweek"] if hourly else [],
        target_transforms=transforms[transform],
    )
    first, end = series.borders["train"]
    table = frame(series.values[None, first:end], torch.tensor([first]), series.step)
    model.fit(table, static_features=["variable"])

    def forecast(x: Tensor, rows: Tensor) -> Tensor:
        ahead = model.predict(HORIZON, new_df=frame(x, rows - x.shape[1], series.step))
        return torch.from_numpy(ahead["LGBMRegressor"].to_numpy()).reshape(len(x), -1, HORIZON).transpose(1, 2)

    return forecast


def of_linear(data: str) -> Rival:
    return Rival(linear, {"fitted_on": FITTED_ON}, options=LINEAR)


def of_statsforecast(model: str, data: str) -> Rival:
    settings = {"model": model, "season": seasons(data)[0]}
    return Rival(partial(statistical, *settings.values()), settings, ("statsforecast",), batch=1)


def of_lightgbm(data: str) -> Rival:
    return Rival(boosted, BOOSTING, ("mlforecast", "lightgbm"), SEEDS, options=TRANSFORMS)


FITTED: dict[str, Callable[[str], Rival]] = {  # name -> its rival on a data set, the quickest first
    "dlinear": of_linear,
    "lightgbm": of_lightgbm,
    "auto_theta": partial(of_statsforecast, "AutoTheta"),
}
