"""Detection of keypoints, described in bytes.

SIFT (Lowe, IJCV 2004) as RootSIFT (Arandjelović and Zisserman, "Three things everyone should know to improve
object retrieval", CVPR 2012), or a network's: :mod:`geowarp_ros.keypoints.learned`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from geowarp_ros.config import Section
from geowarp_ros.keypoints.learned import FORMS, LearnedKind, learned
from geowarp_ros.keypoints.matching import SIFT_DIM
from geowarp_ros.types import Image

FEW = 200
"""Number of keypoints below which an image is looked at again, up to twice, each time with half the threshold:
fields, sand and snow show few."""
_BYTES_PER_UNIT = 512.0
"""A RootSIFT descriptor has unit length; its largest components lie about 0.3 to 0.5."""
_SHIFT_PX = 0.25
"""OpenCV doubles the image first, by which all points move so far right and down (its ``enable_precise_upscale``,
which older versions lack, would not)."""

_KEPT_BYTES = 256 * 2**20
_LARGEST_ON_HEAP_BYTES = 32 * 2**20
"""glibc takes no more on a 64-bit machine."""


@cache
def keep_freed_memory() -> None:
    """Let the process keep what is freed, up to 256 MiB, rather than hand it back to the system at once.

    SIFT's pyramid is 70 MB at 640×480. glibc returns it after every image, and for the next one the system maps
    and clears it page by page: 40 % of a detection's time. ``mallopt(3)``; nothing happens without glibc.
    """
    if os.name == "posix" and (tune := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        trim_threshold, mmap_threshold = -1, -3
        tune(trim_threshold, _KEPT_BYTES)
        tune(mmap_threshold, _LARGEST_ON_HEAP_BYTES)


Kind: TypeAlias = Literal["sift", LearnedKind]
"""Kinds of keypoints that a gallery can store."""


class KeypointConfig(Section):
    """Keypoints of a gallery's photographs, and of every query compared with them."""

    kind: Kind = Field(
        "sift", description="Kind of keypoint. sift: RootSIFT in bytes; others: a network's, by weights of yours."
    )
    weights: str = Field("", description="Fingerprint of the network's weights.")
    count: int = Field(2000, ge=4, le=100_000, description="Maximum number of keypoints per image.")
    contrast: float = Field(
        0.03,
        gt=0.0,
        le=1.0,
        description="SIFT's contrast threshold; where it finds few, half and a quarter of it.",
    )
    scale: float = Field(
        1.5,
        ge=0.25,
        le=8.0,
        description="Size at which they are detected, as a multiple of the working resolution.",
    )

    @property
    def descriptor_dim(self) -> int:
        """Number of bytes of a descriptor."""
        return SIFT_DIM if self.kind == "sift" else FORMS[self.kind].dim

    def __str__(self) -> str:
        """Return one line for people, and for calibrations: ``sift, 2000 at 1.5x, contrast 0.03``."""
        how = f"contrast {self.contrast:g}" if self.kind == "sift" else f"weights {self.weights}"
        return f"{self.kind}, {self.count} at {self.scale:g}x, {how}"


@dataclass(frozen=True, slots=True)
class Keypoints:
    """Keypoints of one image.

    Attributes:
        points: (N, 2) float32, (x, y) in px of the image at working resolution, whose first pixel is at (0, 0).
        descriptors: (N, D) uint8, D = 128 or 64 by their kind.
    """

    points: NDArray[np.float32]
    descriptors: NDArray[np.uint8]

    @classmethod
    def none(cls) -> Keypoints:
        """Return no keypoints."""
        return cls(np.empty((0, 2), np.float32), np.empty((0, SIFT_DIM), np.uint8))

    def __len__(self) -> int:
        return len(self.points)


class KeypointDetector:
    """Detects and describes keypoints. Not thread-safe: OpenCV's detector is one object.

    Raises:
        ModelError: The network's weights were not loaded.
    """

    def __init__(self, config: KeypointConfig) -> None:
        self.config = config
        if config.kind == "sift":
            self._multiple_px, self._colour = 1, False
            self._detect: _Detect = _Sift(config)
        else:
            form = FORMS[config.kind]
            self._multiple_px, self._colour = form.multiple_px, form.colour
            self._detect = learned(config.kind, config.weights, config.count)

    def __call__(self, image: Image, width_px: int, height_px: int) -> Keypoints:
        """Detect keypoints.

        Args:
            image: (H, W, 3) uint8 RGB, the original: larger than working resolution where there is more to see.
            width_px: Width of the image at working resolution, in whose pixels the points are given.
            height_px: Height at working resolution.
        """
        height, width = image.shape[:2]
        step = self._multiple_px
        wanted = tuple(step * max(1, round(side * self.config.scale / step)) for side in (width_px, height_px))
        seen = image if self._colour else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if wanted != (width, height):
            shrinks = wanted[0] < width
            seen = cv2.resize(seen, wanted, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        points, descriptors = self._detect(np.asarray(seen, np.uint8))
        factor = np.array([width_px / wanted[0], height_px / wanted[1]])
        return Keypoints(((points + 0.5) * factor - 0.5).astype(np.float32), descriptors)


_Detect: TypeAlias = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float64], NDArray[np.uint8]]]
"""From an image (H, W) or (H, W, 3) to points (N, 2) in its px and descriptors (N, D), the strongest first."""


class _Sift:
    def __init__(self, config: KeypointConfig) -> None:
        keep_freed_memory()
        self._count = config.count
        self._sifts: list[Any] = [
            cv2.SIFT.create(nfeatures=config.count, contrastThreshold=config.contrast / part) for part in (1, 2, 4)
        ]

    def __call__(self, grey: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        for sift in self._sifts:
            found, raw = sift.detectAndCompute(grey, None)
            if len(found) >= min(FEW, self._count):
                break
        if raw is None:
            return np.empty((0, 2)), np.empty((0, SIFT_DIM), np.uint8)
        strongest = np.argsort([-keypoint.response for keypoint in found], kind="stable")[: self._count]
        points = np.array([found[row].pt for row in strongest])
        return points - _SHIFT_PX, root_sift(raw[strongest])


def root_sift(raw: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn SIFT descriptors (N, 128) into RootSIFT in bytes: L1-normalised, square root, times 512."""
    share = raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-12)
    return np.asarray(np.clip(np.rint(np.sqrt(share) * _BYTES_PER_UNIT), 0, 255), np.uint8)
