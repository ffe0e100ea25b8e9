"""Layer A: from a feature map to one descriptor (paper sec. 3.1)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

AggregationName: TypeAlias = Literal["gem", "netvlad"]

EPSILON = 1e-6
"""Under the root of the L2 norms over channels, and GeM's lower bound: as the published weights have it."""


def l2_norm(x: Tensor) -> Tensor:
    """Divide (B, C, …) by its L2 norm over C, with 1e-6 under the root."""
    return x / torch.sqrt((x * x).sum(dim=1, keepdim=True) + EPSILON)


class L2Norm(nn.Module):
    """:func:`l2_norm` as a layer; it holds place 0 of ``pool``, so that GeM's key is ``pool.1.p``."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape, unit length over C."""
        return l2_norm(x)


class GeM(nn.Module):
    """Generalised-mean pooling with a learned exponent (Radenović et al., TPAMI 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C): (mean over cells of max(x, 1e-6)^p)^(1/p). p = 1 is the mean."""
        return x.clamp(min=EPSILON).pow(self.p).mean(dim=(2, 3)).pow(1.0 / self.p)


class NetVLAD(nn.Module):
    """VLAD with soft assignment (Arandjelović et al., CVPR 2016), 64 clusters."""

    def __init__(self, channels: int, clusters: int = 64) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, clusters, 1, bias=False)
        self.centroids = nn.Parameter(torch.rand(clusters, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, clusters·C), unit length."""
        x = F.normalize(x, dim=1)
        assignment = self.conv(x).flatten(2).softmax(dim=1)  # (B, K, N)
        # sum over cells of a·(x - c) = sum a·x - (sum a)·c: no (B, K, C, N) tensor of residuals is formed
        vlad = assignment @ x.flatten(2).transpose(1, 2) - assignment.sum(dim=2, keepdim=True) * self.centroids
        return F.normalize(F.normalize(vlad, dim=2).flatten(1), dim=1)


def build_aggregation(name: AggregationName, channels: int) -> nn.Module:
    """Return layer A: (B, C, h, w) -> (B, D). D = C for gem (no L2 norm after it), 64·C for netvlad."""
    if name == "gem":
        return nn.Sequential(L2Norm(), GeM())
    return NetVLAD(channels)


def descriptor_dim(name: AggregationName, channels: int) -> int:
    """D of the aggregation on C channels."""
    return {"gem": channels, "netvlad": 64 * channels}[name]
