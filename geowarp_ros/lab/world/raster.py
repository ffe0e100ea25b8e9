"""Software rasteriser: textured parallelograms with a depth buffer.

Surfaces are planar, so the texture mapping is a homography and inverse depth is affine in the pixel: both exact.
Surfaces are drawn near to far and sampled only where visible.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.lab.world.camera import Camera, Vector
from geowarp_ros.lab.world.materials import Pixels
from geowarp_ros.lab.world.surfaces import Scene, Texture

NEAR_M = 0.15
"""Near plane."""
Box: TypeAlias = tuple[int, int, int, int]
"""x0, y0, x1, y1 (px), half-open."""
Span: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A surface in camera coordinates.

    Attributes:
        o: (3,) origin.
        u: (3,) edge along the columns.
        v: (3,) edge along the rows.
        depth_plane: (3,) p with ``p · (x, y, 1)`` = inverse depth at pixel (x, y).
        sheet_from_pixels: (3, 3) homography from pixels to (a, b).
        texture: Its texture.
        light: 255 × cosine of the sun's angle of incidence.
    """

    o: Vector
    u: Vector
    v: Vector
    depth_plane: Vector
    sheet_from_pixels: Vector
    texture: Texture
    light: int


class Raster:
    """Colour, inverse depth and sunlight of one view at ``factor`` times the camera's resolution.

    Attributes:
        colour: (h, w, 3) uint8 albedo; 0 where empty.
        inverse_depth: (h, w) float32 (1/m); 0 where empty.
        sunlight: (h, w) uint8, 255 × cosine of the sun's angle of incidence.
    """

    def __init__(self, camera: Camera, factor: int, sun: Vector) -> None:
        self.camera, self.factor, self.sun = camera, factor, sun
        self.width, self.height = camera.width_px * factor, camera.height_px * factor
        self.matrix = camera.scaled_matrix(factor)
        self.colour = np.zeros((self.height, self.width, 3), np.uint8)
        self.inverse_depth = np.zeros((self.height, self.width), np.float32)
        self.sunlight = np.zeros((self.height, self.width), np.uint8)
        self._columns = np.arange(self.width, dtype=np.float32)
        self._rows = np.arange(self.height, dtype=np.float32)

    def draw(self, scene: Scene) -> None:
        """Draw a scene with hidden-surface removal."""
        for sheet in self._sheets(scene):
            for piece in _pieces(sheet):
                self._draw_piece(sheet, *piece)

    def darken(self, shadows: Scene) -> None:
        """Apply ground shadows to what is drawn; their alpha is the share of light removed."""
        for sheet in self._sheets(shadows):
            box, _ = self._outline(_corners(sheet, (0.0, 1.0), (0.0, 1.0)))
            if box is None:
                continue
            x0, y0, x1, y1 = box
            taken = self._sample(sheet, sheet.texture.pixels, box)[..., 3]
            window = (slice(y0, y1), slice(x0, x1))
            # only surfaces on the shadow's plane, within 4 % of its depth
            near = np.abs(self.inverse_depth[window] / self._inverse_depth_of(sheet, box) - 1) < 0.04
            light = (255 - np.where(near, taken, 0).astype(np.uint16))[..., None]
            self.colour[window] = (self.colour[window] * light // 255).astype(np.uint8)

    def _sheets(self, scene: Scene) -> Iterator[_Sheet]:
        """Yield the potentially visible surfaces, near to far."""
        origins, us, vs, two_sided, reach = scene.arrays()
        rotation = self.camera.camera_from_world
        o = (origins - self.camera.position) @ rotation.T
        u, v = us @ rotation.T, vs @ rotation.T
        corners = np.stack([o, o + u, o + u + v, o + v], axis=1)  # (N, 4, 3)
        normals = np.cross(u, v)
        facing = np.einsum("ij,ij->i", normals, o)
        nearest = np.sqrt((corners**2).sum(2).min(1))
        seen = self._in_view(corners) & (two_sided | (facing > 0)) & (nearest < reach) & (np.abs(facing) > 1e-9)
        chosen = np.flatnonzero(seen)
        chosen = chosen[np.argsort(nearest[chosen], kind="stable")]
        outward = np.cross(vs[chosen], us[chosen])
        cosines = outward @ self.sun / np.sqrt((outward**2).sum(1))
        cosines = np.where(two_sided[chosen], np.abs(cosines), np.maximum(cosines, 0))
        pixels_from_camera = np.linalg.inv(self.matrix)
        planes = normals[chosen] / facing[chosen, None] @ pixels_from_camera
        homographies = np.linalg.inv(self.matrix @ np.stack([u[chosen], v[chosen], o[chosen]], axis=2))
        for i, index in enumerate(chosen):
            light = int(255 * cosines[i])
            texture = scene.surfaces[index].texture
            yield _Sheet(o[index], u[index], v[index], planes[i], homographies[i], texture, light)

    def _in_view(self, corners: Vector) -> NDArray[np.bool_]:
        """Return which quads (N, 4, 3) intersect the view frustum and cover at least a pixel."""
        x, y, z = corners[..., 0], corners[..., 1], corners[..., 2]
        slope_x = self.width / 2 / self.matrix[0, 0]
        slope_y = self.height / 2 / self.matrix[1, 1]
        outside = (z < NEAR_M, x > slope_x * z, -x > slope_x * z, y > slope_y * z, -y > slope_y * z)
        hidden = np.any([np.all(side, axis=1) for side in outside], axis=0)
        depth = np.maximum(z, NEAR_M) / self.matrix[0, 0]
        small = (np.ptp(x / depth, axis=1) < self.factor) | (np.ptp(y / depth, axis=1) < self.factor)
        return np.asarray(~(hidden | (small & (z.min(1) > NEAR_M))))

    def _outline(self, quad: Vector) -> tuple[Box | None, Vector]:
        """Project a quad (4, 3); return its bounding box, None outside the image, and its outline (px)."""
        polygon = quad if min(quad[0, 2], quad[1, 2], quad[2, 2], quad[3, 2]) > NEAR_M else _clip_near(quad)
        if len(polygon) < 3:
            return None, polygon
        pixels = polygon @ self.matrix.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        (left, top), (right, bottom) = pixels.min(0), pixels.max(0)
        x0, y0 = max(int(left), 0), max(int(top), 0)
        x1, y1 = min(int(right) + 2, self.width), min(int(bottom) + 2, self.height)
        return ((x0, y0, x1, y1) if x1 > x0 and y1 > y0 and right >= 0 and bottom >= 0 else None), pixels

    def _inverse_depth_of(self, sheet: _Sheet, box: Box) -> NDArray[np.float32]:
        x0, y0, x1, y1 = box
        a, b, c = (np.float32(value) for value in sheet.depth_plane)
        result: NDArray[np.float32] = np.add.outer(b * self._rows[y0:y1] + c, a * self._columns[x0:x1])
        return result

    def _draw_piece(self, sheet: _Sheet, span_u: Span, span_v: Span) -> None:
        quad = _corners(sheet, span_u, span_v)
        box, pixels = self._outline(quad)
        if box is None:
            return
        x0, y0, x1, y1 = box
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        # 4 fractional bits; clipped so that points far outside the image fit 32 bits
        fixed = np.clip((pixels - (x0, y0)) * 16, -200000000, 200000000).round().astype(np.int32)
        cv2.fillConvexPoly(mask, fixed, 255, lineType=cv2.LINE_8, shift=4)
        inverse = self._inverse_depth_of(sheet, box)
        depths = self.inverse_depth[y0:y1, x0:x1]
        cv2.bitwise_and(mask, cv2.compare(inverse, depths, cv2.CMP_GT), dst=mask)
        if not cv2.countNonZero(mask):
            return
        share = (span_u[1] - span_u[0], span_v[1] - span_v[0])
        sampled = self._sample(sheet, self._reduced(sheet.texture, quad, share), box)
        if sampled.shape[2] == 4:
            cv2.bitwise_and(mask, cv2.threshold(sampled[..., 3], 127, 255, cv2.THRESH_BINARY)[1], dst=mask)
            sampled = cv2.cvtColor(sampled, cv2.COLOR_RGBA2RGB)
        cv2.copyTo(sampled, mask, self.colour[y0:y1, x0:x1])
        cv2.copyTo(inverse, mask, depths)
        self.sunlight[y0:y1, x0:x1][mask > 0] = sheet.light

    def _reduced(self, texture: Texture, quad: Vector, share: Span) -> Pixels:
        """Return the texture level with about one texel per pixel on a piece of a surface."""
        height, width = texture.pixels.shape[:2]
        screen = quad[:, :2] * (self.matrix[0, 0] / np.maximum(quad[:, 2:], NEAR_M * 2))
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = screen.tolist()
        length_u = max(math.hypot(x1 - x0, y1 - y0), math.hypot(x2 - x3, y2 - y3), 1e-3)
        length_v = max(math.hypot(x3 - x0, y3 - y0), math.hypot(x2 - x1, y2 - y1), 1e-3)
        return texture.level(_halvings(width * share[0] / length_u), _halvings(height * share[1] / length_v))

    def _sample(self, sheet: _Sheet, pixels: Pixels, box: Box) -> Any:
        """Sample a texture at every pixel of a box."""
        h, w = pixels.shape[:2]
        x0, y0, x1, y1 = box
        texels_from_sheet = np.array([[w, 0.0, -0.5], [0.0, h, -0.5], [0.0, 0.0, 1.0]])
        texels_from_box = texels_from_sheet @ sheet.sheet_from_pixels
        texels_from_box[:, 2] += texels_from_box[:, :2] @ (x0, y0)
        return cv2.warpPerspective(
            pixels,
            texels_from_box,
            (x1 - x0, y1 - y0),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE if pixels.shape[2] == 3 else cv2.BORDER_CONSTANT,
        )


def _pieces(sheet: _Sheet) -> Iterator[tuple[Span, Span]]:
    """Split a surface into (u, v) spans of similar depth; each uses its own texture level."""
    o, u, v = float(sheet.o[2]), float(sheet.u[2]), float(sheet.v[2])
    corners = (o, o + u, o + v, o + u + v)
    near, far = max(min(corners), NEAR_M), max(max(corners), NEAR_M)
    whole = (0.0, 1.0)
    count = min(6, math.ceil(math.log(far / near) / math.log(1.8))) if max(abs(u), abs(v)) > 0.5 else 1
    if count <= 1:
        yield whole, whole
        return
    along_u = abs(u) >= abs(v)
    step = u if along_u else v
    cuts = sorted((near * (far / near) ** (i / count) - o) / step for i in range(1, count))
    cuts = [0.0, *(min(max(cut, 0.0), 1.0) for cut in cuts), 1.0]
    for low, high in pairwise(cuts):
        if high - low > 1e-6:
            yield ((low, high), whole) if along_u else (whole, (low, high))


def _corners(sheet: _Sheet, span_u: Span, span_v: Span) -> Vector:
    """Return the corners (4, 3) of part of a surface."""
    weights = np.array([(1.0, a, b) for a, b in zip((*span_u, *span_u[::-1]), np.repeat(span_v, 2), strict=True)])
    return np.asarray(weights @ np.stack([sheet.o, sheet.u, sheet.v]))


def _halvings(texels_per_pixel: float) -> int:
    return max(0, math.floor(math.log2(max(texels_per_pixel, 1e-6)) + 0.4))


def _clip_near(quad: Vector) -> Vector:
    """Clip a polygon at the near plane (Sutherland-Hodgman)."""
    kept = []
    for here, there in zip(quad, np.roll(quad, -1, axis=0), strict=True):
        if here[2] >= NEAR_M:
            kept.append(here)
        if (here[2] >= NEAR_M) != (there[2] >= NEAR_M):
            kept.append(here + (there - here) * ((NEAR_M - here[2]) / (there[2] - here[2])))
    return np.array(kept) if kept else np.zeros((0, 3))
