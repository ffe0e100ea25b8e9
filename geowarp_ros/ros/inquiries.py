"""Who waits for the answer to an image: callers of ``~/localize``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from geowarp_ros.types import Answer, Header, NoFix


class Inquiries:
    """Callers that wait for an answer; any thread may call.

    An image that is young enough answers all of them: one that came at most ``max_age_s`` before the caller asked.

    Args:
        clock: Steady clock (s), that of the images' arrivals.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[tuple[float, Future[Answer]]] = []

    def __bool__(self) -> bool:
        """Whether anybody waits who has not given up."""
        with self._lock:
            self._waiting = [asked for asked in self._waiting if not asked[1].cancelled()]
            return bool(self._waiting)

    def ask(self, max_age_s: float) -> tuple[float, Future[Answer]]:
        """Ask for an answer; returns when its image must have come at the earliest (s), and what will hold it."""
        asked = self._clock() - max_age_s, Future[Answer]()
        with self._lock:
            self._waiting.append(asked)
        return asked

    def take(self, arrived_s: float) -> list[Future[Answer]]:
        """Return those whom an image that arrived then will answer; who has given up is left out."""
        with self._lock:
            taken = [future for earliest_s, future in self._waiting if arrived_s >= earliest_s]
            self._waiting = [asked for asked in self._waiting if asked[0] > arrived_s]
        return [future for future in taken if future.set_running_or_notify_cancel()]

    def refuse(self, why: str) -> None:
        """Answer whoever waits that there will be no answer."""
        for future in self.take(float("inf")):
            future.set_result(unanswered(why))


def unanswered(why: str) -> Answer:
    """Return the answer to a caller for whom there is none."""
    return Answer(Header(), NoFix("no_image", why))


@contextmanager
def telling(callers: Iterable[Future[Answer]]) -> Iterator[None]:
    """Raise what is raised to those who wait, too."""
    try:
        yield
    except Exception as error:
        for caller in callers:
            caller.set_exception(error)
        raise
