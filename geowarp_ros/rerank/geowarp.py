"""GeoWarp's re-ranking: warp both views to a common viewpoint, compare dense features (paper sec. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from geowarp_ros.model.describer import Query, Warper
from geowarp_ros.model.matching import CELLS
from geowarp_ros.rerank.order import best_with_retrieval
from geowarp_ros.types import Candidate

if TYPE_CHECKING:
    from geowarp_ros.gallery.store import Gallery


class GeoWarpReranker:
    """Sorts candidates by the score of eq. 4 per cell.

    The candidates' local features and images come from the gallery, the query's from its retrieval pass: for P
    candidates the encoder sees the 2·P warped images and nothing else.

    Args:
        gallery: Source of the candidates.
        warper: Warps and compares a pair.
        retrieval_weight: Weight of the descriptor distance, see :func:`best_with_retrieval`.
    """

    def __init__(self, gallery: Gallery, warper: Warper, retrieval_weight: float = 0.0) -> None:
        self._gallery = gallery
        self._warper = warper
        self._retrieval_weight = retrieval_weight

    def __call__(self, query: Query, head: Sequence[Candidate], /) -> list[Candidate]:
        """Return the candidates with scores and quads, best first; ties keep retrieval's order."""
        if not head:
            return []
        indices = [candidate.index for candidate in head]
        images = [self._gallery.image(index) for index in indices]
        pairs = self._warper(query, images, self._gallery.local_features(indices))
        scored = [
            replace(
                candidate,
                score=float(pairs.score[row]) / CELLS,
                score_unit="mean cosine",
                score_unwarped=float(pairs.score_unwarped[row]) / CELLS,
                quad_q=pairs.quads_q[row],
                quad_p=pairs.quads_p[row],
            )
            for row, candidate in enumerate(head)
        ]
        return best_with_retrieval(scored, self._retrieval_weight)
