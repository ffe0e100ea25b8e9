"""Camera messages: each encoding against hand-made pixels, and the refusals."""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.errors import EncodingError, ImageError
from geowarp_ros.messages import image_from_compressed, image_from_message

HEIGHT, WIDTH = 18, 20
RED = (200, 40, 10)


@dataclass
class Message:
    """Stands in for rclpy's and rosbags' messages: the same fields, no ROS."""

    height: int = HEIGHT
    width: int = WIDTH
    encoding: str = "rgb8"
    is_bigendian: int = 0
    step: int = 0
    data: Any = b""
    format: str = ""


def message(encoding: str, pixels: NDArray[np.uint8], padding: int = 0, **fields: Any) -> Message:
    """Pack pixels (H, W[, samples]) as a driver does, each row followed by `padding` bytes of rubbish."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=123)
    return Message(pixels.shape[0], pixels.shape[1], encoding, step=rows.shape[1], data=rows.tobytes(), **fields)


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize("padding", [0, 7])
def test_colour_orders(picture: NDArray[np.uint8], padding: int) -> None:
    alpha = np.full((HEIGHT, WIDTH, 1), 77, np.uint8)
    with_alpha = np.concatenate([picture, alpha], axis=2)
    for encoding, pixels in {
        "rgb8": picture,
        "bgr8": picture[..., ::-1],
        "8UC3": picture[..., ::-1],
        "rgba8": with_alpha,
        "bgra8": with_alpha[..., [2, 1, 0, 3]],
    }.items():
        np.testing.assert_array_equal(image_from_message(message(encoding, pixels, padding)), picture, encoding)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_fills_all_three_channels(picture: NDArray[np.uint8], encoding: str) -> None:
    image = image_from_message(message(encoding, picture[..., 0], padding=3))
    np.testing.assert_array_equal(image, np.repeat(picture[..., :1], 3, axis=2))


@pytest.mark.parametrize(("big", "dtype"), [(0, "<u2"), (1, ">u2")])
def test_mono16_keeps_the_upper_bits_in_either_byte_order(big: int, dtype: str) -> None:
    values = np.zeros((HEIGHT, WIDTH), dtype)
    values[0, :4] = [0, 255, 256, 65535]
    image = image_from_message(message("mono16", values, padding=4, is_bigendian=big))
    assert image[0, :4, 0].tolist() == [0, 0, 1, 255]
    assert (image == image[..., :1]).all()


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize(("bits", "big"), [(8, 0), (16, 0), (16, 1)])
def test_bayer_mosaic_of_one_colour(pattern: str, bits: int, big: int) -> None:
    colour = dict(zip("rgb", RED, strict=True))
    tile = np.array([[colour[pattern[0]], colour[pattern[1]]], [colour[pattern[2]], colour[pattern[3]]]])
    mosaic = np.tile(tile, (HEIGHT // 2, WIDTH // 2))
    pixels = mosaic.astype(np.uint8) if bits == 8 else (mosaic * 256 + 5).astype(">u2" if big else "<u2")
    image = image_from_message(message(f"bayer_{pattern}{bits}", pixels, is_bigendian=big))
    assert (image[2:-2, 2:-2] == RED).all()


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "UYVY"), ("uyvy", "UYVY"), ("yuv422_yuy2", "YUYV"), ("yuyv", "YUYV")]
)
def test_yuv_of_one_colour(encoding: str, order: str) -> None:
    # BT.601 in studio range: R = 1.164 (Y - 16) + 1.596 (V - 128) and so on
    y, u, v = 100, 90, 200
    luma = 1.164 * (y - 16)
    expected = (luma + 1.596 * (v - 128), luma - 0.392 * (u - 128) - 0.813 * (v - 128), luma + 2.017 * (u - 128))
    quartet = [{"Y": y, "U": u, "V": v}[letter] for letter in order]
    pixels = np.tile(np.array(quartet, np.uint8), (HEIGHT, WIDTH // 2)).reshape(HEIGHT, WIDTH, 2)
    image = image_from_message(message(encoding, pixels, padding=8))
    np.testing.assert_allclose(image, np.broadcast_to(expected, image.shape), atol=1.0)


def test_data_may_be_any_buffer(picture: NDArray[np.uint8]) -> None:
    for kind in (bytes, bytearray, lambda b: array.array("B", b), lambda b: np.frombuffer(b, np.uint8)):
        packed = message("rgb8", picture)
        packed.data = kind(packed.data)
        np.testing.assert_array_equal(image_from_message(packed), picture)


def test_the_image_does_not_hang_on_the_message(picture: NDArray[np.uint8]) -> None:
    packed = message("rgb8", picture)
    packed.data = bytearray(packed.data)
    image = image_from_message(packed)
    packed.data[:] = bytes(len(packed.data))
    np.testing.assert_array_equal(image, picture)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"encoding": "32FC1"}, "encoding '32FC1' is not supported.*rgb8, bgr8"),
        ({"encoding": "rbg8"}, "did you mean 'rgb8'"),
        ({"step": WIDTH * 3 - 1}, "step = 59 bytes, expected at least 60 for 20 px of rgb8"),
        ({"step": 0}, "step = 0"),
        ({"data": b""}, "data has 0 bytes, expected 1080 for 18 rows of 60"),
        ({"data": bytes(1081)}, "data has 1081 bytes"),
        ({"height": 0}, "20×0 px"),
        ({"height": 1, "width": 1, "step": 3, "data": bytes(3)}, "1×1 px, expected at least 16"),
        ({"encoding": "yuv422", "width": 19, "step": 60}, "width = 19, expected an even one"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    picture: NDArray[np.uint8], fields: dict[str, Any], said: str
) -> None:
    packed = message("rgb8", picture)
    for name, value in fields.items():
        setattr(packed, name, value)
    with pytest.raises(ImageError, match=said) as error:
        image_from_message(packed)
    assert isinstance(error.value, EncodingError) == (packed.encoding in ("32FC1", "rbg8"))


@pytest.mark.parametrize("kind", ["png", "PNG", "rgb8; png compressed bgr8"])
def test_png_comes_back_exactly(picture: NDArray[np.uint8], kind: str) -> None:
    encoded = cv2.imencode(".png", picture[..., ::-1])[1]
    np.testing.assert_array_equal(image_from_compressed(Message(format=kind, data=encoded.ravel())), picture)


@pytest.mark.parametrize("kind", ["jpeg", "jpg", "bgr8; jpeg compressed bgr8"])
def test_jpeg_comes_back_in_rgb(kind: str) -> None:
    encoded = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), RED[::-1], np.uint8))[1].tobytes()
    image = image_from_compressed(Message(format=kind, data=array.array("B", encoded)))
    np.testing.assert_allclose(image, np.broadcast_to(RED, image.shape), atol=3)


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("h264", b"\0\0\0\1", "format 'h264' is not supported; expected jpeg or png"),
        ("16UC1; compressedDepth png", b"\0", "compressedDepth png' is not supported"),
        ("", b"", "format ''"),
        ("jpeg", b"", "empty"),
        ("jpeg", b"\xff\xd8\xff\xe0 no more", "compressed image message"),
    ],
)
def test_compressed_refusals(kind: str, data: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=said) as error:
        image_from_compressed(Message(format=kind, data=data))
    assert isinstance(error.value, EncodingError) == (kind != "jpeg")
