"""The seasonal profile of a context, which some models leave out of what they read and predict."""

import torch
from torch import Tensor

LATEST = 4  # of the longest season, how many are averaged; of shorter ones, all that the context holds


def seasonal_profile(context: Tensor, seasons: tuple[int, ...], steps: int) -> Tensor:
    """The seasonal part of each variable, over the context and ``steps`` time steps after it.

    Season by season, the shortest first: the mean deviation from the level of a season at each of its positions,
    without a linear trend, shrunk towards 0 as far as it may be chance (the positive-part estimator of James and Stein
    1961), and subtracted before the next season. Scaling and shifting a context scales its profile.

    Args:
        context: ``[B, L, C]``.
        seasons: in time steps; those that the context does not hold twice are left out.

    Returns:
        ``[B, L + steps, C]`` float64, with a mean of 0 over each season.
    """
    rest, length = context.double(), context.shape[1]
    profile = rest.new_zeros(len(rest), length + steps, rest.shape[2])
    for season in sorted(seasons):
        count = min(length // season, LATEST if season == max(seasons) else length)
        if count < 2 or season < 2:
            continue
        each = rest[:, length - count * season :].unflatten(1, (count, season))  # [B, count, season, C]
        shape = each - each.mean(2, keepdim=True) - ramp(each)
        mean = shape.mean(1)
        noise = (shape - mean.unsqueeze(1)).square().sum((1, 2)) / ((count - 1) * (season - 1) * count)
        power = mean.square().sum(1) / (season - 1)
        kept = (1 - noise / torch.where(power > 0, power, 1)).clamp(min=0)
        place = (torch.arange(length + steps, device=context.device) + count * season - length) % season
        part = (mean * kept.unsqueeze(1))[:, place]
        profile, rest = profile + part, rest - part[:, :length]
    return profile


def ramp(each: Tensor) -> Tensor:
    """What a linear trend through the levels of seasons ``[B, count, season, C]`` adds within a season."""
    count, season = each.shape[1:3]
    time = torch.arange(count, dtype=each.dtype, device=each.device) - (count - 1) / 2
    slope = (each.mean(2) * time[:, None]).sum(1) / (time.square().sum() * season)  # per time step, [B, C]
    within = torch.arange(season, dtype=each.dtype, device=each.device) - (season - 1) / 2
    return slope[:, None, None] * within[:, None]
