"""Fewer candidates re-ranked where time runs out. NumPy only."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from geowarp_ros.types import Candidate

if TYPE_CHECKING:
    from geowarp_ros.model.describer import Query
    from geowarp_ros.rerank import Reranker

WINDOW = 9
"""Images whose costs are remembered: load comes and goes."""

PESSIMISM = 0.8
"""Quantile of the remembered costs that is expected of the next image; the median is late every other time."""


class Pace:
    """Re-ranks as many candidates as there is time for.

    A candidate's cost is learned from recent images, as duration over number. What is the same for any number (the
    query's share) is spread over them: where few are re-ranked each looks dearer than it is, so the choice errs
    towards too few.

    Args:
        most: How many the re-ranker looks at; None for one whose cost does not depend on their number.
        clock: Steady, in seconds.
    """

    def __init__(self, most: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._costs_s: deque[float] = deque(maxlen=WINDOW)
        self._afterwards_s: deque[float] = deque(maxlen=WINDOW)

    def __call__(
        self, reranker: Reranker, query: Query, candidates: Sequence[Candidate], deadline_s: float | None = None
    ) -> list[Candidate]:
        """Re-rank the candidates, or the first of them; the rest keep their order behind them.

        Args:
            reranker: What compares.
            query: The image.
            candidates: Retrieval's, best first.
            deadline_s: By the clock; None: all the time that it takes.
        """
        count = self.affordable(deadline_s)
        handed = candidates if count is None else candidates[:count]
        began = self._clock()
        ranked = reranker(query, handed)
        if self._most is not None and handed:
            self._costs_s.append((self._clock() - began) / min(len(handed), self._most))
        return [*ranked, *candidates[len(handed) :]]

    def affordable(self, deadline_s: float | None) -> int | None:
        """How many can be re-ranked until then, at least one; None: as many as there are."""
        if deadline_s is None or self._most is None or not self._costs_s:
            return None
        cost_s = float(np.quantile(self._costs_s, PESSIMISM))
        left_s = deadline_s - self._clock()
        if self._afterwards_s:
            left_s -= float(np.quantile(self._afterwards_s, PESSIMISM))
        if left_s >= self._most * cost_s:
            return None
        return max(1, int(left_s / cost_s))

    @contextmanager
    def afterwards(self) -> Iterator[None]:
        """Learn how long what is done within takes: so much is kept for it."""
        began = self._clock()
        yield
        self._afterwards_s.append(self._clock() - began)

    def forget(self) -> None:
        """Forget the costs: the first image pays for lazy initialisation, too."""
        self._costs_s.clear()
        self._afterwards_s.clear()


class Throttle:
    """Lets items through at a greatest rate.

    Items are due at equal distances and may come half a period early, so that a camera at the very rate, with its
    jitter, loses none; in T seconds at most 1.5 more than T times the rate pass.

    Args:
        clock: Steady, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due_s, self._rate_hz = -np.inf, 0.0

    def passes(self, max_rate_hz: float) -> bool:
        """Whether an item that comes now is let through; 0 lets all through."""
        if max_rate_hz <= 0:
            return True
        if max_rate_hz != self._rate_hz:
            self._rate_hz, self._due_s = max_rate_hz, -np.inf
        now, period_s = self._clock(), 1.0 / max_rate_hz
        if now < self._due_s - period_s / 2:
            return False
        self._due_s = max(self._due_s, now) + period_s
        return True
