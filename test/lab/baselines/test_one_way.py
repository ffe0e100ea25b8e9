from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geowarp_ros.geometry import FULL_FRAME, full_frame
from geowarp_ros.images import to_tensor
from geowarp_ros.lab.baselines.one_way import OneWayReranker, one_way_quad
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.matching import CELLS, similarity
from test.rerank.conftest import MemoryGallery, candidates_of, scores_of, textured


def test_a_query_seen_whole_leaves_the_candidates_quad() -> None:
    quad_p = torch.tensor([[[-0.5, -0.8], [0.7, -0.6], [0.9, 0.7], [-0.6, 0.5]]])
    assert torch.allclose(one_way_quad(full_frame(1, quad_p), quad_p), quad_p, atol=1e-6)


def test_equal_quads_are_no_warp() -> None:
    quad = torch.tensor([[[-0.5, -0.8], [0.7, -0.6], [0.9, 0.7], [-0.6, 0.5]]])
    assert torch.allclose(one_way_quad(quad, quad), full_frame(1, quad), atol=1e-5)


def test_half_the_query_against_the_whole_candidate_doubles_the_frame() -> None:
    """The query's left half shows all the candidate shows: its whole frame shows twice as much, to the right."""
    left_half = torch.tensor([[[-1.0, -1.0], [0.0, -1.0], [0.0, 1.0], [-1.0, 1.0]]])
    expected = torch.tensor([[[-1.0, -1.0], [3.0, -1.0], [3.0, 1.0], [-1.0, 1.0]]])
    assert torch.allclose(one_way_quad(left_half, full_frame(1, left_half)), expected, atol=1e-6)


def test_the_reranker_equals_a_brute_force_with_opencv(
    gallery: MemoryGallery, describer: Describer, model: GeoWarp
) -> None:
    """Homographies by OpenCV in pixels, images warped by OpenCV, scored one by one."""
    image = textured(8)
    query = describer(image)
    ranked = OneWayReranker(gallery, model)(query, candidates_of(range(6)))
    assert scores_of(ranked) == sorted(scores_of(ranked), reverse=True)
    for candidate in ranked:
        place = gallery.images[candidate.index]
        with torch.inference_mode():
            _, quad_q, quad_p = model.match(query.image, to_tensor(place))
            h_q = cv2.getPerspectiveTransform(np.array(FULL_FRAME, np.float32), quad_q[0].numpy()).astype(float)
            h_p = cv2.getPerspectiveTransform(np.array(FULL_FRAME, np.float32), quad_p[0].numpy()).astype(float)
            pixels_from_frame = _pixels(place.shape)
            homography = pixels_from_frame @ h_p @ np.linalg.inv(h_q) @ np.linalg.inv(pixels_from_frame)
            tensor = to_tensor(place)[0].permute(1, 2, 0).numpy()
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            warped = cv2.warpPerspective(tensor, homography, (place.shape[1], place.shape[0]), flags=flags)
            f_p = model.local_features(torch.from_numpy(warped).permute(2, 0, 1)[None])
            expected = float(similarity(query.local_features, f_p)) / CELLS
        assert candidate.score == pytest.approx(expected, rel=0.01)


def _pixels(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Pixel coordinates (centres at whole numbers) from -1..1 at the outer edges."""
    height, width = shape[:2]
    return np.array([[width / 2, 0, width / 2 - 0.5], [0, height / 2, height / 2 - 0.5], [0, 0, 1]])
