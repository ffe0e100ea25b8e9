"""The topics of a bag: which of them is meant, and its messages and cameras."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from geowarp_ros.cameras import Camera, camera_info_topic, is_rectified
from geowarp_ros.errors import CameraError, SourceError, did_you_mean
from geowarp_ros.messages import camera_from_info
from geowarp_ros.readers.bag_files import ENCODINGS, BagReader, encoding
from geowarp_ros.readers.camera_files import read_camera
from geowarp_ros.readers.clocks import NS
from geowarp_ros.readers.packets import VIDEO_TYPES
from geowarp_ros.readers.storage import first_line

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", *VIDEO_TYPES)
FIX_TYPES = ("sensor_msgs/msg/NavSatFix",)
INFO_TYPE = "sensor_msgs/msg/CameraInfo"

_log = logging.getLogger(__name__)


def choose_topic(path: Path, reader: BagReader, wanted: str, types: Sequence[str], option: str) -> str:
    """Return the topic ``wanted``, or the only one with messages of one of ``types`` where it is empty.

    Raises:
        SourceError: There is no such topic, it has another type, or several would do; ``option`` names the choice.
    """
    # a topic can have a second channel, of other software
    type_of = {c.topic: c.msgtype for c in sorted(reader.connections, key=lambda c: c.msgtype in types)}
    readable = [c for c in reader.connections if c.msgtype in types and encoding(c) in ENCODINGS]
    as_what = {c.topic: f" as {encoding(c)}" for c in reader.connections if encoding(c) not in ENCODINGS}
    as_what |= {c.topic: "" for c in readable}
    listed = (f"{topic} ({kind}{as_what.get(topic, '')})" for topic, kind in sorted(type_of.items()))
    there = ", ".join(listed) or "no topic"
    fitting = {c.topic for c in readable if c.msgcount}
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
    if topic not in {c.topic for c in readable}:
        other = next(encoding(c) for c in reader.connections if c.topic == topic)
        raise SourceError(
            f"{path}: {option} {topic} is serialised as {other!r}, expected {' or '.join(ENCODINGS)}"
        )
    return topic


def channels(reader: BagReader, topic: str, types: Sequence[str]) -> list[Any]:
    """Return the connections of a topic that have messages of one of ``types``, once these can be read.

    Raises:
        SourceError: The definition of such a type cannot be read.
    """
    found = [c for c in reader.connections if c.topic == topic and c.msgtype in types and encoding(c) in ENCODINGS]
    for connection in found:
        reader.types(connection)
    return found


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
        named = connection.topic == self.topic and connection.msgtype == INFO_TYPE
        return bool(named and encoding(connection) in ENCODINGS)

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


class Messages:
    """Messages of some connections in the order in which they were written; damage ends them, or costs one.

    Attributes:
        undecodable: Time of recording (ns) of each message that is no whole one, and the reason.
        broken: Why they ended early; empty if they did not.
    """

    def __init__(self, reader: BagReader, connections: Sequence[Any]) -> None:
        self._reader, self._connections = reader, connections
        self.undecodable: list[tuple[int, str]] = []
        self.broken = ""

    def __iter__(self) -> Iterator[tuple[Any, int, Any]]:
        """Yield (connection, time of recording in ns, message)."""
        stream = self._reader.messages(self._connections, as_written=True)
        while True:
            try:
                connection, recorded_ns, raw = next(stream)
            except StopIteration:
                return
            except Exception as error:
                self.broken = f"{type(error).__name__}: {first_line(error)}"
                return
            try:
                message = self._reader.deserialize(raw, connection)
            except Exception as error:
                self.undecodable.append((recorded_ns, f"of the messages that are not whole ({first_line(error)})"))
                continue
            yield connection, recorded_ns, message


def header_stamp_ns(message: Any) -> int:
    """Return the stamp of a message's header in ns, or that of a message that has nothing else; 0 if not set."""
    stamp = message.header.stamp if hasattr(message, "header") else message.timestamp
    return int(stamp.sec) * NS + int(stamp.nanosec)
