"""Scene description: textured parallelograms.

Convention:
    A surface is ``origin + a·u + b·v``, 0 ≤ a, b ≤ 1; texture columns run along u, rows along v. Seen from the
    front, u points right and v down: the outward normal is v × u.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.lab.world.camera import Vector
from geowarp_ros.lab.world.materials import Pixels


class Texture:
    """An image painted on first use, with reductions of columns and rows independently (ripmap)."""

    def __init__(self, paint: Callable[[], Pixels]) -> None:
        self._paint = paint
        self._levels: dict[tuple[int, int], Pixels] = {}

    @property
    def pixels(self) -> Pixels:
        """(H, W, 3) RGB, or (H, W, 4) with alpha, opaque from 128."""
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
            self._levels[columns, rows] = np.asarray(
                cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA), np.uint8
            )
        return self._levels[columns, rows]


class Surface(NamedTuple):
    """One parallelogram; not drawn beyond ``reach_m`` from the camera."""

    origin: Vector
    u: Vector
    v: Vector
    texture: Texture
    two_sided: bool
    reach_m: float


Arrays: TypeAlias = tuple[Vector, Vector, Vector, NDArray[np.bool_], Vector]
"""N surfaces: origins, u, v (N, 3), two_sided (N,), reach (N,) in m."""


class Scene:
    """A list of surfaces."""

    def __init__(self) -> None:
        self.surfaces: list[Surface] = []
        self._arrays: Arrays | None = None

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
        """Add a surface."""
        self.surfaces.append(Surface(origin, u, v, texture, two_sided, reach_m))

    def arrays(self) -> Arrays:
        """Return all surfaces as arrays, cached until more are added."""
        if self._arrays is None or len(self._arrays[0]) != len(self.surfaces):
            origins, us, vs = (np.array([s[i] for s in self.surfaces]).reshape(-1, 3) for i in range(3))
            two_sided = np.array([s.two_sided for s in self.surfaces], bool)
            self._arrays = origins, us, vs, two_sided, np.array([s.reach_m for s in self.surfaces], float)
        return self._arrays
