"""Drives, true positions and recorded fixes from ROS bags: ROS 2 (MCAP, SQLite) and ROS 1, no ROS needed.

The time of a message is its header stamp, or the time of recording if it has none. An MCAP bag with a broken end
is used as far as it goes, and the drive's notes say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from geowarp_ros.attitude import enu_from_body, heading, heading_std, quaternion_of
from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation.drive import NS, Drive, DriveImage, Event, Track
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.odometry import Pose, pose_from_message
from geowarp_ros.motion.prior import Hint, NoHint, hint_from_message
from geowarp_ros.motion.session import Session
from geowarp_ros.readers.bag import (
    IMAGE_TYPES,
    INFO_TYPE,
    RecordedCameras,
    RecordedImages,
    choose_topic,
    header_stamp_ns,
)
from geowarp_ros.readers.bag_files import BagFiles
from geowarp_ros.types import Answer, Fix, FloatArray, Header, NoFix

FIX_TOPIC = "/geowarp_localizer/fix"
FIX_TYPE = "sensor_msgs/msg/NavSatFix"
POSE_TYPES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
)
"""Types of true positions in a local frame: metres east, north and up of a datum; their x axis heads."""

POSE_TOPIC = "/geowarp_localizer/pose"

UNKNOWN_FROM_RAD2 = 3.0
"""Variance (rad²) of the rotation about up from which an orientation is unknown: a circle's, π² / 3, and more."""

NEVER_SET_DEG = 90.0
"""Azimuth of the identity. Where each message has it nobody set the orientation."""

SAME_CLOCK_S = 1.0
"""Maximum difference (s) of the delays from stamp to recording of two topics whose stamps come from one clock."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TruthOptions:
    """Source of the true positions of a bag's images.

    Attributes:
        topic: Topic of NavSatFix, Odometry, PoseStamped or PoseWithCovarianceStamped; may be empty if the bag has
            a single NavSatFix topic.
        bag: Bag with the truth; None: the bag of the images.
        offset_s: Offset added to the stamps of the truth (s).
        datum: Latitude and longitude (deg) of a local frame's origin, its x axis pointing east (REP 103).
        max_gap_s: Maximum time (s) from an image to a true position; an image between two that are more than twice
            as far apart has no truth either.
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
    def lag_ns(self) -> float:
        """Median delay (ns) from stamp to recording."""
        return float(np.median([recorded - stamp for stamp, recorded, _ in self.rows]))


def read_drive(
    bag: Path,
    image_topic: str = "",
    truth: TruthOptions | None = None,
    prior_topic: str = "",
    odometry_topic: str = "",
    camera: Path | None = None,
) -> Drive:
    """Read a bag's images with their cameras and true positions, and what else the session receives.

    Args:
        bag: Folder, .mcap, .db3 or .bag.
        image_topic: Topic of Image or CompressedImage; may be empty if the bag has a single one.
        truth: Source of the true positions.
        prior_topic: Topic of NavSatFix for the session's prior; empty: none.
        odometry_topic: Topic of Odometry for the session; empty: none.
        camera: Calibration file; None: the CameraInfo beside the images.

    Raises:
        CameraError: ``camera`` is no calibration.
        SourceError: No bag, no such topic (the message lists what is there), no image, no usable truth, or none
            that overlaps the images in time (the message says how far apart they lie).
    """
    truth = truth or TruthOptions()
    files = BagFiles(bag)
    images = _scan(files, image_topic, IMAGE_TYPES, "--image-topic", lambda message: str(message.header.frame_id))
    if not images.rows:
        raise SourceError(f"{bag}: no image on {images.topic}: nothing to evaluate")
    truth_files = files if truth.bag is None else BagFiles(truth.bag)
    recorded, track = _scan_truth(truth_files, truth)
    # by how much (s) the truth's clock is ahead of the images'; None if they come from two bags
    ahead_s = (images.lag_ns - recorded.lag_ns) / NS + truth.offset_s if truth.bag is None else None
    cameras = _scan_cameras(files, images.topic, camera)
    taken = _take_images(files, images, track, truth.max_gap_s, cameras)
    missing = sum(image.truth is None for image in taken)
    if missing == len(taken):
        raise SourceError(_no_overlap(bag, images, recorded.topic, track, truth, ahead_s))
    notes = [
        f"{path.name} has a broken end and was used as far as it goes ({broken})"
        for path, broken in ((bag, images.broken), (truth_files.path, recorded.broken))
        if broken
    ]
    if ahead_s is not None and abs(ahead_s) >= SAME_CLOCK_S:  # such as GPS time and UTC, 18 s apart
        side = "ahead of" if ahead_s > 0 else "behind"
        notes.append(
            f"by the recorder's clock the truth's stamps run {abs(ahead_s):.3f} s {side} the images';"
            f" if that is no delay of the driver, --truth-offset {truth.offset_s - ahead_s:.3f} mends it"
        )
    if recorded.rows[0][2][4] and np.isnan(track.positions[:, 3]).all():
        notes.append(
            f"{recorded.topic} has no orientation: the identity throughout, or unknown by its variance; headings"
            " are not judged"
        )
    if repeated := len(images.rows) - len(taken):
        notes.append(f"{repeated} images carry the stamp of another image and are left out")
    if missing:
        of = f"{missing} of {len(taken)} images"
        notes.append(f"{of} have no true position within {truth.max_gap_s:g} s and are not judged")
    events: list[Event] = []
    if prior_topic:
        found = _scan(files, prior_topic, (FIX_TYPE,), "--prior-topic", hint_from_message)
        events += [Event(stamp, partial(_offer, hint)) for stamp, _, hint in found.rows]
    if odometry_topic:
        poses = _scan(files, odometry_topic, (POSE_TYPES[0],), "--odometry-topic", pose_from_message)
        events += [Event(stamp, partial(_add, pose)) for stamp, _, pose in poses.rows]
    events.sort(key=lambda event: event.stamp_ns)
    title = f"{bag.name}, {images.topic} judged by {recorded.topic}"
    return Drive(title, taken, tuple(dict.fromkeys(notes)), events=tuple(events))


def _offer(hint: Hint | NoHint, session: Session) -> None:
    session.prior.offer(hint)


def _add(pose: Pose, session: Session) -> None:
    session.odometer.add(pose)


def read_fixes(bag: Path, topic: str = FIX_TOPIC) -> tuple[list[Answer], tuple[str, ...]]:
    """Read the fixes that a live run published, and notes on the bag.

    A NavSatFix carries neither confidence nor candidates; its NO_FIX does not say why. Orientations are those of
    the poses of the same stamps, where the node's ``pose`` was recorded beside its ``fix``; their axes are taken
    for those at the fix, 0.01° off per km from the datum.

    Raises:
        SourceError: No bag, no such topic, or no message on it.
    """
    found = _scan(BagFiles(bag), topic, (FIX_TYPE,), "--fix-topic", lambda message: message)
    if not found.rows:
        raise SourceError(f"{bag}: no message on {found.topic}: no recorded fix to judge")
    notes = (f"{bag.name} has a broken end and was used as far as it goes ({found.broken})",)
    poses = _recorded_poses(BagFiles(bag), found.topic)
    answers = [_answer(stamp, message, poses.get(stamp)) for stamp, _, message in found.rows]
    return answers, notes if found.broken else ()


def _recorded_poses(files: BagFiles, fix_topic: str) -> dict[int, Any]:
    """Return the poses, by their stamps, that the node published beside its fixes; none if not recorded."""
    topic, kinds = fix_topic.removesuffix("fix") + "pose", POSE_TYPES[2:]
    with files.reader() as reader:
        if not any(c.topic == topic and c.msgtype in kinds for c in reader.connections):
            return {}
    return {stamp: pose for stamp, _, pose in _scan(files, topic, kinds, "--fix-topic", lambda m: m.pose).rows}


def _answer(stamp: int, message: Any, pose: Any = None) -> Answer:
    header = Header(stamp, str(message.header.frame_id))
    if message.status.status < 0:
        return Answer(header, NoFix("unknown", "recorded as NO_FIX", math.nan))
    covariance = np.array(message.position_covariance, float).reshape(3, 3)
    fix = Fix(float(message.latitude), float(message.longitude), float(message.altitude), covariance, math.nan)
    rotation = None if pose is None else _rotation_of(pose)
    if rotation is not None:
        spread = np.array(pose.covariance, float).reshape(6, 6)
        fix = replace(
            fix,
            orientation=quaternion_of(rotation),
            heading_deg=heading(rotation),
            heading_std_deg=heading_std(rotation, spread),
            pose_covariance=spread,
        )
    return Answer(header, fix)


def _scan(
    files: BagFiles, topic: str, types: tuple[str, ...], option: str, take: Callable[[Any], T]
) -> _Recording[T]:
    rows: list[tuple[int, int, T]] = []
    broken = files.broken
    with files.reader() as reader:
        topic = choose_topic(files.path, reader, topic, types, option)
        connections = [c for c in reader.connections if c.topic == topic]
        try:
            for connection, recorded_ns, raw in reader.messages(connections):
                message = reader.deserialize(raw, connection)
                rows.append((header_stamp_ns(message) or recorded_ns, recorded_ns, take(message)))
        except Exception as error:  # rosbags has no exception of its own for every kind of damage
            broken = broken or (str(error).splitlines() or [type(error).__name__])[0]
    return _Recording(topic, rows, broken)


def _scan_cameras(files: BagFiles, image_topic: str, file: Path | None) -> RecordedCameras:
    cameras = RecordedCameras(image_topic, file)
    with files.reader() as reader:
        recorded = any(cameras.belong(connection) for connection in reader.connections)
    if recorded:
        for stamp, _, message in _scan(files, cameras.topic, (INFO_TYPE,), "camera_info", lambda info: info).rows:
            cameras.add(stamp, message)
    return cameras


def _scan_truth(files: BagFiles, truth: TruthOptions) -> tuple[_Recording[Any], Track]:
    """Return the messages with a usable position, and these positions over time."""
    types = (FIX_TYPE, *POSE_TYPES) if truth.topic else (FIX_TYPE,)
    found = _scan(files, truth.topic, types, "--truth-topic", _position_of)
    values = np.array([position for _, _, position in found.rows], float).reshape(-1, 5)
    if values[:, 4].any():
        if truth.datum is None:
            raise SourceError(
                f"{files.path}: {found.topic} gives positions in a local frame; say where its origin lies:"
                " --truth-datum LATITUDE LONGITUDE (x pointing east, y north)"
            )
        datum = LocalFrame(*truth.datum)
        values[:, :3] = np.stack(datum.to_geodetic(values[:, :3]), axis=1)
        values[:, 3] = _true_headings(values, datum)
    usable = np.isfinite(values[:, :2]).all(axis=1) & (abs(values[:, 0]) <= 90) & (abs(values[:, 1]) <= 180)
    if not usable.any():
        raise SourceError(
            f"{files.path}: no usable position among the {len(found.rows)} messages on {found.topic}:"
            " expected a status of at least 0 and finite numbers"
        )
    rows = [found.rows[row] for row in np.flatnonzero(usable)]
    positions = [(stamp, *position) for (stamp, _, _), position in zip(rows, values[usable, :4], strict=True)]
    return replace(found, rows=rows), Track.of(positions).shifted(truth.offset_s)


def _true_headings(values: FloatArray, datum: LocalFrame) -> FloatArray:
    """Return the headings (N,) by true north of azimuths about a datum (deg); NaN where nobody set them."""
    if (values[:, 3] == NEVER_SET_DEG).all():
        return np.full(len(values), math.nan)
    # the datum's north, by true north at each position
    turned = [LocalFrame(latitude, longitude).rotation_from(datum) for latitude, longitude in values[:, :2]]
    north = [math.degrees(math.atan2(axes[0, 1], axes[1, 1])) for axes in turned]
    return np.asarray((values[:, 3] + north) % 360.0)


def _position_of(message: Any) -> tuple[float, float, float, float, float]:
    """Return three coordinates, a heading (deg), and 1 if these are metres and an azimuth in a local frame.

    NaN for a NavSatFix without a fix, and for an unknown heading.
    """
    if hasattr(message, "latitude"):
        if message.status.status < 0:
            return math.nan, math.nan, math.nan, math.nan, 0.0
        return float(message.latitude), float(message.longitude), float(message.altitude), math.nan, 0.0
    position = (message.pose.pose if hasattr(message.pose, "pose") else message.pose).position
    rotation = _rotation_of(message.pose)
    heading_deg = math.nan if rotation is None else heading(rotation)
    return float(position.x), float(position.y), float(position.z), heading_deg, 1.0


def _rotation_of(pose: Any) -> FloatArray | None:
    """Return the rotation (3, 3) of a Pose or PoseWithCovariance; None if its variance says that it is unknown."""
    if hasattr(pose, "pose") and pose.covariance[35] >= UNKNOWN_FROM_RAD2:
        return None
    q = (pose.pose if hasattr(pose, "pose") else pose).orientation
    quaternion = (float(q.x), float(q.y), float(q.z), float(q.w))
    return enu_from_body(quaternion) if math.isfinite(sum(quaternion)) and any(quaternion) else None


def _take_images(
    files: BagFiles, images: _Recording[str], track: Track, max_gap_s: float, cameras: RecordedCameras
) -> tuple[DriveImage, ...]:
    """Return the images in the order of their stamps; of equal stamps the first that was recorded."""
    store = RecordedImages(files, images.topic)
    found: dict[int, DriveImage] = {}
    for stamp, recorded_ns, frame_id in sorted(images.rows):
        name = f"{files.path.stem}/{images.topic.strip('/')}/{stamp}"
        read = partial(store.read, recorded_ns, stamp, name)
        camera = cameras.at(stamp)
        at = {} if camera is None else {"camera_at": camera.scaled_to}
        found.setdefault(stamp, DriveImage(name, stamp, read, track.at(stamp, max_gap_s), frame_id, **at))
    return tuple(found.values())


def _no_overlap(
    bag: Path, images: _Recording[Any], truth_topic: str, track: Track, truth: TruthOptions, ahead_s: float | None
) -> str:
    """Say why no image has a true position, and which option would help."""
    stamps = [stamp for stamp, _, _ in images.rows]
    first, last = min(stamps), max(stamps)
    truth_first, truth_last = int(track.stamps_ns[0]), int(track.stamps_ns[-1])
    apart_s = max(first - truth_last, truth_first - last) / NS
    spans = f"images from {_when(first)} to {_when(last)}, truth from {_when(truth_first)} to {_when(truth_last)}"
    if apart_s <= 0:
        return (
            f"{bag}: no image on {images.topic} is within {truth.max_gap_s:g} s of a true position on"
            f" {truth_topic}: {spans}; a larger --max-gap would bridge the gaps"
        )
    if ahead_s is None:  # two bags: as if both had begun together
        ahead_s = (truth_first - first) / NS
    if abs(ahead_s) < SAME_CLOCK_S:
        return f"{bag}: truth on {truth_topic} was not recorded while images came on {images.topic}: {spans}"
    return (
        f"{bag}: truth on {truth_topic} and images on {images.topic} do not overlap: {spans},"
        f" {apart_s:.3f} s apart; if their clocks differ try --truth-offset {truth.offset_s - ahead_s:.3f}"
    )


def _when(stamp: int) -> str:
    # simulated time starts at 0: dates of 1970 would only confuse
    if stamp < 10**9 * NS // 10:
        return f"{stamp / NS:.3f} s"
    return datetime.fromtimestamp(stamp / NS, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
