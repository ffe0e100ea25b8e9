"""From camera messages to images and cameras, for any object with the fields of sensor_msgs/Image and the like.

Live messages (rclpy) and recorded ones (rosbags) are decoded by the same code; nothing here imports ROS.
Encodings and their names: sensor_msgs/image_encodings.hpp.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.cameras import Camera, camera_from_matrix
from geowarp_ros.errors import CameraError, EncodingError, ImageError, did_you_mean
from geowarp_ros.images import check_size, decode_image, eight_bits
from geowarp_ros.types import Image


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image that hold the image."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedImageMessage(Protocol):
    """The fields of sensor_msgs/CompressedImage that hold the image."""

    format: str
    data: Any


AS_IT_IS = -1
"""In the place of a conversion: the pixels are RGB already."""

# encoding -> bits per sample, samples per pixel, OpenCV's conversion to RGB
_ENCODINGS: dict[str, tuple[int, int, int]] = {
    "rgb8": (8, 3, AS_IT_IS),
    "bgr8": (8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": (8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": (8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": (8, 1, cv2.COLOR_GRAY2RGB),
    "mono16": (16, 1, cv2.COLOR_GRAY2RGB),
    "rgb16": (16, 3, AS_IT_IS),
    "bgr16": (16, 3, cv2.COLOR_BGR2RGB),
    "rgba16": (16, 4, cv2.COLOR_RGBA2RGB),
    "bgra16": (16, 4, cv2.COLOR_BGRA2RGB),
    "8UC1": (8, 1, cv2.COLOR_GRAY2RGB),
    "8UC3": (8, 3, cv2.COLOR_BGR2RGB),  # OpenCV's matrices without a colour name are BGR
    "8UC4": (8, 4, cv2.COLOR_BGRA2RGB),
    "yuv422": (8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (8, 2, cv2.COLOR_YUV2RGB_UYVY),  # the newer name of yuv422
    "yuv422_yuy2": (8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (8, 2, cv2.COLOR_YUV2RGB_YUY2),  # the newer name of yuv422_yuy2
} | {
    f"bayer_{pattern}{bits}": (bits, 1, getattr(cv2, f"COLOR_Bayer{pattern.upper()}2RGB"))
    for pattern in ("rggb", "bggr", "gbrg", "grbg")
    for bits in (8, 16)
}

_SEMIPLANAR = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
"""Encodings of a plane of luma and one of chroma behind it, at half its size: their conversion to RGB."""

_DEPTH = ("16UC1", "32FC1", "16SC1", "64FC1")
"""Encodings of depth (REP 118)."""

_NAMES = {name.lower(): name for name in (*_ENCODINGS, *_SEMIPLANAR)}
"""Drivers differ in capitals."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PICTURES = (
    b"\xff\xd8\xff", _PNG, b"RIFF", b"II*\0", b"MM\0*", b"BM", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"
)  # fmt: skip
"""First bytes of JPEG, PNG, WebP, TIFF, BMP and JPEG 2000."""

_COMPRESSED_DEPTH_HEADER_BYTES = 12  # compressed_depth_image_transport's ConfigHeader


def image_from_message(message: ImageMessage) -> Image:
    """Return the image in a sensor_msgs/Image as (H, W, 3) uint8 RGB.

    Of 16-bit samples 8 bits are kept (:func:`~geowarp_ros.images.eight_bits`). Rows may be padded (``step`` larger
    than the pixels need). The encoding's name is known in capitals, too.

    Raises:
        EncodingError: The encoding is not supported.
        ImageError: ``step`` or ``data`` do not fit the size, or the size is outside the limits of
            :mod:`geowarp_ros.images`.
    """
    encoding = _NAMES.get(message.encoding.lower(), "")
    if not encoding:
        meant = did_you_mean(message.encoding.lower(), _NAMES)
        what = ": it is of depth, which is no photograph" if message.encoding.upper() in _DEPTH else meant
        raise EncodingError(
            f"image message: encoding {message.encoding!r} is not supported{what}; expected one of"
            f" {', '.join(_NAMES.values())}"
        )
    if encoding in _SEMIPLANAR:
        return np.asarray(cv2.cvtColor(_planes(message), _SEMIPLANAR[encoding]), np.uint8)
    bits, samples, conversion = _ENCODINGS[encoding]
    if bits == 16:
        pixels = eight_bits(_pixels(message, np.dtype(">u2" if message.is_bigendian else "<u2"), samples))
    else:
        pixels = _pixels(message, np.dtype(np.uint8), samples)
    if samples == 2 and message.width % 2:
        raise ImageError(f"image message: width = {message.width}, expected an even one for {message.encoding}")
    return pixels.copy() if conversion == AS_IT_IS else np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)


def image_from_compressed(message: CompressedImageMessage) -> Image:
    """Return the image in a sensor_msgs/CompressedImage as (H, W, 3) uint8 RGB.

    The first bytes say what it is, the format only whether it is of depth: drivers leave it empty, or write what
    they like.

    Raises:
        EncodingError: It is of depth, or begins as no picture and its format names none.
        ImageError: The bytes do not decode.
    """
    # image_transport writes "bgr8; jpeg compressed bgr8", drivers write "jpeg"; depth images are not camera images
    kind, data = message.format.lower(), bytes(message.data)
    refusal = f"compressed image message: format {message.format!r} is not supported"
    packed_depth = data[_COMPRESSED_DEPTH_HEADER_BYTES:].startswith(_PNG)
    if "depth" in kind or packed_depth or kind.lstrip().upper().startswith(_DEPTH):
        raise EncodingError(f"{refusal}: it is of depth, which is no photograph; expected jpeg or png")
    if not data.startswith(_PICTURES) and not any(codec in kind for codec in ("jpeg", "jpg", "png")):
        video = data.startswith((b"\0\0\1", b"\0\0\0\1"))
        hint = ", or in a bag the packets of H.264 or H.265" if video else ""
        raise EncodingError(f"{refusal}; expected jpeg or png{hint}")
    return decode_image(data, "compressed image message")


def _planes(message: ImageMessage) -> NDArray[np.uint8]:
    """View the bytes of a semiplanar message as (H · 3 / 2, W): luma, and behind it chroma."""
    height, width = message.height, message.width
    check_size(width, height, "image message")
    if width % 2 or height % 2:
        raise ImageError(f"image message: is {width}×{height} px, expected even sides for {message.encoding}")
    data = np.frombuffer(message.data, np.uint8)
    rows = height * 3 // 2
    # some drivers' step is the bytes of a row and its chroma
    step = width if message.step == width * 3 // 2 and data.size == width * rows else message.step
    if step < width or data.size != step * rows:
        raise ImageError(
            f"image message: data has {data.size} bytes and step = {message.step}, expected {rows} rows of at"
            f" least {width} for {height} rows of {message.encoding}"
        )
    return np.ascontiguousarray(data.reshape(rows, step)[:, :width])


def _pixels(message: ImageMessage, dtype: np.dtype[Any], samples: int) -> NDArray[Any]:
    """View the message's bytes as (H, W) or (H, W, samples), without its padding."""
    height, width, step = message.height, message.width, message.step
    row = width * samples * dtype.itemsize
    data = np.frombuffer(message.data, np.uint8)
    check_size(width, height, "image message")  # before any copy of the pixels
    if step < row:
        raise ImageError(
            f"image message: step = {step} bytes, expected at least {row} for {width} px of {message.encoding}"
        )
    if data.size != height * step:
        raise ImageError(
            f"image message: data has {data.size} bytes, expected {height * step} for {height} rows of {step}"
        )
    rows = np.ascontiguousarray(data.reshape(height, step)[:, :row]).view(dtype)
    return rows.reshape((height, width) if samples == 1 else (height, width, samples))


def camera_from_info(message: Any, source: str, *, rectified: bool = False) -> Camera | None:
    """Return the camera of the images beside a sensor_msgs/CameraInfo; None if it is not calibrated (K[0] = 0).

    K and P are for the whole sensor: the region of interest (in its pixels; 0×0: all of it) and then the binning
    are applied, as CameraInfo's definition has it. A binned pixel covers several, and its centre is theirs
    (image_geometry leaves out that half pixel).

    Args:
        message: With the fields of ROS 2, or of ROS 1 (K, D, P).
        source: Its topic, for people.
        rectified: The images are undistorted: their camera is P.

    Raises:
        CameraError: Numbers that are no camera's, an unknown lens, or a region outside the sensor.
    """
    k, d, p = (
        getattr(message, name) if hasattr(message, name) else getattr(message, name.upper()) for name in "kdp"
    )
    matrix = [float(p[4 * row + column]) for row in range(3) for column in range(3)] if rectified else list(k)
    if matrix[0] == 0:
        return None
    model, coefficients = ("", ()) if rectified else (message.distortion_model, d)
    sensor = camera_from_matrix(message.width, message.height, matrix, model, coefficients, source)
    x, y, wide, high = (int(value) for value in _region(message.roi))
    wide, high = wide or sensor.width_px - x, high or sensor.height_px - y
    if not (x < x + wide <= sensor.width_px and y < y + high <= sensor.height_px):
        raise CameraError(
            f"{source}: region of interest {wide}×{high} at {x}, {y}, expected one within the"
            f" {sensor.width_px}×{sensor.height_px} px of the sensor"
        )
    bin_x, bin_y = max(int(message.binning_x), 1), max(int(message.binning_y), 1)
    return replace(
        sensor,
        width_px=wide // bin_x,
        height_px=high // bin_y,
        fx=sensor.fx / bin_x,
        fy=sensor.fy / bin_y,
        cx=(sensor.cx - x + 0.5) / bin_x - 0.5,
        cy=(sensor.cy - y + 0.5) / bin_y - 0.5,
    )


def _region(roi: Any) -> tuple[int, int, int, int]:
    return roi.x_offset, roi.y_offset, roi.width, roi.height
