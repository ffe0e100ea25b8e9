"""From an encoded camera image to the network's input: decode, check, resize, normalise.

Pillow decodes, as in the reference implementation, because it refuses truncated files where OpenCV fills them
with grey; its header is read first, so that an absurd size is refused before memory is taken.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, ImageOps, UnidentifiedImageError, features
from PIL import Image as Pillow
from torch import Tensor

from geowarp_ros.errors import ImageError, PluginError
from geowarp_ros.types import Image

MEAN = (0.485, 0.456, 0.406)
"""ImageNet's mean of R, G, B in 0..1, with which the encoders were trained."""
STD = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation of R, G, B in 0..1."""

MIN_SIDE_PX = 16
"""Below this the encoders' feature map (stride 16) is empty."""
MAX_SIDE_PX = 16384
MAX_PIXELS = 100_000_000

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000")
"""What cameras and their drivers write; no GIF, PDF or EPS (which would start Ghostscript). JPEG covers MPO."""

_DNG_VERSION = 0xC612

PLUGINS = {"HEIF": "pillow-heif", "AVIF": "pillow>=11.3", "JXL": "pillow-jxl-plugin", "DNG": "rawpy"}
"""Format that Pillow may lack -> the distribution that reads it."""

SUFFIXES = {
    **dict.fromkeys(
        (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jfif", ".mpo", ".jp2", ".ppm"), ""
    ),
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIF"),
    **{".avif": "AVIF", ".jxl": "JXL", ".dng": "DNG"},
}
"""Suffix of an image file, in lower case -> which of PLUGINS it needs."""

_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, EOFError, RuntimeError, struct.error, zlib.error),
)
UNREADABLE = (ImageError, Pillow.DecompressionBombError, *_DECODER_ERRORS)
"""What opening an image raises, and reading its header, where it is none."""


def read_image(path: str | Path) -> Image:
    """Read an image file as RGB, upright by its EXIF orientation.

    16 bits become 8 (:func:`eight_bits`), grey and CMYK become RGB, alpha is dropped.

    Raises:
        ImageError: The file is absent, empty, truncated, no image, or of a size outside the limits above.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise ImageError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> Image:
    """Decode an encoded image (JPEG, PNG, …) as :func:`read_image` does.

    Args:
        data: The file's bytes.
        name: What to call it in errors.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        ImageError: As :func:`read_image`.
    """
    if not data:
        raise ImageError(f"{name}: is empty (0 bytes), expected an image")
    image = _decoded(data, name)
    of_colours = data.startswith(b"\x89PNG") and data[24:26] in (b"\x10\2", b"\x10\4", b"\x10\6")
    if of_colours or data.startswith((b"II*\0", b"MM\0*")):
        # of 16-bit colours Pillow keeps the upper bytes, whichever bits are used
        deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
        rgb = None if deep is None or deep.dtype != np.uint16 else np.ascontiguousarray(deep[..., ::-1], np.uint16)
        if rgb is not None and np.array_equal(rgb >> 8, image):  # turned alike, too
            return eight_bits(rgb)
    return image


def _decoded(source: bytes | Pillow.Image, name: str) -> Image:
    try:
        image = source if isinstance(source, Pillow.Image) else open_image(source, name)
        check_size(image.width, image.height, name)
        if image is source:
            image = ImageOps.exif_transpose(image)
        else:  # ours: a copy only where there is something to turn
            ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image, name)
    except UnidentifiedImageError:
        raise ImageError(
            f"{name}: is no image that can be decoded, expected one of {', '.join(FORMATS)}"
        ) from None
    except Pillow.DecompressionBombError as error:
        raise ImageError(
            f"{name}: has far more pixels than the {MAX_PIXELS:,} expected at most: {error}"
        ) from None
    except MemoryError:
        raise ImageError(f"{name}: there is no memory to decode it") from None
    except _DECODER_ERRORS as error:
        raise ImageError(f"{name}: is truncated or broken: {str(error).splitlines()[0]}") from None


def image_of(source: Image | Path | str | Pillow.Image) -> Image:
    """Return a path, PIL image or array as an RGB image (H, W, 3) uint8.

    Args:
        source: Path of an image file, PIL image (turned upright by its EXIF orientation), or RGB array.

    Raises:
        ImageError: As :func:`read_image` and :func:`check_image`; or something that is none of these.
    """
    if isinstance(source, str | Path):
        return read_image(Path(source))
    if isinstance(source, Pillow.Image):
        return _decoded(source, "PIL image")
    if isinstance(source, np.ndarray):
        return check_image(source, "array")
    raise ImageError(f"{type(source).__name__}: is no image, expected a path, a PIL image or an RGB array")


def check_image(image: NDArray[Any], name: str) -> Image:
    """Return ``image`` if it is an RGB image within the limits, as the decoders above would have made it.

    Raises:
        ImageError: Another shape or dtype than (H, W, 3) uint8, or a size outside the limits.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(f"{name}: is {image.dtype} of shape {image.shape}, expected uint8 of shape (H, W, 3)")
    check_size(image.shape[1], image.shape[0], name)
    return image


def resize_shorter(image: Image, resolution: int) -> Image:
    """Shrink ``image`` by area so that its shorter side is ``resolution`` px; 0 leaves it. Never enlarges."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    if resolution == 0 or shorter <= resolution:
        return image
    # an extreme panorama keeps at least one pixel per side: the limits above keep its shorter side >= 16
    size = (round(width * resolution / shorter), round(height * resolution / shorter))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def to_tensor(
    images: Image | Sequence[Image], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    """Normalise one image, or several of the same size, with ImageNet's mean and deviation.

    Args:
        images: (H, W, 3) uint8 RGB, or B of them.
        device: Where the tensor goes; the pixels travel as bytes.
        dtype: Type of the result.

    Returns:
        (B, 3, H, W).
    """
    stack = images[None].copy() if isinstance(images, np.ndarray) and images.ndim == 3 else np.stack(list(images))
    pixels = torch.from_numpy(stack).to(device).permute(0, 3, 1, 2).contiguous().to(dtype)
    # (pixels / 255 - mean) / std as one product and one sum, in place
    factors, offsets = zip(
        *((1 / (255 * std), -mean / std) for mean, std in zip(MEAN, STD, strict=True)), strict=True
    )
    factor, offset = (
        torch.tensor(values, dtype=dtype, device=device).view(3, 1, 1) for values in (factors, offsets)
    )
    return pixels.mul_(factor).add_(offset)


def open_image(source: bytes | Path, name: str, *, pixels: bool = True) -> Pillow.Image:
    """Open an encoded image, whose pixels are not decoded yet; the first bytes decide on the format.

    Without ``pixels`` those of a raw photograph are not developed: only its size and EXIF are right.

    Raises:
        PluginError: What reads the format is not installed.
        OSError: And what else Pillow raises where it is no image.
    """
    if isinstance(source, Path):
        with source.open("rb") as opened:
            head = opened.read(64)
    else:
        head = source[:64]
    needed = _plugin_format(head)
    if head[:4] in (b"II*\0", b"MM\0*"):  # a DNG is a TIFF that says so; its first picture may be a thumbnail
        exif = Pillow.Exif()
        source = source.read_bytes() if isinstance(source, Path) else source
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged one is judged by what comes out
            exif.load(source)
        needed = "DNG" if _DNG_VERSION in exif else ""
    if lack := lacking(needed):
        raise PluginError(f"{name}: is {lack}", lack)
    if needed == "DNG":
        return _open_raw(bytes(source), exif, name, pixels)
    if needed == "JXL":  # which decodes all when it is opened
        source = source.read_bytes() if isinstance(source, Path) else source
        check_size(*_jxl_size(source), name)
    with warnings.catch_warnings():  # our own limit, refused by name, replaces Pillow's warning
        warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        image = Pillow.open(file, formats=(needed,) if needed else FORMATS)
    if needed == "JXL" and not getattr(image, "jpeg", False):
        image.getexif().pop(ExifTags.Base.Orientation, None)  # it is upright: its EXIF does not count
    return image


@cache
def lacking(needed: str) -> str:
    """Return what must be installed to read one of PLUGINS' formats, in words; empty where nothing must be."""
    try:
        if needed == "HEIF":
            import pillow_heif

            pillow_heif.register_heif_opener()
        elif needed == "JXL":
            import pillow_jxl  # noqa: F401 - it registers itself
        elif needed == "DNG":
            import rawpy  # noqa: F401 - as _open_raw does
        elif needed == "AVIF" and not features.check("avif"):
            raise ImportError
    except ImportError:
        how = f"pip install '{PLUGINS[needed]}'" if needed == "AVIF" else "pip install 'geowarp_ros[photos]'"
        return f"{needed}, which needs {PLUGINS[needed]}: {how}"
    return ""


def _open_raw(data: bytes, exif: Pillow.Exif, name: str, pixels: bool) -> Pillow.Image:
    """Develop a raw photograph with its own white balance, upright."""
    import rawpy

    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            size = raw.sizes.iwidth, raw.sizes.iheight
            check_size(*size, name)
            if pixels:
                image = Pillow.fromarray(raw.postprocess(use_camera_wb=True))
            else:
                image = Pillow.new("1", size if raw.sizes.flip not in (5, 6) else size[::-1])
    except rawpy.LibRawError as error:
        raise ImageError(f"{name}: is truncated or broken: {error}") from None
    exif.pop(ExifTags.Base.Orientation, None)
    image._exif, exif._loaded = exif, True  # as if Pillow had read it
    return image


def _plugin_format(head: bytes) -> str:
    """Return which of PLUGINS reads what begins like this; empty if none must (ISO 23008-12, ISO 18181-2)."""
    if head[:2] == b"\xff\x0a" or head[:12] == b"\0\0\0\x0cJXL \r\n\x87\n":
        return "JXL"
    brands = head[8 : int.from_bytes(head[:4], "big")] if head[4:8] == b"ftyp" else b""
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    return "HEIF" if any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"heim", b"mif1")) else ""


def _jxl_size(data: bytes) -> tuple[int, int]:
    """Return width and height as a JPEG XL's header has them (ISO 18181-1, SizeHeader; -2, boxes)."""
    start = here = 0
    while data[:2] != b"\xff\x0a" and here + 8 <= len(data):
        size, kind = int.from_bytes(data[here : here + 4], "big"), data[here + 4 : here + 8]
        if kind in (b"jxlc", b"jxlp"):
            start = here + 8 + 4 * (kind == b"jxlp") + 8 * (size == 1)
            break
        here += size if size >= 8 else len(data)
    bits = int.from_bytes(data[start + 2 : start + 18], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)

    def side() -> int:
        return 8 * (1 + take(5)) if small else 1 + take((9, 13, 18, 30)[take(2)])

    height, ratio = side(), take(3)
    across, down = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio]
    return (height * across // down if ratio else side()), height


def check_size(width: int, height: int, name: str) -> None:
    """Refuse what is too small for the encoders, or too large to be a camera's.

    Raises:
        ImageError: Naming the size and the limits.
    """
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(f"{name}: is {width}×{height} px, expected at least {MIN_SIDE_PX} px a side")
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: is {width}×{height} px, expected at most {MAX_SIDE_PX} px a side and {MAX_PIXELS:,} in all"
        )


def eight_bits(samples: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return 16-bit samples as 8-bit ones, by the bits that the camera uses: 8, 10, 12, 14 or 16.

    A picture within less than an eighth of these, and farther than that from black, such as a thermal one, is
    stretched over its own range, half a percent of outliers at either end aside.
    """
    top = int(samples.max(initial=0))
    shift = next(bits for bits in (8, 10, 12, 14, 16) if top < 1 << bits) - 8
    if shift:
        below = np.cumsum(np.bincount(samples.ravel()))
        low, high = np.searchsorted(below, (0.005 * samples.size, 0.995 * samples.size))
        if 0 < high - low < 32 << shift <= low:
            stretched = (samples.astype(np.float32) - low) * (255 / (high - low))
            return np.asarray(np.clip(np.round(stretched), 0, 255), np.uint8)
    return np.asarray(samples >> shift, np.uint8)


def _to_rgb(image: Pillow.Image, name: str) -> Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it to 255
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise ImageError(f"{name}: has values from {grey.min()} to {grey.max()}, expected 8 or 16 bits")
        return np.repeat(eight_bits(grey.astype(np.uint16))[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ImageError(f"{name}: holds floating-point values, expected 8 or 16 bits")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
