"""User tables to be forecast: one series of several columns, or many series in long format."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from leapcast.data_provider.calendars import DAY, localised, regular
from leapcast.models.errors import UserError

TIME_NAMES = ("date", "datetime", "ds", "time", "timestamp")
MISSING = ["", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "<NA>"]  # not applied to ids
CELLS, ROWS = 2**20, 256  # cells of a table read at a time, and the least number of rows
TOLD = 8  # columns listed in a message at most
LONGEST = 1000  # characters of a column's name or a series' id at most


class Filled(NamedTuple):
    """Interpolated values of one column of a series."""

    values: int  # number of them
    longest: int  # longest run, in time steps
    place: str  # where that run starts: its first data row (or the one before it) and time stamp
    season: str | None  # "a day", "a week" or "a year" if that run is longer; None if it is not, or unknown


@dataclass
class History:
    """The past of one series of C variables, without gaps."""

    number: int  # index of the series in its table, from 0
    name: str | None  # its id; None where the table is one series
    times: pd.Index  # regular time stamps, or whole numbers
    # between time stamps: a duration, calendar offset or frequency; None for a single row, see Table.histories
    step: pd.Timedelta | pd.DateOffset | str | int | None
    values: np.ndarray  # [rows, C] float64, finite
    read: float  # share of the table read so far
    filled: dict[str, Filled] = field(default_factory=dict)  # columns whose gaps missing="interpolate" filled
    gaps: np.ndarray | None = None  # [rows, C], whether each value is one of these; None where none is
    repeated: int = 0  # first rows that were put before a series that is too short, without time stamps

    @property
    def known(self) -> int:
        """Rows, from the first on, after which every column has had a value that was not filled in."""
        if self.gaps is None:
            return 1
        first = np.where(self.gaps.all(0), len(self.gaps), self.gaps.argmin(0))
        return int(first.max()) + 1

    def ahead(self, horizon: int) -> pd.Index:
        """The ``horizon`` time stamps that follow.

        Raises:
            UserError: they are beyond the range of dates, or of 64-bit integers.
        """
        last = self.times[-1]
        if isinstance(self.step, int):
            last = int(last)
            if last + self.step * (horizon + 1) >= 2**63:
                raise UserError(f"{horizon} steps of {self.step} from {last} on are beyond numbers of 64 bits")
            return pd.RangeIndex(last + self.step, last + self.step * (horizon + 1), self.step)
        wall = not isinstance(self.step, pd.Timedelta)  # calendar steps follow local time
        try:
            start = last.tz_localize(None) if wall else last
            ahead = pd.date_range(start, periods=horizon + 1, freq=self.step, unit="us")[1:]
            return localised(ahead, last.tz) if wall else ahead
        except (ValueError, OverflowError) as error:  # pandas' OutOfBounds is a ValueError
            raise UserError(f"{horizon} steps of {self.step} from {last} on are beyond the calendar") from error

    def end(self) -> "History":
        """A copy with the last time stamp and no values, enough for :meth:`ahead`."""
        return replace(self, times=self.times[-1:], values=self.values[:0], gaps=None)


def before(history: History, rows: int) -> History:
    """Its first rows, as they were known then.

    A gap that reaches the cut was filled from a value after it: here by the last one before it, or by 0 where there is
    none (see :attr:`History.known`).
    """
    values, gaps = history.values[:rows], history.gaps
    if gaps is not None and len(gaps := gaps[:rows]) and gaps[-1].any():
        values = values.copy()
        for column in np.flatnonzero(gaps[-1]):
            start = int(np.flatnonzero(~gaps[:, column]).max(initial=-1)) + 1
            values[start:, column] = values[start - 1, column] if start else 0
    return replace(history, times=history.times[:rows], values=values, gaps=gaps)


def last(history: History, rows: int) -> History:
    """Its last rows."""
    gaps = None if history.gaps is None else history.gaps[-rows:]
    return replace(history, times=history.times[-rows:], values=history.values[-rows:], gaps=gaps)


class Table:
    """A table with a time column, value columns and optionally a column that identifies series.

    Args:
        source: a CSV or Parquet file, or a frame.
        columns: columns to forecast (default: all but time and id).
        time_column: default: the first with a usual name for time, else the first that holds time stamps.
        id_column: for a long table, in which the rows of a series are contiguous and in the order of time.
        missing: ``error`` refuses gaps and NaN; ``interpolate`` fills them linearly, at the ends with the nearest
            value, and ``History.filled`` says where.
        any_order: of a frame: its rows may stand in any order. Series come in the order of their first rows.

    Time stamps are dates or whole numbers; values are numbers, booleans (0 and 1) or decimals. Names of columns and ids
    have at most ``LONGEST`` characters; column names are distinct. Series are streamed: only the ids of earlier ones
    are kept.

    Raises:
        UserError: the table is invalid; raised here, or later while series are read. The message gives the place.
    """

    def __init__(
        self,
        source: Path | pd.DataFrame,
        columns: list[str] | None = None,
        time_column: str | None = None,
        id_column: str | None = None,
        missing: str = "error",
        any_order: bool = False,
    ):
        if missing not in ("error", "interpolate"):
            raise UserError(f"`missing` {missing!r}: give error or interpolate")
        self.source, self.id, self.missing, self.any_order = source, id_column, missing, any_order
        self.name = "table" if isinstance(source, pd.DataFrame) else source.stem
        self.told = "the table" if isinstance(source, pd.DataFrame) else str(source)
        head = self._head()
        self.all = [str(name) for name in head.columns]
        check_columns(self.all, self.told)
        for name in (time_column, id_column, *(columns or ())):
            if name is not None and name not in self.all:
                has = ", ".join(map(short, self.all[:20]))
                raise UserError(f"{self.told} has no column {short(name)!r}: it has {has}")
        self.time = time_column or self._find_time(head)
        special, chosen = {self.time, self.id}, set(columns or self.all)
        if columns and special & chosen:
            raise UserError(f"`columns`: {(special & chosen).pop()!r} is time or id, not a variable")
        if self.time == self.id:
            raise UserError(f"{self.time!r} cannot be both the time column and the id column")
        self.columns = [name for name in self.all if name not in special and name in chosen]
        if not self.columns:
            raise UserError(f"{self.told} has no columns to forecast beside {self.time!r}")
        unnamed = [name for name in self.columns if name.startswith("Unnamed: ")]
        if unnamed:
            raise UserError(
                f"{self.told}: column {self.all.index(unnamed[0]) + 1} has no name (pandas' index?): give it one, or "
                "choose by `columns`"
            )
        for name in self.columns:
            if kind := _no_number(head[name]):
                raise UserError(
                    f"{self.told}: column {short(name)!r} holds {kind}, not numbers: leave it out by `columns`"
                )
        self.zone = None
        self.format, self.zone = self._format(self.source if any_order else head)
        self.size = source.stat().st_size if isinstance(source, Path) else None

    def changed(self) -> bool:
        """Whether the file's size is another than when it was opened, or the file is gone."""
        return self.size is not None and (not os.path.isfile(self.source) or os.path.getsize(self.source) != self.size)

    def __str__(self) -> str:
        many = f", one for each {self.id}" if self.id else ""
        return f"{self.name}: {self.variables} columns over {self.time}{many}"

    @property
    def variables(self) -> int:
        return len(self.columns)

    # ---------------------------------------------------------------- files

    def _head(self) -> pd.DataFrame:
        """The first rows, 100 at most."""
        if isinstance(self.source, pd.DataFrame):
            self.source = _flat(self.source)
            head = self.source.head(100)
        elif not os.path.isfile(self.source):  # also False where a folder lacks permissions
            raise UserError(f"no data file {self.source}: correct --data_path (and --root_path)")
        else:
            head = next(self._frames(rows=100), (pd.DataFrame(), 0))[0]
        if head.empty:
            raise UserError(f"{self.told} has no rows: a header and rows of time and values are expected")
        return head

    def _frames(self, rows: int | None = None) -> Iterator[tuple[pd.DataFrame, float]]:
        """Frames of consecutive rows, each with the share of the table read so far."""
        source = self.source
        if isinstance(source, pd.DataFrame):
            yield source, 1.0
            return
        try:
            if source.suffix in (".parquet", ".pq"):
                yield from self._parquet(rows)
            else:
                yield from self._csv(rows)
        except Exception as error:  # parsers and decompressors raise many types on damaged files
            if isinstance(error, UserError):
                raise
            hint = "; save it as UTF-8" if isinstance(error, UnicodeError) else ""
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"cannot read {source} as a table ({reason}{hint}): give CSV or Parquet") from error

    def _csv(self, rows: int | None) -> Iterator[tuple[pd.DataFrame, float]]:
        source, width = self.source, 1
        wanted: dict[str, Any] = {}
        if not rows:
            width = len(self.all)
            wanted["dtype"] = {self.id: str} if self.id else None
            if self.id:
                wanted["na_values"] = {name: [""] if name == self.id else MISSING for name in self.all}
                wanted["keep_default_na"] = False
            if len(self.columns) < width - bool(self.id) - 1:
                wanted["usecols"] = [name for name in (self.time, self.id, *self.columns) if name]
        compression = {".gz": "gzip", ".bz2": "bz2", ".zip": "zip", ".xz": "xz"}.get(source.suffix)
        options = {"chunksize": rows or max(ROWS, CELLS // width), "compression": compression, "low_memory": False}
        if rows:
            check_columns(header(source, compression), self.told)  # pandas would rename duplicates
        size = max(1, source.stat().st_size)
        with source.open("rb") as file:
            for frame in pd.read_csv(file, **options, **wanted):
                if not isinstance(frame.index, pd.RangeIndex):
                    raise UserError(f"{source}: rows have more cells than the header: are there commas in numbers?")
                yield frame, min(1.0, file.tell() / size)

    def _parquet(self, rows: int | None) -> Iterator[tuple[pd.DataFrame, float]]:
        from pyarrow import parquet  # imported here because it is slow

        with parquet.ParquetFile(self.source) as file:
            done, total = 0, max(1, file.metadata.num_rows)
            for batch in file.iter_batches(rows or max(ROWS, CELLS // max(1, file.metadata.num_columns))):
                frame = _flat(batch.to_pandas())
                done += len(frame)
                missing = self.id in frame and frame[self.id].isna().any()  # reported by the caller
                yield frame.astype({self.id: str}) if self.id in frame and not missing else frame, done / total

    def _find_time(self, head: pd.DataFrame) -> str:
        candidates = [name for name in self.all if name != self.id]
        for name in candidates:
            if name.lower() in TIME_NAMES:
                return name
        for name in candidates:
            if pd.api.types.is_datetime64_any_dtype(head[name]) or _formats(head[name].iloc[0]):
                return name
        is_frame = isinstance(self.source, pd.DataFrame)
        other = ", a DatetimeIndex, or an array of the numbers alone" if is_frame else ""
        raise UserError(f"{self.told}: none of its columns looks like time: give `time_column`{other}")

    def _format(self, head: pd.DataFrame) -> tuple[str | None, tzinfo | None]:
        """The format of time stamps, and their time zone; None where they have none."""
        column = head[self.time]
        first = column.iloc[0]
        if pd.api.types.is_integer_dtype(column):  # 20200131 and 202001 are dates, others plain numbers
            for length, form in ((8, "%Y%m%d"), (6, "%Y%m")):
                text = column.astype(str)
                if (text.str.len() == length).all() and pd.to_datetime(
                    text, format=form, errors="coerce"
                ).notna().all():
                    return form, None
            return None, None
        forms = _formats(first)
        if len(forms) > 1:  # 05/03/2020: take the order that gives regular time stamps
            ids = head[self.id] if self.id else None
            series = column if ids is None else column[ids == ids.iloc[0]]
            forms = [form for form in forms if self._goes_on(series, form)] or forms[:1]
        if len(forms) > 1:
            raise UserError(
                f"{self.told}: {first!r} in {self.time!r} may begin with the day or the month: write 2020-12-31"
            )
        if not forms:
            return None, None
        return forms[0], pd.Timestamp(first).tz if "%z" in forms[0] else None

    def _goes_on(self, column: pd.Series, form: str) -> bool:
        """Whether the column in this format holds regular time stamps."""
        try:
            times = pd.DatetimeIndex(pd.to_datetime(column, format=form)).as_unit("us")
            times = times.sort_values() if self.any_order else times
            regular(times, np.zeros((len(times), 1)), "", 0, self)
        except ValueError:
            return False
        return True

    def written(self, times: pd.Index) -> str | None:
        """The table's time format if it represents all of these time stamps exactly, else None."""
        if self.format is None or not isinstance(times, pd.DatetimeIndex):
            return None
        again = pd.to_datetime(
            times.strftime(self.format), format=self.format, errors="coerce", utc=times.tz is not None
        )
        return self.format if (again == times).all() else None

    # ---------------------------------------------------------------- series

    def histories(self, single: bool = False) -> Iterator[History]:
        """The series of the table, in its order.

        ``single``: give series of a single row, too, though no step is known of them (None).

        Raises:
            UserError: a row or a series is invalid.
        """
        number, first = 0, 0
        seen: set[str | None] = set()
        parts: list[tuple] = []
        before = 0.0
        for ids, times, values, start, after in self._pieces():
            edges = [] if ids is None else [*(np.flatnonzero(ids[1:] != ids[:-1]) + 1)]
            for begin, end in zip([0, *edges], [*edges, len(times)], strict=True):
                name = None if ids is None else ids[begin]
                if parts and parts[0][0] != name:
                    read = before + (after - before) * begin / len(times)
                    yield self._history(number, parts, first, read, single)
                    number, parts = number + 1, []
                if not parts:
                    if len(str(name)) > LONGEST:
                        raise UserError(
                            f"{self.told}: {self.id} {short(name)!r} in data row {start + begin + 1} has "
                            f"{len(str(name)):,} characters: shorten it to {LONGEST:,}"
                        )
                    if name in seen:
                        raise UserError(
                            f"{self.told}: {self.id} {_cut(name)!r} comes again at data row {start + begin + 1}: sort "
                            "the table by it, then by time"
                        )
                    seen.add(name)
                    first = start + begin
                parts.append((name, times[begin:end], values[begin:end]))
            before = after
        if not parts:
            raise UserError(f"{self.told} has no rows: a header and rows of time and values are expected")
        yield self._history(number, parts, first, 1.0, single)

    def _pieces(self) -> Iterator[tuple]:
        """Ids, time stamps, values, first row and share of the table read, for chunks of consecutive rows."""
        start = 0
        for frame, read in self._frames():
            if frame.empty:
                continue
            ids = None
            if self.id:
                if frame[self.id].isna().any():
                    row = start + int(frame[self.id].isna().argmax())
                    raise UserError(f"{self.told}: data row {row + 1} has no {self.id}: fill it in")
                ids = frame[self.id].to_numpy(object)  # text if read from a file
            times, values = self._times(frame[self.time], start), self._values(frame, start)
            if self.any_order:  # a frame is one piece
                order = np.lexsort((times, [0] * len(times) if ids is None else pd.factorize(ids)[0]))
                if (np.diff(order) < 0).any():
                    self.told = f"the table, sorted by {self.id} and {self.time}" if self.id else "the sorted table"
                ids, times, values = ids if ids is None else ids[order], times[order], values[order]
            yield ids, times, values, start, read
            start += len(frame)

    def _times(self, column: pd.Series, start: int) -> pd.Index:
        try:
            if column.isna().any():
                raise UserError(f"{self.told}: no time stamp in data row {start + int(column.isna().argmax()) + 1}")
            if pd.api.types.is_integer_dtype(column):
                if self.format is None:
                    if column.max() >= 2**63:
                        raise ValueError(f"{column.max()} is too large")
                    return pd.Index(column.to_numpy(np.int64))
                column = column.astype(str)
            elif pd.api.types.is_numeric_dtype(column):
                raise ValueError(f"{column.iloc[0]} is neither a date nor a whole number")
            elif self.format is None and isinstance(column.iloc[0], str):
                raise ValueError(f"{column.iloc[0][:40]!r} is no date")
            iso = self.format and self.format.startswith("%Y-%m-%d")  # ISO 8601 allows seconds to be absent in some
            times = pd.to_datetime(column, format="ISO8601" if iso else self.format, utc=bool(self.zone))
            times = pd.DatetimeIndex(times).as_unit("us")
            return times.tz_convert(self.zone) if self.zone else times
        except (ValueError, TypeError, OverflowError) as error:
            if isinstance(error, UserError):
                raise
            reason = (
                str(error).strip().splitlines()[0].partition(". ")[0]
            )  # pandas goes on with advice on its functions
            raise UserError(
                f"{self.told}: cannot read the time column {self.time!r} from data row {start + 1} on ({reason})"
            ) from error

    def _values(self, frame: pd.DataFrame, start: int) -> np.ndarray:
        try:
            values = frame[self.columns].to_numpy(np.float64, na_value=np.nan)
        except (ValueError, TypeError) as error:
            for name in self.columns:
                row = next((row for row, cell in enumerate(frame[name]) if not _number(cell)), None)
                if row is not None:
                    raise UserError(
                        f"{self.told}: column {short(name)!r} is not numeric ({str(frame[name].iloc[row])[:40]!r} in "
                        f"data row {start + row + 1}): mend it, leave it out by `columns`"
                        f"{'' if self.id else ', or is it the `id_column`?'}"
                    ) from error
            raise UserError(f"{self.told}: its columns are not numeric ({error}): choose by `columns`") from error
        if np.isinf(values).any():
            row, column = np.argwhere(np.isinf(values))[0]
            raise UserError(
                f"{self.told}: infinite value in column {self.columns[column]!r}, data row {start + row + 1}: mend it"
            )
        return values

    def _history(self, number: int, parts: list[tuple], first: int, read: float, single: bool) -> History:
        name = parts[0][0]
        times = parts[0][1].append([part[1] for part in parts[1:]])
        values = np.concatenate([part[2] for part in parts])
        told = self.told if name is None else f"{self.told}, {self.id} {_cut(name)!r}"
        given = times
        if single and len(times) == 1:
            return History(number, name, times, None, values, read)
        step, times, values = regular(times, values, told, first, self)
        gaps, filled = np.isnan(values), {}
        if gaps.any():
            row, column = np.argwhere(gaps)[0]
            if self.missing == "error":
                raise UserError(
                    f"{told}: NaN in column {self.columns[column]!r}, data row {first + row + 1}: fill it, or give "
                    "`missing` interpolate"
                )
            empty = gaps.all(0)
            if empty.any():
                raise UserError(
                    f"{told}: column {self.columns[empty.argmax()]!r} has no values: leave it out by `columns`"
                )
            values = interpolated(values)
            for column in np.flatnonzero(gaps.any(0)):
                filled[self.columns[column]] = _filled(gaps[:, column], times, given, first)
        return History(number, name, times, step, values, read, filled, gaps if filled else None)


def interpolated(values: np.ndarray) -> np.ndarray:
    """``[rows, C]`` with NaN filled by straight lines, at the ends by the nearest value."""
    return pd.DataFrame(values).interpolate(limit_direction="both").to_numpy()


def header(path: Path, compression: str | None = "infer") -> list[str]:
    """The column names of a CSV as written, including empty ones."""
    first = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, compression=compression)
    return first.iloc[0].tolist()


def check_columns(names: list[str], told: str) -> None:
    """Refuse duplicate names and names longer than ``LONGEST`` characters.

    Raises:
        UserError: there is such a name; ``told`` names the table in the message.
    """
    for name, times in Counter(names).items():
        if len(name) > LONGEST:
            raise UserError(f"{told}: column {short(name)!r} has a name of {len(name):,} characters: use {LONGEST:,}")
        if name and times > 1:
            raise UserError(f"{told} has several columns {short(name)!r}: rename them")


def _no_number(column: pd.Series) -> str | None:
    """The kind of a column that numpy would convert to numbers but cannot be forecast, such as dates; else None."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.categories.to_series()
    kind = pd.api.types.infer_dtype(column, skipna=True) if column.dtype == object else column.dtype.kind
    if kind in ("M", "datetime64", "datetime", "date") or isinstance(column.dtype, pd.PeriodDtype):
        return "dates"
    if kind in ("m", "timedelta64", "timedelta"):
        return "durations"
    return "complex numbers" if kind in ("c", "complex") else None


def _number(cell) -> bool:
    """Whether a cell can be read as a number, or is missing."""
    try:
        float(cell)
    except (ValueError, TypeError):
        return cell is None or cell is pd.NA
    return True


def _cut(name):
    """An id, shortened if it is text, for messages."""
    return short(name) if isinstance(name, str) else name


def _filled(gaps: np.ndarray, times: pd.Index, given: pd.Index, first: int) -> Filled:
    """Summarise the filled gaps of a column.

    Args:
        gaps: ``[rows]``, whether each value was missing.
        times: complete time stamps ``[rows]``.
        given: time stamps present in the table.
        first: row of the table, from 0, at which the series begins.
    """
    rows = np.flatnonzero(gaps)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    longest = max(runs, key=len)
    stamp = times[longest[0]]
    before = int(given.searchsorted(stamp))
    there = before < len(given) and given[before] == stamp
    place = f"from data row {first + before + 1} on" if there else f"after data row {first + before}"
    season = None
    if isinstance(times, pd.DatetimeIndex):
        step = np.median(np.diff(times.asi8))
        # four quarters, each of the usual 92 days at most, are a year
        season, most = ("day", 1) if step < DAY else ("week", 7) if step < 7 * DAY else ("year", 367)
        season = f"a {season}" if times.asi8[longest[-1]] - times.asi8[longest[0]] + step > most * DAY else None
    return Filled(len(rows), len(longest), f"{place} ({stamp})", season)


def told_filled(filled: dict[str, Filled]) -> list[str]:
    """Lines that list the filled gaps of a series, with a warning where a run is longer than a season."""
    if not filled:
        return []
    parts = [
        f"{short(name)} {found.values:,} value{'s' * (found.values > 1)} (longest run {found.longest:,}, {found.place})"
        for name, found in sorted(filled.items(), key=lambda item: -item[1].longest)
    ]
    lines = [f"filled by `missing` interpolate: {_some(parts)}"]
    long = {name: found for name, found in filled.items() if found.season}
    parts = [
        f"{short(name)}, {found.longest:,} time steps {found.place}"
        for name, found in sorted(long.items(), key=lambda item: -item[1].longest)
    ]
    if long:
        season = next(iter(long.values())).season
        lines.append(
            f"warning: gaps longer than {season} are filled by straight lines, which no season is in: {_some(parts)}; "
            "leave such columns out by `columns`, or begin the table later"
        )
    return lines


def _some(parts: list[str]) -> str:
    more = f"; and {len(parts) - TOLD:,} more columns" if len(parts) > TOLD else ""
    return "; ".join(parts[:TOLD]) + more


def short(name, most: int = 60) -> str:
    """A name for messages, cut to ``most`` characters."""
    text = str(name)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _formats(first) -> list[str]:
    """Possible formats of a time stamp, month before day first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns about the order it assumes
        forms = [guess_datetime_format(first, dayfirst=day) for day in (False, True)] if isinstance(first, str) else []
    forms = [form for form in forms if form]
    return list(dict.fromkeys(forms[:1] if forms and forms[0].startswith("%Y") else forms))


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    """A shallow copy with column names as text and a named or datetime index turned into columns."""
    names = [name for name in frame.index.names if name is not None]
    if not names and isinstance(frame.index, pd.DatetimeIndex):
        frame = frame.rename_axis("date")
    if frame.index.name is not None or names:
        frame = frame.reset_index(drop=bool({frame.index.name, *names} & set(frame.columns)))
    return frame.set_axis([str(name) for name in frame.columns], axis=1)
