"""What a forecast is put together from after decoding."""

from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from leapcast.data_provider.histories import Table
from leapcast.models.errors import UserError
from leapcast.utils.decoding.rules import RULES
from leapcast.utils.decoding.statistics import Statistics

QUANTILES = {"q10": 0.1, "q50": 0.5, "q90": 0.9}  # beside each column of a frame


def half_difference(both: Tensor, levels: int | None = None) -> Tensor:
    """(f(x) - f(-x)) / 2 of the forecasts of x and those of -x after them; quantiles change places along ``levels``."""
    one, other = both.chunk(2)
    return (one - (other if levels is None else other.flip(levels))) / 2


def uncrossed(own: np.ndarray) -> np.ndarray:
    """Quantiles ``[series, levels, H, C]``, of which none is on the wrong side of one nearer to the median."""
    own, median = own.copy(), own.shape[1] // 2
    own[:, median:] = np.maximum.accumulate(own[:, median:], 1)
    own[:, : median + 1] = np.minimum.accumulate(own[:, median::-1], 1)[:, ::-1]
    return own


def average(drawn: np.ndarray) -> np.ndarray:
    """The mean ``[B, H, C]`` of paths ``[B, S, H, C]``, exact where all paths are equal."""
    return drawn[:, 0] + (drawn - drawn[:, :1]).mean(1)


def total(parts: list[tuple]) -> Statistics:
    """The sum of the statistics, which are the last entry of each part."""
    summed = parts[0][-1].counts()
    for *_, other in parts[1:]:
        summed.add(other)
    return summed


def checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Levels of quantiles as Python's numbers, each once.

    Raises:
        UserError: one is not a number above 0 and below 1.
    """
    if not isinstance(levels, Iterable):
        raise UserError(f"quantile levels {levels!r}: give a list, such as [0.1, 0.5, 0.9], or [] for the mean only")
    for level in levels:
        if not isinstance(level, Real) or not 0 < level < 1:
            raise UserError(f"quantile level {level!r}: give numbers above 0 and below 1, such as 0.1")
    return tuple(dict.fromkeys(map(float, levels)))


def paths_for(forecaster: Any, levels: tuple[float, ...], num_samples: int) -> int:
    """How many paths a :class:`leapcast.forecaster.SpeculativeForecaster` draws for these levels and the median.

    One, a forecast of means, where the target's own quantiles have all levels between them, or where no level is asked
    for; else ``num_samples``.

    Raises:
        UserError: quantiles of a single path are asked for.
    """
    alone = forecaster.mode_of(1)
    own = () if forecaster.recorded(alone) == "none" else forecaster.target.config.levels
    if not levels:
        return num_samples if RULES[alone].draws else 1
    if own and own[0] <= min(*levels, 0.5) and max(*levels, 0.5) <= own[-1]:
        return 1
    if num_samples == 1:
        raise UserError("quantiles need several paths: give more `num_samples`, such as 100, or no quantile levels")
    return num_samples


def quantiles_of(
    drawn: np.ndarray, own: np.ndarray | None, known: tuple[float, ...], levels: tuple[float, ...]
) -> np.ndarray:
    """The point forecast (the median, or without levels the mean), and after it the quantiles at these levels.

    Args:
        drawn: paths ``[B, S, H, C]``.
        own: the target's own quantiles ``[B, H, C, known]``; None without.
        known: their levels, rising; between them quantiles are interpolated.
        levels: among ``known``, or between them, where there are own ones.

    Returns:
        ``[1 + levels, B, H, C]``.
    """
    if not levels:
        return average(drawn)[None]
    asked = [0.5, *levels]
    if own is None:
        return np.quantile(drawn, asked, axis=1)
    above = np.searchsorted(known, asked).clip(1, len(known) - 1)
    share = (np.array(asked) - np.take(known, above - 1)) / np.diff(known)[above - 1]
    return np.moveaxis(own[..., above - 1] * (1 - share) + own[..., above] * share, -1, 0)


def check_names(table: Table, spread: bool) -> None:
    """Refuse columns whose names clash with those of the quantiles in the output.

    Raises:
        UserError: there is such a column.
    """
    quantiles = {f"{name}_{q}" for name in table.columns for q in QUANTILES}
    doubled = quantiles & {*table.columns, table.time, table.id}
    if spread and doubled:
        raise UserError(f"column {doubled.pop()!r} is called as a quantile will be: rename it, or choose by `columns`")
