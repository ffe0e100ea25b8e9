"""Geotagged images from a ROS bag of camera images and NavSatFix.

Times are header stamps; a message without one (0) has the time at which it was recorded.
"""

from __future__ import annotations

import bisect
import logging
import math
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geowarp_ros.cameras import Camera, camera_info_topic, is_rectified
from geowarp_ros.errors import CameraError, ImageError, SourceError, did_you_mean
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.messages import camera_from_info, image_from_compressed, image_from_message
from geowarp_ros.readers.bag_files import BagFiles
from geowarp_ros.readers.camera_files import read_camera
from geowarp_ros.readers.source import Skipped, Source, SourceImage
from geowarp_ros.types import FloatArray, Image, Place

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
FIX_TYPES = ("sensor_msgs/msg/NavSatFix",)
INFO_TYPE = "sensor_msgs/msg/CameraInfo"

_NS = 1_000_000_000
_JUMP_NS = 2 * _NS  # a longer gap before the wanted image is jumped over by the bag's index

_log = logging.getLogger(__name__)


def read_bag(
    path: Path,
    image_topic: str,
    fix_topic: str,
    max_gap_s: float,
    min_spacing_m: float,
    camera: Path | None = None,
) -> Source:
    """Read a bag of ROS 2 (folder, .mcap, .db3) or ROS 1 (.bag).

    Positions are interpolated linearly between two fixes; before the first and after the last the nearest one is
    taken. Fixes with a status below 0 or a position that is not finite are ignored. A bag that is read only as far
    as it goes (:class:`BagFiles`) is listed among the skipped, with the reason.

    Args:
        path: Folder or file.
        image_topic: Topic of the images; may be empty where the bag has only one.
        fix_topic: Topic of the fixes; may be empty where the bag has only one.
        max_gap_s: Maximum time between an image and the nearest fix, s; images beyond are left out.
        min_spacing_m: Minimum distance from the image kept before, m; closer images are left out.
        camera: Calibration file; None: the CameraInfo beside the images.

    Raises:
        CameraError: ``camera`` is no calibration.
        SourceError: The bag cannot be read, lacks a topic, or has no usable fix or no image near one.
    """
    files = BagFiles(path)
    with files.reader() as reader:
        image_topic = choose_topic(path, reader, image_topic, IMAGE_TYPES, "image_topic")
        fix_topic = choose_topic(path, reader, fix_topic, FIX_TYPES, "fix_topic")
        cameras = RecordedCameras(image_topic, camera)
        recording = _scan(reader, image_topic, fix_topic, cameras)
    if not recording.fixes:
        raise SourceError(
            f"{path}: no fix on {fix_topic}: expected NavSatFix with a status >= 0 and a finite position,"
            f" found {recording.void_fixes} without"
        )
    skipped = []
    if broken := files.broken or recording.broken:
        _log.warning("%s: broken end, used as far as it goes: %s", path, broken)
        skipped.append(Skipped(path.name, f"with a broken end, used as far as it goes ({broken})"))

    recording.images.sort()
    gap_s, east_north_m, geodetic = _interpolate(recording.fixes, [stamp for stamp, _ in recording.images])
    recorded = RecordedImages(files, image_topic)
    images: list[SourceImage] = []
    last_m = np.full(2, np.inf)
    seen: set[int] = set()
    for row, (stamp, recorded_ns) in enumerate(recording.images):
        name = f"{path.stem}/{image_topic.strip('/')}/{stamp}"
        if stamp in seen:
            skipped.append(Skipped(name, "with the stamp of another image"))
        elif gap_s[row] > max_gap_s:
            skipped.append(Skipped(name, f"farther than {max_gap_s:g} s from a fix"))
        elif math.dist(east_north_m[row], last_m) < min_spacing_m:
            skipped.append(Skipped(name, f"closer than {min_spacing_m:g} m to the image before"))
        else:
            last_m = east_north_m[row]
            latitude, longitude, altitude = geodetic[row].tolist()
            place = Place(name, latitude, longitude, altitude_m=altitude, stamp_ns=stamp)
            read = partial(recorded.read, recorded_ns, stamp, name)
            images.append(SourceImage(place, read, camera=cameras.at(stamp)))
        seen.add(stamp)
    if not images:
        raise SourceError(
            f"{path}: none of the {len(gap_s)} images on {image_topic} is within max_gap_s = {max_gap_s:g} s of a"
            f" fix on {fix_topic}; the nearest is {gap_s.min(initial=np.inf):.3f} s away"
        )
    return Source(tuple(images), tuple(skipped), f"bag {path}, {image_topic} with {fix_topic}")


def choose_topic(path: Path, reader: Any, wanted: str, types: Sequence[str], option: str) -> str:
    """Return the topic ``wanted``, or the only one with messages of one of ``types`` where it is empty.

    Raises:
        SourceError: There is no such topic, it has another type, or several would do; ``option`` names the choice.
    """
    type_of = {connection.topic: connection.msgtype for connection in reader.connections}
    there = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(type_of.items())) or "no topic"
    fitting = {c.topic for c in reader.connections if c.msgtype in types and c.msgcount}
    if not wanted:
        if len(fitting) == 1:
            return str(fitting.pop())
        problem = "several topics" if fitting else "no topic with messages"
        raise SourceError(
            f"{path}: {problem} of type {' or '.join(types)} to take as {option}; the bag has {there}"
        )
    topic = wanted if wanted in type_of else f"/{wanted}"
    if topic not in type_of:
        raise SourceError(f"{path}: no topic {wanted!r}{did_you_mean(wanted, type_of)}; the bag has {there}")
    if type_of[topic] not in types:
        raise SourceError(f"{path}: {option} {topic} is of type {type_of[topic]}, expected {' or '.join(types)}")
    return topic


@dataclass(slots=True)
class _Recording:
    """Stamps of images and fixes in a bag.

    Attributes:
        images: Header stamp and time of recording of each image, ns.
        fixes: Header stamp in ns, latitude and longitude in degrees, altitude in m.
        void_fixes: Number of fixes without a position.
        broken: Why reading ended early; empty if it did not.
    """

    images: list[tuple[int, int]] = field(default_factory=list)
    fixes: list[tuple[int, float, float, float]] = field(default_factory=list)
    void_fixes: int = 0
    broken: str = ""


class RecordedCameras:
    """The camera of one topic's images over time.

    Args:
        image_topic: The topic; ``image_rect*`` has undistorted images.
        file: Calibration file that replaces the recorded CameraInfo.

    Attributes:
        topic: Topic of the CameraInfo that belongs to the images; empty with a file.

    Raises:
        CameraError: The file is no calibration.
    """

    def __init__(self, image_topic: str, file: Path | None = None) -> None:
        self._rectified = is_rectified(image_topic)
        self._given = None if file is None else read_camera(file, rectified=self._rectified)
        self.topic = "" if file else camera_info_topic(image_topic)
        self._recorded: dict[int, Camera | None] = {}
        self._stamps: list[int] = []
        self._refused = False

    def belong(self, connection: Any) -> bool:
        """Whether a bag's connection has their CameraInfo."""
        return bool(connection.topic == self.topic and connection.msgtype == INFO_TYPE)

    def add(self, stamp: int, message: Any) -> None:
        """Take a CameraInfo; one that cannot be used is none, and the first such is logged."""
        camera = None
        try:
            camera = camera_from_info(message, self.topic, rectified=self._rectified)
        except CameraError as error:
            if not self._refused:
                _log.warning("%s; the images are taken without a camera model", error)
            self._refused = True
        self._recorded[stamp] = camera
        self._stamps = []

    def at(self, stamp: int) -> Camera | None:
        """Return the camera of the last CameraInfo until ``stamp`` (ns), or of the first."""
        if self._given or not self._recorded:
            return self._given
        self._stamps = self._stamps or sorted(self._recorded)
        return self._recorded[self._stamps[max(bisect.bisect(self._stamps, stamp) - 1, 0)]]


def _scan(reader: Any, image_topic: str, fix_topic: str, cameras: RecordedCameras) -> _Recording:
    found = _Recording()
    connections = [c for c in reader.connections if c.topic in (image_topic, fix_topic) or cameras.belong(c)]
    try:
        for connection, recorded_ns, raw in reader.messages(connections):
            message = reader.deserialize(raw, connection)
            stamp = header_stamp_ns(message) or recorded_ns
            if connection.topic == image_topic:
                found.images.append((stamp, recorded_ns))
            elif connection.topic != fix_topic:
                cameras.add(stamp, message)
            elif message.status.status >= 0 and abs(message.latitude) <= 90 and abs(message.longitude) <= 180:
                found.fixes.append((stamp, message.latitude, message.longitude, message.altitude))
            else:  # NaN too
                found.void_fixes += 1
    except Exception as error:  # rosbags has no exception of its own for every kind of damage
        found.broken = f"{type(error).__name__}: {error}".splitlines()[0]
    return found


def header_stamp_ns(message: Any) -> int:
    """Return the stamp of a message's header in ns; 0 where it was not set."""
    return int(message.header.stamp.sec) * _NS + int(message.header.stamp.nanosec)


def _interpolate(
    fixes: Sequence[tuple[int, float, float, float]], stamps: Sequence[int]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Interpolate fixes at the stamps of N images.

    Returns:
        Time to the nearest fix (N,) in s; metres east and north of the first fix (N, 2); latitude and longitude in
        degrees and altitude in m (N, 3), the latter NaN where a neighbouring fix has none.
    """
    ordered = sorted({stamp: rest for stamp, *rest in fixes}.items())
    first = ordered[0][0]
    fix_s = np.array([(stamp - first) / _NS for stamp, _ in ordered])
    image_s = np.array([(stamp - first) / _NS for stamp in stamps])
    latitude, longitude, altitude = np.array([rest for _, rest in ordered], np.float64).T
    after = np.searchsorted(fix_s, image_s)
    gap_s = np.minimum(
        np.abs(image_s - fix_s[np.maximum(after - 1, 0)]),
        np.abs(image_s - fix_s[np.minimum(after, len(fix_s) - 1)]),
    )
    # in a plane about the first fix: no seam at the antimeridian
    frame = LocalFrame(float(latitude[0]), float(longitude[0]))
    axes = [np.interp(image_s, fix_s, axis) for axis in frame.to_enu(latitude, longitude).T]
    enu_m = np.stack(axes, axis=-1)
    degrees = frame.to_geodetic(enu_m)[:2]
    return gap_s, enu_m[:, :2], np.stack([*degrees, np.interp(image_s, fix_s, altitude)], axis=-1)


class RecordedImages:
    """The images of one topic, read on demand: in order the bag is read once, with one image in memory.

    Out of order, each jump costs a look into the bag's index. The bag is opened by the first read.
    """

    def __init__(self, files: BagFiles, topic: str) -> None:
        self._files = files
        self._topic = topic
        self._lock = threading.Lock()
        self._messages: Iterator[tuple[int, Any]] | None = None
        self._position_ns = 0
        self._opened = ExitStack()
        weakref.finalize(self, self._opened.close)  # at exit, too, while rosbags can still close a bag

    def read(self, recorded_ns: int, stamp: int, name: str) -> Image:
        """Decode an image.

        Args:
            recorded_ns: Time at which it was recorded.
            stamp: Its header stamp, or the same time where it has none, ns.
            name: Name for errors.

        Raises:
            ImageError: Its encoding is not supported, its data is broken, or the bag has changed since.
        """
        try:
            with self._lock:
                message = self._find(recorded_ns, stamp) or self._find(recorded_ns, stamp)
        except Exception as error:  # rosbags has no exception of its own for every kind of damage
            self._messages = None
            raise ImageError(f"{name}: cannot be read from the bag: {error}") from None
        if message is None:
            raise ImageError(f"{name}: is no longer in the bag {self._files.path}")
        try:
            return image_from_compressed(message) if hasattr(message, "format") else image_from_message(message)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from None

    def _find(self, recorded_ns: int, stamp: int) -> Any:
        ahead_ns = recorded_ns - self._position_ns
        if self._messages is None or not 0 <= ahead_ns < _JUMP_NS:
            self._messages = self._stream(recorded_ns)
        for time_ns, message in self._messages:
            self._position_ns = time_ns
            if time_ns > recorded_ns:
                break
            if time_ns == recorded_ns and (header_stamp_ns(message) or time_ns) == stamp:
                return message
        self._messages = None
        return None

    def _stream(self, start_ns: int) -> Iterator[tuple[int, Any]]:
        self._opened.close()
        reader = self._opened.enter_context(self._files.reader())
        connections = [c for c in reader.connections if c.topic == self._topic]
        for connection, time_ns, raw in reader.messages(connections, start=start_ns):
            yield time_ns, reader.deserialize(raw, connection)
