"""How much memory one step takes."""

from __future__ import annotations

import math
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_MIB = 2.0**20


class PeakMemory:
    """Peak of resident memory (Linux) or of CUDA's allocations since ``start``, beyond what was held then."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = math.nan

    def start(self) -> None:
        """Begin to watch."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = float(torch.cuda.memory_allocated(self._device))
            return
        try:
            _CLEAR.write_text("5")  # resets the peak, proc(5)
            self._before = _resident("VmRSS")
        except OSError:  # not Linux, or not allowed to
            self._before = math.nan

    def peak_mib(self) -> float:
        """Return the MiB taken since ``start``; NaN where the system does not tell."""
        if self._device.type == "cuda":
            return (torch.cuda.max_memory_allocated(self._device) - self._before) / _MIB
        if math.isnan(self._before):
            return math.nan
        return max(0.0, _resident("VmHWM") - self._before) / _MIB


def _resident(name: str) -> float:
    """Return a line of the process's status, in bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) * 1024
    return math.nan
