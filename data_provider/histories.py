"""Tables of one's own that are to be forecast: one series of several columns, or many, one below the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from utils.errors import UserError

TIME_NAMES = ("date", "datetime", "ds", "time", "timestamp")
CALENDAR = ("B", "MS", "ME", "QS", "QE", "YS", "YE")  # steps of unequal length
CELLS, ROWS = 2**20, 256  # of a table that are held at a time while series are streamed, and at least
SPARSE = 10  # with so many time stamps missing for each that is there, a step is not regular


@dataclass
class History:
    """The past of one series of C variables, without gaps."""

    number: int  # of the series in its table, from 0
    name: str | None  # its id; None where a table is one series
    times: pd.Index  # rising regularly
    step: pd.Timedelta | str | int  # between them: a duration, a frequency of pandas, or whole numbers
    values: np.ndarray  # [rows, C] float64, finite
    read: float  # share of the table that was read to find it

    def ahead(self, horizon: int) -> pd.Index:
        """The ``horizon`` time stamps that follow."""
        last = self.times[-1]
        if isinstance(self.step, int):
            return pd.RangeIndex(last + self.step, last + self.step * (horizon + 1), self.step)
        return pd.date_range(last, periods=horizon + 1, freq=self.step, unit="us")[1:]


class Table:
    """A table with a time column and value columns, and perhaps a column that tells series apart.

    Args:
        source: a CSV or Parquet file, or a frame.
        columns: what to forecast (default: all but time and id).
        time_column: default: the first that is named like one, else the first that holds time stamps.
        id_column: of a long table: the rows of a series stand together, in the order of time.
        missing: ``error`` refuses gaps and NaN, ``interpolate`` fills them, the ends with the nearest value.

    Time stamps are dates, or whole numbers. Series are streamed: memory does not grow with their number.
    """

    def __init__(
        self,
        source: Path | pd.DataFrame,
        columns: list[str] | None = None,
        time_column: str | None = None,
        id_column: str | None = None,
        missing: str = "error",
    ):
        self.source, self.id, self.missing = source, id_column, missing
        self.name = "table" if isinstance(source, pd.DataFrame) else source.stem
        self.told = "the table" if isinstance(source, pd.DataFrame) else str(source)
        head = self._head()
        self.all = [str(name) for name in head.columns]
        for name in (time_column, id_column, *(columns or ())):
            if name is not None and name not in self.all:
                raise UserError(f"{self.told} has no column {name!r}: it has {', '.join(self.all[:20])}")
        self.time = time_column or self._find_time(head)
        special, chosen = {self.time, self.id}, set(columns or self.all)
        if columns and special & chosen:
            raise UserError(f"--columns: {(special & chosen).pop()!r} is time or id, not a variable")
        if self.time == self.id:
            raise UserError(f"{self.time!r} cannot be both the time column and the id column")
        self.columns = [name for name in self.all if name not in special and name in chosen]
        if not self.columns:
            raise UserError(f"{self.told} has no columns to forecast beside {self.time!r}")
        unnamed = [name for name in self.columns if name.startswith("Unnamed: ")]
        if unnamed:
            raise UserError(
                f"{self.told}: column {self.all.index(unnamed[0]) + 1} has no name: give it one, or --columns"
            )
        self.format = self._format(head)

    def __str__(self) -> str:
        many = f", one for each {self.id}" if self.id else ""
        return f"{self.name}: {self.variables} columns over {self.time}{many}"

    @property
    def variables(self) -> int:
        return len(self.columns)

    # ---------------------------------------------------------------- files

    def _head(self) -> pd.DataFrame:
        if isinstance(self.source, pd.DataFrame):
            if isinstance(self.source.index, pd.DatetimeIndex):
                self.source = self.source.rename_axis(self.source.index.name or "date").reset_index()
            self.source.columns = [str(name) for name in self.source.columns]
            head = self.source.head(100)
        elif not self.source.is_file():
            raise UserError(f"no data file {self.source}: correct --data_path (and --root_path)")
        else:
            head = next(self._frames(rows=100), (pd.DataFrame(), 0))[0]
        if head.empty:
            raise UserError(f"{self.told} has no rows: a header and rows of time and values are expected")
        return head

    def _frames(self, rows: int | None = None) -> Iterator[tuple[pd.DataFrame, float]]:
        """Frames of consecutive rows, and the share of the table read with each."""
        source = self.source
        if isinstance(source, pd.DataFrame):
            yield source, 1.0
            return
        try:
            if source.suffix in (".parquet", ".pq"):
                yield from self._parquet(rows)
                return
            compression = {".gz": "gzip", ".bz2": "bz2", ".zip": "zip", ".xz": "xz"}.get(source.suffix)
            wanted = {}
            if not rows and len(self.columns) < len(self.all) - bool(self.id) - 1:
                wanted["usecols"] = [name for name in (self.time, self.id, *self.columns) if name]
            wanted["dtype"] = {self.id: str} if self.id else None
            with source.open("rb") as file:
                size = max(1, source.stat().st_size)
                width = 1 if rows else len(self.all)
                parts = pd.read_csv(
                    file,
                    chunksize=rows or max(ROWS, CELLS // width),
                    compression=compression,
                    **wanted,
                )
                for frame in parts:
                    yield frame, min(1.0, file.tell() / size)
        except (ValueError, OSError, EOFError, LookupError) as error:  # pandas' and Arrow's errors are among them
            if isinstance(error, UserError):
                raise
            hint = "; save it as UTF-8" if isinstance(error, UnicodeError) else ""
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"cannot read {source} as a table ({reason}{hint}): give CSV or Parquet") from error

    def _parquet(self, rows: int | None) -> Iterator[tuple[pd.DataFrame, float]]:
        from pyarrow import parquet  # takes long: only for those who need it

        with parquet.ParquetFile(self.source) as file:
            done, total = 0, max(1, file.metadata.num_rows)
            for batch in file.iter_batches(rows or max(ROWS, CELLS // max(1, file.metadata.num_columns))):
                frame = batch.to_pandas()
                if isinstance(frame.index, pd.DatetimeIndex):
                    frame = frame.rename_axis(frame.index.name or "date").reset_index()
                done += len(frame)
                yield frame.astype({self.id: str}) if self.id in frame else frame, done / total

    def _find_time(self, head: pd.DataFrame) -> str:
        candidates = [name for name in self.all if name != self.id]
        for name in candidates:
            if name.lower() in TIME_NAMES:
                return name
        for name in candidates:
            if pd.api.types.is_datetime64_any_dtype(head[name]) or (
                not pd.api.types.is_numeric_dtype(head[name]) and guess_datetime_format(str(head[name].iloc[0]))
            ):
                return name
        raise UserError(f"{self.told}: none of its columns looks like time: give --time_column")

    def _format(self, head: pd.DataFrame) -> str | None:
        first = head[self.time].iloc[0]
        return guess_datetime_format(first) if isinstance(first, str) else None

    # ---------------------------------------------------------------- series

    def histories(self) -> Iterator[History]:
        """The series of the table, in its order."""
        number, seen, parts, first = 0, set(), [], 0
        for ids, times, values, start, read in self._pieces():
            edges = [] if ids is None else [*(np.flatnonzero(ids[1:] != ids[:-1]) + 1)]
            for begin, end in zip([0, *edges], [*edges, len(times)], strict=True):
                name = None if ids is None else ids[begin]
                if parts and parts[0][0] != name:
                    yield self._history(number, parts, first, read)
                    number, parts = number + 1, []
                if not parts:
                    if name in seen:
                        raise UserError(
                            f"{self.told}: {self.id} {name!r} comes again at data row {start + begin + 1}: sort "
                            "the table by it, then by time"
                        )
                    seen.add(name)
                    first = start + begin
                parts.append((name, times[begin:end], values[begin:end]))
        if not parts:
            raise UserError(f"{self.told} has no rows: a header and rows of time and values are expected")
        yield self._history(number, parts, first, 1.0)

    def _pieces(self) -> Iterator[tuple]:
        """Ids, time stamps and values of consecutive rows, the number of the first of them, the share read."""
        start = 0
        for frame, read in self._frames():
            if frame.empty:
                continue
            ids = None
            if self.id:
                if frame[self.id].isna().any():
                    row = start + int(frame[self.id].isna().argmax())
                    raise UserError(f"{self.told}: data row {row + 1} has no {self.id}: fill it in")
                ids = frame[self.id].astype(str).to_numpy(object)
            yield ids, self._times(frame[self.time], start), self._values(frame, start), start, read
            start += len(frame)

    def _times(self, column: pd.Series, start: int) -> pd.Index:
        if pd.api.types.is_integer_dtype(column):
            return pd.Index(column.to_numpy(np.int64))
        try:
            if self.format is None and isinstance(column.iloc[0], str):
                raise ValueError(f"{column.iloc[0][:40]!r} is no date")
            if pd.api.types.is_numeric_dtype(column):
                raise ValueError(f"{column.iloc[0]} is neither a date nor a whole number")
            iso = self.format and self.format.startswith("%Y-%m-%d")  # may leave out seconds here and there
            times = pd.to_datetime(column, format="ISO8601" if iso else self.format)
            times = pd.DatetimeIndex(times).as_unit("us")
        except (ValueError, TypeError, OverflowError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"{self.told}: cannot read the time column {self.time!r} from data row {start + 1} on ({reason})"
            ) from error
        if times.isna().any():
            raise UserError(f"{self.told}: no time stamp in data row {start + int(times.isna().argmax()) + 1}")
        return times

    def _values(self, frame: pd.DataFrame, start: int) -> np.ndarray:
        try:
            values = frame[self.columns].to_numpy(np.float64, na_value=np.nan)
        except (ValueError, TypeError) as error:
            for name in self.columns:
                text = pd.to_numeric(frame[name], errors="coerce").isna() & frame[name].notna()
                if text.any():
                    row = int(text.argmax())
                    raise UserError(
                        f"{self.told}: column {name!r} is not numeric ({str(frame[name].iloc[row])[:40]!r} in data row "
                        f"{start + row + 1}): mend it, or leave it out by --columns"
                    ) from error
            raise UserError(f"{self.told}: its columns are not numeric ({error}): choose by --columns") from error
        if np.isinf(values).any():
            row, column = np.argwhere(np.isinf(values))[0]
            raise UserError(
                f"{self.told}: infinite value in column {self.columns[column]!r}, data row {start + row + 1}: mend it"
            )
        return values

    def _history(self, number: int, parts: list[tuple], first: int, read: float) -> History:
        name = parts[0][0]
        times = parts[0][1].append([part[1] for part in parts[1:]])
        values = np.concatenate([part[2] for part in parts])
        told = self.told if name is None else f"{self.told}, {self.id} {name!r}"
        step, times, values = self._regular(times, values, told, first)
        gaps = np.isnan(values)
        if gaps.any():
            row, column = np.argwhere(gaps)[0]
            if self.missing == "error":
                raise UserError(
                    f"{told}: NaN in column {self.columns[column]!r}, data row {first + row + 1}: fill it, or give "
                    "--missing interpolate"
                )
            empty = gaps.all(0)
            if empty.any():
                raise UserError(
                    f"{told}: column {self.columns[empty.argmax()]!r} has no values: leave it out by --columns"
                )
            values = pd.DataFrame(values).interpolate(limit_direction="both").to_numpy()
        return History(number, name, times, step, values, read)

    def _regular(self, times: pd.Index, values: np.ndarray, told: str, first: int) -> tuple:
        """The step between time stamps; time stamps and values with rows of NaN where some are missing."""
        if len(times) < 2:
            raise UserError(f"{told} has one row: a past to forecast from is needed")
        numbers = times.to_numpy(np.int64) if times.dtype.kind == "i" else times.asi8
        steps = np.diff(numbers)
        if (steps <= 0).any():
            row = int((steps <= 0).argmax())
            what = "comes twice" if steps[row] == 0 else "is earlier than the one before: sort the table by time"
            raise UserError(f"{told}: the time stamp {times[row + 1]} in data row {first + row + 2} {what}")
        common = int(steps[0])
        if (steps == common).all():
            return self._duration(times, common), times, values
        found, counts = np.unique(steps, return_counts=True)
        common = int(found[counts.argmax()])
        most = SPARSE * len(times)
        if all(step % common == 0 for step in found) and (numbers[-1] - numbers[0]) // common < most:
            whole = np.arange(numbers[0], numbers[-1] + 1, common)
            grids = [(self._duration(times, common), self._like(times, whole))]
        else:
            grids = []
        if isinstance(times, pd.DatetimeIndex):
            grids += [(freq, pd.date_range(times[0], times[-1], freq=freq, unit="us")) for freq in CALENDAR]
        grids = [(step, grid) for step, grid in grids if len(times) <= len(grid) <= most and times.isin(grid).all()]
        if not grids:
            row = int((steps != common).argmax())
            raise UserError(
                f"{told}: time stamps are not regular: {times[row]} and {times[row + 1]} (data rows "
                f"{first + row + 1} and {first + row + 2}) are not the usual {self._duration(times, common)} apart"
            )
        step, grid = min(grids, key=lambda found: len(found[1]))
        if len(grid) == len(times):
            return step, times, values
        place = grid.get_indexer(times)
        if self.missing == "error":
            row = int((np.diff(place) > 1).argmax())
            raise UserError(
                f"{told}: the time stamp {grid[place[row] + 1]} is missing after data row {first + row + 1}: add it, "
                "or give --missing interpolate"
            )
        filled = np.full((len(grid), values.shape[1]), np.nan)
        filled[place] = values
        return step, grid, filled

    @staticmethod
    def _duration(times: pd.Index, step: int):
        return step if times.dtype.kind == "i" else pd.Timedelta(step, unit="us")

    @staticmethod
    def _like(times: pd.Index, numbers: np.ndarray) -> pd.Index:
        if times.dtype.kind == "i":
            return pd.Index(numbers)
        stamps = pd.DatetimeIndex(numbers.astype("datetime64[us]"))
        return stamps if times.tz is None else stamps.tz_localize("UTC").tz_convert(times.tz)
