"""The node's topics: which, with what quality of service, and the publishing of an answer on all of them."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image, NavSatFix
from visualization_msgs.msg import MarkerArray

from geowarp_ros.config import NodeConfig
from geowarp_ros.errors import ConfigError
from geowarp_ros.ros.candidates import candidate_markers
from geowarp_ros.ros.conversions import known_altitude, navsatfix_from_answer, pose_from_fix
from geowarp_ros.ros.loading import Loaded
from geowarp_ros.ros.match_image import answer_picture, encode_jpeg
from geowarp_ros.types import Fix, Frame, NoFix

FIX, POSE, MATCH_IMAGE, CANDIDATES = "~/fix", "~/pose", "~/match_image/compressed", "~/candidates"

PUBLISHED: dict[str, tuple[type, str]] = {
    FIX: (NavSatFix, "One for every image localised: status FIX, or NO_FIX without a usable position."),
    POSE: (PoseWithCovarianceStamped, "The fix in the local ENU frame `map_frame`; for fixes only."),
    MATCH_IMAGE: (
        CompressedImage,
        "Query, best candidate and both as warped, JPEG; rendered while someone subscribes.",
    ),
    CANDIDATES: (MarkerArray, "The candidates of each answer in `map_frame`; made while someone subscribes."),
}
"""Topic -> type and meaning."""

SUBSCRIBED: dict[str, tuple[type, str]] = {
    "image": (Image, "The camera, with `image_transport: raw`."),
    "image/compressed": (CompressedImage, "The camera, with `image_transport: compressed`; JPEG or PNG."),
    "prior_fix": (NavSatFix, "Limits the search, with `prior.source: fix`."),
    "odometry": (
        Odometry,
        "The way between images; optional, read with tracking, a prior or `map_to_odom`.",
    ),
}
"""Likewise; of the image topics one, by ``image_transport``."""

_POLICIES = ("history", "depth", "reliability")


def published_qos() -> QoSProfile:
    """Reliable and volatile: it serves reliable subscribers (gnss_poser) and best-effort ones (navsat_transform).

    A new one each time: rclpy writes the overrides into it.
    """
    return QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)


def subscribed_qos() -> QoSProfile:
    """Sensor data: best effort, volatile, the last five."""
    sensor = qos_profile_sensor_data
    return QoSProfile(depth=sensor.depth, reliability=sensor.reliability, durability=sensor.durability)


def qos_override_names(node: LifecycleNode) -> list[str]:
    """Every ``qos_overrides.…`` parameter that the node reads; rclpy would ignore any other silently."""
    topics = [(node.resolve_topic_name(name), "publisher") for name in PUBLISHED]
    topics += [(_resolved(node, name), "subscription") for name in SUBSCRIBED]
    return [f"qos_overrides.{topic}.{kind}.{policy}" for topic, kind in topics for policy in _POLICIES]


def subscribe(node: LifecycleNode, name: str, callback: Any, group: Any) -> Any:
    """Subscribe to one of :data:`SUBSCRIBED`.

    Raises:
        ConfigError: A QoS override has an impossible value.
    """
    topic = _resolved(node, name)
    overridable = QoSOverridingOptions.with_default_policies()
    try:
        return node.create_subscription(
            SUBSCRIBED[name][0],
            topic,
            callback,
            subscribed_qos(),
            callback_group=group,
            qos_overriding_options=overridable,
        )
    except (RuntimeError, InvalidQosOverridesError) as error:
        raise ConfigError(f"{topic}: {error}") from error


def _resolved(node: LifecycleNode, name: str) -> str:
    """Where a topic lies; ``/compressed`` beneath ``image``, so that one remapping of ``image`` serves both."""
    first, slash, rest = name.partition("/")
    return f"{node.resolve_topic_name(first)}{slash}{rest}"


class Outputs:
    """The publishers of a configured node; they are silent until :meth:`enable`.

    Raises:
        ConfigError: A QoS override has an impossible value.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers: dict[str, Any] = {}
        for name, (kind, _) in PUBLISHED.items():
            overridable = QoSOverridingOptions.with_default_policies()
            try:
                self._publishers[name] = node.create_lifecycle_publisher(
                    kind, name, published_qos(), qos_overriding_options=overridable
                )
            except (RuntimeError, InvalidQosOverridesError) as error:
                self.destroy()
                raise ConfigError(f"{name}: {error}") from error

    def enable(self) -> None:
        """Let messages out."""
        for publisher in self._publishers.values():
            publisher.on_activate(None)

    def disable(self) -> None:
        """Let none out."""
        for publisher in self._publishers.values():
            publisher.on_deactivate(None)

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}

    def publish(self, answer: Fix | NoFix, frame: Frame, loaded: Loaded, config: NodeConfig) -> None:
        """Publish an answer: as a NavSatFix always, as a pose if it is a fix, as pictures if someone looks."""
        shown_altitude = None
        if isinstance(answer, Fix):
            altitude = known_altitude(answer, config.position.vertical_std_m)
            if altitude is None and config.altitude_nan:
                shown_altitude = float("nan")
            pose = pose_from_fix(answer, loaded.datum, config.map_frame, altitude=altitude)
            self._publishers[POSE].publish(pose)
        fix = navsatfix_from_answer(answer, loaded.datum, frame_id=config.frame_id, altitude=shown_altitude)
        self._publishers[FIX].publish(fix)
        if self._publishers[CANDIDATES].get_subscription_count():
            self._publishers[CANDIDATES].publish(candidate_markers(answer, loaded.datum, config.map_frame))
        if self._publishers[MATCH_IMAGE].get_subscription_count():
            best = loaded.localizer.gallery.image(answer.candidates[0].index) if answer.candidates else None
            picture = encode_jpeg(answer_picture(frame.image, best, answer))
            self._publishers[MATCH_IMAGE].publish(CompressedImage(header=fix.header, format="jpeg", data=picture))
