"""The camera of the node's images: from ``camera_info_url``, else from the newest CameraInfo."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rclpy.node import Node

from geowarp_ros.cameras import Camera, camera_info_topic, is_rectified
from geowarp_ros.errors import CameraError, ConfigError
from geowarp_ros.files import expanded

INFO = "camera_info"


def info_topic(node: Node) -> str:
    """Return the topic of CameraInfo: ``camera_info`` beside the images, unless it is remapped itself."""
    remapped = str(node.resolve_topic_name(INFO))
    if remapped != node.resolve_topic_name(INFO, only_expand=True):
        return remapped
    return camera_info_topic(node.resolve_topic_name("image"))


class ImageCamera:
    """The camera of the images of one node; any thread may call.

    What a file says was meant, so that a bad one is an error; what a driver says may be wrong, so that images are
    localised without a camera model then, and ``warn`` is told why.

    Args:
        node: Its topics are the images' and the CameraInfo's.
        url: Calibration file that replaces CameraInfo: a path, ``file://`` or ``package://``; empty: CameraInfo.
        warn: Is told why a CameraInfo cannot be used.

    Attributes:
        said: Which camera is in use, for people.

    Raises:
        CameraError: The file is no calibration.
        ConfigError: The URL names no file.
    """

    def __init__(self, node: Node, url: str, warn: Callable[[str], None]) -> None:
        self._topic, self._warn = info_topic(node), warn
        self._rectified = is_rectified(node.resolve_topic_name("image"))
        self._lock = threading.Lock()
        self._newest: Any = None
        self._camera: Camera | None = None
        self._problem, self.said = "", f"none yet on {self._topic}"
        if url:
            from geowarp_ros.readers.camera_files import read_camera

            self._camera = read_camera(file_of(url), rectified=self._rectified)
            self.said = str(self._camera)

    def take(self, message: Any) -> None:
        """Take a CameraInfo; one like the last changes nothing."""
        from geowarp_ros.messages import camera_from_info  # brings torch: not at start

        message.header = type(message.header)()  # its stamp is no difference
        with self._lock:
            if message == self._newest:
                return
            self._newest, self._problem = message, ""
            try:
                self._camera = camera_from_info(message, self._topic, rectified=self._rectified)
                self.said = str(self._camera or f"none: {self._topic} is not calibrated")
            except CameraError as error:
                self._camera, self._problem, self.said = None, str(error), f"none: {error}"

    def at(self, width_px: int, height_px: int) -> Camera | None:
        """Return the camera for an image of this size; None where it is unknown, or not of this image."""
        with self._lock:
            camera, problem = self._camera, self._problem
        try:
            if camera is not None:
                camera = camera.scaled_to(width_px, height_px)
                self.said = str(camera)
                return camera
        except CameraError as error:
            problem, self.said = str(error), f"none: {error}"
        if problem:
            self._warn(f"{problem}; images are localised without a camera model")
        return None


def file_of(url: str) -> Path:
    """Return the file that a ``camera_info_url`` names, as camera_info_manager has them.

    Raises:
        ConfigError: Another scheme, no such package, or no ament to look for it.
    """
    scheme, colon, _ = url.partition("://")
    if not colon:
        return expanded(url)
    parts = urlsplit(url)
    if scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return Path(unquote(parts.path))
    if scheme != "package" or not parts.netloc:
        raise ConfigError(f"camera_info_url = {url!r}: expected a path, file:///PATH or package://NAME/PATH")
    try:
        from ament_index_python.packages import get_package_share_directory

        return Path(get_package_share_directory(parts.netloc), unquote(parts.path).lstrip("/"))
    except (ImportError, OSError):  # no AMENT_PREFIX_PATH
        raise ConfigError(f"camera_info_url = {url!r}: package:// needs a ROS 2 installation") from None
    except LookupError:
        raise ConfigError(f"camera_info_url = {url!r}: there is no package {parts.netloc!r}") from None
