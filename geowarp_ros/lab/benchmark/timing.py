"""Interleaved timing: contestants alternate, so background load affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from geowarp_ros.model.inference import Precision
from geowarp_ros.model.runtimes import Runtime
from geowarp_ros.progress import Progress, silent
from geowarp_ros.types import FloatArray

Work = Callable[[], object]
Clock = Callable[[], float]

WALL: Clock = time.perf_counter
PROCESSOR: Clock = time.process_time
"""CPU time of all threads, unaffected by other processes."""

CPU = torch.device("cpu")

_WARM_UP = {"cpu": 1, "cuda": 3}
"""Warm-up rounds by device type; on a GPU, clocks rise and algorithms are selected."""


@dataclass(frozen=True, slots=True)
class Times:
    """Run times of one comparison.

    Attributes:
        title: Title.
        baseline: Baseline contestant, a key of ``ms``.
        ms: By contestant, (R,) milliseconds per round.
    """

    title: str
    baseline: str
    ms: Mapping[str, FloatArray]

    def ratios(self, name: str) -> FloatArray:
        """Return the time of a contestant over the baseline's in the same round, (R,)."""
        return np.asarray(self.ms[name] / self.ms[self.baseline])

    def rows(self) -> list[dict[str, Any]]:
        """Summarise the contestants in order.

        Returns:
            One row per contestant: title, name, baseline, rounds (their number), p50_ms and p95_ms (median and
            95th percentile), and ratio, ratio_low and ratio_high: median and quartiles over the rounds of the
            ratio to the baseline.
        """
        found: list[dict[str, Any]] = []
        for name, ms in self.ms.items():
            p50_ms, p95_ms = np.percentile(ms, (50, 95)).tolist()
            low, middle, high = np.percentile(self.ratios(name), (25, 50, 75)).tolist()
            row = {"title": self.title, "name": name, "baseline": self.baseline, "rounds": len(ms)}
            row |= {"p50_ms": p50_ms, "p95_ms": p95_ms, "ratio": middle, "ratio_low": low, "ratio_high": high}
            found.append(row)
        return found


@dataclass(frozen=True, slots=True)
class Bench:
    """What the comparisons of a benchmark have in common.

    Attributes:
        rounds: Number of measured rounds.
        weights: Model file, used for the encoder that it has; empty: random weights, which take as long.
        precision: Precision of the networks.
        runtime: Runtime of the networks.
        device: Device of the networks and of the search.
        clock: Clock (s).
        progress: Shows the rounds.
    """

    rounds: int
    weights: str = ""
    precision: Precision = "float32"
    runtime: Runtime = "auto"
    device: torch.device = CPU
    clock: Clock = WALL
    progress: Progress = silent

    def compare(self, title: str, contestants: Mapping[str, Work], baseline: str) -> Times:
        """Let the contestants take turns; see :func:`take_turns`."""
        return take_turns(title, contestants, baseline, self.rounds, self.clock, self.progress, self.device)


def take_turns(
    title: str,
    contestants: Mapping[str, Work],
    baseline: str,
    rounds: int,
    clock: Clock = WALL,
    progress: Progress = silent,
    device: torch.device = CPU,
) -> Times:
    """Time every contestant once per round, in random order, after warm-up rounds.

    Args:
        title: Title of the comparison.
        contestants: Work by name.
        baseline: Name of the baseline.
        rounds: Number of measured rounds.
        clock: Clock (s).
        progress: Shows the rounds.
        device: Device, synchronised before and after each work.
    """
    names = list(contestants)
    if baseline not in names:
        raise KeyError(f"baseline {baseline!r} is none of {names}")
    order = np.random.default_rng(0)
    taken: dict[str, list[float]] = {name: [] for name in names}
    warm_up = _WARM_UP[device.type]
    for counted in progress(range(-warm_up, rounds), rounds + warm_up, f"{title}: rounds"):
        for name in (str(name) for name in order.permutation(names)):
            _wait_for(device)
            start = clock()
            contestants[name]()
            _wait_for(device)
            if counted >= 0:
                taken[name].append((clock() - start) * 1e3)
    return Times(title, baseline, {name: np.array(taken[name]) for name in names})


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
