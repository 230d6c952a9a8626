"""The season of a table that nobody told: after how many time steps its values come again."""

from datetime import timedelta
from typing import NamedTuple

import numpy as np

DAY = 86_400  # seconds
NAMES: dict[float, str] = {3_600: "hourly", DAY: "daily", 7 * DAY: "weekly"}  # data, by the seconds of a step
CALENDAR = {"B": ("business-day", 5), "M": ("monthly", 12), "Q": ("quarterly", 4)}  # by how a frequency begins
SEASONS = 3  # that a series must have for one to be seen
LEAST = 0.25  # autocorrelation of a season
CHANCE, CHANCE_OF_MANY = 2.5, 4.0  # standard deviations of noise's: of the few lags of a calendar, of the best of all
BETTER = 0.9  # a longer season leaves at most this share unexplained of what a shorter one leaves
MUCH_BETTER = 0.5  # likewise, a season that the calendar does not know and one that it does
PEAKS = 12  # that are looked at
ROWS, COLUMNS = 20_000, 32  # at most: the last rows, and columns evenly chosen


class Season(NamedTuple):
    """``length`` in time steps, 1 where there is none, and a line that says how it was found."""

    length: int
    told: str


def find(series: list[np.ndarray], step, most: int) -> Season:
    """The season of one series, or of several that are alike.

    A lag is judged by the autocorrelation of what is left without the moving mean over as many steps: it is near 1 for
    a season and near 0 for noise, a trend and a random walk. The mean over columns counts; constant ones are left out.

    Args:
        series: each ``[rows, C]``, finite.
        step: between rows: a duration, days of the calendar (with ``days``), a frequency as pandas writes it, or
            None or a number where that tells nothing. It says which lags are likely: a day and a week, seven days,
            twelve months. Where none of those is a season, or another lag is far better, peaks of the autocorrelation
            are.
        most: time steps that a season may have, those of the context.
    """
    parts = [_chosen(part) for part in series]
    kind, likely = candidates(step)
    seen = {lag: value for lag in likely if lag <= most and (value := autocorrelation(parts, lag)) is not None}
    length = _best(parts, seen, CHANCE)
    peaks: dict[int, float] = {}
    for lag in _peaks(parts, most):  # which noise may have moved
        near = {i: autocorrelation(parts, i) for i in (lag, lag - 1, lag + 1) if 2 <= i <= most}
        lag, value = max(near.items(), key=lambda pair: -1 if pair[1] is None else pair[1])
        peaks |= {} if value is None else {lag: value}
    peak = _best(parts, peaks, CHANCE_OF_MANY)
    if peak > 1 and (length == 1 or 1 - peaks[peak] < MUCH_BETTER * (1 - seen[length]) - 0.01):
        length = peak
    if length == 1:
        if not seen and peaks:
            seen = dict([max(peaks.items(), key=lambda peak: peak[1])])
        values = ", ".join(f"{value:.2f} at {lag}" for lag, value in seen.items())
        why = (
            f"autocorrelation {values}" if values else f"all is constant, or no lag up to {most} comes {SEASONS} times"
        )
        return Season(1, f"season 1, the last value again: none was found ({why}); `season` chooses")
    seen = {length: (seen | peaks)[length]} | seen  # the chosen one first
    values = ", ".join(f"{value:.2f} at {lag}" for lag, value in seen.items())
    how = "found in the data" if kind is None else f"{kind} data"
    return Season(length, f"season {length} ({how}: autocorrelation {values}); `season` chooses")


def candidates(step) -> tuple[str | None, list[int]]:
    """What such data are called, and the likely seasons in time steps, the shortest first."""
    if isinstance(step, str):
        name, length = CALENDAR.get(step[0], (None, 0))
        return name, [length] if length else []
    seconds = step.total_seconds() if isinstance(step, timedelta) else DAY * getattr(step, "days", 0)
    if seconds <= 0:
        return None, []
    unit, name = next((u, n) for u, n in ((DAY, "day"), (3_600, "hour"), (60, "minute"), (0, "second")) if seconds >= u)
    name = NAMES.get(seconds, f"{seconds / (unit or 1):g}-{name}")
    if seconds == 7 * DAY:
        return name, [52]
    return name, [int(span / seconds) for span in (DAY, 7 * DAY) if span % seconds == 0 and span > seconds]


def autocorrelation(parts: list[np.ndarray], lag: int, difference: bool = False) -> float | None:
    """Mean over columns of all parts ``[rows, C]``, each without its moving mean over ``lag`` steps.

    ``difference``: of the differences between rows in its place. Parts shorter than ``SEASONS`` lags and constant
    columns are left out; None where nothing is left.
    """
    found = []
    for part in parts:
        if len(part) < SEASONS * lag:
            continue
        if difference:
            left = np.diff(part, axis=0)
        else:
            sums = np.cumsum(np.pad(part, ((1, 0), (0, 0))), 0)
            before = (lag - 1) // 2
            left = part[before : before + len(part) - lag + 1] - (sums[lag:] - sums[:-lag]) / lag
        left = left - left.mean(0)
        early, late = left[:-lag], left[lag:]
        energy = np.sqrt((early**2).sum(0) * (late**2).sum(0))
        varied = energy > 1e-20 * len(part)  # columns are standardised: what is below is rounding
        found += ((early * late).sum(0)[varied] / energy[varied]).tolist()
    return float(np.mean(found)) if found else None


def _chosen(part: np.ndarray) -> np.ndarray:
    """The last rows of some columns, standardised; constant ones are 0."""
    columns = np.unique(np.linspace(0, part.shape[1] - 1, min(COLUMNS, part.shape[1])).round().astype(int))
    part = part[-ROWS:, columns].astype(np.float64)
    part, most = part - part.mean(0), np.abs(part).max(0)
    spread = part.std(0)
    varied = spread > 1e-12 * most
    return np.where(varied, part, 0) / np.where(varied, spread, 1)


def _best(parts: list[np.ndarray], seen: dict[int, float], chance: float) -> int:
    """The shortest season that no longer one clearly betters; 1 where no lag is one."""
    best = 1
    for lag in sorted(seen):
        if seen[lag] < LEAST or not _beyond_chance(parts, lag, seen[lag], chance):
            continue
        if best == 1 or (1 - seen[lag] < BETTER * (1 - seen[best]) and seen[lag] > seen[best] + 0.01):
            best = lag
    return best


def _beyond_chance(parts: list[np.ndarray], lag: int, value: float, chance: float) -> bool:
    """Neither noise nor a random walk has such a value at this lag, or such differences between rows."""
    pairs = sum(len(part) - 2 * lag + 1 for part in parts if len(part) >= SEASONS * lag)
    # of a random walk without its moving mean, values about a quarter of the lag apart are independent
    return value > chance * (lag / 4 / pairs) ** 0.5 or (autocorrelation(parts, lag, True) or 0) > chance / pairs**0.5


def _peaks(parts: list[np.ndarray], most: int) -> list[int]:
    """Lags at which the autocorrelation, of values or of their differences, is greater than around them."""
    most = min(most, max(len(part) for part in parts) // SEASONS)
    found = set()
    for difference in (0, 1):
        total = np.zeros(most + 2)
        for part in parts:
            if len(part) < most + 3:
                continue
            values = np.diff(part, difference, axis=0)
            spectrum = np.fft.rfft(values - values.mean(0), 2 * len(values), axis=0)
            total += np.fft.irfft((np.abs(spectrum) ** 2).sum(1))[: most + 2]
        lags = np.arange(2, most + 1)
        tops = lags[(total[lags] > total[lags - 1]) & (total[lags] >= total[lags + 1]) & (total[lags] > 0)]
        found |= set(tops[np.argsort(-total[tops])][:PEAKS].tolist())
    return sorted(found)
