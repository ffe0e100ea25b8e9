"""Which points of a picture the houses across the street leave in the sun."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.lab.world.camera import Camera, Vector
from geowarp_ros.lab.world.town import Quarter

CELLS_PER_M = 4
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """The houses on one building line.

    Attributes:
        out: (3,) unit vector towards the street.
        right: (3,) unit vector along the line.
        level: ``out · p`` for p on the line's plane.
        start: ``right · p`` of its left end.
        profile: (N,) height in m, every quarter of a metre.
    """

    out: Vector
    right: Vector
    level: float
    start: float
    profile: Floats


def rows_of(quarter: Quarter) -> tuple[Row, ...]:
    """Return the quarter's building lines with their heights."""
    lines: dict[tuple[float, ...], list[int]] = {}
    for index, building in enumerate(quarter.buildings):
        key = (*np.round(building.out, 6), round(float(building.out @ building.corner), 3))
        lines.setdefault(key, []).append(index)
    rows = []
    for members in lines.values():
        houses = [quarter.buildings[i] for i in members]
        out, right = houses[0].out, houses[0].right
        lefts = [float(h.right @ h.corner) for h in houses]
        rights = [left + h.design.width_m for left, h in zip(lefts, houses, strict=True)]
        start = min(lefts)
        profile = np.zeros(int((max(rights) - start) * CELLS_PER_M) + 1, np.float32)
        for left, end, house in zip(lefts, rights, houses, strict=True):
            height = (
                house.design.eaves_m + 0.6 * house.design.gable_m + (1.5 if house.design.roof == "mansard" else 0)
            )
            profile[int((left - start) * CELLS_PER_M) : int((end - start) * CELLS_PER_M) + 1] = height
        rows.append(Row(out, right, float(out @ houses[0].corner), start, profile))
    return tuple(rows)


def sunlit(rows: tuple[Row, ...], camera: Camera, depth: Floats, sun: Vector) -> Floats:
    """Tell per pixel (H, W), 0..1, whether the rows leave it the sun.

    The ray from the surface towards the sun crosses a row's plane at one point; it is free where that point is
    higher than the row is there.

    Args:
        rows: Of the quarter.
        camera: That sees the surfaces.
        depth: (H, W) along the optical axis, in m.
        sun: (3,) unit vector towards the sun.
    """
    rays = camera.camera_from_world.T @ np.linalg.inv(camera.matrix)
    columns = np.arange(camera.width_px, dtype=np.float32)[None, :]
    lines = np.arange(camera.height_px, dtype=np.float32)[:, None]

    def along(axis: Vector) -> Floats:
        """Return ``axis · p`` (H, W) of the surface points p."""
        a, b, c = (np.float32(value) for value in axis @ rays)
        result: Floats = (a * columns + (b * lines + c)) * depth + np.float32(axis @ camera.position)
        return result

    free = np.ones(depth.shape, bool)
    height = along(np.array([0.0, 0.0, 1.0]))
    for row in rows:
        approach = float(sun @ row.out)
        if approach > -0.02:
            continue  # the row faces the sun's way: its own houses are behind the surface
        distance = (np.float32(row.level) - along(row.out)) / np.float32(approach)
        cell = (along(row.right) + distance * np.float32(sun @ row.right) - np.float32(row.start)) * CELLS_PER_M
        behind = (distance > 0.3) & (cell >= 0) & (cell < len(row.profile))
        index = np.clip(cell, 0, len(row.profile) - 1).astype(np.int32)
        free &= ~(behind & (height + distance * np.float32(sun[2]) < row.profile[index]))
    return np.asarray(cv2.blur(free.astype(np.float32), (3, 3)), np.float32)
