"""Query expansion and database-side augmentation: descriptors averaged with their neighbours, then compared.

Query expansion: Chum et al., "Total recall", ICCV 2007; weights cosine^alpha: Radenović, Tolias and Chum,
"Fine-tuning CNN image retrieval with no human annotation", TPAMI 2018. Augmentation of the gallery with the same:
Gordo et al., "End-to-end learning of deep visual representations for image retrieval", IJCV 2017 (paper Table 2).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.gallery.store import Gallery
from geowarp_ros.lab.baselines import ExpansionConfig
from geowarp_ros.lab.baselines.neighbours import gallery_neighbours, unit_rows
from geowarp_ros.model.describer import Query
from geowarp_ros.rerank.order import best_first
from geowarp_ros.types import Candidate


class QueryExpansion:
    """Sorts all candidates by the cosine of expanded query and augmented gallery descriptors.

    Augmented once, at construction, and held in memory. Candidates are neither added nor dropped: the more of them
    retrieval hands over, the wider the second search; the whole gallery makes it complete.

    Args:
        gallery: Gallery to augment.
        config: Neighbours and weights.
        without: Rows that must not help the others, in an evaluation that leaves some out.
    """

    def __init__(self, gallery: Gallery, config: ExpansionConfig, without: Collection[int] = ()) -> None:
        self._config = config
        unit = unit_rows(gallery.descriptors)
        indices, cosines = gallery_neighbours(unit, config.augment_neighbours, without)
        weights = self._weights(cosines)
        self._augmented = unit.copy()
        for column in range(indices.shape[1]):  # not one (N, K, D) array
            self._augmented += weights[:, column, None] * unit[indices[:, column]]
        self._augmented = unit_rows(self._augmented)

    def __call__(self, query: Query, candidates: Sequence[Candidate], /) -> list[Candidate]:
        """Return the candidates with the cosine as score, best first; ties keep retrieval's order."""
        if not candidates:
            return []
        augmented = self._augmented[[candidate.index for candidate in candidates]]
        expanded = self._expand(unit_rows(query.descriptor[None])[0], augmented)
        scores = (augmented @ expanded).tolist()
        return best_first(replace(c, score=s) for c, s in zip(candidates, scores, strict=True))

    def _expand(self, query: NDArray[np.float32], augmented: NDArray[np.float32]) -> NDArray[np.float32]:
        cosines = augmented @ query
        nearest = np.argsort(-cosines, kind="stable")[: self._config.neighbours]
        expanded = query + self._weights(cosines[nearest]) @ augmented[nearest]
        unit: NDArray[np.float32] = unit_rows(expanded[None])[0]
        return unit

    def _weights(self, cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(np.maximum(cosines, 0.0) ** self._config.alpha, np.float32)
