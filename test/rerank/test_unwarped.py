from __future__ import annotations

import numpy as np
import pytest

from geowarp_ros.rerank.unwarped import UnwarpedReranker
from test.rerank.conftest import MemoryGallery, candidates_of, query_of


def test_score_is_the_mean_over_cells_of_inner_products() -> None:
    rng = np.random.default_rng(0)
    local = rng.normal(size=(3, 4, 15, 15)).astype(np.float32)
    query = rng.normal(size=(1, 4, 15, 15)).astype(np.float32)
    gallery = MemoryGallery(np.zeros((3, 1)), local_features=local.astype(np.float16))
    ranked = UnwarpedReranker(gallery)(query_of(local=query), candidates_of([2, 0, 1]))
    expected = {
        place: sum(float(query[0, :, i, j] @ local[place, :, i, j]) for i in range(15) for j in range(15)) / 225
        for place in range(3)
    }
    assert [c.index for c in ranked] == sorted(expected, key=lambda place: -expected[place])
    assert {c.index: c.score for c in ranked} == pytest.approx(expected, abs=0.05 / 225)
