"""Series of libraries that number their time steps and name a frequency, as histories."""

from functools import lru_cache

import numpy as np
import pandas as pd

from leapcast.data_provider.histories import History, Table, interpolated
from leapcast.models.errors import UserError

PERIODS = 60  # that show a calendar's rule


@lru_cache
def step_of(freq: str | None) -> pd.Timedelta | pd.DateOffset | str | int | None:
    """The step (see :attr:`History.step`) of a pandas frequency of periods, such as "M"; 1 where it is unknown."""
    if freq is None:
        return 1
    times = pd.period_range("2001-01-01", periods=PERIODS, freq=freq).to_timestamp()
    return next(Table(pd.DataFrame({"date": times, "value": 0.0})).histories()).step


def as_history(number: int, name, values: np.ndarray, freq: str | None, told: str) -> History:
    """A series ``[L, C]``, whose NaN are filled by straight lines, at the ends by the nearest value.

    Its time stamps are numbers: the library knows those of the forecast. ``told``: the series' name in errors.

    Raises:
        UserError: it has no values in a column, or infinite ones.
    """
    values = np.asarray(values, np.float64)
    if np.isinf(values).any():
        raise UserError(f"{told} has infinite values: mend them")
    if np.isnan(values).all(0).any():
        raise UserError(f"{told} has no values: leave it out")
    return History(number, name, pd.RangeIndex(len(values)), step_of(freq), interpolated(values), 1.0)
