"""Limits of time: what there is time for before a deadline, fewer images a second. NumPy only."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from geowarp_ros.types import Answer, Deadline, NoDeadline, PoseMethod

WINDOW = 9
"""Number of images whose costs are remembered: load comes and goes."""

PESSIMISM = 0.8
"""Quantile of the remembered costs that is expected of the next image; the median is late every other time."""

RUNGS: dict[PoseMethod, str] = {"points": "pose", "anchors": "anchors"}
"""Rungs of the pose -> the stages that they take."""

FADING = 0.99
"""Factor on the remembered costs of a rung with every image that has no time for it: the load may have gone."""


class Pace:
    """Learns from recent answers what there is time for by a deadline.

    Later rungs are dropped first: a candidate is re-ranked if there is time for the verification and the position
    after it, a rung of the pose if there is time for it and the position when its turn comes.

    A candidate's cost is the duration of re-ranking over the number re-ranked. What does not depend on that number
    (the query's share) is spread over it: if few are re-ranked each looks more expensive than it is, so the choice
    errs towards too few.

    Args:
        clock: Steady clock (s).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.forget()

    def deadline(self, at_s: float | None) -> Deadline:
        """Return what tells the localizer what there is time for.

        Args:
            at_s: Time by the clock (s) at which the answer is due; None: no deadline.
        """
        return NoDeadline() if at_s is None else _Due(at_s, self._clock, self._each_s, self._stages_s)

    def learn(self, answer: Answer) -> None:
        """Take the durations of an answer: of re-ranking, and of what comes after it."""
        header = answer.header
        for rung, stage in RUNGS.items():
            if rung in header.dropped:
                costs_s = self._stages_s.get(stage, deque())
                costs_s.extend([costs_s.popleft() * FADING for _ in range(len(costs_s))])
        if header.reranked:
            self._each_s.append(max(header.timing_ms["rerank"] / header.reranked, 1e-6) * 1e-3)
            for stage, duration_ms in header.timing_ms.items():
                if stage not in {RUNGS[rung] for rung in RUNGS if rung in header.dropped}:
                    self._stages_s.setdefault(stage, deque(maxlen=WINDOW)).append(duration_ms * 1e-3)

    def forget(self) -> None:
        """Forget the durations."""
        self._each_s: deque[float] = deque(maxlen=WINDOW)
        self._stages_s: dict[str, deque[float]] = {}


@dataclass(frozen=True, slots=True)
class _Due:
    """A deadline by what has been learned.

    Attributes:
        at_s: When the answer is due, by the clock.
        clock: Steady clock (s).
        each_s: Recent costs of re-ranking a candidate.
        stages_s: Recent costs of each stage.
    """

    at_s: float
    clock: Callable[[], float]
    each_s: deque[float]
    stages_s: Mapping[str, deque[float]]

    def __call__(self) -> int | None:
        """Number of candidates to re-rank; None before anything was learned."""
        if not self.each_s:
            return None
        left_s = self.at_s - self.clock() - self._cost_s("verify") - self._cost_s("position")
        return max(1, int(min(left_s / np.quantile(self.each_s, PESSIMISM), 1e6)))

    def affords(self, rung: PoseMethod, /) -> bool:
        """Whether a rung will be done in time; one that was never tried costs nothing."""
        return self.clock() + self._cost_s(RUNGS[rung]) + self._cost_s("position") <= self.at_s

    def _cost_s(self, stage: str) -> float:
        costs_s = self.stages_s.get(stage)
        return float(np.quantile(costs_s, PESSIMISM)) if costs_s else 0.0


class Throttle:
    """Limits the rate of items.

    Items are due at equal distances and may come half a period early, so that a camera at the very rate, with its
    jitter, loses none; in T seconds at most 1.5 more than T times the rate pass.

    Args:
        clock: Steady clock (s).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due_s, self._rate_hz = -np.inf, 0.0

    def passes(self, max_rate_hz: float) -> bool:
        """Return whether an item that comes now is let through; a rate of 0 lets all through."""
        if max_rate_hz <= 0:
            return True
        if max_rate_hz != self._rate_hz:
            self._rate_hz, self._due_s = max_rate_hz, -np.inf
        now, period_s = self._clock(), 1.0 / max_rate_hz
        if now < self._due_s - period_s / 2:
            return False
        self._due_s = max(self._due_s, now) + period_s
        return True
