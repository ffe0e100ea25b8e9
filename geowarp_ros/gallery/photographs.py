"""Keypoints and cameras of a segment's photographs, read by memory map.

A photograph has as many keypoints as were found in it: ``keypoint_starts.npy`` says where its own begin in the two
arrays of all. Few cameras took all photographs, so each is stored once. Segments made before format 3 have neither
file, one whose cameras nobody knows has no camera files.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from geowarp_ros.cameras import Camera
from geowarp_ros.config import first_problem
from geowarp_ros.errors import CameraError, GalleryError
from geowarp_ros.gallery.alignment.aligned import Alignment, Photograph
from geowarp_ros.gallery.files import map_array
from geowarp_ros.keypoints.detector import Keypoints

POINTS = "keypoints.npy"
DESCRIPTORS = "keypoint_descriptors.npy"
STARTS = "keypoint_starts.npy"
KEYPOINT_FILES = (POINTS, DESCRIPTORS, STARTS)

CAMERAS = "cameras.json"
CAMERA_NUMBERS = "camera_numbers.npy"
CAMERA_FILES = (CAMERAS, CAMERA_NUMBERS)

NO_CAMERA = -1

camera_list: TypeAdapter[list[Camera | None]] = TypeAdapter(list[Camera | None])
"""Cameras as JSON, and back."""


@dataclass(frozen=True, slots=True)
class StoredKeypoints:
    """Keypoints of N photographs, K in all.

    Attributes:
        starts: (N + 1,) the keypoints of photograph i are ``starts[i]:starts[i + 1]``.
        points: (K, 2), (x, y) in px of the image at working resolution.
        descriptors: (K, D).
    """

    starts: NDArray[np.int64]
    points: NDArray[np.float32]
    descriptors: NDArray[np.uint8]

    @classmethod
    def open(cls, folder: Path, rows: int, descriptor_dim: int) -> StoredKeypoints:
        """Map the keypoints of a segment of so many rows, with descriptors of so many bytes.

        Raises:
            GalleryError: A file is no array, or of another form.
        """
        starts = map_array(folder / STARTS, np.dtype("<i8"), (rows + 1,))
        count = int(starts[-1])
        points = map_array(folder / POINTS, np.dtype("<f4"), (count, 2))
        return cls(starts, points, map_array(folder / DESCRIPTORS, np.dtype("u1"), (count, descriptor_dim)))

    def __getitem__(self, row: int) -> Keypoints:
        """Return the keypoints of one photograph, not read yet."""
        own = slice(int(self.starts[row]), int(self.starts[row + 1]))
        return Keypoints(self.points[own], self.descriptors[own])


@dataclass(frozen=True, slots=True)
class StoredCameras:
    """Cameras of N photographs, for their images at working resolution.

    Attributes:
        cameras: The different ones.
        numbers: (N,) which of them took each photograph; NO_CAMERA where unknown.
    """

    cameras: tuple[Camera, ...]
    numbers: NDArray[np.int32]

    @classmethod
    def open(cls, folder: Path, names: Collection[str], rows: int) -> StoredCameras | None:
        """Open the cameras of a segment; None if ``names``, its files, has none.

        Raises:
            GalleryError: A file is not as it was written.
        """
        if CAMERAS not in names:
            return None
        try:
            cameras = camera_list.validate_json((folder / CAMERAS).read_bytes())
        except ValidationError as error:
            raise GalleryError(f"{folder / CAMERAS}: is no list of cameras: {first_problem(error)}") from None
        except CameraError as error:
            raise GalleryError(f"{folder / CAMERAS}: {error}") from None
        known = tuple(camera for camera in cameras if camera is not None)
        numbers = map_array(folder / CAMERA_NUMBERS, np.dtype("<i4"), (rows,))
        if len(numbers) and not NO_CAMERA <= numbers.min() <= numbers.max() < len(known):
            raise GalleryError(f"{folder / CAMERA_NUMBERS}: names cameras that {CAMERAS} does not have")
        return cls(known, numbers)

    def kept(self, removed: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the camera's number of each photograph that has one and is not among the rows ``removed``."""
        numbers = np.delete(self.numbers, removed)
        return np.asarray(numbers[numbers != NO_CAMERA])

    def __getitem__(self, row: int) -> Camera | None:
        """Return the camera of one photograph; None where unknown."""
        number = int(self.numbers[row])
        return None if number == NO_CAMERA else self.cameras[number]


def photograph_of(
    row: int, stored: int, keypoints: Keypoints, camera: Camera, alignment: Alignment
) -> Photograph | None:
    """Read a photograph into memory; None if it was added after the alignment.

    Args:
        row: Its row in the gallery.
        stored: Its stored row.
        keypoints: Its keypoints.
        camera: Its camera at working resolution.
        alignment: The photographs' own poses.
    """
    if np.isnan(alignment.position_m[stored]).any():
        return None
    keypoints = Keypoints(np.array(keypoints.points), np.array(keypoints.descriptors))
    point = np.full(len(keypoints), -1, np.int32)
    seen, points = alignment.observations(stored)
    point[seen] = points
    points_m = np.full((len(keypoints), 3), np.nan)
    points_m[seen] = alignment.points_m[points]
    return Photograph(
        row=row,
        keypoints=keypoints,
        rays=camera.normalised(keypoints.points),
        points_m=points_m,
        point=point,
        position_m=alignment.position_m[stored],
        rotation=alignment.rotation[stored],
        position_std_m=float(alignment.position_std_m[stored]),
        heading_std_rad=float(alignment.heading_std_rad[stored]),
    )
