"""The whole line on real photographs: folder, gallery, bag, the node in its own process, fixes recorded over DDS.

The bag is replayed at its recorded rate, as a camera would send: the node may drop an image, but not answer it
otherwise than the localizer does.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geowarp_ros.config import LocalizerConfig
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import distance_m
from geowarp_ros.lab.demo import IMAGE_TOPIC, TRUTH_TOPIC, replay
from geowarp_ros.localizer import Localizer
from geowarp_ros.model.checkpoints import load_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.readers import SourceImage, read_source
from geowarp_ros.types import Frame
from test.gallery import bags

DATA = Path(__file__).parents[3] / "shared" / "data"

pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.real_images,
    pytest.mark.usefixtures("graph"),
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the image sets lund and brighton (shared/data)"),
]

SECONDS_APART = 1.0


def write_walk(path: Path, images: tuple[SourceImage, ...]) -> Path:
    messages: list[Any] = []
    for number, image in enumerate(images):
        pixels, t_s = image.read(), number * SECONDS_APART
        _, recorded_ns, message = bags.image(t_s, 0)
        message.height, message.width, message.step = *pixels.shape[:2], 3 * pixels.shape[1]
        message.data = pixels.reshape(-1)
        messages.append((IMAGE_TOPIC, recorded_ns, message))
        messages.append(bags.fix(t_s, image.place.latitude_deg, image.place.longitude_deg, topic=TRUTH_TOPIC))
    return bags.write_bag(path, messages)


@pytest.mark.parametrize(("name", "right_within_m"), [("lund", 25.0), ("brighton", 50.0)])
def test_the_node_locates_every_second_photograph_as_the_localizer_does(
    name: str, right_within_m: float, tmp_path: Path, graph: None
) -> None:
    source = read_source(DATA / name)
    asked = source.images[1::2]
    describer = Describer(load_model("default"), "cpu")
    build_gallery(replace(source, images=source.images[::2]), describer, tmp_path / "gallery", keypoints=None)
    localizer = Localizer.open(tmp_path / "gallery", LocalizerConfig(device="cpu"))
    walk = write_walk(tmp_path / "walk", asked)
    result = replay(walk, Gallery.open(tmp_path / "gallery"), "default", tmp_path)

    assert len(result.drive.images) == len(asked)
    assert len(result.answered) >= len(asked) // 2
    for answered in result.answered:
        number = round((answered.stamp_ns - bags.START_NS) / 1e9 / SECONDS_APART)
        expected = localizer.localize(Frame(asked[number].read()))
        found, wanted = answered.answer.fix, expected.fix
        assert (found is None) == (wanted is None)
        if found is not None and wanted is not None:
            apart_m = distance_m(
                found.latitude_deg, found.longitude_deg, wanted.latitude_deg, wanted.longitude_deg
            )
            assert apart_m < 0.01
    assert (result.errors_m < right_within_m).all()
