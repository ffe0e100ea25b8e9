from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from geowarp_ros.errors import ImageError, PluginError
from geowarp_ros.images import (
    PLUGINS,
    _jxl_size,
    check_image,
    decode_image,
    eight_bits,
    lacking,
    read_image,
    resize_shorter,
    to_tensor,
)
from geowarp_ros.types import Image


def gradient(height: int = 48, width: int = 64) -> Image:
    ys, xs = np.mgrid[0:height, 0:width]
    return np.stack([xs * 255 // (width - 1), ys * 255 // (height - 1), (xs + ys) % 256], axis=2).astype(np.uint8)


def encode(image: NDArray[Any], kind: str, mode: str | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    picture = Pillow.fromarray(image)
    (picture.convert(mode) if mode else picture).save(file, kind, **options)
    return file.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
KINDS = {
    "jpeg": encode(NOISE, "JPEG", quality=95),
    "progressive jpeg": encode(NOISE, "JPEG", quality=95, progressive=True),
    "png": encode(NOISE, "PNG"),
}


def test_lossless_files_come_back_exactly(tmp_path: Path) -> None:
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        path = tmp_path / f"image.{kind.lower()}"
        path.write_bytes(encode(gradient(), kind))
        np.testing.assert_array_equal(read_image(path), gradient())


def test_jpeg_is_what_opencv_decodes() -> None:
    data = KINDS["jpeg"]
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert np.abs(decode_image(data, "a.jpg").astype(int) - image[:, :, ::-1]).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    # what each value says must be done to the stored pixels to see them upright (Exif 2.3, tag 0x0112)
    turns: dict[int, Callable[[Image], Image]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }
    upright = turns[orientation]
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode_image(encode(gradient(), "PNG", exif=exif), "a.png"), upright(gradient()))


@pytest.mark.parametrize("kind", [".png", ".tiff"])
def test_sixteen_bits_become_eight(kind: str) -> None:
    deep = gradient().astype(np.uint16) * 257
    _, colour = cv2.imencode(kind, deep[:, :, ::-1])
    np.testing.assert_array_equal(decode_image(colour.tobytes(), "deep"), gradient())
    _, grey = cv2.imencode(kind, deep[:, :, 0])
    np.testing.assert_array_equal(decode_image(grey.tobytes(), "deep"), np.repeat(gradient()[:, :, :1], 3, axis=2))


def test_grey_cmyk_palette_and_alpha_become_rgb() -> None:
    grey = gradient()[:, :, 0]
    np.testing.assert_array_equal(decode_image(encode(grey, "PNG"), "grey"), np.repeat(grey[:, :, None], 3, 2))
    alpha = np.dstack([gradient(), np.zeros((48, 64), np.uint8)])
    np.testing.assert_array_equal(decode_image(encode(alpha, "PNG"), "alpha"), gradient())
    cmyk = decode_image(encode(gradient(), "JPEG", "CMYK", quality=100), "cmyk")
    assert np.abs(cmyk.astype(int) - gradient()).mean() < 3
    assert decode_image(encode(gradient(), "PNG", "P"), "palette").shape == (48, 64, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.6, 0.9, 0.97])
def test_a_truncated_file_is_refused_by_name(kind: str, part: float) -> None:
    data = KINDS[kind]
    with pytest.raises(ImageError, match=r"^street/7\.jpg: is (empty|truncated|no image)") as caught:
        decode_image(data[: int(part * len(data))], "street/7.jpg")
    assert "\n" not in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.floats(0, 1))
def test_wherever_a_file_ends_no_pixel_is_made_up(kind: str, part: float) -> None:
    data = KINDS[kind]
    try:
        image = decode_image(data[: round(part * len(data))], "cut")
    except ImageError:
        assert part < 1
    else:
        np.testing.assert_array_equal(image, decode_image(data, "whole"))


@pytest.mark.parametrize(("width", "height"), [(20_000, 32), (32, 20_000), (16_000, 16_000), (60_000, 60_000)])
def test_an_absurd_size_is_refused_from_the_header_alone(width: int, height: int) -> None:
    data = b"\x89PNG\r\n\x1a\n"
    for chunk in (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT"):
        data += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(
        ImageError, match=r"^wide\.png: (is \d+×\d+ px, expected at most 16384|has far more pixels)"
    ):
        decode_image(data, "wide.png")


@pytest.mark.filterwarnings("error")
def test_a_large_image_is_refused_without_a_warning_beside() -> None:
    with pytest.raises(ImageError, match="expected at most"):
        decode_image(encode(np.zeros((10_100, 10_100), bool), "PNG", bits=1), "large.png")


@pytest.mark.parametrize("shape", [(1, 1, 3), (15, 64, 3), (64, 15, 3)])
def test_a_tiny_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=f"is {shape[1]}×{shape[0]} px, expected at least 16 px a side"):
        decode_image(encode(np.zeros(shape, np.uint8), "PNG"), "tiny.png")


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    for data in (b"GIF89a" + bytes(64), b"%!PS-Adobe-3.0 EPSF-3.0\n", b"filename,latitude\n"):
        with pytest.raises(ImageError, match=r"^x: is no image that can be decoded"):
            decode_image(data, "x")
    with pytest.raises(ImageError, match=r"absent\.jpg: cannot be read: No such file"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="floating-point"):
        decode_image(encode(np.zeros((32, 32), np.float32), "TIFF"), "depth.tiff")


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_of_sixteen_bits_those_that_are_used_become_eight(bits: int) -> None:
    """The same picture as a camera of 10, 12 or 14 bits writes it, in grey and in colour: eight bits of it."""
    picture = np.random.default_rng(0).integers(0, 256, (24, 30, 3), np.uint8)
    picture[0, 0] = 255
    below = (1 << (bits - 8)) - 1  # the lower bits do not matter
    deep: NDArray[np.uint16] = np.asarray((picture.astype(int) << (bits - 8)) + below, np.uint16)
    np.testing.assert_array_equal(eight_bits(deep), picture)
    for kept, expected in ((deep[..., ::-1], picture), (deep[..., 0], np.repeat(picture[..., :1], 3, axis=2))):
        for kind in (".png", ".tiff"):
            data = cv2.imencode(kind, kept)[1].tobytes()
            np.testing.assert_array_equal(decode_image(data, f"deep{kind}"), expected)


def test_a_thermal_picture_is_stretched_over_its_own_range_and_a_dark_one_is_not() -> None:
    """A street of 20 to 30 °C in hundredths of a kelvin, with two dead pixels: by hand."""
    kelvin = np.linspace(29_315, 30_315, 60 * 80).round().astype(np.uint16).reshape(60, 80)
    kelvin[0, 0], kelvin[59, 9] = 0, 65_535
    grey = eight_bits(kelvin)
    low, high = np.percentile(kelvin, (0.5, 99.5))
    np.testing.assert_allclose(grey[5:55], (kelvin[5:55] - low) * 255 / (high - low), atol=1)
    assert (grey[0, 0], grey[59, 9]) == (0, 255)
    night = np.tile(np.arange(240, 320, dtype=np.uint16), (60, 1))
    night[30, 40] = 4095  # one lamp, at 12 bits
    np.testing.assert_array_equal(eight_bits(night), night >> 4)
    np.testing.assert_array_equal(eight_bits(np.full((20, 20), 9000, np.uint16)), 9000 >> 6)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_a_damaged_file_gives_an_image_or_an_image_error(kind: str, draw: st.DataObject) -> None:
    damaged = bytearray(KINDS[kind])
    for _ in range(draw.draw(st.integers(1, 4))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    try:
        image = decode_image(bytes(damaged), "damaged")
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert image.dtype == np.uint8 and image.shape[2] == 3


def test_arrays_are_checked_like_files() -> None:
    image = gradient()
    assert check_image(image, "camera") is image
    for wrong in (image[:, :, 0], image.astype(np.float32), np.zeros((48, 64, 4), np.uint8), image[:8]):
        with pytest.raises(ImageError, match=r"^camera: is .*expected"):
            check_image(wrong, "camera")


def test_resize_takes_the_shorter_side_and_never_enlarges() -> None:
    image = gradient(48, 64)
    assert resize_shorter(image, 0) is image
    assert resize_shorter(image, 48) is image
    assert resize_shorter(image, 400) is image
    np.testing.assert_array_equal(  # halving by area is the mean of 2×2 pixels
        resize_shorter(image, 24),
        np.round(image.reshape(24, 2, 32, 2, 3).mean(axis=(1, 3)) + 1e-6).astype(np.uint8),
    )
    assert resize_shorter(gradient(64, 48), 24).shape == (32, 24, 3)
    assert resize_shorter(gradient(30, 301), 20).shape == (20, 201, 3)


def test_to_tensor_normalises_by_hand_values() -> None:
    image = np.zeros((16, 20, 3), np.uint8)
    image[3, 5] = (255, 128, 0)
    tensor = to_tensor(image)
    assert tensor.shape == (1, 3, 16, 20)
    assert tensor.is_contiguous()
    expected = [(1 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    np.testing.assert_allclose(tensor[0, :, 3, 5], expected, rtol=1e-6)
    np.testing.assert_allclose(tensor[0, 0, 0, 0], -0.485 / 0.229, rtol=1e-6)
    pair = to_tensor([image, gradient(16, 20)])
    assert pair.shape == (2, 3, 16, 20)
    assert (pair[0] == tensor[0]).all()


def test_to_tensor_takes_read_only_and_mirrored_arrays() -> None:
    image = gradient(16, 20)
    image.setflags(write=False)
    np.testing.assert_array_equal(to_tensor(image[:, ::-1]), to_tensor(image).flip(-1))


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "JXL"])
@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_formats_of_plugins_come_back_upright(kind: str, orientation: int) -> None:
    """A JPEG XL is upright whatever its EXIF says (ISO 18181-2), the others as it says."""
    assert lacking(kind) == ""
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    image = decode_image(encode(gradient(), kind, quality=95, exif=exif.tobytes()), "a")
    turned = np.rot90(gradient(), {1: 0, 6: -1, 8: 1}[orientation if kind != "JXL" else 1])
    assert image.shape == turned.shape
    assert np.abs(image.astype(int) - turned).mean() < 12  # chroma is halved
    grey = [each.astype(float).mean(axis=2).ravel() for each in (image, turned)]
    assert np.corrcoef(*grey)[0, 1] > 0.97


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "JXL"])
def test_a_broken_file_of_a_plugin_is_refused(kind: str) -> None:
    assert lacking(kind) == ""
    data = encode(NOISE, kind)
    for size in range(0, len(data) - 1, max(1, len(data) // 40)):
        with pytest.raises(ImageError):
            decode_image(data[:size], "a")


@given(width=st.integers(16, 700), height=st.integers(16, 700), container=st.booleans())
@settings(deadline=None, max_examples=25)
def test_the_size_of_a_jpeg_xl_is_in_its_header(width: int, height: int, container: bool) -> None:
    assert lacking("JXL") == ""
    file = io.BytesIO()
    Pillow.new("L", (width, height)).save(file, "JXL", use_container=container, effort=1)
    assert _jxl_size(file.getvalue()) == (width, height)


def test_an_absurd_jpeg_xl_is_refused_before_it_is_decoded() -> None:
    bits, length = 0, 0
    for value, count in ((0, 1), (3, 2), ((1 << 30) - 1, 30), (1, 3)):  # not small, 30 bits of height, square
        bits, length = bits | value << length, length + count
    data = b"\xff\x0a" + bits.to_bytes(8, "little") + bytes(40)
    with pytest.raises(ImageError, match="expected at most 16384 px a side"):
        decode_image(data, "a.jxl")


@pytest.mark.parametrize(("kind", "module"), [("HEIF", "pillow_heif"), ("JXL", "pillow_jxl")])
def test_an_absent_plugin_is_named(kind: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lacking(kind) == ""
    data = encode(NOISE, kind)
    monkeypatch.setitem(sys.modules, module, None)
    lacking.cache_clear()
    said = rf"is {kind}, which needs {PLUGINS[kind]}: pip install 'geowarp_ros\[photos\]'"
    try:
        with pytest.raises(PluginError, match=said):
            decode_image(data, "IMG_1.JPG")  # whatever its name
    finally:
        lacking.cache_clear()
