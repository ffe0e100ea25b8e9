"""SIFT's matches against a known homography."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.lab.training.data import Photographs, common_frame
from geowarp_ros.lab.training.matches import LEAST_MATCHES, Matches
from geowarp_ros.readers import read_source

HEIGHT, WIDTH = 160, 240
HOMOGRAPHY = np.array([[0.95, 0.04, 9.0], [-0.03, 0.97, 4.0], [1e-4, 2e-5, 1.0]])
"""From pixels of the first photograph to the second's, OpenCV's (pixel centres are whole numbers)."""


@pytest.fixture(scope="module")
def matches(tmp_path_factory: pytest.TempPathFactory) -> Matches:
    """Two photographs of one wall, one of another, one that cannot be read, one without texture."""
    folder = tmp_path_factory.mktemp("walls")

    def wall(seed: int) -> NDArray[Any]:
        noise = np.random.default_rng(seed).uniform(0, 255, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
        return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)

    first = wall(1)
    images = [first, cv2.warpPerspective(first, HOMOGRAPHY, (WIDTH, HEIGHT)), wall(2), first, np.zeros_like(first)]
    rows = ["filename,latitude,longitude", *(f"{n}.png,50.0,{8 + n * 1e-5}" for n in range(len(images)))]
    (folder / "positions.csv").write_text("\n".join(rows))
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:100])
    found = read_source(folder).images
    return Matches(Photographs(found, common_frame(found)), HEIGHT, WIDTH)


def test_matched_points_obey_the_homography(matches: Matches) -> None:
    first, second = matches(0, 1)
    assert len(first) == len(second) >= LEAST_MATCHES
    pixels = ((first + 1) * (WIDTH, HEIGHT) - 1) / 2
    mapped = cv2.perspectiveTransform(pixels[None].astype(np.float64), HOMOGRAPHY)[0]
    off_px = np.linalg.norm(mapped - ((second + 1) * (WIDTH, HEIGHT) - 1) / 2, axis=1)
    assert np.median(off_px) < 0.5
    assert (off_px < 3).mean() > 0.95
    assert np.abs(first).max() < 1 and np.abs(second).max() < 1


@pytest.mark.parametrize("other", [2, 3, 4])
def test_no_points_where_nothing_is_shared(matches: Matches, other: int) -> None:
    first, second = matches(0, other)
    assert first.shape == second.shape == (0, 2)
    assert matches(other, 0)[0].shape == (0, 2)
