"""Local features, their correlation (matching layer M) and the score. No parameters in here."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from geowarp_ros.model import GRID
from geowarp_ros.model.aggregation import l2_norm

CELLS = GRID * GRID
"""A score (eq. 4) divided by their number is a mean cosine, -1..1."""


def pool_local_features(feature_map: Tensor, projection: nn.Module | None = None) -> Tensor:
    """(B, C, h, w) -> (B, C, 15, 15): adaptive average, then L2 norm over C at each cell.

    A ``projection`` (1×1 convolution) comes between them; it is the same before the average and costs less here.
    """
    pooled = F.adaptive_avg_pool2d(feature_map, GRID)
    return l2_norm(pooled if projection is None else projection(pooled))


def correlate(f_q: Tensor, f_p: Tensor) -> Tensor:
    """Correlation map of two local feature maps (paper eq. 6).

    c[b, k, i, j] = ReLU(f_q(cell k) · f_p(cell i, j)), then L2 norm over k.

    Convention:
        i is the row and j the column of the second image's cell. k runs column by column over the first image's
        grid: k = x·15 + y (as the published weights were trained).

    Args:
        f_q: (B, C, 15, 15) of the first image.
        f_p: (B, C, 15, 15) of the second image.

    Returns:
        (B, 225, 15, 15).
    """
    batch, _, rows, columns = f_p.shape
    first = f_q.transpose(2, 3).flatten(2)  # (B, C, k)
    products = first.transpose(1, 2) @ f_p.flatten(2)  # (B, k, i·15 + j)
    return l2_norm(F.relu(products)).reshape(batch, rows * columns, rows, columns)


def similarity(f_q: Tensor, f_p: Tensor) -> Tensor:
    """Score of two local feature maps (paper eq. 4): the sum over cells of the inner products.

    Args:
        f_q: (B, C, 15, 15).
        f_p: (B, C, 15, 15).

    Returns:
        (B,), larger is better, at most 225.
    """
    return (f_q * f_p).sum(dim=(1, 2, 3))
