"""Contestants take turns, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from geowarp_ros.progress import Progress, silent
from geowarp_ros.types import FloatArray

Work = Callable[[], object]
Clock = Callable[[], float]

WALL: Clock = time.perf_counter
PROCESSOR: Clock = time.process_time
"""Of all threads together, without what the machine does for others: what is left to compare by on a busy one."""

CPU = torch.device("cpu")

_UNCOUNTED = {"cpu": 1, "cuda": 3}
"""Rounds by kind of device: a GPU's clocks rise, and its libraries choose their algorithms at each new shape."""


@dataclass(frozen=True, slots=True)
class Times:
    """What each contestant of one comparison took.

    Attributes:
        title: What is compared.
        baseline: The contestant that the others are divided by; one of ``ms``.
        ms: By contestant, (R,) milliseconds, one for each round.
    """

    title: str
    baseline: str
    ms: Mapping[str, FloatArray]

    def ratios(self, name: str) -> FloatArray:
        """(R,) this contestant's time over the baseline's of the same round."""
        return np.asarray(self.ms[name] / self.ms[self.baseline])

    def row(self, name: str) -> Row:
        """Return the summary of one contestant."""
        low, middle, high = np.percentile(self.ratios(name), (25, 50, 75))
        return Row(
            title=self.title,
            name=name,
            baseline=self.baseline,
            rounds=len(self.ms[name]),
            p50_ms=float(np.percentile(self.ms[name], 50)),
            p95_ms=float(np.percentile(self.ms[name], 95)),
            ratio=float(middle),
            ratio_low=float(low),
            ratio_high=float(high),
        )

    def rows(self) -> list[Row]:
        """Return the summary of every contestant, in the order they were given."""
        return [self.row(name) for name in self.ms]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table.

    Attributes:
        title: What is compared.
        name: The contestant.
        baseline: What ``ratio`` is over.
        rounds: How often each was measured.
        p50_ms: Median.
        p95_ms: 95th percentile; with few rounds, near the largest.
        ratio: Median over rounds of the time over the baseline's.
        ratio_low: Lower quartile of the same.
        ratio_high: Upper quartile.
    """

    title: str
    name: str
    baseline: str
    rounds: int
    p50_ms: float
    p95_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


def take_turns(
    title: str,
    contestants: Mapping[str, Work],
    baseline: str,
    rounds: int,
    clock: Clock = WALL,
    progress: Progress = silent,
    device: torch.device = CPU,
) -> Times:
    """Run every contestant once a round, each round in another order, after rounds that do not count.

    One does not on a CPU, three on CUDA, where the clock starts and stops while the device is idle.

    Args:
        title: What is compared.
        contestants: By name.
        baseline: One of the names.
        rounds: How many.
        clock: In seconds.
        progress: Shows the rounds.
        device: Where they compute.
    """
    names = list(contestants)
    if baseline not in names:
        raise KeyError(f"baseline {baseline!r} is none of {names}")
    order = np.random.default_rng(0)
    taken: dict[str, list[float]] = {name: [] for name in names}
    uncounted = _UNCOUNTED[device.type]
    for counted in progress(range(-uncounted, rounds), rounds + uncounted, title):
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
