"""Detection of the seasonal period of a table, in time steps, by autocorrelation."""

import re
from datetime import timedelta
from typing import NamedTuple

import numpy as np

from leapcast.data_provider.calendars import frequency

DAY = 86_400  # seconds
NAMES: dict[float, str] = {3_600: "hourly", DAY: "daily", 7 * DAY: "weekly"}  # seconds per step -> name of such data
MONTHS = {"M": 1, "Q": 3}  # letter of a frequency -> months
CALENDAR = {1: "monthly", 3: "quarterly", 12: "yearly"}  # months per step -> name of such data
SEASONS = 3  # periods that a series must contain for a season to be detected
LEAST = 0.25  # smallest autocorrelation of a season
CHANCE, CHANCE_OF_MANY = 2.5, 4.0  # significance in standard deviations: of calendar lags, of the best of all lags
BETTER = 0.9  # a longer season must reduce 1 - autocorrelation to at most this share of the shorter one's
MUCH_BETTER = 0.5  # likewise for a season from a peak over one from the calendar
PEAKS = 12  # number of peaks considered
ROWS, COLUMNS = 20_000, 32  # at most: the last rows, and evenly spaced columns


class Season(NamedTuple):
    """A detected season.

    Attributes:
        length: in time steps; 1: no season.
        told: a line that says how it was found.
        every: all seasons, the shortest first and ``length`` last, such as a day and a week.
    """

    length: int
    told: str
    every: tuple[int, ...]


def find(series: list[np.ndarray], step, most: int) -> Season:
    """Detect the season of one series, or of several similar ones.

    A lag is judged by the autocorrelation of the series minus its moving mean over that lag, which is near 1 for a
    season and near 0 for noise, a trend or a random walk. It is averaged over columns, without constant ones.

    Args:
        series: each ``[rows, C]``, finite.
        step: time between rows: a duration, a calendar offset with ``days``, a pandas frequency, or None or a number
            where it is unknown. It gives the likely lags, such as a day, a week or twelve months. If none of them is a
            season, or a peak of the autocorrelation is far better, the peak is taken.
        most: longest season considered, in time steps (the context).
    """
    parts = [Part.of(part) for part in series]
    kind, likely = candidates(step)
    seen = {lag: value for lag in likely if lag <= most and (value := autocorrelation(parts, lag)) is not None}
    every = _nested(parts, seen, CHANCE)
    length = every[-1]
    peaks: dict[int, float] = {}
    for lag in _peaks(parts, most):  # noise may shift a peak by one step
        near = {i: autocorrelation(parts, i) for i in (lag, lag - 1, lag + 1) if 2 <= i <= most}
        lag, value = max(near.items(), key=lambda pair: -1 if pair[1] is None else pair[1])
        peaks |= {} if value is None else {lag: value}
    peak = _nested(parts, peaks, CHANCE_OF_MANY)[-1]
    if peak > 1 and (length == 1 or 1 - peaks[peak] < MUCH_BETTER * (1 - seen[length]) - 0.01):
        length, every = peak, (peak,)
    if length == 1:
        if not seen and peaks:
            seen = dict([max(peaks.items(), key=lambda peak: peak[1])])
        values = ", ".join(f"{value:.2f} at {lag}" for lag, value in seen.items())
        why = (
            f"autocorrelation {values}" if values else f"all is constant, or no lag up to {most} comes {SEASONS} times"
        )
        return Season(1, f"season 1, the last value again: none was found ({why}); `season` chooses", (1,))
    seen = {length: (seen | peaks)[length]} | seen  # the chosen one first
    values = ", ".join(f"{value:.2f} at {lag}" for lag, value in seen.items())
    origin = "found in the data" if kind is None else f"{kind} data"
    return Season(length, f"season {length} ({origin}: autocorrelation {values}); `season` chooses", every)


def of_profile(profile: str, series: list[np.ndarray], step, most: int) -> tuple[int, ...]:
    """The seasons that a model's ``profile`` (see ``models/timer_xl.py``) names for these series.

    For "found" they are those that are usual with this step, such as a day and a week, since what may be chance is
    shrunk; where none is usual, those found in the data. Arguments as :func:`find`.
    """
    if profile == "none":
        return ()
    if profile != "found":
        return tuple(map(int, profile.split(",")))
    usual = tuple(season for season in candidates(step)[1] if 2 * season <= most)
    return usual or tuple(season for season in find(series, step, most).every if 2 <= season <= most // 2)


def candidates(step) -> tuple[str | None, list[int]]:
    """The name of data with this step (None if unknown), and their likely seasons in time steps, shortest first."""
    text = frequency(step) or ""
    if text == "1B":
        return "business-day", [5]
    if found := re.match(r"(\d+)([MQ])", text):
        months = int(found[1]) * MONTHS[found[2]]
        return CALENDAR.get(months, f"{months}-month"), [12 // months] if months < 12 and 12 % months == 0 else []
    if not isinstance(step, timedelta) and not hasattr(step, "days"):
        return None, []
    seconds = step.total_seconds() if isinstance(step, timedelta) else DAY * getattr(step, "days", 0)
    if seconds <= 0:
        return None, []
    unit, name = next((u, n) for u, n in ((DAY, "day"), (3_600, "hour"), (60, "minute"), (0, "second")) if seconds >= u)
    name = NAMES.get(seconds, f"{seconds / (unit or 1):g}-{name}")
    if seconds == 7 * DAY:
        return name, [52]
    return name, [int(span / seconds) for span in (DAY, 7 * DAY) if span % seconds == 0 and span > seconds]


class Part(NamedTuple):
    """A series, and what every lag needs of it."""

    values: np.ndarray  # [rows, C], standardised; constant columns are 0
    sums: np.ndarray  # [rows + 1, C], of the values before each row
    changes: np.ndarray  # [rows - 1, C], minus their mean

    @classmethod
    def of(cls, series: np.ndarray) -> "Part":
        """The last ``ROWS`` rows of at most ``COLUMNS`` columns of ``[rows, C]``."""
        columns = np.unique(np.linspace(0, series.shape[1] - 1, min(COLUMNS, series.shape[1])).round().astype(int))
        values = series[-ROWS:, columns].astype(np.float64)
        values, most = values - values.mean(0), np.abs(values).max(0)
        spread = values.std(0)
        varied = spread > 1e-12 * most
        values = np.where(varied, values, 0) / np.where(varied, spread, 1)
        sums, changes = np.zeros((len(values) + 1, values.shape[1])), np.diff(values, axis=0)
        np.cumsum(values, 0, out=sums[1:])
        return cls(values, sums, changes - changes.mean(0) if len(changes) else changes)


def autocorrelation(parts: list[Part], lag: int, difference: bool = False) -> float | None:
    """Autocorrelation at ``lag``, averaged over the columns of all parts, each minus its moving mean over the lag.

    Args:
        parts: those shorter than ``SEASONS`` lags, and constant columns, are left out.
        lag: in time steps.
        difference: use differences between consecutive rows instead of subtracting the moving mean.

    Returns:
        the autocorrelation; None where nothing is left.
    """
    correlations: list[float] = []
    for values, sums, changes in parts:
        if (rows := len(values)) < SEASONS * lag:
            continue
        left = changes
        if not difference:
            before = (lag - 1) // 2
            left = values[before : before + rows - lag + 1] - (sums[lag:] - sums[:-lag]) / lag
            left -= left.mean(0)
        early, late = left[:-lag], left[lag:]
        energy = np.sqrt((early * early).sum(0) * (late * late).sum(0))
        varied = energy > 1e-20 * rows  # columns are standardised: less is rounding error
        correlations += ((early * late).sum(0)[varied] / energy[varied]).tolist()
    return sum(correlations) / len(correlations) if correlations else None


def _nested(parts: list[Part], seen: dict[int, float], chance: float) -> tuple[int, ...]:
    """The shortest significant season, and each longer one that clearly improves on the one before; (1,) if none is."""
    found: list[int] = []
    for lag in sorted(seen):
        if seen[lag] < LEAST or not _beyond_chance(parts, lag, seen[lag], chance):
            continue
        if not found or (1 - seen[lag] < BETTER * (1 - seen[found[-1]]) and seen[lag] > seen[found[-1]] + 0.01):
            found.append(lag)
    return tuple(found) or (1,)


def _beyond_chance(parts: list[Part], lag: int, value: float, chance: float) -> bool:
    """Whether the autocorrelation at this lag, or that of differences, exceeds that of noise or a random walk."""
    pairs = sum(len(part.values) - 2 * lag + 1 for part in parts if len(part.values) >= SEASONS * lag)
    # a random walk minus its moving mean is about independent at distances of a quarter of the lag
    return value > chance * (lag / 4 / pairs) ** 0.5 or (autocorrelation(parts, lag, True) or 0) > chance / pairs**0.5


def _peaks(parts: list[Part], most: int) -> list[int]:
    """Lags of the highest local maxima of the autocorrelation of values and of their differences."""
    most = min(most, max(len(part.values) for part in parts) // SEASONS)
    lags_found = set()
    for kind in ("values", "changes"):
        total = np.zeros(most + 2)
        for part in parts:
            if len(part.values) < most + 3:
                continue
            values = getattr(part, kind)
            spectrum = np.fft.rfft(values, 2 * len(values), axis=0)
            total += np.fft.irfft((np.abs(spectrum) ** 2).sum(1))[: most + 2]
        lags = np.arange(2, most + 1)
        tops = lags[(total[lags] > total[lags - 1]) & (total[lags] >= total[lags + 1]) & (total[lags] > 0)]
        lags_found |= set(tops[np.argsort(-total[tops])][:PEAKS].tolist())
    return sorted(lags_found)
