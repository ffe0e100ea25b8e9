"""Geometric verification: match points, fit a homography, count those that obey it.

InLoc's dense verification (Taira et al., CVPR 2018) and the spatial verification of DELG (Cao et al., ECCV 2020),
with keypoints of SIFT (Lowe, IJCV 2004), ORB (Rublee et al., ICCV 2011) or networks
(:mod:`geowarp_ros.keypoints.learned`), matched by nearest neighbours or by a network
(:mod:`geowarp_ros.model.learned`); the homography by MAGSAC++ (Barath et al., CVPR 2020) as OpenCV has it.

One rule for where a gallery's keypoints come from: those that it stores are matched, and a gallery that stores
another kind, or lacks a network's, is refused. SIFT's, where it stores none, and ORB's are detected in its images;
LoFTR has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.config import LocalizerConfig, VerificationConfig
from geowarp_ros.errors import GalleryError
from geowarp_ros.files import quoted
from geowarp_ros.gallery.alignment.aligned import LOCATED, RAYLESS, SEEN, Photograph
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.keypoints.detector import KeypointConfig, Keypoints, Kind
from geowarp_ros.keypoints.matching import STRONGEST, Compared, Pairs, match
from geowarp_ros.model.describer import Query
from geowarp_ros.rerank.order import best_first
from geowarp_ros.types import Candidate, Image, Pair

Points: TypeAlias = NDArray[np.float32]
"""(N, 2), (x, y)."""

NO_POINTS: Points = np.empty((0, 2), np.float32)


class Matcher(Protocol):
    """Finds points of the query in gallery images."""

    def __call__(self, query: Query, indices: Sequence[int], /) -> Iterator[tuple[Points, Points]]:
        """Yield for each gallery row the matched points of the query and of the place, row by row."""


class VerifiedReranker:
    """Sorts candidates by the number of matches that obey one homography.

    Args:
        matcher: Finds the matches.
        threshold: Maximum reprojection error of an inlier, in the matcher's unit.
    """

    def __init__(self, matcher: Matcher, threshold: float) -> None:
        self._matcher = matcher
        self._threshold = threshold

    def __call__(self, query: Query, head: Sequence[Candidate], /) -> list[Candidate]:
        """Return the candidates with the number of inliers as score, best first; ties keep retrieval's order."""
        counts = inliers_of(self._matcher, query, head, self._threshold)
        return best_first(
            replace(c, score=float(n), score_unit="inliers", inliers=n) for c, n in zip(head, counts, strict=True)
        )


def inliers_of(matcher: Matcher, query: Query, candidates: Sequence[Candidate], threshold: float) -> list[int]:
    """Count for each candidate the matches with the query that obey one homography."""
    matches = matcher(query, [candidate.index for candidate in candidates])
    return [count_inliers(points_q, points_p, threshold) for points_q, points_p in matches]


def count_inliers(points_q: Points, points_p: Points, threshold: float) -> int:
    """Count the matches that obey the best homography; 0 with fewer than the four points that determine one."""
    return int(obeying(points_q, points_p, threshold).sum())


def obeying(points_q: Points, points_p: Points, threshold: float) -> NDArray[np.bool_]:
    """Return which matches (N,) obey the best homography."""
    none = np.zeros(len(points_q), np.bool_)
    if len(points_q) < 4:
        return none
    try:
        _, mask = cv2.findHomography(points_p, points_q, cv2.USAC_MAGSAC, threshold, None, 10_000, 0.999)
    except cv2.error:  # OpenCV's, where every sample that it draws is degenerate; seen with fundamental matrices
        return none
    return none if mask is None else mask.ravel().astype(np.bool_)


def matched_pair(
    query: Image, candidate: Image, points: tuple[Points, Points], sizes: tuple[Image, Image], threshold: float
) -> Pair:
    """Return two images with those of their matched keypoints that obey the best homography.

    Args:
        query: The query, of any size.
        candidate: The candidate likewise.
        points: Matched keypoints of both, row by row.
        sizes: The images in whose pixels the keypoints are.
        threshold: Maximum reprojection error of an inlier (px).
    """
    agree = obeying(*points, threshold)
    points_q, points_p = (
        (side[agree] + 0.5) * 2 / (image.shape[1], image.shape[0]) - 1
        for side, image in zip(points, sizes, strict=True)
    )
    return Pair(query, candidate, points_q, points_p, len(agree))


KIND_OF: dict[str, Kind] = {
    **{kind: kind for kind in get_args(Kind)},
    "xfeat-lighterglue": "xfeat",
    "aliked-lightglue": "aliked",
    "disk-lightglue": "disk",
}
"""Method -> the kind of keypoints that it matches; ORB's are never stored, LoFTR has none."""


def method_of(verify: str, stored: KeypointConfig | None) -> str:
    """Return what ``position.verify`` means for a gallery: auto is the kind that it stores, else sift."""
    return ("sift" if stored is None else stored.kind) if verify == "auto" else verify


def build_matcher(gallery: Gallery, method: str, config: LocalizerConfig) -> Matcher:
    """Return the matcher that ``position.verify`` or ``rerank.method`` names.

    Raises:
        GalleryError: The gallery does not store the keypoints that it matches.
        ModelError: It is a network whose weights are absent or foreign.
    """
    method = method_of(method, gallery.keypoint_config)
    if method == "loftr":
        from geowarp_ros.rerank.loftr import build_loftr

        return build_loftr(gallery, config)
    options = config.position.verification
    if method == "orb" or (method == "sift" and gallery.keypoint_config is None):
        return KeypointMatcher(gallery, method, options)
    return StoredKeypointMatcher(gallery, build_pairing(gallery, method, config), options.ratio)


def build_pairing(gallery: Gallery, method: str, config: LocalizerConfig) -> Pairing:
    """Return what pairs a query's keypoints with stored ones.

    Raises:
        GalleryError: The gallery does not store the kind that the method matches.
        ModelError: It is a network whose weights are absent or foreign.
    """
    kind, stored = KIND_OF[method], gallery.keypoint_config
    if stored is None:
        raise GalleryError(
            f"{gallery.path}: stores no keypoints, and {method} matches {kind};"
            f" 'geowarp gallery upgrade {quoted(gallery.path)} --keypoints {kind}' makes them"
        )
    if stored.kind != kind:
        raise GalleryError(
            f"{gallery.path}: its keypoints are {stored}, and {method} matches {kind}; use {stored.kind}, or build"
            f" it again with them (geowarp gallery build … --output {quoted(gallery.path)} --replace"
            f" --keypoints {kind})"
        )
    if method == kind:
        return Neighbours(stored, config.position.verification)
    from geowarp_ros.rerank.glue import build_glue

    return build_glue(gallery, stored, method, config)


def pairing_of(gallery: Gallery, config: LocalizerConfig) -> Pairing | None:
    """Return what pairs for a pose: as ``position.verify`` where that matches stored ones, else the nearest."""
    stored = gallery.keypoint_config
    if stored is None:
        return None
    method = method_of(config.position.verify, stored)
    return build_pairing(gallery, method if KIND_OF.get(method) == stored.kind else stored.kind, config)


class Pairing(Protocol):
    """Pairs a query's keypoints with those of a place."""

    def compared(self, query: Query, photograph: Photograph, /) -> Compared:
        """Compare with a photograph of an aligned gallery, once for the verification and the pose."""

    def pairs(self, query: Query, index: int, place: Keypoints, /) -> Pairs:
        """Pair with the keypoints of a gallery row, the strongest of both."""

    @property
    def keypoints(self) -> KeypointConfig:
        """Kind and settings of the keypoints."""


class Neighbours:
    """Nearest neighbours with the ratio test.

    Args:
        keypoints: Kind and settings.
        config: Ratio, and how many of an image's keypoints are matched: the strongest.
    """

    def __init__(self, keypoints: KeypointConfig, config: VerificationConfig) -> None:
        self.keypoints = keypoints
        self._ratio = config.ratio
        self._count = config.keypoints

    def compared(self, query: Query, photograph: Photograph, /) -> Compared:
        """See :class:`Pairing`."""
        return query.compared(self.keypoints, photograph.prepared(self._count), self._count)

    def pairs(self, query: Query, index: int, place: Keypoints, /) -> Pairs:
        """See :class:`Pairing`."""
        own = query.keypoints(self.keypoints)
        return match(own.descriptors[: self._count], place.descriptors[: self._count], self._ratio)


class StoredKeypointMatcher:
    """Matches the query's keypoints with those that the gallery stores; points in px at working resolution.

    Args:
        gallery: Has the keypoints.
        pairing: Pairs them.
        ratio: Ratio test.
    """

    def __init__(self, gallery: Gallery, pairing: Pairing, ratio: float) -> None:
        self._gallery = gallery
        self._pairing = pairing
        self._ratio = ratio

    def __call__(self, query: Query, indices: Sequence[int], /) -> Iterator[tuple[Points, Points]]:
        """Yield the matched keypoints."""
        own = query.keypoints(self._pairing.keypoints)
        for index in indices:
            if (photograph := self._gallery.photograph(index)) is not None:  # the pose will match it, too
                place = photograph.keypoints
                compared = self._pairing.compared(query, photograph)
                pairs = compared.pairs(self._ratio, (LOCATED, SEEN, RAYLESS), (STRONGEST,))
            else:
                stored = self._gallery.keypoints(index)
                assert stored is not None, "the gallery has a keypoint configuration"
                place = stored
                pairs = self._pairing.pairs(query, index, place)
            yield own.points[pairs[:, 0]], place.points[pairs[:, 1]]


PLACES_KEPT = 64
"""Number of places whose keypoints stay in memory (up to half a MiB each): successive images see the same ones."""


class KeypointMatcher:
    """Keypoints that are detected in the gallery's images, at working resolution; ratio test, points in px."""

    def __init__(self, gallery: Gallery, kind: str, config: VerificationConfig) -> None:
        self._ratio = config.ratio
        if kind == "sift":
            self._detector: Any = cv2.SIFT.create(nfeatures=config.keypoints)
            self._matcher: Any = cv2.BFMatcher(cv2.NORM_L2)
        else:
            self._detector = cv2.ORB.create(nfeatures=config.keypoints)
            self._matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
        detector = self._detector  # and not self: what holds itself keeps the gallery's files open for a while
        self._of_place = lru_cache(PLACES_KEPT)(lambda index: _detected(detector, gallery.image(index)))

    def __call__(self, query: Query, indices: Sequence[int], /) -> Iterator[tuple[Points, Points]]:
        """Yield the matched keypoints."""
        points_q, descriptors_q = _detected(self._detector, query.pixels)
        for index in indices:
            points_p, descriptors_p = self._of_place(index)
            if descriptors_q is None or descriptors_p is None:  # an image without texture
                yield NO_POINTS, NO_POINTS
                continue
            two = [pair for pair in self._matcher.knnMatch(descriptors_q, descriptors_p, 2) if len(pair) == 2]
            good = [best for best, second in two if best.distance < self._ratio * second.distance]
            yield points_q[[m.queryIdx for m in good]], points_p[[m.trainIdx for m in good]]


def _detected(detector: Any, image: Image) -> tuple[Points, NDArray[Any] | None]:
    keypoints, descriptors = detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    return np.array([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2), descriptors
