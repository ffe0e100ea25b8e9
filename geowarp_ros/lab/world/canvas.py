"""2-D drawing surface in metres: x to the right, z up from the bottom edge, as on an elevation drawing."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.lab.world.materials import Colour, Material

Pixels = NDArray[np.uint8]


class Canvas:
    """RGBA image with metric drawing calls, initially filled with ``colour``, or transparent if None.

    Transparent texels hold the colour ``behind``: texture reductions average it in along edges.
    """

    def __init__(
        self,
        width_m: float,
        height_m: float,
        texels: float,
        colour: Colour | None,
        *,
        behind: Colour = (90, 90, 80),
    ) -> None:
        self.width_m, self.height_m, self.texels = width_m, height_m, texels
        size = (max(2, round(height_m * texels)), max(2, round(width_m * texels)), 4)
        self.rgba = np.empty(size, np.uint8)
        self.rgba[:] = (*colour, 255) if colour else (*behind, 0)

    @property
    def rgb(self) -> Pixels:
        """(h, w, 3) view without alpha."""
        return self.rgba[..., :3]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width (texels)."""
        return self.rgba.shape[0], self.rgba.shape[1]

    def cover(
        self, material: Material, rng: np.random.Generator, colour: Colour, window: Pixels | None = None
    ) -> None:
        """Fill the canvas, or a :meth:`window` of it, with a material."""
        view = self.rgba if window is None else window
        view[..., :3] = material(rng, view.shape[0], view.shape[1], self.texels, colour)

    def window(self, x0: float, z0: float, x1: float, z1: float) -> Pixels:
        """Return a view (h, w, 4) of a rectangle, clipped to the canvas; may be empty."""
        height, width = self.size
        left, right = (int(np.clip(round(x * self.texels), 0, width)) for x in (x0, x1))
        top, bottom = (int(np.clip(height - round(z * self.texels), 0, height)) for z in (z1, z0))
        return self.rgba[top:bottom, left : max(left, right)]

    def rectangle(self, x0: float, z0: float, x1: float, z1: float, colour: Colour) -> None:
        """Fill a rectangle, at least one texel wide and high."""
        thin = 1.0 / self.texels
        self.window(x0, z0, max(x1, x0 + thin), max(z1, z0 + thin))[:] = (*colour, 255)

    def paste(self, x0: float, z0: float, pixels: Pixels) -> None:
        """Paste RGB or RGBA texels with the lower left corner at (x0, z0); transparent texels are skipped."""
        height, width = pixels.shape[:2]
        view = self.window(x0, z0, x0 + width / self.texels, z0 + height / self.texels)
        if view.size == 0:
            return
        size = (view.shape[1], view.shape[0])
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        if pixels.shape[2] == 3:
            view[..., :3], view[..., 3] = pixels, 255
        else:
            solid = pixels[..., 3] > 127
            view[solid] = pixels[solid]

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour, alpha: int = 255) -> None:
        """Fill a polygon of (x, z) corners; alpha 0 cuts a hole."""
        cv2.fillPoly(self.rgba, [self._texels(points)], (*colour, alpha))

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, thickness_m: float) -> None:
        """Draw a polyline."""
        thickness = max(1, round(thickness_m * self.texels))
        cv2.polylines(self.rgba, [self._texels(points)], False, (*colour, 255), thickness)

    def ellipse(self, x: float, z: float, rx: float, rz: float, colour: Colour, *, upper: bool = False) -> None:
        """Fill an ellipse, or its upper half."""
        centre = self._texels([(x, z)])[0]
        axes = (max(1, round(rx * self.texels)), max(1, round(rz * self.texels)))
        start, end = (180, 360) if upper else (0, 360)
        cv2.ellipse(self.rgba, (int(centre[0]), int(centre[1])), axes, 0, start, end, (*colour, 255), -1)

    def shade(self, x0: float, z0: float, x1: float, z1: float, factor: float) -> None:
        """Multiply a rectangle's colours."""
        view = self.window(x0, z0, x1, z1)[..., :3]
        view[:] = np.clip(view.astype(np.float32) * factor, 0, 255).astype(np.uint8)

    def text(
        self, words: str, x: float, z: float, width_m: float, height_m: float, colour: Colour, face: int
    ) -> None:
        """Write text scaled to fit a box centred at (x, z)."""
        (w, h), _ = cv2.getTextSize(words, face, 1.0, 1)
        scale = min(width_m * self.texels / max(w, 1), height_m * self.texels / max(h, 1))
        thickness = max(1, round(h * scale / 7))
        (w, h), _ = cv2.getTextSize(words, face, scale, thickness)
        centre = self._texels([(x, z)])[0]
        corner = (int(centre[0]) - w // 2, int(centre[1]) + h // 2)
        cv2.putText(self.rgba, words, corner, face, scale, (*colour, 255), thickness, cv2.LINE_AA)

    def _texels(self, points: Sequence[tuple[float, float]]) -> NDArray[np.int32]:
        array = np.asarray(points, float) * (self.texels, -self.texels) + (0, self.size[0] - 1)
        return np.round(array).astype(np.int32)
