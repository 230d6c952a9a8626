"""Speculative decoding of patches: the draft proposes K, the target checks them in one pass.

Leviathan, Kalman, Matias 2023 (https://arxiv.org/abs/2211.17192), for continuous patches and for point forecasts.

With a tolerance the forecast is not the target's own: every emitted patch is, on a prefix that is off by at most the
tolerance per patch, and over many patches the differences can add up without a bound. Records say by how much they did
(``accuracy.drift``).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from leapcast.models.errors import UserError
from leapcast.models.layers.patches import paths, row_patches, row_series, windows_together
from leapcast.models.sessions.base import Draft, Target
from leapcast.utils.decoding.batch import RaggedBatch
from leapcast.utils.decoding.checks import check_pair, check_rollout, check_room
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.rules import Rule
from leapcast.utils.decoding.statistics import Statistics
from leapcast.utils.decoding.target_alone import target_alone

__all__ = ["SpeculativeConfig", "SpeculativeDecoder", "Statistics"]
Plan = list[int]  # patches to propose with 0 … steps patches left; the last is for the first round


class SpeculativeDecoder:
    """Forecasts with a target and a draft (``models/sessions/base.py`` says what they offer).

    Args:
        target, draft: models in evaluation mode on one device, of one patch length.
        config: see :class:`SpeculativeConfig`.
        trace: ``trace(phase)`` gives a context manager around each phase: "draft", "verify", "accept".
        rule: judges proposals; default: the one that ``config.mode`` names.
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

        Raises:
            UserError: shapes that do not fit, a rollout that the target cannot follow, or too little memory.
        """
        return in_parts(self.decode, self, x, steps, series, samples)

    @torch.inference_mode()
    def decode(
        self,
        x: Tensor,
        steps: int,
        series: Tensor,
        samples: int = 1,
        plan: Plan | None = None,
        rule: Rule | None = None,
    ) -> tuple[Tensor, Statistics]:
        """As :meth:`generate`, of windows that are decoded together.

        Args:
            plan: default: K, as long as there is room.
            rule: in place of the decoder's.
        """
        config, rule, channels = self.config, rule or self.rule, self.target.config.channels
        plan = plan or [0, *(min(config.k, left) for left in range(steps))]
        context, keys = row_patches(x, self.target.config), row_series(series, channels, x.shape[2])
        if not any(plan):
            return self.alone(x, steps, series, samples)
        batch = RaggedBatch(self.target, self.draft, config, rule, context, steps, keys)
        statistics = Statistics.empty(config.k, x.device)
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
                statistics.count(verdict, batch.target.restarted, self.draft.at_once)
                batch.advance(proposal, verdict)
        statistics.accepted_patches = batch.accepted_patches
        return paths(batch.forecast, samples, channels, x.shape[2]), statistics.finished()

    def alone(self, x: Tensor, steps: int, series: Tensor, samples: int = 1) -> tuple[Tensor, Statistics]:
        """The target's own rollout, as it is without a draft: ``series`` ``[B]`` as in :meth:`generate`."""
        channels, variables = self.target.config.channels, x.shape[2]
        with self.trace("verify"):
            keys = row_series(series, channels, variables)
            forecast = target_alone(self.target, self.config, x, steps, keys, samples)
        statistics = Statistics.alone(self.config.k, len(forecast), steps)
        return paths(forecast, samples, channels, variables), statistics


def in_parts(
    decode: Callable[..., tuple[Tensor, Statistics]],
    decoder: SpeculativeDecoder,
    x: Tensor,
    steps: int,
    series: Tensor | None,
    samples: int,
) -> tuple[Tensor, Statistics]:
    """``decode`` of parts of the windows that are best decoded together, joined; what cannot be decoded is refused."""
    target, config = decoder.target.config, decoder.config
    patch_len = target.input_token_len
    if x.ndim != 3 or x.shape[1] == 0 or x.shape[1] % patch_len:
        raise UserError(f"context of shape {list(x.shape)}: give [B, L, C], L a multiple of the patch, {patch_len}")
    if steps < 1:
        raise UserError(f"{steps} patches to forecast: at least 1 is needed")
    check_rollout(target, x.shape[2], config)
    series = torch.arange(len(x), device=x.device) if series is None else series.to(x.device)
    together = windows_together(x, patch_len, steps, samples)
    check_room(target, config, x, steps, samples, together)
    if len(x) <= together:
        return decode(x, steps, series, samples)
    parts = zip(x.split(together), series.split(together), strict=True)
    forecasts, found = zip(*(decode(windows, steps, numbers, samples) for windows, numbers in parts), strict=True)
    return torch.cat(forecasts), Statistics.joined(found)
