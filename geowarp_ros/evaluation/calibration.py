"""Answers of a localizer to images of known position, from which a calibration is fitted.

A calibration must have seen the localizer lost. Each image is therefore asked twice: as it is, and with every
gallery place near the truth left out, so that the right answer is not there to be found – the hardest off-gallery
images there are: the same town, camera and light. A few plain pictures (black, white, noise, sky) join them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from geowarp_ros.config import PositionConfig, RetrievalConfig
from geowarp_ros.errors import GalleryError, ImageError, SourceError
from geowarp_ros.gallery.readers import SourceImage
from geowarp_ros.integrity.calibration import Calibration, Sample, fit_calibration, save_calibration, settings_of
from geowarp_ros.integrity.evidence import gather_evidence
from geowarp_ros.localizer import Localizer
from geowarp_ros.model.describer import Query
from geowarp_ros.position import locate
from geowarp_ros.progress import Progress, silent
from geowarp_ros.types import Candidate, Image, Place


@dataclass(frozen=True, slots=True)
class Collected:
    """Samples, and the names of images that could not be read."""

    samples: tuple[Sample, ...]
    unreadable: tuple[str, ...]


def calibrate_gallery(
    localizer: Localizer,
    images: Sequence[SourceImage],
    correct_within_m: float = 25.0,
    false_fix_rate: float = 0.01,
    progress: Progress = silent,
) -> tuple[Calibration, dict[str, float], Collected]:
    """Measure a localizer on images of known position and store what was found with its gallery.

    Returns:
        The calibration, what the cross-validation showed (:func:`fit_calibration`), and the samples.

    Raises:
        SourceError: No images, or too few right or wrong answers to tell them apart.
        GalleryError: The gallery is empty, or its folder cannot be written.
    """
    collected = collect_samples(localizer, images, correct_within_m, progress)
    try:
        calibration, summary = fit_calibration(collected.samples, correct_within_m, false_fix_rate)
    except ValueError as error:
        raise SourceError(f"these images cannot calibrate {localizer.gallery.path}: {error}") from None
    measured_with = settings_of(localizer.config, localizer.describer.fingerprint)
    calibration = calibration.model_copy(update={"measured_with": measured_with})
    save_calibration(localizer.gallery.path, calibration)
    return calibration, summary, collected


def collect_samples(
    localizer: Localizer,
    images: Sequence[SourceImage],
    correct_within_m: float,
    progress: Progress = silent,
    seed: int = 0,
) -> Collected:
    """Ask the localizer about each image, with and without its true place in the gallery.

    Raises:
        SourceError: No images.
        GalleryError: The gallery is empty.
    """
    if not images:
        raise SourceError("no images to calibrate with: the source or its split is empty")
    if not len(localizer.gallery):
        raise GalleryError("an empty gallery cannot be calibrated")
    samples: list[Sample] = []
    unreadable: list[str] = []
    shape = (240, 320)
    for item in progress(images, len(images), "calibrate"):
        try:
            image = item.read()
        except ImageError:
            unreadable.append(item.place.name)
            continue
        shape, query = image.shape[:2], localizer.describer(image)
        near = _near(localizer, item.place, 2 * correct_within_m)
        for candidates in (_search(localizer, query, frozenset()), _search(localizer, query, near)):
            if candidates:
                samples.append(_sample(localizer, query, candidates, item.place))
    for plain in plain_images(*shape, seed):
        query = localizer.describer(plain)
        samples.append(_sample(localizer, query, _search(localizer, query, frozenset()), None))
    return Collected(tuple(samples), tuple(unreadable))


def plain_images(height: int, width: int, seed: int = 0) -> Iterator[Image]:
    """Pictures of no place, (height, width, 3): black, white and between, noise, smooth skies."""
    rng = np.random.default_rng(seed)
    for level in (0, 40, 128, 255):
        yield np.full((height, width, 3), level, np.uint8)
    for contrast in (8, 40, 128):
        noise = rng.normal(128, contrast, (height, width, 3))
        yield np.clip(noise, 0, 255).astype(np.uint8)
    ramp = np.linspace(0, 1, height)[:, None, None]
    for _ in range(4):
        top, bottom = rng.uniform(60, 255, (2, 3))
        yield np.broadcast_to(top * (1 - ramp) + bottom * ramp, (height, width, 3)).astype(np.uint8)


def _near(localizer: Localizer, truth: Place, radius_m: float) -> frozenset[int]:
    """Rows of the gallery places within ``radius_m`` of the truth."""
    gallery = localizer.gallery
    here = gallery.frame.to_enu(np.array([truth.latitude_deg]), np.array([truth.longitude_deg]), np.zeros(1))
    offsets = gallery.positions_enu[:, :2] - here[0, :2]
    return frozenset(np.flatnonzero(np.hypot(offsets[:, 0], offsets[:, 1]) <= radius_m).tolist())


def _search(localizer: Localizer, query: Query, without: frozenset[int]) -> list[Candidate]:
    """Candidates as the localizer would rank them in a gallery that lacks some places."""
    wanted = localizer.config.retrieval.candidates
    enough = RetrievalConfig(candidates=min(wanted + len(without), 1000))
    found = localizer.gallery.search(query.descriptor, enough)
    return localizer.reranker(query, [c for c in found if c.index not in without][:wanted])


def _sample(localizer: Localizer, query: Query, candidates: list[Candidate], truth: Place | None) -> Sample:
    config: PositionConfig = localizer.config.position
    evidence = gather_evidence(candidates, config.cluster_radius_m)
    centre, scatter, _ = locate(evidence, config.estimate)
    if truth is None:
        return Sample(evidence, np.inf, np.full(2, np.nan), scatter)
    frame = localizer.gallery.frame
    places = (candidates[0].place, truth)
    enu = frame.to_enu(
        np.array([p.latitude_deg for p in places]), np.array([p.longitude_deg for p in places]), np.zeros(2)
    )
    error = enu[0, :2] + centre - enu[1, :2]
    return Sample(evidence, float(np.hypot(*error)), error, scatter)
