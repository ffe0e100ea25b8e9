"""What there is to draw: textures and the parallelograms that carry them.

Convention:
    A surface is ``origin + a·u + b·v``, 0 ≤ a, b ≤ 1; its texture's columns run along u, its rows along v.
    Seen from its front, u points right and v down: the outward normal is v × u.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.lab.world.camera import Vector

Pixels: TypeAlias = NDArray[np.uint8]


class Texture:
    """An image painted when first needed, and its reductions.

    The reductions halve columns and rows independently (a ripmap): walls seen at a slant shrink along one axis.
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
            self._levels[columns, rows] = cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA)
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
    _arrays: tuple[Vector, Vector, Vector, NDArray[np.bool_], Vector] | None = None

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
        if self._arrays is not None and len(self._arrays[0]) == len(self.origins):
            return self._arrays
        if not self.origins:
            empty = np.zeros((0, 3))
            return empty, empty, empty, np.zeros(0, bool), np.zeros(0)
        self._arrays = (
            np.array(self.origins),
            np.array(self.us),
            np.array(self.vs),
            np.array(self.two_sided),
            np.array(self.reach_m),
        )
        return self._arrays
