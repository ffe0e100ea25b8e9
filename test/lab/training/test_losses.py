from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from geowarp_ros.geometry import full_frame
from geowarp_ros.lab.training.losses import (
    consistency_loss,
    corner_error,
    features_wise_loss,
    flip_prediction,
    pseudo_label,
    self_supervised_loss,
    swap_images,
)

FRAME = full_frame(1, torch.zeros(1, dtype=torch.float64))


def prediction(seed: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 8, 2, generator=generator, dtype=torch.float64)


def test_self_supervised_by_hand() -> None:
    truth_a, truth_b = FRAME, 0.5 * FRAME
    ab = torch.cat([truth_a, truth_b], dim=1).clone()
    ba = torch.cat([truth_b, truth_a], dim=1).clone()
    assert self_supervised_loss(ab, ba, truth_a, truth_b) == 0
    ab[0, 0, 0] += 0.4  # I_a's first corner in the first order: mean over its 8 numbers is 0.16/8
    ba[0, 7, 1] -= 0.8  # I_a's last corner in the second order: 0.64/8
    assert self_supervised_loss(ab, ba, truth_a, truth_b).item() == pytest.approx(0.02 + 0.08)


def test_self_supervised_is_four_mean_squared_errors() -> None:
    ab, ba, truth = prediction(0), prediction(1), prediction(2)
    a, b = truth[:, :4], truth[:, 4:]
    terms = [(ab[:, :4] - a), (ab[:, 4:] - b), (ba[:, :4] - b), (ba[:, 4:] - a)]
    expected = torch.stack([t.square().mean() for t in terms]).sum()
    assert torch.allclose(self_supervised_loss(ab, ba, a, b), expected)


def test_features_wise_by_hand() -> None:
    f_q = torch.zeros(1, 2, 15, 15, dtype=torch.float64)
    f_g = f_q.clone()
    f_q[:, 0], f_g[:, 0] = 1, 1
    assert features_wise_loss(f_q, f_g) == 0
    f_g[0, :, 0, 0] = torch.tensor([0.6, 0.8])  # one of 225 cells: (0.4² + 0.8²)/2 over two channels
    assert features_wise_loss(f_q, f_g).item() == pytest.approx(0.4 / 225)
    # as for all unit cells, (2 - 2·inner product)/C: here (2 - 2·0.6)/2


def test_consistency_by_hand() -> None:
    truth = torch.cat([0.5 * FRAME, FRAME], dim=1)
    same = (truth, swap_images(truth), flip_prediction(truth), flip_prediction(swap_images(truth)))
    assert consistency_loss(*same) == 0
    off = truth.clone()
    off[0, 0, 0] += 0.4  # mean of the four moves by 0.1: squares 0.09 + 3·0.01, over 16 numbers
    assert consistency_loss(off, *same[1:]).item() == pytest.approx(0.12 / 16)


def test_consistency_knows_orders_and_mirrors() -> None:
    """A warp that depends on the order, or on the side, is inconsistent."""
    left = torch.cat([FRAME * torch.tensor([0.5, 1.0]) - torch.tensor([0.5, 0.0]), FRAME], dim=1)
    assert consistency_loss(left, swap_images(left), left, swap_images(left)) > 0.01
    assert consistency_loss(left, left, flip_prediction(left), flip_prediction(left)) > 0.01
    assert torch.equal(flip_prediction(flip_prediction(left)), left)


def test_pseudo_label_passes_no_gradient() -> None:
    parts = [prediction(i).requires_grad_() for i in range(4)]
    label = pseudo_label(parts)
    assert not label.requires_grad
    assert torch.allclose(label, torch.stack(parts).mean(dim=0).detach())
    # with the label held, the derivative of the sum of mean squares is 2·(prediction - label)/size
    consistency_loss(parts[0], swap_images(parts[1]), flip_prediction(parts[2]), prediction(9)).backward()
    all_four = torch.stack([*parts[:3], swap_images(flip_prediction(prediction(9)))]).detach()
    expected = 2 * (all_four[0] - all_four.mean(dim=0)) / all_four[0].numel()
    assert parts[0].grad is not None and torch.allclose(parts[0].grad, expected)


def test_gradients() -> None:
    p = [prediction(i).requires_grad_() for i in range(4)]
    truth = prediction(7)
    assert gradcheck(self_supervised_loss, (p[0], p[1], truth[:, :4], truth[:, 4:]))
    f_q = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    f_g = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(features_wise_loss, (f_q, f_g))
    # the pseudo-label is detached by design, so a plain finite difference sees a derivative that is not passed on;
    # of four predictions that sum to a fixed mean it is the same
    fixed_mean = torch.stack(p).mean(dim=0).detach()

    def against_label(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        c = 2 * fixed_mean - a
        d = 2 * fixed_mean - b
        return consistency_loss(a, swap_images(b), flip_prediction(c), swap_images(flip_prediction(d)))

    assert gradcheck(against_label, (p[0], p[1]))


def test_corner_error_by_hand() -> None:
    truth = FRAME
    quad = truth.clone()
    quad[0, 2] += torch.tensor([0.3, -0.4])
    assert corner_error(quad, truth).item() == pytest.approx(0.125)
