"""Conversion of user data (frames, series, arrays) to histories, and standardisation."""

import operator
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from leapcast.data_provider.calendars import other_frequency
from leapcast.data_provider.histories import History, Table, short, told_filled
from leapcast.models.errors import UserError
from leapcast.models.layers.profile import seasonal_profile

SHORT = "skip", "error"  # what becomes of series of a long table that are too short to be forecast
REPEAT = "repeat"  # in Python also: their first values stand before them
NAMED = 5  # series listed in a message at most


@dataclass
class LeftOut:
    """The series of a table that are too short to be forecast, and therefore left out or lengthened.

    Attributes:
        least: time steps that a series must have, at least 2: one alone tells no step.
        repeat: repeat the first values of a series before it, in place of leaving it out.
        number: how many were too short so far.
        names: the ids of the first of them, at most NAMED.
        single: how many were not lengthened, for a single row tells no step.
    """

    least: int
    repeat: bool = False
    number: int = 0
    names: list = field(default_factory=list)
    single: int = 0

    def __post_init__(self):
        self.least = max(2, self.least)

    def rest(self, histories: Iterable[History]) -> Iterator[History]:
        """The series that are long enough, numbered as if there were no others.

        Raises:
            UserError: there is none.
        """
        self.number, self.names, self.single, rest = 0, [], 0, 0
        for history in histories:
            if (few := len(history.values) < self.least) and len(self.names) < NAMED:
                self.names.append(history.name)
            self.number += few
            if few and self.repeat and history.step is None:
                self.single += 1
            elif not few or self.repeat:
                yield replace(lengthened(history, self.least), number=rest)
                rest += 1
        if not rest:
            raise UserError(
                f"no series has the {self.least} rows that a forecast needs: give longer ones, or another model or "
                "`context`"
            )

    def told(self) -> str:
        """One line on them."""
        names = ", ".join(short(name) for name in self.names) + ", …" * (self.number > len(self.names))
        many = "1 series has" if self.number == 1 else f"{self.number:,} series have"
        single = " (those of one row left out)" if self.single else ""
        done = f"filled by repeating the first values{single}" if self.repeat else "left out"
        return f"{many} fewer than {self.least} rows, too few for a forecast, and {done}: {names}"


def lengthened(history: History, least: int) -> History:
    """With its first values repeated before it, where it has fewer rows than ``least``."""
    lack = least - len(history.values)
    if lack <= 0:
        return history
    return replace(history, values=np.pad(history.values, ((lack, 0), (0, 0)), "edge"), gaps=None, repeated=lack)


def series_of(table: Table, left_out: LeftOut | None) -> Iterator[History]:
    """The series of a table; those that are too short are counted by ``left_out``, or without it included."""
    return left_out.rest(table.histories(single=True)) if left_out else table.histories()


def least_rows(config, context: int) -> int:
    """Time steps that a series must have for a target of this configuration and a context of so many time steps."""
    return min(context, config.shortest) if config.any_length else context


def tell_filled(histories: list[History], level: int = 3) -> None:
    """Warn where gaps were filled; for several series, with the details of the first that had gaps.

    ``level``: as ``stacklevel`` of :func:`warnings.warn`.
    """
    gappy = [history for history in histories if history.filled]
    if gappy:
        name = "" if gappy[0].name is None else f" {gappy[0].name!r}"
        which = f"{len(gappy)} of {len(histories)} series had gaps, the first{name}: "
        told = "; ".join(told_filled(gappy[0].filled))
        warnings.warn((which if len(histories) > 1 else "") + told, stacklevel=level)


def tell_frequency(trained_step, histories: list[History], told: list[str], level: int = 3) -> None:
    """Warn of series of another frequency than the target was trained on; ``told``: what was said of earlier ones."""
    for other in dict.fromkeys(other_frequency(trained_step, history.step) for history in histories):
        if other and other not in told:
            told.append(other)
            warnings.warn(other, stacklevel=level)


@dataclass
class Item:
    """One input to be forecast: a frame, a pandas series or an array.

    Attributes:
        histories: its series.
        table: set if the input is a frame or a pandas series.
        dimensions: number of dimensions if the input is an array, else 0.
    """

    histories: Iterable[History]
    table: Table | None = None
    dimensions: int = 0

    @classmethod
    def of(cls, data, columns, time_column, id_column, missing: str) -> "Item":
        """Convert a frame, a pandas series, or an array ``[L]``, ``[L, C]`` or ``[B, L, C]``.

        The other arguments are for frames, see :class:`data_provider.histories.Table`.

        Raises:
            UserError: the data are of another type or shape, or not finite.
        """
        if isinstance(data, pd.Series):
            data = data.to_frame("value" if data.name is None else data.name)
        if isinstance(data, pd.DataFrame):
            table = Table(data, columns, time_column, id_column, missing)
            return cls(table.histories(), table)
        if columns or time_column or id_column or missing != "error":
            raise UserError("`columns`, `time_column`, `id_column` and `missing` are of frames: leave them out")
        data = data.detach().cpu() if isinstance(data, Tensor) else data
        try:
            values = np.asarray(data)
            if np.ma.is_masked(data):
                raise UserError("the data have masked values: fill them, or give a frame and `missing` interpolate")
            values = values.astype(np.float64, casting="unsafe" if values.dtype == object else "same_kind")
        except (TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"data of type {type(data).__name__}: give a frame, or an array of numbers") from error
        if values.ndim not in (1, 2, 3) or 0 in values.shape:
            raise UserError(f"data of shape {list(values.shape)}: give [L], [L, C], [B, L, C] or a frame")
        if not np.isfinite(values).all():
            raise UserError(
                "the data have NaN or infinite values: fill them, or give a frame and `missing` interpolate"
            )
        if values.ndim == 2 and values.shape[1] > values.shape[0]:
            rows, columns = values.shape
            warnings.warn(
                f"an array [{rows}, {columns}] is {columns} columns of {rows} time steps: transpose it, or give a list "
                f"of {rows} arrays, if it is {rows} series of {columns}",
                stacklevel=4,
            )
        several = values.reshape(1, -1, 1) if values.ndim == 1 else values[None] if values.ndim == 2 else values
        times = pd.RangeIndex(several.shape[1])
        return cls([History(i, None, times, 1, one, 1.0) for i, one in enumerate(several)], None, values.ndim)


def is_series(data) -> bool:
    """Whether an item of a list is a whole series rather than a number or a row of numbers."""
    return isinstance(data, pd.DataFrame | pd.Series) or (isinstance(data, np.ndarray | Tensor) and data.ndim > 0)


def whole(name: str, value, least: int = 1) -> int:
    """``value``, an integer of any library, as a Python int; ``name`` is the argument's name in errors.

    Raises:
        UserError: it is not an integer, is below ``least``, or does not fit 64 bits.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not least <= number < 2**63:
        most = " and below 2^63" if number is not None and number >= 2**63 else ""
        raise UserError(f"`{name}` {value!r}: give a whole number of at least {least}{most}")
    return number


def batches(items: Iterable, size: int) -> Iterator[list]:
    """Consecutive lists of ``size`` items, the last perhaps shorter."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def standardise(windows: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardise each column of each window by the mean and standard deviation of its context.

    Args:
        windows: ``[B, T, C]`` float64, of which the first ``context`` time steps are the context.
        context: time steps.

    Returns:
        the standardised windows ``[B, T, C]``, 0 where the context is constant; mean and standard deviation, each
        ``[B, 1, C]``.
    """
    first = windows[:, :1]
    with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are refused in the result
        change = windows - first  # avoids cancellation where values are large and vary little
        # scaling by a power of two is exact, and keeps squares from underflow and overflow
        unit = np.ldexp(1.0, np.frexp(np.abs(change[:, :context]).max(1, keepdims=True))[1] - 1)
        change = change / unit
        mean, scale = (np.asarray(f(change[:, :context], axis=1, keepdims=True)) for f in (np.mean, np.std))
        scaled = np.divide(change - mean, scale, out=np.zeros_like(change), where=scale > 0)
    return scaled, first + mean * unit, scale * unit


def standardise_together(contexts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """:func:`standardise` of contexts ``[L, C]``, whose lengths may differ: NaN stands before the shorter ones."""
    longest = max(map(len, contexts))
    if min(map(len, contexts)) == longest:
        return standardise(np.stack(contexts), longest)
    each = [standardise(one[None], len(one)) for one in contexts]
    scaled = np.full((len(contexts), longest, contexts[0].shape[1]), np.nan)
    for row, (values, _, _) in zip(scaled, each, strict=True):
        row[longest - values.shape[1] :] = values[0]
    level, scale = (np.concatenate([one[i] for one in each]) for i in (1, 2))
    return scaled, level, scale


def profiles_of(scaled: np.ndarray, read: list[tuple[int, tuple[int, ...]]], steps: int) -> np.ndarray:
    """:func:`profile_of` of windows that each read so many of the last time steps, with seasons of their own."""
    context = scaled.shape[1]
    profile = np.zeros((len(scaled), context + steps, scaled.shape[2]))
    for length, seasons in dict.fromkeys(read):
        rows = [i for i, one in enumerate(read) if one == (length, seasons)]
        profile[rows, context - length :] = profile_of(scaled[rows, context - length :], length, seasons, steps)
    return profile


def profile_of(scaled: np.ndarray, context: int, seasons: tuple[int, ...], steps: int) -> np.ndarray:
    """The seasonal profile of the context of standardised windows ``[B, T, C]``: ``[B, context + steps, C]``."""
    return seasonal_profile(torch.from_numpy(scaled[:, :context]), seasons, steps).numpy()
