"""The localizer: one camera image in, a position or an honest "no" out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geowarp_ros.cameras import Camera
from geowarp_ros.config import LocalizerConfig, PoseConfig, PositionConfig
from geowarp_ros.errors import CameraError
from geowarp_ros.gallery.store import Gallery, own_model
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.images import check_image, image_of
from geowarp_ros.integrity.calibration import Calibration, find_calibration, keypoints_used, settings_of
from geowarp_ros.integrity.evidence import gather_evidence
from geowarp_ros.integrity.texture import refuse_textureless
from geowarp_ros.integrity.verification import Verifier, build_verifier
from geowarp_ros.model.describer import Describer, Query, choose_device, open_describer
from geowarp_ros.model.installed import OWN, find_weights
from geowarp_ros.model.learned import load_keypoints
from geowarp_ros.pose import estimate_pose
from geowarp_ros.position import estimate_position
from geowarp_ros.rerank import Reranker, build_reranker
from geowarp_ros.rerank.verification import NO_POINTS, matched_pair, pairing_of
from geowarp_ros.types import (
    Answer,
    Candidate,
    Deadline,
    Evidence,
    Fix,
    Frame,
    Header,
    Image,
    Near,
    NoDeadline,
    NoFix,
    Pair,
    Pose,
    PoseMethod,
)

if TYPE_CHECKING:
    from PIL import Image as Pillow

_log = logging.getLogger(__name__)

NO_DEADLINE = NoDeadline()


@dataclass(frozen=True, slots=True)
class Ranked:
    """What the gallery has to say about one query.

    Attributes:
        candidates: Best first.
        evidence: What they say about the best one's position; None without candidates.
        pose: The camera's pose by its matches with them, trusted or not; None where they do not give one.
        camera: The camera model that it rests on; None without one.
        reranked: How many were handed to the re-ranker.
        timing_ms: Duration of each stage, ms.
        dropped: What there was no time for, see :class:`Header`.
    """

    candidates: tuple[Candidate, ...]
    evidence: Evidence | None
    reranked: int
    timing_ms: dict[str, float]
    pose: Pose | None = None
    camera: Camera | None = None
    dropped: tuple[str, ...] = ()


class Localizer:
    """Retrieval, re-ranking, verification, position: the paper's pipeline over one gallery.

    Remembers nothing of earlier images: :class:`geowarp_ros.motion.session.Session` does.

    Args:
        describer: The model.
        gallery: Made by that model.
        reranker: Scores the first candidates.
        verifier: Counts keypoint matches.
        config: All settings.
        calibration: Measured with these settings; None: a rule of thumb decides.

    Attributes:
        enu: Local frame of the poses.
    """

    def __init__(
        self,
        describer: Describer,
        gallery: Gallery,
        reranker: Reranker,
        verifier: Verifier,
        config: LocalizerConfig,
        calibration: Calibration | None = None,
    ) -> None:
        self.describer = describer
        self.gallery = gallery
        self.reranker = reranker
        self.verifier = verifier
        self.config = config
        self.calibration = calibration
        alignment, stored = gallery.alignment, gallery.keypoint_config
        self._keypoints = stored if alignment is not None else keypoints_used(config, stored)
        self._pairing = None if alignment is None else pairing_of(gallery, config)
        self.enu = gallery.frame if alignment is None else LocalFrame(*alignment.datum)

    @classmethod
    def open(
        cls,
        gallery: Path | str,
        config: LocalizerConfig | None = None,
        describer: Describer | None = None,
        *,
        calibrated: bool = True,
    ) -> Localizer:
        """Load model and gallery and put them together.

        Args:
            gallery: Its folder.
            config: All settings; None: the defaults.
            describer: The model if it is loaded already; None: the one that ``config`` names, by default that
                which made the gallery.
            calibrated: Use a calibration; False to measure a new one.

        Raises:
            ModelError: The model file is missing, truncated or foreign, or CUDA is asked for and absent.
            GalleryError: The gallery is missing, truncated, or was made by another model.
        """
        config = config or LocalizerConfig()
        describer = describer or open_describer(of_gallery(config, Path(gallery)))
        opened = Gallery.open(gallery, describer.device)
        opened.check_model(describer.fingerprint, config.model)
        return cls.of(describer, opened, config, calibrated=calibrated)

    @classmethod
    def of(
        cls, describer: Describer, gallery: Gallery, config: LocalizerConfig, *, calibrated: bool = True
    ) -> Localizer:
        """Put an open model and an open gallery together as the settings say.

        Raises:
            ModelError: The re-ranker needs a warping regression and the model has none.
            GalleryError: A calibration cannot be read, or the weights are not those of the gallery's keypoints.
        """
        if (stored := gallery.keypoint_config) is not None and stored.kind != "sift":
            weights = load_keypoints(stored.kind, config.keypoint_weights, choose_device(config.device))
            gallery.check_keypoints(stored.kind, weights)
        return cls(
            describer,
            gallery,
            build_reranker(config, gallery, describer),
            build_verifier(config, gallery),
            config,
            _calibration(config, describer, gallery) if calibrated else None,
        )

    def localize(
        self,
        frame: Frame | Image | Path | str | Pillow.Image,
        near: Near | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Answer:
        """Say where an image was taken.

        Args:
            frame: A frame, an RGB image (H, W, 3) uint8, a PIL image, or the path of an image file, whose camera
                is that of ``camera.yaml`` beside or above it, else of its EXIF.
            near: A prior that limits the search; if nothing in its circle convinces, the whole gallery is
                searched. None: the whole gallery.
            deadline: What there is time for.

        Raises:
            ImageError: The image is no camera picture (empty, absurd size, wrong type).
            CameraError: The file's calibration is none, or of another camera.
        """
        if isinstance(frame, str | Path):
            from geowarp_ros.readers.camera_files import frame_of_file  # brings rosbags: not at start

            frame = frame_of_file(Path(frame))
        elif not isinstance(frame, Frame):
            frame = Frame(image_of(frame))
        image = check_image(frame.image, "frame")
        clock = StageClock()
        with clock("texture"):
            refusal = refuse_textureless(image, self.config.position)
        if refusal is not None:
            return Answer(Header(frame.stamp_ns, frame.frame_id, timing_ms=clock.timing_ms), refusal)
        with clock("describe"):
            query = replace(self.describer(image, frame.camera), gravity=frame.gravity)
        ranked = self.rank(query, near, deadline=deadline)
        result, reranked, dropped = self.judge(ranked), ranked.reranked, ranked.dropped
        if near is not None and not _convinces(ranked, result):
            clock.add(ranked.timing_ms)
            near, ranked = None, self.rank(query, deadline=deadline)
            result, reranked = self.judge(ranked), reranked + ranked.reranked
            dropped = tuple(dict.fromkeys(dropped + ranked.dropped))
        clock.add(ranked.timing_ms)
        camera = ranked.camera.source or "given" if ranked.camera else ""
        header = Header(frame.stamp_ns, frame.frame_id, near, reranked, clock.timing_ms, camera, dropped)
        return Answer(header, result, ranked.candidates, ranked.evidence, ranked.pose, self._pair(query, ranked))

    def rank(
        self,
        query: Query,
        near: Near | None = None,
        without: Collection[int] = (),
        deadline: Deadline = NO_DEADLINE,
    ) -> Ranked:
        """Search the gallery, re-rank and verify the first candidates, estimate the pose, gather the evidence.

        Args:
            query: As :attr:`describer` made it.
            near: Search only this circle; None: the whole gallery.
            without: Gallery rows to ignore, for evaluations that leave places out.
            deadline: What there is time for. The pose's later rungs are dropped first, then its earlier ones, then
                candidates but for one. The verification never is: without it nothing can be believed.
        """
        config, clock, dropped = self.config, StageClock(), list[str]()
        with clock("search"):
            found = self.gallery.search(query.descriptor, config.retrieval.candidates, near, without)
        if self._keypoints is not None:
            with clock("keypoints"):
                query.keypoints(self._keypoints)  # kept there for all that match them
        with clock("rerank"):
            affordable = deadline()
            count = config.rerank.candidates if affordable is None else min(affordable, config.rerank.candidates)
            if count < min(len(found), config.rerank.candidates):
                dropped.append("candidates")
            ranked = self.reranker(query, found[:count]) + found[count:]
        with clock("verify"):
            verified = tuple(self.verifier(query, ranked))

        def rung(method: PoseMethod) -> bool:
            if not deadline.affords(method):
                dropped.append(method)
                return False
            if method == "anchors":
                clock.go_on_as("anchors")
            return True

        camera, pose = None, None
        if self.config.position.estimate == "pose" and self.gallery.alignment is not None:
            with clock("pose"):
                camera = self._camera_of(query)
                pose = self._pose(query, camera, verified, rung)
        with clock("position"):
            evidence = gather_evidence(verified, config.position.cluster_radius_m) if verified else None
        return Ranked(
            verified, evidence, min(count, len(found)), clock.timing_ms, pose, camera, tuple(reversed(dropped))
        )

    def _camera_of(self, query: Query) -> Camera | None:
        """Return the query's camera, else the gallery's only one if its images have the query's aspect ratio."""
        if query.camera is not None or self.gallery.only_camera is None:
            return query.camera
        try:
            return self.gallery.only_camera.scaled_to(query.pixels.shape[1], query.pixels.shape[0])
        except CameraError:
            return None

    def _pose(
        self,
        query: Query,
        camera: Camera | None,
        ranked: Sequence[Candidate],
        affords: Callable[[PoseMethod], bool],
    ) -> Pose | None:
        pairing = self._pairing
        assert pairing is not None, "an alignment is made of keypoints"
        config = PoseConfig()
        found = [self.gallery.photograph(candidate.index) for candidate in ranked[: config.photographs]]
        photographs = [photograph for photograph in found if photograph is not None]
        own = query.keypoints(pairing.keypoints)
        return estimate_pose(
            own, camera, photographs, config, gravity=query.gravity, affords=affords,
            compared=lambda photograph: pairing.compared(query, photograph),
        )  # fmt: skip

    def judge(self, ranked: Ranked | Answer, min_confidence: float | None = None) -> Fix | NoFix:
        """Estimate the position and decide whether it is a fix.

        Args:
            ranked: Candidates and evidence.
            min_confidence: Instead of the configured one; 0 gives the position of every answer that has one.
        """
        position = self.config.position
        if min_confidence is not None:
            position = position.model_copy(update={"min_confidence": min_confidence})
        return estimate_position(
            ranked.candidates, ranked.evidence, ranked.pose, self.enu, position, self.calibration
        )

    @property
    def runtime(self) -> str:
        """What the encoder computes with: torch or onnxruntime."""
        return self.describer.runtime

    @property
    def device(self) -> str:
        """What it computes on: cpu or cuda."""
        return str(self.describer.device)

    @property
    def caution(self) -> str:
        """What slows the localizer down, for people: CUDA memory that is short; empty if nothing."""
        return self.describer.passes.caution

    def reconfigured(self, config: LocalizerConfig) -> Localizer:
        """Return a localizer with other settings over the same model and gallery; unaffected parts are kept."""
        position, before = config.position, self.config.position
        reranker, verifier, calibration = self.reranker, self.verifier, self.calibration
        weights = config.matcher_weights != self.config.matcher_weights
        if weights or (config.rerank, position.verification) != (self.config.rerank, before.verification):
            reranker = build_reranker(config, self.gallery, self.describer)
        if weights or _verification(position) != _verification(before):
            verifier = build_verifier(config, self.gallery)
        fingerprint = self.describer.fingerprint
        stored = self.gallery.keypoint_config
        if settings_of(config, fingerprint, stored) != settings_of(self.config, fingerprint, stored):
            calibration = _calibration(config, self.describer, self.gallery)
        return Localizer(self.describer, self.gallery, reranker, verifier, config, calibration)

    def warm_up(self) -> float:
        """Localise coloured blocks, so that the first real image does not pay for lazy initialisation.

        Returns:
            How long an image takes after that (ms).
        """
        blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
        image = np.kron(blocks, np.ones((40, 40, 1), np.uint8))
        self.localize(image)
        begun_s = time.perf_counter()
        self.localize(image)
        return (time.perf_counter() - begun_s) * 1e3

    def _pair(self, query: Query, ranked: Ranked) -> Callable[[], Pair] | None:
        if not ranked.candidates:
            return None
        best, gallery, matcher = ranked.candidates[0].index, self.gallery, self.verifier.matcher
        threshold = self.config.position.verification.threshold_px
        nothing = query.image.new_empty(0)  # who keeps answers keeps pixels and keypoints, half a megabyte each
        kept = replace(query, image=nothing, local_features=nothing, original=None, _prepared={}, _compared={})

        def read() -> Pair:
            images = kept.pixels, gallery.image(best)
            points = NO_POINTS, NO_POINTS
            if matcher is not None:
                (points,) = matcher(kept, [best])
            return matched_pair(*images, points, images, threshold)

        return read


class StageClock:
    """Adds up the duration of each stage.

    Attributes:
        timing_ms: Stage -> ms.
    """

    def __init__(self) -> None:
        self.timing_ms: dict[str, float] = {}
        self._stage, self._began_s = "", 0.0

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what runs within the context."""
        self._stage, self._began_s = stage, time.perf_counter()
        yield
        self.go_on_as("")

    def go_on_as(self, stage: str) -> None:
        """Count what follows within the context as another stage."""
        now_s = time.perf_counter()
        self.add({self._stage: (now_s - self._began_s) * 1e3})
        self._stage, self._began_s = stage, now_s

    def add(self, timing_ms: dict[str, float]) -> None:
        """Add durations: a second search counts, too."""
        for stage, duration_ms in timing_ms.items():
            self.timing_ms[stage] = self.timing_ms.get(stage, 0.0) + duration_ms


def of_gallery(config: LocalizerConfig, gallery: Path) -> LocalizerConfig:
    """Return the settings with the file of a gallery's own model, where that is the one they name.

    Raises:
        GalleryError: There is no gallery, or its model is not where it was.
    """
    return config.model_copy(update={"model": str(own_model(gallery))}) if config.model == OWN else config


def _convinces(ranked: Ranked, result: Fix | NoFix) -> bool:
    """Whether it is a pose, or a fix that some place contradicts: a circle of one place would match any image."""
    contrasted = ranked.evidence is not None and ranked.evidence.contrasted
    return isinstance(result, Fix) and (result.orientation is not None or contrasted)


def _verification(position: PositionConfig) -> tuple[object, ...]:
    return position.verify, position.verify_candidates, position.verification


def _calibration(config: LocalizerConfig, describer: Describer, gallery: Gallery) -> Calibration | None:
    """Return the gallery's calibration, or the model's; say of each one that does not apply why."""
    found, refused = find_calibration(
        config, describer.fingerprint, gallery.keypoint_config, describer.model.file or find_weights(config.model),
        gallery.path, gallery.spacing_m,
    )  # fmt: skip
    for line in refused:
        _log.warning(line)
    return found
