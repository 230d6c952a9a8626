"""Random numbers keyed by (seed, stream, series, patch), never by batch or order.

Ragged, resumed and distributed runs therefore draw the same numbers. The generator hashes a counter with the finaliser
of SplitMix64 (Steele, Lea, Flood 2014), in 64-bit arithmetic with wrap-around.
"""

import torch
from torch import Tensor

PROPOSAL, ACCEPTANCE, RESIDUAL, RESIDUAL_ACCEPTANCE = range(4)  # streams
PATHS = 2**40  # offset between the noise keys of the sample paths of one series
_GAMMA = 0x9E3779B97F4A7C15 - 2**64


def _mix(x: Tensor) -> Tensor:
    def shifted(bits: int) -> Tensor:  # a logical shift; >> on signed integers is arithmetic
        return (x >> bits) & (2 ** (64 - bits) - 1)

    x = (x ^ shifted(30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ shifted(27)) * (0x94D049BB133111EB - 2**64)
    return x ^ shifted(31)


def uniform(seed: int, stream: int, series: Tensor, patch: Tensor, count: int) -> Tensor:
    """float64 ``[B, n, count]`` in (0, 1): ``count`` numbers per series ``[B, 1]`` and patch ``[1 or B, n]``."""
    key = _mix(torch.tensor(seed, device=series.device) * _GAMMA + stream)
    key = _mix(_mix(key + series * _GAMMA) + patch * _GAMMA)
    element = torch.arange(1, count + 1, device=series.device) * _GAMMA
    bits = _mix(key.unsqueeze(-1) + element)
    return (((bits >> 12) & (2**52 - 1)).double() + 0.5) * 2.0**-52  # never 0, never 1


def normal(seed: int, stream: int, series: Tensor, patch: Tensor, count: int) -> Tensor:
    """Standard normal numbers; arguments and shape as in :func:`uniform`."""
    return torch.special.ndtri(uniform(seed, stream, series, patch, count))


def patches(seed: int, series: Tensor, patch: Tensor, like: Tensor) -> Tensor:
    """Standard normal noise ``[b, n, C, P]`` with C, P and dtype of ``like``; keys as in :func:`uniform`."""
    shape = like.shape[2:]
    return normal(seed, PROPOSAL, series, patch, shape.numel()).to(like.dtype).unflatten(-1, shape)


class PathNoise:
    """The noise of sample paths, drawn once for all rounds, each of which reads a part.

    Args:
        seed: as in :func:`patches`.
        series: ``[rows]``, keys the noise.
        count: patches per row.
        like: gives C, P and the dtype, as in :func:`patches`.
    """

    def __init__(self, seed: int, series: Tensor, count: int, like: Tensor):
        self.seed, self.series, self.count, self.like = seed, series, count, like[:1, :1]
        self.z: Tensor | None = None

    def of(self, series: Tensor) -> "PathNoise":
        """The noise of other paths of the same size."""
        return PathNoise(self.seed, series, self.count, self.like)

    def take(self, rows: Tensor, first: Tensor, count: int) -> Tensor:
        """Standard normal ``[b, count, C, P]`` of these rows, from patch ``first[b]`` on (one for all if ``[1]``)."""
        device = self.series.device
        if self.z is None:
            self.z = patches(self.seed, self.series.unsqueeze(1), torch.arange(self.count, device=device), self.like)
        place = rows.to(device).unsqueeze(1)
        return self.z[place, first.to(device).unsqueeze(1) + torch.arange(count, device=device)]


def path_series(series: Tensor, samples: int) -> Tensor:
    """Noise keys of S sample paths per row: ``[rows]`` -> ``[rows · S]``."""
    return (series.unsqueeze(1) + PATHS * torch.arange(samples, device=series.device)).flatten()
