"""One-way homography: the candidate is warped into the query's frame, the query stays as it is.

The role of the geometric matching network in the paper's Table 2 (Rocco, Arandjelović and Sivic, "Convolutional
neural network architecture for geometric matching", CVPR 2017 and TPAMI 2018): one homography, one warped image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from geowarp_ros.errors import ModelError
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geometry import full_frame, quad_from_frame, transform_points, warp
from geowarp_ros.images import to_tensor
from geowarp_ros.model.describer import Query
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.matching import CELLS, similarity
from geowarp_ros.rerank.order import best_with_retrieval
from geowarp_ros.types import Candidate


def one_way_quad(quad_q: Tensor, quad_p: Tensor) -> Tensor:
    """Return the candidate's quad (B, 4, 2) that shows what the query's whole frame shows.

    Both quads fill one common view, so H_p · H_q⁻¹ takes the query's frame to the candidate's.

    Args:
        quad_q: (B, 4, 2) of the query, see :mod:`geowarp_ros.geometry`.
        quad_p: (B, 4, 2) of the candidate.
    """
    h_q, h_p = quad_from_frame(quad_q), quad_from_frame(quad_p)
    inverse, _ = torch.linalg.inv_ex(h_q)  # no host synchronisation; a folded quad gives inf, and scores last
    return transform_points(h_p @ inverse, full_frame(quad_q.shape[0], quad_q))


class OneWayReranker:
    """Sorts candidates by eq. 4 of the query and the warped candidate, per cell: P encoder passes.

    Args:
        gallery: Source of the candidates' images and local features.
        model: Network that describes and warps.
        retrieval_weight: Weight of the descriptor distance in the order.

    Raises:
        ModelError: The model has no warping regression.
    """

    def __init__(self, gallery: Gallery, model: GeoWarp, retrieval_weight: float = 0.0) -> None:
        if model.regression is None:
            raise ModelError("the model has no warping regression; re-rank with 'none', or train or import one")
        self._gallery = gallery
        self._model = model
        self._retrieval_weight = retrieval_weight

    @torch.inference_mode()
    def __call__(self, query: Query, head: Sequence[Candidate], /) -> list[Candidate]:
        """Return the candidates with scores and the one quad, best first; ties keep retrieval's order."""
        if not head:
            return []
        f_p = torch.from_numpy(self._gallery.local_features([candidate.index for candidate in head]))
        f_p = f_p.to(query.image.device).float()
        f_q = query.local_features.float().expand_as(f_p)
        quads = one_way_quad(*self._model.regress(f_q, f_p))
        unwarped = similarity(f_q, f_p).tolist()
        scored = [
            replace(
                candidate,
                score=self._score(query, candidate.index, quads[row : row + 1]),
                score_unit="mean cosine",
                score_unwarped=unwarped[row] / CELLS,
                quad_p=quads[row].cpu().numpy(),
            )
            for row, candidate in enumerate(head)
        ]
        return best_with_retrieval(scored, self._retrieval_weight)

    def _score(self, query: Query, index: int, quad_p: Tensor) -> float:
        image = to_tensor(self._gallery.image(index), query.image.device)
        return float(similarity(query.local_features, self._model.local_features(warp(image, quad_p)))) / CELLS
