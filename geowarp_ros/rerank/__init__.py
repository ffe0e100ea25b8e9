"""The re-rankers: candidates in, candidates out, best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from geowarp_ros.config import LocalizerConfig
from geowarp_ros.types import Candidate

if TYPE_CHECKING:
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.model.describer import Describer, Query


class Reranker(Protocol):
    """Compares the query with each candidate more closely than retrieval did."""

    def __call__(self, query: Query, candidates: Sequence[Candidate], /) -> list[Candidate]:
        """Return the same candidates, best first. What was not re-ranked keeps its order behind what was."""


class RetrievalOrder:
    """The null re-ranker: the order of the descriptors' distances."""

    def __call__(self, query: Query, candidates: Sequence[Candidate], /) -> list[Candidate]:
        """Return the candidates as they are."""
        return list(candidates)


def build_reranker(config: LocalizerConfig, gallery: Gallery, describer: Describer) -> Reranker:
    """Return the re-ranker that the configuration names.

    Raises:
        ModelError: geowarp is asked of a model without a warping regression.
    """
    if config.rerank.method == "none":
        return RetrievalOrder()
    from geowarp_ros.model.describer import Warper
    from geowarp_ros.rerank.geowarp import GeoWarpReranker

    warper = Warper(describer.model, describer.device, config.precision)
    return GeoWarpReranker(gallery, warper, config.rerank.candidates)
