from __future__ import annotations

import pytest
import torch

from geowarp_ros.images import to_tensor
from geowarp_ros.model.describer import Warper
from geowarp_ros.rerank.geowarp import GeoWarpReranker
from test.rerank.conftest import candidates_of, textured


def test_scores_and_quads_are_those_of_the_whole_network_pair_by_pair(gallery, describer, model):
    """Stored local features (float16) and batches do not change what GeoWarp.match says of each pair."""
    image = textured(7)
    ranked = GeoWarpReranker(gallery, Warper(model, "cpu"), 6)(describer(image), candidates_of(range(6)))
    assert [c.score for c in ranked] == sorted((c.score for c in ranked), reverse=True)
    for candidate in ranked:
        with torch.inference_mode():
            score, quad_q, quad_p = model.match(to_tensor(image), to_tensor(gallery.images[candidate.index]))
        assert candidate.score == pytest.approx(float(score), rel=1e-3)
        assert candidate.quad_q == pytest.approx(quad_q[0].numpy(), abs=5e-3)
        assert candidate.quad_p == pytest.approx(quad_p[0].numpy(), abs=5e-3)
