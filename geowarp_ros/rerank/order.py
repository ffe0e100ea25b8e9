"""Best first: how scored candidates are put in order."""

from __future__ import annotations

import math
from collections.abc import Iterable

from geowarp_ros.types import Candidate


def best_first(scored: Iterable[Candidate]) -> list[Candidate]:
    """Sort candidates by score, largest first; equals keep their order.

    A candidate without a score, or with NaN (a quad that folded), comes last.
    """
    return sorted(scored, key=_rank)


def _rank(candidate: Candidate) -> float:
    score = candidate.score
    return math.inf if score is None or math.isnan(score) else -score
