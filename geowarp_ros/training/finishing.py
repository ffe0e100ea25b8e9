"""A model's last step: how much retrieval counts in re-ranking, measured on places that nothing was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geowarp_ros.model.describer import Describer, Warper
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.matching import CELLS
from geowarp_ros.progress import Progress, silent
from geowarp_ros.training.recall import Shortlists, recall_at, retrieve, score
from geowarp_ros.training.retrieval import Places
from geowarp_ros.types import FloatArray

WEIGHTS = (0.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Of the squared descriptor distance against the mean cosine; 0 is the paper's order."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """Recall@1 of one set of held-out places, percent.

    Attributes:
        queries: How many.
        retrieval: Without re-ranking.
        reranked: (W,) with GeoWarp, at each weight.
        best_possible: Recall@P, what a perfect re-ranking of the P candidates could reach.
    """

    queries: int
    retrieval: float
    reranked: FloatArray
    best_possible: float


def weigh_retrieval(
    model: GeoWarp,
    validation: Sequence[tuple[Places, float]],
    *,
    weights: Sequence[float] = WEIGHTS,
    candidates: int = 5,
    most_queries: int = 0,
    progress: Progress = silent,
) -> list[Weighed]:
    """Measure re-ranking at each weight of retrieval on each set.

    Args:
        model: With a regression, at its working resolution; moved to the CPU.
        validation: Held-out places, each with the radius (m) within which a candidate is right.
        weights: To be tried.
        candidates: How many are re-ranked (paper sec. 4.1).
        most_queries: Of each set, evenly spread; 0: all.
        progress: Shows the images.
    """
    describer = Describer(model, "cpu")
    warper = Warper(describer)
    found = []
    for places, radius_m in validation:
        images = places.photographs.images
        step = max(1, len(places.queries) // most_queries) if most_queries else 1
        queries = [images[row] for row in places.queries[::step]]
        gallery = [images[row] for row in places.gallery]
        shortlists = retrieve(describer, queries, gallery, candidates, progress=progress)
        warped, _ = score(shortlists, describer, warper, progress)
        found.append(_weighed(shortlists, warped, radius_m, weights))
    return found


def best_weight(found: Sequence[Weighed], weights: Sequence[float] = WEIGHTS) -> float:
    """Return the weight of the best mean Recall@1 over the sets; of equals the smallest, nearest to the paper."""
    return float(weights[int(np.argmax(np.mean([each.reranked for each in found], axis=0)))])


def _weighed(found: Shortlists, warped: FloatArray, radius_m: float, weights: Sequence[float]) -> Weighed:
    reranked = [
        recall_at(found.error_m, [radius_m], warped / CELLS - weight * found.distance)[0] for weight in weights
    ]
    return Weighed(
        queries=len(found.queries),
        retrieval=float(recall_at(found.error_m, [radius_m])[0]),
        reranked=np.array(reranked),
        best_possible=float(recall_at(found.error_m, [radius_m], first=found.error_m.shape[1])[0]),
    )
