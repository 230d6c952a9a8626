"""What a forecast is put together from after decoding."""

import numpy as np
from torch import Tensor

from leapcast.data_provider.histories import Table
from leapcast.models.errors import UserError

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


def check_names(table: Table, spread: bool) -> None:
    """Refuse columns whose names clash with those of the quantiles in the output.

    Raises:
        UserError: there is such a column.
    """
    quantiles = {f"{name}_{q}" for name in table.columns for q in QUANTILES}
    doubled = quantiles & {*table.columns, table.time, table.id}
    if spread and doubled:
        raise UserError(f"column {doubled.pop()!r} is called as a quantile will be: rename it, or choose by `columns`")
