"""A small software renderer: textured parallelograms with a depth buffer.

Every surface is a plane, so its texture reaches the screen by one homography and its inverse depth is an affine
function of the pixel: both are exact. Surfaces are drawn near to far; what the depth buffer hides is never sampled.

Convention:
    A surface is ``origin + a·u + b·v``, 0 ≤ a, b ≤ 1; its texture's columns run along u, its rows along v.
    Seen from its front, u points right and v down: the outward normal is v × u.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.world.camera import Camera, Vector

NEAR_M = 0.15
Pixels = NDArray[np.uint8]


class Texture:
    """An image painted when first needed, and its reductions.

    The reductions halve columns and rows independently (a ripmap): walls seen at a slant shrink along one axis only.
    """

    def __init__(self, paint: Callable[[], Pixels]) -> None:
        self._paint = paint
        self._levels: dict[tuple[int, int], Pixels] = {}

    @property
    def pixels(self) -> Pixels:
        """(H, W, 3) RGB or (H, W, 4) with alpha, where 128 and more is solid."""
        if (0, 0) not in self._levels:
            self._levels[0, 0] = np.ascontiguousarray(self._paint())
        return self._levels[0, 0]

    def level(self, columns: int, rows: int) -> Pixels:
        """Return the texture with its columns halved ``columns`` times and its rows ``rows`` times."""
        height, width = self.pixels.shape[:2]
        columns = min(columns, width.bit_length() - 1)
        rows = min(rows, height.bit_length() - 1)
        if (columns, rows) not in self._levels:
            size = (max(1, width >> columns), max(1, height >> rows))
            self._levels[columns, rows] = cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        return self._levels[columns, rows]


@dataclass
class Scene:
    """A list of surfaces; arrays are made once it is complete."""

    origins: list[Vector] = field(default_factory=list)
    us: list[Vector] = field(default_factory=list)
    vs: list[Vector] = field(default_factory=list)
    textures: list[Texture] = field(default_factory=list)
    two_sided: list[bool] = field(default_factory=list)
    reach_m: list[float] = field(default_factory=list)

    def add(
        self,
        origin: Vector,
        u: Vector,
        v: Vector,
        texture: Texture,
        *,
        two_sided: bool = False,
        reach_m: float = 400.0,
    ) -> None:
        """Add a surface; it is left out where the camera is farther than ``reach_m`` (small things)."""
        self.origins.append(origin)
        self.us.append(u)
        self.vs.append(v)
        self.textures.append(texture)
        self.two_sided.append(two_sided)
        self.reach_m.append(reach_m)

    def extend(self, other: Scene) -> None:
        """Add all surfaces of another scene."""
        for name in ("origins", "us", "vs", "textures", "two_sided", "reach_m"):
            getattr(self, name).extend(getattr(other, name))

    def arrays(self) -> tuple[Vector, Vector, Vector, NDArray[np.bool_], Vector]:
        """Return origins, u, v (N, 3), two_sided (N,) and reach (N,)."""
        if not self.origins:
            empty = np.zeros((0, 3))
            return empty, empty, empty, np.zeros(0, bool), np.zeros(0)
        return (
            np.array(self.origins),
            np.array(self.us),
            np.array(self.vs),
            np.array(self.two_sided),
            np.array(self.reach_m),
        )


class Raster:
    """Colour, inverse depth and sunlight of one view, ``factor`` times finer than the camera's image.

    Attributes:
        colour: (h, w, 3) uint8 albedo; 0 where nothing was drawn.
        inverse_depth: (h, w) float32 in 1/m; 0 where nothing was drawn.
        sunlight: (h, w) uint8, 255 × cosine of the sun's incidence on the surface.
    """

    def __init__(self, camera: Camera, factor: int, sun: Vector) -> None:
        self.camera, self.factor, self.sun = camera, factor, sun
        self.width, self.height = camera.width_px * factor, camera.height_px * factor
        self.matrix = camera.scaled_matrix(factor)
        self.colour = np.zeros((self.height, self.width, 3), np.uint8)
        self.inverse_depth = np.zeros((self.height, self.width), np.float32)
        self.sunlight = np.zeros((self.height, self.width), np.uint8)

    def draw(self, scene: Scene) -> None:
        """Draw all surfaces of a scene, hidden parts removed."""
        origins, us, vs, two_sided, reach = scene.arrays()
        rotation = self.camera.camera_from_world
        o = (origins - self.camera.position) @ rotation.T
        u, v = us @ rotation.T, vs @ rotation.T
        corners = np.stack([o, o + u, o + u + v, o + v], axis=1)  # (N, 4, 3)
        normals = np.cross(u, v)
        facing = np.einsum("ij,ij->i", normals, o)
        nearest = np.linalg.norm(corners, axis=2).min(1)
        seen = self._in_view(corners) & (two_sided | (facing > 0)) & (nearest < reach) & (np.abs(facing) > 1e-9)
        world_normals = np.cross(vs, us)
        cosines = world_normals @ self.sun / np.maximum(np.linalg.norm(world_normals, axis=1), 1e-12)
        cosines = np.where(two_sided, np.abs(cosines), cosines)
        chosen = np.flatnonzero(seen)
        for index in chosen[np.argsort(nearest[chosen], kind="stable")]:
            light = int(255 * max(0.0, float(cosines[index])))
            plane = normals[index] / facing[index] @ np.linalg.inv(self.matrix)
            self._surface(o[index], u[index], v[index], plane, scene.textures[index], light)

    def darken(self, shadows: Scene) -> None:
        """Lay soft shadows, whose alpha is how much light they take away, on the ground that is already drawn."""
        origins, us, vs, _, _ = shadows.arrays()
        rotation = self.camera.camera_from_world
        o, u, v = (origins - self.camera.position) @ rotation.T, us @ rotation.T, vs @ rotation.T
        corners = np.stack([o, o + u, o + u + v, o + v], axis=1)
        for index in np.flatnonzero(self._in_view(corners) & (corners[..., 2].min(1) > NEAR_M)):
            pixels = corners[index] @ self.matrix.T
            pixels = pixels[:, :2] / pixels[:, 2:]
            x0, y0 = np.maximum(np.floor(pixels.min(0)).astype(int), 0)
            x1 = min(int(np.ceil(pixels[:, 0].max())) + 1, self.width)
            y1 = min(int(np.ceil(pixels[:, 1].max())) + 1, self.height)
            if x1 - x0 < 4 or y1 - y0 < 2:
                continue
            normal = np.cross(u[index], v[index])
            plane = normal / (normal @ o[index]) @ np.linalg.inv(self.matrix)
            inverse = plane[0] * np.arange(x0, x1)[None, :] + (plane[1] * np.arange(y0, y1) + plane[2])[:, None]
            texture = shadows.textures[index]
            taken = self._warp(o[index], u[index], v[index], texture.pixels, (x0, y0, x1, y1))[..., 3]
            window = (slice(y0, y1), slice(x0, x1))
            # only what lies on the shadow's own plane, to a few per cent of its depth
            taken = np.where(np.abs(self.inverse_depth[window] / inverse - 1) < 0.04, taken, 0)
            light = (255 - taken.astype(np.uint16))[..., None]
            self.colour[window] = (self.colour[window] * light // 255).astype(np.uint8)

    def _in_view(self, corners: Vector) -> NDArray[np.bool_]:
        """Tell which quads (N, 4, 3) are not wholly outside one side of the view."""
        x, y, z = corners[..., 0], corners[..., 1], corners[..., 2]
        slope_x = self.width / 2 / self.matrix[0, 0]
        slope_y = self.height / 2 / self.matrix[1, 1]
        outside = [z < NEAR_M, x > slope_x * z, -x > slope_x * z, y > slope_y * z, -y > slope_y * z]
        return ~np.any([np.all(side, axis=1) for side in outside], axis=0)

    def _surface(self, o: Vector, u: Vector, v: Vector, plane: Vector, texture: Texture, light: int) -> None:
        """Draw one surface in pieces whose depth varies little, each at its own reduction of the texture."""
        across = max(abs(u[2]), abs(v[2]))
        z = np.array([o[2], o[2] + u[2], o[2] + v[2], o[2] + u[2] + v[2]])
        near, far = max(float(z.min()), NEAR_M), max(float(z.max()), NEAR_M)
        pieces = int(np.clip(np.ceil(np.log(far / near) / np.log(1.8)), 1, 6)) if across > 0.5 else 1
        if pieces == 1:
            self._piece(o, u, v, (0.0, 1.0), (0.0, 1.0), plane, texture, light)
            return
        along_u = abs(u[2]) >= abs(v[2])
        start, step = (o[2], u[2]) if along_u else (o[2], v[2])
        cuts = (near * (far / near) ** np.linspace(0, 1, pieces + 1) - start) / step
        cuts = np.clip(np.sort(cuts), 0.0, 1.0)
        cuts[0], cuts[-1] = 0.0, 1.0
        for low, high in zip(cuts[:-1], cuts[1:], strict=True):
            if high - low > 1e-6:
                span_u, span_v = ((low, high), (0.0, 1.0)) if along_u else ((0.0, 1.0), (low, high))
                self._piece(o, u, v, span_u, span_v, plane, texture, light)

    def _piece(
        self,
        o: Vector,
        u: Vector,
        v: Vector,
        span_u: tuple[float, float],
        span_v: tuple[float, float],
        plane: Vector,
        texture: Texture,
        light: int,
    ) -> None:
        (a0, a1), (b0, b1) = span_u, span_v
        quad = np.stack([o + a0 * u + b0 * v, o + a1 * u + b0 * v, o + a1 * u + b1 * v, o + a0 * u + b1 * v])
        polygon = quad if quad[:, 2].min() > NEAR_M else _clip_near(quad)
        if len(polygon) < 3:
            return
        pixels = polygon @ self.matrix.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        x0, y0 = np.maximum(np.floor(pixels.min(0)).astype(int), 0)
        x1 = min(int(np.ceil(pixels[:, 0].max())) + 1, self.width)
        y1 = min(int(np.ceil(pixels[:, 1].max())) + 1, self.height)
        if x1 <= x0 or y1 <= y0:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        # 4 fractional bits; the limit keeps what lies far outside the picture within 32 bits
        fixed = np.clip((pixels - (x0, y0)) * 16, -200000000, 200000000).round().astype(np.int32)
        cv2.fillConvexPoly(mask, fixed, 255, lineType=cv2.LINE_8, shift=4)
        columns = (plane[0] * np.arange(x0, x1)).astype(np.float32)
        rows = (plane[1] * np.arange(y0, y1) + plane[2]).astype(np.float32)
        inverse = rows[:, None] + columns[None, :]
        window = (slice(y0, y1), slice(x0, x1))
        cv2.bitwise_and(mask, cv2.compare(inverse, self.inverse_depth[window], cv2.CMP_GT), dst=mask)
        if not cv2.countNonZero(mask):
            return
        warped = self._sample(o, u, v, quad, texture, (a1 - a0, b1 - b0), (x0, y0, x1, y1))
        if warped.shape[2] == 4:
            cv2.bitwise_and(mask, cv2.compare(warped[..., 3], 127, cv2.CMP_GT), dst=mask)
            warped = np.ascontiguousarray(warped[..., :3])
        cv2.copyTo(warped, mask, self.colour[window])
        cv2.copyTo(inverse, mask, self.inverse_depth[window])
        self.sunlight[window][mask > 0] = light

    def _sample(
        self,
        o: Vector,
        u: Vector,
        v: Vector,
        quad: Vector,
        texture: Texture,
        share: tuple[float, float],
        box: tuple[int, int, int, int],
    ) -> Any:
        height, width = texture.pixels.shape[:2]
        scale = self.matrix[0, 0] / np.maximum(quad[:, 2], NEAR_M * 2)
        # screen length of each side, foreshortening included, against the texels that fall on it
        screen = quad[:, :2] * scale[:, None]
        length_u = max(_length(screen[1] - screen[0]), _length(screen[2] - screen[3]), 1e-3)
        length_v = max(_length(screen[3] - screen[0]), _length(screen[2] - screen[1]), 1e-3)
        reduced = texture.level(_halvings(width * share[0] / length_u), _halvings(height * share[1] / length_v))
        return self._warp(o, u, v, reduced, box)

    def _warp(self, o: Vector, u: Vector, v: Vector, pixels: Pixels, box: tuple[int, int, int, int]) -> Any:
        h, w = pixels.shape[:2]
        x0, y0, x1, y1 = box
        screen_from_plane = self.matrix @ np.stack([u, v, o], axis=1)
        texels_from_plane = np.array([[w, 0.0, -0.5], [0.0, h, -0.5], [0.0, 0.0, 1.0]])
        texels_from_screen = texels_from_plane @ np.linalg.inv(screen_from_plane)
        texels_from_screen[:, 2] += texels_from_screen[:, :2] @ (x0, y0)
        solid = pixels.shape[2] == 3
        return cv2.warpPerspective(
            pixels,
            texels_from_screen,
            (int(x1 - x0), int(y1 - y0)),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE if solid else cv2.BORDER_CONSTANT,
        )


def _length(vector: Vector) -> float:
    return float(np.hypot(vector[0], vector[1]))


def _halvings(texels_per_pixel: float) -> int:
    return max(0, int(np.floor(np.log2(max(texels_per_pixel, 1e-6)) + 0.4)))


def _clip_near(quad: Vector) -> Vector:
    """Cut away what lies before the near plane (Sutherland and Hodgman, one plane)."""
    kept = []
    for here, there in zip(quad, np.roll(quad, -1, axis=0), strict=True):
        if here[2] >= NEAR_M:
            kept.append(here)
        if (here[2] >= NEAR_M) != (there[2] >= NEAR_M):
            kept.append(here + (there - here) * ((NEAR_M - here[2]) / (there[2] - here[2])))
    return np.array(kept) if kept else np.zeros((0, 3))
