"""From ROS messages to this package's values and back; nothing is decided here but the form of a message.

The consumers of NavSatFix decided that form (docs/node.md): every message on ``~/fix``, fix or not, has status 0
or -1, service 0, a finite altitude (unless ``altitude_nan``) and a full non-zero covariance of type APPROXIMATED.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from sensor_msgs.msg import CompressedImage, NavSatFix, NavSatStatus
from std_msgs.msg import Header

from geowarp_ros.attitude import enu_from_body, quaternion_of, turned
from geowarp_ros.config import NodeConfig
from geowarp_ros.errors import EncodingError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.map_from_odom import MapFromOdom
from geowarp_ros.types import Answer, Fix, Frame, Image

NOWHERE_STD_M = 1e7
"""Standard deviation of the position in a NO_FIX, m: from the equator to the pole."""

UNKNOWN_ORIENTATION_VARIANCE = 1e6
"""rad², of a fix without an orientation: so large that no filter uses the identity quaternion as one."""


def frame_from_message(message: Any) -> Frame:
    """Decode a sensor_msgs/Image or CompressedImage with its stamp and frame.

    cv_bridge, where installed, decodes the encodings that :mod:`geowarp_ros.messages` does not support.

    Raises:
        EncodingError: An unsupported encoding.
        ImageError: Data that does not fit the size, or does not decode.
    """
    from geowarp_ros.messages import image_from_compressed, image_from_message  # brings torch: not at start

    if isinstance(message, CompressedImage):
        image = image_from_compressed(message)
    else:
        try:
            image = image_from_message(message)
        except EncodingError as error:
            image = _by_cv_bridge(message, error)
    return Frame(image, stamp_ns(message.header.stamp), message.header.frame_id)


def _by_cv_bridge(message: Any, refusal: EncodingError) -> Image:
    try:
        bridge = importlib.import_module("cv_bridge")
    except ImportError:
        raise refusal from None
    try:
        return np.asarray(bridge.CvBridge().imgmsg_to_cv2(message, "rgb8"), np.uint8)
    except Exception as error:  # cv_bridge raises its own, OpenCV's, KeyError and TypeError
        raise EncodingError(f"{refusal}; cv_bridge: {error}") from None


def navsatfix_from_answer(answer: Answer, datum: LocalFrame, config: NodeConfig) -> NavSatFix:
    """Return an answer as a NavSatFix; a NO_FIX carries the datum, never the rejected position.

    Args:
        answer: Answer of the localizer.
        datum: Origin of the map frame.
        config: ``frame_id`` replaces the image's frame; with ``altitude_nan`` an unknown altitude is NaN.
    """
    fix = answer.fix
    message = NavSatFix(header=header(answer.header.stamp_ns, config.frame_id or answer.header.frame_id))
    message.status.service = 0  # none of GPS, GLONASS, COMPASS, GALILEO
    message.position_covariance_type = NavSatFix.COVARIANCE_TYPE_APPROXIMATED
    if fix is not None:
        unknown = config.altitude_nan and known_altitude(fix, config) is None
        message.status.status = NavSatStatus.STATUS_FIX
        message.latitude, message.longitude = fix.latitude_deg, fix.longitude_deg
        message.altitude = math.nan if unknown else fix.altitude_m
        covariance = fix.covariance
    else:
        message.status.status = NavSatStatus.STATUS_NO_FIX
        message.latitude, message.longitude = datum.datum_latitude_deg, datum.datum_longitude_deg
        message.altitude = datum.datum_altitude_m
        covariance = np.eye(3) * NOWHERE_STD_M**2
    message.position_covariance = np.asarray(covariance, np.float64).reshape(9)
    return message


def pose_from_fix(fix: Fix, stamp: int, datum: LocalFrame, config: NodeConfig) -> PoseWithCovarianceStamped:
    """Return a fix as a pose in the local ENU frame at ``datum`` (REP 103, REP 105).

    The orientation is that of the body frame, x forward. An unknown one is the identity, with a variance that
    gives it no weight; the covariance of the position is turned by the datum's yaw alone then: its axes and the
    datum's differ by distance / Earth radius besides, 0.01° per km.

    Args:
        fix: The position of the camera, or of the base.
        stamp: Stamp of its image, ns.
        datum: Origin of the map frame.
        config: Name of the map frame.
    """
    altitude = known_altitude(fix, config)
    east, north, up = datum.to_enu(fix.latitude_deg, fix.longitude_deg, altitude)
    message = PoseWithCovarianceStamped(header=header(stamp, config.map_frame))
    position = message.pose.pose.position
    position.x, position.y, position.z = float(east), float(north), 0.0 if altitude is None else float(up)
    q = message.pose.pose.orientation
    covariance = np.eye(6) * UNKNOWN_ORIENTATION_VARIANCE  # row-major x, y, z, rotX, rotY, rotZ
    by_yaw = datum.rotation_from(LocalFrame(*datum.datum)) if datum.yaw_deg else np.eye(3)
    covariance[:3, :3] = by_yaw @ fix.covariance @ by_yaw.T
    if fix.orientation is not None and fix.pose_covariance is not None:
        map_from_here = datum.rotation_from(LocalFrame(fix.latitude_deg, fix.longitude_deg))
        q.x, q.y, q.z, q.w = quaternion_of(map_from_here @ enu_from_body(fix.orientation))
        covariance[:] = turned(fix.pose_covariance, map_from_here)
    message.pose.covariance = covariance.reshape(36)
    return message


def known_altitude(fix: Fix, config: NodeConfig) -> float | None:
    """Return the altitude of a fix, or None if its variance says that the gallery has none."""
    unknown = math.isnan(fix.altitude_m) or fix.covariance[2, 2] >= config.position.vertical_std_m**2
    return None if unknown else fix.altitude_m


def transform_from_alignment(found: MapFromOdom, stamp: Any, map_frame: str, odom_frame: str) -> TransformStamped:
    """Return the pose of ``odom_frame`` in ``map_frame`` (REP 105), in the plane z = 0.

    Args:
        found: Alignment of the odometry frame with the map.
        stamp: builtin_interfaces/Time.
        map_frame: The parent.
        odom_frame: The child.
    """
    message = TransformStamped(header=Header(stamp=stamp, frame_id=map_frame), child_frame_id=odom_frame)
    message.transform.translation.x, message.transform.translation.y = found.east_m, found.north_m
    message.transform.rotation.z = math.sin(found.yaw_rad / 2)
    message.transform.rotation.w = math.cos(found.yaw_rad / 2)
    return message


def header(stamp: int, frame_id: str) -> Header:
    """Return a header from a stamp in nanoseconds and a frame."""
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    return Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=frame_id)


def stamp_ns(stamp: Any) -> int:
    """Return a builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
