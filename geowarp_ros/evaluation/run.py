"""Ask a localizer about every image of a drive, or join the answers of a live run to its images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from geowarp_ros.attitude import base_answer
from geowarp_ros.config import SessionConfig
from geowarp_ros.errors import ImageError
from geowarp_ros.evaluation.asking import is_in_gallery, replay, said_of_themselves
from geowarp_ros.evaluation.drive import Drive, DriveImage, Position
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.session import Session, mounting_of
from geowarp_ros.pictures import encode_jpeg
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import Skipped
from geowarp_ros.types import Answer, Candidate, Fix, Header, Image, NoFix

if TYPE_CHECKING:
    from geowarp_ros.localizer import Localizer

THUMBNAIL_PX = 320


@dataclass(frozen=True, slots=True)
class Answered:
    """One image of the drive and its answer.

    Attributes:
        name: Name of the image.
        stamp_ns: Time of the image.
        truth: True position; None in a gap of the truth.
        answer: The published answer.
        position: The fix or, of a NoFix, the position that would have been published with a minimum confidence of
            0; None if there is none, as for a jump.
        thumbnail: The image as JPEG, at most THUMBNAIL_PX wide; empty if it is not at hand.
    """

    name: str
    stamp_ns: int
    truth: Position | None
    answer: Answer
    position: Fix | None
    thumbnail: bytes = b""

    @property
    def best(self) -> Candidate | None:
        """The best candidate; None without any."""
        return next(iter(self.answer.candidates), None)

    @property
    def method(self) -> str:
        """Where the position is from; ``recorded`` where nobody says, empty without one."""
        if self.position is None:
            return ""
        return self.position.method if self.answer.candidates else "recorded"


@dataclass(frozen=True, slots=True)
class Criteria:
    """Criteria by which fixes are judged.

    Attributes:
        correct_within_m: Maximum error (m) of a right fix; a fix with a larger one is false.
        thresholds_m: Distances (m) at which recall is given.
    """

    correct_within_m: float = 25.0
    thresholds_m: tuple[float, ...] = (2.0, 5.0, 10.0, 25.0, 50.0)


@dataclass(frozen=True, slots=True)
class Run:
    """All answers to one drive.

    Attributes:
        title: One line for people that names the drive.
        answered: The answers, in the order of their stamps.
        frame: Local east-north-up frame of all coordinates, at the centre of the gallery.
        criteria: Criteria by which the fixes are judged.
        unreadable: Images that could not be decoded, with the reason.
        dropped: Names of images that a live run never answered; in ``answered`` they have a NoFix.
        notes: Remarks for the reader: a bag cut off, a truth with gaps.
        settings: Resolved configuration.
        timed: Whether the stamps are true; otherwise there is no recorded rate.
        calibration: Title of the calibration that told fixes from guesses; empty: none, or nobody says.
    """

    title: str
    answered: tuple[Answered, ...]
    frame: LocalFrame
    criteria: Criteria = Criteria()
    unreadable: tuple[Skipped, ...] = ()
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    timed: bool = True
    calibration: str = ""

    @property
    def judged(self) -> tuple[Answered, ...]:
        """The answers whose true position is known."""
        return tuple(item for item in self.answered if item.truth is not None)


def run_drive(
    localizer: Localizer,
    config: SessionConfig,
    drive: Drive,
    criteria: Criteria | None = None,
    progress: Progress = silent,
) -> Run:
    """Localise every image of the drive in a session, as the node would, without dropping any.

    Images that cannot be decoded are listed as unreadable. With a ``base_frame`` the answers are of the base, as
    the node publishes them.
    """
    mounting = mounting_of(config)
    answered: list[Answered] = []
    unreadable: list[Skipped] = []
    for each in replay(Session(config), localizer, drive, progress):
        if each.answer is None:
            unreadable.append(Skipped(each.item.name, each.problem))
            continue
        answer = replace(each.answer, pair=None)  # the pair would keep the image in memory
        fix = answer.fix  # with a minimum confidence of 0 it might be a pose that is not trusted
        # a jump that the track suppresses is no fix at any minimum confidence
        if isinstance(answer.result, NoFix) and answer.result.reason != "jump":
            position = localizer.judge(answer, min_confidence=0.0)
            fix = position if isinstance(position, Fix) else None
        if mounting is not None:
            answer, fix = base_answer(answer, mounting, config.base_frame), fix and mounting.base_of(fix)
        answered.append(_answered(each.item, answer, fix, each.image))
    themselves = sum(
        item.truth is not None
        and is_in_gallery(item.answer.candidates, item.truth.latitude_deg, item.truth.longitude_deg)
        for item in answered
    )
    said = said_of_themselves(themselves, len(answered))
    return Run(
        title=drive.title,
        answered=tuple(answered),
        frame=localizer.gallery.frame,
        criteria=criteria or Criteria(),
        unreadable=tuple(unreadable),
        notes=(*drive.notes, *([said] if said else [])),
        settings=config.model_dump(),
        timed=drive.timed,
        calibration=localizer.calibration.title if localizer.calibration else "",
    )


def join_recorded(
    drive: Drive,
    recorded: Sequence[Answer],
    frame: LocalFrame,
    criteria: Criteria | None = None,
    progress: Progress = silent,
) -> Run:
    """Join the fixes of a live run to the images of the same stamp; images without one were dropped."""
    by_stamp = {answer.header.stamp_ns: answer for answer in recorded}
    answered: list[Answered] = []
    dropped: list[str] = []
    for item in progress(drive.images, len(drive.images), "judging images"):
        answer = by_stamp.pop(item.stamp_ns, None)
        if answer is None:
            dropped.append(item.name)
            missing = NoFix("no_image", "no answer to this image was recorded", math.nan)
            answer = Answer(Header(item.stamp_ns), missing)
        try:
            image = item.read()
        except ImageError:
            image = None
        answered.append(_answered(item, answer, answer.fix, image))
    notes = list(drive.notes)
    if by_stamp:
        notes.append(f"{len(by_stamp)} recorded fixes carry the stamp of no image of the drive; they are left out")
    found = criteria or Criteria()
    return Run(drive.title, tuple(answered), frame, found, dropped=tuple(dropped), notes=tuple(notes))


def frame_of(drive: Drive) -> LocalFrame:
    """Return a local frame at the middle of the true positions."""
    truths = [image.truth for image in drive.images if image.truth]
    first = truths[0]
    start = LocalFrame(first.latitude_deg, first.longitude_deg)
    enu = start.to_enu([t.latitude_deg for t in truths], [t.longitude_deg for t in truths])
    latitude, longitude, _ = start.to_geodetic((enu.min(axis=0) + enu.max(axis=0)) / 2)
    return LocalFrame(float(latitude), float(longitude))


def _answered(item: DriveImage, answer: Answer, position: Fix | None, image: Image | None) -> Answered:
    thumbnail = b"" if image is None else encode_jpeg(image, 78, THUMBNAIL_PX)
    return Answered(item.name, item.stamp_ns, item.truth, answer, position, thumbnail)
