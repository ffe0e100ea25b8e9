"""Where on the earth: the map frame's origin, and what needs packages that not every installation has."""

from __future__ import annotations

import importlib
import math
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import NavSatFix

from geowarp_ros.config import NodeConfig
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.ros.conversions import header, known_altitude
from geowarp_ros.types import Answer

DATUM, GEOPOSE = "~/datum", "~/geopose"

TOPICS = {
    DATUM: ("sensor_msgs/msg/NavSatFix", "Origin of `map_frame` on the earth, from the gallery or by parameter."),
    GEOPOSE: (
        "geographic_msgs/msg/GeoPoseStamped",
        "Fixes with their orientation in ENU at the fix; NaN for an unknown altitude; nothing for a fix without an"
        " orientation, as the message cannot say so. Where geographic_msgs is installed.",
    ),
}
"""Name -> type and meaning."""

SERVICES = {
    "~/fromLL": (
        "robot_localization/srv/FromLL",
        "Latitude, longitude and altitude (NaN: the datum's) to `map_frame`, as navsat_transform's, for waypoints."
        " Where robot_localization is installed.",
    ),
    "~/toLL": ("robot_localization/srv/ToLL", "The inverse; likewise."),
}
"""Name -> type and meaning."""


def _installed(package: str, name: str) -> Any:
    """Return a message or service of a package; None where it is not installed."""
    try:
        return getattr(importlib.import_module(package), name, None)
    except ImportError:
        return None


class Geographic:
    """Publishes the datum and, where geographic_msgs is installed, fixes as geographic poses.

    Where robot_localization is installed it converts as navsat_transform does, about the datum.

    Args:
        node: Publishes and serves.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node, self._datum = node, LocalFrame(0.0, 0.0)
        latched = QoSProfile(
            depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
        )
        self._publishers = {DATUM: node.create_lifecycle_publisher(NavSatFix, DATUM, latched)}
        self._geopose = _installed("geographic_msgs.msg", "GeoPoseStamped")
        if self._geopose is not None:
            self._publishers[GEOPOSE] = node.create_lifecycle_publisher(self._geopose, GEOPOSE, 10)
        group = MutuallyExclusiveCallbackGroup()  # nobody waits for a gallery that loads
        self._services: list[Any] = []
        for name, convert in (("fromLL", self._from_ll), ("toLL", self._to_ll)):
            kind = _installed("robot_localization.srv", name[0].upper() + name[1:])
            if kind is not None:
                self._services.append(node.create_service(kind, f"~/{name}", convert, callback_group=group))

    def destroy(self) -> None:
        """Destroy publishers and services."""
        while self._publishers:
            self._node.destroy_lifecycle_publisher(self._publishers.popitem()[1])
        while self._services:
            self._node.destroy_service(self._services.pop())

    def announce(self, datum: LocalFrame, map_frame: str) -> None:
        """Take and publish the origin of the map frame; it is exact, and has a covariance of zero."""
        self._datum = datum
        message = NavSatFix(position_covariance_type=NavSatFix.COVARIANCE_TYPE_KNOWN)
        message.header.stamp, message.header.frame_id = self._node.get_clock().now().to_msg(), map_frame
        message.latitude, message.longitude, message.altitude = datum.datum
        self._publishers[DATUM].publish(message)

    def publish(self, answer: Answer, config: NodeConfig) -> None:
        """Publish a fix with an orientation as a geographic pose."""
        fix = answer.fix
        if self._geopose is None or fix is None or fix.orientation is None:
            return
        message = self._geopose()
        message.header = header(answer.header.stamp_ns, config.frame_id or answer.header.frame_id)
        position, q, altitude = message.pose.position, message.pose.orientation, known_altitude(fix, config)
        position.latitude, position.longitude = fix.latitude_deg, fix.longitude_deg
        position.altitude = math.nan if altitude is None else altitude
        q.x, q.y, q.z, q.w = fix.orientation
        self._publishers[GEOPOSE].publish(message)

    def _from_ll(self, request: Any, response: Any) -> Any:
        given, point = request.ll_point, response.map_point
        altitude = None if math.isnan(given.altitude) else given.altitude
        point.x, point.y, point.z = self._datum.to_enu(given.latitude, given.longitude, altitude).tolist()
        return response

    def _to_ll(self, request: Any, response: Any) -> Any:
        given, point = request.map_point, response.ll_point
        position = self._datum.to_geodetic([given.x, given.y, given.z])
        point.latitude, point.longitude, point.altitude = (float(value) for value in position)
        return response
