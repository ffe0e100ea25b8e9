from __future__ import annotations

import math

import pytest
import torch

from geowarp_ros.lab.training.descriptor_losses import (
    contrastive_loss,
    multi_similarity_loss,
    squared_distances,
    triplet_loss,
)


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def test_squared_distances_equal_a_double_loop() -> None:
    a, b = random(3, 5), random(4, 5)
    expected = torch.stack([torch.stack([((x - y) ** 2).sum() for y in b]) for x in a])
    torch.testing.assert_close(squared_distances(a, b), expected)


def test_triplet_by_hand() -> None:
    query, positive = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.3, 0.4]])  # d² = 0.25
    negatives = torch.tensor([[[0.5, 0.0], [0.0, 2.0]]])  # d² = 0.25 and 4: margins 0.1 and none
    assert float(triplet_loss(query, positive, negatives)) == pytest.approx(0.05)
    assert float(triplet_loss(query, positive, negatives, margin=4.0)) == pytest.approx((4.0 + 0.25) / 2)


def test_triplet_is_zero_at_the_truth() -> None:
    query = random(2, 4)
    assert float(triplet_loss(query, query, query[:, None] + 1.0).detach()) == 0.0


def test_multi_similarity_by_hand() -> None:
    # two images of one place at d² = 0.4 (similarity 0.8), one of another place at d² = 0.6 and 2 from them
    x = torch.tensor([[0.0, 0.0], [0.4**0.5, 0.0], [0.0, 0.6**0.5]])
    positives = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    negatives = torch.tensor([[0, 0, 1], [0, 0, 1], [1, 1, 0]], dtype=torch.bool)
    # similarities: (0,1) 0.8, (0,2) 0.7, (1,2) 0.5. Row 0: positive 0.8 - 0.1 < 0.7 is not hard, 0.7 + 0.1 > 0.8
    # not either (equality); row 1: 0.8 - 0.1 < 0.5 no, 0.5 + 0.1 > 0.8 no; row 2 has no positive: its least is inf
    assert float(multi_similarity_loss(x, positives, negatives, epsilon=0.0999)) == 0.0
    pull0, push0 = math.log1p(math.exp(-2 * 0.3)) / 2, math.log1p(math.exp(50 * 0.2)) / 50
    loss = float(multi_similarity_loss(x, positives, negatives, epsilon=0.2))
    assert loss == pytest.approx((pull0 + push0) / 3, rel=1e-5)


def test_contrastive_by_hand() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0]])
    same = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    different = torch.tensor([[0, 0, 1], [0, 0, 1], [1, 1, 0]], dtype=torch.bool)
    # image 0: positive at 1, negative at 4; image 1: at 1 and 1; temperature 2
    expected = (math.log1p(math.exp(-4 / 2 + 1 / 2)) + math.log(2)) / 2
    assert float(contrastive_loss(x, x, same, different, temperature=2.0)) == pytest.approx(expected)


def test_contrastive_without_positives_is_zero() -> None:
    x = random(3, 2)
    no, yes = torch.zeros(3, 3, dtype=torch.bool), ~torch.eye(3, dtype=torch.bool)
    assert float(contrastive_loss(x, x, no, yes).detach()) == 0.0
    far = torch.tensor([[0.0], [0.0], [100.0]])
    pair = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    assert float(contrastive_loss(far, far, pair, yes & ~pair)) == pytest.approx(0.0)


def test_gradients() -> None:
    x = random(4, 3)
    same = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], dtype=torch.bool)
    different = ~same & ~torch.eye(4, dtype=torch.bool)
    far = random(2, 4, 3)
    assert torch.autograd.gradcheck(
        lambda q, p, n: triplet_loss(q, p, n, 5.0), (random(2, 3), random(2, 3) + 1, far)
    )
    assert torch.autograd.gradcheck(lambda d: multi_similarity_loss(d / 4, same, different, epsilon=0.5), (x,))
    assert torch.autograd.gradcheck(lambda d: contrastive_loss(d, d, same, different, 1.0), (x,))
