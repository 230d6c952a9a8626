"""Simple rivals of a forecast: the last season again, and the mean of the last four seasons."""

import numpy as np

SEASONS = 4  # averaged
COUNTS = ("no", "one", "two", "three", "four")


def repeated(past: np.ndarray, season: int, horizon: int, count: int = 1) -> np.ndarray:
    """The mean of the last ``count`` seasons, or of as many as there are, repeated.

    Args:
        past: ``[..., L, C]`` with L of at least a season.
        season: in time steps.
        horizon: H, in time steps.

    Returns:
        ``[..., H, C]``.
    """
    return members(past, season, horizon, count).mean(-3)


def members(past: np.ndarray, season: int, horizon: int, count: int = SEASONS) -> np.ndarray:
    """The last ``count`` seasons, each repeated: an ensemble ``[..., count, H, C]``; arguments as :func:`repeated`."""
    length = past.shape[-2]
    count = min(count, length // season)
    last = past[..., length - count * season :, :]
    seasons = last.reshape(*past.shape[:-2], count, season, past.shape[-1])
    return seasons[..., np.arange(horizon) % season, :]


def names(seasons: tuple[int, ...], length: int | None = None) -> dict[str, tuple[int, int]]:
    """The rivals at these seasons: name -> season, and how many of them are averaged.

    The seasonal naive forecast at every season, and the mean of the last four of the longest; with a past of ``length``
    time steps of as many as it holds, and no mean of one.
    """
    rivals = {f"seasonal_naive_{season}": (season, 1) for season in seasons}
    count = SEASONS if length is None else min(SEASONS, length // seasons[-1])
    return rivals | ({f"mean_of_{count}_seasons_{seasons[-1]}": (seasons[-1], count)} if count > 1 else {})


def told(name: str, span: str | None = None) -> str:
    """A rival's name in words: "seasonal naive (24)", "mean of 4 seasons (168)".

    ``span``: what a season is called, such as a week, for "mean of the last four weeks".
    """
    *words, season = name.split("_")
    last = season == "1"
    if words[0] != "mean":
        return "last value again" if last else f"seasonal naive ({season})"
    if span or last:
        return f"mean of the last {COUNTS[int(words[2])]} {span or 'value'}s"
    return f"{' '.join(words)} ({season})"
