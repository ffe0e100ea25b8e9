"""GeoWarp's score without its warp: dense features alone (paper Table 3, "local" without losses)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from geowarp_ros.gallery.store import Gallery
from geowarp_ros.model.describer import Query
from geowarp_ros.model.matching import CELLS, similarity
from geowarp_ros.rerank.order import best_with_retrieval
from geowarp_ros.types import Candidate


class UnwarpedReranker:
    """Sorts candidates by eq. 4 of the stored local features, per cell; no encoder pass."""

    def __init__(self, gallery: Gallery, retrieval_weight: float = 0.0) -> None:
        self._gallery = gallery
        self._retrieval_weight = retrieval_weight

    @torch.inference_mode()
    def __call__(self, query: Query, head: Sequence[Candidate], /) -> list[Candidate]:
        """Return the candidates with scores, best first; ties keep retrieval's order."""
        if not head:
            return []
        f_p = torch.from_numpy(self._gallery.local_features([candidate.index for candidate in head]))
        f_q = query.local_features.float()
        scores = [score / CELLS for score in similarity(f_q, f_p.to(f_q.device).float()).tolist()]
        return best_with_retrieval(
            (
                replace(c, score=s, score_unit="mean cosine", score_unwarped=s)
                for c, s in zip(head, scores, strict=True)
            ),
            self._retrieval_weight,
        )
