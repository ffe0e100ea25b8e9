"""What the core logs reaches /rosout under the name of the node that was at work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
import rclpy
from rcl_interfaces.msg import Log
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from geowarp_ros.ros.executor import PoolExecutor
from geowarp_ros.ros.logs import RosLogHandler, current_node
from geowarp_ros.ros.worker import LatestWorker
from test.ros.conftest import PATIENCE_S, until

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]

CORE = logging.getLogger("geowarp_ros.test_logs")


@pytest.fixture
def routed(graph: None) -> Iterator[list[Log]]:
    """The handler at work as in the node's process; what arrives on /rosout."""
    handler = RosLogHandler(rclpy.logging.get_logger("geowarp_localizer"))
    CORE.addHandler(handler)
    CORE.setLevel(logging.INFO)
    listener = Node("listener")
    logs: list[Log] = []
    qos = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    listener.create_subscription(Log, "/rosout", logs.append, qos)
    executor = PoolExecutor(2)
    executor.add_node(listener)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield logs
    executor.shutdown()
    thread.join(PATIENCE_S)
    listener.destroy_node()
    CORE.removeHandler(handler)


def test_callbacks_and_workers_of_two_nodes_log_under_their_names(routed: list[Log]) -> None:
    nodes = [Node("localizer", namespace=f"/{camera}") for camera in ("front", "rear")]
    met, executor = threading.Barrier(2), PoolExecutor(2)

    def work(camera: str) -> None:
        CORE.warning("worker of %s", camera)

    def call_back(camera: str) -> None:
        met.wait(PATIENCE_S)  # both at once
        CORE.info("info of %s", camera)
        CORE.warning("callback of %s", camera)
        worker = LatestWorker(work)
        worker.start()
        worker.put(camera)
        until(lambda: any(log.msg == f"worker of {camera}" for log in routed), "the worker's record")
        worker.stop(PATIENCE_S)

    for node, camera in zip(nodes, ("front", "rear"), strict=True):
        condition = node.create_guard_condition(
            lambda camera=camera: call_back(camera), callback_group=MutuallyExclusiveCallbackGroup()
        )
        executor.add_node(node)
        condition.trigger()
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    until(lambda: len(seen(routed)) == 6, "all records")
    assert seen(routed) == {
        (f"{camera}.localizer", level, f"{what} of {camera}")
        for camera in ("front", "rear")
        for what, level in (("info", Log.INFO), ("callback", Log.WARN), ("worker", Log.WARN))
    }
    executor.shutdown()
    thread.join(PATIENCE_S)
    for node in nodes:
        node.destroy_node()


def test_records_of_no_node_are_logged_by_the_process(
    capfd: pytest.CaptureFixture[str], routed: list[Log]
) -> None:
    assert current_node.get() is None
    for level in (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL, logging.INFO):
        CORE.log(level, "from nowhere")  # one call site, several severities
    lines = [line for line in capfd.readouterr().err.splitlines() if "from nowhere" in line]
    assert [line.split("]")[0] for line in lines] == ["[INFO", "[WARN", "[ERROR", "[ERROR", "[INFO"]
    assert all("[geowarp_localizer]" in line for line in lines)


def seen(logs: list[Log]) -> set[tuple[str, int, str]]:
    return {(log.name, log.level, log.msg) for log in logs if " of " in log.msg}
