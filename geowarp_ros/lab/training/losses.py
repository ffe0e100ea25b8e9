"""The three losses of the warping regression (paper sec. 3.4, eq. 13, 17, 19). Pure functions of tensors.

A prediction is what the regression R gives for an ordered pair, (B, 8, 2): the quad of the first image, then of
the second. All are 0 at the truth and differentiable. Their weighted sum is eq. 10.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from geowarp_ros.geometry import flip_quad


def self_supervised_loss(prediction_ab: Tensor, prediction_ba: Tensor, quad_a: Tensor, quad_b: Tensor) -> Tensor:
    """L_ss: distance of the predicted quads from the known ones, in both orders (eq. 13).

    Four mean squared errors are added – each order, each image –, as the published training does; eq. 13 as
    printed has the squared norm of one order.

    Args:
        prediction_ab: (B, 8, 2) of W(I_a, I_b).
        prediction_ba: (B, 8, 2) of W(I_b, I_a).
        quad_a: (B, 4, 2) the truth t_a.
        quad_b: (B, 4, 2) the truth t_b.

    Returns:
        Scalar.
    """
    truth_ab, truth_ba = torch.cat([quad_a, quad_b], dim=1), torch.cat([quad_b, quad_a], dim=1)
    # the two means over 4 corners add up to twice the mean over 8
    return 2 * (F.mse_loss(prediction_ab, truth_ab) + F.mse_loss(prediction_ba, truth_ba))


def features_wise_loss(f_q: Tensor, f_g: Tensor) -> Tensor:
    """L_fw: how unlike the local features of the warped pair are (eq. 16-17).

    Mean squared difference. As printed, eq. 17 squares the inner product of the two cells, and minimising that
    would push the warped images apart, against its purpose ("as close as possible"); the published training
    minimises this difference. With cells of unit length it is 2 - 2·(inner product), over C.

    Args:
        f_q: (B, C, 15, 15) of the warped query.
        f_g: (B, C, 15, 15) of the warped positive.

    Returns:
        Scalar.
    """
    return F.mse_loss(f_q, f_g)


def swap_images(prediction: Tensor) -> Tensor:
    """Return a prediction (B, 8, 2) with the quads of first and second image exchanged."""
    return torch.cat([prediction[:, 4:], prediction[:, :4]], dim=1)


def flip_prediction(prediction: Tensor) -> Tensor:
    """Return a prediction (B, 8, 2) for the horizontally flipped images: τ and τ⁻¹ of eq. 18."""
    return torch.cat([flip_quad(prediction[:, :4]), flip_quad(prediction[:, 4:])], dim=1)


def pseudo_label(predictions: Sequence[Tensor]) -> Tensor:
    """[t*_q, t*_g]: the mean of all predictions (eq. 18), cut from the graph. Returns (B, 8, 2)."""
    return torch.stack(list(predictions)).mean(dim=0).detach()


def consistency_loss(
    prediction_qg: Tensor, prediction_gq: Tensor, flipped_qg: Tensor, flipped_gq: Tensor
) -> Tensor:
    """L_cons: how far predictions of one pair, in both orders and mirrored, lie from their mean (eq. 18-19).

    N = 2: as it is and mirrored. The mean squared errors of the 2N predictions are added, as the published
    training does, for which λ_cons was chosen; eq. 19 as printed divides the squared norms by 2N.

    Args:
        prediction_qg: (B, 8, 2) of W(I_q, I_g).
        prediction_gq: (B, 8, 2) of W(I_g, I_q).
        flipped_qg: (B, 8, 2) of W(flip I_q, flip I_g).
        flipped_gq: (B, 8, 2) of W(flip I_g, flip I_q).

    Returns:
        Scalar.
    """
    predictions = torch.stack(
        [
            prediction_qg,
            swap_images(prediction_gq),
            flip_prediction(flipped_qg),
            swap_images(flip_prediction(flipped_gq)),
        ]
    )
    label = pseudo_label(list(predictions))
    return (predictions - label).square().mean(dim=(1, 2, 3)).sum()


def corner_error(quad: Tensor, truth: Tensor) -> Tensor:
    """Mean distance of corners from the true ones, in half image sides (a measure, no loss).

    Args:
        quad: (…, 4, 2).
        truth: (…, 4, 2).

    Returns:
        Scalar.
    """
    error: Tensor = torch.linalg.vector_norm(quad - truth, dim=-1)
    return error.mean()
