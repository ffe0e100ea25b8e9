"""Geometric verification: match points, fit a homography, count those that obey it.

InLoc's dense verification (Taira et al., CVPR 2018) and the spatial verification of DELG (Cao et al., ECCV 2020),
with keypoints of SIFT (Lowe, IJCV 2004) or ORB (Rublee et al., ICCV 2011); the homography by MAGSAC++ (Barath et
al., CVPR 2020) as OpenCV has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.config import VerificationConfig
from geowarp_ros.gallery.alignment.aligned import LOCATED, RAYLESS, SEEN
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.keypoints.detector import KeypointConfig
from geowarp_ros.keypoints.matching import STRONGEST, match
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


def build_matcher(gallery: Gallery, kind: Literal["sift", "orb"], config: VerificationConfig) -> Matcher:
    """Return the matcher of stored keypoints where the gallery has that kind, else the one that detects them."""
    stored = gallery.keypoint_config
    if stored is not None and kind == "sift":  # or what the gallery stores in its place
        return StoredKeypointMatcher(gallery, stored, config)
    return KeypointMatcher(gallery, kind, config)


class StoredKeypointMatcher:
    """Matches the query's keypoints with those that the gallery stores; points in px at working resolution.

    Args:
        gallery: Has the keypoints.
        stored: Their kind and settings.
        config: Ratio, and how many of an image's keypoints are matched: the strongest.
    """

    def __init__(self, gallery: Gallery, stored: KeypointConfig, config: VerificationConfig) -> None:
        self._gallery = gallery
        self._stored = stored
        self._ratio = config.ratio
        self._count = config.keypoints

    def __call__(self, query: Query, indices: Sequence[int], /) -> Iterator[tuple[Points, Points]]:
        """Yield the matched keypoints."""
        own = query.keypoints(self._stored)
        for index in indices:
            if (photograph := self._gallery.photograph(index)) is not None:  # the pose will match it, too
                place = photograph.keypoints
                compared = query.compared(self._stored, photograph.prepared(self._count), self._count)
                pairs = compared.pairs(self._ratio, (LOCATED, SEEN, RAYLESS), (STRONGEST,))
            else:
                stored = self._gallery.keypoints(index)
                assert stored is not None, "the gallery has a keypoint configuration"
                place = stored
                pairs = match(own.descriptors[: self._count], place.descriptors[: self._count], self._ratio)
            yield own.points[pairs[:, 0]], place.points[pairs[:, 1]]


PLACES_KEPT = 64
"""Number of places whose keypoints stay in memory (up to half a MiB each): successive images see the same ones."""


class KeypointMatcher:
    """Keypoints that are detected in the gallery's images, at working resolution; ratio test, points in px."""

    def __init__(self, gallery: Gallery, kind: Literal["sift", "orb"], config: VerificationConfig) -> None:
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
