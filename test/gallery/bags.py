"""Writes small ROS bags for the tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

ROS2 = get_typestore(Stores.ROS2_JAZZY)
ROS1 = get_typestore(Stores.ROS1_NOETIC)
START_NS = 1_700_000_000_000_000_000
LATITUDE, LONGITUDE = 45.0, 9.0
LATENCY_NS = 30_000_000  # between a header stamp and its recording

Message = tuple[str, int, Any]
"""(topic, time of recording in ns, message)."""


def picture(shade: int) -> NDArray[np.uint8]:
    """A 32×24 image that is recognised by its red channel."""
    image = np.full((24, 32, 3), 90, np.uint8)
    image[..., 0] = shade
    return image


def _header(store: Any, stamp_ns: int) -> Any:
    stamp = store.types["builtin_interfaces/msg/Time"](stamp_ns // 10**9, stamp_ns % 10**9)
    extra = (0,) if store is ROS1 else ()
    return store.types["std_msgs/msg/Header"](*extra, stamp, "camera")


def image(t_s: float, shade: int, topic: str = "/camera", *, store: Any = ROS2, stamped: bool = True) -> Message:
    """An rgb8 image taken t_s after the start."""
    stamp_ns = START_NS + round(t_s * 1e9)
    pixels = picture(shade)
    height, width = pixels.shape[:2]
    message = store.types["sensor_msgs/msg/Image"](
        _header(store, stamp_ns if stamped else 0), height, width, "rgb8", 0, width * 3, pixels.ravel()
    )
    return topic, stamp_ns + LATENCY_NS, message


def compressed(t_s: float, shade: int, topic: str = "/camera/compressed") -> Message:
    """The same as a png."""
    stamp_ns = START_NS + round(t_s * 1e9)
    data = cv2.imencode(".png", picture(shade)[..., ::-1])[1].ravel()
    kind = ROS2.types["sensor_msgs/msg/CompressedImage"]
    return topic, stamp_ns + LATENCY_NS, kind(_header(ROS2, stamp_ns), "rgb8; png compressed bgr8", data)


def fix(
    t_s: float, latitude: float, longitude: float = LONGITUDE, altitude: float = 50.0, *, status: int = 0,
    store: Any = ROS2, topic: str = "/fix",
) -> Message:  # fmt: skip
    """A NavSatFix; recorded 200 ms late, as receivers are."""
    stamp_ns = START_NS + round(t_s * 1e9)
    message = store.types["sensor_msgs/msg/NavSatFix"](
        _header(store, stamp_ns), store.types["sensor_msgs/msg/NavSatStatus"](status, 1),
        latitude, longitude, altitude, np.zeros(9), 0,
    )  # fmt: skip
    return topic, stamp_ns + 200_000_000, message


def imu(t_s: float, up: tuple[float, float, float], topic: str = "/imu", *, store: Any = ROS2) -> Message:
    """An Imu that knows its acceleration alone; its frame is the base's."""
    stamp_ns = START_NS + round(t_s * 1e9)
    vector, covariance = store.types["geometry_msgs/msg/Vector3"], np.zeros(9)
    unknown = np.array([-1.0] + [0.0] * 8)
    message = store.types["sensor_msgs/msg/Imu"](
        _header(store, stamp_ns), store.types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0), unknown,
        vector(0.0, 0.0, 0.0), covariance, vector(*(9.81 * x for x in up)), covariance,
    )  # fmt: skip
    return topic, stamp_ns + 1_000_000, message


def info(
    t_s: float, focal_px: float, topic: str = "/camera_info", *, size: tuple[int, int] = (32, 24),
    store: Any = ROS2, model: str = "plumb_bob",
) -> Message:  # fmt: skip
    """A CameraInfo; P has twice the focal length, and a focal length of 0 is no calibration."""
    stamp_ns, (width, height) = START_NS + round(t_s * 1e9), size
    cx, cy = (width - 1) / 2, (height - 1) / 2
    k = np.array([focal_px, 0, cx, 0, focal_px, cy, 0, 0, 1])
    p = np.array([2 * focal_px, 0, cx, 0, 0, 2 * focal_px, cy, 0, 0, 0, 1, 0])
    roi = store.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    message = store.types["sensor_msgs/msg/CameraInfo"](
        _header(store, stamp_ns),
        height,
        width,
        model,
        np.array([0.1, 0, 0, 0, 0]),
        k,
        np.eye(3).ravel(),
        p,
        0,
        0,
        roi,
    )
    return topic, stamp_ns + LATENCY_NS, message


def write_bag(path: Path, messages: Iterable[Message], storage: Literal["mcap", "sqlite3"] = "mcap") -> Path:
    """Write a ROS 2 bag in order of recording; returns its folder."""
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections: dict[str, Any] = {}
        for topic, time_ns, message in sorted(messages, key=lambda item: item[1]):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=ROS2)
            writer.write(connections[topic], time_ns, ROS2.serialize_cdr(message, kind))
    return path


def write_bag1(path: Path, messages: Iterable[Message]) -> Path:
    """Write a ROS 1 bag; returns its file."""
    with Writer1(path) as writer:
        connections: dict[str, Any] = {}
        for topic, time_ns, message in sorted(messages, key=lambda item: item[1]):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=ROS1)
            writer.write(connections[topic], time_ns, ROS1.serialize_ros1(message, kind))
    return path


def drive(images: int = 8, *, store: Any = ROS2) -> list[Message]:
    """North at one arc-millidegree a second: a fix each second, an image each half; image i has shade 10 i."""
    messages = [image(i / 2, 10 * i, store=store) for i in range(images)]
    return messages + [fix(s, LATITUDE + s * 1e-3, store=store) for s in range(images // 2 + 1)]
