"""Messages of an inertial unit, turned into the axes of the base."""

from __future__ import annotations

from typing import Any

from geowarp_ros.motion.gravity import tilt_from_message
from geowarp_ros.motion.session import Session
from geowarp_ros.ros.mount import CameraOnBase


def take(message: Any, session: Session, mount: CameraOnBase | None) -> None:
    """Hand a sensor_msgs/Imu to the session; one whose frame lies on the base nobody knows how is passed over."""
    rotation = None if mount is None else mount.rotation_from(message.header.frame_id)
    tilt = tilt_from_message(message)
    if rotation is not None and tilt is not None:
        session.plumb.add(tilt.turned(rotation))
