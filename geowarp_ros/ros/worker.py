"""One thread that works on the newest item and lets older ones go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestWorker(Generic[T]):
    """Calls ``handle`` in its own thread, with the newest item each time; there is one slot and no queue.

    A queue would only add age: by the time the third image in line is localised the robot has moved on.
    """

    def __init__(self, handle: Callable[[T], None]) -> None:
        self._handle = handle
        self._wake = threading.Condition()
        self._waiting: list[T] = []
        self._stopped = False
        # daemon: a localisation that hangs in native code must not keep the process from ending
        self._thread = threading.Thread(target=self._run, name="localize", daemon=True)

    def start(self) -> None:
        """Begin to take items."""
        self._thread.start()

    def put(self, item: T) -> int:
        """Leave an item for the thread; returns how many older ones (0 or 1) it displaced."""
        with self._wake:
            displaced = len(self._waiting)
            self._waiting = [item]
            self._wake.notify()
        return displaced

    def clear(self) -> int:
        """Forget the item that waits; returns how many (0 or 1) there were."""
        with self._wake:
            forgotten = len(self._waiting)
            self._waiting = []
        return forgotten

    def stop(self, timeout_s: float | None = None) -> bool:
        """Take no more; wait for the item in hand. Returns False when it took longer than ``timeout_s``."""
        with self._wake:
            self._stopped = True
            self._waiting = []
            self._wake.notify()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                item = self._waiting.pop()
            self._handle(item)
