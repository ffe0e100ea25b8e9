"""Where keypoints are found, and what describes them."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from geowarp_ros.keypoints.detector import FEW, KeypointConfig, KeypointDetector, Keypoints, root_sift
from geowarp_ros.keypoints.matching import match
from geowarp_ros.types import Image
from test.rerank.conftest import textured


def blobs(centres: list[tuple[float, float]], sigma: float, height: int, width: int) -> Image:
    """Bright Gaussians on grey; the centre of the top-left pixel is (0, 0)."""
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width), 60.0)
    for cx, cy in centres:
        image += 150 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
    return np.repeat(np.rint(image).astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
def test_points_lie_in_pixels_of_the_working_resolution(scale: float) -> None:
    """Blobs in a 320×240 original, worked at 160×120: whatever is detected at, they lie where they are there."""
    centres = [(60.0, 50.0), (200.0, 61.0), (131.0, 180.0)]
    found = KeypointDetector(KeypointConfig(scale=scale))(blobs(centres, 6.0, 240, 320), 160, 120)
    expected = (np.array(centres) + 0.5) / 2 - 0.5  # pixel centres: (0, 0) is that of the first
    for centre in expected:
        nearest = np.linalg.norm(found.points - centre, axis=1).min()
        assert nearest < 0.03, (centre, found.points)


def test_the_original_is_looked_at_and_not_what_it_was_shrunk_to() -> None:
    """At four times the working resolution an original of that size is taken as it is: OpenCV's own points."""
    original = textured(0, 240, 320)
    found = KeypointDetector(KeypointConfig(scale=4.0, count=100_000))(original, 80, 60)
    own = cv2.SIFT.create(contrastThreshold=0.03).detect(cv2.cvtColor(original, cv2.COLOR_RGB2GRAY), None)
    expected = (np.array(sorted((k.pt[0], k.pt[1]) for k in own)) - 0.25 + 0.5) / 4 - 0.5
    assert len(expected) > 200
    np.testing.assert_allclose(np.array(sorted(found.points.tolist())), expected, atol=1e-4)


def test_the_strongest_come_first_and_no_more_than_asked() -> None:
    image = textured(1, 240, 320)
    every = KeypointDetector(KeypointConfig(count=100_000))(image, 320, 240)
    some = KeypointDetector(KeypointConfig(count=50))(image, 320, 240)
    assert len(every) > 200 and len(some) == 50
    np.testing.assert_array_equal(some.points, every.points[:50])


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize("place", ["main thread", "other thread"])
def test_a_second_image_needs_no_new_pages(place: str) -> None:
    """The first maps the pyramid's 10 000 pages (40 MB); handed back, they would be mapped anew for the second."""
    import resource

    image, detect = textured(2, 240, 320), KeypointDetector(KeypointConfig())

    def faults_of_three() -> list[int]:
        counts = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            detect(image, 320, 240)
            counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        return counts

    with ThreadPoolExecutor(1) as pool:
        counts = faults_of_three() if place == "main thread" else pool.submit(faults_of_three).result()
    assert min(counts[1:]) < 10_000 / 4, counts  # other threads and Python map some, too


def test_an_image_of_little_contrast_shows_keypoints_that_its_twin_of_more_contrast_has() -> None:
    strong = textured(2, 240, 320)
    faint = np.rint(127 + (strong.astype(float) - 127) * 0.08).astype(np.uint8)
    config = KeypointConfig()
    once = cv2.SIFT.create(nfeatures=2000, contrastThreshold=config.contrast)
    by_default = once.detect(cv2.resize(faint[..., 0], (480, 360), interpolation=cv2.INTER_LINEAR), None)
    detect = KeypointDetector(config)
    found, wanted = detect(faint, 320, 240), detect(strong, 320, 240)
    assert len(by_default) < FEW <= len(found)
    matches = match(found.descriptors, wanted.descriptors, 0.8)
    apart = np.linalg.norm(found.points[matches[:, 0]] - wanted.points[matches[:, 1]], axis=1)
    assert len(matches) > 100 and (apart < 1.0).mean() > 0.9


def test_an_image_without_texture_has_none() -> None:
    found = KeypointDetector(KeypointConfig())(np.full((96, 128, 3), 127, np.uint8), 128, 96)
    assert len(found) == 0 and found.points.shape == (0, 2) and found.descriptors.shape == (0, 128)
    assert match(found.descriptors, found.descriptors, 0.8).shape == (0, 2)


def test_root_sift_by_hand() -> None:
    raw = np.zeros((2, 128), np.float32)
    raw[0, :4] = [1, 4, 4, 16]  # shares 0.04, 0.16, 0.16, 0.64; roots 0.2, 0.4, 0.4, 0.8
    np.testing.assert_array_equal(root_sift(raw)[0, :5], [102, 205, 205, 255, 0])  # 0.8 · 512 does not fit
    assert not root_sift(raw)[1].any()


def test_the_same_points_are_found_from_aside() -> None:
    """Matches of a textured plane seen through a homography obey it."""
    homography = np.array([[0.9, 0.08, 12.0], [-0.05, 0.95, 8.0], [1e-4, 2e-4, 1.0]])
    image = textured(3, 240, 320)
    other = np.asarray(cv2.warpPerspective(image, homography, (320, 240)), np.uint8)
    detector = KeypointDetector(KeypointConfig())
    a, b = detector(image, 320, 240), detector(other, 320, 240)
    pairs = match(a.descriptors, b.descriptors, 0.8)
    expected = cv2.perspectiveTransform(a.points[pairs[:, 0]][None].astype(float), homography)[0]
    errors = np.linalg.norm(b.points[pairs[:, 1]] - expected, axis=1)
    assert len(pairs) > 200 and (errors < 1.0).mean() > 0.95 and np.median(errors) < 0.3


def test_keypoints_know_their_number() -> None:
    assert len(Keypoints(np.zeros((3, 2), np.float32), np.zeros((3, 128), np.uint8))) == 3
    assert str(KeypointConfig()) == "sift, 2000 at 1.5x, contrast 0.03"
