"""The re-rankers: candidates in, candidates out, best first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol

from geowarp_ros.config import LocalizerConfig
from geowarp_ros.types import Candidate

if TYPE_CHECKING:
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.model.describer import Describer, Query
    from geowarp_ros.rerank.verification import Matcher

SECOND_SEARCHES = ("qe-dba", "diffusion")
"""Methods that compare with all candidates, not the first few: with the whole gallery they are complete."""


class Reranker(Protocol):
    """Compares the query with each candidate more closely than retrieval did."""

    def __call__(self, query: Query, candidates: Sequence[Candidate], /) -> list[Candidate]:
        """Return the same candidates, best first. What was not re-ranked keeps its order behind what was."""


class RetrievalOrder:
    """The null re-ranker: the order of the descriptors' distances."""

    def __call__(self, query: Query, candidates: Sequence[Candidate], /) -> list[Candidate]:
        """Return the candidates as they are."""
        return list(candidates)


def build_reranker(
    config: LocalizerConfig, gallery: Gallery, describer: Describer, without: Collection[int] = ()
) -> Reranker:
    """Return the re-ranker that the configuration names; only its own imports are made.

    Args:
        config: Its section ``rerank`` names the method and holds its options.
        gallery: Where the candidates come from.
        describer: What made the gallery.
        without: Rows of the gallery that must not help the other ones, for evaluations that leave some out.

    Raises:
        ModelError: The method needs a warping regression or weights, and they are absent or foreign.
    """
    rerank = config.rerank
    method, count = rerank.method, rerank.candidates
    if method == "none":
        return RetrievalOrder()
    own, asked = describer.model.config.retrieval_weight, rerank.retrieval_weight
    weight = own if asked < 0 else asked
    if method == "geowarp" and rerank.mode == "fast":
        from geowarp_ros.rerank.fast import FastReranker

        return FastReranker(gallery, count, weight)
    if method == "geowarp":
        from geowarp_ros.model.describer import Warper
        from geowarp_ros.rerank.geowarp import GeoWarpReranker

        exact = GeoWarpReranker(gallery, Warper(describer), count, weight)
        if rerank.mode == "exact":
            return exact
        from geowarp_ros.rerank.fast import FastReranker
        from geowarp_ros.rerank.gated import GatedReranker

        return GatedReranker(FastReranker(gallery, count, weight), exact)
    if method == "geowarp-unwarped":
        from geowarp_ros.rerank.unwarped import UnwarpedReranker

        return UnwarpedReranker(gallery, count, weight)
    if method == "one-way":
        from geowarp_ros.lab.baselines.one_way import OneWayReranker

        return OneWayReranker(gallery, describer.network, count, weight)
    if method == "qe-dba":
        from geowarp_ros.lab.baselines.expansion import QueryExpansion

        return QueryExpansion(gallery, rerank.expansion, without)
    if method == "diffusion":
        from geowarp_ros.lab.baselines.diffusion import Diffusion

        return Diffusion(gallery, rerank.diffusion, without)
    from geowarp_ros.rerank.verification import VerifiedReranker

    options = rerank.verification
    threshold = options.threshold_cells if method == "dense-ransac" else options.threshold_px
    return VerifiedReranker(_build_matcher(config, gallery, describer), threshold, count)


def _build_matcher(config: LocalizerConfig, gallery: Gallery, describer: Describer) -> Matcher:
    rerank = config.rerank
    if rerank.method == "loftr":
        from geowarp_ros.lab.baselines.learned import LoFTRMatcher

        return LoFTRMatcher(gallery, rerank.weights, describer.device)
    if rerank.method == "disk-lightglue":
        from geowarp_ros.lab.baselines.learned import DiskLightGlueMatcher

        return DiskLightGlueMatcher(
            gallery, rerank.weights, rerank.keypoint_weights, rerank.verification.keypoints, describer.device
        )
    from geowarp_ros.rerank.verification import DenseMatcher, KeypointMatcher

    if rerank.method == "dense-ransac":
        return DenseMatcher(gallery)
    return KeypointMatcher(gallery, "orb" if rerank.method == "orb" else "sift", rerank.verification)
