"""Limits of time: fewer candidates to re-rank before a deadline, fewer images a second. NumPy only."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np

from geowarp_ros.types import Answer

WINDOW = 9
"""Number of images whose costs are remembered: load comes and goes."""

PESSIMISM = 0.8
"""Quantile of the remembered costs that is expected of the next image; the median is late every other time."""


class Pace:
    """Learns from recent answers how many candidates can be re-ranked by a deadline.

    A candidate's cost is the duration of re-ranking over the number re-ranked. What does not depend on that number
    (the query's share) is spread over it: if few are re-ranked each looks more expensive than it is, so the choice
    errs towards too few.

    Args:
        clock: Steady clock (s).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.forget()

    def deadline(self, at_s: float | None) -> Callable[[], int | None]:
        """Return what tells the localizer how many candidates there is time for.

        Args:
            at_s: Time by the clock (s) at which the answer is due; None: no deadline.

        Returns:
            A function to call just before re-ranking: a number of candidates, at least 1; None without a deadline
            or before anything was learned.
        """

        def affordable() -> int | None:
            learned_s = self._learned_s  # another thread may forget it
            if at_s is None or not learned_s:
                return None
            each_s, afterwards_s = np.quantile(learned_s, PESSIMISM, axis=0)
            return max(1, int(min((at_s - self._clock() - afterwards_s) / each_s, 1e6)))

        return affordable

    def learn(self, answer: Answer) -> None:
        """Take the durations of an answer: of re-ranking, and of what comes after it."""
        header = answer.header
        if header.reranked:
            afterwards_ms = sum(header.timing_ms.get(stage, 0.0) for stage in ("verify", "pose", "position"))
            each_ms = max(header.timing_ms["rerank"] / header.reranked, 1e-6)
            self._learned_s.append((each_ms * 1e-3, afterwards_ms * 1e-3))

    def forget(self) -> None:
        """Forget the durations."""
        self._learned_s: deque[tuple[float, float]] = deque(maxlen=WINDOW)


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
