"""Diffusion on the gallery's neighbour graph: what is near to what is near counts as near.

Yang, Hinami, Matsui, Ly and Satoh, "Efficient image retrieval via decoupling diffusion into online and offline
processing", AAAI 2019 (paper Table 2); after Iscen et al., "Efficient diffusion on region manifolds", CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import cg

from geowarp_ros.gallery.store import Gallery
from geowarp_ros.lab.baselines import DiffusionConfig
from geowarp_ros.lab.baselines.neighbours import gallery_neighbours, unit_rows
from geowarp_ros.model.describer import Query
from geowarp_ros.rerank.order import best_first
from geowarp_ros.types import Candidate, FloatArray


def normalised_affinity(
    unit: NDArray[np.float32], config: DiffusionConfig, without: Collection[int] = ()
) -> sparse.csr_array:
    """Return S = D^-1/2 A D^-1/2 (N, N) over the mutual nearest neighbours.

    A_ij = max(cosine, 0)^gamma where i is among j's neighbours and j among i's, else 0; D has the row sums of A.
    """
    indices, cosines = gallery_neighbours(unit, config.neighbours, without)
    count, per_row = indices.shape
    rows = np.repeat(np.arange(count), per_row)
    weights = np.maximum(cosines, 0.0).ravel().astype(float) ** config.gamma
    directed = sparse.csr_array((weights, (rows, indices.ravel())), shape=(count, count))
    mutual = directed.minimum(directed.T)  # 0 where one side has no edge
    degrees = np.asarray(mutual.sum(axis=1)).ravel()
    scale = np.divide(1.0, np.sqrt(degrees), out=np.zeros(count), where=degrees > 0)  # a lone place has no edges
    return sparse.csr_array(sparse.diags_array(scale) @ mutual @ sparse.diags_array(scale))


class Diffusion:
    """Sorts all candidates by f = Σ_i y_i · (I - alpha·S)⁻¹ e_i over the nearest candidates i.

    y_i = cosine(query, i)^gamma. The columns of the inverse do not depend on the query: each is solved with
    conjugate gradients at its first use and kept (N numbers). Candidates that the diffusion does not reach keep
    their order behind those that it does; none is added or dropped.

    Args:
        gallery: Gallery of the neighbour graph.
        config: The graph and how far the diffusion spreads.
        without: Rows that must not help the others, in an evaluation that leaves some out.
    """

    def __init__(self, gallery: Gallery, config: DiffusionConfig, without: Collection[int] = ()) -> None:
        self._config = config
        self._unit = unit_rows(gallery.descriptors)
        affinity = normalised_affinity(self._unit, config, without)
        self._laplacian = sparse.csr_array(sparse.eye_array(len(self._unit)) - config.alpha * affinity)
        self._columns: dict[int, NDArray[np.float32]] = {}

    def __call__(self, query: Query, candidates: Sequence[Candidate], /) -> list[Candidate]:
        """Return the candidates with the diffused similarity as score, best first."""
        if not candidates:
            return []
        indices = np.array([candidate.index for candidate in candidates])
        cosines = self._unit[indices] @ unit_rows(query.descriptor[None])[0]
        start = np.argsort(-cosines, kind="stable")[: self._config.query_neighbours]
        weights = np.maximum(cosines[start], 0.0) ** self._config.gamma
        diffused = sum(w * self._column(int(i)) for w, i in zip(weights, indices[start], strict=True))
        scores = np.asarray(diffused)[indices].tolist()
        return best_first(replace(c, score=s) for c, s in zip(candidates, scores, strict=True))

    def _column(self, index: int) -> FloatArray:
        if index not in self._columns:
            unit_vector = np.zeros(len(self._unit))
            unit_vector[index] = 1.0
            # the matrix is positive definite for alpha < 1: conjugate gradients converge
            solution, _ = cg(self._laplacian, unit_vector, rtol=1e-7)
            self._columns[index] = solution.astype(np.float32)
        return self._columns[index]
