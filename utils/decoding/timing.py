"""Wall-clock time of calls and of decoding phases."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager

import torch


def clock(device: torch.device) -> float:
    """Seconds on a monotonic clock, after synchronising the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(call: Callable, device: torch.device, *args) -> tuple:
    """The result of the call and its duration in seconds."""
    start = clock(device)
    result = call(*args)
    return result, clock(device) - start


class PhaseTimer:
    """Seconds spent in each named phase; pass it as the decoder's ``trace``."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, phase: str):
        start = clock(self.device)
        try:
            yield
        finally:
            self.seconds[phase] += clock(self.device) - start


def speedup(baseline: list[float], ours: list[float]) -> tuple[float, float]:
    """Speed-up over the baseline from seconds per batch: median of the ratios, and ratio of the totals."""
    return statistics.median(b / o for b, o in zip(baseline, ours, strict=True)), sum(baseline) / sum(ours)
