"""A ROS bag of camera images and NavSatFix: positions are interpolated to the images' stamps.

Everything goes by header stamps; a message without one (0) goes by the time at which it was recorded.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import ImageError, SourceError, did_you_mean
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.messages import image_from_compressed, image_from_message
from geowarp_ros.readers.bag_files import BagFiles
from geowarp_ros.readers.source import Skipped, Source, SourceImage
from geowarp_ros.types import Image, Place

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
FIX_TYPES = ("sensor_msgs/msg/NavSatFix",)

_NS = 1_000_000_000
_JUMP_NS = 2 * _NS  # a longer way to the next image is jumped over by the bag's index

_log = logging.getLogger(__name__)


def read_bag(
    path: Path, *, image_topic: str = "", fix_topic: str = "", max_gap_s: float = 1.0, min_spacing_m: float = 0.0
) -> Source:
    """Read a bag of ROS 2 (folder, .mcap, .db3) or ROS 1 (.bag).

    Between two fixes the position is linear in time; before the first and after the last the nearest one holds.
    Fixes with a status below 0 or a position that is not finite are ignored. A bag with a broken end is used as
    far as it goes: it then stands among the skipped, with the reason.

    Args:
        path: Folder or file.
        image_topic: May be empty where only one has images.
        fix_topic: May be empty where only one has fixes.
        max_gap_s: Images farther than this from the nearest fix are left out.
        min_spacing_m: Images closer than this to the one kept before are left out.

    Raises:
        SourceError: No bag, no such topic, no usable fix, or no image near a fix.
    """
    files = BagFiles(path)
    with files.reader() as reader:
        image_topic = choose_topic(path, reader, image_topic, IMAGE_TYPES, "image_topic")
        fix_topic = choose_topic(path, reader, fix_topic, FIX_TYPES, "fix_topic")
        recording = _scan(reader, image_topic, fix_topic)
    if not recording.fixes:
        raise SourceError(
            f"{path}: no fix on {fix_topic}: expected NavSatFix with a status >= 0 and a finite position,"
            f" found {recording.void_fixes} without"
        )
    skipped = []
    if broken := files.broken or recording.broken:
        _log.warning("%s: broken end, used as far as it goes: %s", path, broken)
        skipped.append(Skipped(path.name, f"with a broken end, used as far as it goes ({broken})"))

    track = _Track(recording.fixes)
    recorded = RecordedImages(files, image_topic)
    images: list[SourceImage] = []
    last_m = np.full(2, np.inf)
    seen: set[int] = set()
    for stamp, recorded_ns in sorted(recording.images):
        name = f"{path.stem}/{image_topic.strip('/')}/{stamp}"
        east_north_m = track.east_north_m(stamp)
        if stamp in seen:
            skipped.append(Skipped(name, "with the stamp of another image"))
        elif track.gap_s(stamp) > max_gap_s:
            skipped.append(Skipped(name, f"farther than {max_gap_s:g} s from a fix"))
        elif math.dist(east_north_m, last_m) < min_spacing_m:
            skipped.append(Skipped(name, f"closer than {min_spacing_m:g} m to the image before"))
        else:
            last_m = east_north_m
            place = track.place(name, stamp)
            images.append(SourceImage(place, partial(recorded.read, recorded_ns, stamp, name)))
        seen.add(stamp)
    if not images:
        nearest_s = min((track.gap_s(stamp) for stamp in seen), default=math.inf)
        raise SourceError(
            f"{path}: none of the {len(recording.images)} images on {image_topic} is within max_gap_s ="
            f" {max_gap_s:g} s of a fix on {fix_topic}; the nearest is {nearest_s:.3f} s away"
        )
    return Source(tuple(images), tuple(skipped), f"bag {path}, {image_topic} with {fix_topic}")


def choose_topic(path: Path, reader: Any, wanted: str, types: Sequence[str], option: str) -> str:
    """Return ``wanted``, or the only topic of one of ``types`` that has messages."""
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
    """What one pass over the bag finds.

    Attributes:
        images: (header stamp, time of recording), ns.
        fixes: (header stamp in ns, latitude, longitude, altitude).
        void_fixes: Number of fixes that say nothing.
        broken: Why the pass ended early, or an empty string.
    """

    images: list[tuple[int, int]] = field(default_factory=list)
    fixes: list[tuple[int, float, float, float]] = field(default_factory=list)
    void_fixes: int = 0
    broken: str = ""


def _scan(reader: Any, image_topic: str, fix_topic: str) -> _Recording:
    found = _Recording()
    connections = [c for c in reader.connections if c.topic in (image_topic, fix_topic)]
    for topic, recorded_ns, message in _until_broken(reader, connections, found):
        stamp = header_stamp_ns(message) or recorded_ns
        if topic == image_topic:
            found.images.append((stamp, recorded_ns))
        elif message.status.status >= 0 and _is_position(message.latitude, message.longitude):
            found.fixes.append((stamp, message.latitude, message.longitude, message.altitude))
        else:
            found.void_fixes += 1
    return found


def _until_broken(
    reader: Any, connections: Sequence[Any], recording: _Recording
) -> Iterator[tuple[str, int, Any]]:
    """Yield (topic, time of recording, message); damage ends it and is noted."""
    messages = reader.messages(connections)
    while True:
        try:
            connection, recorded_ns, raw = next(messages)
            message = reader.deserialize(raw, connection.msgtype)
        except StopIteration:
            return
        except Exception as error:  # rosbags has no exception of its own for every kind of damage
            recording.broken = f"{type(error).__name__}: {error}".splitlines()[0]
            return
        yield connection.topic, recorded_ns, message


def header_stamp_ns(message: Any) -> int:
    """Return the stamp of a message's header; 0 where nobody set it."""
    return int(message.header.stamp.sec) * _NS + int(message.header.stamp.nanosec)


def _is_position(latitude_deg: float, longitude_deg: float) -> bool:
    return abs(latitude_deg) <= 90 and abs(longitude_deg) <= 180  # false for NaN


class _Track:
    """Where the receiver was at any time."""

    def __init__(self, fixes: Sequence[tuple[int, float, float, float]]) -> None:
        ordered = sorted({stamp: rest for stamp, *rest in fixes}.items())
        self._start_ns = ordered[0][0]
        self._time_s = np.array([(stamp - self._start_ns) / _NS for stamp, _ in ordered])
        latitude, longitude, self._altitude_m = np.array([rest for _, rest in ordered], np.float64).T
        # a plane about the first fix: no seam at the antimeridian
        self._frame = LocalFrame(float(latitude[0]), float(longitude[0]))
        self._east_m, self._north_m, self._up_m = self._frame.to_enu(latitude, longitude).T

    def gap_s(self, stamp: int) -> float:
        """Return the time to the nearest fix."""
        time_s = (stamp - self._start_ns) / _NS
        after = np.searchsorted(self._time_s, time_s)
        return float(np.abs(self._time_s[max(0, after - 1) : after + 1] - time_s).min())

    def east_north_m(self, stamp: int) -> NDArray[np.float64]:
        """Return the position in the plane, (2,)."""
        return np.array([self._at(stamp, self._east_m), self._at(stamp, self._north_m)])

    def place(self, name: str, stamp: int) -> Place:
        """Return the position as a place; its altitude is NaN where a fix beside it has none."""
        enu = [*self.east_north_m(stamp), self._at(stamp, self._up_m)]
        latitude, longitude, _ = self._frame.to_geodetic(enu)
        altitude = self._at(stamp, self._altitude_m)
        return Place(name, float(latitude), float(longitude), altitude_m=altitude, stamp_ns=stamp)

    def _at(self, stamp: int, values: NDArray[np.float64]) -> float:
        return float(np.interp((stamp - self._start_ns) / _NS, self._time_s, values))


class RecordedImages:
    """The images of one topic, read in passing: in order, the bag is read once, one image in memory.

    Asked for out of order, each jump costs one look into the bag's index. Opened by the first read.
    """

    def __init__(self, files: BagFiles, topic: str) -> None:
        self._files = files
        self._topic = topic
        self._lock = threading.Lock()
        self._messages: Iterator[tuple[int, Any]] | None = None
        self._position_ns = 0

    def read(self, recorded_ns: int, stamp: int, name: str) -> Image:
        """Decode the image that was recorded then and carries that stamp.

        Raises:
            ImageError: An encoding not supported, broken data, or a bag that changed since.
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
        with self._files.reader() as reader:
            connections = [c for c in reader.connections if c.topic == self._topic]
            for connection, time_ns, raw in reader.messages(connections, start=start_ns):
                yield time_ns, reader.deserialize(raw, connection.msgtype)
