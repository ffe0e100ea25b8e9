"""Warping regression R: from a correlation map to two quads (paper sec. 3.3, eq. 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geowarp_ros.geometry import FULL_FRAME
from geowarp_ros.model import GRID

_KERNELS = (7, 5, 5, 5, 5, 5)
_CHANNELS = (GRID * GRID, 128, 128, 64, 64, 64, 64)


class WarpRegression(nn.Module):
    """Six convolution blocks and one linear layer; before any training both quads are the full frame."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for kernel, in_channels, out_channels in zip(_KERNELS, _CHANNELS[:-1], _CHANNELS[1:], strict=True):
            layers += [
                nn.Conv2d(in_channels, out_channels, kernel, padding=1),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
        self.conv = nn.Sequential(*layers)
        self.linear = nn.Linear(_CHANNELS[-1], 16)
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            self.linear.bias.copy_(torch.tensor(FULL_FRAME * 2).flatten())

    def forward(self, correlation: Tensor) -> Tensor:
        """(B, 225, 15, 15) -> (B, 8, 2): the quad of the first image, then of the second."""
        features: Tensor = self.linear(self.conv(correlation).flatten(1))
        return features.reshape(features.shape[0], 8, 2)  # len() would fix the batch of an export
