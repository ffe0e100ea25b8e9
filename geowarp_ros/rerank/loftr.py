"""Matches without keypoints, by LoFTR: see :mod:`geowarp_ros.model.learned`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import torch
from torch import Tensor

from geowarp_ros.config import LocalizerConfig
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.model.describer import Query, choose_device
from geowarp_ros.model.learned import LoadedNetwork, load_matcher
from geowarp_ros.rerank.verification import Points
from geowarp_ros.types import Image

_MULTIPLE_PX = 8
"""kornia before 0.9 takes no other sides."""


def build_loftr(gallery: Gallery, config: LocalizerConfig) -> LoFTRMatcher:
    """Load the network.

    Raises:
        ModelError: Its weights are absent or foreign.
    """
    return LoFTRMatcher(gallery, load_matcher("loftr", config.matcher_weights, choose_device(config.device)))


class LoFTRMatcher:
    """LoFTR on grey images at working resolution; points in px.

    Its points are no keypoints, so that nothing ties them to what an alignment has seen: a pose rests on the
    keypoints that the gallery stores.

    Args:
        gallery: Source of the candidates' images.
        loaded: kornia's ``LoFTR``.
    """

    def __init__(self, gallery: Gallery, loaded: LoadedNetwork) -> None:
        self._gallery = gallery
        self._network = loaded.network

    @torch.inference_mode()
    def __call__(self, query: Query, indices: Sequence[int], /) -> Iterator[tuple[Points, Points]]:
        """Yield the matched points."""
        grey_q = self._grey(query.pixels)
        for index in indices:
            found = self._network({"image0": grey_q, "image1": self._grey(self._gallery.image(index))})
            yield found["keypoints0"].cpu().numpy(), found["keypoints1"].cpu().numpy()

    def _grey(self, image: Image) -> Tensor:
        height, width = (side - side % _MULTIPLE_PX for side in image.shape[:2])
        device = next(self._network.parameters()).device
        grey = cv2.cvtColor(image[:height, :width], cv2.COLOR_RGB2GRAY)
        return torch.from_numpy(grey)[None, None].to(device).float() / 255
