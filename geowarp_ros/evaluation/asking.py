"""The engine of every evaluation: ask a localizer about images of known position, some places left out.

:func:`ask` asks about each image on its own, in several ways at once; :func:`replay` shows a session the images
of a drive in their order, as the node would see them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeAlias

import numpy as np

from geowarp_ros.attitude import enu_from_body_of, heading
from geowarp_ros.cameras import Camera
from geowarp_ros.config import PositionConfig
from geowarp_ros.errors import ImageError
from geowarp_ros.evaluation.drive import Drive, DriveImage
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.integrity.calibration import Sample
from geowarp_ros.integrity.texture import refuse_textureless
from geowarp_ros.integrity.trust import PoseSample
from geowarp_ros.localizer import Localizer, Ranked
from geowarp_ros.model.describer import Describer, Query
from geowarp_ros.motion.session import Session
from geowarp_ros.position import locate
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import SourceImage
from geowarp_ros.types import Answer, Candidate, Evidence, FloatArray, Frame, Image, Near, Place, Pose

LeaveOut: TypeAlias = Callable[[Place], frozenset[int]]
"""From an image's true place to the gallery rows that its search ignores."""

Circle: TypeAlias = Callable[[Place], Near]
"""From an image's true place to the circle that a prior limits its search to."""

Way: TypeAlias = Callable[[Query, "Place | None"], Ranked]
"""A way of asking: from a described image and its true place (None: nowhere in the gallery) to its ranking."""


@dataclass(frozen=True, slots=True)
class Question:
    """An image to ask about.

    Attributes:
        name: Name of the image, for people.
        read: Decodes the image; raises ImageError.
        truth: True place; None for an image taken outside the gallery.
        camera_at: Its camera for the image at a width and height (px), None if unknown; raises CameraError.
    """

    name: str
    read: Callable[[], Image]
    truth: Place | None = None
    camera_at: Callable[[int, int], Camera | None] = lambda width_px, height_px: None

    @classmethod
    def of(cls, image: SourceImage) -> Question:
        """Return the question about a geotagged image."""
        return cls(image.place.name, image.read, image.place, image.camera_at)


@dataclass(frozen=True, slots=True)
class Asked:
    """The rankings for one question.

    Attributes:
        question: The question.
        ranked: One ranking for each way; empty if the image was refused.
        refusal: ``unreadable``, ``no_texture``, or empty.
        describe_ms: Duration of describing the image.
    """

    question: Question
    ranked: tuple[Ranked, ...] = ()
    refusal: str = ""
    describe_ms: float = 0.0


def ask(
    describer: Describer,
    questions: Sequence[Question],
    ways: Sequence[Way],
    *,
    refuse: PositionConfig | None = None,
    progress: Progress = silent,
    label: str = "asking queries",
) -> Iterator[Asked]:
    """Ask about each image in each way; the network describes it once.

    Args:
        describer: Describes the images.
        questions: The images.
        ways: Ways of asking, see :func:`way`.
        refuse: Refuse images with less texture than this demands; None: ask about all.
        progress: Shows the questions.
        label: Label of the progress.
    """
    for question in progress(questions, len(questions), label):
        try:
            image = question.read()
        except ImageError:
            yield Asked(question, refusal="unreadable")
            continue
        if refuse is not None and refuse_textureless(image, refuse):
            yield Asked(question, refusal="no_texture")
            continue
        began = time.perf_counter()
        query = describer(image, question.camera_at(image.shape[1], image.shape[0]))
        describe_ms = (time.perf_counter() - began) * 1e3
        yield Asked(question, tuple(each(query, question.truth) for each in ways), "", describe_ms)


def way(localizer: Localizer, leave_out: LeaveOut | None = None, circle: Circle | None = None) -> Way:
    """Return a way of asking a localizer.

    Args:
        localizer: The localizer that ranks.
        leave_out: Places to ignore; None: none.
        circle: Circle to search; None: the whole gallery.
    """

    def rank(query: Query, truth: Place | None) -> Ranked:
        if truth is None:
            return localizer.rank(query)
        return localizer.rank(query, circle(truth) if circle else None, leave_out(truth) if leave_out else ())

    return rank


@dataclass(frozen=True, slots=True)
class Replayed:
    """One image of a drive and what a session answered.

    Attributes:
        item: The image of the drive.
        image: Its pixels; None if it cannot be decoded.
        answer: The answer; None likewise.
        problem: The reason why it cannot be decoded, or empty.
    """

    item: DriveImage
    image: Image | None = None
    answer: Answer | None = None
    problem: str = ""


def replay(
    session: Session, localizer: Localizer, drive: Drive, progress: Progress = silent
) -> Iterator[Replayed]:
    """Localise every image of a drive in order, as the node would, without dropping any.

    Recorded odometry and prior fixes reach the session before the first image that is not older.

    Raises:
        CameraError: An image is not of the camera that is said to have taken it.
    """
    localizer.warm_up()
    events = iter(drive.events)
    event = next(events, None)
    for item in progress(drive.images, len(drive.images), "localizing images"):
        while event is not None and event.stamp_ns <= item.stamp_ns:
            event.tell(session)
            event = next(events, None)
        try:
            image = item.read()
            camera = item.camera_at(image.shape[1], image.shape[0])
            answer = session.localize(localizer, Frame(image, item.stamp_ns, item.frame_id, camera))
        except ImageError as error:
            yield Replayed(item, problem=str(error))
        else:
            yield Replayed(item, image, answer)


def sample_of(localizer: Localizer, ranked: Ranked, truth: Place | None, correct_within_m: float) -> Sample | None:
    """Return an answer as a sample for a calibration; None without candidates.

    Args:
        localizer: The localizer that answered.
        ranked: Its ranking.
        truth: True place; None: the place is not in the gallery, so that any answer is wrong.
        correct_within_m: Error up to which an answer counts as right, m.
    """
    if ranked.evidence is None:
        return None
    gallery = localizer.gallery
    centre, scatter, _ = locate(ranked.evidence, localizer.config.position.estimate)
    best = ranked.candidates[0].place
    centre = centre + gallery.frame.to_enu(best.latitude_deg, best.longitude_deg, 0.0)[:2]
    error = np.full(2, np.nan)
    if truth is not None:
        error = centre - gallery.frame.to_enu(truth.latitude_deg, truth.longitude_deg, 0.0)[:2]
    error_m = np.inf if truth is None else float(np.hypot(*error))
    posed = None
    if ranked.pose is not None:
        posed = _posed(localizer, ranked.evidence, ranked.pose, truth, correct_within_m, centre)
    return Sample(ranked.evidence, error_m, error, scatter, correct_within_m, gallery.spacing_m, posed)


def _posed(
    localizer: Localizer,
    evidence: Evidence,
    pose: Pose,
    truth: Place | None,
    correct_within_m: float,
    centre_m: FloatArray,
) -> PoseSample:
    error, turned_deg = np.full(2, np.inf), math.nan
    if truth is not None:
        error = pose.position_m[:2] - localizer.enu.to_enu(truth.latitude_deg, truth.longitude_deg)[:2]
        turned_deg = math.remainder(heading(enu_from_body_of(pose)) - truth.heading_deg, 360.0)
    latitude, longitude, _ = localizer.enu.to_geodetic(pose.position_m)
    apart = localizer.gallery.frame.to_enu(latitude, longitude, 0.0)[:2] - centre_m
    return PoseSample(pose, evidence, error, turned_deg, correct_within_m, apart)


SAME_PHOTOGRAPH = 1e-3
"""Squared descriptor distance below which a photograph at an image's very position is the image itself."""


def is_in_gallery(candidates: Sequence[Candidate], latitude_deg: float, longitude_deg: float) -> bool:
    """Whether an image seems to be in the gallery itself: found at its own position to 1e-7°, and as like as that.

    Args:
        candidates: What was found for it.
        latitude_deg: Its true latitude.
        longitude_deg: Its true longitude.
    """
    here = np.array([latitude_deg, longitude_deg])
    return any(
        c.distance < SAME_PHOTOGRAPH
        and np.allclose([c.place.latitude_deg, c.place.longitude_deg], here, rtol=0.0, atol=1e-7)
        for c in candidates
    )


def said_of_themselves(count: int, of: int) -> str:
    """Return a warning about images that are in the gallery; empty if there are none."""
    if not count:
        return ""
    return (
        f"{count} of {of} images are in the gallery themselves: they find themselves, and what is measured is too"
        " good; use images of another time"
    )


# ---- leave-outs


def both(first: LeaveOut, second: LeaveOut) -> LeaveOut:
    """Leave out what either leaves out."""
    return lambda truth: first(truth) | second(truth)


def without_places_within(gallery: Gallery, radius_m: float) -> LeaveOut:
    """Leave out the places within ``radius_m`` of the truth."""

    def near(truth: Place) -> frozenset[int]:
        return frozenset(gallery.rows_within(Near(truth.latitude_deg, truth.longitude_deg, radius_m)).tolist())

    return near


def without_folder(gallery: Gallery) -> LeaveOut:
    """Leave out the places whose files lie in the image's folder: a floor, a building, a day."""
    rows: dict[PurePosixPath, set[int]] = {}
    for row, place in enumerate(gallery.places):
        rows.setdefault(PurePosixPath(place.name).parent, set()).add(row)
    return lambda truth: frozenset(rows.get(PurePosixPath(truth.name).parent, ()))


def without_itself(gallery: Gallery) -> LeaveOut:
    """Leave out the place that is the image itself."""
    rows = {place.name: row for row, place in enumerate(gallery.places)}
    return lambda truth: frozenset(rows[name] for name in (truth.name,) if name in rows)
