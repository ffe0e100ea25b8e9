"""Keypoints of networks, by kornia's implementations and weights that the user brings: nothing is downloaded here.

XFeat: Potje et al., "XFeat: accelerated features for lightweight image matching", CVPR 2024. ALIKED: Zhao et al.,
"ALIKED: a lighter keypoint and descriptor extraction network via deformable transformation", IEEE TIM 2023. DISK:
Tyszkiewicz et al., "DISK: learning local features with policy gradient", NeurIPS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

LearnedKind: TypeAlias = Literal["xfeat", "aliked", "disk"]

_BYTES_PER_UNIT = 256.0
"""A descriptor has unit length and signs; its components lie within ± 0.5, but for one in some thousands."""
_ZERO = 128


@dataclass(frozen=True, slots=True)
class Form:
    """What a kind of learned keypoints is like.

    Attributes:
        name: As its authors write it.
        dim: Number of a descriptor's components.
        scale: Size at which a gallery's are detected, as a multiple of the working resolution.
        multiple_px: Sides of the images that the network takes are multiples of this; others it would resize.
        colour: Whether it sees colours.
        detect: From the network, an image (1, C, H, W) in 0..1 and a number to points, descriptors and scores.
    """

    name: str
    dim: int
    scale: float
    multiple_px: int
    colour: bool
    detect: Callable[[Any, Any, int], tuple[Any, Any, Any]]


def _by_xfeat(network: Any, image: Any, count: int) -> tuple[Any, Any, Any]:
    found = network.detectAndCompute(image, top_k=count)[0]
    return found["keypoints"], found["descriptors"], found["scores"]


def _by_aliked(network: Any, image: Any, count: int) -> tuple[Any, Any, Any]:
    network.dkd.top_k = count  # the same in all threads of a gallery and of its queries
    found = network(image)[0]
    return found.keypoints, found.descriptors, found.keypoint_scores


def _by_disk(network: Any, image: Any, count: int) -> tuple[Any, Any, Any]:
    found = network(image, n=count, pad_if_not_divisible=True)[0]
    return found.keypoints, found.descriptors, found.detection_scores


FORMS: dict[LearnedKind, Form] = {
    "xfeat": Form("XFeat", 64, 2.0, 32, False, _by_xfeat),  # on whole pixels
    "aliked": Form("ALIKED", 128, 1.5, 1, True, _by_aliked),
    "disk": Form("DISK", 128, 1.5, 1, True, _by_disk),  # on whole pixels
}

_networks: dict[str, Any] = {}


def register(weights: str, network: Any) -> None:
    """Keep a network for this process's detectors.

    Args:
        weights: Fingerprint of its weights.
        network: kornia's ``XFeat``, ``ALIKED`` or ``DISK``, in eval mode.
    """
    _networks[weights] = network


def learned(
    kind: LearnedKind, weights: str, count: int
) -> Callable[[NDArray[np.uint8]], tuple[NDArray[np.float64], NDArray[np.uint8]]]:
    """Return what detects up to ``count`` keypoints in an image, the strongest first.

    It takes (H, W), or (H, W, 3) where the network sees colours, and returns points (N, 2) in px and descriptors
    (N, D).

    Raises:
        ModelError: The weights were not loaded.
    """
    form = FORMS[kind]
    if weights not in _networks:
        raise ModelError(
            f"keypoints are {form.name}'s with weights {weights}, which are not loaded: give their file"
            " (keypoint_weights, --keypoint-weights)"
        )
    network = _networks[weights]

    def detect(image: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        import torch

        device = next(network.parameters()).device
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).float() / 255
        pixels = pixels.permute(2, 0, 1)[None] if form.colour else pixels[None, None]
        with torch.inference_mode():
            points, descriptors, scores = form.detect(network, pixels, count)
            best = scores.argsort(descending=True, stable=True)
        return points[best].double().cpu().numpy(), in_bytes(descriptors[best].float().cpu().numpy())

    return detect


def in_bytes(descriptors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn unit vectors (N, D) into bytes; distances between them stay what they were, times 256."""
    return np.asarray(np.clip(np.rint(descriptors * _BYTES_PER_UNIT) + _ZERO, 0, 255), np.uint8)


def from_bytes(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the unit vectors (N, D) that :func:`in_bytes` stored."""
    plain = (descriptors.astype(np.float32) - _ZERO) / _BYTES_PER_UNIT
    return np.asarray(plain / np.maximum(np.linalg.norm(plain, axis=1, keepdims=True), 1e-12), np.float32)
