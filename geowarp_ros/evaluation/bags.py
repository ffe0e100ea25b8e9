"""Drives, true positions and recorded fixes from ROS bags: ROS 2 (MCAP, SQLite) and ROS 1, no ROS needed.

The time of a message is its header stamp, or the time of recording if it has none. An MCAP bag with a broken end
is used as far as it goes, and the drive's notes say so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from geowarp_ros.attitude import enu_from_body, heading, heading_std, quaternion_of
from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation.drive import NS, Drive, DriveImage, Event, Track
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.gravity import Tilt, tilt_from_message
from geowarp_ros.motion.odometry import Pose, pose_from_message
from geowarp_ros.motion.prior import Hint, NoHint, hint_from_message
from geowarp_ros.motion.session import Session
from geowarp_ros.readers.bag_files import BagFiles
from geowarp_ros.readers.clocks import (
    SAME_CLOCK_S,
    Stamps,
    ahead_s,
    fitting_offset_s,
    two_clocks,
    when,
    without_steps,
)
from geowarp_ros.readers.fixes import NO_FIX, UNCERTAIN, FixTrack, flaw, uncertain
from geowarp_ros.readers.packets import codec_of
from geowarp_ros.readers.recorded_images import recorded_images
from geowarp_ros.readers.topics import (
    IMAGE_TYPES,
    Messages,
    RecordedCameras,
    channels,
    choose_topic,
    header_stamp_ns,
)
from geowarp_ros.types import Answer, Fix, FloatArray, Header, NoFix

FIX_TOPIC = "/geowarp_localizer/fix"
IMU_TYPE = "sensor_msgs/msg/Imu"
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
        accept_null_island: Believe fixes at exactly 0°, 0°.
    """

    topic: str = ""
    bag: Path | None = None
    offset_s: float = 0.0
    datum: tuple[float, float] | None = None
    max_gap_s: float = 1.0
    accept_null_island: bool = False


@dataclass(frozen=True, slots=True)
class _Recording(Generic[T]):
    """One topic: its stamps, what was taken of each message, and remarks on what could not be read."""

    stamps: Stamps
    taken: list[T]
    broken: str = ""
    undecodable: int = 0

    @property
    def topic(self) -> str:
        """Name of the topic."""
        return self.stamps.topic

    def items(self) -> Iterator[tuple[int, T]]:
        """Yield the time of each message (ns) and what was taken of it."""
        return zip(self.stamps.times_ns.tolist(), self.taken, strict=True)


def read_drive(
    bag: Path,
    image_topic: str = "",
    truth: TruthOptions | None = None,
    prior_topic: str = "",
    odometry_topic: str = "",
    camera: Path | None = None,
    imu_topic: str = "",
) -> Drive:
    """Read a bag's images with their cameras and true positions, and what else the session receives.

    Args:
        bag: Folder, .mcap, .db3 or .bag.
        image_topic: Topic of Image or CompressedImage; may be empty if the bag has a single one.
        truth: Source of the true positions.
        prior_topic: Topic of NavSatFix for the session's prior; empty: none.
        odometry_topic: Topic of Odometry for the session; empty: none.
        camera: Calibration file; None: the CameraInfo beside the images.
        imu_topic: Topic of Imu for the session; empty: none.

    Raises:
        CameraError: ``camera`` is no calibration.
        SourceError: No bag, no such topic (the message lists what is there), no image, no usable truth, or none
            that overlaps the images in time (the message says how far apart they lie).
    """
    truth = truth or TruthOptions()
    files = BagFiles(bag)
    truth_files = files if truth.bag is None else BagFiles(truth.bag)
    images = _scan(files, image_topic, IMAGE_TYPES, "--image-topic", _taken_of_image)
    if not images.taken:
        raise SourceError(f"{bag}: no image on {images.topic}: nothing to evaluate")
    recorded = _scan_truth(truth_files, truth)
    heard: list[_Recording[Any]] = []
    if prior_topic:
        heard.append(_scan(files, prior_topic, (FIX_TYPE,), "--prior-topic", hint_from_message))
    if odometry_topic:
        heard.append(_scan(files, odometry_topic, (POSE_TYPES[0],), "--odometry-topic", pose_from_message))
    if imu_topic:
        heard.append(_scan(files, imu_topic, (IMU_TYPE,), "--imu-topic", tilt_from_message))
    notes = _broken_notes(files, images) + _broken_notes(truth_files, recorded)
    if truth.bag is None:
        (images, recorded, *heard), remarks = _without_steps(bag, [images, recorded, *heard])
        notes += remarks
    else:
        (images, *heard), remarks = _without_steps(bag, [images, *heard])
        (recorded,), others = _without_steps(truth.bag, [recorded])
        notes += remarks + others
    recorded = replace(recorded, stamps=recorded.stamps.shifted(truth.offset_s))
    track, stamps, remarks = _track(truth_files, truth, recorded)
    notes += remarks
    # by how much (s) the truth's clock is ahead of the images'; None if they come from two bags
    ahead, astray = None, np.zeros(len(images.taken), bool)
    if truth.bag is None:
        ahead, at_images = ahead_s(stamps.shifted(-truth.offset_s), images.stamps, truth.offset_s)
        astray = (np.abs(at_images) >= SAME_CLOCK_S) & (abs(ahead) < SAME_CLOCK_S)
    taken = _take_images(
        files, images, track, truth.max_gap_s, _scan_cameras(files, images.topic, camera), astray.tolist()
    )
    missing = sum(image.truth is None for image in taken)
    if missing == len(taken):
        raise SourceError(_no_overlap(bag, images, recorded.topic, track, truth, ahead))
    if ahead is not None and abs(ahead) >= SAME_CLOCK_S:
        notes.append(two_clocks("the truth's", "the images'", ahead, "--truth-offset", truth.offset_s))
    if astray.any():
        notes.append(f"{astray.sum()} images are stamped by another clock than the truth around them: not judged")
    if recorded.taken[0].local and np.isnan(track.positions[:, 3]).all():
        notes.append(
            f"{recorded.topic} has no orientation: the identity throughout, or unknown by its variance; headings"
            " are not judged"
        )
    if repeated := len(images.taken) - len(taken):
        notes.append(f"{repeated} images carry the stamp of another image and are left out")
    if missing:
        of = f"{missing} of {len(taken)} images"
        notes.append(f"{of} have no true position within {truth.max_gap_s:g} s and are not judged")
    events = [Event(time, partial(_tell, what)) for each in heard for time, what in each.items()]
    events.sort(key=lambda event: event.stamp_ns)
    title = f"{bag.name}, {images.topic} judged by {recorded.topic}"
    return Drive(title, taken, tuple(dict.fromkeys(notes)), events=tuple(events))


def _broken_notes(files: BagFiles, found: _Recording[Any]) -> list[str]:
    notes = [f"{name} is absent, though metadata.yaml names it" for name in files.missing]
    if found.broken:
        notes.append(f"{files.path.name} has a broken end and was used as far as it goes ({found.broken})")
    if found.undecodable:
        notes.append(f"{found.undecodable} of the messages on {found.topic} not whole: left out")
    return notes


def _without_steps(bag: Path, found: Sequence[_Recording[Any]]) -> tuple[list[_Recording[Any]], list[str]]:
    """Return recordings of one bag with times that never step back, and what to say of it."""
    stamps, remark = without_steps(bag, [each.stamps for each in found])
    if not remark:
        return list(found), []
    timed = []
    for each, steady in zip(found, stamps, strict=True):
        times = steady.times_ns.tolist()
        taken = [
            replace(what, stamp_ns=time) if isinstance(what, Hint | Pose | Tilt) else what
            for time, what in zip(times, each.taken, strict=True)
        ]
        timed.append(replace(each, stamps=steady, taken=taken))
    return timed, [remark]


def _taken_of_image(message: Any) -> tuple[int, str, str]:
    """Return an image's header stamp (ns), frame, and codec if it is a packet of a video."""
    header = getattr(message, "header", message)
    return header_stamp_ns(message), str(header.frame_id), codec_of(message)


def _tell(what: Hint | NoHint | Pose | Tilt | None, session: Session) -> None:
    if isinstance(what, Pose):
        session.odometer.add(what)
    elif isinstance(what, Tilt):
        session.plumb.add(what)
    elif what is not None:
        session.prior.offer(what)


def read_fixes(bag: Path, topic: str = FIX_TOPIC) -> tuple[list[Answer], tuple[str, ...]]:
    """Read the fixes that a live run published, and notes on the bag.

    A NavSatFix carries neither confidence nor candidates; its NO_FIX does not say why. Orientations are those of
    the poses of the same stamps, where the node's ``pose`` was recorded beside its ``fix``; their axes are taken
    for those at the fix, 0.01° off per km from the datum.

    Raises:
        SourceError: No bag, no such topic, or no message on it.
    """
    files = BagFiles(bag)
    found = _scan(files, topic, (FIX_TYPE,), "--fix-topic", lambda message: message)
    if not found.taken:
        raise SourceError(f"{bag}: no message on {found.topic}: no recorded fix to judge")
    poses = _recorded_poses(files, found.topic)
    answers = [_answer(stamp, message, poses.get(stamp)) for stamp, message in found.items()]
    return answers, tuple(_broken_notes(files, found))


def _recorded_poses(files: BagFiles, fix_topic: str) -> dict[int, Any]:
    """Return the poses, by their stamps, that the node published beside its fixes; none if not recorded."""
    topic, kinds = fix_topic.removesuffix("fix") + "pose", POSE_TYPES[2:]
    with files.reader() as reader:
        if not any(c.topic == topic and c.msgtype in kinds for c in reader.connections):
            return {}
    return dict(_scan(files, topic, kinds, "--fix-topic", lambda message: message.pose).items())


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
    rows: list[tuple[int, int]] = []
    taken: list[T] = []
    with files.reader() as reader:
        topic = choose_topic(files.path, reader, topic, types, option)
        messages = Messages(reader, channels(reader, topic, types))
        for _, recorded_ns, message in messages:
            rows.append((header_stamp_ns(message) or recorded_ns, recorded_ns))
            taken.append(take(message))
    return _Recording(Stamps.of(topic, rows), taken, files.broken or messages.broken, len(messages.undecodable))


def _scan_cameras(files: BagFiles, image_topic: str, file: Path | None) -> RecordedCameras:
    cameras = RecordedCameras(image_topic, file)
    with files.reader() as reader:
        infos = [connection for connection in reader.connections if cameras.belong(connection)]
        for _, recorded_ns, message in Messages(reader, infos):
            cameras.add(header_stamp_ns(message) or recorded_ns, message)
    return cameras


def _scan_truth(files: BagFiles, truth: TruthOptions) -> _Recording[_Truth]:
    types = (FIX_TYPE, *POSE_TYPES) if truth.topic else (FIX_TYPE,)
    take = partial(_truth_of, accept_null_island=truth.accept_null_island)
    return _scan(files, truth.topic, types, "--truth-topic", take)


def _track(files: BagFiles, truth: TruthOptions, found: _Recording[_Truth]) -> tuple[Track, Stamps, list[str]]:
    """Return the true positions over time, their stamps, and which messages are left out."""
    values = np.array([each.position for each in found.taken], float).reshape(-1, 4)
    flaws = np.array([each.flaw for each in found.taken], object)
    local = any(each.local for each in found.taken)
    if local:
        if truth.datum is None:
            raise SourceError(
                f"{files.path}: {found.topic} gives positions in a local frame; say where its origin lies:"
                " --truth-datum LATITUDE LONGITUDE (x pointing east, y north)"
            )
        datum = LocalFrame(*truth.datum)
        values[:, :3] = np.stack(datum.to_geodetic(values[:, :3]), axis=1)
        values[:, 3] = _true_headings(values, datum)
        flaws[(flaws == "") & ~np.isfinite(values[:, :2]).all(axis=1)] = NO_FIX
    elif (flaws == "").any():
        _, flaws = FixTrack.of(found.stamps.times_ns, values[:, :3], flaws.tolist())
    usable = flaws == ""
    lost = Counter(flaws[~usable].tolist())
    if not usable.any():
        why = "; ".join(f"{count} {flaw}" for flaw, count in lost.items())
        raise SourceError(
            f"{files.path}: no usable position among the {len(flaws)} messages on {found.topic}:"
            f" expected a status of at least 0 and finite numbers, found {why}"
        )
    stamps = Stamps(found.topic, found.stamps.times_ns[usable], found.stamps.recorded_ns[usable])
    rows = zip(stamps.times_ns.tolist(), *values[usable].T.tolist(), strict=True)
    notes = [f"{count} of the messages on {found.topic} {flaw}: left out" for flaw, count in lost.items()]
    return Track.of(list(rows)), stamps, notes


def _true_headings(values: FloatArray, datum: LocalFrame) -> FloatArray:
    """Return the headings (N,) by true north of azimuths about a datum (deg); NaN where nobody set them."""
    if (values[:, 3] == NEVER_SET_DEG).all():
        return np.full(len(values), math.nan)
    # the datum's north, by true north at each position
    turned = [LocalFrame(latitude, longitude).rotation_from(datum) for latitude, longitude in values[:, :2]]
    north = [math.degrees(math.atan2(axes[0, 1], axes[1, 1])) for axes in turned]
    return np.asarray((values[:, 3] + north) % 360.0)


@dataclass(frozen=True, slots=True)
class _Truth:
    """One message of the truth.

    Attributes:
        position: Three coordinates and a heading (deg), NaN if unknown.
        local: Whether these are metres and an azimuth in a local frame.
        flaw: Why it is no position; empty if it is one.
    """

    position: tuple[float, float, float, float]
    local: bool
    flaw: str


def _truth_of(message: Any, accept_null_island: bool) -> _Truth:
    if hasattr(message, "latitude"):
        place = float(message.latitude), float(message.longitude), float(message.altitude), math.nan
        return _Truth(place, False, flaw(message, accept_null_island=accept_null_island))
    spread = message.pose.covariance if hasattr(message.pose, "pose") else np.zeros(36)
    position = (message.pose.pose if hasattr(message.pose, "pose") else message.pose).position
    rotation = _rotation_of(message.pose)
    heading_deg = math.nan if rotation is None else heading(rotation)
    why = UNCERTAIN if uncertain(float(spread[0]), float(spread[7])) else ""
    return _Truth((float(position.x), float(position.y), float(position.z), heading_deg), True, why)


def _rotation_of(pose: Any) -> FloatArray | None:
    """Return the rotation (3, 3) of a Pose or PoseWithCovariance; None if its variance says that it is unknown."""
    if hasattr(pose, "pose") and pose.covariance[35] >= UNKNOWN_FROM_RAD2:
        return None
    q = (pose.pose if hasattr(pose, "pose") else pose).orientation
    quaternion = (float(q.x), float(q.y), float(q.z), float(q.w))
    return enu_from_body(quaternion) if math.isfinite(sum(quaternion)) and any(quaternion) else None


def _take_images(
    files: BagFiles,
    images: _Recording[tuple[int, str, str]],
    track: Track,
    max_gap_s: float,
    cameras: RecordedCameras,
    astray: Sequence[bool],
) -> tuple[DriveImage, ...]:
    """Return the images in the order of their times; of equal times the first that was recorded."""
    codec = next((codec for _, _, codec in images.taken if codec), "")
    store = recorded_images(files, images.topic, codec)
    found: dict[int, DriveImage] = {}
    times, recorded = images.stamps.times_ns.tolist(), images.stamps.recorded_ns.tolist()
    for row in sorted(range(len(times)), key=lambda row: (times[row], recorded[row])):
        time, (header_ns, frame_id, _) = times[row], images.taken[row]
        name = f"{files.stem}/{images.topic.strip('/')}/{time}"
        read = partial(store.read, recorded[row], header_ns or recorded[row], name)
        camera = cameras.at(header_ns or time)
        at = {} if camera is None else {"camera_at": camera.scaled_to}
        truth = None if astray[row] else track.at(time, max_gap_s)
        found.setdefault(time, DriveImage(name, time, read, truth, frame_id, **at))
    return tuple(found.values())


def _no_overlap(
    bag: Path, images: _Recording[Any], truth_topic: str, track: Track, truth: TruthOptions, ahead: float | None
) -> str:
    """Say why no image has a true position, and which option would help."""
    first, last = int(images.stamps.times_ns.min()), int(images.stamps.times_ns.max())
    truth_first, truth_last = int(track.stamps_ns[0]), int(track.stamps_ns[-1])
    apart_s = max(first - truth_last, truth_first - last) / NS
    spans = f"images from {when(first)} to {when(last)}, truth from {when(truth_first)} to {when(truth_last)}"
    if apart_s <= 0:
        return (
            f"{bag}: no image on {images.topic} is within {truth.max_gap_s:g} s of a true position on"
            f" {truth_topic}: {spans}; a larger --max-gap would bridge the gaps"
        )
    if ahead is None:  # two bags: as if both had begun together
        ahead = (truth_first - first) / NS
    if abs(ahead) < SAME_CLOCK_S:
        return f"{bag}: truth on {truth_topic} was not recorded while images came on {images.topic}: {spans}"
    return (
        f"{bag}: truth on {truth_topic} and images on {images.topic} do not overlap: {spans},"
        f" {apart_s:.3f} s apart; if their clocks differ try --truth-offset"
        f" {truth.offset_s + fitting_offset_s(ahead)[0]:.3f}"
    )
