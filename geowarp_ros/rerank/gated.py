"""GeoWarp where the fast mode is in doubt: the warp is for candidates that the correlation cannot tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from geowarp_ros.model.describer import Query
from geowarp_ros.rerank.fast import FastReranker
from geowarp_ros.rerank.geowarp import GeoWarpReranker
from geowarp_ros.types import Candidate

DOUBT = 0.02
"""Candidates within this of the best score of the fast mode (mean cosine) are decided by the exact mode. Chosen on
the held-out videos and val streets of docs/model_card.md."""


class GatedReranker:
    """Sorts candidates by the fast mode, and those within ``doubt`` of the best by the exact one.

    Args:
        fast: Scores all of them.
        exact: Scores the doubtful ones if there are at least two: two encoder passes each.
        doubt: Maximum difference to the best score of the fast mode (mean cosine).
    """

    def __init__(self, fast: FastReranker, exact: GeoWarpReranker, doubt: float = DOUBT) -> None:
        self._fast = fast
        self._exact = exact
        self._doubt = doubt

    def __call__(self, query: Query, head: Sequence[Candidate], /) -> list[Candidate]:
        """Return the candidates best first, scored by the mode that decided; ties keep their order.

        Where the exact mode decided, the other candidates have no score: theirs is on another scale.
        """
        if not head:
            return []
        ranked = self._fast(query, head)
        values = [self._fast.value(candidate) for candidate in ranked]
        count = sum(value >= values[0] - self._doubt for value in values)
        if count < 2:
            return ranked
        rest = [
            replace(candidate, score=None, score_unit=None, score_unwarped=None) for candidate in ranked[count:]
        ]
        return self._exact(query, ranked[:count]) + rest
