"""Where the camera sits on the robot: given by parameters, or looked up on /tf where tf2_ros is installed."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.time import Time

from geowarp_ros.attitude import Mounting, enu_from_body
from geowarp_ros.config import NodeConfig
from geowarp_ros.errors import ConfigError
from geowarp_ros.motion.session import mounting_of
from geowarp_ros.types import FloatArray


class CameraOnBase:
    """Finds the mounting of a camera.

    From tf it is looked up once for each optical frame and kept: a camera that moves on the robot is not followed.

    Args:
        node: Listens to /tf.
        config: With a ``base_frame``.

    Raises:
        ConfigError: tf2_ros is not installed and the offset is to come from tf.

    Attributes:
        said: What is known, for people.
    """

    def __init__(self, node: Node, config: NodeConfig) -> None:
        self._base_frame, self._listener = config.base_frame, None
        self._given = mounting_of(config)
        self._found: dict[str, Mounting] = {}
        self._turned: dict[str, FloatArray] = {}
        if self._given is not None:
            self.said = f"{self._given.lever_m:.2f} m from {self._base_frame}"
            return
        try:
            tf2_ros: Any = importlib.import_module("tf2_ros")
        except ImportError:
            raise ConfigError(
                "camera_offset.from_tf = true: needs the ROS package tf2_ros, which is not installed"
            ) from None
        self._refusal = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self.said = "no image yet"

    def __call__(self, optical_frame: str) -> Mounting | None:
        """Return the mounting of the camera with that optical frame; None while it is unknown.

        Meanwhile fixes are published of the camera, with its frame_id.
        """
        if self._given is not None or optical_frame in self._found:
            return self._given or self._found[optical_frame]
        try:
            transform = self._buffer.lookup_transform(self._base_frame, optical_frame, Time()).transform
        except self._refusal as error:
            self.said = (
                f"no transform from {self._base_frame} to {optical_frame or 'an image without frame_id'}: {error}"
            )
            return None
        move, q = transform.translation, transform.rotation
        found = Mounting.of_optical(np.array([move.x, move.y, move.z]), (q.x, q.y, q.z, q.w))
        self._found[optical_frame] = found
        self.said = f"{optical_frame} is {found.lever_m:.2f} m from {self._base_frame}, by tf"
        return found

    def rotation_from(self, frame: str) -> FloatArray | None:
        """Return the rotation (3, 3) from another frame of the robot to the base's; None while tf has none.

        Without tf all axes but the camera's are taken for the base's.
        """
        if self._given is not None or frame in ("", self._base_frame):
            return np.eye(3)
        if frame not in self._turned:
            try:
                q = self._buffer.lookup_transform(self._base_frame, frame, Time()).transform.rotation
            except self._refusal:
                return None
            self._turned[frame] = enu_from_body((q.x, q.y, q.z, q.w))
        return self._turned[frame]

    def destroy(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.unregister()
            self._listener = None
