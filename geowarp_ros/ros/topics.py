"""The node's topics and services – name, type, meaning, quality of service – and the publishing of an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu, NavSatFix
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from geowarp_ros.attitude import Mounting, base_answer
from geowarp_ros.config import NodeConfig
from geowarp_ros.errors import ConfigError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.pictures import answer_picture, encode_jpeg
from geowarp_ros.ros.camera import INFO, info_topic
from geowarp_ros.ros.candidates import candidate_markers
from geowarp_ros.ros.conversions import navsatfix_from_answer, pose_from_fix
from geowarp_ros.ros.geographic import Geographic
from geowarp_ros.ros.loading import Loaded
from geowarp_ros.types import Answer, Frame

FIX, POSE, MATCH_IMAGE, CANDIDATES = "~/fix", "~/pose", "~/match_image/compressed", "~/candidates"

PUBLISHED: dict[str, tuple[type, str]] = {
    FIX: (NavSatFix, "One message per localised image: status FIX, or NO_FIX without a position."),
    POSE: (
        PoseWithCovarianceStamped,
        "Fixes in the local frame `map_frame`, with the orientation of the camera's body frame (x forward) or"
        " of `base_frame`; nothing for a NO_FIX.",
    ),
    MATCH_IMAGE: (
        CompressedImage,
        "Query and best candidate with what agrees in them, plain and warped (JPEG); only while subscribed.",
    ),
    CANDIDATES: (
        MarkerArray,
        "Candidates of the latest answer, and the camera's view if its orientation is known, in `map_frame`; only"
        " while subscribed.",
    ),
}
"""Name -> type and meaning."""

SUBSCRIBED: dict[str, tuple[type, str]] = {
    "image": (Image, "Camera images, with `image_transport: raw`."),
    "image/compressed": (CompressedImage, "Camera images (JPEG or PNG), with `image_transport: compressed`."),
    INFO: (
        CameraInfo,
        "Camera model of the images, without `camera_info_url`; the topic beside `image` unless remapped itself.",
    ),
    "prior_fix": (NavSatFix, "Position from another source that limits the search, with `prior.source: fix`."),
    "imu": (Imu, "Inertial unit, with `gravity: imu`: its orientation, or its acceleration where it has none."),
    "odometry": (
        Odometry,
        "Motion between images, optional: fixes that contradict it are held back (`jump`); used by tracking,"
        " priors and `map_to_odom`.",
    ),
}
"""Name -> type and meaning; ``image_transport`` selects one of the image topics."""

IMAGES = {"raw": "image", "compressed": "image/compressed"}
"""``image_transport`` -> name of the topic."""

SERVICES: dict[str, tuple[type, str]] = {
    "~/localize": (
        Trigger,
        "Localise an image younger than `localize_max_age_s`, else the next, even while paused, and publish the"
        " answer. `message`: the answer as JSON; `success`: it is a fix.",
    ),
    "~/pause": (SetBool, "`true`: drop all images that ~/localize does not ask for; `false`: resume."),
    "~/reset": (Trigger, "Forget track, prior, odometry and latest image, as after a jump back in time."),
    "~/reload_gallery": (Trigger, "Switch to the gallery in `gallery` once loaded; on failure keep the old one."),
}
"""Name -> type and meaning; rclpy adds the services of the lifecycle and of the parameters."""

_POLICIES = ("history", "depth", "reliability")


def qos_override_names(node: LifecycleNode) -> list[str]:
    """Return every ``qos_overrides.…`` parameter that the node reads; rclpy would silently ignore any other."""
    topics = [(node.resolve_topic_name(name), "publisher") for name in PUBLISHED]
    topics += [(_resolved(node, name), "subscription") for name in SUBSCRIBED]
    return [f"qos_overrides.{topic}.{kind}.{policy}" for topic, kind in topics for policy in _POLICIES]


def subscribe(node: LifecycleNode, name: str, callback: Any, group: Any) -> Any:
    """Subscribe to one of :data:`SUBSCRIBED`.

    Raises:
        ConfigError: A QoS override has an invalid value.
    """
    topic, kind = _resolved(node, name), SUBSCRIBED[name][0]
    # that of sensor data, as a new object: rclpy writes the overrides into it
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
    with _qos_overrides(topic) as overrides:
        made = node.create_subscription(
            kind, topic, callback, qos, callback_group=group, qos_overriding_options=overrides
        )
    node.get_logger().info(f"subscribed to {made.topic_name} [{type_name(kind)}], {_said(made.qos_profile)}")
    return made


def image_topic(node: LifecycleNode, config: NodeConfig) -> tuple[str, type]:
    """Return the topic of the images, as it is in the graph, and its type."""
    name = IMAGES[config.image_transport]
    return _resolved(node, name), SUBSCRIBED[name][0]


@contextmanager
def _qos_overrides(topic: str) -> Iterator[QoSOverridingOptions]:
    try:
        yield QoSOverridingOptions.with_default_policies()
    except (RuntimeError, InvalidQosOverridesError) as error:
        raise ConfigError(f"{topic}: {error}") from error


def type_name(kind: type) -> str:
    """Return the name of a type: ``sensor_msgs.msg._image.Image`` -> ``sensor_msgs/msg/Image``."""
    package, interface, *_ = kind.__module__.split(".")
    return f"{package}/{interface}/{kind.__name__}"


def topics_of_images(node: Node) -> Iterator[tuple[str, type]]:
    """Yield the topics of images on the graph, by name, and the type of each; one of two types comes twice."""
    kinds = {type_name(each): each for each in (Image, CompressedImage)}
    for name, types in sorted(node.get_topic_names_and_types()):
        yield from ((name, kinds[each]) for each in types if each in kinds)


def _said(qos: QoSProfile) -> str:
    return f"{qos.reliability.name.lower().replace('_', ' ')}, {qos.durability.name.lower()}, depth {qos.depth}"


def _resolved(node: LifecycleNode, name: str) -> str:
    """Resolve a topic name; ``/compressed`` stays below ``image``: one remapping of ``image`` serves both."""
    if name == INFO:
        return info_topic(node)
    first, slash, rest = name.partition("/")
    return f"{node.resolve_topic_name(first)}{slash}{rest}"


class Outputs:
    """The lifecycle publishers of a configured node: silent until it is active.

    Raises:
        ConfigError: A QoS override has an invalid value.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers: dict[str, Any] = {}
        self._geographic = Geographic(node)
        try:
            for name, (kind, _) in PUBLISHED.items():
                # serves reliable subscribers (gnss_poser) and best-effort ones (navsat_transform)
                qos = QoSProfile(
                    depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE
                )
                with _qos_overrides(name) as overrides:
                    made = node.create_lifecycle_publisher(kind, name, qos, qos_overriding_options=overrides)
                self._publishers[name] = made
                said = f"{made.topic_name} [{type_name(kind)}], {_said(made.qos_profile)}"
                node.get_logger().info(f"publishes {said}")
        except ConfigError:
            self.destroy()
            raise

    def destroy(self) -> None:
        """Destroy the publishers."""
        while self._publishers:
            self._node.destroy_lifecycle_publisher(self._publishers.popitem()[1])
        self._geographic.destroy()

    def announce(self, datum: LocalFrame, map_frame: str) -> None:
        """Publish the origin of the map frame, once active, and convert about it from now on."""
        self._geographic.announce(datum, map_frame)

    def publish(
        self,
        answer: Answer,
        frame: Frame,
        loaded: Loaded,
        config: NodeConfig,
        mounting: Mounting | None = None,
    ) -> None:
        """Publish an answer: always as a NavSatFix, a fix also as a pose, pictures if someone subscribes.

        With a mounting, NavSatFix and pose are of the base; the candidates' markers are of the camera. While
        that of ``base_frame`` is unknown no pose is published: it would not say that it is the camera's.
        """
        based = base_answer(answer, mounting, config.base_frame)
        if based.fix is not None and (mounting is not None or not config.base_frame):
            pose = pose_from_fix(based.fix, based.header.stamp_ns, loaded.datum, config)
            self._publishers[POSE].publish(pose)
        fix = navsatfix_from_answer(based, loaded.datum, config)
        self._publishers[FIX].publish(fix)
        self._geographic.publish(based, config)
        if self._publishers[CANDIDATES].get_subscription_count():
            markers = candidate_markers(answer, loaded.datum, config, frame.camera)
            self._publishers[CANDIDATES].publish(markers)
        if self._publishers[MATCH_IMAGE].get_subscription_count():
            data = encode_jpeg(answer_picture(answer, frame.image))
            self._publishers[MATCH_IMAGE].publish(CompressedImage(header=fix.header, format="jpeg", data=data))
