"""Speculative decoding of patches: the draft proposes K, the target checks them in one pass.

Leviathan, Kalman, Matias 2023 (https://arxiv.org/abs/2211.17192), for continuous patches and for point forecasts.

With a tolerance the forecast differs from the target's own rollout: in point mode every emitted patch is the target's
mean given a prefix whose MSE is at most the tolerance per patch, and the differences can accumulate over many patches
without a bound. Records hold the measured difference (``accuracy.drift``).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from leapcast.models.errors import UserError
from leapcast.models.layers.patches import joined, paths, quantiles, row_patches, row_series, windows_together
from leapcast.models.sessions.base import Draft, Target
from leapcast.utils.decoding.batch import RaggedBatch
from leapcast.utils.decoding.checks import check_padding, check_pair, check_rollout, check_room, fitting
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.rules import Rule
from leapcast.utils.decoding.statistics import Outcome, Statistics
from leapcast.utils.decoding.target_alone import target_rollout

__all__ = ["SpeculativeConfig", "SpeculativeDecoder", "Statistics"]
Plan = list[int]  # patches to propose with 0 … steps patches left; the last is for the first round


class SpeculativeDecoder:
    """Forecasts with a target and a draft (protocols in ``models/sessions/base.py``).

    Args:
        target, draft: models in evaluation mode, on the same device and with the same patch length.
        config: see :class:`SpeculativeConfig`.
        trace: ``trace(phase)`` gives a context manager around each phase: "draft", "verify", "accept".
        rule: acceptance rule; by default that of ``config.mode``.

    Raises:
        UserError: a draft that does not fit the target or the configuration.
    """

    def __init__(
        self,
        target: Target,
        draft: Draft,
        config: SpeculativeConfig,
        trace: Callable[[str], AbstractContextManager] | None = None,
        rule: Rule | None = None,
    ):
        check_pair(target, draft, config)
        self.target, self.draft, self.config = target, draft, config
        self.trace = trace or (lambda phase: nullcontext())
        self.rule = rule or config.rule(config, target.config.stochastic_head)

    def generate(
        self, x: Tensor, steps: int | Tensor, series: Tensor | None = None, samples: int = 1
    ) -> tuple[Tensor, Statistics]:
        """Forecast ``steps`` patches.

        Args:
            x: ``[B, L, C]`` standardised context, L a multiple of the patch length P. Contexts of other lengths are
                padded on the left by patches of NaN, which are not read.
            steps: patches to forecast, at least 1; of each window, where it is ``[B]``.
            series: ``[B]`` numbers that key the noise of each window; 0 … B - 1 by default.
            samples: S sample paths per window, from one prefill.

        Returns:
            forecast ``[B, steps·P, C]``, or ``[B, S, steps·P, C]`` for S > 1, and the statistics. Where horizons
            differ, the furthest, and NaN beyond each window's own.

        Raises:
            UserError: an invalid shape, a rollout that is not exact for the target, or too little memory.
        """
        return in_parts(self.decode, self, x, steps, series, samples)

    @torch.inference_mode()
    def decode(
        self,
        x: Tensor,
        steps: int | Tensor,
        series: Tensor,
        samples: int = 1,
        plan: Plan | None = None,
        rule: Rule | None = None,
    ) -> tuple[Tensor, Statistics]:
        """As :meth:`generate`, with all windows in one batch.

        Args:
            plan: default: see :meth:`plan`.
            rule: replaces the decoder's acceptance rule.
        """
        config, rule, channels = self.config, rule or self.rule, self.target.config.channels
        horizons = torch.as_tensor(steps).expand(len(x)).cpu()
        plan = plan or self.plan(x, int(horizons.max()), samples)
        context, keys = row_patches(x, self.target.config), row_series(series, channels, x.shape[2])
        if not any(plan):
            return self.alone(x, horizons, series, samples)
        each = horizons.repeat_interleave(len(context) // len(x))
        batch = RaggedBatch(self.target, self.draft, config, rule, context, each, keys, max(plan))
        rounds: list[Outcome] = []
        if samples > 1:
            with self.trace("verify"):
                batch.split(samples)
        while len(batch):
            with self.trace("draft"):
                proposal = batch.propose(plan)
            with self.trace("verify"):
                verified = batch.verify(proposal)
            with self.trace("accept"):
                verdict = rule.judge(proposal, verified)
                rounds.append(Outcome.of(verdict, batch.target.restarted, batch.draft.asked))
                batch.advance(proposal, verdict)
        statistics = Statistics.of(rounds, config.k or max(plan), self.draft.at_once)
        statistics.accepted_patches, statistics.factors = batch.accepted_patches, [f.cpu() for f in batch.spread.course]
        statistics.quantiles = quantiles(batch.quantiles, channels, x.shape[2])
        return paths(batch.forecast, samples, channels, x.shape[2]), statistics

    def most(self, x: Tensor, steps: int, samples: int = 1) -> int:
        """K; as many proposals as there is memory for where it is not set."""
        most = min(self.config.most(self.draft.at_once, steps), steps - 1)
        return most if self.config.k else fitting(self.target.config, self.config, x, steps, samples, most)

    def plan(self, x: Tensor, steps: int, samples: int = 1) -> Plan:
        """K proposals, fewer near the horizon."""
        most = self.most(x, steps, samples)
        return [0, *(min(most, left) for left in range(steps))]

    def alone(self, x: Tensor, steps: int | Tensor, series: Tensor, samples: int = 1) -> tuple[Tensor, Statistics]:
        """The target's own rollout, without the draft; arguments and result as in :meth:`generate`."""
        channels, variables = self.target.config.channels, x.shape[2]
        with self.trace("verify"):
            keys = row_series(series, channels, variables)
            forecast, own = target_rollout(self.target, self.config, x, steps, keys, samples)
        each = torch.as_tensor(steps).expand(len(x)).repeat_interleave(len(forecast) // len(x))
        statistics = Statistics.alone(each, self.config.k or 0)
        statistics.quantiles = quantiles(own, channels, variables)
        return paths(forecast, samples, channels, variables), statistics


def in_parts(
    decode: Callable[..., tuple[Tensor, Statistics]],
    decoder: SpeculativeDecoder,
    x: Tensor,
    steps: int | Tensor,
    series: Tensor | None,
    samples: int,
) -> tuple[Tensor, Statistics]:
    """Check the arguments, ``decode`` the windows in parts of suitable size, and join the results."""
    target, config = decoder.target.config, decoder.config
    patch_len = target.input_token_len
    if x.ndim != 3 or x.shape[1] == 0 or x.shape[1] % patch_len:
        raise UserError(f"context of shape {list(x.shape)}: give [B, L, C], L a multiple of the patch, {patch_len}")
    steps = torch.as_tensor(steps).expand(len(x)).cpu()
    if (least := int(steps.min())) < 1:
        raise UserError(f"{least} patches to forecast: at least 1 is needed")
    furthest = int(steps.max())
    check_padding(target, x)
    check_rollout(target, x.shape[2], config)
    series = torch.arange(len(x), device=x.device) if series is None else series.to(x.device)
    together = windows_together(x, patch_len, furthest, samples)
    check_room(target, config, x, furthest, samples, together, decoder.most(x, furthest, samples))
    if len(x) <= together:
        return decode(x, steps, series, samples)
    each = zip(x.split(together), steps.split(together), series.split(together), strict=True)
    parts = [decode(*windows, samples) for windows in each]
    return joined([part[0] for part in parts], -2), Statistics.joined([part[1] for part in parts])
