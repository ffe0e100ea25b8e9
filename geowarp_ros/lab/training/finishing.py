"""A model's last step: a mean of states, and how much retrieval counts, measured on places never trained on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.training.data import is_query, read_photographs
from geowarp_ros.lab.training.grounds import Ground
from geowarp_ros.lab.training.recall import Shortlists, recall_at, retrieve, score
from geowarp_ros.model.describer import Describer, Warper
from geowarp_ros.model.geowarp import GeoWarp
from geowarp_ros.model.matching import CELLS
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import SourceImage
from geowarp_ros.types import FloatArray

WEIGHTS = (0.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Of the squared descriptor distance against the mean cosine; 0 is the paper's order."""


def mean_model(models: Sequence[GeoWarp]) -> GeoWarp:
    """Return the mean of the weights of models from one training's way (Izmailov et al., UAI 2018).

    Raises:
        TrainingError: They are of different architectures.
    """
    first, *others = models
    for other in others:
        for part in ("encoder", "aggregation", "regression"):
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


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Images that nothing was trained on, and where they are looked for.

    Attributes:
        queries: Each is asked about; one that stands in the gallery is no candidate of its own.
        gallery: To search in.
        radius_m: A candidate this near is right.
    """

    queries: Sequence[SourceImage]
    gallery: Sequence[SourceImage]
    radius_m: float


def read_held_out(grounds: Sequence[Ground], data: Path) -> dict[str, HeldOut]:
    """Return the validation of each ground that has one, by path.

    With ``hold_out`` every held-out image is looked for among them and all that was trained on: there are the
    look-alikes. With ``val_split`` its queries are looked for in its gallery.

    Raises:
        TrainingError: No ground has any.
    """
    found = {}
    for ground in grounds:
        source = data / ground.path
        if ground.hold_out:
            queries = read_photographs([source], None, only=ground.hold_out)
            trained = read_photographs([source], ground.split or None, hold_out=ground.hold_out)
            found[ground.path] = HeldOut(queries, (*trained, *queries), ground.val_radius_m)
        elif ground.val_split:
            images = read_photographs([source], ground.val_split)
            asked = [image for image in images if is_query(image.split)]
            gallery = [image for image in images if not is_query(image.split)]
            found[ground.path] = HeldOut(asked or images, gallery or images, ground.val_radius_m)
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
    """Measure re-ranking at each weight of retrieval on each set.

    Args:
        model: With a regression, at its working resolution; moved to ``device``.
        validation: Held-out images.
        weights: To be tried.
        candidates: How many are re-ranked (paper sec. 4.1).
        most_queries: Of each set, evenly spread; 0: all.
        device: That computes.
        progress: Shows the images.
    """
    describer = Describer(model, device)
    warper = Warper(describer)
    found = []
    for held_out in validation:
        step = max(1, len(held_out.queries) // most_queries) if most_queries else 1
        queries = held_out.queries[::step]
        shortlists = retrieve(describer, queries, held_out.gallery, candidates, progress=progress)
        warped, _ = score(shortlists, describer, warper, progress)
        found.append(_weighed(shortlists, warped, held_out.radius_m, weights))
    return found


def best_weight(found: Sequence[Weighed], weights: Sequence[float] = WEIGHTS) -> float:
    """Return the weight with which re-ranking gains most, or loses least, on the set where it does worst.

    A re-ranking must not lose to retrieval anywhere; a mean over sets would let one pay for another. Of equals the
    best mean counts, then the smallest weight, which is nearest to the paper.
    """
    gains = np.array([each.reranked - each.retrieval for each in found])
    order = np.lexsort((np.arange(len(weights)), -gains.mean(axis=0), -gains.min(axis=0)))
    return float(weights[order[0]])


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
