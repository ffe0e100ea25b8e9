"""What is measured with: pictures of no place, models with or without training, a gallery of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from geowarp_ros.errors import ConfigError
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.lab.benchmark.timing import CPU
from geowarp_ros.model.checkpoints import fingerprint, load_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.inference import Precision
from geowarp_ros.readers import read_source
from geowarp_ros.types import Image

_STEP_DEG = 10 / 111_132  # between places


@dataclass(frozen=True, slots=True)
class Size:
    """Of an image, in px."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}×{self.height}"


def parse_size(text: str) -> Size:
    """Read ``640x480`` (width first).

    Raises:
        ConfigError: It is something else.
    """
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 32):
        raise ConfigError(f"size {text!r}: expected WIDTHxHEIGHT of at least 32 px a side, such as 640x480")
    return Size(int(height), int(width))


def picture(size: Size, seed: int) -> Image:
    """Return blobs of random colour at two scales: corners enough for keypoints, no two alike."""
    rng = np.random.default_rng(seed)
    layers = []
    for scale in (8, 40):
        coarse = rng.integers(0, 256, (size.height // scale + 2, size.width // scale + 2, 3), dtype=np.uint8)
        layers.append(cv2.resize(coarse, (size.width, size.height), interpolation=cv2.INTER_CUBIC))
    return cv2.addWeighted(layers[0], 0.5, layers[1], 0.5, 0.0)  # type: ignore[no-any-return]


def write_pictures(folder: Path, size: Size, count: int) -> Path:
    """Write ``count`` pictures as JPEG with positions.csv, 10 m apart to the north; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["filename,latitude,longitude"]
    for number in range(count):
        name = f"{number:04d}.jpg"
        bgr = np.ascontiguousarray(picture(size, number)[:, :, ::-1])
        (folder / name).write_bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
        lines.append(f"{name},{45 + number * _STEP_DEG:.8f},9.0")
    (folder / "positions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def make_model(encoder: EncoderName, weights: str = "") -> tuple[GeoWarp, str]:
    """Return a model that takes images as they are, and what its weights are.

    Args:
        encoder: Its name.
        weights: A model file; used where it has this encoder. Otherwise weights are random: times do not depend on
            them, as long as quads and features are finite.
    """
    if weights:
        loaded = load_model(weights)
        if loaded.config.encoder == encoder and loaded.regression is not None:
            about = f"{weights}, fingerprint {fingerprint(loaded)}, at full resolution"
            loaded.config = loaded.config.model_copy(update={"resolution": 0})
            return loaded, about
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GeoWarp(ModelConfig(encoder=encoder)).eval()
        if model.regression is not None:
            torch.nn.init.normal_(model.regression.linear.weight, std=0.02)
    return model, "random weights"


@dataclass(frozen=True, slots=True)
class Scene:
    """A query and a gallery of ``size``.

    Attributes:
        size: Of the images.
        describer: At work.
        gallery: Opened.
        pixels: The query.
        files: The gallery's pictures as written, before the gallery copied them.
    """

    size: Size
    describer: Describer
    gallery: Gallery
    pixels: Image
    files: tuple[Path, ...]


def make_scene(
    model: GeoWarp,
    size: Size,
    places: int,
    folder: Path,
    precision: Precision = "float32",
    device: torch.device = CPU,
) -> Scene:
    """Write pictures and build their gallery in ``folder``; describe and search on ``device``."""
    describer = Describer(model, device, precision)
    source = read_source(write_pictures(folder / "pictures", size, places))
    gallery = folder / "gallery"
    build_gallery(source, describer, gallery, replace_existing=gallery.exists())
    files = tuple(sorted((folder / "pictures").glob("*.jpg")))
    return Scene(size, describer, Gallery.open(gallery, device), picture(size, places), files)
