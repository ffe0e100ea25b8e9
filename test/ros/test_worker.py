from __future__ import annotations

import threading

from geowarp_ros.ros.worker import LatestWorker

PATIENCE_S = 30.0


def test_newest_wins_while_busy() -> None:
    seen: list[int] = []
    begun, gate, done = threading.Event(), threading.Event(), threading.Event()

    def handle(item: int) -> None:
        seen.append(item)
        begun.set()
        assert gate.wait(PATIENCE_S)
        if len(seen) == 2:
            done.set()

    worker = LatestWorker(handle)
    worker.start()
    assert worker.put(1) == 0
    assert begun.wait(PATIENCE_S)
    assert [worker.put(item) for item in (2, 3, 4)] == [0, 1, 1]
    gate.set()
    assert done.wait(PATIENCE_S)
    assert seen == [1, 4]
    assert worker.stop(PATIENCE_S)


def test_cleared_and_stopped_items_are_not_worked_on() -> None:
    seen: list[int] = []
    begun, gate = threading.Event(), threading.Event()

    def handle(item: int) -> None:
        seen.append(item)
        begun.set()
        assert gate.wait(PATIENCE_S)

    worker = LatestWorker(handle)
    worker.start()
    worker.put(1)
    assert begun.wait(PATIENCE_S)
    worker.put(2)
    assert (worker.clear(), worker.clear()) == (1, 0)
    worker.put(3)
    assert not worker.stop(timeout_s=0.0)  # the one in hand takes longer
    gate.set()
    assert worker.stop(PATIENCE_S)
    assert seen == [1]


def test_a_worker_that_never_started_stops() -> None:
    assert LatestWorker(print).stop(PATIENCE_S)
