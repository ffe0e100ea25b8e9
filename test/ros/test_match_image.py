from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from geowarp_ros.geometry import warp
from geowarp_ros.ros.match_image import answer_picture, encode_jpeg, match_picture, warp_to_frame
from geowarp_ros.types import Candidate, NoFix, Place

FULL = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


@pytest.fixture
def smooth() -> np.ndarray:
    y, x = np.mgrid[:60, :80]
    return np.stack([3 * x, 4 * y, x + y], axis=-1).astype(np.uint8)


def test_warp_to_frame_is_the_networks_warp(smooth: np.ndarray) -> None:
    quad = np.array([[-0.8, -0.7], [0.9, -0.9], [0.7, 0.8], [-0.9, 0.6]])
    tensor = torch.from_numpy(smooth.astype(np.float32)).permute(2, 0, 1)[None]
    expected = warp(tensor, torch.from_numpy(quad.astype(np.float32))[None])[0].permute(1, 2, 0).numpy()
    assert np.abs(warp_to_frame(smooth, quad) - expected).max() < 3  # OpenCV interpolates in 1/32 px
    assert np.array_equal(warp_to_frame(smooth, FULL), smooth)


def test_pictures_stand_side_by_side(smooth: np.ndarray) -> None:
    place = Place("é.jpg", 50.0, 8.0)
    plain = Candidate(0, place, 0.5)
    warped = Candidate(0, place, 0.5, 7.0, 6.0, FULL, FULL)
    assert match_picture(smooth, smooth, plain).shape == (240, 640, 3)
    assert match_picture(smooth, smooth, warped).shape == (240, 1280, 3)
    assert answer_picture(smooth, smooth, NoFix("disagreement", candidates=(warped,))).shape == (268, 1280, 3)
    assert answer_picture(smooth, None, NoFix("empty_gallery")).shape == (268, 320, 3)


def test_jpeg_keeps_the_colours() -> None:
    red = np.full((16, 16, 3), (220, 30, 10), np.uint8)
    decoded = np.asarray(Pillow.open(io.BytesIO(encode_jpeg(red))))
    assert np.abs(decoded.astype(int) - red).max() < 6
