"""Attitude: from a camera's rotation to a quaternion, a heading and their uncertainty, and on to the robot's base.

Convention:
    ENU, body (x forward, y left, z up) and optical (x right, y down, z forward) axes are those of REP 103.
    Quaternions are (x, y, z, w). A heading is clockwise from true north, a yaw counter-clockwise from east. A pose
    covariance (6, 6) is of (east, north, up, rotation about east, north, up), m² and rad²; the rotation error is a
    small rotation vector in ENU, applied from the left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.types import Answer, Fix, FloatArray, Pose, PoseMethod

Quaternion = tuple[float, float, float, float]

BODY_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""(3, 3): forward is the optical z, left is -x, up is -y."""

STEEP_DEG = 60.0
"""Elevation of the optical axis, up or down, beyond which the image's vertical gives the heading.

The axis's horizontal part is cos(elevation): at 60° half of it is left, and an error of the tilt enters the
heading at most tan 60° = 1.7 times. Cameras of robots and in hands stay well below it; survey drones, which tilt
by up to 15° from straight down (95 % of the photographs), well beyond: none changes sides from image to image."""


def orientation_of(enu_from_camera: FloatArray) -> Quaternion:
    """Return the quaternion of the body frame in ENU from ``enu_from_camera`` (3, 3) of the optical frame."""
    return quaternion_of(enu_from_camera @ BODY_FROM_OPTICAL.T)


def enu_from_body_of(pose: Pose) -> FloatArray:
    """Return the rotation (3, 3) from the camera's body frame to ENU."""
    return np.asarray(pose.rotation @ BODY_FROM_OPTICAL.T)


def quaternion_of(rotation: FloatArray) -> Quaternion:
    """Return a rotation (3, 3) as the quaternion whose w is not negative."""
    x, y, z, w = Rotation.from_matrix(rotation).as_quat().tolist()
    return (-x, -y, -z, -w) if w < 0 else (x, y, z, w)


def enu_from_body(orientation: Quaternion) -> FloatArray:
    """Return the rotation (3, 3) from the body frame to ENU."""
    return np.asarray(Rotation.from_quat(orientation).as_matrix())


def heading(enu_from_body: FloatArray) -> float:
    """Return the heading (deg, 0 to 360) of a body frame's x axis; beyond STEEP_DEG of its vertical axis.

    A camera that looks down heads where the top of its image points, one that looks up where the bottom does: both
    are where it would look if it were levelled.
    """
    east, north, _ = _pointer(enu_from_body)
    return math.degrees(math.atan2(east, north)) % 360.0


def heading_std(enu_from_body: FloatArray, covariance: FloatArray) -> float:
    """Return the standard deviation (deg) of :func:`heading`.

    A rotation θ moves the pointer d by θ × d; so the heading atan2(d_e, d_n) moves by
    (d_e d_u / ρ²) θ_e + (d_n d_u / ρ²) θ_n - θ_u, with ρ² = d_e² + d_n².

    Args:
        enu_from_body: (3, 3).
        covariance: (6, 6) of the pose, or (3, 3) of the rotation about east, north, up, rad².
    """
    east, north, up = _pointer(enu_from_body)
    squared = east**2 + north**2
    by_rotation = np.array([east * up / squared, north * up / squared, -1.0])
    return math.degrees(math.sqrt(by_rotation @ np.asarray(covariance, np.float64)[-3:, -3:] @ by_rotation))


def yaw_rad(enu_from_body: FloatArray) -> float:
    """Return the yaw of :func:`heading`: counter-clockwise from east (REP 103)."""
    east, north, _ = _pointer(enu_from_body)
    return math.atan2(north, east)


def turned(covariance: FloatArray, rotation: FloatArray) -> FloatArray:
    """Return a pose covariance (6, 6) in axes that ``rotation`` (3, 3) leads to."""
    both = np.kron(np.eye(2), rotation)
    return np.asarray(both @ covariance @ both.T)


def carried(covariance: FloatArray, lever_m: FloatArray) -> FloatArray:
    """Return the pose covariance (6, 6) of a point that lies ``lever_m`` (3,), ENU, from where it is given.

    The rotation error θ moves the point by θ × lever = -[lever]× θ.
    """
    east, north, up = lever_m
    move = np.eye(6)
    move[:3, 3:] = -np.array([[0.0, -up, north], [up, 0.0, -east], [-north, east, 0.0]])
    return np.asarray(move @ covariance @ move.T)


def fix_from_pose(pose: Pose, frame: LocalFrame, confidence: float, covariance: FloatArray) -> Fix:
    """Return a pose as a fix; its axes and true north are those at the camera, not those at the frame's datum.

    Args:
        pose: In ``frame``.
        frame: Local frame of the gallery.
        confidence: Probability that the position is right.
        covariance: (6, 6) of the pose in ``frame``, calibrated.
    """
    return _fix(pose.position_m, enu_from_body_of(pose), frame, covariance, confidence, pose.method)


def _fix(
    position_m: FloatArray,
    frame_from_body: FloatArray,
    frame: LocalFrame,
    covariance: FloatArray,
    confidence: float,
    method: PoseMethod,
) -> Fix:
    latitude, longitude, altitude = (float(value) for value in frame.to_geodetic(position_m))
    here_from_frame = LocalFrame(latitude, longitude, altitude).rotation_from(frame)
    rotation, covariance = here_from_frame @ frame_from_body, turned(covariance, here_from_frame)
    covariance = (covariance + covariance.T) / 2
    return Fix(
        latitude,
        longitude,
        altitude,
        covariance[:3, :3],
        confidence,
        method,
        orientation=quaternion_of(rotation),
        heading_deg=heading(rotation),
        heading_std_deg=heading_std(rotation, covariance),
        pose_covariance=covariance,
    )


@dataclass(frozen=True, slots=True)
class Mounting:
    """Where a camera sits on a robot: the pose of its body frame in the robot's base frame (REP 103, REP 105).

    Attributes:
        position_m: (3,) position of the camera, forward, left and up of the base.
        rotation: (3, 3) ``base_from_body``.
    """

    position_m: FloatArray
    rotation: FloatArray

    @classmethod
    def of(cls, xyz_m: tuple[float, float, float], rpy_deg: tuple[float, float, float]) -> Mounting:
        """Return the mounting by roll, pitch and yaw about the base's fixed x, y and z (REP 103)."""
        return cls(np.array(xyz_m), Rotation.from_euler("xyz", rpy_deg, degrees=True).as_matrix())

    @classmethod
    def of_optical(cls, position_m: FloatArray, orientation: Quaternion) -> Mounting:
        """Return the mounting by the pose of the camera's optical frame in the base frame, as tf has it."""
        return cls(np.asarray(position_m, np.float64), enu_from_body(orientation) @ BODY_FROM_OPTICAL.T)

    @property
    def lever_m(self) -> float:
        """Distance of the camera from the base, m."""
        return float(np.linalg.norm(self.position_m))

    def base_of(self, fix: Fix) -> Fix:
        """Return the fix of the base from that of the camera.

        Without an orientation nobody knows to which side the base lies: the position stays the camera's, and the
        squared length of the lever is added to each variance.
        """
        if fix.orientation is None or fix.pose_covariance is None:
            return replace(fix, covariance=fix.covariance + np.eye(3) * self.lever_m**2)
        enu_from_base = enu_from_body(fix.orientation) @ self.rotation.T
        lever_m = -enu_from_base @ self.position_m
        camera = LocalFrame(fix.latitude_deg, fix.longitude_deg, fix.altitude_m)
        covariance = carried(fix.pose_covariance, lever_m)
        return _fix(lever_m, enu_from_base, camera, covariance, fix.confidence, fix.method)


def base_answer(answer: Answer, mounting: Mounting | None, base_frame: str) -> Answer:
    """Return an answer of the robot's base from that of the camera; the camera's where the mounting is unknown."""
    if mounting is None:
        return answer
    result = answer.result
    return replace(
        answer,
        header=replace(answer.header, frame_id=base_frame),
        result=mounting.base_of(result) if isinstance(result, Fix) else result,
    )


def _pointer(enu_from_body: FloatArray) -> FloatArray:
    """Return the direction (3,) in ENU whose azimuth is the heading."""
    forward = enu_from_body[:, 0]
    steep = abs(forward[2]) > math.sin(math.radians(STEEP_DEG))
    return np.asarray(-math.copysign(1.0, forward[2]) * enu_from_body[:, 2] if steep else forward)
