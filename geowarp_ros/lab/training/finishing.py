"""Final step of a model: weight averaging, and the retrieval weight chosen on held-out places."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from geowarp_ros.errors import TrainingError
from geowarp_ros.evaluation.sets import spread
from geowarp_ros.lab.studies.dataset import Outcome
from geowarp_ros.lab.studies.metrics import recall_at
from geowarp_ros.lab.training.data import is_query, read_photographs
from geowarp_ros.lab.training.grounds import Ground, validation_images
from geowarp_ros.lab.training.recall import gallery_of, rank_candidates
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import SourceImage
from geowarp_ros.rerank.order import mixed_score
from geowarp_ros.types import FloatArray

WEIGHTS = (0.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Candidate retrieval weights (mean cosine per squared descriptor distance); 0: as in the paper."""


def mean_model(models: Sequence[GeoWarp]) -> GeoWarp:
    """Average the weights of models of one training (Izmailov et al., UAI 2018).

    Raises:
        TrainingError: The architectures differ.
    """
    first, *others = models
    for other in others:
        for part in ("encoder", "aggregation", "projection", "regression"):
            if (own := getattr(first.config, part)) != (its := getattr(other.config, part)):
                raise TrainingError(f"no mean of different models: {part} = {own!r} and {its!r}")
    states = [model.state_dict() for model in models]
    mean = copy.deepcopy(first)
    mean.load_state_dict(
        {
            key: torch.stack([state[key] for state in states]).mean(dim=0) if value.is_floating_point() else value
            for key, value in states[0].items()
        }
    )
    return mean


@dataclass(frozen=True, slots=True)
class Weighed:
    """Recall@1 (percent) on one set of held-out places.

    Attributes:
        queries: Number of queries.
        retrieval: Without re-ranking.
        reranked: (W,) re-ranked with each weight.
        best_possible: Recall@P, the upper bound of re-ranking P candidates.
    """

    queries: int
    retrieval: float
    reranked: FloatArray
    best_possible: float


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out queries and the gallery to search.

    Attributes:
        queries: Queries; one that is also in the gallery is excluded from its own candidates.
        gallery: Gallery images.
        radius_m: Maximum distance of a correct candidate.
    """

    queries: Sequence[SourceImage]
    gallery: Sequence[SourceImage]
    radius_m: float


def read_held_out(grounds: Sequence[Ground], data: Path) -> dict[str, HeldOut]:
    """Return the held-out set of each ground that has one, by path.

    Images of ``hold_out`` are searched among themselves and all training images, which include the look-alikes;
    the queries of ``val_split`` are searched in its gallery.

    Raises:
        TrainingError: No ground has any.
    """
    found = {}
    for ground in grounds:
        images = validation_images(ground, data)
        if ground.hold_out:
            trained = read_photographs([data / ground.path], ground.split or None, hold_out=ground.hold_out)
            found[ground.path] = HeldOut(images, (*trained, *images), ground.val_radius_m)
        elif images:
            queries = [image for image in images if is_query(image.split)]
            gallery = [image for image in images if not is_query(image.split)]
            found[ground.path] = HeldOut(queries or images, gallery or images, ground.val_radius_m)
    if not found:
        raise TrainingError("no ground has hold_out or val_split: nothing to choose the weight by")
    return found


def weigh_retrieval(
    model: GeoWarp,
    validation: Sequence[HeldOut],
    *,
    weights: Sequence[float] = WEIGHTS,
    candidates: int = 5,
    most_queries: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> list[Weighed]:
    """Measure re-ranking with each retrieval weight on each set.

    Args:
        model: Model with a regression; moved to ``device``.
        validation: Held-out sets.
        weights: Retrieval weights to try.
        candidates: Re-ranked candidates (paper sec. 4.1).
        most_queries: Maximum queries per set, evenly spread; 0: all.
        device: Device.
        progress: Progress display.
    """
    describer = Describer(model, device)
    found = []
    for held_out in validation:
        queries = spread(held_out.queries, most_queries)
        with gallery_of(held_out.gallery, describer, progress) as gallery:
            plain, warped = rank_candidates(describer, gallery, queries, ("none", "geowarp"), candidates, progress)
        reranked = [recall_at(_errors_of_first(warped, weight), 1, held_out.radius_m) for weight in weights]
        retrieval, best_possible = (
            recall_at(plain.error_m, first, held_out.radius_m) for first in (1, candidates)
        )
        found.append(Weighed(len(plain.queries), retrieval, np.array(reranked), best_possible))
    return found


def best_weight(found: Sequence[Weighed], weights: Sequence[float] = WEIGHTS) -> float:
    """Return the weight with the largest worst-case gain of re-ranking over the sets.

    Ties are broken by the larger mean gain, then by the smaller weight.
    """
    gains = np.array([each.reranked - each.retrieval for each in found])
    order = np.lexsort((np.arange(len(weights)), -gains.mean(axis=0), -gains.min(axis=0)))
    return float(weights[order[0]])


def _errors_of_first(warped: Outcome, weight: float) -> FloatArray:
    """(Q, 1) errors of the candidates that come first with another retrieval weight."""
    first = [
        max(range(len(ranked)), key=lambda rank: mixed_score(ranked[rank], weight)) for ranked in warped.ranked
    ]
    return np.take_along_axis(warped.error_m, np.array(first)[:, None], axis=1)
