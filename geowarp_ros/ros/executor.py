"""An executor of several threads that leaves the processor to the work."""

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


class PoolExecutor(RclpyExecutor):
    """Runs callbacks in a pool of threads and waits until each has begun before it looks for the next.

    rclpy's ``MultiThreadedExecutor`` does not: what it has handed over counts as ready until a thread has begun
    it, so it hands it over again. While another thread computes, the interpreter's lock makes that long: it went
    round thousands of times a second and took a core and the lock; images waited up to a second, answers up to
    four.
    """

    def __init__(self, num_threads: int, *, context: Any = None) -> None:
        super().__init__(context=context)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="callback")
        self._surprises: list[BaseException] = []

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for a callback to be ready and let a thread begin it; raises what one has raised, at once."""
        try:
            task, _, _ = self.wait_for_ready_callbacks(timeout_sec, None, self._surprised)
        except (ConditionReachedException, ExternalShutdownException, ShutdownException, TimeoutException):
            pass
        else:
            begun = threading.Event()
            self._pool.submit(self._run, task, begun)
            begun.wait()
        if self._surprises:
            raise self._surprises.pop(0)

    def _run(self, task: Any, begun: threading.Event) -> None:
        begun.set()
        task()
        if (surprise := task.exception()) is not None:
            self._surprises.append(surprise)
            self.wake()

    def _surprised(self) -> bool:
        return bool(self._surprises)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Hand nothing over any more."""
        done = bool(super().shutdown(timeout_sec))
        self._pool.shutdown(wait=False)
        return done
