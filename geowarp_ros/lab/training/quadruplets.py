"""Generated training quadruplets {I_a, I_b, t_a, t_b}: two crops of one photograph whose overlap is known.

Everything is batched on the images' device; no polygon library, no loop over the batch.

Convention:
    Trapezoids are quads (geometry.py): (…, 4, 2), normalised (x, y), y down, clockwise from top-left. ``t_x``,
    ``t_y`` and ``t_z`` lie on the photograph, ``t_a`` and ``t_b`` on the crops.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geowarp_ros.errors import TrainingError
from geowarp_ros.geometry import full_frame, homography_from_quads, transform_points, warp


@dataclass(frozen=True, slots=True)
class Quadruplets:
    """B·V(V-1)/2 generated pairs out of V crops of each of B photographs (the paper's V is 2).

    Attributes:
        views: (B·V, 3, H, W) the crops, those of one photograph side by side.
        first: (P,) which view is I_a of each pair.
        second: (P,) which view is I_b.
        quad_a: (P, 4, 2) the overlap on I_a: t_a.
        quad_b: (P, 4, 2) the overlap on I_b: t_b.
        trapezoid_x: (P, 4, 2) on the photograph, the trapezoid that I_a shows: t_x.
        trapezoid_y: (P, 4, 2) the one that I_b shows: t_y.
        trapezoid_z: (P, 4, 2) their overlap: t_z.
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

    In normalised coordinates eq. 11 reads: each side lies U(0, k) inside the photograph's edge, left and right
    once per trapezoid, top and bottom once per corner. k = 0 is the full frame.

    Args:
        count: How many.
        k: Warping coefficient, 0..1; larger crops more and tilts more.
        like: Gives device and dtype.

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
    """Return t_z, the widest trapezoid with two vertical edges within t_x ∩ t_y (paper sec. 3.4.1).

    The intersection spans x from the larger left to the smaller right edge, so the widest one has its vertical
    edges there, each from the lower of the two tops to the upper of the two bottoms. The intersection's own top
    and bottom may have a corner between the edges, where two sides cross; t_z cuts it off. It lies within all
    the same, because the intersection of two convex figures is convex and holds the segments between its points.
    The published training takes the same four corners, from a polygon library, one pair at a time.

    Args:
        trapezoid_x: (P, 4, 2) with vertical left and right sides.
        trapezoid_y: (P, 4, 2), likewise.

    Returns:
        (P, 4, 2).
    """
    both = torch.stack([trapezoid_x, trapezoid_y])  # (2, P, 4, 2)
    left = both[:, :, 0, 0].amax(dim=0)
    right = both[:, :, 1, 0].amin(dim=0)
    edges = torch.stack([left, right], dim=1)  # (P, 2)

    def height(start: int, end: int) -> Tensor:
        """(2, P, 2): y at both edges of the side from corner ``start`` to corner ``end``."""
        p, q = both[:, :, start, None], both[:, :, end, None]
        return p[..., 1] + (q[..., 1] - p[..., 1]) * (edges - p[..., 0]) / (q[..., 0] - p[..., 0])

    top, bottom = height(0, 1).amax(dim=0), height(3, 2).amin(dim=0)  # y down: the lower top, the upper bottom
    x = torch.stack([left, right, right, left], dim=1)
    y = torch.stack([top[:, 0], top[:, 1], bottom[:, 1], bottom[:, 0]], dim=1)
    return torch.stack([x, y], dim=2)


def project_on_crop(trapezoid: Tensor, crop: Tensor) -> Tensor:
    """Return ``trapezoid`` (P, 4, 2) of the photograph as it lies on the crop that shows ``crop`` (eq. 12)."""
    return transform_points(homography_from_quads(crop, full_frame(crop.shape[0], crop)), trapezoid)


def generate_quadruplets(photographs: Tensor, k: float, views: int = 2) -> Quadruplets:
    """Make training pairs with a known overlap from single photographs (paper sec. 3.4.1, eq. 11-12, Figure 4).

    Every pair of a photograph's crops is a training pair: with more than the paper's two views the encoder's
    work is shared by several pairs (4 views: 6 pairs for the price of 2).

    Args:
        photographs: (B, 3, H, W), any normalisation.
        k: Warping coefficient, 0..1.
        views: Crops of each photograph, at least 2.

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
    trapezoid_x, trapezoid_y = trapezoids[first], trapezoids[second]
    trapezoid_z = overlap_trapezoid(trapezoid_x, trapezoid_y)
    return Quadruplets(
        views=crops,
        first=first,
        second=second,
        quad_a=project_on_crop(trapezoid_z, trapezoid_x),
        quad_b=project_on_crop(trapezoid_z, trapezoid_y),
        trapezoid_x=trapezoid_x,
        trapezoid_y=trapezoid_y,
        trapezoid_z=trapezoid_z,
    )
