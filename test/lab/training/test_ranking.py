"""The score of warped pairs, trained to rank."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from geowarp_ros.geometry import warp
from geowarp_ros.lab.training.ranking import ROUNDS, Contests, draw_contests, ranking_loss, warped_pairs
from geowarp_ros.lab.training.session import seeded
from geowarp_ros.model import GRID
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.matching import CELLS, pool_local_features, similarity
from test.model.weights import regression_of


def places(*, groups: int) -> torch.Tensor:
    """Rows 0 and 1 show place 0, 2 and 3 place 1 …"""
    place = torch.arange(groups * 6) // 2
    return place[:, None] != place[None]


def test_every_place_competes_with_the_others_of_its_group_and_no_one_else() -> None:
    drawn = draw_contests(places(groups=4), np.random.default_rng(0))
    place_1, place_2 = drawn.first // 2, drawn.second // 2
    assert len(drawn.first) == 4 * 3 * (1 + ROUNDS)
    assert (place_1[drawn.same] == place_2[drawn.same]).all()
    assert (drawn.first[drawn.same] != drawn.second[drawn.same]).all()
    assert place_1[drawn.same].tolist() == list(range(12))
    assert drawn.counts.all()
    for own, others in zip(place_1[drawn.same], drawn.others, strict=True):
        met = [{int(place_1[pair]), int(place_2[pair])} - {int(own)} for pair in others]
        assert sorted(place for each in met for place in each) == sorted(
            place for place in range(own // 3 * 3, own // 3 * 3 + 3) if place != own for _ in range(ROUNDS)
        )
    rows = {int(row) for pair in drawn.others.ravel() for row in (drawn.first[pair], drawn.second[pair])}
    assert len(rows) > 20  # both photographs of a place take part


def test_rivals_that_may_be_the_same_place_do_not_count() -> None:
    different = places(groups=1)
    different[:2, 2:4] = different[2:4, :2] = False  # places 0 and 1 may be one
    drawn = draw_contests(different, np.random.default_rng(0))
    assert drawn.counts.sum(dim=1).tolist() == [ROUNDS, ROUNDS, 2 * ROUNDS]


def unit(*cosines: float) -> torch.Tensor:
    """Local features whose every cell has these cosines with the first axis, one image each."""
    cos = torch.tensor(cosines, dtype=torch.float64)
    return torch.stack([cos, (1 - cos**2).sqrt()], dim=1)[:, :, None, None].expand(-1, -1, GRID, GRID)


def contest(*, counts: list[list[bool]]) -> Contests:
    pairs = torch.arange(3)
    return Contests(pairs, pairs, torch.tensor([0]), torch.tensor([[1, 2]]), torch.tensor(counts))


def test_the_loss_by_hand() -> None:
    local = torch.cat([unit(1.0, 1.0, 1.0), unit(0.9, 0.8, 0.6)])  # scores / 225 of the pairs: 0.9, 0.8, 0.6
    both = ranking_loss(local, contest(counts=[[True, True]]), 0.1)
    assert float(both) == pytest.approx(math.log(1 + math.exp(-1) + math.exp(-3)))
    one = ranking_loss(local, contest(counts=[[False, True]]), 0.1)
    assert float(one) == pytest.approx(math.log(1 + math.exp(-3)))
    assert float(ranking_loss(local, contest(counts=[[False, False]]), 0.1)) == 0.0


def test_the_gradient() -> None:
    local = torch.randn(6, 2, GRID, GRID, dtype=torch.float64, requires_grad=True)
    known = contest(counts=[[True, True]])
    assert torch.autograd.gradcheck(lambda f: ranking_loss(f, known, 0.5), (local,), fast_mode=True)


def test_pairs_are_warped_as_re_ranking_does() -> None:
    """The score of what is handed to the loss is the model's own of these pairs (eq. 1-4, 9)."""
    with seeded(3):
        model = GeoWarp(ModelConfig(encoder="resnet18", aggregation="gem")).eval()
        torch.nn.init.normal_(regression_of(model).linear.weight, std=100.0)
        images = torch.rand(6, 3, 96, 128)
    drawn = draw_contests(places(groups=1), np.random.default_rng(0))
    warped = warped_pairs(model, images, drawn)
    with torch.no_grad():
        score = similarity(*pool_local_features(model.feature_map(warped)).chunk(2))
        expected, quad, _ = model.match(images[drawn.first], images[drawn.second])
    torch.testing.assert_close(score, expected, rtol=1e-4, atol=1e-3)
    assert float((quad[0] - quad[5]).abs().max()) > 1e-3  # they are not all alike
    torch.testing.assert_close(warped[0], warp(images[drawn.first[:1]], quad[:1])[0], rtol=1e-4, atol=1e-4)
    assert float(score.max()) <= CELLS
