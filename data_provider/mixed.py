"""Windows for pretraining on data of any frequency and length: real series, resampled, and generated ones."""

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor

from leapcast.data_provider import seasons
from leapcast.data_provider.data_loader import Series, by_context
from leapcast.data_provider.generated import KINDS, generate
from leapcast.models.layers.profile import seasonal_profile

RESAMPLED = {1: 4.0, 2: 1.0, 3: 1.0, 4: 1.0, 6: 1.0, 24: 1.0}  # rows that are averaged, and how often that is drawn
SHORT = 0.4  # of the batches have a context of any length, the others of at least two thirds of the longest
MIRRORED = 0.15  # of the windows of real series are turned upside down
CROPS = 2  # windows from each generated series
FAR = 30.0  # standard deviations of its context beyond which a value is clipped


class Mixed:
    """Univariate windows of random kinds; those of a batch have the same length, step and kind.

    The number of its first window determines a batch, so that an interrupted training repeats it.

    Args:
        series: the real series.
        split: of the real series, and another random sequence for each split.
        context, horizon: in time steps; contexts have from 2 patches up to ``context``.
        patch: time steps per patch.
        generated: share of batches of generated series.
        count: number of windows.
        profile: whether the seasonal profile of each context is taken out.
    """

    def __init__(
        self,
        series: list[Series],
        split: str,
        context: int,
        horizon: int,
        patch: int,
        generated: float,
        count: int,
        profile: bool,
        seed: int,
    ):
        self.context, self.horizon, self.patch, self.profile = context, horizon, patch, profile
        self.generated, self.count, self.seed = generated, count, (seed, len(split), ord(split[0]))
        self.real: list[tuple[np.ndarray, tuple[int, ...], float]] = []
        for one in series:
            first, end = one.borders[split]
            values = one.values[max(0, first - context) if split != "train" else first : end].double().numpy()
            for rows, weight in RESAMPLED.items():
                averaged = values[: len(values) // rows * rows].reshape(-1, rows, values.shape[1]).mean(1).T
                step = rows * one.step if isinstance(one.step, timedelta) else None
                if averaged.shape[1] >= 2 * patch + horizon:
                    self.real.append((averaged, tuple(seasons.candidates(step)[1]), weight / len(series)))

    def __len__(self) -> int:
        return self.count

    def all(self) -> Tensor:
        """The numbers of all windows."""
        return torch.arange(self.count)

    def order(self, generator: torch.Generator) -> Tensor:
        """The windows of one epoch, in their batches, which differ from epoch to epoch."""
        return torch.randint(2**40, (1,), generator=generator) * self.count + self.all()

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Windows of one kind: context ``[B, L, 1]``, truth ``[B, H, 1]``."""
        random = np.random.default_rng((*self.seed, int(index[0])))
        most = self.context // self.patch
        least = 2 if random.uniform() < SHORT else max(2, 2 * most // 3)
        context = int(random.integers(least, most + 1)) * self.patch
        draw: Callable = self.draw_generated if random.uniform() < self.generated or not self.real else self.draw_real
        values, lengths = draw(random, len(index), context)
        window = by_context(torch.from_numpy(values).unsqueeze(2), values.shape[1] - self.horizon).clamp(-FAR, FAR)
        context = values.shape[1] - self.horizon
        if self.profile:
            window = window - seasonal_profile(window[:, :context], lengths, self.horizon)
        before, after = window.float().split([context, self.horizon], 1)
        return before, after

    def draw_generated(self, random: np.random.Generator, count: int, context: int) -> tuple:
        """Standardised crops ``[count, context + horizon]`` of generated series, and their seasons."""
        kinds, shares = zip(*KINDS.values(), strict=True)
        lengths = kinds[random.choice(len(kinds), p=shares)]
        total = context + self.horizon
        series = generate(random, -(-count // CROPS), total * 3 // 2, lengths)
        series = (series - series.mean(1, keepdims=True)) / np.maximum(series.std(1, keepdims=True), 1e-9)
        if random.uniform() < 0.1:
            series = series.round(1)
        first = random.integers(0, series.shape[1] - total + 1, count)
        return self.crops(series[np.arange(count) // CROPS], first, total), lengths

    def draw_real(self, random: np.random.Generator, count: int, context: int) -> tuple:
        """Crops of one of the real series at one resolution, and its seasons; shorter where it has fewer rows."""
        weights = np.array([weight for *_, weight in self.real])
        values, lengths, _ = self.real[random.choice(len(self.real), p=weights / weights.sum())]
        context = min(context, (values.shape[1] - self.horizon) // self.patch * self.patch)
        total = context + self.horizon
        chosen = values[random.integers(0, len(values), count)]
        sign = np.where(random.uniform(size=(count, 1)) < MIRRORED, -1, 1)
        return sign * self.crops(chosen, random.integers(0, values.shape[1] - total + 1, count), total), lengths

    @staticmethod
    def crops(series: np.ndarray, first: np.ndarray, length: int) -> np.ndarray:
        return np.take_along_axis(series, first[:, None] + np.arange(length), 1)
