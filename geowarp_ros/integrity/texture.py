"""Is there anything to recognise in an image? Asked before the network runs. NumPy and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np

from geowarp_ros.config import PositionConfig
from geowarp_ros.types import Image, NoFix

ROWS = 60
"""Height at which texture is measured: what a place is recognised by is coarse, a sensor's noise is not."""


def texture(image: Image) -> float:
    """Contrast of an image's structure: standard deviation of a difference of Gaussians (1 and 3 of ROWS pixels).

    Uniform images have 0, a sensor's noise averages out, and a smooth sky differs little from its own blur: 0.7 at
    the most where photographs of places had 1.1 (dull fields) to 25.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        At least 0, in grey levels of 255.
    """
    height, width = image.shape[:2]
    size = (max(1, round(width * ROWS / height)), ROWS)
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
    grey = small.astype(np.float32)
    return float((cv2.GaussianBlur(grey, (0, 0), 1.0) - cv2.GaussianBlur(grey, (0, 0), 3.0)).std())


def refuse_textureless(image: Image, config: PositionConfig) -> NoFix | None:
    """Return NoFix ``no_texture`` for an image (H, W, 3) in which nothing could be recognised, else None."""
    found = texture(image)
    if found >= config.min_texture:
        return None
    return NoFix("no_texture", f"texture {found:.2f} grey levels, at least {config.min_texture:g} wanted")
