"""A multi-threaded executor that leaves the processor to the work."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rclpy.executors import (
    ConditionReachedException,
    ExternalShutdownException,
    ShutdownException,
    TimeoutException,
)
from rclpy.executors import Executor as RclpyExecutor

from geowarp_ros.ros.logs import current_node


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

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for a ready callback and start it in a thread; raises at once what a callback has raised."""
        try:
            task, _, node = self.wait_for_ready_callbacks(timeout_sec, None, self._has_raised)
        except (ConditionReachedException, ExternalShutdownException, ShutdownException, TimeoutException):
            pass
        else:
            started = threading.Event()
            self._pool.submit(self._run, task, node, started)
            started.wait()
        if self._raised:
            raise self._raised.pop(0)

    def _run(self, task: Any, node: Any, started: threading.Event) -> None:
        started.set()
        current_node.set(node)
        task()
        if (error := task.exception()) is not None:
            self._raised.append(error)
            self.wake()

    def _has_raised(self) -> bool:
        return bool(self._raised)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Start no more callbacks."""
        done = bool(super().shutdown(timeout_sec))
        self._pool.shutdown(wait=False)
        return done
