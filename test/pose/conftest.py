"""Synthetic streets: façades of points, photographs that see them, queries at known poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.cameras import Camera
from geowarp_ros.gallery.alignment.aligned import Photograph
from geowarp_ros.keypoints.detector import Keypoints
from geowarp_ros.types import Pose

FloatArray = NDArray[np.float64]

CAMERA = Camera(320, 240, 208.5, 208.5, 159.5, 119.5)


def looking(heading_deg: float, pitch_deg: float = 0.0) -> FloatArray:
    """``enu_from_camera`` of an upright camera."""
    heading, pitch = np.radians([heading_deg, pitch_deg])
    forward = np.array([np.sin(heading) * np.cos(pitch), np.cos(heading) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.cos(heading), -np.sin(heading), 0.0])
    return np.column_stack([right, np.cross(forward, right), forward])


@dataclass
class Street:
    """Points with a descriptor each; photographs and queries see them with noise.

    ``located``: share of the points that the alignment has triangulated.
    """

    points_m: FloatArray
    rng: np.random.Generator
    std_px: float = 0.4
    located: float = 1.0

    def __post_init__(self) -> None:
        self.descriptors = self.rng.integers(0, 256, (len(self.points_m), 128)).astype(np.uint8)
        self.triangulated = self.rng.uniform(size=len(self.points_m)) < self.located

    def seen(
        self, position: FloatArray, rotation: FloatArray, camera: Camera = CAMERA
    ) -> tuple[Keypoints, NDArray[np.int64]]:
        """Keypoints of a camera there, and the points that they see."""
        pixels = camera.project((self.points_m - position) @ rotation)
        pixels = pixels + self.rng.normal(0, self.std_px, pixels.shape) if self.std_px else pixels
        with np.errstate(invalid="ignore"):
            inside = ((pixels >= 0) & (pixels < (camera.width_px, camera.height_px))).all(axis=1)
        visible = np.flatnonzero(inside)
        return Keypoints(pixels[visible].astype(np.float32), self.descriptors[visible]), visible

    def photographs(self, poses: list[tuple[FloatArray, FloatArray]], camera: Camera = CAMERA) -> list[Photograph]:
        """Photographs at these poses; their common points are triangulated from their own noisy keypoints."""
        views = [self.seen(*pose, camera) for pose in poses]
        rays = [camera.normalised(keypoints.points) for keypoints, _ in views]
        estimated = self._triangulated(poses, views, rays)
        made = []
        for row, ((keypoints, visible), (position, rotation)) in enumerate(zip(views, poses, strict=True)):
            points = estimated[visible]
            known = np.isfinite(points).all(axis=1)
            made.append(
                Photograph(
                    row=row,
                    keypoints=keypoints,
                    rays=rays[row],
                    points_m=points,
                    point=np.where(known, visible, -1).astype(np.int32),
                    position_m=position,
                    rotation=rotation,
                    position_std_m=0.0,
                    heading_std_rad=0.0,
                )
            )
        return made

    def _triangulated(
        self,
        poses: list[tuple[FloatArray, FloatArray]],
        views: list[tuple[Keypoints, NDArray[np.int64]]],
        rays: list[NDArray[np.float64]],
    ) -> FloatArray:
        estimated = np.full(self.points_m.shape, np.nan)
        for number in np.flatnonzero(self.triangulated):
            sights = [
                (pose, ray[np.flatnonzero(visible == number)[0]])
                for pose, ray, (_, visible) in zip(poses, rays, views, strict=True)
                if number in visible
            ]
            if len(sights) < 2 or _angle_deg(self.points_m[number], [pose[0] for pose, _ in sights]) < 2.0:
                continue
            point = self.points_m[number].copy()
            for _ in range(5):
                normal, gradient = np.zeros((3, 3)), np.zeros(3)
                for (position, rotation), ray in sights:
                    x, y, z = rotation.T @ (point - position)
                    by_point = np.array([[1, 0, -x / z], [0, 1, -y / z]]) / z @ rotation.T
                    normal += by_point.T @ by_point
                    gradient += by_point.T @ (ray - (x / z, y / z))
                point += np.linalg.solve(normal, gradient)
            estimated[number] = point
        return estimated


def _angle_deg(point: FloatArray, positions: list[FloatArray]) -> float:
    """Largest angle at which the point sees two of the positions."""
    along = np.array(positions) - point
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    return float(np.degrees(np.arccos(np.clip((along @ along.T).min(), -1, 1))))


def facade(rng: np.random.Generator, count: int = 250) -> FloatArray:
    """Points on and before a façade 8 to 14 m north of the street, which runs east."""
    return np.column_stack([rng.uniform(-15, 25, count), rng.uniform(8, 14, count), rng.uniform(-1, 7, count)])


TRACK = [(np.array([east, 0.0, 1.5]), looking(0.0)) for east in (-2.0, 2.0, 6.0, 10.0)]
"""Poses of photographs four metres apart along the street, facing north."""

TRUE_POSITION = np.array([3.0, -2.5, 1.8])
TRUE_ROTATION = looking(8.0, 4.0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def pose_error(
    pose: Pose, position: FloatArray = TRUE_POSITION, rotation: FloatArray = TRUE_ROTATION
) -> FloatArray:
    """(6,) east, north, up (m) and rotation about them (rad)."""
    turn = pose.rotation @ rotation.T
    vector = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2
    return np.asarray(np.concatenate([pose.position_m - position, vector]))
