"""Keypoints of XFeat (Potje et al., "XFeat: accelerated features for lightweight image matching", CVPR 2024).

Through kornia's implementation, with weights that the user brings: nothing is downloaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

DESCRIPTOR_DIM = 64
SCALE = 2.0
"""Size at which a gallery's are detected: they lie on whole pixels."""
MULTIPLE_PX = 32
"""Sides of the images that the network takes are multiples of this; others it would resize."""
_BYTES_PER_UNIT = 256.0
"""A descriptor has unit length and signs; its components lie within ± 0.5, but for one in some thousands."""
_ZERO = 128

_networks: dict[str, Any] = {}


def register(weights: str, network: Any) -> None:
    """Keep a network for this process's detectors.

    Args:
        weights: Fingerprint of its weights.
        network: kornia's ``XFeat``.
    """
    _networks[weights] = network


def xfeat(
    weights: str, count: int
) -> Callable[[NDArray[np.uint8]], tuple[NDArray[np.float64], NDArray[np.uint8]]]:
    """Return what detects up to ``count`` keypoints in a grey image: points (N, 2) in its px, descriptors (N, 64).

    Raises:
        ModelError: The weights were not loaded.
    """
    if weights not in _networks:
        raise ModelError(
            f"keypoints are XFeat's with weights {weights}, which are not loaded: give their file"
            " (keypoint_weights, --keypoint-weights)"
        )
    network = _networks[weights]

    def detect(grey: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        import torch

        image = torch.from_numpy(grey)[None, None].float() / 255
        found = network.detectAndCompute(image, top_k=count)[0]
        return found["keypoints"].double().numpy(), in_bytes(found["descriptors"].numpy())

    return detect


def in_bytes(descriptors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn unit vectors (N, D) into bytes; distances between them stay what they were, times 256."""
    return np.asarray(np.clip(np.rint(descriptors * _BYTES_PER_UNIT) + _ZERO, 0, 255), np.uint8)
