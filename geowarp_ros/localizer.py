"""The localizer: one camera image in, a position or an honest "no" out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from geowarp_ros.config import LocalizerConfig
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.images import check_image
from geowarp_ros.integrity.calibration import (
    CALIBRATION_FILE,
    Calibration,
    beside_model,
    load_calibration,
    settings_of,
)
from geowarp_ros.integrity.evidence import gather_evidence
from geowarp_ros.integrity.texture import refuse_textureless
from geowarp_ros.integrity.verification import build_verifier
from geowarp_ros.model.checkpoints import DEFAULT_MODEL, load_model
from geowarp_ros.model.describer import Describer, Query, choose_device
from geowarp_ros.motion.pace import Pace
from geowarp_ros.motion.tracking import build_tracker
from geowarp_ros.position import estimate_position
from geowarp_ros.rerank import SECOND_SEARCHES, Reranker, build_reranker
from geowarp_ros.types import Candidate, Fix, Frame, Image, Near, NoFix

_log = logging.getLogger(__name__)


class Localizer:
    """Retrieval, re-ranking, position: the paper's pipeline over one gallery.

    Remembers earlier frames only where tracking is on; not thread-safe.
    """

    def __init__(
        self,
        describer: Describer,
        gallery: Gallery,
        reranker: Reranker,
        config: LocalizerConfig,
        calibrations: Sequence[Calibration] = (),
    ) -> None:
        self.describer = describer
        self.gallery = gallery
        self.reranker = reranker
        self.verifier = build_verifier(config, gallery)
        self.config = config
        self.calibrations = calibrations
        self.calibration = _applicable(calibrations, config, describer, gallery)
        self.tracker = build_tracker(config.tracking, gallery.positions_enu, config.position.cluster_radius_m)
        self.pace = Pace(None if config.rerank.method in SECOND_SEARCHES else config.rerank.candidates)

    @classmethod
    def open(
        cls, gallery: Path, config: LocalizerConfig | None = None, describer: Describer | None = None
    ) -> Localizer:
        """Load model and gallery and put them together.

        Args:
            gallery: Its folder.
            config: All settings; None: the defaults.
            describer: The model where it is loaded already; None: what ``config`` names.

        Raises:
            ModelError: The model file is missing, truncated or foreign, or CUDA is asked for and absent.
            GalleryError: The gallery is missing, truncated, or was made by another model.
        """
        config = config or LocalizerConfig()
        describer = describer or open_describer(config)
        opened = Gallery.open(gallery, describer.device)
        opened.check_model(describer.fingerprint)
        reranker = build_reranker(config, opened, describer)
        model_path = DEFAULT_MODEL if config.model == "default" else Path(config.model)
        found = [load_calibration(path) for path in (Path(gallery) / CALIBRATION_FILE, beside_model(model_path))]
        return cls(describer, opened, reranker, config, [c for c in found if c])

    def localize(
        self,
        frame: Frame,
        near: Near | None = None,
        travelled_m: float | None = None,
        deadline_s: float | None = None,
    ) -> Fix | NoFix:
        """Say where an image was taken.

        Args:
            frame: (H, W, 3) uint8 RGB and its stamp.
            near: A prior that limits the search; where nothing in its circle convinces, the whole gallery is
                searched. None: the whole gallery.
            travelled_m: Path length since the frame before, by odometry; None where there is none.
            deadline_s: By ``time.monotonic``; fewer candidates are re-ranked where the answer would come later.

        Returns:
            A Fix, or a NoFix with its reason; both with candidates, the frame's stamp, the circle in which they
            were found and the time of each stage.

        Raises:
            ImageError: The image is no camera picture (empty, absurd size, wrong type).
        """
        clock = _StageClock()
        image = check_image(frame.image, "frame")
        with clock("texture"):
            refusal = refuse_textureless(image, self.config.position)
        answer = refusal or self._answer(image, near, deadline_s, clock)
        answer = replace(answer, stamp_ns=frame.stamp_ns, frame_id=frame.frame_id, timing_ms=clock.timing_ms)
        return self.tracker(answer, travelled_m)

    @property
    def caution(self) -> str:
        """What slows it down, for people: CUDA memory that is short; empty if nothing."""
        return self.describer.passes.caution

    def _answer(
        self, image: Image, near: Near | None, deadline_s: float | None, clock: _StageClock
    ) -> Fix | NoFix:
        with clock("describe"):
            query = self.describer(image)
        answer = self._compare(query, near, deadline_s, clock)
        if near is not None and not self._convinces(answer):
            answer = self._compare(query, None, deadline_s, clock)
        return answer

    def _compare(
        self, query: Query, near: Near | None, deadline_s: float | None, clock: _StageClock
    ) -> Fix | NoFix:
        with clock("search"):
            candidates = self.gallery.search(query.descriptor, self.config.retrieval, near)
        with clock("rerank"):
            ranked = self.pace(self.reranker, query, candidates, deadline_s)
        with self.pace.afterwards():
            with clock("verify"):
                verified = self.verifier(query, ranked)
            with clock("position"):
                answer = estimate_position(verified, self.config.position, self.calibration)
        return replace(answer, near=near)

    def _convinces(self, answer: Fix | NoFix) -> bool:
        """A fix that some place contradicts: where a circle holds one place only, any image would be of it."""
        radius_m = self.config.position.cluster_radius_m
        return isinstance(answer, Fix) and gather_evidence(answer.candidates, radius_m).contrasted

    def reconfigured(self, config: LocalizerConfig) -> Localizer:
        """Return a localizer over the same model and gallery with other settings; what these leave is kept."""
        again = config.rerank == self.config.rerank
        reranker = self.reranker if again else build_reranker(config, self.gallery, self.describer)
        changed = Localizer(self.describer, self.gallery, reranker, config, self.calibrations)
        if again:
            changed.pace = self.pace
        if _tracking(config) == _tracking(self.config):
            changed.tracker = self.tracker
        return changed

    def warm_up(self) -> None:
        """Localise coloured blocks, so that the first real image does not pay for lazy initialisation."""
        blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
        self.localize(Frame(np.kron(blocks, np.ones((40, 40, 1), np.uint8))))
        self.tracker.reset()
        self.pace.forget()


def open_describer(config: LocalizerConfig) -> Describer:
    """Load the model that the configuration names, on its device.

    Raises:
        ModelError: The file is missing, truncated or foreign, or CUDA is asked for and absent.
    """
    device = choose_device(config.device)
    return Describer(load_model(config.model, device), device, config.precision)


def _tracking(config: LocalizerConfig) -> tuple[object, ...]:
    return config.tracking, config.position.cluster_radius_m


def _applicable(
    calibrations: Sequence[Calibration], config: LocalizerConfig, describer: Describer, gallery: Gallery
) -> Calibration | None:
    """Return the first calibration that was measured with these settings; say of each other one why it was not."""
    here = settings_of(config, describer.fingerprint)
    for calibration in calibrations:
        measured = calibration.measured_with
        other = [f"{k} = {v!r} (now {here.get(k)!r})" for k, v in measured.items() if here.get(k) != v]
        if not other:
            return calibration.at_spacing(gallery.spacing_m)
        _log.warning("%s is not used: it was measured with %s", calibration.title, ", ".join(other))
    return None


class _StageClock:
    """Collects the duration of each stage in milliseconds, by the monotonic clock."""

    def __init__(self) -> None:
        self.timing_ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        passed_ms = (time.perf_counter() - start) * 1e3
        self.timing_ms[stage] = self.timing_ms.get(stage, 0.0) + passed_ms  # a second search counts, too


def answer_to_dict(answer: Fix | NoFix, image: str = "") -> dict[str, Any]:
    """Return an answer as JSON-ready values: the form of ``geowarp localize --json`` and of ``~/localize``.

    Keys: image, status (fix | no_fix), reason, detail, latitude, longitude, altitude, covariance (9 values
    row-major, m²), confidence, candidates (path, latitude, longitude, altitude, distance, score), near (latitude,
    longitude, radius_m of the circle searched, else null), timing_ms. What a NoFix lacks is null.
    """
    fix = answer if isinstance(answer, Fix) else None
    near = answer.near
    return {
        "image": image,
        "status": "fix" if fix else "no_fix",
        "reason": None if isinstance(answer, Fix) else answer.reason,
        "detail": None if isinstance(answer, Fix) else answer.detail,
        "latitude": fix.latitude_deg if fix else None,
        "longitude": fix.longitude_deg if fix else None,
        "altitude": fix.altitude_m if fix else None,
        "covariance": [float(value) for value in fix.covariance.flat] if fix else None,
        "confidence": answer.confidence,
        "candidates": [_candidate_to_dict(candidate) for candidate in answer.candidates],
        "near": None if near is None else _near_to_dict(near),
        "timing_ms": {stage: round(value, 3) for stage, value in answer.timing_ms.items()},
    }


def _near_to_dict(near: Near) -> dict[str, float]:
    return {"latitude": near.latitude_deg, "longitude": near.longitude_deg, "radius_m": near.radius_m}


def _candidate_to_dict(candidate: Candidate) -> dict[str, Any]:
    altitude = candidate.place.altitude_m
    return {
        "path": candidate.place.name,
        "latitude": candidate.place.latitude_deg,
        "longitude": candidate.place.longitude_deg,
        "altitude": None if math.isnan(altitude) else altitude,
        "distance": candidate.distance,
        "score": candidate.score,
    }
