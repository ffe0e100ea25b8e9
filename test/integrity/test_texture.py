"""Texture of drawn pictures."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.config import PositionConfig
from geowarp_ros.evaluation.plain import plain_pictures
from geowarp_ros.integrity.texture import refuse_textureless, texture

SIZES = [(480, 640), (240, 320), (1080, 1920), (320, 180)]


def blocks(height: int, width: int, seed: int = 0) -> NDArray[Any]:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


@pytest.mark.parametrize("size", SIZES)
def test_a_uniform_image_has_none(size: tuple[int, int]) -> None:
    assert texture(np.full((*size, 3), 90, np.uint8)) == pytest.approx(0.0, abs=1e-3)


def test_it_grows_with_the_contrast_and_not_with_the_brightness() -> None:
    grey = blocks(240, 320).mean(axis=2, keepdims=True).repeat(3, axis=2)
    faint, bright = (np.round(grey * 0.1 + add).astype(np.uint8) for add in (20, 200))
    strong = np.round(grey * 0.4 + 20).astype(np.uint8)
    assert texture(faint) == pytest.approx(texture(bright), rel=0.02)
    assert texture(strong) == pytest.approx(4 * texture(faint), rel=0.05)


def test_it_is_about_the_same_at_any_resolution() -> None:
    values = [texture(blocks(height, height * 4 // 3)) for height in (120, 240, 480, 960)]
    assert max(values) < 1.1 * min(values)


@pytest.mark.parametrize("kind", ["black", "lens cap", "uniform"])
def test_a_covered_camera_is_refused_by_name(kind: str) -> None:
    pictures = [picture for seed in range(5) for name, picture in plain_pictures(240, 320, seed) if name == kind]
    assert len(pictures) >= 5
    for picture in pictures:
        refusal = refuse_textureless(picture, PositionConfig())
        assert refusal is not None and refusal.reason == "no_texture" and refusal.confidence == 0.0


def test_a_picture_with_texture_is_not_refused_and_0_switches_it_off() -> None:
    assert refuse_textureless(blocks(240, 320), PositionConfig()) is None
    assert refuse_textureless(np.zeros((240, 320, 3), np.uint8), PositionConfig(min_texture=0.0)) is None
