"""Poses of a gallery's photographs and points linked to their keypoints, in one local ENU frame. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.cameras import Camera
from geowarp_ros.keypoints.detector import Keypoints
from geowarp_ros.keypoints.matching import Key, Prepared, prepare

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where a gallery's photographs were taken and looked, by their matches with one another and their tags.

    Convention:
        Positions are metres east, north, up of the datum. Rotations ``enu_from_camera`` take the optical frame
        (REP 103: x right, y down, z forward) to ENU. Photographs are counted by stored row.

    Attributes:
        datum: Latitude (deg), longitude (deg), altitude (m) of the ENU frame's origin.
        tied: (N,) bool, whether geometry ties the photograph to others; the pose of one that is not means nothing.
        position_m: (N, 3) positions of the cameras; those of photographs not tied are their tags.
        rotation: (N, 3, 3) ``enu_from_camera``; NaN where not tied.
        position_std_m: (N,) horizontal standard deviation of each position (m), after tags and geometry.
        heading_std_rad: (N,) standard deviation of each heading; NaN where not tied.
        component: (N,) number of the group of photographs tied to one another; -1 where not tied.
        points_m: (P, 3) triangulated points.
        starts: (N + 1,) the observations of row i are ``starts[i]:starts[i + 1]`` of the next two.
        keypoint: (O,) number of the observed keypoint within its photograph.
        point: (O,) row of ``points_m``.
        cameras: Cameras that were estimated.
        camera: (N,) which of them took each photograph; -1: none, its own is known or nobody knows it.
    """

    datum: tuple[float, float, float]
    tied: NDArray[np.bool_]
    position_m: FloatArray
    rotation: FloatArray
    position_std_m: FloatArray
    heading_std_rad: FloatArray
    component: NDArray[np.int32]
    points_m: FloatArray
    starts: NDArray[np.int64]
    keypoint: NDArray[np.int32]
    point: NDArray[np.int32]
    cameras: tuple[Camera, ...] = ()
    camera: NDArray[np.int32] | None = None

    def estimated_camera(self, row: int) -> Camera | None:
        """Return the camera that was estimated of a photograph; None where none was."""
        number = -1 if self.camera is None else int(self.camera[row])
        return None if number < 0 else self.cameras[number]

    def came_later(self) -> NDArray[np.bool_]:
        """Return which photographs (N,) the alignment does not have: they were added after it."""
        return np.asarray(np.isnan(self.position_m).any(axis=1))

    def observations(self, row: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the keypoints of a photograph that see a triangulated point, and the rows of those points."""
        seen = slice(int(self.starts[row]), int(self.starts[row + 1]))
        return self.keypoint[seen], self.point[seen]


LOCATED, SEEN, RAYLESS = 0, 1, 2
"""Parts of a photograph's keypoints: with a triangulated point, with a ray only, with neither."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """A photograph of the gallery as the estimation of a camera's pose needs it.

    Attributes:
        row: Its row in the gallery.
        keypoints: Its keypoints, px of its image at working resolution.
        rays: (N, 2) normalised, undistorted coordinates of the keypoints; NaN where there is no ray.
        points_m: (N, 3) the triangulated point that each keypoint sees, ENU of the alignment; NaN where none.
        point: (N,) row of that point in the alignment, by which photographs that see the same are told; -1: none.
        position_m: (3,) position of the camera, ENU of the alignment.
        rotation: (3, 3) ``enu_from_camera``; NaN where not tied.
        position_std_m: Horizontal standard deviation of the position, m.
        heading_std_rad: Standard deviation of the heading; NaN where not tied.
    """

    row: int
    keypoints: Keypoints
    rays: FloatArray
    points_m: FloatArray
    point: NDArray[np.int32]
    position_m: FloatArray
    rotation: FloatArray
    position_std_m: float
    heading_std_rad: float
    _prepared: dict[int, dict[Key, Prepared]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def part(self) -> NDArray[np.int8]:
        """(N,) the part that each keypoint is of: LOCATED, SEEN or RAYLESS."""
        part = np.where(self.point >= 0, LOCATED, SEEN).astype(np.int8)
        part[~np.isfinite(self.rays).all(axis=1)] = RAYLESS
        return part

    def prepared(self, strongest: int) -> dict[Key, Prepared]:
        """Return its descriptors for matching, in parts LOCATED, SEEN and RAYLESS; kept for the next query.

        Args:
            strongest: So many can be matched by themselves.
        """
        if strongest not in self._prepared:
            self._prepared[strongest] = prepare(self.keypoints.descriptors, strongest, self.part)
        return self._prepared[strongest]
