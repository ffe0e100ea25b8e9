"""Peak memory of one step."""

from __future__ import annotations

import math
import mmap
from functools import cache
from pathlib import Path

import torch

from geowarp_ros.memory import give_back_memory

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_MIB = 2.0**20


class PeakMemory:
    """Peak of resident memory (Linux) or of CUDA's allocations since ``start``, beyond what was held then.

    Memory that was freed but is still resident is given back before the first start, as its reuse would raise no
    peak. What is freed after the first start may be reused unseen.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = math.nan
        self._started = False

    def start(self) -> None:
        """Start a new peak."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = float(torch.cuda.memory_allocated(self._device))
            return
        if not self._started:  # once: what is given back must be fetched again, and takes time
            give_back_memory()
            self._started = True
        self._before = _reset_peak() if keeps_peak() else math.nan

    def peak_mib(self) -> float:
        """Return the MiB taken since ``start``; NaN where the system does not tell."""
        if self._device.type == "cuda":
            return (torch.cuda.max_memory_allocated(self._device) - self._before) / _MIB
        if math.isnan(self._before):
            return math.nan
        return max(0.0, _resident("VmHWM") - self._before) / _MIB


@cache
def keeps_peak() -> bool:
    """Return whether this system keeps a peak that can be reset; some sandboxes accept the reset and keep none.

    Tried once, with memory that is taken and given back.
    """
    before = _reset_peak()
    if math.isnan(before):
        return False
    size = 8 << 20
    with mmap.mmap(-1, size) as block:
        block.write(b"\1" * size)
    return _resident("VmHWM") - before > size / 2


def _reset_peak() -> float:
    """Reset the peak to what is resident now; return that in bytes, NaN where the system has no such reset."""
    try:
        _CLEAR.write_text("5")  # proc(5)
        return _resident("VmRSS")
    except OSError:  # not Linux, or not allowed to
        return math.nan


def _resident(name: str) -> float:
    """Return a line of the process's status, in bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) * 1024
    return math.nan
