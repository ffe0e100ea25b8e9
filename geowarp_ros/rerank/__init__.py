"""The re-rankers: the first candidates in, the same candidates out, scored and best first."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from geowarp_ros.config import LocalizerConfig, RerankConfig
from geowarp_ros.types import Candidate

if TYPE_CHECKING:
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.model.describer import Describer, Query


_log = logging.getLogger(__name__)


class Reranker(Protocol):
    """Compares the query with each candidate more closely than retrieval did."""

    def __call__(self, query: Query, head: Sequence[Candidate], /) -> list[Candidate]:
        """Return the same candidates with scores, best first; ties keep their order."""


class RetrievalOrder:
    """The null re-ranker: the order of the descriptor distances."""

    def __call__(self, query: Query, head: Sequence[Candidate], /) -> list[Candidate]:
        """Return the candidates as they are."""
        return list(head)


def build_reranker(settings: LocalizerConfig, gallery: Gallery, describer: Describer) -> Reranker:
    """Return the re-ranker that the configuration names; only its own imports are made.

    Args:
        settings: Method and options; keypoints, weights and inlier threshold of methods that match.
        gallery: Source of the candidates.
        describer: Model that made the gallery.

    Raises:
        ModelError: The mode is exact and the model has no warping regression, or a network's weights are absent.
        GalleryError: The method matches keypoints that the gallery does not store.
    """
    config = settings.rerank
    own = describer.model.config.retrieval_weight
    weight = own if config.retrieval_weight < 0 else config.retrieval_weight
    if config.method == "none":
        return RetrievalOrder()
    if config.method == "geowarp":
        return _geowarp(config, gallery, describer, weight)
    if config.method == "geowarp-unwarped":
        from geowarp_ros.rerank.unwarped import UnwarpedReranker

        return UnwarpedReranker(gallery, weight)
    from geowarp_ros.rerank.verification import VerifiedReranker, build_matcher

    matcher = build_matcher(gallery, config.method, settings)
    return VerifiedReranker(matcher, settings.position.verification.threshold_px)


def _geowarp(config: RerankConfig, gallery: Gallery, describer: Describer, weight: float) -> Reranker:
    from geowarp_ros.rerank.fast import FastReranker

    fast = FastReranker(gallery, weight)
    if config.mode == "fast":
        return fast
    if config.mode == "gated" and describer.model.regression is None:
        _log.warning("the model has no warping regression: rerank.mode = 'gated' is the fast mode alone")
        return fast
    from geowarp_ros.model.describer import Warper
    from geowarp_ros.rerank.gated import GatedReranker
    from geowarp_ros.rerank.geowarp import GeoWarpReranker

    exact = GeoWarpReranker(gallery, Warper(describer), weight)
    return exact if config.mode == "exact" else GatedReranker(fast, exact)
