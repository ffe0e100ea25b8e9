"""A multi-threaded executor that leaves the processor to the work."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rclpy.executors import (
    ConditionReachedException,
    ExternalShutdownException,
    InvalidHandle,
    ShutdownException,
    TimeoutException,
)
from rclpy.executors import Executor as RclpyExecutor

from geowarp_ros.ros.logs import current_node

_log = logging.getLogger(__name__)


class PoolExecutor(RclpyExecutor):
    """Runs callbacks in a thread pool and waits until each has started before it looks for the next.

    rclpy's ``MultiThreadedExecutor`` does not wait: a callback that no thread has started yet still counts as
    ready and is submitted again. While another thread computed and held the interpreter lock, it looped thousands
    of times a second and took a core and the lock; images waited up to a second, answers up to four.
    """

    def __init__(self, num_threads: int, *, context: Any = None) -> None:
        super().__init__(context=context)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="callback")
        self._raised: list[BaseException] = []
        self._running, self._closed, self._over = 0, False, threading.Event()
        self._ended = threading.Condition()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for a ready callback and start it in a thread; raises at once what a callback has raised."""
        try:
            task, _, node = self.wait_for_ready_callbacks(timeout_sec, None, self._has_raised)
        except (ConditionReachedException, ExternalShutdownException, ShutdownException, TimeoutException):
            pass
        else:
            with self._ended:
                closed = self._closed
                self._running += not closed
            if closed:
                self._over.wait()
                return
            started = threading.Event()
            self._pool.submit(self._run, task, node, started)
            started.wait()
        if self._raised:
            raise self._raised.pop(0)

    def _run(self, task: Any, node: Any, started: threading.Event) -> None:
        started.set()
        current_node.set(node)
        try:
            task()
            error = task.exception()
            if isinstance(error, InvalidHandle):  # as of a service that cleanup destroyed
                _log.warning("destroyed during its callback: %s", error)
            elif error is not None:
                self._raised.append(error)
                self.wake()
        finally:
            with self._ended:
                self._running -= 1
                self._ended.notify_all()

    def _has_raised(self) -> bool:
        return bool(self._raised)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Start no more callbacks and wait for those that run, at most so long; returns whether they have ended.

        rclpy 7.1 does not wait for them: what is destroyed next would be destroyed under their hands.
        """
        patience_s = None if timeout_sec is None or timeout_sec < 0 else timeout_sec
        with self._ended:
            self._closed = True
            ended = self._ended.wait_for(lambda: not self._running, patience_s)
        done = bool(super().shutdown(timeout_sec))
        self._over.set()
        self._pool.shutdown(wait=False)
        return ended and done
