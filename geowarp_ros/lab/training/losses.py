"""Losses of the warping regression R (paper sec. 3.4, eq. 13, 17, 19); their weighted sum is eq. 10.

Convention:
    A prediction (B, 8, 2) of R for an ordered pair holds the quad of the first image, then of the second.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from geowarp_ros.geometry import flip_quad


def self_supervised_loss(prediction_ab: Tensor, prediction_ba: Tensor, quad_a: Tensor, quad_b: Tensor) -> Tensor:
    """L_ss: regression of the known quads, in both orders (eq. 13).

    Sum of four mean squared errors (two orders, two images) as in the published training; eq. 13 as printed has
    the squared norm of one order.

    Args:
        prediction_ab: (B, 8, 2) W(I_a, I_b).
        prediction_ba: (B, 8, 2) W(I_b, I_a).
        quad_a: (B, 4, 2) ground truth t_a.
        quad_b: (B, 4, 2) ground truth t_b.

    Returns:
        Scalar.
    """
    truth_ab, truth_ba = torch.cat([quad_a, quad_b], dim=1), torch.cat([quad_b, quad_a], dim=1)
    # two means over 4 corners equal twice the mean over 8
    return 2 * (F.mse_loss(prediction_ab, truth_ab) + F.mse_loss(prediction_ba, truth_ba))


def features_wise_loss(f_q: Tensor, f_g: Tensor) -> Tensor:
    """L_fw: mean squared difference of the local features of the warped pair (eq. 16-17).

    As in the published training. Eq. 17 as printed squares the inner product, whose minimum would push the warped
    images apart, against its stated purpose. For unit cells the loss is (2 - 2·inner product) / C.

    Args:
        f_q: (B, C, 15, 15) of the warped query.
        f_g: (B, C, 15, 15) of the warped positive.

    Returns:
        Scalar.
    """
    return F.mse_loss(f_q, f_g)


def swap_images(prediction: Tensor) -> Tensor:
    """Swap the quads of the first and second image in a prediction (B, 8, 2)."""
    return torch.cat([prediction[:, 4:], prediction[:, :4]], dim=1)


def flip_prediction(prediction: Tensor) -> Tensor:
    """Return the prediction (B, 8, 2) for horizontally flipped images: τ and τ⁻¹ of eq. 18."""
    return torch.cat([flip_quad(prediction[:, :4]), flip_quad(prediction[:, 4:])], dim=1)


def pseudo_label(predictions: Sequence[Tensor]) -> Tensor:
    """Return the detached mean [t*_q, t*_g] (B, 8, 2) of all predictions (eq. 18)."""
    return torch.stack(list(predictions)).mean(dim=0).detach()


def consistency_loss(
    prediction_qg: Tensor, prediction_gq: Tensor, flipped_qg: Tensor, flipped_gq: Tensor
) -> Tensor:
    """L_cons: deviation of the predictions in both orders, original and flipped, from their mean (eq. 18-19).

    N = 2 (original and flipped). The mean squared errors of the 2N predictions are summed as in the published
    training, for which λ_cons was chosen; eq. 19 as printed divides the squared norms by 2N.

    Args:
        prediction_qg: (B, 8, 2) W(I_q, I_g).
        prediction_gq: (B, 8, 2) W(I_g, I_q).
        flipped_qg: (B, 8, 2) W(flip I_q, flip I_g).
        flipped_gq: (B, 8, 2) W(flip I_g, flip I_q).

    Returns:
        Scalar.
    """
    predictions = [
        prediction_qg,
        swap_images(prediction_gq),
        flip_prediction(flipped_qg),
        swap_images(flip_prediction(flipped_gq)),
    ]
    return (torch.stack(predictions) - pseudo_label(predictions)).square().mean(dim=(1, 2, 3)).sum()


def corner_error(quad: Tensor, truth: Tensor) -> Tensor:
    """Return the mean distance between corners of two sets of quads (…, 4, 2), in half image sides; a metric."""
    error: Tensor = torch.linalg.vector_norm(quad - truth, dim=-1)
    return error.mean()
