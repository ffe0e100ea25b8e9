"""Vision transformers as DINOv2 has them, with its key layout (Oquab et al., TMLR 2024; Darcet et al., ICLR 2024).

No library: torch has all the parts. transformers needs Python 3.11, takes 150 MB of memory when it is imported,
and interpolates position embeddings in another way than the published weights' code (seeded weights give tokens
7 % apart at 224 px, equal ones at 518 px); timm needs torchvision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeGuard

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from geowarp_ros.model.cricavpr import Adapter

TransformerName: TypeAlias = Literal[
    "dinov2_vits14",
    "dinov2_vitb14",
    "dinov2_vitl14",
    "dinov2_vits14_reg",
    "dinov2_vitb14_reg",
    "dinov2_vitl14_reg",
    "boq_vitb14",
    "cricavpr_vitb14",
]

PATCH_PX = 14
_GRID = 37  # position embeddings a side: the weights were finished on images of 518 px
_HEAD = 64  # channels of an attention head, at every size
_EPSILON = 1e-6


@dataclass(frozen=True)
class Size:
    """One of the published sizes.

    Attributes:
        channels: C of the tokens.
        depth: Number of blocks.
        registers: Number of tokens that belong to no patch, besides the class token.
        normed: Whether the tokens are normalised at the end; BoQ takes them as they are.
        adapted: Whether each block has CricaVPR's adapter.
    """

    channels: int
    depth: int
    registers: int = 0
    normed: bool = True
    adapted: bool = False


SIZES: dict[TransformerName, Size] = {
    "dinov2_vits14": Size(384, 12),
    "dinov2_vitb14": Size(768, 12),
    "dinov2_vitl14": Size(1024, 24),
    "dinov2_vits14_reg": Size(384, 12, 4),
    "dinov2_vitb14_reg": Size(768, 12, 4),
    "dinov2_vitl14_reg": Size(1024, 24, 4),
    "boq_vitb14": Size(768, 12, normed=False),
    "cricavpr_vitb14": Size(768, 12, adapted=True),
}


def is_transformer(name: str) -> TypeGuard[TransformerName]:
    """Whether an encoder of that name is a vision transformer."""
    return name in SIZES


class _PatchEmbedding(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, PATCH_PX, PATCH_PX)

    def forward(self, images: Tensor) -> Tensor:
        patches: Tensor = self.proj(images)
        return patches


class _Scale(nn.Module):
    """A factor for each channel (LayerScale, Touvron et al., ICCV 2021)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Attention(nn.Module):
    """Self-attention of several heads (Vaswani et al., NeurIPS 2017)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, -1, _HEAD)).permute(2, 0, 3, 1, 4)  # each (B, heads, N, 64)
        mixed: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class _Perceptron(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class _Block(nn.Module):
    """Attention among the tokens, then a perceptron on each; both are normalised before and scaled behind."""

    def __init__(self, channels: int, adapted: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=_EPSILON)
        self.attn = _Attention(channels)
        self.ls1 = _Scale(channels)
        self.norm2 = nn.LayerNorm(channels, eps=_EPSILON)
        self.mlp = _Perceptron(channels)
        self.ls2 = _Scale(channels)
        self.adapter = Adapter(channels) if adapted else None

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        given = self.norm2(x)
        added = self.mlp(given)
        if self.adapter is not None:
            added = added + self.adapter(given, grid)
        y: Tensor = x + self.ls2(added)
        return y


class VisionTransformer(nn.Sequential):
    """Images to the tokens of their patches of 14×14 px, as a feature map of stride 14.

    A sequence, as all encoders are, so that there is one type of them; what it computes is :meth:`tokens`.

    Args:
        size: Which one.
        depth: Number of blocks, the first ones; 0: all.
    """

    def __init__(self, size: Size, depth: int = 0) -> None:
        super().__init__()
        channels = size.channels
        self.patch_embed = _PatchEmbedding(channels)
        self.blocks = nn.ModuleList(_Block(channels, size.adapted) for _ in range(depth or size.depth))
        self.norm = nn.LayerNorm(channels, eps=_EPSILON) if size.normed else nn.Identity()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + _GRID**2, channels))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if size.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, size.registers, channels))
        self._registers = size.registers

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w), h and w the sides in patches, rounded, at least 1."""
        return self.tokens(images)[0]

    def tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> the feature map (B, C, h, w) and the class token (B, C).

        Images whose sides are no multiples of 14 px are resized to the nearest.
        """
        rows, columns = (max(1, round(side / PATCH_PX)) for side in images.shape[2:])
        size = rows * PATCH_PX, columns * PATCH_PX
        if images.shape[2:] != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        patches = self.patch_embed(images.to(self.cls_token.dtype)).flatten(2).transpose(1, 2)  # (B, h·w, C)
        first = self.cls_token.expand(patches.shape[0], -1, -1)  # len() would fix the batch of an export
        x = torch.cat([first, patches], dim=1) + self._positions(rows, columns)
        if self._registers:
            x = torch.cat([x[:, :1], self.register_tokens.expand(x.shape[0], -1, -1), x[:, 1:]], dim=1)
        for block in self.blocks:
            x = block(x, (rows, columns))
        x = self.norm(x)
        feature_map = x[:, 1 + self._registers :].transpose(1, 2).unflatten(2, (rows, columns))
        return feature_map, x[:, 0]

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Return the position embeddings of the class token and of rows x columns patches, (1, 1 + h·w, C).

        As in DINOv2's code, which the weights go with: without registers the cells are scaled by a tenth of a cell
        more than the sides say (https://github.com/facebookresearch/dino/issues/8), and averaged over none.
        """
        if rows == columns == _GRID:
            return self.pos_embed
        positions = self.pos_embed.float()
        grid = positions[:, 1:].transpose(1, 2).unflatten(2, (_GRID, _GRID))
        if self._registers:
            grid = F.interpolate(grid, (rows, columns), mode="bicubic", antialias=True)
        else:
            scale = (rows + 0.1) / _GRID, (columns + 0.1) / _GRID
            grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], dim=1).to(self.pos_embed.dtype)
