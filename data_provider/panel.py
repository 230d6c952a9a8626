"""The series of one table as data to train on: which parts are trained on, validated and tested on, in which sizes."""

import hashlib
from copy import copy
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from leapcast.data_provider import seasons
from leapcast.data_provider.calendars import frequency
from leapcast.data_provider.data_loader import SCALINGS, Mixture, Series, Windows
from leapcast.data_provider.histories import History, before, short
from leapcast.models.errors import UserError
from leapcast.models.timer_xl import LEAST

LEAST_ROWS = 32  # of a series to train on
MOST_CONTEXT = 1024  # time steps, about
LEAST_PATCH, MOST_PATCH = 8, 96  # time steps
CONTEXT_PATCHES, CONTEXT_SEASONS = 16, 4  # the wanted context: the longer of both
TEST = 5  # the part for tests is at most a fifth
ROOM = 0.45  # most of a series that the context may be
ORIGINS = 4  # horizons in the part for tests, and in that for validation, where there is room
MOST_ROLLOUT = 8  # patches
SHORTENED = 0.25  # of the batches, where contexts have any length
TOLD = 3  # names of series left out


@dataclass(frozen=True)
class Shape:
    """Patch and context of a model, in time steps."""

    patch: int
    context: int


@dataclass(frozen=True)
class Sizes:
    """Lengths in time steps: the horizon, and the parts for tests (the last) and for validation (before it)."""

    horizon: int
    test: int
    val: int

    @classmethod
    def of(cls, rows: int, season: int, patch: int, asked: int | None) -> "Sizes":
        """For series of so many rows; ``asked``: the wanted horizon, which is cut where there is no room for it."""
        horizon = asked or min(max(season, 4 * patch), rows // 10)
        horizon = max(1, min(horizon, rows // 6))
        test = min(ORIGINS * horizon, max(horizon, rows // TEST))
        return cls(horizon, test, min(max(ORIGINS * horizon, rows // 10), max(horizon, rows // 6)))


def patch_of(season: int, rows: int) -> int:
    """The patch for data with this shortest season (1: none): it or a multiple, else a divisor, smaller for few rows.

    At least 16 patches must fit ``rows``, so that a context of 8 leaves room for windows to train on.
    """
    choices = [16, 8, 4, 2]
    up = season * -(-LEAST_PATCH // season)  # a multiple, where the season is short
    if season > 1:
        divisors = [d for d in range(min(up, MOST_PATCH), 1, -1) if d == up or season % d == 0]
        choices = divisors if divisors and divisors[0] >= LEAST_PATCH else choices
    choices += [patch for patch in (4, 2) if patch < choices[-1]]
    return next((patch for patch in choices if 16 * patch <= rows), choices[-1])


def context_of(every: tuple[int, ...], patch: int, rows: int, most: int = MOST_CONTEXT) -> int:
    """The context for these seasons: four of the longest of which two fit, or 16 patches; less where rows are few."""
    most = min(most, int(ROOM * rows))
    fitting = [season for season in every if 2 * season <= most]
    wanted = max(CONTEXT_PATCHES * patch, CONTEXT_SEASONS * (fitting[-1] if fitting else 1))
    return min(wanted, most) // patch * patch


class Panel:
    """Series of one table that a model is trained on variable by variable, each cut into parts in the order of time.

    Attributes:
        name, step: of the table.
        histories: the series that are long enough, without the rows held back.
        parts: their values to train on; ``borders`` as :class:`Series` has them.
        every: the seasons found before the part for tests, the shortest first; (1,) for none.
        rows: the length by which sizes are chosen, which three quarters of the series have.
        sizes: see :class:`Sizes`.
        shape: patch and context of a new model.
        short: names of the series that are too short.

    Raises:
        UserError: all series are too short, or they are of different steps.
    """

    variables = 1  # read together by a model

    def __init__(self, name: str, histories: list[History], holdout: int, horizon: int | None):
        self.name = name
        ends = [len(one.values) - holdout for one in histories]
        cut = [before(one, end) for one, end in zip(histories, ends, strict=True) if end > 0]
        usable = [one for one in cut if len(one.values) >= LEAST_ROWS]
        if not usable:
            longest = max((len(one.values) for one in histories), default=0)
            back = f" and {holdout} held back" if holdout else ""
            raise UserError(
                f"{name}: its longest series has {longest} rows: {LEAST_ROWS}{back} are needed to train on; forecast "
                "it with a model that is there (--task_name predict)"
            )
        self.step = usable[0].step
        own, *others = dict.fromkeys(frequency(one.step) or one.step for one in usable)
        if others:
            raise UserError(
                f"{name}: its series are of different steps, {own} and {others[0]}: give a table for each, and fit each"
            )
        lengths = np.array([len(one.values) for one in usable])
        self.rows = int(np.quantile(lengths, 0.25))
        longest_first = sorted(usable, key=lambda one: -len(one.values))[: seasons.COLUMNS]
        test = self.rows // TEST  # the part for tests decides nothing
        known = [one.values[: len(one.values) - test] for one in longest_first if len(one.values) > 2 * test]
        found = seasons.find(known, self.step, max(2, (self.rows - test) // seasons.SEASONS))
        self.every, self.told_season = found.every, found.told
        patch = patch_of(self.every[0], self.rows)
        self.shape = Shape(patch, context_of(self.every, patch, self.rows))
        longest = max([1, *(season for season in self.every if 2 * season <= self.shape.context)])
        self.sizes = Sizes.of(self.rows, longest, patch, horizon)
        self.histories = [replace(one, number=i) for i, one in enumerate(filter(self.fits, usable))]
        kept = {one.name for one in self.histories}
        self.short = [one.name for one in histories if one.name not in kept]
        self.parts = [self._series(one) for one in self.histories]

    def fits(self, history: History, shape: Shape | None = None, horizon: int | None = None) -> bool:
        """Whether a series has a window of this shape (default: a new model's) and horizon (a patch) for training."""
        shape = shape or self.shape
        room = len(history.values) - self.sizes.test - self.sizes.val
        return room >= shape.context + (horizon or shape.patch)

    def _series(self, history: History) -> Series:
        rows, sizes = len(history.values), self.sizes
        table = pd.DataFrame(history.values)
        split = (rows - sizes.test - sizes.val, sizes.val, sizes.test)
        return Series(self.name if history.name is None else str(history.name), table, split, self.step)

    def whole(self) -> Self:
        """A copy in which the training part is everything, and the test part is validated on."""
        made = copy(self)
        made.parts = []
        for part in self.parts:
            one = copy(part)
            one.borders = {"train": (0, len(part.values)), "val": part.borders["test"], "test": part.borders["test"]}
            made.parts.append(one)
        return made

    def until(self) -> str:
        """The last time stamp of the training part of any series, as text."""
        pairs = zip(self.histories, self.parts, strict=True)
        return str(max(one.times[part.borders["train"][1] - 1] for one, part in pairs))

    def shape_for(self, patch: int, most: int) -> Shape | None:
        """The shape for a given model, of this patch and longest context; None where the series are too short."""
        context = min(most, int(ROOM * self.rows)) // patch * patch
        shape = Shape(patch, context)
        return shape if context >= 2 * patch and any(self.fits(one, shape) for one in self.histories) else None

    def windows(self, split: str, shape: Shape, horizon: int, profile: str) -> "Sampled":
        """Windows of univariate rows, sampled by length, without the ``profile`` of a model's configuration.

        Raises:
            UserError: every series is too short.
        """
        longest = max(self.parts, key=lambda part: len(part.values))
        end = longest.borders["train"][1]
        trained = longest.values[max(0, end - shape.context) : end].numpy()
        lengths = seasons.of_profile(profile, [trained], self.step, shape.context)
        given = shape.context, horizon, "a patch", SCALINGS[1], lengths
        pairs = zip(self.histories, self.parts, strict=True)
        found = [Windows(part, split, *given) for one, part in pairs if self.fits(one, shape, horizon)]
        if not found:
            raise UserError(
                f"{self.name}: no series has room for a context of {shape.context} and {horizon} steps more"
            )
        return Sampled(found)

    def profile(self, shape: Shape) -> str:
        """The ``profile`` of a new model of this shape: the seasons found of which its context holds two."""
        return ",".join(str(season) for season in self.every if 2 <= season <= shape.context // 2) or "none"

    def rollout(self, shape: Shape) -> int:
        """Patches along whose rollouts a target of this shape is trained: of the horizon, where there is room."""
        sizes = self.sizes
        room = self.rows - sizes.test - sizes.val - shape.context
        return max(1, min(MOST_ROLLOUT, -(-sizes.horizon // shape.patch), room // (2 * shape.patch)))

    def digest(self) -> str:
        """sha256 of all values, as :meth:`Series.digest`."""
        return hashlib.sha256("".join(part.digest() for part in self.parts).encode()).hexdigest()

    def __str__(self) -> str:
        rows, columns = sum(len(one.values) for one in self.histories), self.histories[0].values.shape[1]
        text = f"{self.name}: {len(self.histories):,} series of {columns:,} columns, {rows:,} rows"
        if self.short:
            names = ", ".join(short(name) for name in self.short[:TOLD])
            text += f"; {len(self.short):,} are too short to train on ({names}{', …' * (len(self.short) > TOLD)})"
        return text


def shortened(windows: Windows, context: int) -> Windows:
    """The same windows with only the last ``context`` steps of their contexts, by which they are standardised."""
    made = copy(windows)
    made.first, made.context = windows.first + windows.context - context, context
    return made


class Sampled(Mixture):
    """Univariate windows of many series, each series drawn in proportion to the number of its windows.

    Attributes:
        epoch: windows in an epoch.
        patch: for a model that reads contexts of any length: SHORTENED of the batches have a shorter context, of at
            least two such patches. The number of its first window determines a batch. None: all have the same.
    """

    def __init__(self, parts: list[Windows], epoch: int | None = None):
        super().__init__(parts, [float(len(part) * part.values.shape[1]) for part in parts])
        self.epoch = epoch or int(self.sizes.sum())
        self.patch: int | None = None

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        if self.patch is None:
            return super().batch(index)
        random, most = np.random.default_rng(int(index[0])), self.parts[0].context // self.patch
        patches = int(random.integers(LEAST, most + 1)) if random.uniform() < SHORTENED else most
        made = copy(self)
        made.patch, made.parts = None, [shortened(part, patches * self.patch) for part in self.parts]
        return made.batch(index)

    def __len__(self) -> int:
        return self.epoch

    def evenly(self, most: int) -> Tensor:
        """The numbers of at most ``most`` evenly spaced rows."""
        total = int(self.sizes.sum())
        return torch.linspace(0, total - 1, min(most, total), dtype=torch.float64).round().long()
