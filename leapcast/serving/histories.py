"""Series of requests as histories, by the rules of user tables."""

import re
from datetime import tzinfo

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import Day, Tick, Week

from leapcast.data_provider.calendars import regular
from leapcast.data_provider.histories import History, Table, short
from leapcast.models.errors import UserError
from leapcast.serving.requests import SeriesRequest

TIME = "timestamp"
CALENDAR = 100_000  # values of a calendar frequency: such dates are made one by one, some tens of thousands a second
LAST_YEAR = 9999  # ISO 8601 has four digits
OF_TABLES = " (a table of several series needs `id_column`)", ", or give `missing` interpolate"  # hints


def history_of(number: int, given: SeriesRequest) -> History:
    """The history of the series of this number in its request.

    Raises:
        UserError: its time stamps are none, or follow no rule; the line names the series.
    """
    name = str(number) if given.id is None else given.id
    values = np.asarray(given.values, np.float64).reshape(len(given.values), -1)
    try:
        times: pd.Index
        if given.timestamps is not None:
            frame = pd.DataFrame(values, columns=[f"column {i}" for i in range(values.shape[1])])
            frame[TIME] = given.timestamps
            (found,) = Table(frame, time_column=TIME).histories()
            times, step = found.times, found.step
        elif given.start is not None and given.freq is not None:
            times, step = stamps(given.start, given.freq, values)
        else:
            times, step = pd.RangeIndex(len(values)), 1
    except UserError as error:
        line = str(error).removeprefix("the table: ")
        for hint in OF_TABLES:
            line = line.replace(hint, "")
        raise UserError(f"series {short(name)!r}: {line}") from error
    return History(number, name, times, step, values, 1.0)


def stamps(start: str, freq: str, values: np.ndarray) -> tuple:
    """The time stamps of values ``[rows, C]``, and the step between them.

    Raises:
        UserError: ``start`` or ``freq`` is none, they do not fit, or leave the calendar.
    """
    try:
        offset = to_offset(freq)
    except (ValueError, TypeError, OverflowError) as error:
        meant = re.search(r"(?:mean|use) '?([\w-]{1,16})'?", str(error))
        hint = f"did you mean {meant[1]}?" if meant else "give h, 15min, D, B, MS, …"
        raise UserError(f"freq {freq!r} is no time between values that pandas knows: {hint}") from error
    try:
        first = pd.to_datetime(start, format="ISO8601")
        if not (isinstance(first, pd.Timestamp) and start[:1].isdigit() and 1 <= first.year <= LAST_YEAR):
            raise ValueError(start)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"start {start!r} is no date of the years 1 to {LAST_YEAR} in ISO 8601: correct it") from error
    if not (fixed := isinstance(offset, Tick | Day | Week)) and len(values) > CALENDAR:
        raise UserError(f"{len(values):,} values of freq {freq!r}: give at most {CALENDAR:,}, or timestamps")
    try:
        times = pd.DatetimeIndex(pd.date_range(first, periods=len(values), freq=offset, unit="us"))
    except (ValueError, OverflowError, TypeError) as error:
        raise UserError(
            f"{len(values)} values from {start!r} on, {freq!r} apart, make no time stamps: the calendar ends in "
            f"{LAST_YEAR}, and the shortest time is a microsecond"
        ) from error
    if offset.n < 1 or times[0] != first or times[-1] < first:
        raise UserError(f"start {start!r} is no date of freq {freq!r}, or time runs backwards: correct one of them")
    if fixed:
        return times, regular(times, values, "it", 0, Plain())[0]
    return times, offset.freqstr


class Plain:
    """The layout of a table without gaps and ids."""

    id: str | None = None
    zone: tzinfo | None = None
    missing: str = "error"
