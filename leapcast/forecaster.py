"""Python interface for forecasting past the end of user data, as ``run.py --task_name predict`` does."""

import math
import secrets
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from leapcast.backtest import Backtest
from leapcast.data_provider import seasons
from leapcast.data_provider.histories import History, Table
from leapcast.inputs import (
    Item,
    batches,
    is_series,
    least_rows,
    profile_of,
    profiles_of,
    standardise,
    standardise_together,
    tell_filled,
    tell_frequency,
    whole,
)
from leapcast.long_frames import predict_frame
from leapcast.models import FREE, MODELS, UNTRAINED, is_itself
from leapcast.models.errors import UserError, flagged
from leapcast.models.inference import find_device, for_inference, weights
from leapcast.models.layers.patches import CPU_TOKENS, joined, padded, paths, quantiles, row_series, windows_together
from leapcast.models.self_draft import self_draft
from leapcast.outputs import QUANTILES, average, check_names, half_difference, total, uncrossed
from leapcast.utils.analysis.backtest import ORIGINS, add
from leapcast.utils.decoding.adaptive import AdaptiveDecoder, make_decoder
from leapcast.utils.decoding.checks import check_draft, check_rollout, check_room, check_width
from leapcast.utils.decoding.config import SpeculativeConfig, tolerance
from leapcast.utils.decoding.covariance import Calibration, calibrate, next_patch_errors
from leapcast.utils.decoding.plan import ADAPTIVE, LARGE, Case, Decision, Machine, Plan, candidates, decide
from leapcast.utils.decoding.rules import MEANS, PATHS, RULES
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.decoding.target_alone import target_rollout
from leapcast.utils.io import calibrations, checkpoint, plans

OPTIONS = "flip_invariance", "nonnegative", "fix_quantile_crossing", "long_head_quantiles"
CALIBRATED_ON = 1024  # last rows of a series on whose errors σ is calibrated
MOST_WINDOWS = 512  # windows used for calibration, over all series
FEW_WINDOWS = 64  # of a LARGE target
PATIENCE = 2  # rounds without an accepted proposal before a series is left to the target, where nothing was measured
UNMEASURED = 0.5  # σ in standard deviations of the context, where errors cannot be measured
AHEAD = 16  # batches read before the first is forecast, of which σ is calibrated on the longest series
WORTH = 1.3  # patches per pass below which speculation is told to have cost time
MOST_ROWS = 4096  # paths decoded together at most, on any device


class NoSpread(UserError):
    """All series are too short for the target's errors to be measured on them."""


@dataclass
class Forecast:
    """A forecast and the decoder's statistics. For a list of series, values and paths are lists with one item each.

    Attributes:
        values: in the form of the input: a frame of the same columns with the time stamps that follow (with quantiles
            after each column if several paths were drawn), or an array ``[H]``, ``[H, C]`` or ``[B, H, C]``; the mean
            if several paths were drawn.
        paths: for ``num_samples`` S > 1: ``[S, H]`` or ``[S, H, C]``, or ``[B, S, H, C]`` for several series; columns
            of a frame are in the order of the table, without time and id. Otherwise None.
        quantiles: for one forecast by a target that has quantiles of its own, these, with one more dimension than
            ``paths`` without S, at ``levels``: ``[H, levels]``, ``[H, C, levels]`` or ``[B, H, C, levels]``; a frame
            has some of them, as after paths. Otherwise None.
        levels: of the quantiles, such as 0.1.
        statistics: see :class:`utils.decoding.statistics.Statistics`; empty without a draft.
        seed: seed of the noise. The same seed, data, arguments and plan give the same paths.
        plan: the draft and K that were used, and why, in one line as text; None unless ``adaptive`` is stored.
        report: with ``report=True``, the backtest (see :func:`utils.analysis.backtest.record`), for JSON; its ``line``
            tells the result.
    """

    values: pd.DataFrame | np.ndarray | list
    paths: np.ndarray | list | None
    statistics: Statistics
    seed: int
    plan: Decision | None = None
    report: dict | None = None
    quantiles: np.ndarray | list | None = None
    levels: tuple[float, ...] = ()


class SpeculativeForecaster:
    """Forecasts by a target model with a draft model, applied to user data in their own units.

    Each column of each series is standardised by the mean and standard deviation of its context; earlier values do not
    affect the forecast. A constant column is continued by its value.

    Args:
        target: target model in evaluation mode.
        draft: draft model in evaluation mode; the name of one that needs no training (``self`` for self-drafting,
            ``long_head`` for a target with such a head); None runs the target alone.
        context: time steps of the context (default: as in the target's training). A target of any length
            (``any_length`` of its configuration) reads shorter series whole, down to two patches, or to one value where
            it knows padding.
        batch_size: series decoded together.
        mode: ``point`` (means), ``coupled`` (paths near the target's own), ``sample`` (paths with the target's own
            distribution), or another acceptance rule of ``leapcast/utils/decoding/rules``; default: coupled if
            ``num_samples`` > 1, else point.
        sigma: standard deviation of a sample path, in standard deviations of the context; or a :class:`Calibration`;
            or ``calibrated``: estimated from the target's errors on the last 1,024 rows (and the contexts before them)
            of the first batch of series, each in units of its context.
        accept_mse_tol: tolerance of acceptance; default: 0.005, or 0 (lossless) in mode ``sample``.
        season: self-drafting: the season in time steps (default: found in the first batch of series).
        seed: seed of the noise of every call; default: a new one per call, reported in the forecast.
        k: patches proposed per round; None: see :meth:`SpeculativeConfig.most`.
        sigma_mode, target_acceptance, sigma_min, sigma_max, accept_bias, max_draws, rollout, renorm_every,
            attention_window: see :class:`SpeculativeConfig`; adaptive sigma begins each series at ``sigma``.
        adaptive: ``stored``: each call chooses, before it begins, between the draft, self-drafting and the target
            alone, from the stored speed-ups of ``plan`` or a prior (see :mod:`utils.decoding.plan`); ``online``: the
            number of proposals of each round (0 to k) follows what is measured meanwhile; ``off``: the draft is used.
        plan: a ``plan.json``, or a record of ``predict`` that holds its plan, in place of what is stored; or a
            :class:`utils.decoding.plan.Plan`.
        flip_invariance: forecast x and -x together and give (f(x) - f(-x)) / 2, for means; None: as the target's public
            code does (TimesFM: True), else False.
        nonnegative: where no value of a column's context is below 0, raise the forecast to 0; None: as above.
        fix_quantile_crossing: of a target's own quantiles, raise those above the median, and lower those below it, to
            the one before.
        long_head_quantiles: take them from the target's long head, moved to the median of the rollout, up to its
            length.

    Raises:
        UserError: an argument is invalid, or the draft does not fit the target.
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
        k: int | None = SpeculativeConfig.k,
        sigma_mode: str = SpeculativeConfig.sigma_mode,
        target_acceptance: float = SpeculativeConfig.target_acceptance,
        sigma_min: float = SpeculativeConfig.sigma_min,
        sigma_max: float = SpeculativeConfig.sigma_max,
        accept_bias: float = SpeculativeConfig.accept_bias,
        max_draws: int = SpeculativeConfig.max_draws,
        rollout: str = SpeculativeConfig.rollout,
        renorm_every: int = SpeculativeConfig.renorm_every,
        attention_window: int = SpeculativeConfig.attention_window,
        adaptive: str = "stored",
        plan: str | Path | Plan | None = None,
        season: int | None = None,
        flip_invariance: bool | None = None,
        nonnegative: bool | None = None,
        fix_quantile_crossing: bool = False,
        long_head_quantiles: bool = False,
    ):
        if adaptive not in ADAPTIVE:
            raise UserError(f"`adaptive` {adaptive!r}: give {', '.join(ADAPTIVE)}")
        if mode is not None and mode not in RULES:
            raise UserError(f"`mode` {mode!r}: give {' or '.join(RULES)}")
        if isinstance(draft, str) and draft not in FREE:
            names = ", ".join(map(repr, FREE))
            raise UserError(
                f"`draft` {draft!r}: give a model, one of {names}, or None; from_pretrained loads checkpoints"
            )
        self.target, self.draft = target, draft
        self.season = None if season is None else whole("season", season)
        self.patch_len, self.channels = target.config.input_token_len, target.config.channels
        self.asked_context = context is not None
        self.context = target.config.context if context is None else whole("context", context)
        if self.context % self.patch_len and not target.config.pads:
            raise UserError(
                f"a context of {self.context} must be a multiple of the checkpoint's patch, {self.patch_len}"
            )
        self.batch_size = whole("batch_size", batch_size)
        self.seed = None if seed is None else whole("seed", seed, 0)
        self.mode, self.accept_mse_tol = mode, accept_mse_tol
        self.sigma: Any = sigma
        self.options: dict[str, Any] = {
            "k": None if k is None else whole("k", k),
            "sigma_mode": sigma_mode,
            "target_acceptance": target_acceptance,
            "sigma_min": sigma_min,
            "sigma_max": sigma_max,
            "accept_bias": accept_bias,
            "max_draws": max_draws,
            "rollout": rollout,
            "renorm_every": renorm_every,
            "attention_window": attention_window,
        }
        given = {"flip_invariance": flip_invariance, "nonnegative": nonnegative}
        usual = getattr(target, "usual", {})
        self.flip, self.nonnegative = (usual.get(name, False) if on is None else on for name, on in given.items())
        self.fix_quantile_crossing, self.long_head_quantiles = fix_quantile_crossing, long_head_quantiles
        given |= {"fix_quantile_crossing": fix_quantile_crossing, "long_head_quantiles": long_head_quantiles}
        for name, on in given.items():
            if not isinstance(on, bool | None):
                raise UserError(f"`{name}` {on!r}: give True or False")
        if (fix_quantile_crossing or long_head_quantiles) and not target.config.levels:
            raise UserError("`fix_quantile_crossing` and `long_head_quantiles` are for targets with own quantiles")
        # asked for by the caller, and without effect on sample paths
        self.of_means = [name for name, on in given.items() if on and name != "nonnegative"]
        self.adaptive = adaptive
        self.stored = plan if isinstance(plan, Plan) else Plan() if plan is None else plans.pinned(plan)
        self.data: str | None = None  # the name of the data set, where it is known
        self.trained_step: str | list | None = None  # of the target's training data, see calendars.other_frequency
        self.trained_until: str | None = None  # its last time stamp, where that may be later than a backtest's origin
        self.source: tuple[str, bool] = ("", True)  # sha256 of the draft; whether it was distilled from this target
        self.itself: Any = draft if is_itself(draft) else None
        self.drafting = draft  # what is used, see :meth:`choose`
        self.k: int | None = self.options["k"]
        self.amp = "off"
        self.device = next(target.parameters()).device
        self.plan: Decision | None = None
        self.decoder: Any = None  # made by :meth:`prepare`, for this draft:
        self.drafted: Any = None
        if isinstance(draft, str) and not MODELS[draft].suits(target.config):
            raise UserError(f"`draft` {draft}: the target has no long head; give {UNTRAINED!r}")
        if draft is not None and not isinstance(draft, str):
            check_draft(target, draft)
        if target.config.stochastic_head and sigma == "calibrated":
            self.sigma = 0.5  # unused: the head's learned variances apply
        self.configuration(mode or MEANS, 0.5 if self.sigma == "calibrated" else self.sigma)  # validates the arguments

    @classmethod
    def from_pretrained(cls, target: str | Path, draft: str | Path | None = "auto", device: str = "auto", **options):
        """Load checkpoints: files or folders of this project, or ORGANISATION/NAME of a public model on the hub.

        A model folder comes with its calibration of sample paths and its plan.

        Args:
            target: path or name.
            draft: path or name; ``self`` or ``long_head`` (see :class:`SpeculativeForecaster`), for which nothing is
                trained; None runs the target alone; ``auto``: the draft of a model folder, as ``fit`` makes it, else
                the long head where the target has one, else self-drafting.
            device: ``cpu``, ``cuda``, or ``auto`` (CUDA if available).
            options: see :class:`SpeculativeForecaster`.

        Raises:
            UserError: a checkpoint cannot be read, or the draft is not for this target.
        """
        auto = draft == "auto"
        draft = checkpoint.own_draft(target) if auto else draft
        trained = () if draft in (None, *FREE) else (draft,)
        paths = [checkpoint.find(path) for path in (target, *trained)]
        contents = [checkpoint.read(path) for path in paths]
        loaded: list[Any] = [for_inference(checkpoint.build(content, find_device(device))) for content in contents]
        training = [content["training"] for content in contents]
        del contents  # of large models: the weights are packed
        digests = [checkpoint.digest(path) for path in paths]
        related = bool(trained) and digests[0] in training[-1].get("inputs", [])
        if trained and loaded[-1].reads_target and not related:
            raise UserError(f"{paths[-1]} holds heads of another target: give the one that they were distilled from")
        if not trained:
            loaded.append(loaded[0].draft_itself if auto else draft)
        plan = options.pop("plan", None)
        if plan is None:
            plan, ignored = plans.stored(paths[0], digests[0])
            for line in ignored:
                warnings.warn(flagged(line), stacklevel=2)
        elif not isinstance(plan, Plan):
            plan = plans.pinned(plan, digests[0])
        made = cls(*loaded, plan=plan, **options)
        made.source = digests[-1], related
        if made.sigma == "calibrated" and made.context == made.target.config.context:
            made.sigma = calibrations.stored(target, made.patch_len) or made.sigma
        made.trained_step, made.trained_until = training[0]["step"], training[0]["until"]
        return made

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
        report: bool = False,
        backtest: int = ORIGINS,
    ) -> Forecast:
        """Forecast past the end of the data.

        Args:
            data: a frame with a time column (one series of several columns or, with ``id_column``, many series), a
                pandas series with a time index, an array ``[L]``, ``[L, C]`` or ``[B, L, C]``, or a list of frames,
                pandas series or arrays, whose lengths may differ.
            horizon: H, in time steps.
            num_samples: S, sample paths per series.
            columns, time_column, id_column, missing: for frames, see :class:`data_provider.histories.Table`.
            seed: seed of the noise; default: that of the forecaster, or a new one.
            report: whether to measure how good such forecasts were at past origins, beside simple rivals (of many
                series: of the first 1,000), which takes as long as so many more forecasts.
            backtest: with ``report``, the number of these origins.

        Data of another frequency than the target was trained on are warned of.

        With ``channels`` joint, a path is a joint sample of all columns. Paths of different series, and of columns that
        are forecast independently, are drawn independently.

        Raises:
            UserError: the data or an argument is invalid; the message is one line.
        """
        horizon, samples = whole("horizon", horizon), whole("num_samples", num_samples)
        backtest = whole("backtest", backtest) if report else 0
        seed = self.seeded(seed)
        many = isinstance(data, list | tuple) and any(map(is_series, data))
        if many and id_column:
            raise UserError("a list has a series in each item: leave out `id_column`, or give one long frame")
        items = [Item.of(one, columns, time_column, id_column, missing) for one in (data if many else [data])]
        if many and any(item.dimensions == 3 for item in items):
            raise UserError("a list has a series in each item: give [L] or [L, C] for each, or one array [B, L, C]")
        for item in items:
            if item.table:
                check_names(item.table, self.spreads(samples))
        histories = (
            replace(history, number=number)
            for number, history in enumerate(chain.from_iterable(item.histories for item in items))
        )
        parts: list[tuple] = []
        told: list[str] = []
        test, sums = None, None
        for batch, drawn, statistics in self.stream(histories, horizon, samples, seed):
            check_kinds([*(parts[0][0][:1] if parts else ()), *batch])
            tell_frequency(self.trained_step, batch, told)
            if backtest:
                test = test or Backtest.of(self, batch, horizon, samples, backtest, seed)
                more = test.sums(self, batch)
                sums = more if sums is None else add(sums, more)
            parts.append(([history.end() for history in batch], drawn, statistics))
        ends, drawn = [end for part in parts for end in part[0]], np.concatenate([part[1] for part in parts])
        tell_filled(ends)
        counts = total(parts)
        self.tell_cost(counts)
        known = [part[2].quantiles for part in parts]
        own = None if known[0] is None else np.concatenate(known)
        if many:
            each = [slice(i, i + 1) for i in range(len(items))]
            shaped = [
                self.shaped(item, ends[i], drawn[i], None if own is None else own[i])
                for item, i in zip(items, each, strict=True)
            ]
            values, sampled, deciles = (list(side) for side in zip(*shaped, strict=True))
        else:
            values, sampled, deciles = self.shaped(items[0], ends, drawn, own)
        names = items[0].table.columns if items[0].table else [str(i) for i in range(parts[0][1].shape[-1])]
        found = test.record(sums, names) if test and sums else None
        levels = () if own is None else self.target.config.levels
        drawn_paths = sampled if samples > 1 else None
        return Forecast(values, drawn_paths, counts, seed, self.plan, found, deciles if levels else None, levels)

    def predict_df(
        self,
        df: pd.DataFrame,
        prediction_length: int,
        quantile_levels: Sequence[float] = (0.1, 0.5, 0.9),
        id_column: str | None = "item_id",
        timestamp_column: str = "timestamp",
        target: str | Sequence[str] = "target",
        *,
        batch_size: int | None = None,
        num_samples: int = 100,
        short: str = "skip",
        missing: str = "error",
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Forecast the series of a long frame, called as Chronos' ``predict_df`` is.

        Args:
            df: one row for each series and time stamp, in any order; series may differ in length. Columns that are not
                named here are not read.
            prediction_length: H, in time steps.
            quantile_levels: each above 0 and below 1; without any, only the mean is forecast.
            id_column: None for a frame of one series.
            timestamp_column: dates or whole numbers, with a regular step in each series.
            target: the column to forecast, or a list of several.
            batch_size: series decoded together; default: that of the forecaster.
            num_samples: sample paths whose quantiles are given. A target with quantiles of its own gives these, between
                its levels by linear interpolation, where all levels lie within its own; else paths are drawn from it,
                too.
            short: series of fewer rows than the target needs (see ``context``) are left out with one warning (skip),
                refused (error), or lengthened with one warning (repeat): their first values stand before them.
            missing: see :class:`data_provider.histories.Table`.
            seed: seed of the noise; default: that of the forecaster, or a new one.

        Returns:
            H rows for each series and target column, series in the order of their first rows: the id, the time stamp,
            ``target_name``, ``predictions`` (the median, or without levels the mean), and a column for each level,
            named as in "0.1". Where paths are drawn with a calibrated spread, and all series are too short to measure
            it, it is 0.5 standard deviations of each context, and a warning says so.

        Raises:
            UserError: the frame or an argument is invalid, or all series are too short.
        """
        columns = [target] if isinstance(target, str) else list(target)
        return predict_frame(
            self,
            df,
            prediction_length,
            id_column,
            timestamp_column,
            columns,
            quantile_levels,
            num_samples,
            batch_size,
            short,
            missing,
            self.seeded(seed),
        )

    def seeded(self, seed: int | None) -> int:
        """The seed of a call: the given one, else the forecaster's, else a new one."""
        seed = self.seed if seed is None else whole("seed", seed, 0)
        return secrets.randbits(31) if seed is None else seed

    def tell_cost(self, counts: Statistics, level: int = 3) -> None:
        """Warn where speculation has probably cost time; ``level``: as ``stacklevel`` of :func:`warnings.warn`."""
        passes = counts.patches_per_target_pass
        if self.plan and self.plan.draft and not self.plan.figures and passes is not None and passes < WORTH:
            warnings.warn(
                f"speculation has probably cost time: {passes:.2f} patches per pass of the target, and no figure is "
                "stored for this machine; draft=None runs the target alone, and `leapcast measure` tells what pays",
                stacklevel=level,
            )

    def shaped(self, item: "Item", histories: list[History], drawn: np.ndarray, own: np.ndarray | None) -> tuple:
        """Values, paths and own quantiles in the form of the input, from paths ``[series, S, H, C]`` and ``own``."""
        if item.table:
            frame = self.frame(item.table, histories, drawn, own)
            return frame, *(part if part is None or item.table.id else part[0] for part in (drawn, own))
        series = slice(None) if item.dimensions == 3 else 0
        columns = 0 if item.dimensions == 1 else slice(None)
        values, sampled = average(drawn)[series, ..., columns], drawn[series, ..., columns]
        return values, sampled, None if own is None else own[series, :, columns]

    # ---------------------------------------------------------------- batches of series

    def stream(
        self,
        histories: Iterable[History],
        horizon: int,
        num_samples: int = 1,
        seed: int | None = None,
        batch_size: int | None = None,
        always: bool = False,
    ) -> Iterator[tuple]:
        """Forecast series in batches; yields the histories, paths and statistics (see :meth:`decode`) per batch.

        σ, season and draft are found on the first batch. ``always``: on the longest series of the first AHEAD batches;
        and where none of them tells a σ, it is UNMEASURED, and a warning says so.

        Raises:
            UserError: see :meth:`decode`; or σ is to be calibrated, and the series are too short.
        """
        size = batch_size or self.batch_size
        parts = batches(histories, size)
        first = list(islice(parts, AHEAD if always else 1))
        if not first:
            return
        known = first[0]
        if always:
            ahead = chain.from_iterable(first)
            known = sorted(ahead, key=lambda history: history.repeated - len(history.values))[:size]
        try:
            sigma = self.spread(known, num_samples)
        except NoSpread as error:
            if not always:
                raise
            sigma = UNMEASURED
            read = sum(map(len, first))
            told = f"σ {sigma} standard deviations of each context is assumed, after reading {read:,} series: {error}"
            warnings.warn(told, stacklevel=4)
        self.choose(known, horizon, num_samples, sigma)
        for batch in chain(first, parts):
            yield batch, *self.decode(batch, horizon, num_samples, sigma, seed)

    def draft_itself(self, histories: list[History], name: str = UNTRAINED, season: int | None = None) -> Any:
        """The draft of this name, one that needs no training; or a given one.

        ``season``: where it is known; else the given one, or that of these series.
        """
        if self.itself is not None and name == UNTRAINED:
            return self.itself
        values = [history.values for history in histories]
        context = min(self.context, max(map(len, values))) if self.target.config.any_length else self.context
        season = season or self.season
        season = season or min(seasons.find(values, histories[0].step, self.context).length, context)
        return self_draft(self.target.config, context, season, kind=MODELS[name].Model)

    def spreads(self, num_samples: int) -> bool:
        """Whether a forecast has quantiles: of several paths, or the target's own."""
        return num_samples > 1 or self.recorded(self.mode_of(num_samples)) != "none"

    def recorded(self, mode: str) -> str:
        """Which of the target's own quantiles are recorded in this mode, see :class:`SpeculativeConfig`."""
        if not self.target.config.levels or RULES[mode].draws:
            return "none"
        return "long" if self.long_head_quantiles else "own"

    def flips(self, num_samples: int) -> bool:
        """Whether x and -x are forecast together, for means."""
        return self.flip and not RULES[self.mode_of(num_samples)].draws

    def choose(
        self,
        histories: list[History],
        horizon: int,
        num_samples: int,
        sigma: float | Calibration,
        made: Decision | None = None,
        count: int | None = None,
    ) -> Decision | None:
        """Choose the draft and K for forecasts like those of these series, the first batch, and use them.

        Args:
            histories, horizon, num_samples, sigma: see :meth:`decode`.
            made: a decision of an earlier run, which is used if its draft is at hand.
            count: how many series like these are decoded together; default: as many as these.

        Returns:
            the decision; None where there is nothing to decide: without a draft, with ``adaptive`` off or online, or
            with adaptive sigma, whose forecast depends on the draft.

        Raises:
            UserError: a pinned decision is for a draft that is not at hand.
        """
        self.plan, self.k = None, self.options["k"]
        free = isinstance(self.draft, str)
        self.drafting = self.draft_itself(histories, self.draft) if free else self.draft
        config = self.configuration(self.mode_of(num_samples), sigma)
        if self.draft is None or self.adaptive != "stored" or config.steered:
            return None
        known = self.drafting.config.season if free else None
        own = self.drafting if is_itself(self.drafting) else self.draft_itself(histories, season=known)
        at_hand = dict(candidates(self.drafting, own, *self.source))
        models: dict = {candidate.draft: model for candidate, model in at_hand.items()} | {None: None}
        pinned = self.stored.decision
        decision = made if pinned is None or (made and made.use == pinned.use) else pinned
        known = {(None, None), *((candidate.draft, candidate.identity) for candidate in at_hand)}
        if decision and not (decision.use[:2] in known and (None in (decision.draft, self.k) or decision.k == self.k)):
            if decision is pinned:
                wanted = f"{decision.draft} {decision.identity}, K {decision.k}"
                raise UserError(f"`plan` is for the draft {wanted}: give it")
            decision = None
        if decision is None:
            variables, sizes = histories[0].values.shape[1], self.target.config
            wide = variables if self.channels == "independent" else 1
            wide *= 1 + self.flips(num_samples)
            steps = math.ceil(horizon / self.patch_len)
            columns = 1 if self.channels == "independent" else variables
            context = max(self.read_by(one, horizon)[0] for one in histories) if sizes.pads else self.context
            x = torch.empty((count or len(histories)) * wide, context, columns, device=self.device)
            rows = self.together(x, steps, num_samples) * x.shape[2] * num_samples
            case = Case.of(config, sizes.planned(self.context), num_samples, sizes.stochastic_head)
            machine = Machine.here(self.device, self.amp)
            asked = machine, case, rows, steps, self.k, list(at_hand), weights(self.target)
            decision = decide(self.stored, *asked, self.data)
        self.plan, self.k, self.drafting = decision, decision.k, models[decision.draft]
        return decision

    def together(self, x: Tensor, steps: int, samples: int) -> int:
        """How many of these rows ``[rows, L, C]`` are decoded together."""
        return min(windows_together(x, self.patch_len, steps, samples), max(1, MOST_ROWS // samples))

    def spread(self, histories: list[History], num_samples: int = 1) -> float | Calibration:
        """σ, or its calibration on these series (the first batch)."""
        if self.calibrates(num_samples):
            return self._calibration(histories)
        return UNMEASURED if self.sigma == "calibrated" else self.sigma  # unused for means

    def calibrates(self, num_samples: int) -> bool:
        """Whether σ is calibrated for this number of paths."""
        return self.sigma == "calibrated" and RULES[self.mode_of(num_samples)].draws

    def mode_of(self, num_samples: int) -> str:
        """The decoding mode for this number of paths.

        Raises:
            UserError: several paths are asked for in a mode without sampling.
        """
        mode = self.mode or (PATHS if num_samples > 1 else MEANS)
        if not RULES[mode].draws and num_samples > 1:
            raise UserError(f"{num_samples} paths of means are all the same: leave out `num_samples` or `mode` {mode}")
        return mode

    def decode(
        self,
        histories: list[History],
        horizon: int | Sequence[int],
        num_samples: int,
        sigma: float | Calibration,
        seed: int | None = None,
    ) -> tuple[np.ndarray, Statistics]:
        """Paths ``[series, S, H, C]`` in the units of the data (S is 1 in point mode), and the decoder's statistics.

        Their ``quantiles`` are in these units, too: ``[series, H, C, levels]``; ``accepted_patches`` are
        ``[series, S, patches, C]``, with one column for all where they are joint. Where each series has a horizon of
        its own, H is the furthest, and what is beyond the others' is NaN.

        Raises:
            UserError: a series is too short or too wide, or the forecast is not finite.
        """
        horizons = [horizon] * len(histories) if isinstance(horizon, int) else list(horizon)
        if min(horizons) < 1 or num_samples < 1:
            raise UserError(f"horizon {min(horizons)}, {num_samples} paths: give at least 1 of each")
        for history in histories:
            self.check(history)
        check_kinds(histories)
        variables = histories[0].values.shape[1]
        if isinstance(sigma, Calibration) and len(sigma.factor) not in (1, variables):
            raise UserError(
                f"sample paths are calibrated for {len(sigma.factor)} columns, and these series have {variables}: give "
                "such series, or `sigma` as a number"
            )
        read = [self.read_by(*one) for one in zip(histories, horizons, strict=True)]
        alike = self._alike([context for context, _ in read], horizons, variables, num_samples)
        parts = []
        for which in alike:
            series = [(histories[i], *read[i], horizons[i]) for i in which]
            parts.append(self._decode_alike(series, num_samples, sigma, seed))
        order = torch.from_numpy(np.argsort(np.concatenate(alike)))
        values, counts = joined([part[0] for part in parts], 2)[order], Statistics.joined([part[1] for part in parts])
        beyond = torch.arange(values.shape[2]) >= torch.tensor(horizons).unsqueeze(1)  # [series, H]
        bad = torch.nonzero(~(values.isfinite() | beyond[:, None, :, None]))
        if len(bad):
            worst = histories[int(bad[0, 0])]
            raise UserError(f"the forecast{_of(worst)} is not finite: its values are too large for this model")
        values.masked_fill_(beyond[:, None, :, None], torch.nan)
        if counts.quantiles is not None:
            counts.quantiles = counts.quantiles[order].masked_fill(beyond[..., None, None], torch.nan).numpy()
        if counts.accepted_patches is not None:
            counts.accepted_patches = counts.accepted_patches[order].transpose(1, 2)
        return values.numpy(), counts

    def _alike(self, contexts: list[int], horizons: list[int], variables: int, samples: int) -> list[list[int]]:
        """Indices of the series that are decoded together.

        Shorter contexts are padded: to any length where all together are few, else to at most twice theirs.
        """
        patches, furthest = [-(-context // self.patch_len) for context in contexts], -(-max(horizons) // self.patch_len)
        alike: dict[int, list[int]] = {}
        few = len(contexts) * variables * samples * (max(patches) + furthest) <= CPU_TOKENS
        paddable = self.target.config.cacheable(1 if self.channels == "independent" else variables)
        for i, count in enumerate(patches):
            alike.setdefault(0 if few and paddable else (count - 1).bit_length() if paddable else count, []).append(i)
        return list(alike.values())

    def read_by(self, history: History, horizon: int, rows: int | None = None) -> tuple[int, tuple[int, ...]]:
        """The context that the target reads of a series of so many rows (default: all), and the seasons of its profile.

        Both in time steps. A target of any length reads what there is, in whole patches unless it knows padding.

        Raises:
            UserError: the horizon leaves no room for a context.
        """
        config, rows = self.target.config, rows or len(history.values)
        context = config.reads(self.context, horizon)
        if context < 1:
            raise UserError(f"a `horizon` of {horizon} is beyond this model, which knows {config.seq_len} time steps")
        if context < self.context and self.asked_context:
            raise UserError(
                f"a `context` of {self.context} and a `horizon` of {horizon}, in whole patches, are more than the "
                f"{config.seq_len} time steps that this model knows: lower one of them"
            )
        if config.any_length:
            context = min(context, rows if config.pads else rows // self.patch_len * self.patch_len)
        profile, values = self.target.config.profile, [history.values[-context:]]
        return context, seasons.of_profile(profile, values, history.step, context)

    def _decode_alike(
        self,
        series: list[tuple[History, int, tuple[int, ...], int]],
        num_samples: int,
        sigma,
        seed: int | None,
    ) -> tuple[Tensor, Statistics]:
        """As :meth:`decode`, in one batch; each series with its context, seasons of its profile, and horizon."""
        contexts = [history.values[-context:] for history, context, _, _ in series]
        scaled, level, scale = standardise_together(contexts)
        context, horizons = scaled.shape[1], [horizon for *_, horizon in series]
        read = [(length, seasons) for _, length, seasons, _ in series]
        # of the context alone at first: whether there is room for the horizon is checked in decoding
        x = torch.from_numpy((scaled - profiles_of(scaled, read, 0)).astype(np.float32)).to(self.device)
        numbers = torch.tensor([history.number for history, *_ in series], device=self.device)
        patches, statistics = self._decode(padded(x, self.patch_len), numbers, horizons, num_samples, sigma, seed)
        profile = profiles_of(scaled, read, max(horizons))[:, None, context:]
        lowest = np.stack([values.min(0) for values in contexts])[:, None, None]  # [series, 1, 1, C]
        least = np.where(lowest >= 0, 0, -np.inf) if self.nonnegative else -np.inf

        def in_units(values: np.ndarray) -> np.ndarray:
            """Of ``[series, any number, H, C]``."""
            with np.errstate(over="ignore", invalid="ignore"):  # refused by the caller
                return np.maximum((values + profile) * scale[:, None] + level[:, None], least)

        if statistics.quantiles is not None:
            own = in_units(statistics.quantiles.cpu().double().numpy().transpose(0, 3, 1, 2))
            statistics.quantiles = (uncrossed(own) if self.fix_quantile_crossing else own).transpose(0, 2, 3, 1)
            statistics.quantiles = torch.from_numpy(statistics.quantiles)
        return torch.from_numpy(in_units(patches.cpu().double().numpy())), statistics

    @property
    def least(self) -> int:
        """Time steps that a series must have."""
        return least_rows(self.target.config, self.context)

    def check(self, history: History) -> None:
        """Check the length and the number of columns of a series.

        Raises:
            UserError: it is shorter than the context, or has too many columns for the target.
        """
        rows, variables = history.values.shape
        if rows < self.least:
            smaller = f", or a smaller `context`, a multiple of {self.patch_len}" if self.least == self.context else ""
            raise UserError(
                f"the series{_of(history)} has {rows} rows: the context needs at least {self.least}; give longer "
                f"ones{smaller}"
            )
        check_width(self.channels, variables, self.context // self.patch_len)

    def frame(
        self, table: Table, histories: list[History], drawn: np.ndarray, own: np.ndarray | None = None
    ) -> pd.DataFrame:
        """The forecast as rows of the table: its columns in order, each followed by its quantiles, if there are any.

        ``drawn``: paths ``[series, S, H, C]``; ``own``: the target's own quantiles ``[series, H, C, levels]``.
        """
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
        elif own is not None:
            quantiles = np.stack([own[..., self.target.config.levels.index(level)] for level in QUANTILES.values()])
            quantiles = quantiles.reshape(len(QUANTILES), *mean.shape)
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
        self, x: Tensor, numbers: Tensor, horizons: list[int], samples: int, sigma, seed: int | None
    ) -> tuple[Tensor, Statistics]:
        series, _, variables = x.shape
        each, horizon = torch.tensor([math.ceil(horizon / self.patch_len) for horizon in horizons]), max(horizons)
        if self.channels == "independent":  # variables become rows
            x, numbers = x.transpose(1, 2).flatten(0, 1).unsqueeze(2), row_series(numbers, self.channels, variables)
            each = each.repeat_interleave(variables)
        config, steps = self.prepare(samples, sigma, x.shape[2], seed), int(each.max())
        if config.quantiles == "long" and steps > self.target.config.long_head:
            most = self.target.config.long_head * self.patch_len
            raise UserError(f"`long_head_quantiles` reach {most} time steps: lower `horizon`, or leave them out")
        if self.flips(samples):
            x, numbers, each = torch.cat((x, -x)), torch.cat((numbers, numbers)), torch.cat((each, each))
        together = self.together(x, steps, samples)
        check_room(self.target.config, config, x, steps, samples, together, config.k or 0)
        parts = []
        for rows, patches_ahead, keys in zip(*(of.split(together) for of in (x, each, numbers)), strict=True):
            if self.drafting is None:
                patches, own = target_rollout(self.target, config, rows, patches_ahead, keys, samples)
                alone = replace(Statistics.empty(), quantiles=quantiles(own, self.channels, x.shape[2]))
                parts.append((paths(patches, samples, self.channels, x.shape[2]), alone))
            else:
                parts.append(self.decoder.generate(rows, patches_ahead, keys, samples))
        drawn, statistics = joined([part[0] for part in parts], -2), Statistics.joined([part[1] for part in parts])
        drawn = (drawn[:, None] if samples == 1 else drawn)[:, :, :horizon]
        own = None if statistics.quantiles is None else statistics.quantiles[:, :horizon]
        if (accepted := statistics.accepted_patches) is not None:  # of x, where -x was beside it
            accepted = accepted.unflatten(0, (-1, len(numbers) // series // (1 + self.flips(samples)), samples))
            statistics.accepted_patches = accepted[:series].permute(0, 3, 2, 1)  # time second
        if self.flips(samples):
            drawn = half_difference(drawn)
            own = None if own is None else half_difference(own, -1)
        if self.channels == "independent":
            drawn = drawn.squeeze(-1).unflatten(0, (-1, variables)).movedim(1, -1)
            own = None if own is None else own.squeeze(2).unflatten(0, (-1, variables)).transpose(1, 2)
        statistics.quantiles = own
        return drawn, statistics

    def prepare(
        self, samples: int, sigma: float | Calibration, variables: int, seed: int | None = None
    ) -> SpeculativeConfig:
        """The configuration for decoding series of this many variables; makes the decoder if it has changed.

        Raises:
            UserError: the configuration does not suit the target.
        """
        seed = seed if seed is not None else self.seed or 0
        config = self.configuration(self.mode_of(samples), sigma, seed)
        if config.rule.draws and self.of_means:
            raise UserError(f"`{self.of_means[0]}` is for means: leave it out, or ask for one forecast without paths")
        check_rollout(self.target.config, variables, config)
        if self.drafting is None:
            return config
        last, pace = self.decoder, None
        if last is None or last.config != config or self.drafted is not self.drafting:
            if isinstance(last, AdaptiveDecoder) and (last.config.mode, last.config.k) == (config.mode, config.k):
                pace = last.pace  # keep the learned prices and acceptance rates
            self.decoder = make_decoder(self.target, self.drafting, config, self.adaptive == "online", pace=pace)
            self.drafted = self.drafting
        return config

    def configuration(self, mode: str, sigma: float | Calibration, seed: int = 0) -> SpeculativeConfig:
        allowed = tolerance(mode, self.accept_mse_tol)
        unmeasured = self.plan is not None and self.plan.draft is not None and not self.plan.figures
        options = self.options | {"k": self.k, "quantiles": self.recorded(mode)}
        options |= {"patience": PATIENCE if unmeasured else 0}
        return SpeculativeConfig(mode=mode, sigma=sigma, accept_mse_tol=allowed, seed=seed, **options)

    @torch.inference_mode()
    def _calibration(self, histories: list[History]) -> Calibration:
        """Covariance of the target's next-patch errors, in standard deviations of the context.

        The windows are drawn from each series and end in its last ``CALIBRATED_ON`` rows, without those that were put
        before a short one. With independent channels, all variables share one matrix.

        Where no series has a patch beyond the least context that the target reads, contexts may be shorter still, if it
        reads any: down to a patch.

        Raises:
            NoSpread: every series is too short.
        """
        shortest = min(self.least, self.patch_len) if self.target.config.any_length else self.least
        for least in dict.fromkeys((self.least, shortest)):
            if errors := self._errors(histories, least):
                return Calibration(calibrate(*map(torch.cat, zip(*errors, strict=True))))
        raise NoSpread(
            f"quantiles need a spread, and no series is longer than the context, {shortest}, by a patch, "
            f"{self.patch_len}: give `sigma` as a number, or "
            f"{'longer series' if self.target.config.any_length else 'a smaller `context`'}"
        )

    def _errors(self, histories: list[History], least: int) -> list[tuple[Tensor, Tensor]]:
        """Next-patch errors, see :meth:`_calibration`, of the series that have this context and a patch."""
        errors, generator = [], torch.Generator().manual_seed(0)
        most = FEW_WINDOWS if weights(self.target) >= LARGE else MOST_WINDOWS
        each, joint = max(1, most // len(histories)), self.channels == "joint"
        for history in histories:
            self.check(history)
            values = history.values[history.repeated :]
            # of a short series for a target of any length, contexts of two thirds of it
            rows = min(max(self.least, len(values) * 2 // 3), len(values) - self.patch_len)
            if rows < least:
                continue
            context, lengths = self.read_by(history, self.patch_len, rows)
            recent = torch.tensor(values[-context - CALIBRATED_ON :])
            recent = recent.unfold(0, context + self.patch_len, 1)  # [windows, C, context + patch]
            count = len(recent) if joint else recent.shape[:2].numel()
            chosen = torch.randperm(count, generator=generator)[:each]
            windows = (
                recent[chosen] if joint else recent[chosen // recent.shape[1], chosen % recent.shape[1]].unsqueeze(1)
            )
            scaled, _, scale = standardise(windows.transpose(1, 2).numpy(), context)
            scaled = scaled - profile_of(scaled, context, lengths, self.patch_len)
            # errors have no scale where the context is constant
            scaled[:, context:][np.broadcast_to(scale == 0, scaled[:, context:].shape)] = np.nan
            windows = torch.from_numpy(scaled.astype(np.float32))  # [chosen, length, C or 1]
            for part in windows.split(windows_together(windows, self.patch_len, 0)):
                before, after = part[:, :context], part[:, context:]
                errors.append(next_patch_errors(self.target, padded(before, self.patch_len), after))
        return errors


def _of(history: History) -> str:
    return "" if history.name is None else f" {history.name!r}"


def check_kinds(histories: Iterable[History]) -> None:
    """Refuse series of different numbers of columns.

    Raises:
        UserError: the numbers differ.
    """
    if len({history.values.shape[1] for history in histories}) > 1:
        raise UserError("series of different numbers of columns are not forecast together: call for each kind")
