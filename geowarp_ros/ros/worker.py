"""One thread that works on the newest item; older ones are dropped."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestWorker(Generic[T]):
    """Calls ``handle`` with the newest item, in a thread of its own; there is one slot and no queue.

    A queue would only add age: by the time the third image in line is localised the robot has moved on. The thread
    runs in the context (:mod:`contextvars`) in which the worker was made.
    """

    def __init__(self, handle: Callable[[T], None]) -> None:
        self._handle = handle
        self._wake = threading.Condition()
        self._waiting: list[T] = []
        self._stopped = False
        run = contextvars.copy_context().run
        # daemon: a localisation that hangs in native code must not keep the process alive
        self._thread = threading.Thread(target=run, args=(self._run,), name="localize", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, item: T) -> int:
        """Hand an item to the thread; returns the number of waiting items that it replaces (0 or 1)."""
        with self._wake:
            replaced = len(self._waiting)
            self._waiting = [item]
            self._wake.notify()
        return replaced

    def clear(self) -> int:
        """Drop the waiting item; returns the number of items dropped (0 or 1)."""
        with self._wake:
            dropped = len(self._waiting)
            self._waiting = []
        return dropped

    def stop(self, timeout_s: float | None = None) -> bool:
        """Stop after the item in progress; returns False if that takes longer than ``timeout_s``."""
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
