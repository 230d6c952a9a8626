"""The backtest of a forecaster on users' series: what each forecast may read, and how its rivals are called."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from leapcast.data_provider import seasons
from leapcast.data_provider.calendars import frequency
from leapcast.data_provider.histories import History, before
from leapcast.inputs import batches
from leapcast.utils.analysis import rivals
from leapcast.utils.analysis.backtest import ADVICE, MODEL, add, nothing, of_series, origins, record

MOST_SERIES = 1000  # the first series of a table; more would cost more than they tell
SPANS = {1: "day", 7: "week", 364: "year", 365: "year"}  # days of a season -> what it is called


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
    """

    told: dict[str, str]
    every: tuple[int, ...]
    least: int
    count: int
    horizon: int
    samples: int
    sigma: Any = None
    seed: int | None = None

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
        made = cls({MODEL: "model"}, (), least, count, horizon, samples, None, seed)
        if not (early := made.earliest(first)):
            return made
        longest = max(len(history.values) for history in early)
        every = seasons.find([history.values for history in early], first[0].step, longest).every
        told = {MODEL: "model"} | {name: called(how, first[0].step) for name, how in rivals.names(every).items()}
        made = replace(made, told=told, every=every, least=max(least, every[-1] + 1))
        return replace(made, sigma=forecaster.spread(made.earliest(first), samples))

    @property
    def kinds(self) -> dict[str, tuple[int, int]]:
        return rivals.names(self.every) if self.every else {}

    def earliest(self, histories: list[History]) -> list[History]:
        """The series that have an origin, each cut at its first one."""
        found = ((one, origins(len(one.values), self.least, self.horizon, self.count)) for one in histories)
        return [before(one, at[0]) for one, at in found if at]

    def nothing(self, columns: int) -> dict:
        """The sums before the first batch."""
        return nothing(list(self.told), columns)

    def sums(self, forecaster, batch: list[History]) -> dict:
        """The sums of the series of a batch, forecast by ``forecaster`` as it is set up."""
        total = self.nothing(batch[0].values.shape[1])
        tested = [history for history in batch if history.number < MOST_SERIES]
        total["beyond"] = len(batch) - len(tested)
        for part in batches(tested, max(1, forecaster.batch_size // self.count)):
            at = [origins(len(one.values), self.least, self.horizon, self.count) if self.every else [] for one in part]
            total["short"] += at.count([])
            cut = [before(one, origin) for one, own in zip(part, at, strict=True) for origin in own]
            if not cut:
                continue
            drawn, _ = forecaster.decode(cut, self.horizon, self.samples, self.sigma, self.seed)
            ends = np.cumsum([len(own) for own in at])
            for one, own, paths in zip(part, at, np.split(drawn, ends[:-1]), strict=True):
                if own:
                    name = None if one.name is None else str(one.name)
                    total = add(total, of_series(name, one.values, own, paths, self.kinds))
        return total

    def record(self, sums: dict, columns: list[str], advice: str = ADVICE) -> dict:
        """See :func:`leapcast.utils.analysis.backtest.record`."""
        return record(sums, self.told, columns, self.horizon, self.count, self.least, advice)


def last_seasons(history: History, season: int, horizon: int) -> dict[str, np.ndarray]:
    """The last seasons in place of the forecast of a series, to compare it with: name -> ``[H or fewer, C]``.

    As many real seasons as fit the horizon, at least one, and the mean of the last four; none where the series is
    shorter than a season.
    """
    if len(history.values) < season:
        return {}
    mean = rivals.repeated(history.values, season, horizon, rivals.SEASONS)
    found = {called((season, rivals.SEASONS), history.step): mean}
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
    if text.endswith("M"):
        return "year" if int(text[:-1]) * season == 12 else None
    if text.endswith("B"):
        return "week" if season == 5 else None
    days = pd.Timedelta(text) * season / pd.Timedelta("1D") if text[-1] != "C" else 0
    return SPANS.get(int(days)) if days == int(days) else None


def called(how: tuple[int, int], step) -> str:
    """The name of a rival (its season, and how many of them are averaged) in messages."""
    season, count = how
    name = span(season, step)
    if count == 1:
        return "last value again" if season == 1 else f"seasonal naive ({season})"
    return f"mean of the last four {name}s" if name else f"mean of the last four seasons ({season})"
