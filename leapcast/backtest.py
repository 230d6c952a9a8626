"""The backtest of a forecaster on users' series: what each forecast may read, and how its rivals are called."""

import re
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from leapcast.data_provider import seasons
from leapcast.data_provider.calendars import UNITS, frequency
from leapcast.data_provider.histories import History, before
from leapcast.inputs import batches
from leapcast.utils.analysis import rivals
from leapcast.utils.analysis.backtest import ADVICE, MODEL, add, nothing, of_series, origins, record

MOST_SERIES = 1000  # the first series of a table; more would cost more than they tell
SPANS = {1: "day", 7: "week", 364: "year", 365: "year"}  # days of a season -> what it is called
CALENDAR = {"M": (12, "year"), "SM": (24, "year"), "B": (5, "week")}  # unit -> how many are what


@dataclass(frozen=True)
class Backtest:
    """A backtest of the series of one table, in plain values that other processes can be sent.

    Each forecast reads what lies before its origin; the rivals' seasons, and a calibrated spread, are found in the
    first batch of series, before the earliest origin of each. Draft and plan are those of the forecast itself.

    Attributes:
        told: method -> its name in messages; the model first.
        every: seasons, the shortest first; empty where no series of the first batch has an origin: nothing is tested.
        least: rows needed before an origin.
        count: most origins of a series.
        horizon, samples, sigma, seed: see :meth:`leapcast.forecaster.SpeculativeForecaster.decode`.
        until: the last time stamp that the model was trained on, as text; None: unknown, or before every origin.
    """

    told: dict[str, str]
    every: tuple[int, ...]
    least: int
    count: int
    horizon: int
    samples: int
    sigma: Any = None
    seed: int | None = None
    until: str | None = None

    @classmethod
    def of(
        cls, forecaster, first: list[History], horizon: int, samples: int, count: int, seed: int | None = None
    ) -> "Backtest":
        """Prepare a backtest.

        Args:
            forecaster: a :class:`leapcast.forecaster.SpeculativeForecaster`.
            first: the first batch of series.
            horizon, samples, count, seed: see the attributes.
        """
        # a model of any length gets its whole context, or half of what a usual series has
        rows = sorted(len(history.values) for history in first)[len(first) // 2]
        least = max(forecaster.least, min(forecaster.context, (rows - horizon) // 2))
        least += forecaster.patch_len * forecaster.calibrates(samples)
        made = cls({MODEL: "model"}, (), least, count, horizon, samples, None, seed, forecaster.trained_until)
        if not (early := made.earliest(first)):
            return made
        longest = max(len(history.values) for history in early)
        every = seasons.find([history.values for history in early], first[0].step, longest).every
        # the mean is of as many seasons before every origin as these series have
        count = min(rivals.SEASONS, min(len(history.values) for history in early) // every[-1])
        least = max(least, every[-1] + 1, count * every[-1])
        made = replace(made, told=called(every, least, first[0].step), every=every, least=least)
        return replace(made, sigma=forecaster.spread(made.earliest(first), samples))

    @property
    def kinds(self) -> dict[str, tuple[int, int]]:
        return rivals.names(self.every, self.least) if self.every else {}

    def earliest(self, histories: list[History]) -> list[History]:
        """The series that have an origin, each cut at its first one."""
        found = ((one, self.origins(one)) for one in histories)
        return [before(one, at[0]) for one, at in found if at]

    def origins(self, one: History) -> list[int]:
        """The origins of a series, each with a known value of every column before it."""
        return origins(len(one.values), max(self.least, one.known), self.horizon, self.count)

    def nothing(self, columns: int) -> dict:
        """The sums before the first batch."""
        return nothing(list(self.told), columns)

    def sums(self, forecaster, batch: list[History]) -> dict:
        """The sums of the series of a batch, forecast by ``forecaster`` as it is set up."""
        total = self.nothing(batch[0].values.shape[1])
        tested = [history for history in batch if history.number < MOST_SERIES]
        total["beyond"] = len(batch) - len(tested)
        for part in batches(tested, max(1, forecaster.batch_size // self.count)):
            cut = [[before(one, origin) for origin in self.origins(one)] if self.every else [] for one in part]
            total["short"] += cut.count([])
            if not any(cut):
                continue
            drawn, _ = forecaster.decode([*chain(*cut)], self.horizon, self.samples, self.sigma, self.seed)
            ends = np.cumsum([len(own) for own in cut])
            for one, own, paths in zip(part, cut, np.split(drawn, ends[:-1]), strict=True):
                if own:
                    name = f"series {one.number}" if one.name is None else str(one.name)
                    pasts = [past.values for past in own]
                    trained = sum(not later(one.times[len(past)], self.until) for past in pasts)
                    total = add(total, of_series(name, one.values, pasts, paths, self.kinds, trained, one.gaps))
        return total

    def record(self, sums: dict, columns: list[str], advice: str = ADVICE) -> dict:
        """See :func:`leapcast.utils.analysis.backtest.record`."""
        return record(sums, self.told, columns, self.horizon, self.count, self.least, advice)


def later(stamp, until: str | None) -> bool:
    """Whether a time stamp, or a number, is later than another one given as text; True where that is unknown."""
    number = isinstance(stamp, int | np.integer)
    if until is None or number != (re.fullmatch(r"-?\d+", until) is not None):
        return True
    if number:
        return int(stamp) > int(until)
    try:
        end = pd.Timestamp(until)
    except ValueError:
        return True
    if stamp.tz is None or end.tz is None:  # by the clock
        stamp, end = stamp.tz_localize(None), end.tz_localize(None)
    return stamp > end


def last_seasons(history: History, season: int, horizon: int) -> dict[str, np.ndarray]:
    """The last seasons in place of the forecast of a series, to compare it with: name -> ``[H or fewer, C]``.

    As many real seasons as fit the horizon, at least one, and the mean of the last four, or of as many as there are;
    none where the series is shorter than a season.
    """
    if len(history.values) < season:
        return {}
    name, (_, averaged) = list(rivals.names((season,), len(history.values)).items())[-1]
    mean = rivals.repeated(history.values, season, horizon, averaged)
    found = {rivals.told(name, span(season, history.step)): mean}
    if season > 1:
        count = min(max(1, horizon // season), len(history.values) // season)
        name = span(season, history.step) or f"season of {season}"
        label = f"last {name} again" if count == 1 else f"last {count} {name}s again"
        found = {label: history.values[len(history.values) - count * season :][:horizon]} | found
    return found


def span(season: int, step) -> str | None:
    """What this season is called, such as a week; None where it has no name."""
    text = frequency(step)
    if season == 1 or text is None:
        return None if season > 1 else "value"
    count, unit = re.fullmatch(r"(\d+)(\D+)", text).groups()  # type: ignore[union-attr]  # of every frequency
    if unit not in UNITS:  # a rule of the calendar
        length, name = CALENDAR.get(unit, (0, None))
        return name if int(count) * season == length else None
    days = pd.Timedelta(text) * season / pd.Timedelta("1D")
    return SPANS.get(int(days)) if days == int(days) else None


def called(every: tuple[int, ...], length: int, step) -> dict[str, str]:
    """The names of the model and of its rivals in messages, for :func:`rivals.names` of these seasons."""
    kinds = rivals.names(every, length).items()
    return {MODEL: "model"} | {name: rivals.told(name, span(season, step)) for name, (season, _) in kinds}
