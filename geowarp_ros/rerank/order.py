"""Best first: how scored candidates are put in order."""

from __future__ import annotations

import math
from collections.abc import Iterable

from geowarp_ros.types import Candidate


def best_first(scored: Iterable[Candidate]) -> list[Candidate]:
    """Sort candidates by score, largest first; equals keep their order.

    A candidate without a score, or with NaN (a quad that folded), comes last.
    """
    return sorted(scored, key=lambda candidate: _loss(candidate.score))


def best_with_retrieval(scored: Iterable[Candidate], retrieval_weight: float) -> list[Candidate]:
    """Sort candidates by score and retrieval together, best first.

    The key is the score (a mean cosine) minus the weight times the squared descriptor distance. Useful for an
    encoder whose descriptor separates nearby places better than its dense features do; the paper uses weight 0.
    """
    return sorted(scored, key=lambda c: -mixed_score(c, retrieval_weight))


def mixed_score(candidate: Candidate, retrieval_weight: float) -> float:
    """Return what :func:`best_with_retrieval` sorts by, larger is better; -inf without a score."""
    return -_loss(candidate.score) - retrieval_weight * candidate.distance


def _loss(score: float | None) -> float:
    return math.inf if score is None or math.isnan(score) else -score
