"""Recall of a model on held-out photographs, by the engine of ``geowarp evaluate dataset``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from geowarp_ros.config import parse_config
from geowarp_ros.evaluation.asking import without_itself
from geowarp_ros.gallery.index.indexing import IndexOptions
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.lab.baselines import Method
from geowarp_ros.lab.studies.dataset import Contender, DatasetConfig, Outcome, evaluate_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import Source, SourceImage


@contextmanager
def gallery_of(
    places: Sequence[SourceImage], describer: Describer, progress: Progress = silent
) -> Iterator[Gallery]:
    """Describe photographs as a gallery, searched exactly and deleted afterwards; image files are not copied."""
    source = Source(tuple(places), description="held-out photographs")
    in_bag = any(image.path is None for image in places)
    with TemporaryDirectory() as folder:
        exact = IndexOptions(kind="exact")
        build_gallery(
            source, describer, Path(folder), copy_images=in_bag, keypoints=None, index=exact, progress=progress
        )
        yield Gallery.open(folder, describer.device)


def rank_candidates(
    describer: Describer,
    gallery: Gallery,
    queries: Sequence[SourceImage],
    methods: Sequence[Method],
    candidates: int,
    progress: Progress = silent,
) -> list[Outcome]:
    """Rank the same candidates by each method, by eq. 4 alone; a query that is in the gallery is left out of it.

    Args:
        describer: Model whose encoder made the gallery; its regression may be another.
        gallery: Gallery to search.
        queries: Query images.
        methods: ``none`` (retrieval), ``geowarp``, …
        candidates: Number of candidates P to re-rank, as many as the outcomes hold.
        progress: Shows the queries.
    """
    rerank = {"mode": "exact", "candidates": candidates, "retrieval_weight": 0.0}
    config = parse_config(
        DatasetConfig, {"rerank": methods, "recalls": [candidates], "localizer": {"rerank": rerank}}
    )
    kind = describer.model.config
    contender = Contender("held-out", kind.encoder, kind.aggregation, describer)
    outcomes, _ = evaluate_model(contender, gallery, queries, config, progress, without_itself(gallery))
    return outcomes
