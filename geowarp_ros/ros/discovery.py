"""What ROS 2 has to offer here: the middleware, and the topics of images that are on the graph."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_rmw_implementation_identifier

from geowarp_ros.ros.process import check_home
from geowarp_ros.ros.topics import MATCH_IMAGE, topics_of_images, type_name


@dataclass(frozen=True, slots=True)
class ImageTopic:
    """A topic of images that has a publisher.

    Attributes:
        name: Its name.
        kind: Type of its messages.
        publishers: Number of publishers.
        qos: Reliability and durability that they offer.
        rate_hz: Images a second, by when they arrived; 0: fewer than two did.
    """

    name: str
    kind: str
    publishers: int
    qos: str
    rate_hz: float


def middleware() -> str:
    """Return distribution, middleware and domain as this process has them."""
    distro = os.environ.get("ROS_DISTRO") or "without ROS_DISTRO (wheels)"
    domain = os.environ.get("ROS_DOMAIN_ID") or "0"
    return f"{distro}, {get_rmw_implementation_identifier()}, domain {domain}"


def image_topics(discover_s: float = 1.0, listen_s: float = 1.5) -> list[ImageTopic]:
    """Return the topics of images on the graph, by name; publishes nothing.

    Args:
        discover_s: Time for the discovery (s).
        listen_s: Time for which the topics are listened to (s).

    Raises:
        ConfigError: ROS has no folder for its logs.
        RuntimeError: The middleware does not start.
    """
    check_home()
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = Node("geowarp_doctor", context=context, enable_rosout=False, start_parameter_services=False)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        _spin(executor, discover_s)
        own = MATCH_IMAGE.removeprefix("~")  # drawn only while somebody looks
        arrived: dict[tuple[str, str], list[float]] = {}
        for name, kind in topics_of_images(node):
            if not name.endswith(own):
                times = arrived[name, type_name(kind)] = []
                node.create_subscription(kind, name, partial(_note, times), qos_profile_sensor_data, raw=True)
        _spin(executor, listen_s if arrived else 0.0)
        found = [_topic(node, name, kind, times) for (name, kind), times in arrived.items()]
        executor.shutdown()
        node.destroy_node()
        return [topic for topic in found if topic.publishers]
    finally:
        context.try_shutdown()


def _note(times: list[float], _: bytes) -> None:
    times.append(time.monotonic())


def _topic(node: Node, name: str, kind: str, times: list[float]) -> ImageTopic:
    offers = [each for each in node.get_publishers_info_by_topic(name) if each.topic_type == kind]
    qos = {f"{each.qos_profile.reliability.name} {each.qos_profile.durability.name}".lower() for each in offers}
    rate_hz = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
    return ImageTopic(name, kind, len(offers), ", ".join(sorted(qos)).replace("_", " "), rate_hz)


def _spin(executor: SingleThreadedExecutor, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        executor.spin_once(timeout_sec=left)
