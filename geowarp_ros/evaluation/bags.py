"""Drives, true positions and recorded fixes out of ROS bags: ROS 2 (MCAP, SQLite) and ROS 1, no ROS needed.

Everything goes by header stamps; a message without one goes by the time at which it was recorded. A bag with a
broken end is used as far as it goes, and the drive's notes say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation.drive import NS, Drive, DriveImage, Track
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.readers.bag import IMAGE_TYPES, RecordedImages, choose_topic, header_stamp_ns
from geowarp_ros.readers.bag_files import BagFiles
from geowarp_ros.types import Fix, NoFix

FIX_TOPIC = "/geowarp_localizer/fix"
FIX_TYPE = "sensor_msgs/msg/NavSatFix"
POSE_TYPES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
)
"""True positions in a local frame: metres east, north and up of a datum."""

SAME_CLOCK_S = 1.0
"""Stamps of one clock differ by less from the recorder's clock."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TruthOptions:
    """Where the truth of a bag's images comes from.

    Attributes:
        topic: NavSatFix, Odometry, PoseStamped or PoseWithCovarianceStamped; may be empty where one NavSatFix
            topic is there.
        bag: The bag that has it; None: the images' own.
        offset_s: Added to the truth's stamps.
        datum: Latitude and longitude of a local frame's origin, its x pointing east (REP 103).
        max_gap_s: Images farther than this from a true position, or between two more than twice as far apart,
            have no truth.
    """

    topic: str = ""
    bag: Path | None = None
    offset_s: float = 0.0
    datum: tuple[float, float] | None = None
    max_gap_s: float = 1.0


@dataclass(frozen=True, slots=True)
class _Recording(Generic[T]):
    """One topic: (header stamp, time of recording, what was taken of the message), and why it ended early."""

    topic: str
    rows: list[tuple[int, int, T]]
    broken: str

    @property
    def span(self) -> tuple[int, int]:
        stamps = [stamp for stamp, _, _ in self.rows]
        return min(stamps), max(stamps)

    @property
    def lag_ns(self) -> float:
        """How far the stamps run behind the recorder's clock, median."""
        return float(np.median([recorded - stamp for stamp, recorded, _ in self.rows]))


def read_drive(bag: Path, image_topic: str = "", truth: TruthOptions | None = None) -> Drive:
    """Read a bag's images with the true position of each.

    Args:
        bag: Folder, .mcap, .db3 or .bag.
        image_topic: Image or CompressedImage; may be empty where there is only one.
        truth: Where the truth comes from.

    Raises:
        SourceError: No bag, no such topic (the message lists what is there), no image, no usable truth, or none
            that overlaps the images in time (the message says how far apart they lie).
    """
    truth = truth or TruthOptions()
    files = BagFiles(bag)
    images = _scan(files, image_topic, IMAGE_TYPES, "--image-topic", lambda message: str(message.header.frame_id))
    if not images.rows:
        raise SourceError(f"{bag}: no image on {images.topic}: nothing to evaluate")
    truth_files = files if truth.bag is None else BagFiles(truth.bag)
    recorded = _scan_truth(truth_files, truth)
    track = Track.of([(stamp, *position) for stamp, _, position in recorded.rows]).shifted(truth.offset_s)
    drive = _drive(bag, files, images, track, truth)
    with_truth = sum(image.truth is not None for image in drive.images)
    if not with_truth:
        raise SourceError(_no_overlap(bag, images, recorded, track, truth))
    notes = [
        *_broken_notes(bag, files.broken or images.broken),
        *_broken_notes(truth_files.path, recorded.broken),
        *_clock_notes(images, recorded, truth),
        *drive.notes,
    ]
    if missing := len(drive.images) - with_truth:
        of = f"{missing} of {len(drive.images)} images"
        notes.append(f"{of} have no true position within {truth.max_gap_s:g} s and are not judged")
    title = f"{bag.name}, {images.topic} judged by {recorded.topic}"
    return Drive(title, drive.images, tuple(dict.fromkeys(notes)))


def read_fixes(bag: Path, topic: str = FIX_TOPIC) -> tuple[list[Fix | NoFix], tuple[str, ...]]:
    """Read the fixes that a live run published, and notes on the bag.

    A NavSatFix carries neither confidence nor candidates; its NO_FIX does not say why.

    Raises:
        SourceError: No bag, no such topic, or no message on it.
    """
    files = BagFiles(bag)
    found = _scan(files, topic, (FIX_TYPE,), "--fix-topic", lambda message: message)
    if not found.rows:
        raise SourceError(f"{bag}: no message on {found.topic}: no recorded fix to judge")
    answers = [_answer(stamp, message) for stamp, _, message in found.rows]
    return answers, tuple(_broken_notes(bag, files.broken or found.broken))


def _answer(stamp: int, message: Any) -> Fix | NoFix:
    frame_id = str(message.header.frame_id)
    if message.status.status < 0:
        return NoFix("unknown", "recorded as NO_FIX", math.nan, (), stamp, frame_id)
    return Fix(
        latitude_deg=float(message.latitude),
        longitude_deg=float(message.longitude),
        altitude_m=float(message.altitude),
        covariance=np.array(message.position_covariance, float).reshape(3, 3),
        confidence=math.nan,
        stamp_ns=stamp,
        frame_id=frame_id,
    )


def _scan(
    files: BagFiles, topic: str, types: tuple[str, ...], option: str, take: Callable[[Any], T]
) -> _Recording[T]:
    with files.reader() as reader:
        topic = choose_topic(files.path, reader, topic, types, option)
        rows: list[tuple[int, int, T]] = []
        connections = [c for c in reader.connections if c.topic == topic]
        try:
            for connection, recorded_ns, raw in reader.messages(connections):
                message = reader.deserialize(raw, connection.msgtype)
                rows.append((header_stamp_ns(message) or recorded_ns, recorded_ns, take(message)))
        except Exception as error:  # rosbags has no exception of its own for every kind of damage
            return _Recording(topic, rows, (str(error).splitlines() or [type(error).__name__])[0])
    return _Recording(topic, rows, files.broken)


def _scan_truth(files: BagFiles, truth: TruthOptions) -> _Recording[tuple[float, float, float]]:
    types = (FIX_TYPE, *POSE_TYPES) if truth.topic else (FIX_TYPE,)
    found = _scan(files, truth.topic, types, "--truth-topic", _position_of)
    values = np.array([position for _, _, position in found.rows], float).reshape(-1, 4)
    local = values[:, 3] > 0
    if local.any():
        if truth.datum is None:
            raise SourceError(
                f"{files.path}: {found.topic} gives positions in a local frame; say where its origin lies:"
                " --truth-datum LATITUDE LONGITUDE (x pointing east, y north)"
            )
        latitude, longitude, altitude = LocalFrame(*truth.datum).to_geodetic(values[:, :3])
        values[:, :3] = np.stack([latitude, longitude, altitude], axis=1)
    usable = np.isfinite(values[:, :2]).all(axis=1) & (abs(values[:, 0]) <= 90) & (abs(values[:, 1]) <= 180)
    rows = [
        (stamp, recorded, (float(row[0]), float(row[1]), float(row[2])))
        for (stamp, recorded, _), row, use in zip(found.rows, values, usable, strict=True)
        if use
    ]
    if not rows:
        raise SourceError(
            f"{files.path}: no usable position among the {len(found.rows)} messages on {found.topic}:"
            " expected a status of at least 0 and finite numbers"
        )
    return _Recording(found.topic, rows, found.broken)


def _position_of(message: Any) -> tuple[float, float, float, float]:
    """Three coordinates, and 1 where they are metres in a local frame; NaN for a fix that says it is none."""
    if hasattr(message, "latitude"):
        if message.status.status < 0:
            return math.nan, math.nan, math.nan, 0.0
        return float(message.latitude), float(message.longitude), float(message.altitude), 0.0
    pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
    return float(pose.position.x), float(pose.position.y), float(pose.position.z), 1.0


def _drive(bag: Path, files: BagFiles, images: _Recording[str], track: Track, truth: TruthOptions) -> Drive:
    store = RecordedImages(files, images.topic)
    found: dict[int, DriveImage] = {}
    for stamp, recorded_ns, frame_id in sorted(images.rows):
        name = f"{bag.stem}/{images.topic.strip('/')}/{stamp}"
        read = partial(store.read, recorded_ns, stamp, name)
        found.setdefault(stamp, DriveImage(name, stamp, read, track.at(stamp, truth.max_gap_s), frame_id))
    repeated = len(images.rows) - len(found)
    notes = (f"{repeated} images carry the stamp of another image and are left out",) if repeated else ()
    return Drive(bag.name, tuple(found.values()), notes)


def _no_overlap(
    bag: Path, images: _Recording[Any], recorded: _Recording[Any], track: Track, truth: TruthOptions
) -> str:
    image_span, truth_span = images.span, (int(track.stamps_ns[0]), int(track.stamps_ns[-1]))
    apart_s = max(image_span[0] - truth_span[1], truth_span[0] - image_span[1]) / NS
    spans = (
        f"images from {_when(image_span[0])} to {_when(image_span[1])}, truth from {_when(truth_span[0])} to "
        + (_when(truth_span[1]))
    )
    if apart_s <= 0:
        return (
            f"{bag}: no image on {images.topic} is within {truth.max_gap_s:g} s of a true position on"
            f" {recorded.topic}: {spans}; a larger --max-gap would bridge the gaps"
        )
    ahead_s = _ahead_s(images, recorded, truth)
    if ahead_s is None:  # two bags: as if both had begun together
        ahead_s = (int(track.stamps_ns[0]) - image_span[0]) / NS
    if abs(ahead_s) < SAME_CLOCK_S:
        return f"{bag}: truth on {recorded.topic} was not recorded while images came on {images.topic}: {spans}"
    return (
        f"{bag}: truth on {recorded.topic} and images on {images.topic} do not overlap: {spans},"
        f" {apart_s:.3f} s apart; if their clocks differ try --truth-offset {truth.offset_s - ahead_s:.3f}"
    )


def _ahead_s(images: _Recording[Any], recorded: _Recording[Any], truth: TruthOptions) -> float | None:
    """How far the truth's clock is ahead of the images', by the recorder's; None where two bags have them."""
    if truth.bag is not None:
        return None
    return (images.lag_ns - recorded.lag_ns) / NS + truth.offset_s


def _clock_notes(images: _Recording[Any], recorded: _Recording[Any], truth: TruthOptions) -> list[str]:
    """Say when stamps that overlap were yet made by different clocks, such as GPS time and UTC (18 s)."""
    ahead_s = _ahead_s(images, recorded, truth)
    if ahead_s is None or abs(ahead_s) < SAME_CLOCK_S:
        return []
    side = "ahead of" if ahead_s > 0 else "behind"
    return [
        f"by the recorder's clock the truth's stamps run {abs(ahead_s):.3f} s {side} the images';"
        f" if that is no delay of the driver, --truth-offset {truth.offset_s - ahead_s:.3f} mends it"
    ]


def _broken_notes(bag: Path, broken: str) -> list[str]:
    return [f"{bag.name} has a broken end and was used as far as it goes ({broken})"] if broken else []


def _when(stamp: int) -> str:
    # simulated time starts at 0: dates of 1970 would only confuse
    if stamp < 10**9 * NS // 10:
        return f"{stamp / NS:.3f} s"
    return datetime.fromtimestamp(stamp / NS, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
