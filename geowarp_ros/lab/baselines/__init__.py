"""Re-rankers and descriptors that GeoWarp is compared with; none of them runs in the node."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from pydantic import Field

from geowarp_ros.config import LearnedMatcher, LocalizerConfig, RerankMethod, Section
from geowarp_ros.rerank import Reranker, build_reranker

if TYPE_CHECKING:
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.model.describer import Describer

Baseline: TypeAlias = Literal["one-way", "qe-dba", "diffusion", "dense-ransac"]
Method: TypeAlias = Literal[RerankMethod, Baseline]
"""Everything that ``geowarp evaluate dataset --rerank`` compares."""

SECOND_SEARCHES = ("qe-dba", "diffusion")
"""Methods that rank all candidates, not the first few; complete with the whole gallery as candidates."""

WITH_WEIGHTS = ("xfeat", "aliked", "disk", *get_args(LearnedMatcher))
"""Methods that need weights of others; ``--rerank all`` leaves them out."""

WARPING = ("geowarp", "one-way")
"""Methods that need a warping regression."""


class ExpansionConfig(Section):
    """Query expansion and database-side augmentation (qe-dba)."""

    neighbours: int = Field(3, ge=0, le=1000, description="Number of candidates averaged with the query; 0: none.")
    augment_neighbours: int = Field(
        3, ge=0, le=1000, description="Number of nearest places averaged with each gallery place; 0: none."
    )
    alpha: float = Field(3.0, ge=0.0, le=100.0, description="Weight of a neighbour: its cosine to this power.")


class DiffusionConfig(Section):
    """Diffusion on the gallery's neighbour graph."""

    neighbours: int = Field(
        10, ge=1, le=1000, description="Number of neighbours per place; only mutual ones are kept."
    )
    query_neighbours: int = Field(3, ge=1, le=1000, description="Number of candidates it starts from.")
    alpha: float = Field(0.9, ge=0.0, lt=1.0, description="Share that is diffused in each step; 0: none.")
    gamma: float = Field(3.0, gt=0.0, le=100.0, description="Weight of an edge: its cosine to this power.")


class BaselinesConfig(Section):
    """Options of the baselines."""

    expansion: ExpansionConfig = ExpansionConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    threshold_cells: float = Field(
        1.0,
        gt=0.0,
        le=15.0,
        description="dense-ransac: maximum reprojection error of an inlier, in cells of the 15×15 local features.",
    )


def build_method(
    method: Method,
    config: LocalizerConfig,
    baselines: BaselinesConfig,
    gallery: Gallery,
    describer: Describer,
    without: Collection[int] = (),
) -> Reranker:
    """Return a re-ranker, the product's or a baseline; only its own imports are made.

    Args:
        method: Its name.
        config: Settings of the localizer.
        baselines: Options of the baselines.
        gallery: Gallery of the candidates.
        describer: Model that made the gallery.
        without: Gallery rows that must not help the others; read by :data:`SECOND_SEARCHES`.

    Raises:
        ModelError: The method needs a warping regression or weights that are absent or foreign.
    """
    if method in get_args(RerankMethod):
        rerank = config.rerank.model_copy(update={"method": method})
        return build_reranker(config.model_copy(update={"rerank": rerank}), gallery, describer)
    if method == "one-way":
        from geowarp_ros.lab.baselines.one_way import OneWayReranker

        asked = config.rerank.retrieval_weight
        weight = describer.model.config.retrieval_weight if asked < 0 else asked
        return OneWayReranker(gallery, describer.network, weight)
    if method == "qe-dba":
        from geowarp_ros.lab.baselines.expansion import QueryExpansion

        return QueryExpansion(gallery, baselines.expansion, without)
    if method == "diffusion":
        from geowarp_ros.lab.baselines.diffusion import Diffusion

        return Diffusion(gallery, baselines.diffusion, without)
    from geowarp_ros.lab.baselines.dense import DenseMatcher
    from geowarp_ros.rerank.verification import VerifiedReranker

    return VerifiedReranker(DenseMatcher(gallery), baselines.threshold_cells)
