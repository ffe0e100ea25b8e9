"""Points that two photographs of one place share, found while training: what local features should agree on.

SIFT (Lowe, IJCV 2004) with the ratio test and a fundamental matrix by MAGSAC++ (Barath et al., CVPR 2020), both as
OpenCV has them. Positions say that two photographs were taken side by side, not which cell shows what.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.lab.training.data import Photographs, cover

Points = NDArray[np.float32]
"""(K, 2) on a photograph that was cut to the training's size: (x, y), -1..1, y down."""

KEYPOINTS = 400
RATIO = 0.8
THRESHOLD_PX = 1.5
LEAST_MATCHES = 16
LEAST_SHARE = 0.5
"""Of the matches that pass the ratio test must obey the fundamental matrix, or the pair counts as unmatched."""


class Matches:
    """Matched points of pairs of photographs; what is found is kept: a training asks for each pair many times.

    Args:
        photographs: Whose pairs are asked for.
        height: Of the training images, px.
        width: Of the training images, px.
    """

    def __init__(self, photographs: Photographs, height: int, width: int) -> None:
        self._photographs = photographs
        self._height, self._width = height, width
        self._keypoints: dict[int, tuple[Points, NDArray[np.float32] | None]] = {}
        self._found: dict[tuple[int, int], tuple[Points, Points]] = {}

    def __call__(self, first: int, second: int) -> tuple[Points, Points]:
        """Return the points of both photographs, row by row; none where too few obey one geometry."""
        pair = min(first, second), max(first, second)
        if pair not in self._found:
            self._found[pair] = self._match(*pair)
        points_1, points_2 = self._found[pair]
        return (points_1, points_2) if first <= second else (points_2, points_1)

    def _match(self, first: int, second: int) -> tuple[Points, Points]:
        points_1, descriptors_1 = self._detect(first)
        points_2, descriptors_2 = self._detect(second)
        nothing = np.zeros((0, 2), np.float32)
        if descriptors_1 is None or descriptors_2 is None or min(len(points_1), len(points_2)) < LEAST_MATCHES:
            return nothing, nothing
        pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(descriptors_1, descriptors_2, 2)
        good = [best for best, second_best in pairs if best.distance < RATIO * second_best.distance]
        if len(good) < LEAST_MATCHES:
            return nothing, nothing
        rows_1, rows_2 = np.array([(match.queryIdx, match.trainIdx) for match in good]).T
        found_1, found_2 = points_1[rows_1], points_2[rows_2]
        try:
            _, mask = cv2.findFundamentalMat(found_1, found_2, cv2.USAC_MAGSAC, THRESHOLD_PX, 0.999, 2000)
        except cv2.error:  # OpenCV's, where every sample that it draws is degenerate
            mask = None
        kept = np.zeros(len(good), bool) if mask is None else mask.ravel().astype(bool)
        if kept.sum() < max(LEAST_MATCHES, LEAST_SHARE * len(good)):
            return nothing, nothing
        return self._normalised(found_1[kept]), self._normalised(found_2[kept])

    def _detect(self, index: int) -> tuple[Points, NDArray[np.float32] | None]:
        if index not in self._keypoints:
            image = self._photographs[index]
            if image is None:
                self._keypoints[index] = np.zeros((0, 2), np.float32), None
            else:
                grey = cv2.cvtColor(cover(image, self._height, self._width), cv2.COLOR_RGB2GRAY)
                found, descriptors = cv2.SIFT.create(KEYPOINTS).detectAndCompute(grey, None)
                points = np.array([keypoint.pt for keypoint in found], np.float32).reshape(-1, 2)
                self._keypoints[index] = points, descriptors
        return self._keypoints[index]

    def _normalised(self, points_px: Points) -> Points:
        """OpenCV has (0, 0) in the middle of the first pixel, normalised coordinates have -1 at its edge."""
        size = np.array([self._width, self._height], np.float32)
        return np.asarray((2 * points_px + 1) / size - 1, np.float32)
