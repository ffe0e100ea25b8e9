"""Point correspondences between images of one place, as supervision for local features.

SIFT (Lowe, IJCV 2004) with ratio test and a fundamental matrix by MAGSAC++ (Barath et al., CVPR 2020), in OpenCV.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.lab.training.data import Photographs, cover

Points = NDArray[np.float32]
"""(K, 2) normalised (x, y) on an image cropped to the training size."""

KEYPOINTS = 400
RATIO = 0.8
THRESHOLD_PX = 1.5
LEAST_MATCHES = 16
LEAST_SHARE = 0.5
"""Minimum inlier ratio of the fundamental matrix; below, the pair counts as unmatched."""


class Matches:
    """Cached point correspondences of image pairs.

    Args:
        photographs: Images to match.
        height: Training image height (px).
        width: Training image width (px).
    """

    def __init__(self, photographs: Photographs, height: int, width: int) -> None:
        self._photographs, self._height, self._width = photographs, height, width
        self._keypoints, self._matched = cache(self._detect), cache(self._match)

    def __call__(self, first: int, second: int) -> tuple[Points, Points]:
        """Return corresponding points of both images; empty if too few are inliers."""
        if first > second:
            return self(second, first)[::-1]
        return self._matched(first, second)

    def _match(self, first: int, second: int) -> tuple[Points, Points]:
        nothing = np.zeros((0, 2), np.float32)
        (points_1, descriptors_1), (points_2, descriptors_2) = self._keypoints(first), self._keypoints(second)
        if descriptors_1 is None or descriptors_2 is None or min(len(points_1), len(points_2)) < LEAST_MATCHES:
            return nothing, nothing
        pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(descriptors_1, descriptors_2, 2)
        good = [best for best, second_best in pairs if best.distance < RATIO * second_best.distance]
        if len(good) < LEAST_MATCHES:
            return nothing, nothing
        found_1, found_2 = points_1[[m.queryIdx for m in good]], points_2[[m.trainIdx for m in good]]
        try:
            _, mask = cv2.findFundamentalMat(found_1, found_2, cv2.USAC_MAGSAC, THRESHOLD_PX, 0.999, 2000)
        except cv2.error:  # raised by OpenCV if all samples are degenerate
            mask = None
        kept = np.zeros(len(good), bool) if mask is None else mask.ravel().astype(bool)
        if kept.sum() < max(LEAST_MATCHES, LEAST_SHARE * len(good)):
            return nothing, nothing
        size = np.array([self._width, self._height], np.float32)
        return (2 * found_1[kept] + 1) / size - 1, (2 * found_2[kept] + 1) / size - 1

    def _detect(self, index: int) -> tuple[Points, NDArray[Any] | None]:
        """Return keypoints (px; the centre of the top-left pixel is 0) and descriptors, None without keypoints."""
        image = self._photographs[index]
        if image is None:
            return np.zeros((0, 2), np.float32), None
        grey = cv2.cvtColor(cover(image, self._height, self._width), cv2.COLOR_RGB2GRAY)
        found, descriptors = cv2.SIFT.create(KEYPOINTS).detectAndCompute(grey, None)
        return np.array([keypoint.pt for keypoint in found], np.float32).reshape(-1, 2), descriptors
