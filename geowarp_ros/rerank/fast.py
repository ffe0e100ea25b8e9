"""GeoWarp's fast mode: the correlation decides by itself, without a warp and without an encoder pass.

The query's local features come from its retrieval pass, the candidates' from the gallery. Two things of their
correlation (eq. 6, before it is normalised) are read: how like the best matches are, and whether matches that are
neighbours in the query moved alike. A warp would bring both images into line first; here each cell looks for its
partner anywhere, so there is nothing to bring into line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from geowarp_ros.model import GRID
from geowarp_ros.model.describer import Query
from geowarp_ros.model.matching import CELLS
from geowarp_ros.rerank.order import best_with_retrieval, mixed_score
from geowarp_ros.types import Candidate

if TYPE_CHECKING:
    from geowarp_ros.gallery.store import Gallery

REACH = 4
"""Matches whose cells in the query are at most so far apart, in x and in y, are neighbours."""

AGREEMENT = 1
"""Neighbours agree when their displacements differ by at most so many cells, in x and in y."""

COHERENCE_SHARE = 0.1
"""Weight of the coherence (0..1) beside the likeness (a mean cosine)."""

RETRIEVAL_SHARE = 0.3
"""This score spreads about a third as wide over candidates as that of eq. 4: retrieval weighs less, too."""

_ROWS, _COLUMNS = (values.astype(np.int8) for values in np.divmod(np.arange(CELLS), GRID))
_NEIGHBOURS = (abs(_ROWS[:, None] - _ROWS) <= REACH) & (abs(_COLUMNS[:, None] - _COLUMNS) <= REACH)


class FastReranker:
    """Sorts candidates by :func:`likeness` and :func:`coherence` of the stored local features.

    Args:
        gallery: Source of the candidates' local features.
        retrieval_weight: Weight of the descriptor distance on the scale of the exact mode.
    """

    def __init__(self, gallery: Gallery, retrieval_weight: float = 0.0) -> None:
        self._gallery = gallery
        self._retrieval_weight = retrieval_weight * RETRIEVAL_SHARE

    @torch.inference_mode()
    def __call__(self, query: Query, head: Sequence[Candidate], /) -> list[Candidate]:
        """Return the candidates with scores, best first; ties keep retrieval's order."""
        if not head:
            return []
        stored = self._gallery.local_features([candidate.index for candidate in head])
        f_q = query.local_features[0].flatten(1).float()
        f_p = torch.from_numpy(stored).to(f_q.device).float().flatten(2)
        scored = [
            replace(
                candidate,
                score=likeness(products) + COHERENCE_SHARE * coherence(products),
                score_unit="correlation",
                score_unwarped=float(products.trace()) / CELLS,
            )
            for candidate, products in zip(head, (f_q.T @ f_p).cpu().numpy(), strict=True)
        ]
        return best_with_retrieval(scored, self._retrieval_weight)

    def value(self, candidate: Candidate) -> float:
        """Return the sort key of a candidate that this re-ranker scored, a mean cosine."""
        return mixed_score(candidate, self._retrieval_weight)


def likeness(products: NDArray[np.float32]) -> float:
    """Mean over the cells of both images of the cosine with the best partner.

    Args:
        products: (225, 225), cosine of the query's cell (row) with the candidate's (column); cells row by row.
    """
    return float(products.max(axis=1).mean() + products.max(axis=0).mean()) / 2


def coherence(products: NDArray[np.float32]) -> float:
    """Share of neighbouring mutual matches that moved alike, 0..1; 0 where no match has a neighbour.

    Args:
        products: As in :func:`likeness`.
    """
    partner = products.argmax(axis=1)
    cells = np.flatnonzero(products.argmax(axis=0)[partner] == np.arange(CELLS))  # each the other's best
    partners = partner[cells]
    down, right = _ROWS[partners] - _ROWS[cells], _COLUMNS[partners] - _COLUMNS[cells]
    neighbours = _NEIGHBOURS[np.ix_(cells, cells)]
    alike = abs(down[:, None] - down) <= AGREEMENT
    alike &= abs(right[:, None] - right) <= AGREEMENT
    alike &= neighbours
    pairs = np.count_nonzero(neighbours) - len(cells)  # a match is no neighbour of itself
    return (np.count_nonzero(alike) - len(cells)) / pairs if pairs else 0.0
