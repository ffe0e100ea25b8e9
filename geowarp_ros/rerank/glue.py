"""Keypoints matched by LightGlue, or by LighterGlue: see :mod:`geowarp_ros.model.learned`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from geowarp_ros.config import LearnedMatcher, LocalizerConfig, VerificationConfig
from geowarp_ros.gallery.alignment.aligned import Photograph
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.keypoints.detector import KeypointConfig, Keypoints
from geowarp_ros.keypoints.learned import from_bytes
from geowarp_ros.keypoints.matching import NO_PAIRS, Compared, Matched, Pairs
from geowarp_ros.model.describer import Query, choose_device
from geowarp_ros.model.learned import LoadedNetwork, load_matcher

Size: TypeAlias = tuple[int, int]
"""Width and height, px."""

SIZES_KEPT = 4096
"""Number of places whose sizes stay in memory, so that no image is decoded again for them."""


def build_glue(gallery: Gallery, keypoints: KeypointConfig, method: str, config: LocalizerConfig) -> Glue:
    """Load the network that the method names.

    Raises:
        ModelError: Its weights are absent or foreign, or kornia is too old.
    """
    loaded = load_matcher(cast(LearnedMatcher, method), config.matcher_weights, choose_device(config.device))
    return Glue(gallery, keypoints, config.position.verification, loaded)


class LightGlue:
    """Pairs the strongest keypoints of two images.

    Args:
        network: kornia's ``LightGlue`` in eval mode.
        count: How many of an image's keypoints are matched.
    """

    def __init__(self, network: Any, count: int) -> None:
        self._network = network
        self._count = count

    @torch.inference_mode()
    def __call__(self, first: Keypoints, first_size: Size, second: Keypoints, second_size: Size) -> Pairs:
        """Match; sizes are of the images whose px the points are in."""
        if not len(first) or not len(second):
            return NO_PAIRS
        both = {"image0": self._tensors(first, first_size), "image1": self._tensors(second, second_size)}
        found: Tensor = self._network(both)["matches"][0]
        return found.cpu().numpy().astype(np.int64)

    def _tensors(self, keypoints: Keypoints, size: Size) -> dict[str, Tensor]:
        """Return what kornia takes; a point that rounding put outside the image is put on its border."""
        device = next(self._network.parameters()).device
        points = np.clip(keypoints.points[: self._count], 0, np.array(size, np.float32))
        return {
            "keypoints": torch.from_numpy(points)[None].to(device),
            "descriptors": torch.from_numpy(from_bytes(keypoints.descriptors[: self._count]))[None].to(device),
            "image_size": torch.tensor([size], device=device),
        }


class Glue:
    """Pairs the strongest keypoints of both by a network, once for the verification and the pose.

    Args:
        gallery: Knows the sizes of its images.
        keypoints: Kind and settings.
        config: How many of an image's keypoints are matched.
        loaded: kornia's ``LightGlue``.
    """

    def __init__(
        self, gallery: Gallery, keypoints: KeypointConfig, config: VerificationConfig, loaded: LoadedNetwork
    ) -> None:
        self.keypoints = keypoints
        self._pair = LightGlue(loaded.network, config.keypoints)
        self._by = f"{loaded.weights}, {config.keypoints}"
        self._size_of_place = lru_cache(SIZES_KEPT)(lambda index: _size(gallery, index))

    def compared(self, query: Query, photograph: Photograph, /) -> Compared:
        """See :class:`geowarp_ros.rerank.verification.Pairing`."""

        def find() -> Matched:
            return Matched(self.pairs(query, photograph.row, photograph.keypoints), photograph.part)

        return query.matched(photograph, self._by, find)

    def pairs(self, query: Query, index: int, place: Keypoints, /) -> Pairs:
        """See :class:`geowarp_ros.rerank.verification.Pairing`."""
        height, width = query.pixels.shape[:2]
        return self._pair(query.keypoints(self.keypoints), (width, height), place, self._size_of_place(index))


def _size(gallery: Gallery, index: int) -> Size:
    """Return width and height of a place's image at working resolution."""
    if (camera := gallery.camera(index)) is not None:
        return camera.width_px, camera.height_px
    height, width = gallery.image(index).shape[:2]
    return width, height
