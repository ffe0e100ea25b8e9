"""The transform map → odom (REP 105), where tf2_msgs is installed and odometry is received."""

from __future__ import annotations

import importlib
import math
import threading
from typing import Any

from rclpy.lifecycle import LifecycleNode

from geowarp_ros.attitude import Mounting, enu_from_body, yaw_rad
from geowarp_ros.config import NodeConfig
from geowarp_ros.errors import ConfigError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.map_from_odom import Alignment, MapFromOdom, approach
from geowarp_ros.motion.odometry import Odometer, Pose
from geowarp_ros.ros.conversions import header, transform_from_alignment
from geowarp_ros.types import Answer

PERIOD_S = 0.1

PAUSE_S = 5.0
"""Time without a transform (s) after which the next begins where it is right, as after a kidnap."""


class MapToOdom:
    """Aligns odometry with fixes and publishes the pose of the odometry frame in the map, at 10 Hz while active.

    Where the camera's mounting is known, the base is taken for the odometry's child frame, and headings count.
    Else the camera is assumed to be there, as the offset is short compared to the error of a fix, but not to look
    along its x axis: headings are not used. Nothing is published until the fixes agree on an alignment, and
    nothing once they no longer do.

    Where the odometry begins anew, or in another frame, so does the alignment: it was that of the one before.

    Stamps are as AMCL's: that of the newest data, which is odometry here, and some time on top, so that the
    transform is there for whoever asks before the next one comes. Without newer odometry nothing is published.

    Args:
        node: Publishes.
        config: Name of the map frame, time on top, and how fast a correction may be.
        group: Callback group of the timer.

    Raises:
        ConfigError: tf2_msgs is not installed.
    """

    def __init__(self, node: LifecycleNode, config: NodeConfig, group: Any = None) -> None:
        try:
            self._message = importlib.import_module("tf2_msgs.msg").TFMessage
        except ImportError:
            raise ConfigError(
                "map_to_odom = true: needs the ROS package tf2_msgs, which is not installed"
            ) from None
        self._node = node
        self._config, self._odom_frame = config, ""
        self._newest: Pose | None = None
        self._restarts = 0
        self._lock = threading.RLock()  # a reset is not undone by the fix that is being learned
        self._alignment = Alignment()
        self._datum: tuple[float, ...] = ()
        self.reset()
        self._publisher = node.create_lifecycle_publisher(self._message, "/tf", 100)
        self._timer = node.create_timer(PERIOD_S, self.publish, group)

    def destroy(self) -> None:
        """Destroy timer and publisher."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_lifecycle_publisher(self._publisher)

    def reset(self) -> None:
        """Forget the fixes so far."""
        with self._lock:
            self._alignment.reset()
            self._found: MapFromOdom | None = None
            self._shown: tuple[MapFromOdom, int] | None = None

    def move(self, pose: Pose, odom_frame: str, restarts: int = 0) -> None:
        """Take the newest odometry, and how often it began anew."""
        if restarts != self._restarts or odom_frame != (self._odom_frame or odom_frame):
            self.reset()
        self._newest, self._odom_frame, self._restarts = pose, odom_frame, restarts

    def learn(
        self, answer: Answer, datum: LocalFrame, odometer: Odometer, mounting: Mounting | None = None
    ) -> None:
        """Take the latest answer if it is a fix and the odometry at its stamp is known."""
        fix, pose = answer.fix, odometer.pose_at(answer.header.stamp_ns)
        if fix is None or pose is None:
            return
        fix, turn = mounting.base_of(fix) if mounting else fix, (math.nan, math.nan)
        if mounting and fix.orientation is not None:
            map_from_here = datum.rotation_from(LocalFrame(fix.latitude_deg, fix.longitude_deg))
            yaw = yaw_rad(map_from_here @ enu_from_body(fix.orientation))
            turn = yaw - pose.yaw_rad, math.radians(fix.heading_std_deg)
        position_m = datum.to_enu(fix.latitude_deg, fix.longitude_deg)[:2]
        with self._lock:
            if datum.datum != self._datum:  # an image that was in hand when the gallery changed
                self.reset()
                self._datum = datum.datum
            if odometer.restarts != self._restarts:  # the next odometry begins the alignment anew
                return
            self._alignment.add(position_m, fix.covariance[:2, :2], pose.position_m[:2], *turn)
            self._found = self._alignment.solve()

    def publish(self) -> None:
        """Publish the alignment if there is one, and odometry newer than what was published last.

        A correction of what was published before is limited in its speed; after PAUSE_S without a transform the
        right place is shown at once.
        """
        found, here, before, config = self._found, self._newest, self._shown, self._config
        if found is None or here is None or not self._odom_frame:
            return
        if before is not None:
            passed_s = (here.stamp_ns - before[1]) * 1e-9
            if passed_s == 0:
                return
            if config.map_to_odom_max_speed_mps and 0 < passed_s <= PAUSE_S:
                way_m = passed_s * config.map_to_odom_max_speed_mps
                found = approach(before[0], found, here.position_m[:2], way_m)
        self._shown = found, here.stamp_ns
        stamp = header(here.stamp_ns + round(config.transform_time_offset * 1e9), "").stamp
        transform = transform_from_alignment(found, stamp, config.map_frame, self._odom_frame)
        self._publisher.publish(self._message(transforms=[transform]))

    @property
    def said(self) -> str:
        """State of the alignment, for people."""
        found = self._found
        if not self._odom_frame:
            return "no odometry"
        if found is None:
            return "too few fixes agree, or the path is too short"
        return f"{found.agreeing} fixes agree, yaw {found.yaw_rad:.3f} ± {found.yaw_std_rad:.3f} rad"
