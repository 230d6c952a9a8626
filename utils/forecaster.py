"""Forecasts of one's own data, past their end: what ``run.py --task_name predict`` does, for use from Python."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from data_provider.histories import History, Table
from utils import checkpoint
from utils.covariance import Calibration, calibrate, next_patch_errors
from utils.errors import UserError
from utils.inference import find_device, for_inference
from utils.rollout import check_rollout, check_width, row_series, windows_together
from utils.speculative_decoder import (
    SpeculativeConfig,
    SpeculativeDecoder,
    Statistics,
    check_draft,
    paths,
    target_alone,
    tolerance,
)

QUANTILES = {"q10": 0.1, "q50": 0.5, "q90": 0.9}
CALIBRATED_ON = 0.2  # the last share of each history, whose patches a spread is measured on
MOST_WINDOWS = 512  # that it is measured on
MOST_ROWS = 4096  # paths that are decoded together, whatever the device


@dataclass
class Forecast:
    """What was forecast, and what the decoder did.

    Attributes:
        values: as what was given: a frame of the same columns with the time stamps that follow (quantiles beside each
            column where paths were drawn), or an array ``[H, C]`` or ``[B, H, C]``; of several paths their mean.
        paths: for arrays and ``num_samples`` S > 1: ``[S, H, C]`` or ``[B, S, H, C]``.
        statistics: see :class:`utils.speculative_decoder.Statistics`; empty without a draft.
    """

    values: pd.DataFrame | np.ndarray
    paths: np.ndarray | None
    statistics: Statistics


class SpeculativeForecaster:
    """A target, and a draft that proposes for it, applied to data as they are.

    Every series is standardised by the mean and standard deviation of its own past, column by column.

    Args:
        target: in evaluation mode.
        draft: likewise; None runs the target alone.
        context: time steps that are read (default: as many as the target was trained with).
        batch_size: series that are decoded together.
        mode: ``point`` (means), ``sample`` (paths); default: paths where several are asked for.
        sigma: spread of a path, in standard deviations of the series; or a :class:`Calibration`; or ``calibrated``:
            from the target's errors on the last fifth of the first series that are forecast.
        accept_mse_tol: default: 0.005 for means, 0 (lossless) for paths.
        options: further fields of :class:`SpeculativeConfig`.
    """

    def __init__(
        self,
        target,
        draft=None,
        context: int | None = None,
        batch_size: int = 32,
        mode: str | None = None,
        sigma: float | str | Calibration = "calibrated",
        accept_mse_tol: float | None = None,
        **options,
    ):
        self.target, self.draft = target, draft
        self.patch_len, self.channels = target.config.input_token_len, target.config.channels
        self.context, self.batch_size = context or target.config.seq_len, batch_size
        if self.context % self.patch_len:
            raise UserError(
                f"a context of {self.context} must be a multiple of the checkpoint's patch, {self.patch_len}"
            )
        self.mode, self.sigma, self.accept_mse_tol, self.options = mode, sigma, accept_mse_tol, options
        self.device, self.decoder = next(target.parameters()).device, None
        if draft is not None:
            check_draft(target, draft)
        if target.config.stochastic_head and sigma == "calibrated":
            self.sigma = 0.5  # its learned variances are used in its place

    @classmethod
    def from_pretrained(cls, target: str | Path, draft: str | Path | None = None, device: str = "auto", **how):
        """Load checkpoints: files or folders of this project, or ORGANISATION/NAME of a public model on the hub.

        Args:
            device: cpu, cuda, or auto: CUDA where there is one.
            how: see :class:`SpeculativeForecaster`.
        """
        paths = [checkpoint.find(path) for path in (target, draft) if path is not None]
        loaded = [for_inference(checkpoint.load(path, find_device(device))) for path in paths]
        if loaded[-1].reads_target:
            inputs = checkpoint.read(paths[-1])["training"].get("inputs", [])
            if len(paths) == 1 or checkpoint.digest(paths[0]) not in inputs:
                raise UserError(
                    f"{paths[-1]} holds heads of another target: give the one that they were distilled from"
                )
        return cls(*loaded, **how)

    def forecast(self, data, horizon: int, num_samples: int = 1, **layout) -> Forecast:
        """Forecast past the end of the data.

        Args:
            data: a frame with a time column (one series of several columns or, with ``id_column``, many), a series of
                pandas with a time index, or an array ``[L, C]`` or ``[B, L, C]``.
            horizon: time steps.
            num_samples: S sample paths of each series.
            layout: of a frame, see :class:`data_provider.histories.Table`.

        Raises:
            UserError: what is wrong with the data, in a line.
        """
        if not isinstance(horizon, int):
            raise UserError(f"horizon {horizon!r}: give a whole number of time steps")
        if isinstance(data, pd.Series):
            data = data.to_frame(data.name or "value")
        if isinstance(data, pd.DataFrame):
            table = Table(data, **layout)
            check_names(table, num_samples)
            parts = [
                (self.frame(table, histories, drawn), statistics)
                for histories, drawn, statistics in self.stream(table.histories(), horizon, num_samples)
            ]
            return Forecast(pd.concat([part[0] for part in parts], ignore_index=True), None, total(parts))
        try:
            values = np.asarray(data, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"data of type {type(data).__name__}: give a frame, or an array of numbers") from error
        if values.ndim not in (2, 3) or 0 in values.shape:
            raise UserError(f"data of shape {list(values.shape)}: give [L, C] (C may be 1), [B, L, C] or a frame")
        if not np.isfinite(values).all():
            raise UserError(
                "the data have NaN or infinite values: fill them, or give a frame and missing='interpolate'"
            )
        several = values if values.ndim == 3 else values[None]
        times = pd.RangeIndex(several.shape[1])
        histories = [History(i, None, times, 1, own, 1.0) for i, own in enumerate(several)]
        parts = [part[1:] for part in self.stream(histories, horizon, num_samples)]
        drawn = np.concatenate([part[0] for part in parts])
        mean = drawn.mean(1)
        drawn = drawn if num_samples > 1 else None
        if values.ndim == 2:
            mean, drawn = mean[0], drawn if drawn is None else drawn[0]
        return Forecast(mean, drawn, total(parts))

    # ---------------------------------------------------------------- batches of series

    def stream(self, histories: Iterable[History], horizon: int, num_samples: int = 1) -> Iterator[tuple]:
        """Batches of series as they come: their histories, and what :meth:`decode` makes of them."""
        sigma = None
        for batch in batches(histories, self.batch_size):
            sigma = sigma or self.spread(batch, num_samples)
            yield batch, *self.decode(batch, horizon, num_samples, sigma)

    def spread(self, histories: list[History], num_samples: int = 1) -> float | Calibration:
        """σ, or its calibration on these series, which are the first of those that are forecast."""
        if self.sigma != "calibrated":
            return self.sigma
        return self._calibration(histories) if self.mode_of(num_samples) == "sample" else 0.5  # means have no spread

    def mode_of(self, num_samples: int) -> str:
        mode = self.mode or ("sample" if num_samples > 1 else "point")
        if mode == "point" and num_samples > 1:
            raise UserError(
                f"{num_samples} paths of means are all the same: leave out --num_samples or --spec_mode point"
            )
        return mode

    def decode(
        self, histories: list[History], horizon: int, num_samples: int, sigma: float | Calibration
    ) -> tuple[np.ndarray, Statistics]:
        """Paths ``[series, S, H, C]`` in the data's units (S is 1 in point mode), and what the decoder did."""
        if horizon < 1 or num_samples < 1:
            raise UserError(f"horizon {horizon}, {num_samples} paths: give at least 1 of each")
        for history in histories:
            self.check(history)
        scaled, scalers = zip(*map(standardised, histories), strict=True)
        x = torch.stack([values[-self.context :] for values in scaled]).to(self.device)
        numbers = torch.tensor([history.number for history in histories], device=self.device)
        drawn, statistics = self._decode(x, numbers, horizon, num_samples, sigma)
        drawn = drawn.cpu().double().numpy()
        found = np.stack([own * scaler.scale_ + scaler.mean_ for own, scaler in zip(drawn, scalers, strict=True)])
        if not np.isfinite(found).all():
            bad = histories[int(np.argwhere(~np.isfinite(found))[0][0])]
            raise UserError(f"the forecast{_of(bad)} is not finite: its values are too large for this model")
        return found, statistics

    def check(self, history: History) -> None:
        """Refuse what is too short, or too wide, to be read."""
        rows, variables = history.values.shape
        if rows < self.context:
            raise UserError(
                f"the series{_of(history)} has {rows} rows: the context needs at least {self.context}; give longer "
                f"ones, or a smaller --seq_len, a multiple of {self.patch_len}"
            )
        check_width(self.channels, variables, self.context // self.patch_len)

    def frame(self, table: Table, histories: list[History], drawn: np.ndarray) -> pd.DataFrame:
        """Rows that continue the table: its columns in their order, each followed by its quantiles if S > 1."""
        horizon = drawn.shape[2]
        times = [history.ahead(horizon) for history in histories]
        others = {table.time: times[0].append(times[1:])}
        if table.id:
            others[table.id] = np.repeat([history.name for history in histories], horizon)
        place = {name: i for i, name in enumerate(table.columns)}
        mean = drawn.mean(1).reshape(-1, drawn.shape[3])
        quantiles = None
        if drawn.shape[1] > 1:
            quantiles = np.quantile(drawn, list(QUANTILES.values()), axis=1).reshape(len(QUANTILES), *mean.shape)
        columns = {}
        for name in table.all:
            if name in others:
                columns[name] = others[name]
            elif name in place:
                columns[name] = mean[:, place[name]]
                if quantiles is not None:
                    columns.update({f"{name}_{q}": quantiles[i, :, place[name]] for i, q in enumerate(QUANTILES)})
        return pd.DataFrame(columns)

    def _decode(self, x: Tensor, numbers: Tensor, horizon: int, samples: int, sigma) -> tuple[Tensor, Statistics]:
        variables = x.shape[2]
        if self.channels == "independent":  # any number of variables, in parts that fit
            x, numbers = x.transpose(1, 2).flatten(0, 1).unsqueeze(2), row_series(numbers, self.channels, variables)
        config, steps = self.prepare(samples, sigma, x.shape[2]), math.ceil(horizon / self.patch_len)
        together = min(windows_together(x, self.patch_len, steps, samples), max(1, MOST_ROWS // samples))
        parts = []
        for own, keys in zip(x.split(together), numbers.split(together), strict=True):
            if self.draft is None:
                parts.append((self._alone(own, steps, keys, config, samples), Statistics.empty(config.k)))
            else:
                parts.append(self.decoder.generate(own, steps, keys, samples))
        drawn, statistics = torch.cat([part[0] for part in parts]), total(parts)
        drawn = drawn[:, None] if samples == 1 else drawn
        if self.channels == "independent":
            drawn = drawn.squeeze(-1).unflatten(0, (-1, variables)).movedim(1, -1)
        return drawn[:, :, :horizon], statistics

    @torch.inference_mode()
    def _alone(self, x: Tensor, steps: int, numbers: Tensor, config: SpeculativeConfig, samples: int) -> Tensor:
        rows = row_series(numbers, self.channels, x.shape[2])
        patches = target_alone(self.target, config, x, steps, rows, samples)
        return paths(patches, samples, self.channels, x.shape[2])

    def prepare(self, samples: int, sigma: float | Calibration, variables: int) -> SpeculativeConfig:
        """How series of so many variables will be decoded; what cannot be is refused."""
        mode = self.mode_of(samples)
        allowed = tolerance(mode, self.accept_mse_tol)
        config = SpeculativeConfig(mode=mode, sigma=sigma, accept_mse_tol=allowed, **self.options)
        check_rollout(self.target.config, variables, config)
        if self.draft is not None and (self.decoder is None or self.decoder.config != config):
            self.decoder = SpeculativeDecoder(self.target, self.draft, config)  # it learns prices and acceptance
        return config

    @torch.inference_mode()
    def _calibration(self, histories: list[History]) -> Calibration:
        """Of the next patch, from windows that end in the last fifth of each of these series.

        Variables that are forecast one by one share a matrix.
        """
        length, found, generator = self.context + self.patch_len, [], torch.Generator().manual_seed(0)
        each = max(1, MOST_WINDOWS // len(histories))
        for history in histories:
            self.check(history)
            values, _ = standardised(history)
            first = max(0, int((1 - CALIBRATED_ON) * len(values)) - length)
            recent = values[first:].unfold(0, length, 1) if len(values) >= length else ()  # [windows, C, length]
            if not len(recent):
                continue
            joint = self.channels == "joint"
            count = len(recent) if joint else recent.shape[:2].numel()
            chosen = torch.randperm(count, generator=generator)[:each]
            windows = recent[chosen] if joint else recent[chosen // values.shape[1], chosen % values.shape[1], None]
            windows = windows.transpose(1, 2)  # [chosen, length, C or 1]
            for part in windows.split(windows_together(windows, self.patch_len, 0)):
                found.append(next_patch_errors(self.target, part[:, : self.context], part[:, self.context :]))
        if not found:
            raise UserError(
                f"quantiles need a spread, and no series is longer than the context, {self.context}, by a patch: give "
                "--spec_sigma as a number, or a smaller --seq_len"
            )
        return Calibration(calibrate(*map(torch.cat, zip(*found, strict=True))))


def _of(history: History) -> str:
    return "" if history.name is None else f" {history.name!r}"


def standardised(history: History) -> tuple[Tensor, StandardScaler]:
    """``[rows, C]``, and what undoes it."""
    scaler = StandardScaler().fit(history.values)
    return torch.from_numpy(scaler.transform(history.values).astype(np.float32)), scaler


def check_names(table: Table, num_samples: int) -> None:
    """Refuse columns that are called as quantiles beside them will be."""
    quantiles = {f"{name}_{q}" for name in table.columns for q in QUANTILES}
    doubled = quantiles & {*table.columns, table.time, table.id}
    if num_samples > 1 and doubled:
        raise UserError(f"column {doubled.pop()!r} is called as a quantile will be: rename it, or choose by --columns")


def batches(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def total(parts: list[tuple]) -> Statistics:
    """Of the last of each."""
    found = replace(parts[0][-1], accepted_patches=None)
    for *_, other in parts[1:]:
        found.add(other)
    return found
