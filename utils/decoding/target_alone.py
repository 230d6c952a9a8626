"""The target-only baseline: the target's own rollout in a mode, without a draft."""

import torch
from torch import Tensor

from leapcast.models.layers.patches import paths, row_patches, row_series, shared
from leapcast.models.sessions.base import Draw, Target
from leapcast.utils.decoding.checks import check_room
from leapcast.utils.decoding.config import SpeculativeConfig
from leapcast.utils.decoding.covariance import Spread
from leapcast.utils.decoding.noise import PathNoise, path_series
from leapcast.utils.decoding.rollout import autoregress
from leapcast.utils.decoding.round import Place, Verified


def target_draw(config: SpeculativeConfig, series: Tensor, context: Tensor, steps: int, samples: int = 1) -> Draw:
    """The ``draw`` of :func:`autoregress` for the target alone in this mode.

    In sample mode it uses the same noise as the speculative decoder, so that the paths of both are close where most
    proposals are accepted.

    Args:
        config: mode, sigma and seed are used.
        series: ``[rows]``, keys the noise.
        context: ``[rows, N, C, P]``.
        samples: S paths per row.
        steps: patches to forecast.
    """
    rule = config.rule(config)
    rows = torch.arange(len(series)).repeat_interleave(samples)
    series, spread = path_series(series, samples), Spread(config.sigma, context).select(rows)
    draws = PathNoise(config.seed, series, steps, context) if rule.draws else None
    rows = torch.arange(len(series), device=series.device)

    def draw(i: int, mean: Tensor, log_var: Tensor | None) -> Tensor:
        done = torch.tensor([i], device=series.device)
        z = draws.take(rows, done, mean.shape[1]) if draws else None
        return rule.own(rule.noise(Place(series, done, spread, z)), Verified(mean, log_var))

    return draw


@torch.inference_mode()
def target_rollout(
    target: Target, config: SpeculativeConfig, x: Tensor, steps: int | Tensor, series: Tensor, samples: int = 1
) -> tuple[Tensor, Tensor | None]:
    """The target's own rollout of ``[B, L, C]`` in this mode: ``[rows · S, steps, C, P]``, and its own quantiles.

    ``series`` ``[rows]`` keys the noise, see :func:`target_draw`; quantiles: see :meth:`TargetSession.own_quantiles`.
    Where ``steps`` is ``[B]``, both are NaN beyond the horizon of a window.

    Raises:
        UserError: too little memory.
    """
    horizons = torch.as_tensor(steps).expand(len(x))
    furthest = int(horizons.max())
    check_room(target.config, config, x, furthest, samples, len(x))
    context = row_patches(x, target.config)
    session = target.open_target(context, context.shape[1] + furthest, config)
    patches = autoregress(session, context, furthest, target_draw(config, series, context, furthest, samples), samples)
    own = session.own_quantiles(slice(None), furthest)
    if shared(horizons) is None:
        each = horizons.repeat_interleave(len(patches) // len(x)).unsqueeze(1)
        beyond = (torch.arange(furthest) >= each).to(patches.device)[..., None, None]
        patches = patches.masked_fill(beyond, torch.nan)
        own = own if own is None else own.masked_fill(beyond.unsqueeze(-1), torch.nan)
    return patches, own


def target_alone(
    target: Target, config: SpeculativeConfig, x: Tensor, steps: int, series: Tensor, samples: int = 1
) -> Tensor:
    """:func:`target_rollout` without the quantiles."""
    return target_rollout(target, config, x, steps, series, samples)[0]


def target_forecast(
    target: Target, config: SpeculativeConfig, x: Tensor, steps: int, series: Tensor, samples: int = 1
) -> Tensor:
    """:func:`target_alone` of windows numbered by ``series`` ``[B]``: ``[B, H, C]``, or ``[B, S, H, C]`` for S > 1."""
    channels, variables = target.config.channels, x.shape[2]
    patches = target_alone(target, config, x, steps, row_series(series, channels, variables), samples)
    return paths(patches, samples, channels, variables)
