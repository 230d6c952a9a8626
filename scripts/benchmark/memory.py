"""Peak memory of one call, in a process that has done little else."""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import torch


def peak_mib(call: Callable, device: torch.device) -> float | None:
    """MiB that the call needs beyond what is held before it, at its highest; None where the system does not tell."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not count as held
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is held now
        before = _held("VmRSS")
    except (OSError, AttributeError):  # not Linux with glibc
        return None
    call()
    return (_held("VmHWM") - before) / 2**10


def _held(name: str) -> int:
    """KiB."""
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1))
