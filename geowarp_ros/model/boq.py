"""BoQ's aggregation: learned queries that attend to a feature map's cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

_QUERIES = 64
_BLOCKS = 2
_HEAD = 64
"""Channels of an attention head."""


class Block(nn.Module):
    """An encoder layer for the cells, and queries that ask them (Ali-bey et al., CVPR 2024, sec. 3.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        heads = width // _HEAD
        self.encoder = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
        self.queries = nn.Parameter(torch.randn(1, _QUERIES, width))
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_q = nn.LayerNorm(width)
        self.cross_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_out = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cells (B, N, width) -> the cells encoded, and the answers to the queries (B, 64, width)."""
        x = self.encoder(x)
        asked = self.queries
        asked = self.norm_q(asked + self.self_attn(asked, asked, asked, need_weights=False)[0])
        answers = self.cross_attn(asked.expand(x.shape[0], -1, -1), x, x, need_weights=False)[0]
        return x, self.norm_out(answers)


class BagOfQueries(nn.Module):
    """A 3×3 convolution to half the channels, two blocks in a row, and a linear map over all answers.

    Args:
        channels: C of the feature map.
        dimension: D, a multiple of C / 2.

    Raises:
        ValueError: Another dimension.
    """

    def __init__(self, channels: int, dimension: int) -> None:
        super().__init__()
        width = channels // 2
        if dimension % width:
            raise ValueError(f"dimension = {dimension}: expected a multiple of {width} with boq")
        self.proj_c = nn.Conv2d(channels, width, 3, padding=1)
        self.norm_input = nn.LayerNorm(width)
        self.boqs = nn.ModuleList(Block(width) for _ in range(_BLOCKS))
        self.fc = nn.Linear(_BLOCKS * _QUERIES, dimension // width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D), unit length."""
        cells = self.norm_input(self.proj_c(x).flatten(2).transpose(1, 2))
        found = []
        for block in self.boqs:
            cells, answers = block(cells)
            found.append(answers)
        return F.normalize(self.fc(torch.cat(found, dim=1).transpose(1, 2)).flatten(1), dim=1)
