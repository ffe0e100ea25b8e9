from __future__ import annotations

import numpy as np

from geowarp_ros.lab.baselines.dense import DenseMatcher, mutual_nearest
from geowarp_ros.rerank.verification import VerifiedReranker
from test.rerank.conftest import MemoryGallery, candidates_of, query_of, scores_of


def test_mutual_nearest_by_hand() -> None:
    products = np.array([[0.9, 0.1, 0.8], [0.8, 0.2, 0.3], [0.1, 0.7, 0.6]])
    rows, columns = mutual_nearest(products)  # row 1's best column is 0, whose best row is 0
    assert rows.tolist() == [0, 2]
    assert columns.tolist() == [0, 1]


def test_dense_features_shifted_by_two_cells_are_matched_at_the_shift() -> None:
    """Distinct features in every cell; the candidate sees the same, two cells to the right."""
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(64, 15, 17)).astype(np.float32)
    wide /= np.linalg.norm(wide, axis=0)
    other = rng.normal(size=(64, 15, 15)).astype(np.float32)
    other /= np.linalg.norm(other, axis=0)
    local = np.stack([other, wide[:, :, :15]])
    gallery = MemoryGallery(np.zeros((2, 1)), local_features=local.astype(np.float16))
    query = query_of(local=np.ascontiguousarray(wide[None, :, :, 2:]))
    (_, (points_q, points_p)) = DenseMatcher(gallery)(query, [0, 1])
    right = np.all(points_p - points_q == [2.0, 0.0], axis=1)
    assert right.sum() == 15 * 13  # every cell that both see
    ranked = VerifiedReranker(DenseMatcher(gallery), 1.0)(query, candidates_of([0, 1]))
    assert [c.index for c in ranked] == [1, 0]
    true, false = scores_of(ranked)
    assert true >= 15 * 13 > 3 * false
