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
from geowarp_ros.images import check_size, decode_image
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
    "8UC1": (8, 1, cv2.COLOR_GRAY2RGB),
    "8UC3": (8, 3, cv2.COLOR_BGR2RGB),  # OpenCV's matrices without a colour name are BGR
    "yuv422": (8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (8, 2, cv2.COLOR_YUV2RGB_UYVY),  # the newer name of yuv422
    "yuv422_yuy2": (8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (8, 2, cv2.COLOR_YUV2RGB_YUY2),  # the newer name of yuv422_yuy2
} | {
    f"bayer_{pattern}{bits}": (bits, 1, getattr(cv2, f"COLOR_Bayer{pattern.upper()}2RGB"))
    for pattern in ("rggb", "bggr", "gbrg", "grbg")
    for bits in (8, 16)
}

_CODECS = ("jpeg", "jpg", "png")


def image_from_message(message: ImageMessage) -> Image:
    """Return the image in a sensor_msgs/Image as (H, W, 3) uint8 RGB.

    16-bit samples keep their upper 8 bits. Rows may be padded (``step`` larger than the pixels need).

    Raises:
        EncodingError: The encoding is not supported.
        ImageError: ``step`` or ``data`` do not fit the size, or the size is outside the limits of
            :mod:`geowarp_ros.images`.
    """
    if message.encoding not in _ENCODINGS:
        raise EncodingError(
            f"image message: encoding {message.encoding!r} is not supported"
            f"{did_you_mean(message.encoding, _ENCODINGS)}; expected one of {', '.join(_ENCODINGS)}"
        )
    bits, samples, conversion = _ENCODINGS[message.encoding]
    if bits == 16:
        words = _pixels(message, np.dtype(">u2" if message.is_bigendian else "<u2"), samples)
        pixels = (words >> 8).astype(np.uint8)
    else:
        pixels = _pixels(message, np.dtype(np.uint8), samples)
    if samples == 2 and message.width % 2:
        raise ImageError(f"image message: width = {message.width}, expected an even one for {message.encoding}")
    return pixels.copy() if conversion == AS_IT_IS else np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)


def image_from_compressed(message: CompressedImageMessage) -> Image:
    """Return the image in a sensor_msgs/CompressedImage (jpeg or png) as (H, W, 3) uint8 RGB.

    Raises:
        EncodingError: The format is not supported.
        ImageError: The bytes do not decode.
    """
    # image_transport writes "bgr8; jpeg compressed bgr8", drivers write "jpeg"; depth images are not camera images
    kind = message.format.lower()
    if "depth" in kind or not any(codec in kind for codec in _CODECS):
        raise EncodingError(
            f"compressed image message: format {message.format!r} is not supported; expected jpeg or png"
        )
    return decode_image(bytes(message.data), "compressed image message")


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
