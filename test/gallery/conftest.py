"""A small source of images on disk and a describer without a network."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.cameras import Camera
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import ModelConfig
from geowarp_ros.readers import Source, read_source
from geowarp_ros.types import Image
from test.rerank.conftest import textured

LATITUDE, LONGITUDE = 45.0, 9.0

MakeSource: TypeAlias = Callable[..., Path]
"""The fixture make_source: (count, name, first, broken) -> folder."""

Views = Callable[..., Source]
"""The fixture views: (count, name, first) -> source."""

WIDE = Camera(192, 144, 150.0, 151.0, 95.0, 72.0, "plumb_bob", (-0.1, 0.02, 1e-3, 0.0), "camera.yaml")
TALL = Camera(72, 96, 80.0, 80.0, 35.5, 47.5, source="EXIF")


class ColourDescriber(Describer):
    """Describes an image by its mean colour: the six numbers and the maps can be worked by hand."""

    def __init__(self, fingerprint: str = "0123456789abcdef", resolution: int = 0) -> None:
        self.fingerprint = fingerprint
        self.model: Any = SimpleNamespace(
            config=ModelConfig(encoder="resnet18", resolution=resolution), descriptor_dim=6, channels=2, file=None
        )
        self.batches: list[int] = []

    def describe_batch(self, images: Sequence[Image]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        self.batches.append(len(images))
        descriptors = np.empty((len(images), 6), np.float32)
        local_features = np.empty((len(images), 2, 15, 15), np.float16)
        for row, image in enumerate(images):
            mean = image.mean(axis=(0, 1)) / 255
            descriptors[row] = [*mean, *(mean**2)]
            local_features[row] = cv2.resize(image[..., :2], (15, 15)).transpose(2, 0, 1) / 255
        return descriptors, local_features


@pytest.fixture
def describer() -> ColourDescriber:
    return ColourDescriber()


def shade(index: int) -> tuple[int, int, int]:
    return (17 * index) % 256, (40 + 11 * index) % 256, 128


@pytest.fixture
def make_source(tmp_path: Path) -> MakeSource:
    """Writes `count` images of different colours and sizes with a CSV, north of one another by 1e-4°."""

    def make(count: int, name: str = "source", first: int = 0, broken: tuple[int, ...] = ()) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        with (folder / "positions.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["filename", "latitude", "longitude", "altitude", "heading", "split"])
            for index in range(first, first + count):
                size = (48, 64) if index % 3 else (64, 48)
                image = np.full((*size, 3), shade(index), np.uint8)
                path = folder / f"{index:03d}.png"
                cv2.imwrite(str(path), image[..., ::-1])
                if index in broken:
                    path.write_bytes(path.read_bytes()[:60])
                rows.writerow(
                    [path.name, LATITUDE + index * 1e-4, LONGITUDE, 100 + index, 10 * index % 360, "ab"[index % 2]]
                )
        return folder

    return make


@pytest.fixture
def source(make_source: MakeSource) -> Source:
    return read_source(make_source(7))


@pytest.fixture
def gallery(source: Source, describer: Describer, tmp_path: Path) -> Path:
    """Seven images."""
    return build_gallery(source, describer, tmp_path / "gallery", batch_size=3).gallery


@pytest.fixture
def views(tmp_path: Path) -> Views:
    """Textured photographs of 192×144 by WIDE and of 96×128, every other one of these by TALL; one is flat."""

    def make(count: int, name: str = "views", first: int = 0) -> Source:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        with (folder / "positions.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["filename", "latitude", "longitude"])
            for index in range(first, first + count):
                image = textured(index, 144, 192) if index % 2 else textured(index, 128, 96)
                image = np.full_like(image, 90) if index == 2 else image
                cv2.imwrite(str(folder / f"{index:03d}.png"), image[..., ::-1])
                rows.writerow([f"{index:03d}.png", LATITUDE + index * 1e-4, LONGITUDE])
        source = read_source(folder)
        cameras = [WIDE, TALL, WIDE, None]
        images = [
            replace(image, camera=cameras[index % 4 - 1]) for index, image in enumerate(source.images, start=first)
        ]
        return replace(source, images=tuple(images))

    return make
