"""How many threads the libraries compute with: torch, OpenCV, FAISS and, as torch has it, ONNX Runtime."""

from __future__ import annotations

import math
import os
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUP, _OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def use_threads(setting: int) -> int:
    """Let every library of this process compute with so many threads; returns their number.

    Args:
        setting: Number of threads; 0: :func:`own_cores`.
    """
    import cv2
    import faiss
    import torch

    count = setting or own_cores()
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    faiss.omp_set_num_threads(count)
    return count


def own_cores() -> int:
    """Return the number of physical cores that this process may use, at least 1.

    Affinity, the quota of its control group and OMP_NUM_THREADS limit it; two threads of a core count once.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_read(_TOPOLOGY / f"cpu{number}/topology/thread_siblings_list") or str(number) for number in allowed}
    limits = [float(len(cores)), *_quotas()]
    if (told := os.environ.get("OMP_NUM_THREADS", "").split(",")[0]).isdecimal():
        limits.append(float(told))
    return max(1, math.floor(min(limits)))


def _quotas() -> list[float]:
    """Return the limits, in cores, of this process's control group and those above it (cgroup v2)."""
    line = next((line for line in _read(_OWN_CGROUP).splitlines() if line.startswith("0::")), "")
    group = _CGROUP / line.removeprefix("0::").lstrip("/")
    quotas = []
    for folder in (group, *group.parents):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdecimal() and period.isdecimal():
            quotas.append(int(quota) / int(period))
    return quotas


def _read(path: Path) -> str:
    """Return the text of a file; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
