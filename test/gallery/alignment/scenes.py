"""Synthetic photographs whose poses and points are known: exact projections, descriptors that tell them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from geowarp_ros.cameras import Camera
from geowarp_ros.gallery.alignment.aligned import Alignment
from geowarp_ros.gallery.alignment.pairs import Tagged
from geowarp_ros.keypoints.detector import Keypoints

FloatArray = NDArray[np.float64]

CAMERA = Camera(320, 240, 210.0, 210.0, 159.5, 119.5)
DATUM = (55.7, 13.2, 40.0)


def looking(
    headings_deg: NDArray[np.floating[Any]], pitch_deg: FloatArray | float, roll_deg: FloatArray | float
) -> FloatArray:
    """Return ``enu_from_camera`` (N, 3, 3): north, level and upright, then roll, pitch (up) and heading."""
    north = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    heading, pitch, roll = np.broadcast_arrays(headings_deg, pitch_deg, roll_deg)
    turns = Rotation.from_euler("ZXY", np.column_stack([-heading, pitch, roll]), degrees=True)
    return np.asarray(turns.as_matrix() @ north)


@dataclass(frozen=True)
class Town:
    """Cameras that see points; ``seen[i]`` is the point that each keypoint of photograph i shows."""

    positions: FloatArray
    rotations: FloatArray
    points: FloatArray
    keypoints: list[Keypoints]
    seen: list[NDArray[np.int64]]

    @property
    def headings_deg(self) -> FloatArray:
        axis = self.rotations[:, :, 2]
        return np.degrees(np.arctan2(axis[:, 0], axis[:, 1]))

    @property
    def rays(self) -> list[FloatArray]:
        return [CAMERA.normalised(k.points) for k in self.keypoints]

    def tagged(self, off_m: FloatArray | float = 0.0, headings: bool = False) -> list[Tagged]:
        """Return the photographs with tags that are off by (N, 2) or (N, 3)."""
        tags = self.positions.copy()
        off = np.broadcast_to(off_m, self.positions[:, :2].shape) if np.ndim(off_m) < 2 else np.asarray(off_m)
        tags[:, : off.shape[1]] += off
        told = self.headings_deg if headings else np.full(len(tags), math.nan)
        return [Tagged(tag, float(h), CAMERA, k) for tag, h, k in zip(tags, told, self.keypoints, strict=True)]

    def errors(self, found: Alignment) -> tuple[FloatArray, FloatArray]:
        """Return horizontal position errors (m) and heading errors (°) of the photographs that are tied."""
        tied = found.tied
        off = np.linalg.norm((found.position_m - self.positions)[tied, :2], axis=1)
        # the rotation about the vertical that is left: of a camera that looks down, too
        turn = Rotation.from_matrix(found.rotation[tied] @ self.rotations[tied].transpose(0, 2, 1)).as_rotvec()
        return off, np.abs(np.degrees(turn[:, 2]))


def photographed(
    positions: FloatArray,
    rotations: FloatArray,
    points: FloatArray,
    noise_px: float = 0.3,
    seed: int = 0,
    most: int = 150,
    reach_m: float = 60.0,
) -> Town:
    """Photograph points: each camera sees up to ``most`` of those in its image and reach, in no order."""
    rng = np.random.default_rng(seed)
    descriptors = rng.integers(0, 120, (len(points), 128)).astype(np.uint8)
    keypoints, seen = [], []
    for position, rotation in zip(positions, rotations, strict=True):
        ahead = (points - position) @ rotation
        pixels = CAMERA.project(ahead)
        inside = np.isfinite(pixels).all(axis=1) & (np.linalg.norm(ahead, axis=1) < reach_m) & (ahead[:, 2] > 1.0)
        inside &= (pixels > 0).all(axis=1) & (pixels < (CAMERA.width_px, CAMERA.height_px)).all(axis=1)
        # the same points are shown by all, as far as they see them: the first of the list are the most striking
        shown = rng.permutation(np.flatnonzero(inside)[:most])
        off = rng.normal(0, noise_px, (len(shown), 2)) if noise_px else 0.0
        keypoints.append(Keypoints((pixels[shown] + off).astype(np.float32), descriptors[shown]))
        seen.append(shown)
    return Town(positions, rotations, points, keypoints, seen)


def ring(seed: int = 0, count: int = 24, noise_px: float = 0.3) -> Town:
    """Return a ring of 15 m about a square's monument, looking inwards with some swing, upright within 2°."""
    rng = np.random.default_rng(seed)
    angle = np.arange(count) / count * 2 * np.pi
    positions = np.column_stack([15 * np.sin(angle), 15 * np.cos(angle), rng.normal(1.6, 0.1, count)])
    headings = np.degrees(angle) + 180 + rng.normal(0, 10, count)
    points = np.column_stack([rng.uniform(-6, 6, (400, 2)), rng.uniform(0, 7, 400)])
    turned = looking(headings, rng.normal(0, 2, count), rng.normal(0, 2, count))
    return photographed(positions, turned, points, noise_px, seed)


def street(seed: int = 0, count: int = 16, noise_px: float = 0.3, step_m: float = 3.0) -> Town:
    """Return a drive along one line, looking ahead and to the left in turn, between two rows of façades."""
    rng = np.random.default_rng(seed)
    along = np.arange(count) * step_m
    positions = np.column_stack([along, np.zeros(count), np.full(count, 1.6)])
    headings = 90.0 - 35.0 * (np.arange(count) % 2)
    n = 1200
    side = np.where(rng.random(n) < 0.6, rng.uniform(7, 12, n), rng.uniform(-12, -7, n))
    points = np.column_stack([rng.uniform(-5, along[-1] + 40, n), side, rng.uniform(0, 9, n)])
    turned = looking(headings, rng.normal(0, 1.5, count), rng.normal(0, 1.5, count))
    return photographed(positions, turned, points, noise_px, seed, reach_m=35.0)


def meadow(seed: int = 0, noise_px: float = 0.3) -> Town:
    """Return a drone's grid of 4 × 4 photographs, 40 m up, looking down with a tilt of up to 15°."""
    rng = np.random.default_rng(seed)
    east, north = np.meshgrid(np.arange(4) * 12.0, np.arange(4) * 12.0)
    positions = np.column_stack([east.ravel(), north.ravel(), rng.normal(40, 0.5, 16)])
    points = np.column_stack([rng.uniform(-30, 70, (1500, 2)), rng.uniform(0, 6, 1500)])
    turned = looking(np.repeat([0.0, 180.0, 0.0, 180.0], 4), rng.normal(-90, 5, 16), rng.normal(0, 5, 16))
    return photographed(positions, turned, points, noise_px, seed)


def rows(photographs: Sequence[Tagged]) -> FloatArray:
    """Return the tags (N, 3)."""
    return np.array([p.position_m for p in photographs])
