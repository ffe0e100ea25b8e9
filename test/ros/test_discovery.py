"""Topics of images are found on a real graph, with type, publishers, quality of service and rate."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image, NavSatFix

from geowarp_ros.ros import discovery
from geowarp_ros.ros.discovery import ImageTopic, image_topics, middleware

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def test_topics_with_their_publishers(graph: None) -> None:
    node, ended = Node("camera"), threading.Event()
    talking = node.create_publisher(Image, "doctors/image_raw", qos_profile_sensor_data)
    silent = [node.create_publisher(CompressedImage, "doctors/still/compressed", LATCHED) for _ in range(2)]
    others = [node.create_publisher(NavSatFix, "doctors/fix", 1)]
    others.append(node.create_publisher(CompressedImage, "geowarp_localizer/match_image/compressed", 1))

    def talk() -> None:
        while not ended.wait(0.05):
            talking.publish(Image())

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        found = image_topics()
    finally:
        ended.set()
        thread.join()
        for publisher in (talking, *silent, *others):
            node.destroy_publisher(publisher)
        node.destroy_node()
    mine = [topic for topic in found if topic.name.startswith("/doctors") or "match_image" in topic.name]
    raw, still = mine
    assert raw.rate_hz > 0
    assert raw == ImageTopic("/doctors/image_raw", "sensor_msgs/msg/Image", 1, "best effort volatile", raw.rate_hz)
    kind = "sensor_msgs/msg/CompressedImage"
    assert still == ImageTopic("/doctors/still/compressed", kind, 2, "reliable transient local", 0.0)


@pytest.mark.parametrize(
    ("times", "rate_hz"), [([], 0.0), ([3.0], 0.0), ([1.0, 1.5, 2.0, 3.0], 1.5), ([0.0, 0.2], 5.0)]
)
def test_a_rate_is_that_of_the_arrivals(times: list[float], rate_hz: float) -> None:
    node: Any = SimpleNamespace(get_publishers_info_by_topic=lambda name: [])
    assert discovery._topic(node, "/a", "b", times).rate_hz == pytest.approx(rate_hz)


def test_the_middleware_is_that_of_the_environment(graph: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    assert middleware() == "jazzy, rmw_fastrtps_cpp, domain 42"
    monkeypatch.delenv("ROS_DISTRO")
    monkeypatch.delenv("ROS_DOMAIN_ID")
    assert middleware() == "without ROS_DISTRO (wheels), rmw_fastrtps_cpp, domain 0"
