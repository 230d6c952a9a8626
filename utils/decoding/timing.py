"""Wall-clock time of whole calls and of phases. Nothing here is called from models."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager

import torch


def clock(device: torch.device) -> float:
    """Seconds, after all work queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(call: Callable, device: torch.device, *args) -> tuple:
    """The call's result and its seconds."""
    start = clock(device)
    result = call(*args)
    return result, clock(device) - start


class PhaseTimer:
    """Seconds spent in each named phase: the decoder's ``trace``."""

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
    """How many times faster we are: the median of the per-batch ratios, and the ratio of the totals."""
    return statistics.median(b / o for b, o in zip(baseline, ours, strict=True)), sum(baseline) / sum(ours)
