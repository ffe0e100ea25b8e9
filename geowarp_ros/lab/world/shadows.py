"""Cast shadows of rows of houses."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.lab.world.camera import Camera, Vector
from geowarp_ros.lab.world.town import Quarter

CELLS_PER_M = 4
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """Height profile of the houses on one building line.

    Attributes:
        out: (3,) unit vector towards the street.
        right: (3,) unit vector along the line.
        level: ``out · p`` of points p on the façade plane (m).
        start: ``right · p`` of the left end (m).
        profile: (N,) height (m), sampled every 1 / CELLS_PER_M.
    """

    out: Vector
    right: Vector
    level: float
    start: float
    profile: Floats


def rows_of(quarter: Quarter) -> tuple[Row, ...]:
    """Return the height profiles of a quarter's building lines."""
    rows = []
    for _, line in groupby(quarter.buildings, key=lambda house: tuple(house.out)):
        houses = list(line)
        out, right = houses[0].out, houses[0].right
        spans = [(left := float(right @ house.corner), left + house.design.width_m) for house in houses]
        start = spans[0][0]
        profile = np.zeros(int((spans[-1][1] - start) * CELLS_PER_M) + 1, np.float32)
        for (left, end), design in zip(spans, (house.design for house in houses), strict=True):
            height = design.eaves_m + 0.6 * design.gable_m + (1.5 if design.roof == "mansard" else 0)
            profile[int((left - start) * CELLS_PER_M) : int((end - start) * CELLS_PER_M) + 1] = height
        rows.append(Row(out, right, float(out @ houses[0].corner), start, profile))
    return tuple(rows)


def sunlit(rows: tuple[Row, ...], camera: Camera, depth: Floats, sun: Vector) -> Floats:
    """Return the sun visibility (H, W), 0..1.

    A surface point is lit if its ray towards the sun passes above each row where it crosses the row's plane.

    Args:
        rows: Rows of the quarter.
        camera: Camera of the view.
        depth: (H, W) along the optical axis (m).
        sun: (3,) unit vector towards the sun.
    """
    rays = camera.camera_from_world.T @ np.linalg.inv(camera.matrix)
    columns = np.arange(camera.width_px, dtype=np.float32)[None, :]
    lines = np.arange(camera.height_px, dtype=np.float32)[:, None]

    def along(axis: Vector) -> Floats:
        """Return ``axis · p`` (H, W) for the surface points p."""
        a, b, c = (np.float32(value) for value in axis @ rays)
        result: Floats = (a * columns + (b * lines + c)) * depth + np.float32(axis @ camera.position)
        return result

    free = np.ones(depth.shape, bool)
    height = along(np.array([0.0, 0.0, 1.0]))
    for row in rows:
        approach = float(sun @ row.out)
        if approach > -0.02:
            continue  # sun in front of the façades: the row casts no shadow on the street
        distance = (np.float32(row.level) - along(row.out)) / np.float32(approach)
        cell = (along(row.right) + distance * np.float32(sun @ row.right) - np.float32(row.start)) * CELLS_PER_M
        behind = (distance > 0.3) & (cell >= 0) & (cell < len(row.profile))
        index = np.clip(cell, 0, len(row.profile) - 1).astype(np.int32)
        free &= ~(behind & (height + distance * np.float32(sun[2]) < row.profile[index]))
    return np.asarray(cv2.blur(free.astype(np.float32), (3, 3)), np.float32)
