"""Answers of a localizer to images of known position, from which a calibration is fitted.

A calibration must have seen the localizer lost. Each image is therefore asked twice: as it is, and with every
gallery place near the truth left out, so that the right answer is not there to be found – the hardest off-gallery
images there are: the same town, camera and light. A few plain pictures (black, noise, sky) join them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeAlias

import numpy as np

from geowarp_ros.config import PriorConfig, RetrievalConfig
from geowarp_ros.errors import GalleryError, ImageError, SourceError
from geowarp_ros.evaluation.plain import plain_pictures
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.integrity.calibration import (
    CALIBRATION_FILE,
    Calibration,
    Sample,
    fit_calibration,
    save_calibration,
    settings_of,
)
from geowarp_ros.integrity.evidence import gather_evidence
from geowarp_ros.integrity.texture import refuse_textureless
from geowarp_ros.localizer import Localizer
from geowarp_ros.model.describer import Query
from geowarp_ros.motion.prior import Hint, Prior
from geowarp_ros.position import locate
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import SourceImage
from geowarp_ros.types import Image, Near, Place

LeaveOut: TypeAlias = Callable[[Place], frozenset[int]]
"""From an image's true place to the gallery rows that its search does without."""

Circle: TypeAlias = Callable[[Place], Near]
"""From an image's true place to the circle that a prior limits its search to."""


def whole_gallery(truth: Place) -> frozenset[int]:
    """Leave nothing out."""
    return frozenset()


@dataclass(frozen=True, slots=True)
class Collected:
    """What a localizer answered.

    Attributes:
        samples: Its answers.
        textureless: How many images it refused before looking for candidates.
        unreadable: Names of images that could not be read.
    """

    samples: tuple[Sample, ...]
    textureless: int = 0
    unreadable: tuple[str, ...] = ()

    def __add__(self, other: Collected) -> Collected:
        """These answers and those."""
        return Collected(
            self.samples + other.samples,
            self.textureless + other.textureless,
            self.unreadable + other.unreadable,
        )


def calibrate_gallery(
    localizer: Localizer,
    images: Sequence[SourceImage],
    correct_within_m: float = 25.0,
    false_fix_rate: float = 0.01,
    progress: Progress = silent,
) -> tuple[Calibration, dict[str, float], Collected]:
    """Measure a localizer on images of known position and store what was found with its gallery.

    Returns:
        The calibration, what the cross-validation showed (:func:`fit_calibration`), and the answers.

    Raises:
        SourceError: No images, or too few right or wrong answers to tell them apart.
        GalleryError: The gallery is empty, or its folder cannot be written.
    """
    collected = collect_samples(localizer, images, correct_within_m, progress)
    try:
        calibration, summary = fit_calibration(collected.samples, false_fix_rate)
    except ValueError as error:
        raise SourceError(f"these images cannot calibrate {localizer.gallery.path}: {error}") from None
    measured_with = settings_of(localizer.config, localizer.describer.fingerprint)
    calibration = calibration.model_copy(update={"measured_with": measured_with})
    save_calibration(localizer.gallery.path / CALIBRATION_FILE, calibration)
    return calibration, summary, collected


def collect_samples(
    localizer: Localizer,
    images: Sequence[SourceImage],
    correct_within_m: float,
    progress: Progress = silent,
    seed: int = 0,
) -> Collected:
    """Ask about each image, with and without its true place in the gallery, and about plain pictures.

    Raises:
        SourceError: No images.
        GalleryError: The gallery is empty.
    """
    as_it_is, without_place = ask(
        localizer,
        images,
        (whole_gallery, without_places_within(localizer, 2 * correct_within_m)),
        correct_within_m,
        progress,
    )
    plain = ask_of_nowhere(localizer, (picture for _, picture in plain_pictures(240, 320, seed)), correct_within_m)
    return Collected(
        as_it_is.samples + without_place.samples + plain.samples,
        as_it_is.textureless + plain.textureless,
        as_it_is.unreadable,
    )


def ask(
    localizer: Localizer,
    images: Sequence[SourceImage],
    ways: Sequence[LeaveOut],
    correct_within_m: float,
    progress: Progress = silent,
) -> list[Collected]:
    """Ask about each image once for each way of leaving out; the network sees it once.

    Returns:
        The answers, one element for each of ``ways``.

    Raises:
        SourceError: No images.
        GalleryError: The gallery is empty.
    """
    if not images:
        raise SourceError("no images to calibrate with: the source or its split is empty")
    if not len(localizer.gallery):
        raise GalleryError("an empty gallery cannot be calibrated")
    samples: list[list[Sample]] = [[] for _ in ways]
    unreadable: list[str] = []
    textureless = 0
    for item in progress(images, len(images), "ask"):
        try:
            image = item.read()
        except ImageError:
            unreadable.append(item.place.name)
            continue
        if refuse_textureless(image, localizer.config.position):
            textureless += 1
            continue
        query = localizer.describer(image)
        for leave_out, found in zip(ways, samples, strict=True):
            found += _answer(localizer, query, item.place, leave_out(item.place), correct_within_m)
    return [Collected(tuple(found), textureless, tuple(unreadable)) for found in samples]


@dataclass(frozen=True, slots=True)
class Within:
    """The answers to one image, for which there is a prior.

    Attributes:
        circle: Of the places in the circle; None where there are none.
        whole: Of the whole gallery, which counts where the circle's does not convince.
    """

    circle: Sample | None
    whole: Sample

    def published(self, calibration: Calibration) -> Sample:
        """Return the answer that :meth:`Localizer.localize` would give."""
        if self.circle is None or not self.circle.evidence.contrasted:
            return self.whole
        fixed = calibration.confidence(self.circle.evidence) >= calibration.min_confidence
        return self.circle if fixed else self.whole


def ask_within(
    localizer: Localizer,
    images: Sequence[SourceImage],
    leave_out: LeaveOut,
    circles: Sequence[Circle],
    correct_within_m: float,
    progress: Progress = silent,
) -> list[list[Within]]:
    """Ask about each image in the whole gallery, and in each of its circles.

    Returns:
        One element for each of ``circles``; images without texture, and those that cannot be read, are in none.
    """
    answers: list[list[Within]] = [[] for _ in circles]
    for item in progress(images, len(images), "ask with a prior"):
        try:
            image = item.read()
        except ImageError:
            continue
        if refuse_textureless(image, localizer.config.position):
            continue
        query, without = localizer.describer(image), leave_out(item.place)
        for whole in _answer(localizer, query, item.place, without, correct_within_m):
            for circle, found in zip(circles, answers, strict=True):
                near = circle(item.place)
                within = next(_answer(localizer, query, item.place, without, correct_within_m, near), None)
                found.append(Within(within, whole))
    return answers


def circle_of_prior(std_m: float, seed: int = 0) -> Circle:
    """The circle about a fresh message on ``prior_fix``, whose error has the standard deviation that it claims."""
    rng = np.random.default_rng(seed)

    def circle(truth: Place) -> Near:
        east_m, north_m = rng.normal(0.0, std_m, 2)
        return _circle(truth, east_m, north_m, std_m)

    return circle


def circle_elsewhere(localizer: Localizer, std_m: float, seed: int = 0) -> Circle:
    """The circle about a message that is wrong: about a random place of the gallery, far from the truth.

    Far is where the circle does not reach the truth; a gallery so small that there is no such place has the
    circle about the farthest one.
    """
    rng = np.random.default_rng(seed)
    places = localizer.gallery.positions_enu[:, :2]

    def circle(truth: Place) -> Near:
        east, north, _ = localizer.gallery.frame.to_enu(truth.latitude_deg, truth.longitude_deg)
        apart_m = np.hypot(places[:, 0] - east, places[:, 1] - north)
        reach_m = 2 * _circle(truth, 0.0, 0.0, std_m).radius_m
        far = np.flatnonzero(apart_m > min(reach_m, float(apart_m.max()) - 1e-6))
        about = localizer.gallery.places[int(rng.choice(far))]
        return _circle(about, 0.0, 0.0, std_m)

    return circle


def _circle(about: Place, east_m: float, north_m: float, std_m: float) -> Near:
    """What the node's prior makes, by default, of a message with an error."""
    frame = LocalFrame(about.latitude_deg, about.longitude_deg)
    latitude, longitude, _ = frame.to_geodetic(np.array([[east_m, north_m, 0.0]]))
    prior = Prior(PriorConfig(source="fix"), lambda _, __: 0.0)
    prior.offer(Hint(float(latitude[0]), float(longitude[0]), std_m, stamp_ns=0))
    near, why = prior.near(0)
    if near is None:
        raise SourceError(f"a prior of {std_m:g} m standard deviation is not used: {why}")
    return near


def ask_of_nowhere(localizer: Localizer, pictures: Iterable[Image], correct_within_m: float) -> Collected:
    """Ask about pictures of places that are not in the gallery: whatever is answered is wrong."""
    samples: list[Sample] = []
    textureless = 0
    for picture in pictures:
        if refuse_textureless(picture, localizer.config.position):
            textureless += 1
        else:
            samples += _answer(localizer, localizer.describer(picture), None, frozenset(), correct_within_m)
    return Collected(tuple(samples), textureless)


def both(first: LeaveOut, second: LeaveOut) -> LeaveOut:
    """Leave out what either leaves out."""
    return lambda truth: first(truth) | second(truth)


def without_places_within(localizer: Localizer, radius_m: float) -> LeaveOut:
    """Leave out the gallery places within ``radius_m`` of the truth."""
    gallery = localizer.gallery

    def near(truth: Place) -> frozenset[int]:
        return frozenset(gallery.rows_within(Near(truth.latitude_deg, truth.longitude_deg, radius_m)).tolist())

    return near


def without_folder(localizer: Localizer) -> LeaveOut:
    """Leave out the gallery places whose files lie in the image's folder: a floor, a building, a day."""
    rows: dict[PurePosixPath, set[int]] = {}
    for row, place in enumerate(localizer.gallery.places):
        rows.setdefault(PurePosixPath(place.name).parent, set()).add(row)
    return lambda truth: frozenset(rows.get(PurePosixPath(truth.name).parent, ()))


def without_itself(localizer: Localizer) -> LeaveOut:
    """Leave out the gallery place that is the image itself."""
    rows = {place.name: row for row, place in enumerate(localizer.gallery.places)}
    return lambda truth: frozenset(rows[name] for name in (truth.name,) if name in rows)


def _answer(
    localizer: Localizer,
    query: Query,
    truth: Place | None,
    without: frozenset[int],
    correct_within_m: float,
    near: Near | None = None,
) -> Iterator[Sample]:
    """Yield the answer that a gallery without some of its places would give; none without candidates."""
    wanted = localizer.config.retrieval.candidates
    enough = RetrievalConfig(candidates=min(wanted + len(without), 1000))
    found = localizer.gallery.search(query.descriptor, enough, near)
    ranked = localizer.reranker(query, [c for c in found if c.index not in without][:wanted])
    verified = localizer.verifier(query, ranked)
    if not verified:
        return
    config = localizer.config.position
    evidence = gather_evidence(verified, config.cluster_radius_m)
    centre, scatter, _ = locate(evidence, config.estimate)
    if truth is None:
        yield Sample(
            evidence, math.inf, np.full(2, math.nan), scatter, correct_within_m, localizer.gallery.spacing_m
        )
        return
    best = verified[0].place
    enu = localizer.gallery.frame.to_enu(
        np.array([best.latitude_deg, truth.latitude_deg]),
        np.array([best.longitude_deg, truth.longitude_deg]),
        np.zeros(2),
    )
    error = enu[0, :2] + centre - enu[1, :2]
    yield Sample(evidence, float(np.hypot(*error)), error, scatter, correct_within_m, localizer.gallery.spacing_m)
