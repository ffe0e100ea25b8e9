"""Quads, homographies and warps.

Convention:
    Points are (x, y) in normalised coordinates: -1 and 1 are the image's outer edges (``align_corners=False``),
    x to the right, y down. A quad is (4, 2), clockwise from top-left. A homography ``dst_from_src`` is a 3×3
    matrix acting on column vectors (x, y, 1). A warp *pulls*: the quad of the source fills the result's frame.
    kornia 0.9's ``homography_warp`` at its defaults does the same; the kornia of 2021, with which the published
    weights were trained, spread its grid to the outer pixel centres, half a pixel off at the border.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

FULL_FRAME: tuple[tuple[float, float], ...] = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
"""The quad that covers the whole image."""


def full_frame(batch: int, like: Tensor) -> Tensor:
    """Return the full frame's quad ``batch`` times, (B, 4, 2), with the dtype and device of ``like``."""
    return torch.tensor(FULL_FRAME, dtype=like.dtype, device=like.device).expand(batch, 4, 2)


def homography_from_quads(quad_src: Tensor, quad_dst: Tensor) -> Tensor:
    """Return the homography that takes four points to four points, exactly.

    Four correspondences determine it: the 8×8 system with h33 = 1 is solved, no SVD (which synchronises a GPU and
    is 45 times slower on a CPU). Differentiable.

    Args:
        quad_src: (B, 4, 2).
        quad_dst: (B, 4, 2).

    Returns:
        (B, 3, 3) ``dst_from_src`` with its last element 1.
    """
    x, y = quad_src.unbind(-1)
    u, v = quad_dst.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1)
    system = torch.cat([rows_u, rows_v], dim=1)
    # solve_ex: no host synchronisation on CUDA; a degenerate quad gives inf or NaN, as any solver would
    solution, _ = torch.linalg.solve_ex(system, torch.cat([u, v], dim=1).unsqueeze(-1))
    return torch.cat([solution.squeeze(-1), torch.ones_like(solution[:, :1, 0])], dim=1).reshape(
        len(quad_src), 3, 3
    )


def quad_from_frame(quad: Tensor) -> Tensor:
    """Return the homography (B, 3, 3) that takes the full frame's corners to ``quad`` (B, 4, 2) (paper eq. 2)."""
    return homography_from_quads(full_frame(quad.shape[0], quad), quad)


def transform_points(dst_from_src: Tensor, points: Tensor) -> Tensor:
    """Apply a homography (B, 3, 3) to points (B, N, 2); returns (B, N, 2)."""
    homogeneous = points @ dst_from_src[:, :, :2].transpose(1, 2) + dst_from_src[:, None, :, 2]
    return homogeneous[..., :2] / homogeneous[..., 2:]


def warp(image: Tensor, quad: Tensor) -> Tensor:
    """Resample ``image`` so that ``quad`` fills the frame (paper eq. 2): bilinear, zeros outside.

    Args:
        image: (B, C, H, W), any float dtype.
        quad: (B, 4, 2) on the image.

    Returns:
        (B, C, H, W).
    """
    height, width = image.shape[-2:]
    # sixteen bits cannot place a sample: half a pixel off at 640 px, several at 1280
    exact = torch.promote_types(image.dtype, torch.float32)
    quad = quad.to(torch.promote_types(quad.dtype, torch.float32))
    ys = (torch.arange(height, device=image.device, dtype=quad.dtype) * 2 + 1) / height - 1
    xs = (torch.arange(width, device=image.device, dtype=quad.dtype) * 2 + 1) / width - 1
    h = quad_from_frame(quad)
    # H (x, y, 1) as one outer sum: no (H·W, 3) matrix of grid points is formed
    columns, rows = h[:, :, 0, None] * xs, h[:, :, 1, None] * ys + h[:, :, 2, None]  # (B, 3, W), (B, 3, H)
    mapped = columns[:, :, None, :] + rows[:, :, :, None]
    grid = (mapped[:, :2] / mapped[:, 2:]).permute(0, 2, 3, 1).to(exact)
    warped = F.grid_sample(image.to(exact), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return warped.to(image.dtype)


def flip_quad(quad: Tensor) -> Tensor:
    """Return the quad (…, 4, 2) as seen in the horizontally flipped image: left and right swap, x is negated."""
    flipped = quad[..., [1, 0, 3, 2], :]
    return torch.stack([-flipped[..., 0], flipped[..., 1]], dim=-1)
