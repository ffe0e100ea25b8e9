"""Camera messages: each encoding against hand-made pixels, cameras against rendered dots, and the refusals."""

from __future__ import annotations

import array
import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.cameras import Camera, camera_info_topic, is_rectified
from geowarp_ros.errors import CameraError, EncodingError, ImageError
from geowarp_ros.messages import camera_from_info, image_from_compressed, image_from_message

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


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("encoding", ["mono16", "bayer_rggb16", "rgb16", "bgra16"])
def test_the_same_picture_is_the_same_however_many_of_16_bits_are_used(
    picture: NDArray[np.uint8], encoding: str, bits: int
) -> None:
    picture[0, 0] = 255  # a light pixel uses the highest bit
    flat = picture if encoding == "rgb16" else np.dstack([picture, picture[..., :1]])
    pixels = flat if encoding in ("rgb16", "bgra16") else picture[..., 0]
    expected = image_from_message(message(encoding.replace("16", "8"), pixels))
    deep: NDArray[Any] = np.asarray(pixels.astype(int) << (bits - 8), "<u2")
    np.testing.assert_array_equal(image_from_message(message(encoding, deep)), expected)


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


@pytest.mark.parametrize(("encoding", "order"), [("nv12", (0, 1)), ("nv21", (1, 0))])
@pytest.mark.parametrize("padding", [0, 12, "rows and chroma"])
def test_semiplanar_yuv_of_two_colours(encoding: str, order: tuple[int, int], padding: int | str) -> None:
    """The left half of one colour, the right of another; BT.601 in studio range."""
    halves = [(100, 90, 200), (180, 140, 60)]
    luma = np.repeat([[y for y, _, _ in halves]], HEIGHT, axis=0).repeat(WIDTH // 2, axis=1)
    pair = np.array([(yuv[1 + order[0]], yuv[1 + order[1]]) for yuv in halves]).repeat(WIDTH // 4, axis=0).ravel()
    planes = np.vstack([luma, np.repeat([pair], HEIGHT // 2, axis=0)]).astype(np.uint8)
    packed = message(encoding, planes, padding if isinstance(padding, int) else 0)
    packed.height = HEIGHT
    if padding == "rows and chroma":
        packed.step = WIDTH * 3 // 2
    image = image_from_message(packed)
    for column, (y, u, v) in zip((4, 15), halves, strict=True):
        lit = 1.164 * (y - 16)
        expected = (lit + 1.596 * (v - 128), lit - 0.392 * (u - 128) - 0.813 * (v - 128), lit + 2.017 * (u - 128))
        np.testing.assert_allclose(
            image[:, column], np.broadcast_to(np.clip(expected, 0, 255), (HEIGHT, 3)), atol=1
        )


def test_an_encoding_in_capitals_is_known(picture: NDArray[np.uint8]) -> None:
    for name in ("RGB8", "Rgb8"):
        np.testing.assert_array_equal(image_from_message(message(name, picture)), picture)
    np.testing.assert_array_equal(image_from_message(message("8uc3", picture[..., ::-1])), picture)


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
        ({"encoding": "16UC1"}, "encoding '16UC1' is not supported: it is of depth"),
        ({"encoding": "rbg8"}, "did you mean 'rgb8'"),
        ({"encoding": "RBG8"}, "did you mean 'rgb8'"),
        ({"encoding": "nv12"}, "data has 1080 bytes and step = 60, expected 27 rows of at least 20 for 18 rows"),
        ({"encoding": "nv12", "height": 17}, "20×17 px, expected even sides for nv12"),
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
    assert isinstance(error.value, EncodingError) == (packed.encoding in ("32FC1", "16UC1", "rbg8", "RBG8"))


@pytest.mark.parametrize(
    "kind", ["png", "PNG", "rgb8; png compressed bgr8", "", "jpeg", "rgb8", "h264", "mono16; x"]
)
def test_png_comes_back_exactly(picture: NDArray[np.uint8], kind: str) -> None:
    encoded = cv2.imencode(".png", picture[..., ::-1])[1]
    np.testing.assert_array_equal(image_from_compressed(Message(format=kind, data=encoded.ravel())), picture)


@pytest.mark.parametrize("kind", ["jpeg", "jpg", "bgr8; jpeg compressed bgr8"])
def test_jpeg_comes_back_in_rgb(kind: str) -> None:
    encoded = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), RED[::-1], np.uint8))[1].tobytes()
    image = image_from_compressed(Message(format=kind, data=array.array("B", encoded)))
    np.testing.assert_allclose(image, np.broadcast_to(RED, image.shape), atol=3)


DEEP = cv2.imencode(".png", np.full((HEIGHT, WIDTH), 1500, np.uint16))[1].tobytes()
"""A depth image: 1.5 m."""


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        (
            "h264",
            b"\0\0\0\1",
            "format 'h264' is not supported; expected jpeg or png, or in a bag the packets of H",
        ),
        ("", b"\0\0\1g", "format '' is not supported; expected jpeg or png, or in a bag the packets of H"),
        ("16UC1; compressedDepth png", b"\0", "compressedDepth png' is not supported: it is of depth"),
        ("16UC1; png compressed ", DEEP, "'16UC1; png compressed ' is not supported: it is of depth"),
        ("32FC1; tiff compressed", DEEP, "is of depth"),
        ("", bytes(12) + DEEP, "format '' is not supported: it is of depth"),
        ("draco", b"DRACO and more", "format 'draco' is not supported; expected jpeg or png$"),
        ("", b"", "format ''"),
        ("jpeg", b"", "empty"),
        ("jpeg", b"\xff\xd8\xff\xe0 no more", "compressed image message"),
    ],
)
def test_compressed_refusals(kind: str, data: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=said) as error:
        image_from_compressed(Message(format=kind, data=data))
    assert isinstance(error.value, EncodingError) == (kind != "jpeg")


# ---- CameraInfo


K, P = (400.0, 0, 310, 0, 410, 250, 0, 0, 1), (380.0, 0, 320, -38, 0, 380, 240, 0, 0, 0, 1, 0)


def info(**changes: Any) -> SimpleNamespace:
    roi = SimpleNamespace(
        **dict(zip(("x_offset", "y_offset", "width", "height"), changes.pop("roi", [0] * 4), strict=True))
    )
    usual = {
        "width": 640,
        "height": 480,
        "distortion_model": "plumb_bob",
        "d": (-0.2, 0.05, 0, 0, 0),
        "k": K,
        "p": P,
    }
    return SimpleNamespace(**{**usual, "binning_x": 0, "binning_y": 0, "roi": roi, **changes})


def test_a_camera_info_is_k_and_d_and_of_rectified_images_p() -> None:
    lens = (-0.2, 0.05, 0.0, 0.0, 0.0)
    raw = camera_from_info(info(), "/front/camera_info")
    assert raw == Camera(640, 480, 400, 410, 310, 250, "plumb_bob", lens, "/front/camera_info")
    rectified = camera_from_info(info(), "i", rectified=True)
    assert rectified == Camera(640, 480, 380, 380, 320, 240, source="i")
    ros1 = info()
    ros1.K, ros1.D, ros1.P = ros1.k, ros1.d, ros1.p
    del ros1.k, ros1.d, ros1.p
    assert camera_from_info(ros1, "/front/camera_info") == raw
    assert camera_from_info(ros1, "i", rectified=True) == rectified


def test_an_uncalibrated_camera_is_none() -> None:
    """As drivers without a calibration publish it."""
    assert camera_from_info(info(k=np.zeros(9), d=[], distortion_model=""), "i") is None
    assert camera_from_info(info(p=np.zeros(12)), "i", rectified=True) is None
    assert camera_from_info(info(p=np.zeros(12)), "i") is not None


@pytest.mark.parametrize(
    ("roi", "binning"),
    [
        ((0, 0, 0, 0), (2, 2)),
        ((64, 32, 320, 240), (0, 0)),
        ((64, 32, 320, 240), (4, 4)),
        ((160, 100, 240, 200), (2, 4)),
        ((101, 99, 303, 202), (3, 2)),
        ((160, 0, 0, 0), (1, 0)),
    ],
)
@pytest.mark.parametrize("rectified", [False, True])
def test_region_and_binning_are_what_the_sensor_does(
    roi: tuple[int, int, int, int], binning: tuple[int, int], rectified: bool
) -> None:
    """A dot on the sensor, cropped and then averaged in rectangles, is where the camera says."""
    ray = np.array([[-0.09, -0.11, 1.0]])
    sensor = camera_from_info(info(), "i", rectified=rectified)
    camera = camera_from_info(info(roi=roi, binning_x=binning[0], binning_y=binning[1]), "i", rectified=rectified)
    assert sensor is not None and camera is not None
    (u, v), (x0, y0, width, height) = sensor.project(ray)[0], roi
    y, x = np.mgrid[:480, :640]
    dot = np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 8.0**2))
    cropped = dot[y0 : y0 + (height or 480), x0 : x0 + (width or 640)]
    bx, by = max(binning[0], 1), max(binning[1], 1)
    rows, columns = cropped.shape[0] // by, cropped.shape[1] // bx
    image = cropped[: rows * by, : columns * bx].reshape(rows, by, columns, bx).mean(axis=(1, 3))
    assert image.shape == (camera.height_px, camera.width_px)
    y, x = np.mgrid[:rows, :columns]
    centre = [(image * axis).sum() / image.sum() for axis in (x, y)]
    assert centre == pytest.approx(camera.project(ray)[0], abs=1e-3)


def test_a_region_far_from_the_optical_axis_is_a_camera() -> None:
    camera = camera_from_info(info(roi=(600, 440, 40, 40)), "i")
    assert camera is not None and (camera.cx, camera.cy) == (-290, -190)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": (400.0, 0, math.nan, 0, 410, 250, 0, 0, 1)}, "/c: cx is nan"),
        ({"k": (400.0, 0, 310, 0, 0, 250, 0, 0, 1)}, "/c: fy is 0 px"),
        ({"width": 0}, "/c: is 0×480 px"),
        ({"distortion_model": "omnidirectional"}, "/c: distortion model 'omnidirectional'"),
        ({"d": (0.1, 0.2, 0.3)}, "/c: 3 distortion coefficients for plumb_bob"),
        (
            {"roi": (600, 0, 100, 100)},
            "/c: region of interest 100×100 at 600, 0, expected one within the 640×480 px",
        ),
        ({"k": (400.0, 0, 5000, 0, 410, 250, 0, 0, 1)}, "/c: its principal point 5000"),
    ],
)
def test_a_camera_info_that_is_no_camera_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CameraError, match=message):
        camera_from_info(info(**changes), "/c")


@pytest.mark.parametrize(
    ("image", "beside", "rectified"),
    [
        ("/camera/image_raw", "/camera/camera_info", False),
        ("/camera/image_raw/compressed", "/camera/camera_info", False),
        ("/a/b/image_rect_color/compressed", "/a/b/camera_info", True),
        ("/image_rect", "/camera_info", True),
        ("/camera/image_raw/ffmpeg", "/camera/camera_info", False),
        ("/a/image_rect/ffmpeg", "/a/camera_info", True),
        ("/a/image_rect_color/h264", "/a/camera_info", True),
        ("image", "camera_info", False),
    ],
)
def test_topics_are_paired_as_image_transport_pairs_them(image: str, beside: str, rectified: bool) -> None:
    assert camera_info_topic(image) == beside
    assert is_rectified(image) == rectified
