"""A plain subscriber to a running localizer, for who looks at it: it publishes nothing and knows no clock."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, NavSatFix
from visualization_msgs.msg import MarkerArray

from geowarp_ros.attitude import enu_from_body, heading, heading_std
from geowarp_ros.ros.candidates import NAMES, SPHERES
from geowarp_ros.ros.conversions import UNKNOWN_ORIENTATION_VARIANCE, stamp_ns
from geowarp_ros.ros.process import check_home
from geowarp_ros.ros.topics import CANDIDATES, FIX, MATCH_IMAGE, POSE
from geowarp_ros.types import FloatArray

LABEL = re.compile(r"\d+  (.*?)(?:  -?[\d.]+(?: inliers)?)?", re.DOTALL)
"""What is written beside a candidate: its rank, name and, if it was re-ranked, score."""


class Watcher(Protocol):
    """Who is told; each answer by the stamp of its image, details in any order."""

    def answer(
        self, stamp_ns: int, latitude_deg: float, longitude_deg: float, covariance_m2: FloatArray, *, fix: bool
    ) -> None:
        """Take a NavSatFix."""

    def detail(self, stamp_ns: int, **values: Any) -> None:
        """Take the heading of a pose."""

    def candidate(self, stamp_ns: int, name: str, east_m: float, north_m: float) -> None:
        """Take the best candidate."""

    def pictured(self, stamp_ns: int, jpeg: bytes) -> None:
        """Take the picture of a match."""

    def says(self, words: str) -> None:
        """Take what the node's diagnostics say."""


@contextmanager
def watching(watcher: Watcher, localizer: str) -> Iterator[None]:
    """Tell what a localizer publishes, in a thread, until the context ends.

    Stamps are those of the messages' headers: it is the same with a simulated clock.

    Args:
        watcher: Who is told.
        localizer: Name of the node, with its namespace.
    """
    check_home()
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = Node("geowarp_view", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    _subscribe(node, watcher, f"/{localizer.strip('/')}")
    thread = threading.Thread(target=_spin, args=(executor,), name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown(timeout_sec=1.0)
        thread.join(1.0)
        node.destroy_node()
        context.try_shutdown()


def _spin(executor: SingleThreadedExecutor) -> None:
    with suppress(ExternalShutdownException):
        executor.spin()


def _subscribe(node: Node, watcher: Watcher, localizer: str) -> None:
    reliable = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
    lossy = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)

    def on_fix(message: NavSatFix) -> None:
        covariance = np.array(message.position_covariance, float).reshape(3, 3)
        stamp, fix = stamp_ns(message.header.stamp), message.status.status >= 0
        watcher.answer(stamp, message.latitude, message.longitude, covariance, fix=fix)

    def on_pose(message: PoseWithCovarianceStamped) -> None:
        covariance = np.array(message.pose.covariance, float).reshape(6, 6)
        if covariance[5, 5] >= UNKNOWN_ORIENTATION_VARIANCE / 2:
            return
        q = message.pose.pose.orientation
        rotation = enu_from_body((q.x, q.y, q.z, q.w))
        std = heading_std(rotation, covariance)
        watcher.detail(
            stamp_ns(message.header.stamp),
            heading=round(heading(rotation), 2),
            heading_std=round(std, 2) if math.isfinite(std) else None,
        )

    def on_candidates(message: MarkerArray) -> None:
        first = {marker.ns: marker for marker in message.markers if marker.id == 0}
        if SPHERES in first and NAMES in first:
            best, where = first[SPHERES], first[SPHERES].pose.position
            name = LABEL.fullmatch(first[NAMES].text)
            watcher.candidate(stamp_ns(best.header.stamp), name[1] if name else "", where.x, where.y)

    def on_picture(message: CompressedImage) -> None:
        if message.format == "jpeg":
            watcher.pictured(stamp_ns(message.header.stamp), bytes(message.data))

    def on_diagnostics(message: DiagnosticArray) -> None:
        own = [status for status in message.status if status.name.partition(":")[0].strip("/") == localizer[1:]]
        worst = max(own, key=lambda status: int.from_bytes(status.level, "little"), default=None)
        if worst is not None:
            watcher.says(worst.message)

    def topic(name: str) -> str:
        return name.replace("~", localizer, 1)

    node.create_subscription(NavSatFix, topic(FIX), on_fix, reliable)
    node.create_subscription(PoseWithCovarianceStamped, topic(POSE), on_pose, reliable)
    node.create_subscription(MarkerArray, topic(CANDIDATES), on_candidates, lossy)
    node.create_subscription(CompressedImage, topic(MATCH_IMAGE), on_picture, lossy)
    node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, reliable)
