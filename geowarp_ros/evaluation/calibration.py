"""Answers of a localizer to images of known position, from which a calibration is fitted.

A calibration needs right and wrong answers. Each image is therefore asked about twice: as it is, and with every
gallery place near the truth left out, so that no answer is right. These are the hardest images of a place that is
not in the gallery: town, camera and light are the same. A few plain pictures (black, noise, sky) join them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from geowarp_ros.errors import GalleryError, SourceError
from geowarp_ros.evaluation.asking import Question, Way, ask, is_in_gallery, sample_of, way, without_places_within
from geowarp_ros.evaluation.plain import plain_pictures
from geowarp_ros.gallery.manifest import CALIBRATION
from geowarp_ros.integrity.calibration import (
    Calibration,
    Sample,
    fit_calibration,
    save_calibration,
    settings_of,
)
from geowarp_ros.localizer import Localizer
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import SourceImage


@dataclass(frozen=True, slots=True)
class Collected:
    """Answers of a localizer.

    Attributes:
        samples: The answers.
        textureless: Number of images refused for lack of texture, before any search.
        unreadable: Names of images that could not be decoded.
        stages_ms: Of each answer, how long each stage took, ms.
        themselves: Number of answers to images that are in the gallery themselves.
    """

    samples: tuple[Sample, ...]
    textureless: int = 0
    unreadable: tuple[str, ...] = ()
    stages_ms: tuple[Mapping[str, float], ...] = ()
    themselves: int = 0

    def __add__(self, other: Collected) -> Collected:
        """Return both together."""
        textureless, unreadable = self.textureless + other.textureless, self.unreadable + other.unreadable
        return Collected(
            self.samples + other.samples,
            textureless,
            unreadable,
            self.stages_ms + other.stages_ms,
            self.themselves + other.themselves,
        )


def calibrate_gallery(
    localizer: Localizer,
    images: Sequence[SourceImage],
    correct_within_m: float = 25.0,
    false_fix_rate: float = 0.01,
    progress: Progress = silent,
) -> tuple[Calibration, dict[str, float], Collected]:
    """Measure a localizer on images of known position and store the calibration with its gallery.

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
    measured_with = settings_of(
        localizer.config, localizer.describer.fingerprint, localizer.gallery.keypoint_config
    )
    calibration = calibration.model_copy(update={"measured_with": measured_with})
    save_calibration(localizer.gallery.path / CALIBRATION, calibration)
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
    if not images:
        raise SourceError("no images to calibrate with: the source or its split is empty")
    whole, far = way(localizer), way(localizer, without_places_within(localizer.gallery, 2 * correct_within_m))
    questions = [Question.of(image) for image in images]
    as_it_is, without_place = collect(localizer, questions, (whole, far), correct_within_m, progress)
    (plain,) = collect(localizer, plain_questions(seed), (whole,), correct_within_m)
    return Collected(
        as_it_is.samples + without_place.samples + plain.samples,
        as_it_is.textureless + plain.textureless,
        as_it_is.unreadable,
        themselves=as_it_is.themselves,
    )


def plain_questions(seed: int = 0) -> list[Question]:
    """Return questions about pictures that show no place."""
    return [Question(kind, lambda p=picture: p) for kind, picture in plain_pictures(240, 320, seed)]  # type: ignore[misc]


def collect(
    localizer: Localizer,
    questions: Sequence[Question],
    ways: Sequence[Way],
    correct_within_m: float,
    progress: Progress = silent,
) -> list[Collected]:
    """Ask each question in each way.

    Returns:
        The answers, one element for each of ``ways``.

    Raises:
        GalleryError: The gallery is empty.
    """
    if not len(localizer.gallery):
        raise GalleryError("an empty gallery cannot be calibrated")
    samples: list[list[Sample]] = [[] for _ in ways]
    stages: list[list[Mapping[str, float]]] = [[] for _ in ways]
    themselves = [0] * len(ways)
    textureless, unreadable = 0, []
    for asked in ask(localizer.describer, questions, ways, refuse=localizer.config.position, progress=progress):
        textureless += asked.refusal == "no_texture"
        unreadable += [asked.question.name] if asked.refusal == "unreadable" else []
        truth = asked.question.truth
        for number, (ranked, found, took) in enumerate(zip(asked.ranked, samples, stages, strict=False)):
            sample = sample_of(localizer, ranked, truth, correct_within_m)
            themselves[number] += truth is not None and is_in_gallery(
                ranked.candidates, truth.latitude_deg, truth.longitude_deg
            )
            found += [] if sample is None else [sample]
            took.append(ranked.timing_ms)
    return [
        Collected(tuple(found), textureless, tuple(unreadable), tuple(took), same)
        for found, took, same in zip(samples, stages, themselves, strict=True)
    ]
