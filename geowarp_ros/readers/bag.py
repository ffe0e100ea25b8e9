"""Geotagged images from a ROS bag of camera images and NavSatFix.

Times are header stamps; a message without one (0) has the time at which it was recorded.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import SourceError
from geowarp_ros.readers.bag_files import BagFiles, BagReader
from geowarp_ros.readers.clocks import (
    SAME_CLOCK_S,
    Stamps,
    ahead_s,
    two_clocks,
    without_steps,
)
from geowarp_ros.readers.fixes import FixTrack, flaw
from geowarp_ros.readers.packets import codec_of
from geowarp_ros.readers.recorded_images import recorded_images
from geowarp_ros.readers.source import Skipped, Source, SourceImage, count_reasons
from geowarp_ros.readers.topics import (
    FIX_TYPES,
    IMAGE_TYPES,
    Messages,
    RecordedCameras,
    channels,
    choose_topic,
    header_stamp_ns,
)
from geowarp_ros.types import Place

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
