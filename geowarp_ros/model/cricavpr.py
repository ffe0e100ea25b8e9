"""CricaVPR (Lu et al., CVPR 2024): adapters in a vision transformer's blocks, and an aggregation of regions."""

from __future__ import annotations

from itertools import pairwise, product

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from geowarp_ros.errors import ImageError

REGIONS = 14
"""The class token, 2×2 and 3×3 regions of the feature map."""

_HEADS, _HIDDEN, _LAYERS = 16, 2048, 2
_SHARE = 0.2


class _Convolution(nn.Module):
    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Adapter(nn.Module):
    """Convolutions of three sizes among the patches, at half the channels, beside a block's perceptron."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter, few = channels // 2, channels // 8, channels // 32
        self.branch1 = _Convolution(half, half // 2, 1)
        self.branch2 = nn.Sequential(_Convolution(half, few, 1), _Convolution(few, quarter, 3))
        self.branch3 = nn.Sequential(_Convolution(half, few, 1), _Convolution(few, quarter, 5))
        self.D_fc1 = nn.Linear(channels, half)
        self.D_fc2 = nn.Linear(half, channels)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Class token and patches (B, 1 + h·w, C) of a grid (h, w) -> what is added to each."""
        reduced = F.relu(self.D_fc1(x))
        patches = reduced[:, 1:].transpose(1, 2).unflatten(2, grid)
        seen = torch.cat([self.branch1(patches), self.branch2(patches), self.branch3(patches)], dim=1)
        # the class token has no neighbours
        token = reduced[:, :1]
        mixed = torch.cat([token + token, reduced[:, 1:] + seen.flatten(2).transpose(1, 2)], dim=1)
        added: Tensor = _SHARE * self.D_fc2(mixed)
        return added


class CricaVPR(nn.Module):
    """Pooling of each region, then an encoder of two layers.

    Among the images of a batch the authors let each region attend to the same region of the others, so that a
    descriptor depends on what else is in the batch: theirs are 16 images in a row. A gallery needs descriptors
    that stay: here every image is a batch of its own, as their test of ``single_query`` has it.
    """

    def __init__(self, channels: int, gem: nn.Module) -> None:
        super().__init__()
        self.aggregation = nn.Sequential(nn.Identity(), gem)  # p's key is aggregation.1.p
        layer = nn.TransformerEncoderLayer(channels, _HEADS, _HIDDEN, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        """(B, C, h, w) and (B, C) -> (B, 14·C), unit length.

        Raises:
            ImageError: The images have fewer than three patches a side.
        """
        if min(x.shape[2:]) < 3:
            raise ImageError(f"{x.shape[3]}×{x.shape[2]} patches: CricaVPR cuts each side in three")
        x = F.normalize(x, dim=1)
        regions = [token]
        for parts in (2, 3):
            rows, columns = (_cuts(side, parts) for side in x.shape[2:])
            for (top, bottom), (left, right) in product(pairwise(rows), pairwise(columns)):
                regions.append(self.aggregation(x[:, :, top:bottom, left:right]))
        each = torch.stack(regions, dim=1)  # (B, 14, C)
        alone: Tensor = self.encoder(each.flatten(0, 1)[None])  # sequences of one: nothing to attend to but itself
        return F.normalize(alone.reshape(x.shape[0], -1), dim=1)


def _cuts(side: int, parts: int) -> tuple[int, ...]:
    """Where a side of so many cells is cut; the middle third has what is over."""
    outer = side // parts
    return (0, outer, side) if parts == 2 else (0, outer, side - outer, side)
