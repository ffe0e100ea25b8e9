"""The transform map → odom (REP 105), where tf2_msgs is installed and odometry comes in."""

from __future__ import annotations

import importlib
from typing import Any

from rclpy.lifecycle import LifecycleNode

from geowarp_ros.errors import ConfigError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.map_from_odom import Alignment, MapFromOdom
from geowarp_ros.motion.odometry import Odometer
from geowarp_ros.ros.conversions import transform_from_alignment
from geowarp_ros.types import Fix, NoFix

TOPIC = "/tf"
PERIOD_S = 0.1


class MapToOdom:
    """Aligns odometry with fixes and publishes how it lies in the map.

    The camera is taken to be where the odometry's child frame is: the arm between them is short beside a fix's
    error. Nothing is published before the fixes agree on an alignment, and nothing any more once they do not.

    Args:
        node: What publishes.
        map_frame: The parent frame.

    Raises:
        ConfigError: tf2_msgs is not installed.
    """

    def __init__(self, node: LifecycleNode, map_frame: str) -> None:
        self._message = tf_message()
        self._map_frame, self.odom_frame = map_frame, ""
        self._alignment = Alignment()
        self._found: MapFromOdom | None = None
        self.publisher: Any = node.create_lifecycle_publisher(self._message, TOPIC, 100)

    def reset(self) -> None:
        """Forget the fixes so far."""
        self._alignment.reset()
        self._found = None

    def learn(self, answer: Fix | NoFix, datum: LocalFrame, odometer: Odometer) -> None:
        """Take the newest answer, if it is a fix and odometry knows that moment."""
        pose = odometer.pose_at(answer.stamp_ns)
        if isinstance(answer, NoFix) or pose is None:
            return
        there = datum.to_enu(answer.latitude_deg, answer.longitude_deg)[:2]
        self._alignment.add(there, answer.covariance[:2, :2], pose.position_m[:2])
        self._found = self._alignment.solve()

    def publish(self, stamp: Any) -> None:
        """Publish the alignment, if there is one."""
        if self._found is not None and self.odom_frame:
            transform = transform_from_alignment(self._found, stamp, self._map_frame, self.odom_frame)
            self.publisher.publish(self._message(transforms=[transform]))

    @property
    def said(self) -> str:
        """How it stands, for people."""
        if not self.odom_frame:
            return "no odometry"
        found = self._found
        if found is None:
            return "too few fixes agree, or the way is too short"
        return f"{found.agreeing} fixes agree, yaw {found.yaw_rad:.3f} ± {found.yaw_std_rad:.3f} rad"


def tf_message() -> Any:
    """Return the class tf2_msgs/msg/TFMessage.

    Raises:
        ConfigError: tf2_msgs is not installed.
    """
    try:
        return importlib.import_module("tf2_msgs.msg").TFMessage
    except ImportError:
        raise ConfigError("map_to_odom = true: needs the ROS package tf2_msgs, which is not installed") from None
