"""Decodes requests in batches. Synchronous, and without HTTP."""

import copy
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from leapcast.data_provider.calendars import other_frequency
from leapcast.data_provider.histories import History, last, short
from leapcast.forecaster import SpeculativeForecaster
from leapcast.inputs import standardise
from leapcast.models import UNTRAINED, name_of
from leapcast.models.errors import UserError
from leapcast.models.inference import weights
from leapcast.outputs import average
from leapcast.serving.histories import LAST_YEAR, history_of
from leapcast.serving.requests import DRAFTS, ForecastRequest
from leapcast.utils.decoding.config import tolerance
from leapcast.utils.decoding.covariance import Calibration
from leapcast.utils.decoding.rules import MEANS, PATHS, RULES

KEPT = 64  # ways of decoding that are held at hand
MOST_TOKENS = 2**17  # patches of all columns and paths in one request
PIECE = 2**13  # of these, decoded at a time where a request has several series; with the embedded pair some seconds
MOST_ANSWERED = 2**20  # numbers in an answer: writing them keeps all others waiting
MOST_AUDITED = 2**18  # drawn values of a forecast that waits for its audit
LARGEST = 1e300  # values beyond cannot be forecast
DEFAULT, ITSELF, NOBODY = DRAFTS


@dataclass
class Job:
    """A request that can be decoded: its series, and how they are.

    Jobs of one ``group`` are decoded together. ``rows``: what they count in a batch; ``sizes``: what decoding each
    series takes, patches read and drawn, of all columns and paths.
    """

    histories: list[History]
    contexts: list[int]  # time steps that are read of each
    horizons: list[int]
    flat: list[bool]  # whether values are numbers, not rows
    stamped: list[bool]
    levels: list[float]
    samples: int
    seed: int
    way: tuple[str, float, str]  # mode, tolerance and draft
    season: int | None  # of self-drafting's first guess; None where that does not propose, unless a plan says so
    group: Hashable
    rows: int
    sizes: list[int]
    warnings: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(self.sizes)


@dataclass
class Counts:
    """What a batch adds to the metrics: proposals, patches, and passes of the target, over all rows."""

    accepted: int = 0
    tested: int = 0
    patches: int = 0
    passes: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


@dataclass
class Result:
    """What was decoded for one job.

    ``series``: of each its paths ``[S, H, C]`` in its units, the target's own quantiles ``[H, C, levels]`` or None,
    and which patches were accepted, ``[S, patches, C]``, with one column for all where they are joint. ``draft``: None
    where the target ran alone.
    """

    series: Sequence[tuple[np.ndarray, np.ndarray | None, np.ndarray]]
    draft: str | None
    decode_ms: float

    @classmethod
    def joined(cls, parts: Sequence["Result"]) -> "Result":
        """Of a job that was decoded in pieces."""
        drafts = [part.draft for part in parts if part.draft is not None]
        series = [one for part in parts for one in part.series]
        return cls(series, drafts[0] if drafts else None, sum(part.decode_ms for part in parts))


class Engine:
    """Decodes requests by one target and its drafts.

    :meth:`prepare` is called by one thread, :meth:`run` and :meth:`drift` by one other.

    Args:
        base: the forecaster as :meth:`SpeculativeForecaster.from_pretrained` made it, with mode None.
        sigma: spread of sample paths, see :class:`SpeculativeForecaster`.
        samples: paths of a request that does not say.
        name: what the checkpoint is called.
        spread_told: what ``sigma`` is, in words.
    """

    def __init__(
        self,
        base: SpeculativeForecaster,
        sigma: float | Calibration,
        samples: int = 100,
        name: str = "",
        spread_told: str = "",
    ):
        self.base, self.sigma, self.samples, self.name = base, sigma, samples, name
        self.spread_told = spread_told or str(sigma)
        self.checking = lru_cache(KEPT)(self.way)  # of the thread that prepares
        self.decoding = lru_cache(KEPT)(self.way)  # of the thread that decodes

    def way(self, mode: str, tolerance: float, draft: str) -> SpeculativeForecaster:
        """A forecaster of the same models that decodes in this way.

        Raises:
            UserError: the target cannot.
        """
        made = copy.copy(self.base)
        made.mode, made.accept_mse_tol = mode, tolerance
        if draft != DEFAULT:
            made.draft, made.itself = (UNTRAINED if draft == ITSELF else None), None
        made.drafting, made.plan, made.decoder, made.drafted = made.draft, None, None, None
        made.configuration(mode, self.sigma)
        return made

    # ---------------------------------------------------------------- before decoding

    def prepare(self, request: ForecastRequest) -> Job:
        """The job of a request.

        Raises:
            UserError: a series cannot be forecast, or not so.
        """
        histories = [history_of(number, one) for number, one in enumerate(request.series)]
        horizons, levels = request.horizons, request.quantile_levels
        mode = request.mode or (PATHS if self.drawn(levels) or (request.num_samples or 1) > 1 else MEANS)
        rule = RULES[mode]
        samples = (request.num_samples or self.samples) if rule.draws else request.num_samples or 1
        columns = request.series[0].columns
        if not rule.draws and samples > 1:
            raise UserError(f"num_samples {samples}: mode {mode} has one forecast; leave it out, or ask for {PATHS}")
        if not rule.draws and self.drawn(levels):
            raise UserError(f"quantile_levels need paths with this model: leave out mode {mode}, or ask for {PATHS}")
        answered = columns * sum(horizons) * (1 + len(levels))
        if answered > MOST_ANSWERED:
            raise UserError(
                f"series x columns x horizon, of means and levels, are {answered:,} numbers, and an answer has at most "
                f"{MOST_ANSWERED:,}: ask for less"
            )
        allowed = tolerance(mode, self.base.accept_mse_tol if request.tolerance is None else request.tolerance)
        way = mode, allowed, request.draft
        planner = self.checking(*way)
        contexts = []
        for history, horizon in zip(histories, horizons, strict=True):
            planner.check(history)
            context, _ = planner.read_by(history, horizon)
            contexts.append(context)
            if np.abs(history.values[-context:]).max() > LARGEST:
                raise UserError(f"the values of {short(history.name)!r} are too large for this model: rescale them")
            ahead = history.ahead(horizon)
            if isinstance(ahead[-1], pd.Timestamp) and ahead[-1].year > LAST_YEAR:
                raise UserError(
                    f"the forecast of {short(history.name)!r} goes beyond the year {LAST_YEAR}: shorten its horizon"
                )
        season = planner.draft_itself(histories).config.season if planner.draft == UNTRAINED else None
        others = dict.fromkeys(other_frequency(planner.trained_step, one.step) for one in histories)
        kept = zip(histories, contexts, strict=True)  # the rest is not read, and jobs may wait
        patch = planner.patch_len
        sizes = [
            columns * (-(-context // patch) - (-horizon // patch) * samples)
            for context, horizon in zip(contexts, horizons, strict=True)
        ]
        if sum(sizes) > MOST_TOKENS:
            raise UserError(
                f"series x columns x (context + num_samples x horizon), in patches of {patch}, are {sum(sizes):,}, and "
                f"a request has at most {MOST_TOKENS:,}: ask for less"
            )
        return Job(
            histories=[last(one, max(context, planner.least)) for one, context in kept],
            contexts=contexts,
            horizons=horizons,
            flat=[not isinstance(one.values[0], list) for one in request.series],
            stamped=[one.timestamps is not None or one.start is not None for one in request.series],
            levels=levels,
            samples=samples,
            seed=request.seed,
            way=way,
            season=season,
            group=(way, season, samples, request.seed if rule.draws else 0, columns),
            rows=len(histories) * samples * (columns if planner.channels == "independent" else 1),
            sizes=sizes,
            warnings=[other for other in others if other],
        )

    def pieces(self, job: Job, rows: int) -> list[Job]:
        """The job in parts of few series, at most so many rows: what is decoded at a time keeps others waiting."""
        most = max(1, rows * len(job.histories) // job.rows)
        cuts, size = [0], 0
        for i, one in enumerate(job.sizes):
            if i > cuts[-1] and (size + one > PIECE or i - cuts[-1] >= most):
                cuts.append(i)
                size = 0
            size += one
        if len(cuts) == 1:
            return [job]
        parts = []
        for first, end in zip(cuts, [*cuts[1:], len(job.sizes)], strict=True):
            own = {name: getattr(job, name)[first:end] for name in ("histories", "contexts", "horizons", "sizes")}
            parts.append(replace(job, **own, rows=job.rows * (end - first) // len(job.sizes)))
        return parts

    def drawn(self, levels: Sequence[float]) -> bool:
        """Whether quantiles of these levels need sample paths, rather than being the target's own."""
        own = self.base.target.config.levels or ()
        return not all(any(abs(level - other) < 1e-9 for other in own) for level in levels)

    # ---------------------------------------------------------------- decoding

    def run(self, jobs: list[Job]) -> tuple[list[Result | Exception], Counts]:
        """Decode jobs of one group together; where that fails, each half, so that an error is that of its job alone."""
        try:
            return self.decode(jobs)
        except Exception as error:
            if len(jobs) == 1:
                return [error], Counts()
        half = len(jobs) // 2
        (one, counts), (other, more) = self.run(jobs[:half]), self.run(jobs[half:])
        return one + other, counts + more

    def decode(self, jobs: list[Job]) -> tuple[list[Result | Exception], Counts]:
        """As :meth:`run`, together. Raises UserError where one of them cannot be decoded."""
        begun, first = time.perf_counter(), jobs[0]
        histories = [history for job in jobs for history in job.histories]
        horizons = [horizon for job in jobs for horizon in job.horizons]
        forecaster, sigma = self.decoding(*first.way), self.spread(first.way[0])
        # decided for this batch: what pays for one series may not pay for many. A plan may choose self-drafting in
        # place of a trained draft: with the season of the first job, since nobody asked for it.
        forecaster.season = first.season or self.base.season
        forecaster.choose(first.histories, max(horizons), first.samples, sigma, count=len(histories))
        values, statistics = forecaster.decode(histories, horizons, first.samples, sigma, first.seed)
        drafting = forecaster.drafting
        patches = [-(-horizon // forecaster.patch_len) for horizon in horizons]
        took, found = 1000 * (time.perf_counter() - begun), statistics.accepted_patches
        own = statistics.quantiles
        each = [
            (
                values[i, :, :horizon],
                None if own is None else own[i, :horizon],
                np.zeros((1, patches[i], 1), bool) if found is None else found[i, :, : patches[i]].numpy(),
            )
            for i, horizon in enumerate(horizons)
        ]
        results: list[Result | Exception] = []
        for job in jobs:
            results.append(Result(each[: len(job.histories)], None if drafting is None else name_of(drafting), took))
            each = each[len(job.histories) :]
        counts = Counts(
            int(statistics.accepted.sum()), int(statistics.attempted.sum()), statistics.emitted, statistics.row_passes
        )
        if drafting is None:  # which counts nothing
            counts.patches = counts.passes = sum(patches) * first.rows // len(first.histories)
        return results, counts

    def spread(self, mode: str) -> float | Calibration:
        """σ in this mode; unused for means."""
        return self.sigma if RULES[mode].draws else 0.5

    # ---------------------------------------------------------------- after decoding

    def answer(self, job: Job, result: Result, batch: Sequence[Job], queue_ms: float) -> dict[str, Any]:
        """The body of an answer, see :class:`serving.requests.ForecastAnswer`."""
        return {
            "forecasts": [self.forecast(job, result, i) for i in range(len(job.histories))],
            "draft": result.draft,
            "mode": job.way[0],
            "patch": self.base.patch_len,
            "context_used": max(job.contexts),
            "batch": {"requests": len(batch), "rows": sum(one.rows for one in batch)},
            "queue_ms": round(queue_ms, 3),
            "decode_ms": round(result.decode_ms, 3),
            "warnings": job.warnings,
        }

    def forecast(self, job: Job, result: Result, i: int) -> dict[str, Any]:
        """That of series i, see :class:`serving.requests.SeriesForecast`."""
        history, (paths, own, accepted) = job.histories[i], result.series[i]

        def listed(values: np.ndarray) -> list:
            """Of ``[H, C]``."""
            return (values[:, 0] if job.flat[i] else values).tolist()

        quantiles: dict[str, list] = {}
        if job.levels and own is not None:
            known = np.asarray(self.base.target.config.levels)
            for level in job.levels:
                quantiles[str(level)] = listed(own[..., int(np.abs(known - level).argmin())])
        elif job.levels:
            found = np.quantile(paths, job.levels, axis=0)
            quantiles = {str(level): listed(one) for level, one in zip(job.levels, found, strict=True)}
        patches, share = accepted.shape[1], float(accepted.mean())
        ahead = history.ahead(job.horizons[i]) if job.stamped[i] else ()
        return {
            "id": history.name,
            "timestamps": [one if isinstance(one, int) else one.isoformat() for one in ahead] or None,
            "mean": listed(average(paths[None])[0]),
            "quantiles": quantiles,
            "accepted_patches": (accepted.mean((0, 2)) >= 0.5).tolist(),
            "patches": patches,
            "target_passes": round(patches * (1 - share), 6),
            "accepted": round(share, 6),
        }

    def comparable(self, job: Job, result: Result) -> bool:
        """Whether a job's forecast can be compared with the target's own: it was made by speculation (a first patch
        alone is not), path by path from the same noise, and is no large one."""
        proposed = result.draft is not None and max(job.horizons) > self.base.patch_len
        small = sum(paths.size for paths, *_ in result.series) <= MOST_AUDITED
        return proposed and small and not RULES[job.way[0]].emits_proposals

    def drift(self, job: Job, result: Result) -> float:
        """Mean square distance of a forecast from that of the target alone with the same noise, in standardised units:
        each column's by the standard deviation of its context."""
        alone = self.decoding(*job.way[:2], NOBODY)
        values, _ = alone.decode(job.histories, job.horizons, job.samples, self.spread(job.way[0]), job.seed)
        squared, count = 0.0, 0
        for i, history in enumerate(job.histories):
            scale = standardise(history.values[None, -job.contexts[i] :], job.contexts[i])[2][0, 0]  # [C]
            difference = (values[i, :, : job.horizons[i]] - result.series[i][0])[..., scale > 0] / scale[scale > 0]
            squared, count = squared + float((difference**2).sum()), count + difference.size
        return squared / count if count else 0.0

    def described(self) -> dict[str, Any]:
        """What ``GET /v1/model`` says of the models."""
        base = self.base
        config, draft = base.target.config, base.draft
        return {
            "target": name_of(base.target),
            "name": self.name,
            "parameters": weights(base.target),
            "draft": draft if draft is None or isinstance(draft, str) else name_of(draft),
            "drafts": list(DRAFTS),
            "patch": base.patch_len,
            "context": base.context,
            "shortest": base.least,
            "any_length": bool(config.any_length),
            "spread": self.spread_told,
        }

    def defaults(self) -> dict[str, Any]:
        return {"tolerance": tolerance(MEANS, self.base.accept_mse_tol), "num_samples": self.samples}
