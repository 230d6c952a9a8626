"""Tables, standard splits, scaling and windows."""

import hashlib
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from leapcast.data_provider.histories import check_columns, header, told_filled
from leapcast.models.errors import UserError
from leapcast.models.layers.profile import seasonal_profile

SPLITS = ("train", "val", "test")
SCALINGS = ("training", "context")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table with one row per time step and one column per variable.

    Formats: CSV whose first column is the date; .txt and .txt.gz, comma separated without a header; .npz with an array
    ``data`` of ``[rows, variables]`` or ``[rows, variables, features]``, of which the first feature is used (PEMS).

    Raises:
        UserError: the file is missing, unreadable, or has no date column.
    """
    if not os.path.isfile(path):  # also False where a folder lacks permissions
        raise UserError(f"no data file {path}: put it there, or point --root_path (and --data_path) at it")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                values = archive["data"]
            return pd.DataFrame(values[..., 0] if values.ndim == 3 else values)
        if path.suffix == ".txt" or path.name.endswith(".txt.gz"):
            return pd.read_csv(path, header=None)
        names, table = header(path), pd.read_csv(path, index_col=0)
    except (
        ValueError,
        KeyError,
        OSError,
        EOFError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:  # pandas' parser and decoding errors are ValueErrors
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"cannot read {path} as a table ({reason}): give a CSV, .txt, .txt.gz or .npz file") from error
    check_columns(names, str(path))  # pandas would rename duplicates
    if pd.api.types.is_numeric_dtype(table.index) and table.index.name not in ("date", "time", "timestamp"):
        raise UserError(f"{path}: the first column, {table.index.name!r}, is not a date; put a date column first")
    return table


class Series:
    """A data set of C variables, standardised by the statistics of its training part.

    Attributes:
        values: ``[rows, C]`` float32, standardised.
        borders: split -> (first row, row after the last).
        filled: column -> its interpolated gaps, see :class:`data_provider.histories.Filled`.
        step: time between rows, see :class:`data_provider.histories.History`; None if unknown.

    Raises:
        UserError: values are not numeric or not finite, or there are too few rows for the split.
    """

    def __init__(self, name: str, table: pd.DataFrame, split: tuple, step=None):
        self.name, self.step = name, step
        self.filled: dict = {}
        self.columns = [str(column) for column in table.columns]
        try:
            raw = table.to_numpy(np.float64)
        except (ValueError, TypeError) as error:
            text = [c for c in table.columns if not pd.api.types.is_numeric_dtype(table[c])]
            raise UserError(f"data {name}: column {text[0]!r} is not numeric; remove or encode it") from error
        if raw.size == 0:
            raise UserError(f"data {name} has no values: a date column first, then at least one variable, is expected")
        if not np.isfinite(raw).all():
            row, column = np.argwhere(~np.isfinite(raw))[0]
            raise UserError(
                f"data {name}: {'NaN' if np.isnan(raw[row, column]) else 'infinite value'} in column "
                f"{self.columns[column]!r}, data row {row + 1}; fill or remove it"
            )
        rows = len(raw)
        if isinstance(split[0], float):
            train, test = int(rows * split[0]), int(rows * split[2])
            split = (train, rows - train - test, test)
        edges = np.cumsum([0, *split])
        if min(split) < 1:
            raise UserError(f"data {name} has {rows} rows: too few to split into training, validation and test")
        if rows < edges[-1]:
            raise UserError(f"data {name} has {rows} rows; its standard split needs {edges[-1]}")
        self.borders = {part: (int(edges[i]), int(edges[i + 1])) for i, part in enumerate(SPLITS)}
        scaler = StandardScaler().fit(raw[: edges[1]])
        self.values = torch.from_numpy(scaler.transform(raw).astype(np.float32))

    def __str__(self) -> str:
        about = f"{self.name}: {len(self.values)} rows, {self.variables} variables"
        return "\n".join([about, *told_filled(self.filled)])

    @property
    def variables(self) -> int:
        return self.values.shape[1]

    def digest(self) -> str:
        """sha256 of the standardised values, by which runs on the same data are recognised."""
        return hashlib.sha256(self.values.numpy().tobytes()).hexdigest()


def by_context(window: Tensor, context: int) -> Tensor:
    """Standardise each variable of windows ``[B, T, C]`` by its first ``context`` steps; 0 where they are constant."""
    scale, mean = torch.std_mean(window[:, :context], 1, correction=0, keepdim=True)
    varied = scale > 1e-6  # values are standardised: less is rounding error
    return torch.where(varied, (window - mean) / torch.where(varied, scale, 1), 0)


class Windows:
    """All windows of one split, each a context of L steps and a horizon of H steps after it.

    As is the convention, the horizon lies within the split, while the context of validation and test windows may begin
    in the part before.

    Args:
        by: arguments that determine the horizon, for the error message.
        scaling: ``training``: values as they are in the series; ``context``: each variable of each window is
            standardised by its own context, as user data are in forecasting.
        seasons: in time steps; the seasonal profile of the context is taken out of every window (see
            ``models/layers/profile.py``). Errors of forecasts are the same with and without it.

    Raises:
        UserError: the split is too short for one window.
    """

    def __init__(
        self,
        series: Series,
        split: str,
        context: int,
        horizon: int,
        by: str = "--test_pred_len",
        scaling: str = SCALINGS[0],
        seasons: tuple[int, ...] = (),
    ):
        first, end = series.borders[split]
        self.first = max(first, context) - context
        self.count = end - horizon - context - self.first + 1
        if self.count < 1:
            raise UserError(
                f"data {series.name}: the {split} part ends at row {end}, too short for --seq_len {context} and a "
                f"horizon of {horizon} ({by}); shorten one of them"
            )
        self.values, self.context, self.horizon = series.values, context, horizon
        self.scaling, self.seasons = scaling, seasons

    def __len__(self) -> int:
        return self.count

    def window(self, index: Tensor, variable: Tensor | None = None) -> Tensor:
        """The windows of these numbers ``[B]``, whole: ``[B, L + H, C]``; or of one ``variable`` ``[B]`` of each."""
        rows = (self.first + index).unsqueeze(1) + torch.arange(self.context + self.horizon)
        values = self.values[rows] if variable is None else self.values[rows, variable.unsqueeze(1)].unsqueeze(2)
        return by_context(values, self.context) if self.scaling == "context" else values

    def profile(self, window: Tensor) -> Tensor:
        """The seasonal profile of the contexts of whole windows, over all of their steps."""
        return seasonal_profile(window[:, : self.context], self.seasons, self.horizon).to(window.dtype)

    def batch(self, index: Tensor, variable: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`window`, without the profiles: context ``[B, L, C]``, truth ``[B, H, C]``."""
        window = self.window(index, variable)
        if self.seasons:
            window = window - self.profile(window)
        return window[:, : self.context], window[:, self.context :]

    def all(self) -> Tensor:
        """The numbers of all windows."""
        return torch.arange(self.count)

    def order(self, generator: torch.Generator) -> Tensor:
        """A random permutation of all windows, for one epoch."""
        return torch.randperm(self.count, generator=generator)

    def evenly(self, most: int | None, part: slice = slice(None)) -> Tensor:
        """The numbers of at most ``most`` evenly spaced windows (None: all) within the slice ``part``."""
        numbers = self.all()[part]
        if most is None or most >= len(numbers):
            return numbers
        return numbers[torch.linspace(0, len(numbers) - 1, most, dtype=torch.float64).round().long()]


class Mixture:
    """Univariate windows from several data sets, sampled by weight.

    Args:
        parts: windows of each data set, with equal context and horizon.
        weights: relative weight of each data set.
    """

    VALIDATION_ROWS = 4096

    def __init__(self, parts: list[Windows], weights: list[float]):
        self.parts = parts
        self.weights = torch.tensor(weights, dtype=torch.float64) / sum(weights)
        self.sizes = torch.tensor([len(part) * part.values.shape[1] for part in parts])
        self.starts = self.sizes.cumsum(0) - self.sizes

    def __len__(self) -> int:
        return int(self.sizes.sum())

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The rows (window and variable) of these numbers ``[B]``: context ``[B, L, 1]`` and truth ``[B, H, 1]``."""
        part_of = torch.searchsorted(self.starts, index, right=True) - 1
        batch: list[Tensor] = []
        for i in part_of.unique().tolist():
            rows = torch.nonzero(part_of == i).squeeze(1)
            variables = self.parts[i].values.shape[1]
            window = (index[rows] - self.starts[i]) // variables
            pair = self.parts[i].batch(window, (index[rows] - self.starts[i]) % variables)
            batch = batch or [v.new_empty(len(index), *v.shape[1:]) for v in pair]
            for values, part_values in zip(batch, pair, strict=True):
                values[rows] = part_values
        context, truth = batch
        return context, truth

    def all(self) -> Tensor:
        """Evenly spaced rows of each part, in number proportional to its weight."""
        counts = (self.weights * min(len(self), self.VALIDATION_ROWS)).round().long().clamp(min=1)
        rows = [torch.linspace(0, s - 1, c).round().long() for s, c in zip(self.sizes, counts.tolist(), strict=True)]
        return torch.cat([start + part_rows for start, part_rows in zip(self.starts, rows, strict=True)])

    def order(self, generator: torch.Generator) -> Tensor:
        """One epoch: ``len(self)`` rows drawn with replacement, parts in proportion to their weights."""
        part = torch.multinomial(self.weights, len(self), replacement=True, generator=generator)
        within = torch.rand(len(self), dtype=torch.float64, generator=generator) * self.sizes[part]
        return self.starts[part] + within.long()
