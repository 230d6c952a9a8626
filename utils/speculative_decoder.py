"""Speculative decoding of patches: the draft proposes K, the target checks them in one pass.

Leviathan, Kalman, Matias 2023 (https://arxiv.org/abs/2211.17192), for continuous patches and for point forecasts.

With a tolerance the forecast is not the target's own: every emitted patch is, on a prefix that is off by at most the
tolerance per patch, and over many patches the differences can add up without a bound. Records say by how much they did
(``accuracy.drift``).
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real

import torch
from torch import Tensor

from models.layers.cache import Session
from models.timer_xl import from_patches, to_patches
from utils import acceptance, noise
from utils.adaptive import Pace, Prices
from utils.covariance import Calibration, Spread
from utils.errors import UserError
from utils.rollout import (
    autoregress,
    check_rollout,
    check_room,
    from_rows,
    mean_draw,
    open_draft,
    open_session,
    put,
    row_series,
    take,
    to_rows,
    windows_together,
)
from utils.timing import clock

POINT_MSE_TOL = 0.005  # the tolerance of point mode where none is given
MOST_PROPOSED = 2**16  # patches per round: counts are kept for each of them
PATHS = 2**40  # the distance between the numbers of a series' sample paths, which key their noise


@dataclass(frozen=True)
class SpeculativeConfig:
    """How to speculate. σ and mse_tol are in units of the standardised data; σ may be a calibrated covariance.

    With mode ``sample``, accept_bias 1 and accept_mse_tol 0 the output has the target's own distribution; in mode
    ``point`` every emitted patch is a mean of the target, on a prefix off by at most accept_mse_tol per patch. That
    bounds no forecast of several patches: differences to the target's own rollout can add up.
    """

    mode: str = "sample"
    k: int = 3
    sigma: float | Calibration = 0.5
    accept_bias: float = 1.0
    accept_mse_tol: float = 0.0
    max_draws: int = 256  # the bound on residual draws where covariances differ
    rollout: str = "cached"
    renorm_every: int = 0
    attention_window: int = 0
    adaptive: bool = False  # k is the most: each round proposes as many as is expected to be quickest, perhaps none
    seed: int = 0

    def __post_init__(self):
        if self.mode not in ("sample", "point") or self.rollout not in ("cached", "sliding"):
            raise UserError(f"mode {self.mode!r}, rollout {self.rollout!r}: give sample or point, cached or sliding")
        for name in ("k", "max_draws", "renorm_every", "attention_window"):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, Integral):
                raise UserError(f"`{name}` {value!r}: give a whole number")
        for name in ("sigma", "accept_bias", "accept_mse_tol"):
            if not isinstance(value := getattr(self, name), (Real, Calibration) if name == "sigma" else Real):
                raise UserError(f"`{name}` {value!r}: give a number{', or calibrated' * (name == 'sigma')}")
        if not 1 <= self.k <= MOST_PROPOSED:
            raise UserError(f"`k` {self.k}: from 1 to {MOST_PROPOSED} patches can be proposed per round")
        if not isinstance(self.sigma, Calibration) and not 0 < self.sigma < math.inf:
            raise UserError(f"`sigma` {self.sigma} must be above 0 and finite, or calibrated")
        if not 1 <= self.accept_bias < math.inf:
            raise UserError(f"`accept_bias` {self.accept_bias} must be at least 1 (1 is lossless) and finite")
        if math.isnan(self.accept_mse_tol) or self.accept_mse_tol == -math.inf:
            raise UserError(f"`accept_mse_tol` {self.accept_mse_tol}: give a number (0 or less is lossless) or inf")
        if self.max_draws < 1 or self.renorm_every < 0 or self.attention_window < 0:
            raise UserError("`max_draws` must be at least 1, `renorm_every` and `attention_window` 0 or more")

    @property
    def exact(self) -> bool:
        """Whether the output is the target's own, as long as no residual draw meets its bound."""
        return self.accept_mse_tol <= 0 and (self.mode == "point" or self.accept_bias == 1)


def tolerance(mode: str, given: float | None) -> float:
    """accept_mse_tol where none may be given."""
    return given if given is not None else POINT_MSE_TOL if mode == "point" else 0.0


@dataclass(repr=False)
class Statistics:
    """What one or several calls of ``generate`` did. Lists have one entry a position in the round."""

    accepted: Tensor  # [K]
    attempted: Tensor  # [K], tested: those after the first rejection of a round are not
    squared: Tensor  # [K], mean squared distances of the means of the tested, summed
    distances: list[Tensor] = field(default_factory=list)  # ‖δ‖ of every tested proposal (one covariance only)
    target_passes: int = 0
    draft_passes: int = 0
    row_passes: int = 0  # target passes summed over the rows that took part
    rounds: Tensor | int = 0  # [K + 1], by the number of patches proposed
    emitted: int = 0  # patches, over all rows
    bound_hits: int | Tensor = 0  # residual draws that ended at max_draws
    accepted_patches: Tensor | None = None  # [rows, steps], of the last call: emitted after an accepted proposal

    def __repr__(self) -> str:
        return f"Statistics(rate={self.rate}, patches_per_target_pass={self.patches_per_target_pass})"

    @classmethod
    def empty(cls, k: int) -> "Statistics":
        counts = (torch.zeros(k, dtype=torch.long) for _ in range(2))
        return cls(*counts, torch.zeros(k, dtype=torch.double), rounds=torch.zeros(k + 1, dtype=torch.long))

    def add(self, other: "Statistics") -> None:
        """Count another call's in."""
        for item in fields(self):
            if item.name != "accepted_patches":
                setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))

    @property
    def rate(self) -> float | None:
        """Acceptance rate α: accepted / tested; None where nothing was tested."""
        tested = int(self.attempted.sum())
        return int(self.accepted.sum()) / tested if tested else None

    @property
    def by_position(self) -> list[float | None]:
        """Acceptance rate at each position of a round; None where nothing was tested."""
        return [int(a) / int(t) if t else None for a, t in zip(self.accepted, self.attempted, strict=True)]

    @property
    def rms_by_position(self) -> list[float | None]:
        """Root-mean-square distance of the draft's means to the target's, over the proposals tested."""
        return [math.sqrt(float(s) / int(t)) if t else None for s, t in zip(self.squared, self.attempted, strict=True)]

    @property
    def patches_per_target_pass(self) -> float | None:
        """Block efficiency τ, per row."""
        return self.emitted / self.row_passes if self.row_passes else None


class SpeculativeDecoder:
    """Forecasts with a target and a draft that offer sessions (``models/layers/cache.py``).

    Args:
        target, draft: models in evaluation mode on one device, of one patch length.
        config: see :class:`SpeculativeConfig`.
        trace: ``trace(phase)`` gives a context manager around each phase: "draft", "verify", "accept".
        pace: what another decoder of these models with this mode and k has learned of prices and acceptance.
    """

    def __init__(
        self,
        target,
        draft,
        config: SpeculativeConfig,
        trace: Callable[[str], AbstractContextManager] | None = None,
        pace: Pace | None = None,
    ):
        if target.config.input_token_len != draft.config.input_token_len:
            raise UserError(
                f"the draft's patch ({draft.config.input_token_len}) is not the target's "
                f"({target.config.input_token_len}): train a draft with the target's `input_token_len`"
            )
        if draft.reads_target and config.k > draft.config.block_patches:
            raise UserError(f"`k` {config.k}: this draft has heads for {draft.config.block_patches} patches at most")
        if target.config.stochastic_head and isinstance(config.sigma, Calibration):
            raise UserError("`sigma` calibrated: this target has learned variances, which are used in its place")
        self.target, self.draft, self.config = target, draft, config
        self.trace = trace or (lambda phase: nullcontext())
        self.rule = Point if config.mode == "point" else Sample
        self.pace, self.nothing = pace or Pace(config.k), Statistics.empty(config.k)

    @torch.inference_mode()
    def generate(
        self, x: Tensor, steps: int, series: Tensor | None = None, samples: int = 1
    ) -> tuple[Tensor, Statistics]:
        """Forecast ``steps`` patches.

        Args:
            x: ``[B, L, C]`` standardised context, L a multiple of the patch P.
            steps: patches to forecast, at least 1.
            series: ``[B]`` numbers that key the noise of each window; 0 … B - 1 by default.
            samples: S paths of each window, from one prefill.

        Returns:
            forecast ``[B, steps·P, C]``, or ``[B, S, steps·P, C]`` for S > 1, and the statistics.
        """
        patch_len = self.target.config.input_token_len
        if x.ndim != 3 or x.shape[1] == 0 or x.shape[1] % patch_len:
            raise UserError(f"context of shape {list(x.shape)}: give [B, L, C], L a multiple of the patch, {patch_len}")
        if steps < 1:
            raise UserError(f"{steps} patches to forecast: at least 1 is needed")
        check_rollout(self.target.config, x.shape[2], self.config)
        series = torch.arange(len(x), device=x.device) if series is None else series.to(x.device)
        together = windows_together(x, patch_len, steps, samples)
        check_room(self.target.config, self.config, x, steps, samples, together)
        if len(x) <= together:
            return self._generate(x, steps, series, samples)
        parts = zip(x.split(together), series.split(together), strict=True)
        parts = [self._generate(windows, steps, numbers, samples) for windows, numbers in parts]
        forecasts, found = zip(*parts, strict=True)
        for other in found[1:]:
            found[0].add(other)
        found[0].accepted_patches = torch.cat([part.accepted_patches for part in found])
        return torch.cat(forecasts), found[0]

    def _generate(self, x: Tensor, steps: int, series: Tensor, samples: int) -> tuple[Tensor, Statistics]:
        """As :meth:`generate`, of windows that are decoded together."""
        channels = self.target.config.channels
        expected, plan = self._plan(x, steps, series, samples)
        series = row_series(series, channels, x.shape[2])
        if not any(plan):
            return self._alone(x, steps, series, samples)
        begun = clock(x.device) if self.config.adaptive else 0.0
        context = to_patches(to_rows(x, channels), self.target.config.input_token_len)
        rows = _Rows(self, context, steps, series)
        if samples > 1:  # the prefill is a pass of its own, then shared by all paths
            with self.trace("verify"):
                verified = rows.prefill(samples)
            rule, none = self.rule(self.config, rows, 0), torch.zeros(len(rows.index), dtype=torch.long)
            rule.verified = verified
            rows.commit(none, none, None, rule.emit(none, none))
        while len(rows.index):
            limit = rows.limit(plan)
            k = int(limit.max())
            rule = self.rule(self.config, rows, k)
            if k:
                with self.trace("draft"):
                    rule.proposals, *rule.drafted = rows.draft.propose(rows.pending(rows.draft), k, rule.draw)
            with self.trace("verify"):
                new = rows.target_pending()
                rule.verified = rows.target.extend(torch.cat((new, rule.proposals), 1) if k else new, k + 1)
            with self.trace("accept"):
                # the round's one wait for the device: how many proposals each row accepts
                accepted = acceptance.leading(rule.test()).cpu().minimum(limit) if k else limit
                rows.commit(accepted, limit, rule.proposals, rule.emit(accepted, limit), rule.squared)
        rows.statistics.bound_hits = int(rows.statistics.bound_hits)
        rows.statistics.squared = rows.statistics.squared.cpu()
        if self.config.adaptive:
            slower = (clock(x.device) - begun) / expected
            self.pace.learn(rows.statistics.accepted, rows.statistics.attempted, slower)
        return paths(rows.forecast, samples, channels, x.shape[2]), rows.statistics

    def _plan(self, x: Tensor, steps: int, series: Tensor, samples: int) -> tuple[float, list[int]]:
        """Expected seconds (where K adapts), and proposals with 0 … ``steps`` patches left; the last: first round."""
        config, rows = self.config, samples * len(x)
        if not config.adaptive or steps == 1:
            return 0.0, [0, *(min(config.k, left) for left in range(steps))]
        shape = samples == 1, *x.shape[1:]
        if self.pace.known(shape, rows) is None:
            self.pace.prices.setdefault(shape, {})[rows] = self.prices(x, steps, series, samples)
        return self.pace.plan(shape, rows, steps)

    @torch.inference_mode()
    def prices(self, x: Tensor, steps: int, series: Tensor, samples: int = 1) -> Prices:
        """Measured seconds of rounds of these windows, of which all are decoded together."""

        def forecast(count: int, k: int) -> None:
            forced = replace(self.config, k=max(k, 1), accept_mse_tol=math.inf, adaptive=False)
            decoder = SpeculativeDecoder(self.target, self.draft, forced)
            if k:
                decoder._generate(x, count, series, samples)
            else:
                decoder._alone(x, count, row_series(series, self.target.config.channels, x.shape[2]), samples)

        opens = samples == 1 and not self.draft.reads_target
        return Prices.measure(forecast, self.config.k, steps, opens, x.device)

    def _alone(self, x: Tensor, steps: int, series: Tensor, samples: int) -> tuple[Tensor, Statistics]:
        """Nothing is worth proposing: the target's own rollout, as it is without a draft. ``series``: of the rows."""
        config = self.config
        with self.trace("verify"):
            forecast = target_alone(self.target, config, x, steps, series, samples)
        patches, rounds = steps * len(forecast), self.nothing.rounds.clone()
        rounds[0] = steps
        done = {"target_passes": steps, "rounds": rounds, "emitted": patches, "row_passes": patches}
        accepted = torch.zeros(len(forecast), steps, dtype=torch.bool)
        statistics = replace(self.nothing, **done, accepted_patches=accepted)
        if config.adaptive:
            self.pace.learn(statistics.accepted, statistics.attempted)
        return paths(forecast, samples, self.target.config.channels, x.shape[2]), statistics


def check_draft(target, draft) -> None:
    """Refuse a draft that was made for other rows or patches than the target's."""
    sizes = [(model.config.input_token_len, model.config.channels) for model in (target, draft)]
    if sizes[0] != sizes[1]:
        raise UserError(
            "the draft (patch {}, channels {}) does not fit the target (patch {}, channels {}): distil one from this "
            "target".format(*sizes[1], *sizes[0])
        )


def paths(forecast: Tensor, samples: int, channels: str, variables: int) -> Tensor:
    """Patches of rows, S consecutive ones a series -> ``[B, S, H, C]``, or ``[B, H, C]`` where S is 1."""
    values = from_patches(forecast).unflatten(0, (-1, samples)).transpose(0, 1).flatten(0, 1)
    values = from_rows(values, channels, variables)
    return values if samples == 1 else values.unflatten(0, (samples, -1)).transpose(0, 1)


def path_series(series: Tensor, samples: int) -> Tensor:
    """The numbers that key the noise of S paths of every row: ``[rows]`` -> ``[rows · S]``."""
    return (series.unsqueeze(1) + PATHS * torch.arange(samples, device=series.device)).flatten()


def proposal_noise(seed: int, series: Tensor, patch: Tensor, like: Tensor) -> Tensor:
    """The z of these patches, ``[b, n, C, P]`` with C, P and type of ``like``; see ``utils/noise.py`` for the keys."""
    shape = like.shape[2:]
    return noise.normal(seed, noise.PROPOSAL, series, patch, shape.numel()).to(like.dtype).unflatten(-1, shape)


def target_draw(config: SpeculativeConfig, series: Tensor, context: Tensor, samples: int = 1) -> Callable:
    """How the target alone continues rows with this context in this mode; ``series`` ``[rows]`` keys the noise.

    For ``autoregress``.

    In sample mode from the very noise that the decoder would use: where all is accepted, the paths differ by little.
    """
    if config.mode == "point":
        return mean_draw
    rows = torch.arange(len(series)).repeat_interleave(samples)
    series, spread = path_series(series, samples), Spread(config.sigma, context).select(rows)

    def draw(i: int, mean: Tensor, log_var: Tensor | None) -> Tensor:
        patch = torch.arange(i, i + mean.shape[1], device=series.device).unsqueeze(0)
        z = proposal_noise(config.seed, series.unsqueeze(1), patch, mean)
        return mean + (spread.colour(z) if log_var is None else z * (0.5 * log_var).exp())

    return draw


@torch.inference_mode()
def target_alone(target, config: SpeculativeConfig, x: Tensor, steps: int, series: Tensor, samples: int = 1) -> Tensor:
    """The target's own rollout of ``[B, L, C]`` in this mode, no draft: ``[rows · S, steps, C, P]``.

    ``series`` ``[rows]`` keys the noise, see :func:`target_draw`.
    """
    check_room(target.config, config, x, steps, samples, len(x))
    context = to_patches(to_rows(x, target.config.channels), target.config.input_token_len)
    session = open_session(target, context, context.shape[1] + steps, config.rollout, config.attention_window)
    draw = target_draw(config, series, context, samples)
    return autoregress(session, context, steps, draw, config.renorm_every, samples)


class Point:
    """Proposals are the draft's means; what is emitted are the target's means."""

    proposals: Tensor | None = None  # [b, k, C, P]
    drafted: list[Tensor | None]  # the draft's means and log-variances, each [b, k, C, P]
    verified: tuple[Tensor, Tensor | None]  # the target's, each [b, k + 1, C, P]
    squared: Tensor | None = None  # [b, k], mean squared distances between their means

    def __init__(self, config: SpeculativeConfig, rows: "_Rows", k: int):
        self.config, self.rows, self.k = config, rows, k

    def draw(self, i: int, mean: Tensor, log_var: Tensor | None) -> Tensor:
        """Proposals from the i-th on, from the draft's distributions."""
        return mean

    def test(self) -> Tensor:
        """``[b, k]``: which proposals pass, each for itself."""
        self.squared = acceptance.mean_square(self.verified[0][:, : self.k].flatten(2), self.drafted[0].flatten(2))
        return self.squared <= self.config.accept_mse_tol

    def emit(self, accepted: Tensor, limit: Tensor) -> Tensor:
        """``[b, k + 1, C, P]``; row b emits the first ``accepted[b] + 1`` of them."""
        return self.verified[0]


class Sample(Point):
    """Proposals are draws of the draft; what is emitted is distributed as the target's own draws.

    Without learned variances both have the same covariance; with them the target's is known only after proposing.
    """

    def __init__(self, config: SpeculativeConfig, rows: "_Rows", k: int):
        super().__init__(config, rows, k)
        self.learned = rows.stochastic
        device, self.shape = rows.series.device, rows.emitted.shape[2:]
        done = (rows.held - rows.context_len).to(device)
        self.key = (rows.series.unsqueeze(1), done.unsqueeze(1) + torch.arange(k + 1, device=device))
        self.z = proposal_noise(config.seed, *self.key, rows.emitted)
        if not self.learned or not rows.draft_stochastic:
            self.noise = rows.spread.colour(self.z)

    def draw(self, i: int, mean: Tensor, log_var: Tensor | None) -> Tensor:
        if self.learned and log_var is not None:
            return mean + self.z[:, i : i + mean.shape[1]] * (0.5 * log_var).exp()
        return mean + self.noise[:, i : i + mean.shape[1]]

    def _moments(self) -> tuple[tuple, tuple]:
        """Mean and log-variance of target and draft at the proposals, each ``[b, k, D]``."""
        draft_mean, draft_log_var = self.drafted
        if draft_log_var is None:
            draft_log_var = torch.full_like(draft_mean, 2 * math.log(self.config.sigma))
        target = tuple(moment[:, : self.k].flatten(2) for moment in self.verified)
        return target, (draft_mean.flatten(2), draft_log_var.flatten(2))

    def test(self) -> Tensor:
        config, proposals = self.config, self.proposals.flatten(2)
        key = self.key[0], self.key[1][:, : self.k]
        log_u = noise.uniform(config.seed, noise.ACCEPTANCE, *key, 1).squeeze(-1).log()
        target_mean, draft_mean = self.verified[0][:, : self.k], self.drafted[0]
        self.squared = acceptance.mean_square(target_mean.flatten(2), draft_mean.flatten(2))
        if self.learned:
            passed = acceptance.accept_learned(proposals, *self._moments(), log_u, config.accept_bias)
        else:
            self.delta = self.rows.spread.whiten(draft_mean - target_mean).flatten(2)
            z = self.z[:, : self.k].flatten(2)
            passed = acceptance.accept_shared(z, self.delta, log_u, config.accept_bias)
        if config.accept_mse_tol > 0:
            distance = acceptance.mean_square(target_mean.flatten(2), proposals)
            passed = passed | (distance <= config.accept_mse_tol)
        return passed

    def emit(self, accepted: Tensor, limit: Tensor) -> Tensor:
        mean, log_var = self.verified
        # the target's own draws, from the same noise
        emitted = mean + (self.z * (0.5 * log_var).exp() if self.learned else self.noise)
        if not self.k:
            return emitted
        rejected = torch.nonzero(accepted < limit).squeeze(1)
        if len(rejected):
            rows, at = rejected.to(mean.device), accepted[rejected].to(mean.device)
            if self.learned:
                corrected, hit = self._residual(rows, at)
                self.rows.statistics.bound_hits = self.rows.statistics.bound_hits + hit.sum()
            else:
                z = acceptance.reflect(self.z[rows, at].flatten(1), self.delta[rows, at])
                z = z.unflatten(-1, self.shape).unsqueeze(1)
                corrected = mean[rows, at] + self.rows.spread.select(rejected).colour(z).squeeze(1)
            emitted[rows, at] = corrected
        if not self.learned:
            tested = torch.nonzero(torch.arange(self.k) < (accepted + 1).minimum(limit).unsqueeze(1), as_tuple=True)
            self.rows.statistics.distances.append(self.delta[tuple(t.to(mean.device) for t in tested)].norm(dim=-1))
        kept = torch.arange(self.k).unsqueeze(0) < accepted.unsqueeze(1)
        emitted[:, : self.k] = torch.where(kept[..., None, None].to(mean.device), self.proposals, emitted[:, : self.k])
        return emitted

    def _residual(self, rows: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        target, draft = (tuple(moment[rows, at] for moment in side) for side in self._moments())
        seed, most, size = self.config.seed, self.config.max_draws, self.shape.numel()
        key = self.key[0][rows], self.key[1][rows, at].unsqueeze(1)
        z = noise.normal(seed, noise.RESIDUAL, *key, most * size).to(target[0].dtype)
        u = noise.uniform(seed, noise.RESIDUAL_ACCEPTANCE, *key, most).squeeze(1)
        y, hit = acceptance.residual(z.view(len(rows), most, size), u, target, draft)
        return y.unflatten(-1, self.shape), hit


class _Rows:
    """The rows still decoding: their sessions, what they emitted, and what the models were conditioned on.

    The two differ in point mode, where an accepted proposal stays in the caches in place of the emitted mean. All
    bookkeeping of lengths is on the host.
    """

    def __init__(self, decoder: SpeculativeDecoder, context: Tensor, steps: int, series: Tensor):
        config, batch = decoder.config, len(context)
        self.context_len, self.steps, self.series = context.shape[1], steps, series
        self.spread = Spread(config.sigma, context)
        self.renorm_every = config.renorm_every
        self.at_once = decoder.draft.config.block_patches if decoder.draft.block else 1  # patches a draft pass
        self.stochastic = decoder.target.config.stochastic_head
        self.draft_stochastic = decoder.draft.config.stochastic_head
        self.index = torch.arange(batch)  # the rows' place in the forecast
        self.held = torch.full((batch,), self.context_len)  # patches of context and forecast
        self.start = torch.zeros(batch, dtype=torch.long)  # the first of them in the target's session
        # beside longer rows, a row near its horizon carries proposals that lie past it
        capacity = self.context_len + steps + min(config.k, steps)
        self.emitted = context.new_zeros(batch, capacity, *context.shape[2:])
        self.emitted[:, : self.context_len] = context
        self.shared = config.mode == "sample"  # there an accepted proposal is what is emitted
        self.conditioned = self.emitted  # another tensor as soon as they differ
        self.accepted = torch.zeros(batch, capacity, dtype=torch.bool)  # patches emitted after an accepted proposal
        self.forecast = context.new_empty(batch, steps, *context.shape[2:])
        self.target = open_session(decoder.target, context, capacity, config.rollout, config.attention_window)
        self.draft = open_draft(decoder.draft, context, capacity, self.target)
        # heads on the target's hidden states cannot propose before its first pass
        self.can_propose = not decoder.draft.reads_target
        self.statistics = Statistics.empty(config.k)
        self.statistics.squared = self.statistics.squared.to(context.device)
        self.statistics.accepted_patches = torch.empty(batch, steps, dtype=torch.bool)

    def prefill(self, samples: int) -> tuple[Tensor, Tensor | None]:
        """Both models take in the context; then every row becomes ``samples``. What follows the context is returned."""
        moments = self.target.extend(self.emitted[:, : self.context_len], 1)
        if self.can_propose:
            self.draft.extend(self.emitted[:, : self.context_len], 1)
        keys = path_series(self.series, samples)
        self._select(torch.arange(len(self.index)).repeat_interleave(samples))
        self.series = keys
        self.index = torch.arange(len(self.index))
        steps = self.forecast.shape[1:]
        self.forecast = self.forecast.new_empty(len(self.index), *steps)
        self.statistics.accepted_patches = torch.empty(len(self.index), self.steps, dtype=torch.bool)
        return tuple(None if m is None else m.repeat_interleave(samples, 0) for m in moments)

    def limit(self, plan: list[int]) -> Tensor:
        """Proposals for each row: never past its horizon or segment."""
        if not self.can_propose:
            return torch.zeros_like(self.held)
        left = self.left()
        return (left - 1).clamp(max=plan[int(left.max())])

    def left(self) -> Tensor:
        """Patches to the row's horizon or, with ``renorm_every``, to the end of its segment, whichever is nearer."""
        horizon = self.context_len + self.steps - self.held
        if not self.renorm_every:
            return horizon
        return horizon.minimum(self.renorm_every - self._segment() % self.renorm_every)

    def _segment(self) -> Tensor:
        return self.held - self.start - self.context_len

    def pending(self, session: Session, start: Tensor | int = 0) -> Tensor:
        """What the session has not taken in, after a rollback to where all rows lack equally many patches."""
        lack = int((self.held - start - session.lengths).max())
        session.rollback(self.held - start - lack)
        return take(self.emitted if session.emitted_only else self.conditioned, self.held - lack, lack)

    def target_pending(self) -> Tensor:
        """As :meth:`pending`; rows at the end of their segment form their window anew from emitted values."""
        due = torch.nonzero(self._segment() == self.renorm_every).squeeze(1) if self.renorm_every else ()
        if len(due):
            window = take(self.emitted, self.held - self.context_len, self.context_len)[due.to(self.emitted.device)]
            self.target.restart(window, due)
            self.start[due] = self.held[due] - self.context_len
            if len(due) == len(self.index):
                return window
            self.target.extend(window[:, :-1], 1, rows=due)  # so that no other row waits for this window
            self._count_pass(len(due))
        return self.pending(self.target, self.start)

    def _count_pass(self, rows: int) -> None:
        self.statistics.target_passes += 1
        self.statistics.row_passes += rows

    def commit(
        self,
        accepted: Tensor,
        limit: Tensor,
        proposals: Tensor | None,
        emitted: Tensor,
        squared: Tensor | None = None,
    ) -> None:
        """Row b gains the first ``accepted[b] + 1`` of ``emitted``; both sessions keep its accepted proposals."""
        k, end = emitted.shape[1] - 1, self.context_len + self.steps
        put(self.emitted, self.held, emitted)
        self._count_pass(len(self.index))
        self.statistics.rounds[k] += 1
        self.statistics.emitted += int(accepted.sum()) + len(accepted)
        if k:
            position = torch.arange(k)
            kept = position < accepted.unsqueeze(1)
            put(self.accepted, self.held, kept)
            self._count(kept, position < (accepted + 1).minimum(limit).unsqueeze(1), squared)
        held, self.held = self.held, self.held + accepted + 1
        finished = self.held == end
        if finished.all():
            self._leave(slice(None), self.index)
            self.index = self.index[:0]
            return
        if k:
            self._rollback(self.draft, held, accepted)
        self._rollback(self.target, held - self.start, accepted)
        self.can_propose = True
        if not self.shared:
            if self.conditioned is self.emitted:
                self.conditioned = self.emitted.clone()
            put(self.conditioned, held, emitted)
            if k:
                taken = torch.where(kept[..., None, None].to(emitted.device), proposals, emitted[:, :-1])
                put(self.conditioned, held, taken)
        if finished.any():  # these rows leave the batch
            off, on = (torch.nonzero(rows).squeeze(1) for rows in (finished, ~finished))
            self._leave(off, self.index[off])
            self._select(on)

    def _leave(self, rows: Tensor | slice, place: Tensor) -> None:
        """What was found of these rows goes to its place."""
        found = slice(self.context_len, self.context_len + self.steps)
        self.statistics.accepted_patches[place] = self.accepted[rows, found]
        if isinstance(rows, Tensor):
            rows = rows.to(self.emitted.device)
        self.forecast[place.to(self.emitted.device)] = self.emitted[rows, found]

    def _count(self, kept: Tensor, tested: Tensor, squared: Tensor) -> None:
        k, told = kept.shape[1], self.statistics
        told.draft_passes += -(-k // self.at_once)
        told.attempted[:k] += tested.sum(0)
        told.accepted[:k] += kept.sum(0)
        told.squared[:k] += (squared * tested.to(squared.device)).sum(0)

    @staticmethod
    def _rollback(session: Session, held: Tensor, accepted: Tensor) -> None:
        kept = session.lengths.minimum(held + accepted)
        session.rollback(session.lengths.minimum(held) if session.emitted_only else kept)
        session.features_at = kept  # heads on the target read on after the accepted, whatever the window slides over

    def _select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order."""
        self.index, self.held, self.start = self.index[rows], self.held[rows], self.start[rows]
        self.accepted, self.spread = self.accepted[rows], self.spread.select(rows)
        self.target.keep(rows)
        self.draft.keep(rows)
        rows = rows.to(self.emitted.device)
        self.emitted, self.series = self.emitted[rows], self.series[rows]
        self.conditioned = self.emitted if self.shared else self.conditioned[rows]  # copies in any case
