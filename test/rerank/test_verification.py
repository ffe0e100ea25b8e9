from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import pytest

from geowarp_ros.config import VerificationConfig
from geowarp_ros.rerank.verification import KeypointMatcher, VerifiedReranker, count_inliers
from geowarp_ros.types import Image
from test.rerank.conftest import MemoryGallery, candidates_of, query_of, scores_of, textured

HOMOGRAPHY = np.array([[0.9, 0.08, 12.0], [-0.05, 0.95, 8.0], [1e-4, 2e-4, 1.0]])


def _seen_from_aside(image: Image) -> Image:
    return np.asarray(cv2.warpPerspective(image, HOMOGRAPHY, (image.shape[1], image.shape[0])), np.uint8)


@pytest.mark.parametrize("kind", ["sift", "orb"])
def test_the_true_place_has_many_inliers_and_the_false_ones_few(kind: Literal["sift", "orb"]) -> None:
    places = [textured(i, 240, 320) for i in range(4)]
    gallery = MemoryGallery(np.zeros((4, 1)), places)
    matcher = KeypointMatcher(gallery, kind, VerificationConfig())
    query = query_of(pixels=_seen_from_aside(places[2]))
    ranked = VerifiedReranker(matcher, 3.0)(query, candidates_of([0, 1, 2, 3]))
    assert ranked[0].index == 2
    first, second, *_ = scores_of(ranked)
    assert first > 50
    assert first > 5 * second
    again = VerifiedReranker(matcher, 3.0)(query, candidates_of([0, 1, 2, 3]))
    assert [c.score for c in again] == [c.score for c in ranked], "the same call gives the same answer"


def test_matches_lie_where_the_homography_puts_them() -> None:
    place = textured(3, 240, 320)
    matcher = KeypointMatcher(MemoryGallery(np.zeros((1, 1)), [place]), "sift", VerificationConfig())
    ((points_q, points_p),) = matcher(query_of(pixels=_seen_from_aside(place)), [0])
    expected = cv2.perspectiveTransform(points_p[None].astype(float), HOMOGRAPHY)[0]
    assert np.median(np.linalg.norm(points_q - expected, axis=1)) < 0.5


@pytest.mark.parametrize("kind", ["sift", "orb"])
def test_an_image_without_texture_has_no_inliers(kind: Literal["sift", "orb"]) -> None:
    flat = np.full((96, 128, 3), 127, np.uint8)
    gallery = MemoryGallery(np.zeros((2, 1)), [flat, textured(0)])
    matcher = KeypointMatcher(gallery, kind, VerificationConfig())
    for pixels in (flat, textured(0)):
        ranked = VerifiedReranker(matcher, 3.0)(query_of(pixels=pixels), candidates_of([0, 1]))
        assert {c.index: c.score for c in ranked}[0] == 0.0


def test_inliers_are_counted_among_wrong_matches() -> None:
    rng = np.random.default_rng(0)
    points_p = rng.uniform(0, 300, (100, 2)).astype(np.float32)
    points_q = cv2.perspectiveTransform(points_p[None], HOMOGRAPHY)[0]
    points_q[60:] = rng.uniform(0, 300, (40, 2))  # 60 right, 40 wrong
    assert 60 <= count_inliers(points_q, points_p, 2.0) <= 62
    assert count_inliers(points_q[:3], points_p[:3], 2.0) == 0
    assert count_inliers(points_q[:0], points_p[:0], 2.0) == 0
