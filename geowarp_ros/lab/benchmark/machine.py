"""Description of the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from geowarp_ros import __version__

_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "asimd", "bf16")


def describe_machine() -> dict[str, str]:
    """Return what run times depend on: processor, instruction sets, threads, load, memory, GPU and versions."""
    about = _cpuinfo()
    found = {
        "processor": about.get("model name", platform.processor() or platform.machine()),
        "instructions": " ".join(word for word in _INSTRUCTIONS if word in about.get("flags", "").split()),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "load": " ".join(f"{value:.1f}" for value in os.getloadavg()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()} kernels",
        "onnxruntime": _version("onnxruntime"),
        "geowarp_ros": __version__,
    }
    return {name: value for name, value in found.items() if value}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _cpuinfo() -> dict[str, str]:
    """Return the fields of the first processor; empty except on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = [line.partition(":") for line in lines]
    return {name.strip(): value.strip() for name, _, value in pairs}
