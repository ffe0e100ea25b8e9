"""Re-ranking as in the published implementation (Berton et al., ICCV 2021), as a run-time baseline.

Per candidate: image file decoded, four encoder passes, homographies by SVD, NCHW layout, no fusion. Scores equal
those of the exact mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from kornia.geometry.transform import homography_warp
from torch import Tensor

from geowarp_ros.geometry import full_frame
from geowarp_ros.images import read_image, to_tensor
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.matching import correlate, pool_local_features, similarity
from geowarp_ros.types import Image


def homography_by_svd(quad: Tensor) -> Tensor:
    """Return the homography (B, 3, 3) from the full frame to ``quad`` (B, 4, 2) by DLT."""
    x, y = full_frame(len(quad), quad).unbind(-1)
    u, v = quad.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y, -u], dim=-1)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y, -v], dim=-1)
    _, _, vh = torch.linalg.svd(torch.cat([rows_u, rows_v], dim=1), full_matrices=True)
    homography: Tensor = vh[:, -1].reshape(-1, 3, 3)
    return homography


class ReferenceWay:
    """Scores a query against candidate image files.

    Args:
        model: Unfused model on its device.
    """

    def __init__(self, model: GeoWarp) -> None:
        if model.regression is None:
            raise ValueError("the reference implementation needs a model with a warping regression")
        self._model = model.eval()
        self._regression = model.regression
        self._device = next(model.parameters()).device

    @torch.inference_mode()
    def __call__(self, image: Image, paths: Sequence[Path]) -> list[float]:
        """Return the score (eq. 4) of each candidate."""
        return [
            self._pair(to_tensor(image, self._device), to_tensor(read_image(path), self._device)) for path in paths
        ]

    def _pair(self, image_q: Tensor, image_p: Tensor) -> float:
        f_q, f_p = self._local(image_q), self._local(image_p)
        qp, pq = self._regression(correlate(f_q, f_p)), self._regression(correlate(f_p, f_q))
        quad_q, quad_p = (qp[:, :4] + pq[:, 4:]) / 2, (qp[:, 4:] + pq[:, :4]) / 2
        warped_q, warped_p = self._warp(image_q, quad_q), self._warp(image_p, quad_p)
        return float(similarity(self._local(warped_q), self._local(warped_p)))

    def _warp(self, image: Tensor, quad: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        warped: Tensor = homography_warp(image, homography_by_svd(quad), (height, width))
        return warped

    def _local(self, image: Tensor) -> Tensor:
        feature_map: Tensor = self._model.encoder(image)
        return pool_local_features(feature_map, self._model.projection)
