"""A plain implementation of the public speculative decoding scheme for forecasts, the baseline for comparisons."""

import math

import torch
from torch import Tensor

from leapcast.models.errors import UserError
from leapcast.models.layers.patches import paths, row_patches, row_series, windows_of
from leapcast.utils.decoding import noise
from leapcast.utils.decoding.acceptance import mean_square
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.statistics import Statistics


@torch.inference_mode()
def reference_speculative(
    target, draft, x: Tensor, steps: int, config: SpeculativeConfig, series: Tensor | None = None, beyond: bool = False
) -> tuple[Tensor, Statistics]:
    """Forecast ``steps`` patches with a sliding window, recomputing every window at all its positions.

    A round is K draft passes, one target pass over the K windows of every row in one batch and, for rows that accepted
    all, one more target pass for the patch after them. Mode ``sample`` reproduces an error of the public code: after a
    rejection it draws from the target instead of the residual distribution, so it is never lossless.

    Args:
        target, draft: Timer-XL models in evaluation mode, on the same device and with the same patch length P.
        x: ``[B, L, C]`` standardised context, L a multiple of the patch length.
        steps: patches to forecast, at least 1.
        config: mode, k, sigma (a number), accept_bias, accept_mse_tol and seed are used. An infinite tolerance accepts
            every proposal in both modes; mode ``point`` emits the target's means.
        series: ``[B]`` numbers that key the noise of each window; 0 … B - 1 by default.
        beyond: always propose K patches, even past the horizon; the excess is discarded.

    Returns:
        forecast ``[B, steps·P, C]`` and the statistics.

    Raises:
        UserError: a draft that proposes a block per call, or a calibrated sigma.
    """
    if draft.at_once != 1 or config.k is None or not isinstance(config.sigma, float) or config.steered:
        raise UserError(
            "the reference takes a draft that proposes patch by patch, one number as `sigma`, fixed, and one as `k`"
        )
    channels, sampling = target.config.channels, config.rule.draws
    context = row_patches(x, target.config)
    window, shape = context.shape[1], context.shape[2:]
    series = torch.arange(len(x), device=x.device) if series is None else series
    series = row_series(series, channels, x.shape[2])
    histories = [list(row) for row in context]  # the patches of each row
    statistics, attempted, counted = Statistics.empty(config.k), [0] * config.k, [0] * config.k
    squared = [0.0] * config.k
    while active := [b for b, history in enumerate(histories) if len(history) < window + steps]:
        done = [len(histories[b]) - window for b in active]
        k = config.k if beyond else min(config.k, steps - min(done) - 1)
        first = torch.tensor(done, device=x.device).unsqueeze(1)
        key = series[active].unsqueeze(1), first + torch.arange(k + 1, device=x.device)
        shift = context.new_zeros(len(active), k + 1, *shape)
        if sampling:
            shift = config.sigma * noise.patches(config.seed, *key, context)
            log_u = noise.uniform(config.seed, noise.ACCEPTANCE, *key, 1).squeeze(-1).log().tolist()
            redrawn = noise.normal(config.seed, noise.RESIDUAL, *key, shape.numel()).to(context).unflatten(-1, shape)

        span = torch.stack([torch.stack(histories[b][-window:]) for b in active])
        drafted = []
        for i in range(k):
            drafted.append(_next(draft, span[:, -window:]))
            span = torch.cat((span, (drafted[-1] + shift[:, i]).unsqueeze(1)), 1)
            statistics.draft_passes += 1
        if k:
            verified = _next(target, windows_of(span[:, :-1], window)).unflatten(0, (-1, k))
            _count(statistics, len(active))

        complete = []  # (row, noise of its next patch) of rows that accepted every proposal
        for j, b in enumerate(active):
            limit, accepted = k if beyond else min(k, steps - done[j] - 1), True
            for i in range(limit):
                proposal, target_mean, draft_mean = span[j, window + i], verified[j, i], drafted[i][j]
                accepted = False
                if not sampling or config.accept_mse_tol > 0:
                    accepted = float(mean_square(target_mean.flatten(), proposal.flatten())) <= config.accept_mse_tol
                if sampling and not accepted:
                    ratio = (proposal - draft_mean).square().sum() - (proposal - target_mean).square().sum()
                    ratio = ratio / (2 * config.sigma**2)
                    accepted = log_u[j][i] <= math.log(config.accept_bias) + float(ratio)
                attempted[i] += 1
                squared[i] += float(mean_square(target_mean.flatten(), draft_mean.flatten()))
                counted[i] += accepted
                if sampling and not accepted:
                    proposal = target_mean + config.sigma * redrawn[j, i]
                histories[b].append(proposal if sampling else target_mean)
                if not accepted:
                    break
            if accepted:
                complete.append((b, shift[j, limit]))
        if complete:
            means = _next(target, torch.stack([torch.stack(histories[b][-window:]) for b, _ in complete]))
            _count(statistics, len(complete))
            for (b, row_shift), mean in zip(complete, means, strict=True):
                histories[b].append(mean + row_shift)
    statistics.attempted, statistics.accepted = torch.tensor(attempted), torch.tensor(counted)
    statistics.squared = torch.tensor(squared, dtype=torch.double)
    statistics.emitted = steps * len(histories)
    forecast = torch.stack([torch.stack(history[window : window + steps]) for history in histories])
    return paths(forecast, 1, channels, x.shape[2]), statistics


def _next(model, windows: Tensor) -> Tensor:
    """The mean of the patch after each window: ``[B, N, C, P]`` -> ``[B, C, P]``."""
    return model.predict(windows)[0][:, -1]


def _count(statistics: Statistics, rows: int) -> None:
    statistics.target_passes += 1
    statistics.row_passes += rows
