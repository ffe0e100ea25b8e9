"""Benchmark inputs: synthetic images, models and galleries of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.lab.benchmark.timing import CPU
from geowarp_ros.lab.verbs.options import Size
from geowarp_ros.model.checkpoints import fingerprint, load_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.inference import Precision
from geowarp_ros.model.runtimes import Runtime
from geowarp_ros.readers import Source, read_source
from geowarp_ros.types import Image

_STEP_DEG = 10 / 111_132  # between places


def picture(size: Size, seed: int) -> Image:
    """Return a seeded image of random blobs at two scales, rich in keypoints."""
    rng = np.random.default_rng(seed)
    layers = []
    for scale in (8, 40):
        coarse = rng.integers(0, 256, (size.height // scale + 2, size.width // scale + 2, 3), dtype=np.uint8)
        layers.append(cv2.resize(coarse, (size.width, size.height), interpolation=cv2.INTER_CUBIC))
    return np.asarray(cv2.addWeighted(layers[0], 0.5, layers[1], 0.5, 0.0), np.uint8)


def write_pictures(folder: Path, size: Size, count: int) -> Source:
    """Write ``count`` JPEG images, 10 m apart to the north, with positions.csv, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["filename,latitude,longitude"]
    for number in range(count):
        name = f"{number:04d}.jpg"
        bgr = np.ascontiguousarray(picture(size, number)[:, :, ::-1])
        (folder / name).write_bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
        lines.append(f"{name},{45 + number * _STEP_DEG:.8f},9.0")
    (folder / "positions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_source(folder)


def make_model(encoder: EncoderName, weights: str = "") -> tuple[GeoWarp, str]:
    """Return a model without resizing and a description of its weights.

    Args:
        encoder: Encoder name.
        weights: Model file, used if it has this encoder and a regression; otherwise weights are random, which does
            not affect run times.
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
    """A query and a gallery.

    Attributes:
        size: Image size.
        describer: Describes query and gallery.
        gallery: Open gallery.
        pixels: Query image.
        files: Source images of the gallery.
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
    runtime: Runtime = "auto",
) -> Scene:
    """Write images to ``folder`` and build their gallery; describe and search on ``device``."""
    describer = Describer(model, device, precision, runtime)
    source = write_pictures(folder / "pictures", size, places)
    gallery = build_gallery(source, describer, folder / "gallery", keypoints=None).gallery
    files = tuple(sorted((folder / "pictures").glob("*.jpg")))
    return Scene(size, describer, Gallery.open(gallery, device), picture(size, places), files)
