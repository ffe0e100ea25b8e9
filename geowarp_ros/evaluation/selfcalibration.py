"""What a gallery's own photographs say of its look-alikes, and what a robot may make of it that stays inside.

Each is asked about with everything around its place left out, so that every answer is wrong. How many of these
look right tells how far the calibration beside the model holds here: it was made to hold where look-alikes abound.
What lies outside the gallery they cannot know, such as the other floors of a building: less confidence is demanded
only for a robot that never leaves what the gallery shows. Right answers of the gallery itself tell nothing: most
places were passed once, and what was taken a moment later is no revisit. The answers are kept beside the gallery,
so that a stopped run goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geowarp_ros.config import LocalizerConfig
from geowarp_ros.errors import GalleryError
from geowarp_ros.evaluation.asking import Asked, Question, ask, way, without_places_within
from geowarp_ros.evaluation.fixes import Share, share
from geowarp_ros.gallery.making.segment import Journal
from geowarp_ros.gallery.manifest import CALIBRATION, writing
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.integrity.calibration import (
    LOOKS_ALIKE,
    Calibration,
    OwnPlace,
    load_calibration,
    models_calibration,
    photographs_in,
    save_calibration,
    settings_of,
)
from geowarp_ros.localizer import Localizer
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.installed import find_weights
from geowarp_ros.progress import Progress, silent
from geowarp_ros.types import Fix

ANSWERS = "own_photographs"
"""Folder in the gallery's: what was asked, and an answer a line."""

PHOTOGRAPHS = 200
"""Number of photographs asked about: a minute, and of 200 without a look-alike under 2 % have one."""

WITHIN_M = 25.0
"""Error limit of a right answer (m); places within twice this are left out."""


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """What was answered to a photograph of the gallery whose place was left out.

    Attributes:
        name: The photograph.
        like: The place found for it; empty where nothing is left, or the photograph shows nothing.
        apart_m: How far that is from where it was taken; 0 likewise.
        confidence: That the place is right, by the calibration beside the model.
        fix: Whether a wrong position would have been published.
    """

    name: str
    like: str = ""
    apart_m: float = 0.0
    confidence: float = 0.0
    fix: bool = False

    @property
    def alike(self) -> bool:
        """Whether the photograph looks like that place."""
        return self.confidence >= LOOKS_ALIKE


@dataclass(frozen=True, slots=True)
class SelfCalibrated:
    """What the gallery's own photographs said.

    Attributes:
        calibration: For a robot that never leaves what the gallery shows; None where there is none.
        obstacle: Why there is none, or empty.
        answers: To the photographs asked about.
    """

    calibration: Calibration | None
    obstacle: str = ""
    answers: tuple[OwnAnswer, ...] = ()

    @property
    def look_alikes(self) -> list[OwnAnswer]:
        """Photographs that look like another place, the most convincing first."""
        return sorted((a for a in self.answers if a.alike), key=lambda a: -a.confidence)

    @property
    def share(self) -> Share:
        """Share of those among the photographs for which another place was left, with its interval."""
        return _alike(self.answers)


def self_calibrate(
    gallery: Gallery,
    describer: Describer,
    config: LocalizerConfig,
    progress: Progress = silent,
    *,
    store: bool = False,
    photographs: int = PHOTOGRAPHS,
    within_m: float = WITHIN_M,
    seed: int = 0,
) -> SelfCalibrated:
    """Ask about a gallery's own photographs.

    Args:
        gallery: The gallery.
        describer: The model that made it.
        config: Settings to calibrate for.
        progress: Shows the photographs.
        store: Store the calibration with the gallery: the robot never leaves what it shows.
        photographs: How many are asked about, drawn at random; a smaller gallery's all.
        within_m: Error limit of a right answer (m).
        seed: Seed of the draw.

    Raises:
        GalleryError: It is to be stored and a drive calibrated the gallery, which says more; another process
            writes to it; one of its images is absent or broken; or the disk refuses.
    """
    if store:
        _refuse_drives(gallery.path)
    stored = gallery.keypoint_config
    model = describer.model.file or find_weights(config.model)
    base, obstacle = models_calibration(config, describer.fingerprint, stored, model)
    if base is None:
        return SelfCalibrated(None, obstacle)
    localizer = Localizer.of(describer, gallery, config, calibrated=False)
    localizer.calibration = base.at_spacing(gallery.spacing_m)
    with writing(gallery.path):
        here = photographs_in(gallery.path)
        rows = np.random.default_rng(seed).permutation(len(gallery))[:photographs].tolist()
        measured_with = settings_of(config, describer.fingerprint, stored)
        asked = {"photographs": here, "base": _digest(base), "within_m": within_m, **measured_with}
        answers = _answers(localizer, rows, asked, within_m, progress)
        most = _alike(answers)
        if not most.of:
            return SelfCalibrated(None, "none of its photographs is far enough from all others", answers)
        fixes = sum(answer.fix for answer in answers)
        own = OwnPlace(photographs=here, asked=most.of, alike=most.count, fixes=fixes, before=base.min_confidence)
        calibration = base.at_place(own, most.high)
        if store:
            save_calibration(gallery.path / CALIBRATION, calibration)
    return SelfCalibrated(calibration, "", answers)


def _alike(answers: Sequence[OwnAnswer]) -> Share:
    return share(np.array([answer.alike for answer in answers if answer.like], bool))


def _refuse_drives(gallery: Path) -> None:
    before = load_calibration(gallery / CALIBRATION)
    if before is not None and before.own is None:
        raise GalleryError(
            f"{gallery / CALIBRATION}: was measured on a drive, which says more than the gallery's own"
            " photographs; delete it to calibrate by them"
        )


def _digest(base: Calibration) -> str:
    return hashlib.blake2b(base.model_dump_json().encode(), digest_size=16).hexdigest()


def _answers(
    localizer: Localizer,
    rows: list[int],
    asked: dict[str, Any],
    within_m: float,
    progress: Progress,
) -> tuple[OwnAnswer, ...]:
    """Return an answer for each row; those that an earlier run kept are not asked for again."""
    gallery, folder = localizer.gallery, localizer.gallery.path / ANSWERS
    try:
        folder.mkdir(exist_ok=True)
        kept: dict[str, OwnAnswer] = {}

        def take(entry: Mapping[str, Any]) -> bool:
            answer = OwnAnswer(**entry)
            kept[answer.name] = answer
            return True

        journal = Journal(folder)
        journal.start(asked, take)
        elsewhere = way(localizer, without_places_within(gallery, 2 * within_m))
        questions = [question for row in rows if (question := _question(gallery, row)).name not in kept]
        label = "asking about the gallery's own photographs"
        for one in ask(
            localizer.describer,
            questions,
            (elsewhere,),
            refuse=localizer.config.position,
            progress=progress,
            label=label,
        ):
            answer = _answer(localizer, one, within_m)
            kept[answer.name] = answer
            journal.append(asdict(answer))
    except OSError as error:
        raise GalleryError(f"{folder}: cannot be written: {error.strerror}; a second run goes on") from None
    return tuple(kept[gallery.places[row].name] for row in rows)


def _question(gallery: Gallery, row: int) -> Question:
    place, camera = gallery.places[row], gallery.camera(row)
    return Question(place.name, lambda: gallery.image(row), place, lambda width_px, height_px: camera)


def _answer(localizer: Localizer, one: Asked, within_m: float) -> OwnAnswer:
    """Return what was found for a photograph, and whether it would have been a fix at a wrong position."""
    (ranked,) = one.ranked or (None,)
    truth, calibration = one.question.truth, localizer.calibration
    if ranked is None or ranked.evidence is None or truth is None or calibration is None:
        return OwnAnswer(one.question.name)
    best, result = ranked.candidates[0].place, localizer.judge(ranked)
    there = LocalFrame(truth.latitude_deg, truth.longitude_deg)

    def apart_m(latitude_deg: float, longitude_deg: float) -> float:
        return float(np.hypot(*there.to_enu(latitude_deg, longitude_deg, 0.0)[:2]))

    return OwnAnswer(
        one.question.name,
        best.name,
        apart_m(best.latitude_deg, best.longitude_deg),
        calibration.confidence(ranked.evidence),
        isinstance(result, Fix) and apart_m(result.latitude_deg, result.longitude_deg) > within_m,
    )
