"""MixVPR's aggregation: a feature map's channels as vectors over its cells, mixed by MLPs."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

INPUT_PX = 320
"""Side of the square input: the layers are as wide as its feature map has cells."""

_CELLS = (INPUT_PX // 16) ** 2
_ROWS = {4096: 4, 512: 2, 128: 2}
"""Values of a published descriptor -> how many rows its channels are projected to."""


class Mixer(nn.Module):
    """A residual MLP over the cells of each channel (Ali-bey et al., WACV 2023, eq. 2)."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.LayerNorm(cells), nn.Linear(cells, cells), nn.ReLU(), nn.Linear(cells, cells))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N) -> the same shape."""
        mixed: Tensor = self.mix(x)
        return x + mixed


class FeatureMixing(nn.Module):
    """Four mixers, then a projection of the channels and one of the cells (WACV 2023, sec. 3).

    Args:
        channels: C of the feature map.
        dimension: D, one of those that its authors publish.

    Raises:
        ValueError: Another dimension.
    """

    def __init__(self, channels: int, dimension: int) -> None:
        super().__init__()
        if dimension not in _ROWS:
            raise ValueError(f"dimension = {dimension}: expected one of {', '.join(map(str, _ROWS))} with mixvpr")
        self.mix = nn.Sequential(*(Mixer(_CELLS) for _ in range(4)))
        self.channel_proj = nn.Linear(channels, dimension // _ROWS[dimension])
        self.row_proj = nn.Linear(_CELLS, _ROWS[dimension])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 20, 20) -> (B, D), unit length."""
        projected: Tensor = self.channel_proj(self.mix(x.flatten(2)).transpose(1, 2))  # (B, N, D / rows)
        rows: Tensor = self.row_proj(projected.transpose(1, 2))
        return F.normalize(rows.flatten(1), dim=1)
