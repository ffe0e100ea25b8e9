"""Where the camera model of an image file comes from: ``camera.yaml`` beside or above it, else its EXIF.

Calibrations are ROS's YAML files, as camera_calibration writes and camera_info_manager reads them.
"""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any

from PIL import ExifTags

from geowarp_ros.cameras import ASPECT_TOLERANCE, Camera, camera_from_matrix
from geowarp_ros.errors import CameraError, did_you_mean
from geowarp_ros.files import write_whole
from geowarp_ros.images import UNREADABLE, check_size, open_image, read_image
from geowarp_ros.types import Frame

CAMERA_FILE = "camera.yaml"
POSITIONS_FILE = "positions.csv"

MAX_BYTES = 1_000_000
"""Size above which a file is no calibration."""

DIAGONAL_35_MM = math.hypot(36, 24)
"""Diagonal (mm) of the 35 mm film: equivalent focal lengths are by it (CIPA DCG-001)."""

UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""FocalPlaneResolutionUnit -> mm: inch and centimetre (EXIF 2.32), and mm and µm as some cameras write."""

PLAUSIBLE = (0.2, 50.0)
"""Range of focal lengths over the longer side: from a field of view of 136° to that of 1°."""

_ZEROS = {"plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}


def read_camera(path: Path, *, rectified: bool = False) -> Camera:
    """Read a ROS calibration file.

    Args:
        path: YAML with image_width, image_height, camera_matrix and, with a lens that distorts, distortion_model
            (plumb_bob where it is absent, as camera_info_manager has it) and distortion_coefficients.
        rectified: The images are undistorted: their camera is projection_matrix.

    Raises:
        CameraError: It cannot be read, is no calibration, or its numbers are no camera's; the message names file
            and key.
    """
    values = _read_yaml(path)
    width, height = (_whole(path, values, key) for key in ("image_width", "image_height"))
    if rectified:
        p = _matrix(path, values, "projection_matrix", 12)
        return camera_from_matrix(width, height, [*p[:3], *p[4:7], *p[8:11]], source=str(path))
    matrix = _matrix(path, values, "camera_matrix", 9)
    coefficients, model = "distortion_coefficients", values.get("distortion_model", "plumb_bob")
    if "distortion_model" in values:
        _need(path, values, coefficients)
    lens = _matrix(path, values, coefficients) if coefficients in values else []
    return camera_from_matrix(width, height, matrix, str(model), lens, str(path))


def write_camera(path: Path, camera: Camera, name: str = "camera") -> None:
    """Write a camera as a ROS calibration file; undistorted images of it have the same matrix.

    Raises:
        CameraError: The file cannot be written.
    """
    k = [float(value) for value in camera.matrix.flat]
    matrices = {
        "camera_matrix": (3, 3, k),
        "distortion_coefficients": (1, 0, list(camera.distortion) or [0.0] * _ZEROS[camera.model]),
        "rectification_matrix": (3, 3, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]),
        "projection_matrix": (3, 4, [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0]),
    }
    lines = [
        f"image_width: {camera.width_px}",
        f"image_height: {camera.height_px}",
        f"camera_name: {name}",
        f"distortion_model: {camera.model}",
    ]
    for key, (rows, columns, data) in matrices.items():
        numbers = ", ".join(repr(float(value)) for value in data)
        lines += [f"{key}:", f"  rows: {rows}", f"  cols: {columns or len(data)}", f"  data: [{numbers}]"]
    write_whole(path, ("\n".join(lines) + "\n").encode(), CameraError)


class CameraFiles:
    """The calibration files of a folder tree, each read once.

    Args:
        root: Folder up to which folders are looked into; None: the first one above with a positions.csv, or the
            root of the file system.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = None if root is None else _absolute(root)
        self._found: dict[Path, Camera | None] = {}

    def of(self, image: Path) -> Camera | None:
        """Return the camera of the nearest ``camera.yaml`` in the image's folder or above it; None without one.

        Raises:
            CameraError: The file is no calibration.
        """
        folder = image.parent
        if folder not in self._found:
            self._found[folder] = self._in(_absolute(folder))
        return self._found[folder]

    def _in(self, folder: Path) -> Camera | None:
        if folder not in self._found:
            file, parent = folder / CAMERA_FILE, folder.parent
            if file.is_file():
                found = read_camera(file)
            elif parent == folder or self._ends(folder):
                found = None
            else:
                found = self._in(parent)
            self._found[folder] = found
        return self._found[folder]

    def _ends(self, folder: Path) -> bool:
        if self._root is None:
            return (folder / POSITIONS_FILE).is_file()
        return self._root not in folder.parents  # the root itself, and folders that are not below it


def camera_of_file(path: Path) -> Camera | None:
    """Return the camera of an image file: of ``camera.yaml``, else of its EXIF; None where neither tells.

    ``camera.yaml`` is looked for in the image's folder and those above it, up to one with a positions.csv.

    Raises:
        CameraError: A ``camera.yaml`` is no calibration.
    """
    return CameraFiles(None).of(path) or exif_camera(path)


def frame_of_file(path: Path, camera: Camera | None = None) -> Frame:
    """Read an image file with its camera.

    Args:
        path: Image file.
        camera: Its camera, at any size; None: as :func:`camera_of_file` finds it.

    Raises:
        ImageError: As :func:`geowarp_ros.images.read_image`.
        CameraError: A ``camera.yaml`` is no calibration, or the camera is of another aspect ratio.
    """
    image, found = read_image(path), camera or camera_of_file(path)
    return Frame(image, camera=found and found.scaled_to(image.shape[1], image.shape[0]))


def exif_camera(path: Path) -> Camera | None:
    """Return the camera of an image, turned upright, as its EXIF has it; None where it does not tell.

    By FocalLengthIn35mmFilm, over the diagonal; else by FocalLength and the resolution of the focal plane, which
    is that of an image of PixelXDimension × PixelYDimension. An image that was cropped since has no camera.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF and large images are judged by what comes out
            with open_image(path, str(path), pixels=False) as image:
                check_size(image.width, image.height, str(path))
                exif, width, height = image.getexif(), image.width, image.height
                tags = exif.get_ifd(ExifTags.IFD.Exif)
    except UNREADABLE:
        return None
    tag, longer = ExifTags.Base, max(width, height)
    taken = [_number(tags.get(each)) for each in (tag.ExifImageWidth, tag.ExifImageHeight)]
    scale = longer / max(taken) if min(taken) > 0 else 1.0
    if min(taken) > 0 and abs(min(taken) * scale / min(width, height) - 1) > ASPECT_TOLERANCE + 1 / min(
        width, height
    ):
        return None
    equivalent_mm, focal_mm = (_number(tags.get(each)) for each in (tag.FocalLengthIn35mmFilm, tag.FocalLength))
    unit_mm = UNIT_MM.get(int(_number(tags.get(tag.FocalPlaneResolutionUnit)) or 2), math.nan)
    across, down = (
        scale * focal_mm * _number(tags.get(each)) / unit_mm
        for each in (tag.FocalPlaneXResolution, tag.FocalPlaneYResolution)
    )
    if equivalent_mm > 0:
        across = down = equivalent_mm / DIAGONAL_35_MM * math.hypot(width, height)
    fx, fy = across, down or across
    if not all(PLAUSIBLE[0] <= focal / longer <= PLAUSIBLE[1] for focal in (fx, fy)):  # false for NaN too
        return None
    if exif.get(tag.Orientation) in (5, 6, 7, 8):  # turned by a quarter
        width, height, fx, fy = height, width, fy, fx
    return Camera(width, height, fx, fy, (width - 1) / 2, (height - 1) / 2, source="EXIF")


def _absolute(folder: Path) -> Path:
    """Return the path without ``..`` and with its links: a linked folder of images belongs where the link is."""
    return Path(os.path.normpath(folder.absolute()))


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        if path.stat().st_size > MAX_BYTES:
            raise CameraError(f"{path}: is larger than {MAX_BYTES:,} bytes, expected a ROS calibration file")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CameraError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CameraError(f"{path}: is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(values, dict):
        raise CameraError(f"{path}: is no ROS calibration file, expected image_width, camera_matrix, …")
    return values


def _need(path: Path, values: dict[str, Any], key: str, inside: str = "") -> Any:
    if key not in values:
        near = did_you_mean(key, (str(name) for name in values))
        raise CameraError(f"{path}: no {key!r}{inside and f' in {inside}'}{near}, expected a ROS calibration file")
    return values[key]


def _whole(path: Path, values: dict[str, Any], key: str) -> int:
    value = _need(path, values, key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < 1e6 or value % 1:
        raise CameraError(f"{path}: {key} = {value!r}, expected a number of pixels")
    return int(value)


def _matrix(path: Path, values: dict[str, Any], key: str, size: int = 0) -> list[float]:
    """Return the numbers of ``{rows, cols, data}``; ``size`` of them unless it is 0."""
    matrix = _need(path, values, key)
    data = _need(path, matrix, "data", key) if isinstance(matrix, dict) else matrix
    try:
        numbers = [float(value) for value in data]
    except (TypeError, ValueError):
        raise CameraError(f"{path}: {key} = {str(data)[:100]}, expected a list of numbers") from None
    if size and len(numbers) != size:
        raise CameraError(f"{path}: {key} has {len(numbers)} numbers, expected {size}")
    for number in numbers:
        if not math.isfinite(number):
            raise CameraError(f"{path}: {key} holds {number}, expected finite numbers")
    return numbers


def _number(value: Any) -> float:
    """Convert an EXIF number or rational; 0 where it is absent, none, or divided by zero."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if math.isfinite(number) else 0.0
