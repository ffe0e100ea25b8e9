"""Between ROS messages and this package's own values. Nothing is decided here but the form of a message.

What NavSatFix's consumers accept decided that form (the table is in the README): every message on ``~/fix``, fix
or not, has a status of 0 or -1, service 0, a finite altitude and a full non-zero covariance of type APPROXIMATED.

A NO_FIX carries the datum – never the position that was rejected – and the covariance of "somewhere on Earth".
navsat_transform and gnss_poser refuse it by its status. RTAB-Map ignores the status, takes NaN as it comes, and
reads an UNKNOWN covariance as 10 m: neither NaN nor UNKNOWN is safe there, a variance that weighs nothing is.
(It also takes the largest of the three variances for the horizontal one: where the gallery has no altitude,
``position.vertical_std_m`` wants to be small for it.)
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CompressedImage, NavSatFix, NavSatStatus
from std_msgs.msg import Header

from geowarp_ros.errors import ImageError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.map_from_odom import MapFromOdom
from geowarp_ros.motion.odometry import Pose
from geowarp_ros.motion.prior import Hint, horizontal_std_m
from geowarp_ros.types import Fix, Frame, Image, NoFix

NOWHERE_STD_M = 1e7
"""Standard deviation of a NO_FIX's position: from the equator to the pole."""

UNKNOWN_ORIENTATION_VARIANCE = 1e6
"""rad². A fix says nothing about orientation; so large that no filter takes the identity quaternion for one."""


def frame_from_message(message: Any) -> Frame:
    """Decode a sensor_msgs/Image or CompressedImage with its stamp and frame.

    Where cv_bridge is installed it gets a second try at encodings that :mod:`geowarp_ros.messages` has not.

    Raises:
        ImageError: An unsupported encoding, or bytes that do not fit or do not decode.
    """
    from geowarp_ros.messages import image_from_compressed, image_from_message  # brings torch: not at start

    if isinstance(message, CompressedImage):
        image = image_from_compressed(message)
    else:
        try:
            image = image_from_message(message)
        except ImageError as error:
            if not is_unsupported(error):
                raise
            image = _by_cv_bridge(message, error)
    return Frame(image, stamp_ns(message.header.stamp), message.header.frame_id)


def is_unsupported(error: ImageError) -> bool:
    """Whether an image was refused for its encoding, rather than for its bytes."""
    return "is not supported" in str(error)


def _by_cv_bridge(message: Any, refusal: ImageError) -> Image:
    try:
        bridge = importlib.import_module("cv_bridge")
    except ImportError:
        raise refusal from None
    try:
        return np.asarray(bridge.CvBridge().imgmsg_to_cv2(message, "rgb8"), np.uint8)
    except Exception as error:  # cv_bridge raises its own, OpenCV's, KeyError and TypeError
        raise ImageError(f"{refusal}; cv_bridge: {error}") from None


def navsatfix_from_answer(
    answer: Fix | NoFix, datum: LocalFrame, *, frame_id: str = "", altitude: float | None = None
) -> NavSatFix:
    """Return an answer as a NavSatFix that every consumer in the table takes, or refuses, as it should.

    Args:
        answer: What the localizer said.
        datum: Origin of the map frame; what a NO_FIX carries.
        frame_id: Instead of the image's.
        altitude: Instead of the fix's; NaN where the node was told so.
    """
    message = NavSatFix(header=header(answer.stamp_ns, frame_id or answer.frame_id))
    message.status.service = 0  # none of GPS, GLONASS, COMPASS, GALILEO
    message.position_covariance_type = NavSatFix.COVARIANCE_TYPE_APPROXIMATED
    if isinstance(answer, Fix):
        message.status.status = NavSatStatus.STATUS_FIX
        message.latitude, message.longitude = answer.latitude_deg, answer.longitude_deg
        message.altitude = answer.altitude_m if altitude is None else altitude
        covariance = answer.covariance
    else:
        message.status.status = NavSatStatus.STATUS_NO_FIX
        message.latitude, message.longitude = datum.datum_latitude_deg, datum.datum_longitude_deg
        message.altitude = datum.datum_altitude_m
        covariance = np.eye(3) * NOWHERE_STD_M**2
    message.position_covariance = np.asarray(covariance, np.float64).reshape(9)
    return message


def pose_from_fix(
    fix: Fix, datum: LocalFrame, map_frame: str, *, altitude: float | None
) -> PoseWithCovarianceStamped:
    """Return a fix as a pose in the local ENU frame about ``datum`` (REP 103, REP 105).

    The orientation is unknown: identity with a variance that gives it no weight. The fix's covariance is taken as
    it is: between its own ENU axes and the datum's lies the angle distance / Earth radius, 0.01° for each km.

    Args:
        fix: Where the camera was.
        datum: Origin of the map frame.
        map_frame: The map frame's name.
        altitude: None where unknown; then z is 0.
    """
    east, north, up = datum.to_enu(fix.latitude_deg, fix.longitude_deg, altitude)
    message = PoseWithCovarianceStamped(header=header(fix.stamp_ns, map_frame))
    position = message.pose.pose.position
    position.x, position.y, position.z = float(east), float(north), 0.0 if altitude is None else float(up)
    message.pose.pose.orientation.w = 1.0
    covariance = np.zeros((6, 6))  # row-major x, y, z, rotX, rotY, rotZ
    covariance[:3, :3] = fix.covariance
    covariance[3:, 3:] = np.eye(3) * UNKNOWN_ORIENTATION_VARIANCE
    message.pose.covariance = covariance.reshape(36)
    return message


def known_altitude(fix: Fix, vertical_std_m: float) -> float | None:
    """Return a fix's altitude, or None where its variance says that the gallery has none."""
    unknown = math.isnan(fix.altitude_m) or fix.covariance[2, 2] >= vertical_std_m**2
    return None if unknown else fix.altitude_m


def hint_from_navsatfix(message: NavSatFix) -> Hint | str:
    """Return what a NavSatFix of another source claims, or why it claims nothing.

    A covariance of type UNKNOWN counts as none.
    """
    if message.status.status < NavSatStatus.STATUS_FIX:
        return f"status {message.status.status}: no fix"
    std_m = math.inf
    if message.position_covariance_type != NavSatFix.COVARIANCE_TYPE_UNKNOWN:
        std_m = horizontal_std_m(np.asarray(message.position_covariance, np.float64).reshape(3, 3))
    return Hint(message.latitude, message.longitude, std_m, stamp_ns(message.header.stamp))


def pose_from_odometry(message: Odometry) -> Pose:
    """Return where an odometry sees the robot; its yaw alone of its orientation."""
    position, q = message.pose.pose.position, message.pose.pose.orientation
    yaw = math.atan2(2.0 * (q.w * q.z + q.x * q.y), 1.0 - 2.0 * (q.y**2 + q.z**2))
    return Pose(stamp_ns(message.header.stamp), np.array([position.x, position.y, position.z]), yaw)


def transform_from_alignment(found: MapFromOdom, stamp: Any, map_frame: str, odom_frame: str) -> TransformStamped:
    """Return the pose of ``odom_frame`` in ``map_frame`` (REP 105): in the plane, at the map's height.

    Args:
        found: Odometry's frame in the map.
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
    """Return a header from nanoseconds and a frame."""
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    return Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=frame_id)


def stamp_ns(stamp: Any) -> int:
    """Return a builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
