"""Geotagged images from a ROS bag of camera images and NavSatFix.

Times are header stamps; a message without one (0) has the time at which it was recorded.
"""

from __future__ import annotations

import bisect
import logging
import math
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.cameras import Camera, camera_info_topic, is_rectified
from geowarp_ros.errors import CameraError, ImageError, SourceError, did_you_mean
from geowarp_ros.images import check_image
from geowarp_ros.messages import camera_from_info, image_from_compressed, image_from_message
from geowarp_ros.readers.bag_files import ENCODINGS, BagFiles, BagReader, encoding
from geowarp_ros.readers.camera_files import read_camera
from geowarp_ros.readers.clocks import (
    NS,
    SAME_CLOCK_S,
    Stamps,
    ahead_s,
    two_clocks,
    without_steps,
)
from geowarp_ros.readers.fixes import FixTrack, flaw
from geowarp_ros.readers.packets import VIDEO_TYPES, PacketDecoder, codec_of, is_keyframe
from geowarp_ros.readers.source import Skipped, Source, SourceImage, count_reasons
from geowarp_ros.readers.storage import first_line
from geowarp_ros.types import Image, Place

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", *VIDEO_TYPES)
FIX_TYPES = ("sensor_msgs/msg/NavSatFix",)
INFO_TYPE = "sensor_msgs/msg/CameraInfo"

_DELAY = 16  # pictures that a video's decoder holds back at most, to put them in order
_JUMP_NS = 2 * NS  # a longer gap before the wanted image is jumped over by the bag's index

_log = logging.getLogger(__name__)


def read_bag(
    path: Path,
    image_topic: str,
    fix_topic: str,
    max_gap_s: float,
    min_spacing_m: float,
    camera: Path | None = None,
    *,
    accept_null_island: bool = False,
    fix_offset_s: float | None = None,
) -> Source:
    """Read a bag of ROS 2 (folder, .mcap, .db3) or ROS 1 (.bag).

    Positions are interpolated linearly between two fixes; before the first and after the last the nearest one is
    taken. Fixes that are no position (:mod:`geowarp_ros.readers.fixes`) are listed among the skipped, with the
    reason, and so is a bag that is read only as far as it goes, or without a file (:class:`BagFiles`).

    Args:
        path: Folder or file.
        image_topic: Topic of the images; may be empty where the bag has only one.
        fix_topic: Topic of the fixes; may be empty where the bag has only one.
        max_gap_s: Maximum time between an image and the nearest fix, s; images beyond are left out.
        min_spacing_m: Minimum distance from the image kept before, m; closer images are left out.
        camera: Calibration file; None: the CameraInfo beside the images.
        accept_null_island: Believe fixes at exactly 0°, 0°.
        fix_offset_s: Offset added to the stamps of the fixes (s); None: 0, and clocks that differ are refused.

    Raises:
        CameraError: ``camera`` is no calibration.
        SourceError: The bag cannot be read, lacks a topic, has no usable fix or no image near one, or its images
            and fixes are stamped by two clocks; the message says which offset would fit.
    """
    files = BagFiles(path)
    with files.reader() as reader:
        image_topic = choose_topic(path, reader, image_topic, IMAGE_TYPES, "image_topic")
        fix_topic = choose_topic(path, reader, fix_topic, FIX_TYPES, "fix_topic")
        cameras = RecordedCameras(image_topic, camera)
        recording = _scan(reader, image_topic, fix_topic, cameras, accept_null_island)
    skipped = [Skipped(name, "absent, though metadata.yaml names it") for name in files.missing]
    if broken := files.broken or recording.broken:
        _log.warning("%s: broken end, used as far as it goes: %s", path, broken)
        skipped.append(Skipped(path.name, f"with a broken end, used as far as it goes ({broken})"))
    where = f"{files.stem}/{image_topic.strip('/')}"
    skipped += [Skipped(f"{where}/{stamp}", reason) for stamp, reason in recording.undecodable]
    if not recording.images:
        raise SourceError(f"{path}: no whole image on {image_topic}: {count_reasons(skipped) or 'no message'}")
    if all(recording.flaws):
        void = ", ".join(f"{count} {reason}" for reason, count in Counter(recording.flaws).items())
        raise SourceError(
            f"{path}: no fix on {fix_topic}: expected NavSatFix with a status >= 0 and a finite position, found"
            f" {void or 'none'}"
        )

    given = [Stamps.of(image_topic, recording.images), Stamps.of(fix_topic, recording.fixes)]
    (images_at, fixes_at), remark = without_steps(path, given)
    if remark:
        _log.warning("%s: %s", path, remark)
    astray = _astray(path, fixes_at, images_at, fix_offset_s)
    fixes_at = fixes_at.shifted(fix_offset_s or 0.0)
    track, flaws = FixTrack.of(fixes_at.times_ns, np.array(recording.positions), recording.flaws)
    named = zip(fixes_at.times_ns.tolist(), flaws.tolist(), strict=True)
    skipped += [
        Skipped(f"{files.stem}/{fix_topic.strip('/')}/{time}", f"of the fixes {flaw}")
        for time, flaw in named
        if flaw
    ]
    gap_s, lost, east_north_m, geodetic = track.at(images_at.times_ns, max_gap_s)

    recorded = recorded_images(files, image_topic, recording.codec)
    images: list[SourceImage] = []
    last_m = np.full(2, np.inf)
    seen: set[int] = set()
    for row in np.argsort(images_at.times_ns, kind="stable").tolist():
        time_ns, (stamp, recorded_ns) = int(images_at.times_ns[row]), recording.images[row]
        name = f"{where}/{time_ns}"
        if time_ns in seen:
            skipped.append(Skipped(name, "with the stamp of another image"))
        elif gap_s[row] > max_gap_s:
            skipped.append(Skipped(name, f"farther than {max_gap_s:g} s from a fix"))
        elif lost[row]:
            skipped.append(Skipped(name, "beside fixes without a position"))
        elif astray[row]:
            skipped.append(Skipped(name, "stamped by another clock than the fixes around it"))
        elif math.dist(east_north_m[row], last_m) < min_spacing_m:
            skipped.append(Skipped(name, f"closer than {min_spacing_m:g} m to the image before"))
        else:
            last_m = east_north_m[row]
            latitude, longitude, altitude = geodetic[row].tolist()
            place = Place(name, latitude, longitude, altitude_m=altitude, stamp_ns=time_ns)
            read = partial(recorded.read, recorded_ns, stamp, name)
            images.append(SourceImage(place, read, camera=cameras.at(stamp)))
        seen.add(time_ns)
    if not images:
        raise SourceError(
            f"{path}: none of the {len(gap_s)} images on {image_topic} is within max_gap_s = {max_gap_s:g} s of a"
            f" fix on {fix_topic}; the nearest is {gap_s.min(initial=np.inf):.3f} s away"
        )
    return Source(tuple(images), tuple(skipped), f"bag {path}, {image_topic} with {fix_topic}")


def _astray(path: Path, fixes: Stamps, images: Stamps, fix_offset_s: float | None) -> NDArray[np.bool_]:
    """Return which images are stamped by another clock than the fixes recorded with them; refuse a bag of two."""
    ahead, at_images = ahead_s(fixes, images, fix_offset_s or 0.0)
    if abs(ahead) < SAME_CLOCK_S:
        return np.abs(at_images) >= SAME_CLOCK_S
    said = two_clocks(f"the {fixes.topic}", f"those of {images.topic}", ahead, "--fix-offset", fix_offset_s or 0.0)
    if fix_offset_s is None:
        raise SourceError(f"{path}: {said}; --fix-offset 0 takes them as they are")
    _log.warning("%s: %s", path, said)
    return np.zeros(len(images.times_ns), bool)


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


@dataclass(slots=True)
class _Recording:
    """What a bag has of images and fixes, in the order in which it was written.

    Attributes:
        images: Header stamp and time of recording of each image, ns.
        fixes: The same of each fix.
        positions: Latitude and longitude (deg) and altitude (m) of each fix.
        flaws: Why each fix is no position; empty for one that is.
        undecodable: Stamp or time of recording of each message that is no whole one, and the reason.
        codec: Codec of images that are packets of a video; empty for pictures.
        broken: Why reading ended early; empty if it did not.
    """

    images: list[tuple[int, int]] = field(default_factory=list)
    fixes: list[tuple[int, int]] = field(default_factory=list)
    positions: list[tuple[float, float, float]] = field(default_factory=list)
    flaws: list[str] = field(default_factory=list)
    undecodable: list[tuple[int, str]] = field(default_factory=list)
    codec: str = ""
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


def _scan(
    reader: BagReader, image_topic: str, fix_topic: str, cameras: RecordedCameras, accept_null_island: bool
) -> _Recording:
    found = _Recording()
    images, fixes = channels(reader, image_topic, IMAGE_TYPES), channels(reader, fix_topic, FIX_TYPES)
    infos = [c for c in reader.connections if cameras.belong(c)]
    messages = Messages(reader, [*images, *fixes, *infos])
    for connection, recorded_ns, message in messages:
        stamp = header_stamp_ns(message) or recorded_ns
        if connection.topic == image_topic:
            found.codec = found.codec or codec_of(message)
            found.images.append((stamp, recorded_ns))
        elif connection.topic == fix_topic:
            found.fixes.append((stamp, recorded_ns))
            found.positions.append((message.latitude, message.longitude, message.altitude))
            found.flaws.append(flaw(message, accept_null_island=accept_null_island))
        else:
            cameras.add(stamp, message)
    found.undecodable, found.broken = messages.undecodable, messages.broken
    return found


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


def recorded_images(files: BagFiles, topic: str, codec: str = "") -> RecordedImages:
    """Return the images of one topic, or of one whose messages are the packets of a video.

    Raises:
        SourceError: A codec that cannot be decoded.
    """
    try:
        return RecordedVideo(files, topic, codec) if codec else RecordedImages(files, topic)
    except SourceError as error:
        raise SourceError(f"{files.path}: {topic}: {error}") from None


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
        for time_ns, message in self._messages:  # to the end: a file without an index need not be in order
            self._position_ns = time_ns
            if time_ns == recorded_ns and (header_stamp_ns(found := message()) or time_ns) == stamp:
                return found
        self._messages = None
        return None

    def _stream(self, start_ns: int) -> Iterator[tuple[int, Callable[[], Any]]]:
        self._opened.close()
        reader = self._opened.enter_context(self._files.reader())
        for connection, time_ns, raw in reader.messages(channels(reader, self._topic, IMAGE_TYPES), start_ns):
            yield time_ns, partial(reader.deserialize, raw, connection)


class RecordedVideo(RecordedImages):
    """The pictures of one topic of video packets: in order each packet is decoded once.

    Out of order the picture is decoded from the last keyframe before it.

    Raises:
        SourceError: The codec cannot be decoded.
    """

    def __init__(self, files: BagFiles, topic: str, codec: str) -> None:
        super().__init__(files, topic)
        self._codec = codec
        self._decoder = PacketDecoder(codec)
        self._keys: list[int] = []
        self._pictures: dict[int, Image] = {}
        self._last_ns = self._fed_ns = 0

    def read(self, recorded_ns: int, stamp: int, name: str) -> Image:
        """Decode a picture, as :meth:`RecordedImages.read`."""
        try:
            with self._lock:
                picture = self._decode(recorded_ns)
        except Exception as error:  # neither PyAV nor rosbags has an exception of its own for every kind of damage
            self._messages = None
            raise ImageError(f"{name}: cannot be decoded from the bag's video: {error}") from None
        if picture is None:
            raise ImageError(f"{name}: cannot be decoded: no keyframe before it, or its packet is damaged")
        return check_image(picture, name)

    def _decode(self, wanted_ns: int) -> Image | None:
        self._keys = self._keys or [time for time, packet in self._packets(0) if is_keyframe(packet, self._codec)]
        key = bisect.bisect(self._keys, wanted_ns) - 1
        if key < 0:
            return None
        if self._messages is None or not self._last_ns < wanted_ns or self._keys[key] > self._fed_ns + _JUMP_NS:
            self._messages, self._decoder = self._packets(self._keys[key]), PacketDecoder(self._codec)
            self._pictures = {}
        self._last_ns = wanted_ns
        for time_ns, packet in self._messages:
            self._fed_ns = time_ns
            if (picture := self._take(wanted_ns, self._decoder.pictures(time_ns, packet))) is not None:
                return picture
            if len(self._pictures) > _DELAY:  # it is damaged, and those behind it are whole
                return None
        self._messages = None
        return self._take(wanted_ns, self._decoder.pictures(0, None))

    def _take(self, wanted_ns: int, ready: Iterator[tuple[int, Callable[[], Image]]]) -> Image | None:
        """Keep what was decoded ahead of the wanted picture, and return that if it is there."""
        self._pictures |= {at_ns: picture() for at_ns, picture in ready if at_ns >= wanted_ns}
        self._pictures = {at_ns: picture for at_ns, picture in self._pictures.items() if at_ns >= wanted_ns}
        return self._pictures.pop(wanted_ns, None)

    def _packets(self, start_ns: int) -> Iterator[tuple[int, Any]]:
        """Yield packets and their times of recording; one that is not whole is none."""
        for time_ns, message in self._stream(start_ns):
            try:
                packet = message()
            except Exception:  # :class:`Messages` left it out, too
                continue
            yield time_ns, packet
