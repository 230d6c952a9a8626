"""Inference of the rule that time stamps follow: equal steps, a calendar frequency, or steps in local time."""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import tzinfo
from typing import Protocol

import numpy as np
import pandas as pd

from leapcast.models.errors import UserError

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY = 24 * 60 * 60 * 10**6  # microseconds
SPARSE = 10  # a regular grid has at most this many time stamps for each one present
UNITS = {"D": DAY, "h": DAY // 24, "min": 60 * 10**6, "s": 10**6, "ms": 10**3, "us": 1}  # in microseconds
UNITED = ("days", "seconds", "microseconds")  # of a step in local time
ANY = "any"  # step of a model for every frequency
CLEAR = 0.8  # share of the time stamps that must follow a rule for an error to name it


class Layout(Protocol):
    """The attributes of a table that :func:`regular` uses."""

    id: str | None  # the column that identifies series
    zone: tzinfo | None  # time zone of the time stamps, if they have one
    missing: str  # error or interpolate


def regular(times: pd.Index, values: np.ndarray, told: str, first: int, table: Layout) -> tuple:
    """Infer the step between time stamps and complete the grid.

    Args:
        times: ``[rows]`` time stamps or whole numbers.
        values: ``[rows, C]``.
        told: name of the table in error messages.
        first: row of the table, from 0, at which these rows begin.
        table: see :class:`Layout`.

    Returns:
        the step, the complete time stamps, and the values with rows of NaN at time stamps that were missing.

    Raises:
        UserError: the time stamps are not rising, follow no rule, or have gaps that ``table.missing`` does not allow.
    """
    if len(times) < 2:
        hint = f" (the rows of a series stand together: sort by {table.id}, then by time)" if table.id else ""
        raise UserError(f"{told} has one row: a past to forecast from is needed{hint}")
    local = on_the_wall(times)
    if local is not None:  # days and months follow local time, across changes to and from summer time
        step, local, values = regular(local, values, told, first, table)
        if isinstance(step, pd.Timedelta):
            step = pd.DateOffset(days=step.days, seconds=step.seconds, microseconds=step.microseconds)
        return step, localised(local, times.tz), values
    numbers = times.to_numpy(np.int64) if times.dtype.kind == "i" else times.asi8
    steps = np.diff(numbers)
    if (steps <= 0).any():
        row = int((steps <= 0).argmax())
        what = "comes twice" if steps[row] == 0 else "is earlier than the one before: sort the table by time"
        what += "" if table.id else " (a table of several series needs `id_column`)"
        raise UserError(f"{told}: the time stamp {times[row + 1]} in data row {first + row + 2} {what}")
    common, most = int(steps[0]), SPARSE * len(times)
    days = isinstance(times, pd.DatetimeIndex) and times.tz is None and steps.min() >= DAY
    if (steps == common).all():
        if days and common >= 28 * DAY and common % (7 * DAY):  # July and August are 31 days each: monthly
            for _, freq, grid in rules(times, most):
                if grid.equals(times):
                    return freq, times, values
        return _duration(times, common), times, values
    lengths, counts = np.unique(steps, return_counts=True)
    common = int(lengths[counts.argmax()])
    grids: list[tuple] = []  # rule in words, step, time stamps
    if (numbers[-1] - numbers[0]) // common < most:
        whole = np.arange(numbers[0], numbers[-1] + 1, common)
        grids = [(None, _duration(times, common), _like(times, whole))]
    for rule in rules(times, most) if days else ():
        grids.append(rule)
        if rule[2].equals(times):
            break
    grids = [rule for rule in grids if len(rule[2]) <= most]
    shares = [times.isin(grid).mean() for _, _, grid in grids]
    fitting = [rule for rule, share in zip(grids, shares, strict=True) if share == 1]
    if not fitting:
        summer = summer_time(times, steps)
        row = int((np.diff(times.asi8 % DAY) != 0 if summer else steps != common).argmax())
        pair = f"{times[row]} and {times[row + 1]} (data rows {first + row + 1} and {first + row + 2})"
        if summer:
            raise UserError(
                f"{told}: time stamps move with summer time, as {pair} do: they are days by the clock of a time "
                "zone that they do not name: write local dates without offset from UTC, or give a frame or Parquet "
                "file in the named zone"
            )
        if shares and max(shares) >= CLEAR and (rule := grids[int(np.argmax(shares))])[0]:
            row = int((~times.isin(rule[2])).argmax())
            near = rule[2][rule[2].get_indexer(times[row : row + 1], method="nearest")[0]]
            raise UserError(
                f"{told}: time stamps are not regular: {times[row]} (data row {first + row + 1}) is not by the "
                f"rule of the others, {rule[0]}, which has {near}: write that, or number the rows"
            )
        hint = "; write days and months without offsets from UTC" if table.zone else ""
        raise UserError(
            f"{told}: time stamps are not regular: {pair} are not the usual {_duration(times, common)} apart, "
            f"and no rule of the calendar has them all{hint}: mend them, or number the rows"
        )
    rule, step, grid = min(fitting, key=lambda rule: len(rule[2]))
    if len(grid) == len(times):
        return step, times, values
    place = grid.get_indexer(times)
    if table.missing == "error":
        row = int((np.diff(place) > 1).argmax())
        by = f", by the rule of the others, {rule}" if rule else ""
        raise UserError(
            f"{told}: the time stamp {grid[place[row] + 1]} is missing after data row {first + row + 1}{by}: add "
            "it, or give `missing` interpolate"
        )
    filled = np.full((len(grid), values.shape[1]), np.nan)
    filled[place] = values
    return step, grid, filled


def frequency(step) -> str | None:
    """A step between time stamps as a short text, the same for all rules of one frequency; None if it is unknown.

    Durations are ``1h``, ``15min``, ``7D`` and so on; months, business days, half months and other sets of weekdays
    are ``1M`` (a quarter ``3M``), ``1B``, ``1SM`` and ``1C``, on whichever day they fall.

    Args:
        step: see :class:`data_provider.histories.History`; None or a number: unknown.
    """
    if step is None or isinstance(step, int):
        return None
    if isinstance(step, str):
        count, kind = re.fullmatch(r"(\d*)(.*)", step).groups()  # type: ignore[union-attr]  # it matches every text
        kinds = {"B": "B", "SM": "SM", "BM": "M", "M": "M"}
        return (count or "1") + next((kinds[start] for start in ("SM", "BM", "B", "M") if kind.startswith(start)), kind)
    months = getattr(step, "months", None)
    if months is None and isinstance(step, pd.offsets.WeekOfMonth | pd.offsets.LastWeekOfMonth):
        months = step.n
    if months:
        return f"{months}M"
    if isinstance(step, pd.offsets.CustomBusinessDay):
        return "1C"
    if isinstance(step, pd.DateOffset) and not isinstance(step, pd.Timedelta):
        step = pd.Timedelta(**{unit: count for unit, count in step.kwds.items() if unit in UNITED})
    micro = round(step / pd.Timedelta(1, unit="us"))
    unit = next(name for name in UNITS if micro % UNITS[name] == 0)
    return f"{micro // UNITS[unit]}{unit}"


def other_frequency(trained, step) -> str | None:
    """One line where data of this step are of another frequency than a model was trained on; else None.

    Args:
        trained: what :func:`frequency` gave for the training data; a list for several; None or ``any``: no check.
        step: as for :func:`frequency`.
    """
    known, own = trained if isinstance(trained, list) else [trained], frequency(step)
    if own is None or not known or own in known or None in known or ANY in known:
        return None
    return f"the model was trained on data of step {', '.join(known)}, and this table's is {own}"


def _duration(times: pd.Index, step: int) -> pd.Timedelta | int:
    """A step of ``times`` as a duration, or as a number where the time stamps are numbers."""
    return step if times.dtype.kind == "i" else pd.Timedelta(step, unit="us")


def _like(times: pd.Index, numbers: np.ndarray) -> pd.Index:
    """Numbers (microseconds for time stamps) as an index of the type and zone of ``times``."""
    if times.dtype.kind == "i":
        return pd.Index(numbers)
    stamps = pd.DatetimeIndex(numbers.astype("datetime64[us]"))
    return stamps if times.tz is None else stamps.tz_localize("UTC").tz_convert(times.tz)


def rules(times: pd.DatetimeIndex, most: int) -> Iterator[tuple[str, str | pd.DateOffset, pd.DatetimeIndex]]:
    """Calendar rules that rising dates without a zone may follow, the likelier first.

    Yields:
        the rule in words, its pandas frequency, and its dates from the first to the last of ``times``. Rules with more
        than about ``most`` dates are left out.
    """
    rules, span = [], (times[-1] - times[0]).days
    week = sorted(set(times.day_of_week))
    if span < 7 * most:
        rules.append(("business days (B)", "B"))
        if span >= 21 and 1 < len(week) < 7 and week != [0, 1, 2, 3, 4]:  # some days of the week never occur
            mask = " ".join(DAYS[day] for day in week)
            rules.append((f"every {mask.replace(' ', ', ')}", pd.offsets.CustomBusinessDay(weekmask=mask)))
    month, last = times.year * 12 + times.month, times.days_in_month
    apart = int(np.gcd.reduce(np.diff(month)))
    if (np.diff(month) > 0).all() and month[-1] - month[0] < apart * most:
        every = {1: "month", 3: "quarter", 12: "year"}.get(apart, f"{apart} months")
        for name, code in (("first", "MS"), ("last", "ME"), ("first business", "BMS"), ("last business", "BME")):
            rules.append((f"the {name} day of every {every} ({apart if apart > 1 else ''}{code})", f"{apart}{code}"))
        day = int(times.day.max())  # the last day in shorter months
        rules.append((f"day {day} of every {every}", pd.DateOffset(months=apart, day=day)))
        if len(week) == 1:
            nth = (times.day - 1) // 7
            if nth.nunique() == 1 and nth[0] < 4:
                rule = pd.offsets.WeekOfMonth(apart, week=int(nth[0]), weekday=week[0])
                rules.append((f"{DAYS[week[0]]} number {nth[0] + 1} of every {every}", rule))
            rule = pd.offsets.LastWeekOfMonth(apart, weekday=week[0])
            rules.append((f"the last {DAYS[week[0]]} of every {every}", rule))
    elif month[-1] - month[0] < most:
        first, ends = set(times.day) - {1}, set(times.day[times.day != last])
        if len(first) == 1 and 1 < (day := first.pop()) < 28:
            rules.append((f"days 1 and {day} of every month (SMS-{day})", f"SMS-{day}"))
        if len(ends) == 1 and (day := ends.pop()) < 28:
            rules.append((f"day {day} and the last of every month (SME-{day})", f"SME-{day}"))
    for rule, freq in rules:
        with suppress(ValueError):  # beyond the range of dates
            grid = pd.date_range(times[0], times[-1], freq=freq, unit="us")
            if len(grid):
                yield rule, freq, grid


def on_the_wall(times: pd.Index) -> pd.DatetimeIndex | None:
    """Time stamps with a zone as local time, if they are more regular in it than in UTC; else None."""
    if not isinstance(times, pd.DatetimeIndex) or times.tz is None:
        return None
    local = times.tz_localize(None)
    clock = local - local.normalize()
    if (clock == clock[0]).all():
        return local
    if (np.diff(times.asi8) == times.asi8[1] - times.asi8[0]).all():
        return None
    if (np.diff(local.asi8) == local.asi8[1] - local.asi8[0]).all():
        return local
    whole = local.normalize() + clock.value_counts().idxmax()  # a midnight skipped by summer time appears an hour late
    return whole if (localised(whole, times.tz) == times).all() else None


def summer_time(times: pd.Index, steps: np.ndarray) -> bool:
    """Whether daily or longer steps alternate between two times of day at most an hour apart."""
    if not isinstance(times, pd.DatetimeIndex) or steps.min() < 0.9 * DAY:
        return False
    clocks = sorted(set(times.asi8 % DAY))
    apart = clocks[-1] - clocks[0]
    return len(clocks) == 2 and min(apart, DAY - apart) <= DAY // 24


def localised(times: pd.DatetimeIndex, zone: tzinfo | None) -> pd.DatetimeIndex:
    """Local time in ``zone``; a skipped time becomes the next valid one, a repeated one its first occurrence."""
    if zone is None:
        return times
    return times.tz_localize(zone, nonexistent="shift_forward", ambiguous=np.ones(len(times), dtype=bool))
