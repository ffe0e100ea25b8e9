"""Aggregation by optimal transport: SALAD and MegaLoc.

Izquierdo and Civera, CVPR 2024; Berton and Masone, CVPR Workshops 2025. Written from the papers' equations;
keys are those of the published weights.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from geowarp_ros.errors import ImageError

_CLUSTERS, _WIDTH, _TOKEN = 64, 128, 256
_MEGALOC_WIDTH = 256
_HIDDEN = 512
_ROUNDS = 3


def salad_dim(width: int = _WIDTH) -> int:
    """D of SALAD's descriptor with clusters of so many values."""
    return _TOKEN + _CLUSTERS * width


def transport(scores: Tensor, dustbin: Tensor, rounds: int = _ROUNDS) -> Tensor:
    """Assign n cells to m clusters and a dustbin by Sinkhorn's algorithm (Cuturi, NeurIPS 2013).

    Every cell has a mass of 1; every cluster takes 1, the dustbin the other n - m.

    Args:
        scores: (B, m, n), n > m.
        dustbin: Score of the dustbin, a scalar, for every cell.
        rounds: How often the two marginals are met in turn, that of the cells last.

    Returns:
        (B, m, n): mass that goes from a cell to a cluster.
    """
    batch, clusters, cells = scores.shape
    log = torch.cat([scores, dustbin.expand(batch, 1, cells)], dim=1)
    taken = torch.zeros(clusters + 1, 1, dtype=log.dtype, device=log.device)
    taken[-1] = math.log(cells - clusters)
    for _ in range(rounds):
        log = log + taken - log.logsumexp(dim=2, keepdim=True)
        log = log - log.logsumexp(dim=1, keepdim=True)
    return log[:, :-1].exp()


class Salad(nn.Module):
    """Clusters of reduced features, and a reduced class token.

    Args:
        channels: C of the feature map.
        width: Values of a cluster.
    """

    def __init__(self, channels: int, width: int = _WIDTH) -> None:
        super().__init__()
        self.token_features = nn.Sequential(nn.Linear(channels, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _TOKEN))
        self.cluster_features = _perceptron(channels, width)
        self.score = _perceptron(channels, _CLUSTERS)
        self.dust_bin = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        """(B, C, h, w) and (B, C) -> (B, 256 + width·64), unit length.

        Raises:
            ImageError: The images have no more cells than there are clusters.
        """
        rows, columns = x.shape[2:]
        if rows * columns <= _CLUSTERS:
            raise ImageError(
                f"{columns}×{rows} patches: SALAD's {_CLUSTERS} clusters need more; expected a larger image"
            )
        mass = transport(self.score(x).flatten(2), self.dust_bin)
        clusters = self.cluster_features(x).flatten(2) @ mass.transpose(1, 2)  # (B, width, 64)
        parts = F.normalize(self.token_features(token), dim=1), F.normalize(clusters, dim=1).flatten(1)
        return F.normalize(torch.cat(parts, dim=1), dim=1)


class MegaLoc(nn.Module):
    """SALAD with wider clusters, and a linear layer behind it."""

    def __init__(self, channels: int, dimension: int) -> None:
        super().__init__()
        self.agg = Salad(channels, _MEGALOC_WIDTH)
        self.linear = nn.Linear(salad_dim(_MEGALOC_WIDTH), dimension)

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        """(B, C, h, w) and (B, C) -> (B, D), unit length."""
        return F.normalize(self.linear(self.agg(x, token)), dim=1)


def _perceptron(channels: int, width: int) -> nn.Sequential:
    # 1: dropout while training, as the keys count it
    return nn.Sequential(nn.Conv2d(channels, _HIDDEN, 1), nn.Dropout(0.3), nn.ReLU(), nn.Conv2d(_HIDDEN, width, 1))
