"""What is ready is handed to a thread once, however long that takes to begin it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from std_msgs.msg import Empty
from std_srvs.srv import Trigger

from geowarp_ros.ros.executor import PoolExecutor
from test.ros.conftest import PATIENCE_S, until

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]


class Counting(PoolExecutor):
    rounds = 0

    def spin_once(self, timeout_sec: float | None = None) -> None:
        self.rounds += 1
        super().spin_once(timeout_sec)


@pytest.fixture
def node(graph: None) -> Iterator[Node]:
    node = Node("pooled")
    yield node
    node.destroy_node()


def spinning(executor: Any, node: Node) -> threading.Thread:
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    return thread


def test_what_waits_for_a_thread_is_handed_over_once(node: Node) -> None:
    held, go, came = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go.wait(PATIENCE_S)

    first = node.create_guard_condition(hold, callback_group=MutuallyExclusiveCallbackGroup())
    node.create_subscription(
        Empty, "late", lambda _: came.set(), 1, callback_group=MutuallyExclusiveCallbackGroup()
    )
    publisher = node.create_publisher(Empty, "late", 1)
    executor = Counting(1)
    thread = spinning(executor, node)
    until(publisher.get_subscription_count, "discovery")
    first.trigger()
    assert held.wait(PATIENCE_S)
    before = executor.rounds
    publisher.publish(Empty())  # the only thread is taken
    time.sleep(0.3)
    assert not came.is_set()
    assert executor.rounds - before < 10  # rclpy's goes round thousands of times
    go.set()
    assert came.wait(PATIENCE_S)
    executor.shutdown()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_callbacks_of_different_groups_run_side_by_side(node: Node) -> None:
    met = threading.Barrier(2)
    passed: list[int] = []
    both = [
        node.create_guard_condition(
            lambda: passed.append(met.wait(PATIENCE_S)), callback_group=MutuallyExclusiveCallbackGroup()
        )
        for _ in range(2)
    ]
    executor = PoolExecutor(2)
    thread = spinning(executor, node)
    for condition in both:
        condition.trigger()
    until(lambda: sorted(passed) == [0, 1], "both to meet")
    executor.shutdown()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_what_a_callback_raises_ends_the_spinning(node: Node) -> None:
    def fail() -> None:
        time.sleep(0.2)  # nothing else is ready by then
        raise ValueError("exception")

    failing = node.create_guard_condition(fail)
    executor = PoolExecutor(2)
    executor.add_node(node)
    failing.trigger()
    with pytest.raises(ValueError, match="exception"):
        executor.spin()
    executor.shutdown()


def test_what_is_destroyed_during_its_callback_ends_nothing(node: Node) -> None:
    asked, go, came = threading.Event(), threading.Event(), threading.Event()

    def answer(_: Any, response: Any) -> Any:
        asked.set()
        assert go.wait(PATIENCE_S)
        return response

    service = node.create_service(Trigger, "~/ask", answer, callback_group=MutuallyExclusiveCallbackGroup())
    client = node.create_client(Trigger, "~/ask", callback_group=MutuallyExclusiveCallbackGroup())
    after = node.create_guard_condition(came.set, callback_group=MutuallyExclusiveCallbackGroup())
    executor = PoolExecutor(3)
    thread = spinning(executor, node)
    assert client.wait_for_service(PATIENCE_S)
    client.call_async(Trigger.Request())
    assert asked.wait(PATIENCE_S)
    node.destroy_service(service)
    go.set()
    until(lambda: not executor._running, "the callback to end")
    after.trigger()
    assert came.wait(10.0) and thread.is_alive()
    executor.shutdown()
    thread.join(PATIENCE_S)


def test_a_shutdown_waits_for_what_was_handed_over(node: Node) -> None:
    handed, go, came = threading.Event(), threading.Event(), threading.Event()

    class Late(PoolExecutor):
        """Its threads take their time to begin, as on a busy machine."""

        def _run(self, task: Any, node: Any, started: threading.Event) -> None:
            started.set()
            handed.set()
            assert go.wait(PATIENCE_S)
            super()._run(task, node, started)

    condition = node.create_guard_condition(came.set)
    executor = Late(2)
    thread = spinning(executor, node)
    condition.trigger()
    assert handed.wait(PATIENCE_S)
    ended: list[bool] = []
    ending = threading.Thread(target=lambda: ended.append(executor.shutdown()))
    ending.start()
    ending.join(0.2)
    assert ending.is_alive()  # who called would destroy the node now, under the callback
    go.set()
    ending.join(PATIENCE_S)
    thread.join(PATIENCE_S)
    assert ended == [True] and came.is_set() and not thread.is_alive()


def test_a_shutdown_waits_no_longer_than_it_may(node: Node) -> None:
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert go.wait(PATIENCE_S)

    condition = node.create_guard_condition(hold)
    executor = PoolExecutor(2)
    thread = spinning(executor, node)
    condition.trigger()
    assert held.wait(PATIENCE_S)
    assert not executor.shutdown(timeout_sec=0.1)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    go.set()
