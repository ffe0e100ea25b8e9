"""Verification: it counts what obeys a homography, and rejects the same image with its parts shuffled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
import pytest

from geowarp_ros.config import LocalizerConfig, VerificationConfig
from geowarp_ros.gallery.alignment.aligned import Photograph
from geowarp_ros.integrity.verification import (
    CHANCE_INLIERS,
    GeometricVerifier,
    NoVerification,
    build_verifier,
)
from geowarp_ros.keypoints.detector import KeypointConfig, KeypointDetector, Keypoints
from geowarp_ros.model.describer import Query
from geowarp_ros.rerank.verification import (
    KeypointMatcher,
    Neighbours,
    Points,
    StoredKeypointMatcher,
    VerifiedReranker,
    build_matcher,
)
from geowarp_ros.types import Image
from test.rerank.conftest import MemoryGallery, candidates_of, query_of, textured

HOMOGRAPHY = np.array([[0.9, 0.08, 12.0], [-0.05, 0.95, 8.0], [1e-4, 2e-4, 1.0]])


def shuffled(image: Image, rows: int = 12, columns: int = 16, seed: int = 0) -> Image:
    """The image cut into cells that are put back in another order, each turned by a quarter, half or three."""
    rng = np.random.default_rng(seed)
    height, width = image.shape[0] // rows, image.shape[1] // columns
    cells = [
        image[r * height : (r + 1) * height, c * width : (c + 1) * width]
        for r in range(rows)
        for c in range(columns)
    ]
    order = rng.permutation(len(cells))
    turned = [np.rot90(cells[i], int(rng.integers(1, 4))) for i in order]
    return np.vstack([np.hstack(turned[r * columns : (r + 1) * columns]) for r in range(rows)])


@pytest.fixture(scope="module")
def places() -> list[Image]:
    return [textured(i, 240, 320) for i in range(4)]


@pytest.mark.parametrize("kind", ["sift", "orb"])
def test_shuffled_cells_are_rejected_where_the_warped_image_is_not(
    places: list[Image], kind: Literal["sift", "orb"]
) -> None:
    gallery = MemoryGallery(np.zeros((2, 1)), [places[0], shuffled(places[0])])
    verifier = GeometricVerifier(KeypointMatcher(gallery, kind, VerificationConfig()), 3.0, 2)
    query = query_of(pixels=np.asarray(cv2.warpPerspective(places[0], HOMOGRAPHY, (320, 240)), np.uint8))
    ((true, false),) = [verifier(query, candidates_of([1, 0]))]
    assert (true.index, false.index) == (0, 1), "more inliers come first"
    # every point of the shuffled image has its twin in the query: only the geometry tells them apart
    assert true.inliers is not None and false.inliers is not None
    assert true.inliers > 100 > 5 * false.inliers


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_stored_keypoints_verify_as_detected_ones_and_no_image_is_read(
    places: list[Image], scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place's own keypoints, stored beforehand; the query is of twice the size, where it has more."""
    stored = KeypointConfig(scale=scale)
    gallery = MemoryGallery(np.zeros((2, 1)), [places[0], shuffled(places[0])], keypoints=stored)
    verifier = build_verifier(LocalizerConfig(), gallery)
    twice = np.asarray(cv2.resize(places[0], (640, 480), interpolation=cv2.INTER_CUBIC), np.uint8)
    double = np.diag([2.0, 2.0, 1.0])
    seen = np.asarray(
        cv2.warpPerspective(twice, double @ HOMOGRAPHY @ np.linalg.inv(double), (640, 480)), np.uint8
    )
    query = replace(query_of(pixels=np.asarray(cv2.resize(seen, (320, 240)), np.uint8)), original=seen)
    kept = {index: gallery.keypoints(index) for index in (0, 1)}
    monkeypatch.setattr(gallery, "keypoints", kept.__getitem__)
    monkeypatch.setattr(gallery, "images", None)
    true, false = verifier(query, candidates_of([1, 0]))
    assert (true.index, false.index) == (0, 1), "more inliers come first"
    assert true.inliers is not None and false.inliers is not None
    assert true.inliers > 100 > 5 * false.inliers


def test_the_querys_keypoints_are_detected_once(places: list[Image], monkeypatch: pytest.MonkeyPatch) -> None:
    detected = []
    detect = KeypointDetector.__call__

    def counting(self: KeypointDetector, image: Image, width_px: int, height_px: int) -> Keypoints:
        detected.append(image)
        return detect(self, image, width_px, height_px)

    gallery = MemoryGallery(np.zeros((4, 1)), places, keypoints=KeypointConfig())
    kept = [gallery.keypoints(index) for index in range(4)]
    monkeypatch.setattr(gallery, "keypoints", kept.__getitem__)
    monkeypatch.setattr(KeypointDetector, "__call__", counting)
    reranker = VerifiedReranker(build_matcher(gallery, "sift", LocalizerConfig()), 3.0)
    query = query_of(pixels=places[2])
    assert not detected, "only when asked for"
    ranked = build_verifier(LocalizerConfig(), gallery)(query, reranker(query, candidates_of(range(4))))
    assert ranked[0].index == 2 and len(detected) == 1 and detected[0] is places[2]
    assert query.keypoints(KeypointConfig()) is query.keypoints(KeypointConfig())
    query.keypoints(KeypointConfig(count=7))
    assert len(detected) == 2, "other keypoints are others"


def test_orb_is_detected_whatever_the_gallery_stores(places: list[Image]) -> None:
    gallery = MemoryGallery(np.zeros((4, 1)), places, keypoints=KeypointConfig())
    assert isinstance(build_matcher(gallery, "orb", LocalizerConfig()), KeypointMatcher)
    assert isinstance(build_matcher(gallery, "sift", LocalizerConfig()), StoredKeypointMatcher)
    without = MemoryGallery(np.zeros((4, 1)), places)
    assert isinstance(build_matcher(without, "sift", LocalizerConfig()), KeypointMatcher)


def test_what_the_pose_will_match_is_verified_as_what_is_stored(places: list[Image]) -> None:
    """Photographs of an aligned gallery: the same matches, whatever is known of their keypoints."""
    config, rng = VerificationConfig(keypoints=300), np.random.default_rng(0)
    gallery = MemoryGallery(np.zeros((2, 1)), [places[0], places[1]], keypoints=KeypointConfig())
    query = query_of(pixels=np.asarray(cv2.warpPerspective(places[0], HOMOGRAPHY, (320, 240)), np.uint8))
    stored = list(
        StoredKeypointMatcher(gallery, Neighbours(KeypointConfig(), config), config.ratio)(query, [0, 1])
    )
    for row in (0, 1):
        keypoints = gallery.keypoints(row)
        assert keypoints is not None
        count = len(keypoints)
        rays = np.where(rng.random((count, 1)) < 0.1, np.nan, np.ones((count, 2)))
        point = np.where(rng.random(count) < 0.3, np.arange(count), -1).astype(np.int32)
        gallery.aligned[row] = Photograph(
            row, keypoints, rays, np.zeros((count, 3)), point, np.zeros(3), np.eye(3), 1.0, 0.1
        )
    aligned = list(
        StoredKeypointMatcher(gallery, Neighbours(KeypointConfig(), config), config.ratio)(query, [0, 1])
    )
    assert len(stored[0][0]) > 100
    for first, second in zip(stored, aligned, strict=True):
        np.testing.assert_array_equal(first, second)


def test_no_more_keypoints_are_matched_than_asked(places: list[Image]) -> None:
    gallery = MemoryGallery(np.zeros((1, 1)), places[:1], keypoints=KeypointConfig())
    found = {}
    for count in (50, 1000):
        pairing = Neighbours(KeypointConfig(), VerificationConfig(keypoints=count))
        matcher = StoredKeypointMatcher(gallery, pairing, 0.8)
        ((points_q, points_p),) = matcher(query_of(pixels=places[0]), [0])
        np.testing.assert_array_equal(points_q, points_p)
        found[count] = len(points_q)
    assert 25 < found[50] <= 50 < 300 < found[1000]


class Counts:
    """Yields matches of which a known number obeys a homography exactly; the rest is scattered."""

    def __init__(self, inliers: dict[int, int]) -> None:
        self.inliers = inliers
        self.asked: list[int] = []

    def __call__(self, query: Query, indices: Sequence[int], /) -> Iterator[tuple[Points, Points]]:
        rng = np.random.default_rng(0)
        for index in indices:
            self.asked.append(index)
            count = self.inliers[index]
            points_p = rng.uniform(0, 300, (count, 2)).astype(np.float32)
            moved = cv2.perspectiveTransform(points_p[None], HOMOGRAPHY)[0] if count else points_p
            yield np.asarray(moved, np.float32), points_p


def test_only_the_first_candidates_are_looked_at_and_the_most_inliers_come_first() -> None:
    matcher = Counts({5: 20, 6: 0, 7: 80})
    ranked = GeometricVerifier(matcher, 3.0, 3)(query_of(), candidates_of([5, 6, 7, 8]))
    assert matcher.asked == [5, 6, 7]
    assert [(c.index, c.inliers) for c in ranked] == [(7, 80), (5, 20), (6, 0), (8, None)]


def test_inliers_of_another_matcher_are_not_compared_with_ones_own() -> None:
    """A re-ranker counted those of more candidates than are verified, by its own matches."""
    counted = [replace(candidate, inliers=300) for candidate in candidates_of([5, 6, 7])]
    ranked = GeometricVerifier(Counts({5: 20, 6: 80}), 3.0, 2)(query_of(), counted)
    assert [(c.index, c.inliers) for c in ranked] == [(6, 80), (5, 20), (7, None)]


def test_what_chance_explains_changes_no_order() -> None:
    matcher = Counts({0: 5, 1: 7, 2: CHANCE_INLIERS})
    ranked = GeometricVerifier(matcher, 3.0, 3)(query_of(), candidates_of([0, 1, 2]))
    assert [c.index for c in ranked] == [0, 1, 2]


def test_random_matches_agree_on_no_more_than_chance() -> None:
    rng = np.random.default_rng(3)

    def scattered(query: Query, indices: Sequence[int], /) -> Iterator[tuple[Points, Points]]:
        for _ in indices:
            points_q, points_p = rng.uniform(0, (320, 240), (2, 60, 2)).astype(np.float32)
            yield points_q, points_p

    ranked = GeometricVerifier(scattered, 3.0, 50)(query_of(), candidates_of(range(50)))
    assert all(c.inliers is not None and c.inliers <= CHANCE_INLIERS for c in ranked)


def test_the_parameter_chooses() -> None:
    gallery = MemoryGallery(np.zeros((1, 1)), [textured(0)])
    off = LocalizerConfig.model_validate({"position": {"verify": "none"}})
    assert isinstance(build_verifier(off, gallery), NoVerification)
    assert build_verifier(off, gallery)(query_of(), candidates_of([0]))[0].inliers is None
    verified = build_verifier(LocalizerConfig(), gallery)(query_of(pixels=textured(0)), candidates_of([0]))
    assert verified[0].inliers is not None and verified[0].inliers > 20
