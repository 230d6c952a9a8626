"""Statistics by which patches are normalised and predictions denormalised.

All tensors are time-major: patches are ``[B, T, C, P]``, statistics per patch and variable ``[B, T, C]``.
"""

import torch
from torch import Tensor

WINDOW_EPS = 1e-5  # added to the variance by the public Timer-XL code
CAUSAL_EPS = 1e-2  # larger: the first patches have few values, and a constant patch must stay bounded


def patch_moments(patches: Tensor) -> Tensor:
    """Variance and mean of every patch: ``[B, T, C, P]`` -> ``[B, T, C, 2]``."""
    return torch.stack(torch.var_mean(patches, -1, correction=0), -1)


def window_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all T patches: ``[B, T, C, P]`` -> two of ``[B, 1, C]``."""
    mean = patches.mean((1, 3), keepdim=True)
    variance = (patches - mean).square().mean((1, 3), keepdim=True)
    return mean.squeeze(-1), (variance + WINDOW_EPS).sqrt().squeeze(-1)


def sample_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`window_statistics`, with the sample standard deviation (n - 1) and no epsilon; 1 where it is 0."""
    scale, mean = torch.std_mean(patches, (1, 3), correction=1)
    return mean.unsqueeze(1), torch.where(scale > 0, scale, 1.0).unsqueeze(1)


def running_statistics(moments: Tensor, window: int, first: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the last N patches up to and including each of T positions.

    The moments of patches are combined (Chan, Golub, LeVeque 1983); differences of prefix sums would suffer from
    cancellation on raw data.

    Args:
        moments: ``[B, N - 1 + T, C, 2]`` from :func:`patch_moments`, beginning N - 1 patches before the first
            position; patches before the start of a series are ignored.
        window: N.
        first: ``[B]`` or ``[1]``, the index of the first of the T positions in its series, from 0 (below 0: padding,
            whose statistics have no meaning); None if it is at least N - 1 for all.

    Returns:
        mean and standard deviation, each ``[B, T, C]``.
    """
    windows = moments.unfold(1, window, 1)  # [B, T, C, 2, N]
    variances, means = windows.unbind(3)
    if first is None:
        between, mean = torch.var_mean(means, -1, correction=0)
        return mean, (variances.mean(-1) + between + CAUSAL_EPS).sqrt()
    position = first.unsqueeze(1) + torch.arange(windows.shape[1], device=first.device)  # [B, T]
    slot = position.unsqueeze(-1) + torch.arange(1 - window, 1, device=first.device)  # [B, T, N]
    exists = (slot >= 0).unsqueeze(2).to(moments.dtype)  # [B, T, 1, N]
    count = exists.sum(-1).clamp(min=1)
    mean = (means * exists).sum(-1) / count
    between = (means - mean.unsqueeze(-1)).square() * exists
    variance = ((variances * exists).sum(-1) + between.sum(-1)) / count
    return mean, (variance + CAUSAL_EPS).sqrt()


def cumulative_sums(tokens: Tensor, before: Tensor | None = None) -> Tensor:
    """Number, sum and sum of squares of all values up to and including each token; NaN is padding.

    They are float64: in float32 the variance of values far from 0 would be lost.

    Args:
        tokens: ``[B, T, values]``.
        before: ``[B, 1, 3]``, the sums before the first token.

    Returns:
        ``[B, T, 3]`` float64.
    """
    values = tokens.double()
    sums = torch.stack(((~values.isnan()).double().sum(-1), values.nansum(-1), values.square().nansum(-1)), -1)
    sums = sums.cumsum(1)
    return sums if before is None else sums + before


def statistics_of_sums(sums: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation from :func:`cumulative_sums` ``[B, T, 3]``, 0 before the first value."""
    number, total, squares = sums.unbind(-1)
    number = number.clamp(min=1)
    mean = total / number
    return mean.to(dtype), (squares / number - mean.square()).clamp(min=0).sqrt().to(dtype)
