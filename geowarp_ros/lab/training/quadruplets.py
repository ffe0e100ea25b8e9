"""Self-supervised training quadruplets {I_a, I_b, t_a, t_b}: two crops of one image with known overlap.

Convention:
    Trapezoids are quads (geometry.py): (…, 4, 2), normalised (x, y), y down, clockwise from top-left. ``t_x``,
    ``t_y`` and ``t_z`` lie on the source image, ``t_a`` and ``t_b`` on the crops.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geowarp_ros.errors import TrainingError
from geowarp_ros.geometry import full_frame, homography_from_quads, transform_points, warp


@dataclass(frozen=True, slots=True)
class Quadruplets:
    """P = B·V(V-1)/2 pairs from V crops of each of B images (V = 2 in the paper).

    Attributes:
        views: (B·V, 3, H, W) crops, grouped by image.
        first: (P,) index of I_a in ``views``.
        second: (P,) index of I_b in ``views``.
        quad_a: (P, 4, 2) overlap on I_a (t_a).
        quad_b: (P, 4, 2) overlap on I_b (t_b).
        trapezoid_x: (P, 4, 2) crop I_a on the source image (t_x).
        trapezoid_y: (P, 4, 2) crop I_b on the source image (t_y).
        trapezoid_z: (P, 4, 2) their overlap on the source image (t_z).
    """

    views: Tensor
    first: Tensor
    second: Tensor
    quad_a: Tensor
    quad_b: Tensor
    trapezoid_x: Tensor
    trapezoid_y: Tensor
    trapezoid_z: Tensor


def random_trapezoids(count: int, k: float, like: Tensor) -> Tensor:
    """Draw trapezoids with two vertical sides (paper eq. 11).

    Left and right sides are inset by U(0, k) from the image edge, top and bottom by U(0, k) at each corner.

    Args:
        count: Number of trapezoids.
        k: Warping coefficient, 0..1; 0 is the full frame.
        like: Tensor of the desired device and dtype.

    Returns:
        (count, 4, 2).

    Raises:
        TrainingError: k outside 0..1.
    """
    if not 0.0 <= k <= 1.0:
        raise TrainingError(f"warping coefficient k = {k}: expected 0 to 1")
    inset = k * torch.rand(count, 6, dtype=like.dtype, device=like.device)
    left, right = inset[:, 0] - 1, 1 - inset[:, 1]
    x = torch.stack([left, right, right, left], dim=1)
    y = torch.cat([inset[:, 2:4] - 1, 1 - inset[:, 4:6]], dim=1)
    return torch.stack([x, y], dim=2)


def overlap_trapezoid(trapezoid_x: Tensor, trapezoid_y: Tensor) -> Tensor:
    """Return t_z, the widest trapezoid with two vertical sides inside t_x ∩ t_y (paper sec. 3.4.1).

    Its sides lie at the larger left and the smaller right edge, each from the lower of the two tops to the upper
    of the two bottoms. It is inside the intersection because that is convex.

    Args:
        trapezoid_x: (P, 4, 2) with vertical left and right sides.
        trapezoid_y: (P, 4, 2) with vertical left and right sides.

    Returns:
        (P, 4, 2).
    """
    both = torch.stack([trapezoid_x, trapezoid_y])  # (2, P, 4, 2)
    left = both[:, :, 0, 0].amax(dim=0)
    right = both[:, :, 1, 0].amin(dim=0)
    edges = torch.stack([left, right], dim=1)  # (P, 2)

    def height(start: int, end: int) -> Tensor:
        """Return y (2, P, 2) at both edges of the side from corner ``start`` to corner ``end``."""
        p, q = both[:, :, start, None], both[:, :, end, None]
        return p[..., 1] + (q[..., 1] - p[..., 1]) * (edges - p[..., 0]) / (q[..., 0] - p[..., 0])

    top, bottom = height(0, 1).amax(dim=0), height(3, 2).amin(dim=0)  # y down
    x = torch.stack([left, right, right, left], dim=1)
    y = torch.stack([top[:, 0], top[:, 1], bottom[:, 1], bottom[:, 0]], dim=1)
    return torch.stack([x, y], dim=2)


def project_on_crop(trapezoid: Tensor, crop: Tensor) -> Tensor:
    """Transform ``trapezoid`` (P, 4, 2) from the source image to the crop of quad ``crop`` (P, 4, 2) (eq. 12)."""
    return transform_points(homography_from_quads(crop, full_frame(crop.shape[0], crop)), trapezoid)


def generate_quadruplets(photographs: Tensor, k: float, views: int = 2) -> Quadruplets:
    """Generate training pairs with known overlap from single images (paper sec. 3.4.1, eq. 11-12, Figure 4).

    All pairs of crops of an image are used, so more views share encoder passes (4 views: 6 pairs for 4 passes).

    Args:
        photographs: (B, 3, H, W), any normalisation.
        k: Warping coefficient, 0..1.
        views: Crops per image, at least 2.

    Returns:
        B·views·(views - 1)/2 pairs.

    Raises:
        TrainingError: k or views out of range.
    """
    if views < 2:
        raise TrainingError(f"views = {views}: a pair needs at least 2")
    batch = photographs.shape[0]
    trapezoids = random_trapezoids(batch * views, k, photographs)
    crops = warp(photographs.repeat_interleave(views, dim=0), trapezoids)
    within = torch.combinations(torch.arange(views, device=photographs.device), 2)  # (V(V-1)/2, 2)
    offsets = torch.arange(batch, device=photographs.device)[:, None, None] * views
    first, second = (offsets + within).reshape(-1, 2).unbind(dim=1)
    x, y = trapezoids[first], trapezoids[second]
    z = overlap_trapezoid(x, y)
    return Quadruplets(crops, first, second, project_on_crop(z, x), project_on_crop(z, y), x, y, z)
