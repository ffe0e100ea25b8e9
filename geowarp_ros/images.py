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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from geowarp_ros.errors import ImageError
from geowarp_ros.types import Image

if TYPE_CHECKING:
    import torch
    from torch import Tensor

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

_DECODER_ERRORS = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, zlib.error)


def read_image(path: str | Path) -> Image:
    """Read an image file as RGB, upright by its EXIF orientation.

    16 bits become 8, grey and CMYK become RGB, alpha is dropped.

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
    return _decoded(data, name)


def _decoded(source: bytes | Pillow.Image, name: str) -> Image:
    try:
        image = source if isinstance(source, Pillow.Image) else _open(source)
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
    images: Image | Sequence[Image], device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Tensor:
    """Normalise one image, or several of the same size, with ImageNet's mean and deviation.

    Args:
        images: (H, W, 3) uint8 RGB, or B of them.
        device: Where the tensor goes; the pixels travel as bytes.
        dtype: Type of the result; None: float32.

    Returns:
        (B, 3, H, W).
    """
    import torch

    stack = images[None].copy() if isinstance(images, np.ndarray) and images.ndim == 3 else np.stack(list(images))
    pixels = torch.from_numpy(stack).to(device).permute(0, 3, 1, 2).contiguous().to(dtype or torch.float32)
    # (pixels / 255 - mean) / std as one product and one sum, in place
    factors, offsets = zip(
        *((1 / (255 * std), -mean / std) for mean, std in zip(MEAN, STD, strict=True)), strict=True
    )
    factor, offset = (
        torch.tensor(values, dtype=pixels.dtype, device=device).view(3, 1, 1) for values in (factors, offsets)
    )
    return pixels.mul_(factor).add_(offset)


def _open(data: bytes) -> Pillow.Image:
    with warnings.catch_warnings():  # our own limit, refused by name, replaces Pillow's warning
        warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
        return Pillow.open(io.BytesIO(data), formats=FORMATS)


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


def _to_rgb(image: Pillow.Image, name: str) -> Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it to 255
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise ImageError(f"{name}: has values from {grey.min()} to {grey.max()}, expected 8 or 16 bits")
        return np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ImageError(f"{name}: holds floating-point values, expected 8 or 16 bits")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
