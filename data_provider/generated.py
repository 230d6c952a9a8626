"""Generated series for pretraining: sums and products of random functions, trends, counts, intermittent demand.

In the spirit of KernelSynth (Ansari et al. 2024, https://arxiv.org/abs/2403.07815), components are samples of Gaussian
processes with the usual kernels (periodic, squared exponential, exponential, linear, white noise). They are drawn from
their spectra: a matrix of covariances would take a thousand times as long.
"""

import numpy as np
from numpy.random import Generator

# seasons in time steps of data with this step, and how often such data are drawn
KINDS = {
    "15min": ((96, 672), 0.12),
    "30min": ((48, 336), 0.08),
    "1h": ((24, 168), 0.44),
    "1D": ((7,), 0.16),
    "7D": ((52,), 0.06),
    "MS": ((12,), 0.06),
    "none": ((), 0.08),
}
LINKS = {"identity": 0.58, "exponential": 0.14, "counts": 0.12, "intermittent": 0.08, "at least 0": 0.08}


def generate(random: Generator, count: int, length: int, seasons: tuple[int, ...]) -> np.ndarray:
    """Series ``[count, length]`` float64, each a random sum of components, passed through a random link.

    Args:
        random: the only source of randomness.
        seasons: in time steps, the shortest first; seven times the shortest is a week, with levels and weekends.
    """

    series, weekend = np.zeros((count, length)), np.ones((count, length))

    def some(share: float) -> np.ndarray:
        return random.uniform(size=(count, 1)) < share

    def add(share: float, least: float, most: float, part: np.ndarray) -> None:
        nonlocal series
        series = series + some(share) * _between(random, least, most, count) * part

    for season in seasons:
        if season == 7 * seasons[0]:
            level, factor = week(random, count, length, seasons[0])
            series, weekend = series * factor, np.where(some(0.3), factor, 1)
            add(0.6, 0.2, 1.5, level)
            add(0.15, 0.2, 1, seasonal(random, count, length, season))
        else:
            add(0.85, 0.3, 3, seasonal(random, count, length, season))
    if not seasons or random.uniform() < 0.1:
        add(0.5, 0.3, 2, seasonal(random, count, length, int(random.integers(3, 200))))
    add(0.35, 0.2, 2, trend(random, count, length))
    add(0.4, 0.2, 2, smooth(random, count, length, 8, length))
    add(0.6, 0.2, 3, rough(random, count, length, 24, 8 * length))  # the longest are random walks
    add(0.6, 0.1, 1, rough(random, count, length, 1, 48))
    add(0.15, 0.5, 3, level_shifts(random, count, length))
    series = series * np.where(some(0.15), np.exp(0.5 * smooth(random, count, length, 24, length)), 1)
    heavy = np.where(some(0.2), random.standard_t(3, series.shape), random.standard_normal(series.shape))
    add(0.9, 0.02, 1, heavy * weekend)
    walk = np.cumsum(random.standard_normal(series.shape), 1)
    return linked(random, _unit(np.where(some(0.2), walk, series)))


def smooth(random: Generator, count: int, length: int, least: float, most: float) -> np.ndarray:
    """Samples with a squared exponential kernel; length scales log-uniform from ``least`` to ``most`` time steps."""
    return _coloured(
        random, count, length, lambda phase: np.exp(-((_between(random, least, most, count) * phase) ** 2) / 4)
    )


def rough(random: Generator, count: int, length: int, least: float, most: float) -> np.ndarray:
    """Samples with an exponential kernel (Ornstein-Uhlenbeck), with length scales as those of :func:`smooth`."""
    return _coloured(random, count, length, lambda phase: 1 / np.hypot(1, _between(random, least, most, count) * phase))


def seasonal(random: Generator, count: int, length: int, season: int) -> np.ndarray:
    """A periodic kernel; of some, shape and amplitude change slowly."""
    at = (np.arange(length) + random.integers(0, season, (count, 1))) % season
    first, second = (np.take_along_axis(shapes(random, count, season), at, 1) for _ in range(2))
    share = 1 / (1 + np.exp(-3 * smooth(random, count, length, 2 * season, 20 * season)))
    share = np.where(random.uniform(size=(count, 1)) < 0.3, share, 1)
    swell = smooth(random, count, length, season, 20 * season) * (random.uniform(size=(count, 1)) < 0.4)
    return (share * first + (1 - share) * second) * np.exp(0.4 * swell)


def shapes(random: Generator, count: int, season: int) -> np.ndarray:
    """One period each, ``[count, season]``: random harmonics, bumps, or hours of activity."""
    time = np.arange(season) / season
    harmonics = np.arange(1, max(1, min(season // 2, 24)) + 1)
    decay = np.exp(-harmonics / _between(random, 0.5, 8, count))
    cosines, sines = random.standard_normal((2, count, len(harmonics))) * decay
    angle = 2 * np.pi * np.outer(harmonics, time)
    wave = cosines @ np.cos(angle) + sines @ np.sin(angle)
    centre, width = random.uniform(0, 1, (count, 3, 1)), _between(random, 0.02, 0.2, count, 3)
    height = random.exponential(1, (count, 3, 1)) * (random.uniform(size=(count, 3, 1)) < 0.7)
    bumps = (height * np.exp((np.cos(2 * np.pi * (time - centre)) - 1) / (2 * np.pi * width) ** 2)).sum(1)
    middle, share = random.uniform(0, 1, (count, 1)), random.uniform(0.1, 0.9, (count, 1))
    edge = (np.cos(2 * np.pi * (time - middle)) - np.cos(np.pi * share)) / _between(random, 0.02, 0.4, count)
    active = 1 / (1 + np.exp(-np.clip(edge, -50, 50)))
    kind = random.choice(3, (count, 1), p=[0.5, 0.3, 0.2])
    return _unit(np.where(kind == 0, wave, np.where(kind == 1, bumps, active)))


def week(random: Generator, count: int, length: int, day: int) -> tuple[np.ndarray, np.ndarray]:
    """A level and an amplitude for each day of the week, the last two of which may be a weekend."""
    at = (np.arange(length) + random.integers(0, 7 * day, (count, 1))) // day % 7
    free = np.arange(7) >= 5
    lower = np.where(free, -1.5 * random.uniform(size=(count, 1)), 0)
    level = np.where(random.uniform(size=(count, 1)) < 0.6, lower, 0.3 * random.standard_normal((count, 7)))
    less = np.where(random.uniform(size=(count, 1)) < 0.36, np.exp(-random.exponential(0.7, (count, 1))), 1)
    return np.take_along_axis(level, at, 1), np.take_along_axis(np.where(free, less, 1), at, 1)


def trend(random: Generator, count: int, length: int) -> np.ndarray:
    """A straight line, for some with up to three bends."""
    time = np.linspace(-1, 1, length)
    slopes = random.standard_normal((count, 3, 1)) * (random.uniform(size=(count, 3, 1)) < 0.2)
    bends = (slopes * np.maximum(time - random.uniform(-1, 1, (count, 3, 1)), 0)).sum(1)
    return 1.5 * (random.standard_normal((count, 1)) * time + bends)


def level_shifts(random: Generator, count: int, length: int) -> np.ndarray:
    """Jumps at random times, of very different sizes from series to series."""
    jumps = random.uniform(size=(count, length)) < _between(random, 0.5, 8, count) / length
    return np.cumsum(jumps * random.standard_normal((count, length)) * _between(random, 0.5, 10, count), 1)


def linked(random: Generator, series: np.ndarray) -> np.ndarray:
    """Standardised series ``[count, length]`` through one of LINKS each; a few get outliers."""
    count = len(series)
    link = random.choice(len(LINKS), (count, 1), p=list(LINKS.values()))
    growth = np.exp(np.clip(_between(random, 0.3, 1.2, count) * series, -6, 5))
    rate = _between(random, 0.3, 500, count)
    chance = 1 / (1 + np.exp(-(series + random.uniform(-4, 0, (count, 1)))))
    demand = (random.uniform(size=series.shape) < chance) * (1 + random.poisson(rate / 50, series.shape))
    counts = random.poisson(np.minimum(rate * growth, 1e6))
    cut = np.maximum(series - random.uniform(-1, 0.7, (count, 1)), 0)
    series = np.choose(np.broadcast_to(link, series.shape), [series, growth, counts, demand, cut]).astype(np.float64)
    outliers = (random.uniform(size=series.shape) < 0.003) * random.standard_t(2, series.shape).clip(-20, 20)
    return series + (random.uniform(size=(count, 1)) < 0.06) * 2 * outliers * series.std(1, keepdims=True)


def _between(random: Generator, least: float, most: float, *shape: int) -> np.ndarray:
    """Log-uniform values ``[*shape, 1]``."""
    return np.exp(random.uniform(np.log(least), np.log(most), (*shape, 1)))


def _unit(series: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 along the last axis; constant series are 0."""
    series = series - series.mean(-1, keepdims=True)
    scale = series.std(-1, keepdims=True)
    return np.where(scale > 1e-9, series / np.maximum(scale, 1e-9), 0)


def _coloured(random: Generator, count: int, length: int, gain) -> np.ndarray:
    """White noise ``[count, length]`` filtered by ``gain(radians per time step)``, with unit variance."""
    spectrum = np.fft.rfft(random.standard_normal((count, 2 * length)))  # twice as long: it is periodic
    gains = gain(2 * np.pi * np.fft.rfftfreq(2 * length))
    power = (gains[:, [0, -1]] ** 2).sum(1) + 2 * (gains[:, 1:-1] ** 2).sum(1)
    return np.fft.irfft(spectrum * gains, 2 * length)[:, :length] / np.sqrt(power / (2 * length))[:, None]
