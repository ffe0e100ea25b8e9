"""Layer A: from a feature map to one descriptor (paper sec. 3.1), and those of other methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from geowarp_ros.model.boq import BagOfQueries
from geowarp_ros.model.cricavpr import REGIONS, CricaVPR
from geowarp_ros.model.mixvpr import FeatureMixing
from geowarp_ros.model.salad import MegaLoc, Salad, salad_dim

AggregationName: TypeAlias = Literal[
    "gem",
    "netvlad",
    "gem_linear",
    "mixvpr",
    "boq",
    "salad",
    "megaloc",
    "cricavpr",
]

OF_TOKENS: frozenset[AggregationName] = frozenset(("salad", "megaloc", "cricavpr"))
"""Those that take a vision transformer's class token, too."""

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


class UnitLength(nn.Module):
    """Division by the L2 norm over C, as CosPlace has it: nothing is under the root but the squares."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, …) -> the same shape."""
        return F.normalize(x, dim=1)


class GeMLinear(nn.Sequential):
    """GeM and a linear layer, each between L2 norms (CosPlace, Berton et al., CVPR 2022)."""

    def __init__(self, channels: int, dimension: int) -> None:
        super().__init__(UnitLength(), GeM(), nn.Linear(channels, dimension), UnitLength())


_BUILDERS: dict[AggregationName, Callable[[int, int], nn.Module]] = {
    "gem": lambda channels, _: nn.Sequential(L2Norm(), GeM()),
    "netvlad": lambda channels, _: NetVLAD(channels),
    "gem_linear": GeMLinear,
    "mixvpr": FeatureMixing,
    "boq": BagOfQueries,
    "salad": lambda channels, _: Salad(channels),
    "megaloc": MegaLoc,
    "cricavpr": lambda channels, _: CricaVPR(channels, GeM()),
}
"""Channels of the feature map and values of the descriptor -> the layer."""

_OWN_DIMENSION: dict[AggregationName, Callable[[int], int]] = {
    "gem": lambda channels: channels,
    "netvlad": lambda channels: 64 * channels,
    "salad": lambda _: salad_dim(),
    "cricavpr": lambda channels: REGIONS * channels,
}
"""D by the channels, of the aggregations that leave no choice."""


def build_aggregation(name: AggregationName, channels: int, dimension: int = 0) -> nn.Module:
    """Return layer A: (B, C, h, w) -> (B, D). All but gem give unit length.

    Args:
        name: Which.
        channels: C of the feature map.
        dimension: D where the aggregation leaves the choice.

    Raises:
        ValueError: It cannot give descriptors of that dimension.
    """
    descriptor_dim(name, channels, dimension)
    return _BUILDERS[name](channels, dimension)


def descriptor_dim(name: AggregationName, channels: int, dimension: int = 0) -> int:
    """D of the aggregation on C channels.

    Raises:
        ValueError: ``dimension`` is chosen where there is no choice, or the reverse.
    """
    if (name in _OWN_DIMENSION) == bool(dimension):
        expected = "0, it has its own" if dimension else "the number of values of a descriptor"
        raise ValueError(f"dimension = {dimension}: expected {expected} with aggregation = {name!r}")
    return dimension or _OWN_DIMENSION[name](channels)
