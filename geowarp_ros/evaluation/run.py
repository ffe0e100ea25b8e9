"""Ask a localizer about every image of a drive, or join the answers of a live run to its images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from geowarp_ros.config import PositionConfig
from geowarp_ros.errors import ImageError
from geowarp_ros.evaluation.drive import Drive, DriveImage, Position
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.position import estimate_position
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import Skipped
from geowarp_ros.types import Fix, Frame, Image, NoFix

if TYPE_CHECKING:
    from geowarp_ros.localizer import Localizer

THUMBNAIL_PX = 320


@dataclass(frozen=True, slots=True)
class Answered:
    """One image of the drive and what was answered.

    Attributes:
        name: The image's name.
        stamp_ns: When it was taken.
        truth: Where; None where the truth has a gap.
        answer: What was published.
        position: The same or, of a NoFix, the position that would have been published without any least
            confidence; None where there is none.
        thumbnail: The image as JPEG, at most THUMBNAIL_PX wide; empty where it is not at hand.
    """

    name: str
    stamp_ns: int
    truth: Position | None
    answer: Fix | NoFix
    position: Fix | None
    thumbnail: bytes = b""


@dataclass(frozen=True, slots=True)
class Criteria:
    """What counts.

    Attributes:
        correct_within_m: A fix farther from the truth is false.
        thresholds_m: Distances at which recall is given.
    """

    correct_within_m: float = 25.0
    thresholds_m: tuple[float, ...] = (2.0, 5.0, 10.0, 25.0, 50.0)


@dataclass(frozen=True, slots=True)
class Run:
    """All answers to one drive.

    Attributes:
        title: One line for people: which drive.
        answered: In the order of their stamps.
        frame: Local east-north-up frame of every metre in here: about the gallery's centre.
        criteria: What counts.
        unreadable: Images that could not be decoded, with the reason.
        dropped: Names of images that a live run never answered; they stand among the answered as NoFix.
        notes: What the reader should know, in words: a bag cut off, a truth with gaps.
        settings: Resolved configuration.
        timed: Whether the stamps are true; otherwise nothing can be said of a recorded rate.
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

    @property
    def judged(self) -> tuple[Answered, ...]:
        """The answers whose true position is known."""
        return tuple(item for item in self.answered if item.truth is not None)


def run_drive(
    localizer: Localizer, drive: Drive, criteria: Criteria | None = None, progress: Progress = silent
) -> Run:
    """Localise every image of the drive, as the node would, without dropping any.

    An image that cannot be decoded is left out and named.
    """
    localizer.warm_up()
    answered: list[Answered] = []
    unreadable: list[Skipped] = []
    for item in progress(drive.images, len(drive.images), "localize"):
        try:
            image = item.read()
            answer = localizer.localize(Frame(image, item.stamp_ns, item.frame_id))
        except ImageError as error:
            unreadable.append(Skipped(item.name, str(error)))
            continue
        answered.append(_answered(item, answer, without_threshold(localizer, answer), image))
    return Run(
        title=drive.title,
        answered=tuple(answered),
        frame=localizer.gallery.frame,
        criteria=criteria or Criteria(),
        unreadable=tuple(unreadable),
        notes=drive.notes,
        settings=localizer.config.model_dump(),
        timed=drive.timed,
    )


def without_threshold(localizer: Localizer, answer: Fix | NoFix) -> Fix | None:
    """Return the position that an answer would have had if any confidence were enough; None if there is none."""
    if isinstance(answer, Fix):
        return answer
    config: PositionConfig = localizer.config.position.model_copy(update={"min_confidence": 0.0})
    position = estimate_position(answer.candidates, config, localizer.calibration)
    return position if isinstance(position, Fix) else None


def join_recorded(
    drive: Drive,
    recorded: Sequence[Fix | NoFix],
    frame: LocalFrame,
    criteria: Criteria | None = None,
    progress: Progress = silent,
) -> Run:
    """Judge the fixes of a live run: each belongs to the image with its stamp; images without one were dropped."""
    by_stamp = {answer.stamp_ns: answer for answer in recorded}
    answered: list[Answered] = []
    dropped: list[str] = []
    for item in progress(drive.images, len(drive.images), "judge"):
        answer = by_stamp.pop(item.stamp_ns, None)
        if answer is None:
            dropped.append(item.name)
            answer = NoFix("no_image", "no answer to this image was recorded", math.nan, (), item.stamp_ns)
        try:
            image = item.read()
        except ImageError:
            image = None
        answered.append(_answered(item, answer, answer if isinstance(answer, Fix) else None, image))
    notes = list(drive.notes)
    if by_stamp:
        notes.append(f"{len(by_stamp)} recorded fixes carry the stamp of no image of the drive; they are left out")
    return Run(
        drive.title, tuple(answered), frame, criteria or Criteria(), dropped=tuple(dropped), notes=tuple(notes)
    )


def frame_of(drive: Drive) -> LocalFrame:
    """Return a local frame about the middle of the true positions."""
    truths = [image.truth for image in drive.images if image.truth]
    first = truths[0]
    start = LocalFrame(first.latitude_deg, first.longitude_deg)
    enu = start.to_enu([t.latitude_deg for t in truths], [t.longitude_deg for t in truths])
    latitude, longitude, _ = start.to_geodetic((enu.min(axis=0) + enu.max(axis=0)) / 2)
    return LocalFrame(float(latitude), float(longitude))


def _answered(item: DriveImage, answer: Fix | NoFix, position: Fix | None, image: Image | None) -> Answered:
    thumbnail = b"" if image is None else jpeg(image)
    return Answered(item.name, item.stamp_ns, item.truth, answer, position, thumbnail)


def jpeg(image: Image, width_px: int = THUMBNAIL_PX, quality: int = 78) -> bytes:
    """Return an image as a JPEG of at most ``width_px``."""
    height, width = image.shape[:2]
    if width > width_px:
        image = np.asarray(
            cv2.resize(image, (width_px, max(1, round(height * width_px / width))), interpolation=cv2.INTER_AREA)
        )
    return bytes(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
