"""Building a gallery beside the encoder passes that it cannot do without."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.images import read_image
from geowarp_ros.lab.benchmark.scene import Size, make_model, write_pictures
from geowarp_ros.lab.benchmark.timing import CPU, WALL, Clock, Times, take_turns
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.model.inference import Precision
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import read_source

ENCODER = "describing alone"
BUILD = "gallery build"


def measure_building(
    encoder: EncoderName,
    size: Size,
    images: int,
    rounds: int,
    *,
    weights: str = "",
    precision: Precision = "float32",
    progress: Progress = silent,
    clock: Clock = WALL,
    device: torch.device = CPU,
) -> Times:
    """Time ``gallery build`` from JPEG files over describing the same images, decoded before, in equal batches."""
    model, about = make_model(encoder, weights)
    describer = Describer(model, device, precision)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = read_source(write_pictures(folder / "pictures", size, images))
        decoded = [read_image(path) for path in sorted((folder / "pictures").glob("*.jpg"))]

        def describe() -> None:
            for start in range(0, images, 16):
                describer.describe_batch(decoded[start : start + 16])

        def build() -> None:
            gallery = folder / "gallery"
            build_gallery(source, describer, gallery, replace_existing=gallery.exists())

        title = f"{images} images, {encoder}, {size}, {precision}, {device} ({about})"
        return take_turns(title, {ENCODER: describe, BUILD: build}, ENCODER, rounds, clock, progress, device)
