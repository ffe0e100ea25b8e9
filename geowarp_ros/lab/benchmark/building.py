"""Duration of building a gallery over that of describing its images."""

from __future__ import annotations

import tempfile
from pathlib import Path

from geowarp_ros.gallery.making.build import DEFAULT_KEYPOINTS, build_gallery
from geowarp_ros.keypoints.detector import KeypointConfig
from geowarp_ros.lab.benchmark.scene import make_model, write_pictures
from geowarp_ros.lab.benchmark.timing import Bench, Times
from geowarp_ros.lab.verbs.options import Size
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.encoders import EncoderName

ENCODER = "describing alone"
BUILD = "gallery build --no-keypoints"
BUILD_WITH_KEYPOINTS = "gallery build"


def measure_building(encoder: EncoderName, size: Size, images: int, bench: Bench) -> Times:
    """Time ``gallery build`` from JPEG files over describing the same images, decoded before, in equal batches."""
    model, about = make_model(encoder, bench.weights)
    describer = Describer(model, bench.device, bench.precision, bench.runtime)
    with tempfile.TemporaryDirectory() as name:
        source = write_pictures(Path(name) / "pictures", size, images)
        decoded = [image.read() for image in source.images]

        def describe() -> None:
            for start in range(0, images, 16):
                describer.describe_batch(decoded[start : start + 16])

        def build(keypoints: KeypointConfig | None) -> None:
            gallery = Path(name) / "gallery"
            build_gallery(source, describer, gallery, keypoints=keypoints, replace_existing=gallery.exists())

        title = f"{images} images, {encoder}, {size}, {bench.precision}, {bench.device} ({about})"
        contestants = {
            ENCODER: describe, BUILD: lambda: build(None), BUILD_WITH_KEYPOINTS: lambda: build(DEFAULT_KEYPOINTS),
        }  # fmt: skip
        return bench.compare(title, contestants, ENCODER)
