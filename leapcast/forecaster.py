"""Forecasts of one's own data, past their end: what ``run.py --task_name predict`` does, for use from Python."""

import math
import secrets
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from leapcast.data_provider.histories import History, Table, told_filled
from leapcast.inputs import Item, is_series, standardise, whole
from leapcast.models.errors import UserError
from leapcast.models.inference import find_device, for_inference
from leapcast.models.layers.patches import paths, row_series, windows_together
from leapcast.utils.decoding.adaptive import AdaptiveDecoder, make_decoder
from leapcast.utils.decoding.checks import check_draft, check_rollout, check_room, check_width
from leapcast.utils.decoding.config import SpeculativeConfig, tolerance
from leapcast.utils.decoding.covariance import Calibration, calibrate, next_patch_errors
from leapcast.utils.decoding.rules import MEANS, PATHS, RULES
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.decoding.target_alone import target_alone
from leapcast.utils.io import checkpoint

QUANTILES = {"q10": 0.1, "q50": 0.5, "q90": 0.9}
CALIBRATED_ON = 1024  # rows after the first context: no spread is measured on more of the past of a series
MOST_WINDOWS = 512  # that it is measured on
MOST_ROWS = 4096  # paths that are decoded together, whatever the device


@dataclass
class Forecast:
    """What was forecast, and what the decoder did. Of a list of series values and paths are lists, one item for each.

    Attributes:
        values: as what was given: a frame of the same columns with the time stamps that follow (quantiles beside each
            column where paths were drawn), or an array ``[H]``, ``[H, C]`` or ``[B, H, C]``; of several paths their
            mean.
        paths: for ``num_samples`` S > 1: ``[S, H]`` or ``[S, H, C]``, of several series ``[B, S, H, C]``; the columns
            of frames in the order of the table, without time and id.
        statistics: see :class:`utils.speculative_decoder.Statistics`; empty without a draft.
        seed: of the noise. The same seed, data and arguments give the same paths.
    """

    values: pd.DataFrame | np.ndarray | list
    paths: np.ndarray | list | None
    statistics: Statistics
    seed: int


class SpeculativeForecaster:
    """A target, and a draft that proposes for it, applied to data as they are.

    Every series is standardised by the mean and standard deviation of the context that the target reads, column by
    column: nothing before it changes a forecast. A constant column is continued by itself.

    Args:
        target: in evaluation mode.
        draft: likewise; None runs the target alone.
        context: time steps that are read (default: as many as the target was trained with).
        batch_size: series that are decoded together.
        mode: ``point`` (means), ``sample`` (paths) or another one of ``leapcast/utils/decoding/rules``; default: paths
            where several are asked for.
        sigma: spread of a path, in standard deviations of the context; or a :class:`Calibration`; or ``calibrated``:
            from the target's errors in the last 1,024 rows (and the contexts before them) of the first series that are
            forecast, each in units of its own context.
        accept_mse_tol: default: 0.005 for means, 0 (lossless) for paths.
        seed: of the noise of every call; default: a fresh one for each, which is reported.
        k, accept_bias, max_draws, rollout, renorm_every, attention_window: see :class:`SpeculativeConfig`.
        adaptive: whether rounds propose as many patches as is expected to be quickest, k at most, perhaps none.
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
        *,
        seed: int | None = None,
        k: int = SpeculativeConfig.k,
        accept_bias: float = SpeculativeConfig.accept_bias,
        max_draws: int = SpeculativeConfig.max_draws,
        rollout: str = SpeculativeConfig.rollout,
        renorm_every: int = SpeculativeConfig.renorm_every,
        attention_window: int = SpeculativeConfig.attention_window,
        adaptive: bool = False,
    ):
        self.target, self.draft = target, draft
        self.patch_len, self.channels = target.config.input_token_len, target.config.channels
        self.context = target.config.seq_len if context is None else whole("context", context)
        if self.context % self.patch_len:
            raise UserError(
                f"a context of {self.context} must be a multiple of the checkpoint's patch, {self.patch_len}"
            )
        self.batch_size = whole("batch_size", batch_size)
        self.seed = None if seed is None else whole("seed", seed, 0)
        self.mode, self.accept_mse_tol = mode, accept_mse_tol
        self.sigma: Any = sigma
        self.options: dict[str, Any] = {
            "k": whole("k", k),
            "accept_bias": accept_bias,
            "max_draws": max_draws,
            "rollout": rollout,
            "renorm_every": renorm_every,
            "attention_window": attention_window,
        }
        self.adaptive = adaptive
        self.device = next(target.parameters()).device
        self.decoder: Any = None  # made by :meth:`prepare`
        if draft is not None:
            check_draft(target, draft)
        if target.config.stochastic_head and sigma == "calibrated":
            self.sigma = 0.5  # its learned variances are used in its place
        self.configuration(mode or MEANS, 0.5 if self.sigma == "calibrated" else self.sigma)  # refuses what is wrong

    @classmethod
    def from_pretrained(cls, target: str | Path, draft: str | Path | None = None, device: str = "auto", **options):
        """Load checkpoints: files or folders of this project, or ORGANISATION/NAME of a public model on the hub.

        Args:
            device: cpu, cuda, or auto: CUDA where there is one.
            options: see :class:`SpeculativeForecaster`.
        """
        paths = [checkpoint.find(path) for path in (target, draft) if path is not None]
        loaded: list[Any] = [for_inference(checkpoint.load(path, find_device(device))) for path in paths]
        if loaded[-1].reads_target:
            inputs = checkpoint.read(paths[-1])["training"].get("inputs", [])
            if len(paths) == 1 or checkpoint.digest(paths[0]) not in inputs:
                raise UserError(
                    f"{paths[-1]} holds heads of another target: give the one that they were distilled from"
                )
        return cls(*loaded, **options)

    def forecast(
        self,
        data,
        horizon: int,
        num_samples: int = 1,
        *,
        columns: list[str] | None = None,
        time_column: str | None = None,
        id_column: str | None = None,
        missing: str = "error",
        seed: int | None = None,
    ) -> Forecast:
        """Forecast past the end of the data.

        Args:
            data: a frame with a time column (one series of several columns or, with ``id_column``, many), a series of
                pandas with a time index, an array ``[L]``, ``[L, C]`` or ``[B, L, C]``, or a list of frames, of series
                of pandas or of arrays, which may be of different lengths.
            horizon: time steps.
            num_samples: S sample paths of each series.
            columns, time_column, id_column, missing: of frames, see :class:`data_provider.histories.Table`.
            seed: of the noise; default: that of the forecaster, or a fresh one.

        Path s is one joint future of all columns that the target reads together (``channels`` joint). Paths of
        different series, and of columns that are forecast one by one, are drawn independently of each other.

        Raises:
            UserError: what is wrong with the data, in a line.
        """
        horizon, samples = whole("horizon", horizon), whole("num_samples", num_samples)
        seed = self.seed if seed is None else whole("seed", seed, 0)
        seed = secrets.randbits(31) if seed is None else seed
        many = isinstance(data, list | tuple) and any(map(is_series, data))
        if many and id_column:
            raise UserError("a list has a series in each item: leave out `id_column`, or give one long frame")
        items = [Item.of(one, columns, time_column, id_column, missing) for one in (data if many else [data])]
        if many and any(item.dimensions == 3 for item in items):
            raise UserError("a list has a series in each item: give [L] or [L, C] for each, or one array [B, L, C]")
        for item in items:
            if item.table:
                check_names(item.table, samples)
        histories = (
            replace(history, number=number)
            for number, history in enumerate(chain.from_iterable(item.histories for item in items))
        )
        parts = [
            ([history.end() for history in batch], drawn, statistics)
            for batch, drawn, statistics in self.stream(histories, horizon, samples, seed)
        ]
        check_kinds(end for part in parts for end in part[0])
        ends, drawn = [end for part in parts for end in part[0]], np.concatenate([part[1] for part in parts])
        tell_filled(ends)
        if many:
            found = [self.shaped(items[i], ends[i : i + 1], drawn[i : i + 1]) for i in range(len(items))]
            values, own = (list(side) for side in zip(*found, strict=True))
        else:
            values, own = self.shaped(items[0], ends, drawn)
        return Forecast(values, own if samples > 1 else None, total(parts), seed)

    def shaped(self, item: "Item", histories: list[History], drawn: np.ndarray) -> tuple:
        """Values and paths as the item's form asks for them, of paths ``[series, S, H, C]``."""
        if item.table:
            return self.frame(item.table, histories, drawn), drawn if item.table.id else drawn[0]
        series = slice(None) if item.dimensions == 3 else 0
        columns = 0 if item.dimensions == 1 else slice(None)
        return average(drawn)[series, ..., columns], drawn[series, ..., columns]

    # ---------------------------------------------------------------- batches of series

    def stream(
        self, histories: Iterable[History], horizon: int, num_samples: int = 1, seed: int | None = None
    ) -> Iterator[tuple]:
        """Batches of series as they come: their histories, and what :meth:`decode` makes of them."""
        sigma = None
        for batch in batches(histories, self.batch_size):
            sigma = sigma or self.spread(batch, num_samples)
            yield batch, *self.decode(batch, horizon, num_samples, sigma, seed)

    def spread(self, histories: list[History], num_samples: int = 1) -> float | Calibration:
        """σ, or its calibration on these series, which are the first of those that are forecast."""
        if self.sigma != "calibrated":
            return self.sigma
        return self._calibration(histories) if RULES[self.mode_of(num_samples)].draws else 0.5  # means have no spread

    def mode_of(self, num_samples: int) -> str:
        mode = self.mode or (PATHS if num_samples > 1 else MEANS)
        if not RULES[mode].draws and num_samples > 1:
            raise UserError(f"{num_samples} paths of means are all the same: leave out `num_samples` or `mode` {mode}")
        return mode

    def decode(
        self,
        histories: list[History],
        horizon: int,
        num_samples: int,
        sigma: float | Calibration,
        seed: int | None = None,
    ) -> tuple[np.ndarray, Statistics]:
        """Paths ``[series, S, H, C]`` in the data's units (S is 1 in point mode), and what the decoder did."""
        if horizon < 1 or num_samples < 1:
            raise UserError(f"horizon {horizon}, {num_samples} paths: give at least 1 of each")
        for history in histories:
            self.check(history)
        check_kinds(histories)
        contexts = np.stack([history.values[-self.context :] for history in histories])
        scaled, level, scale = standardise(contexts, self.context)
        x = torch.from_numpy(scaled.astype(np.float32)).to(self.device)
        numbers = torch.tensor([history.number for history in histories], device=self.device)
        patches, statistics = self._decode(x, numbers, horizon, num_samples, sigma, seed)
        drawn = patches.cpu().double().numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            found = drawn * scale[:, None] + level[:, None]
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
                f"ones, or a smaller `context`, a multiple of {self.patch_len}"
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
        mean = average(drawn).reshape(-1, drawn.shape[3])
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

    def _decode(
        self, x: Tensor, numbers: Tensor, horizon: int, samples: int, sigma, seed: int | None
    ) -> tuple[Tensor, Statistics]:
        variables = x.shape[2]
        if self.channels == "independent":  # any number of variables, in parts that fit
            x, numbers = x.transpose(1, 2).flatten(0, 1).unsqueeze(2), row_series(numbers, self.channels, variables)
        config, steps = self.prepare(samples, sigma, x.shape[2], seed), math.ceil(horizon / self.patch_len)
        together = min(windows_together(x, self.patch_len, steps, samples), max(1, MOST_ROWS // samples))
        check_room(self.target.config, config, x, steps, samples, together)
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

    def _alone(self, x: Tensor, steps: int, numbers: Tensor, config: SpeculativeConfig, samples: int) -> Tensor:
        rows = row_series(numbers, self.channels, x.shape[2])
        patches = target_alone(self.target, config, x, steps, rows, samples)
        return paths(patches, samples, self.channels, x.shape[2])

    def prepare(
        self, samples: int, sigma: float | Calibration, variables: int, seed: int | None = None
    ) -> SpeculativeConfig:
        """How series of so many variables will be decoded; what cannot be is refused."""
        seed = seed if seed is not None else self.seed or 0
        config = self.configuration(self.mode_of(samples), sigma, seed)
        check_rollout(self.target.config, variables, config)
        if self.draft is not None and (self.decoder is None or self.decoder.config != config):
            last, pace = self.decoder, None
            if isinstance(last, AdaptiveDecoder) and (last.config.mode, last.config.k) == (config.mode, config.k):
                pace = last.pace  # prices and acceptance that were learned
            self.decoder = make_decoder(self.target, self.draft, config, self.adaptive, pace=pace)
        return config

    def configuration(self, mode: str, sigma: float | Calibration, seed: int = 0) -> SpeculativeConfig:
        allowed = tolerance(mode, self.accept_mse_tol)
        return SpeculativeConfig(mode=mode, sigma=sigma, accept_mse_tol=allowed, seed=seed, **self.options)

    @torch.inference_mode()
    def _calibration(self, histories: list[History]) -> Calibration:
        """Of the next patch, in units of the standard deviation of its context, from windows of each series.

        They end in its last ``CALIBRATED_ON`` rows. Variables that are forecast one by one share a matrix.
        """
        length, found, generator = self.context + self.patch_len, [], torch.Generator().manual_seed(0)
        each, joint = max(1, MOST_WINDOWS // len(histories)), self.channels == "joint"
        for history in histories:
            self.check(history)
            recent = torch.from_numpy(history.values[-self.context - CALIBRATED_ON :])
            if len(recent) < length:
                continue
            recent = recent.unfold(0, length, 1)  # [windows, C, length]
            count = len(recent) if joint else recent.shape[:2].numel()
            chosen = torch.randperm(count, generator=generator)[:each]
            windows = (
                recent[chosen] if joint else recent[chosen // recent.shape[1], chosen % recent.shape[1]].unsqueeze(1)
            )
            scaled, _, scale = standardise(windows.transpose(1, 2).numpy(), self.context)
            # no error is so many standard deviations of a constant context
            scaled[:, self.context :][np.broadcast_to(scale == 0, scaled[:, self.context :].shape)] = np.nan
            windows = torch.from_numpy(scaled.astype(np.float32))  # [chosen, length, C or 1]
            for part in windows.split(windows_together(windows, self.patch_len, 0)):
                found.append(next_patch_errors(self.target, part[:, : self.context], part[:, self.context :]))
        if not found:
            raise UserError(
                f"quantiles need a spread, and no series is longer than the context, {self.context}, by a patch: give "
                "`sigma` as a number, or a smaller `context`"
            )
        return Calibration(calibrate(*map(torch.cat, zip(*found, strict=True))))


def _of(history: History) -> str:
    return "" if history.name is None else f" {history.name!r}"


def check_kinds(histories: Iterable[History]) -> None:
    if len({history.values.shape[1] for history in histories}) > 1:
        raise UserError("series of different numbers of columns are not forecast together: call for each kind")


def tell_filled(histories: list[History]) -> None:
    """A warning where gaps were filled; of many series, of the first that had some."""
    gappy = [history for history in histories if history.filled]
    if gappy:
        which = f"{len(gappy)} of {len(histories)} series had gaps, the first{_of(gappy[0])}: "
        warnings.warn((which if len(histories) > 1 else "") + "; ".join(told_filled(gappy[0].filled)), stacklevel=3)


def average(drawn: np.ndarray) -> np.ndarray:
    """The mean of paths ``[B, S, H, C]``; of equal ones the same to the last bit."""
    return drawn[:, 0] + (drawn - drawn[:, :1]).mean(1)


def check_names(table: Table, num_samples: int) -> None:
    """Refuse columns that are called as quantiles beside them will be."""
    quantiles = {f"{name}_{q}" for name in table.columns for q in QUANTILES}
    doubled = quantiles & {*table.columns, table.time, table.id}
    if num_samples > 1 and doubled:
        raise UserError(f"column {doubled.pop()!r} is called as a quantile will be: rename it, or choose by `columns`")


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
