"""The demo's steps on a tiny world, with the node as its own process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from geowarp_ros.config import LocalizerConfig
from geowarp_ros.errors import GeowarpError
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.lab.demo import make_gallery, make_world, replay
from geowarp_ros.lab.demo_picture import write_picture
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.localizer import Localizer
from geowarp_ros.model.checkpoints import save_model
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.usefixtures("graph")]

TINY = WorldConfig(
    streets=1, street_length_m=40.0, width_px=96, height_px=72, supersampling=1, query_passes=0, image_rate_hz=2.0
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    save_model(GeoWarp(ModelConfig()).eval(), path)
    return str(path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, model: str) -> tuple[Path, Gallery]:
    folder = tmp_path_factory.mktemp("demo")
    world = make_world(TINY, folder / "world")
    return world, make_gallery(world, model, folder / "gallery")


def test_from_nothing_to_fixes_and_a_picture(tmp_path: Path, model: str, tiny: tuple[Path, Gallery]) -> None:
    world, gallery = tiny
    result = replay(world / "drive", gallery, model, tmp_path, rate=4.0)
    rows = dict(result.rows())
    images, fixes, lost, dropped = (int(rows[key]) for key in ("images", "fixes", "no-fixes", "dropped"))
    assert images == fixes + lost + dropped == len(result.drive.images)
    assert fixes + lost == len(result.answered) == len(result.latencies_ms) > 0
    assert fixes == sum(item.answer.fix is not None for item in result.answered) == len(result.errors_m)
    assert (result.latencies_ms > 0).all()
    newest = max(image.stamp_ns for image in result.drive.images)
    assert result.answered[-1].stamp_ns == newest  # the last image is never dropped

    localizer = Localizer.open(gallery.path, LocalizerConfig(model=model))
    write_picture(result, localizer, world, tmp_path / "demo.png", "tiny")
    picture = np.asarray(Pillow.open(tmp_path / "demo.png").convert("RGB"))
    assert picture.shape == (1056, 1870, 3)
    assert picture.std() > 20  # something is drawn
    assert picture[150:950, 1400:].std() > 20  # the pairs as warped, whatever the mode of re-ranking spares


def test_what_is_done_is_used_again(model: str, tiny: tuple[Path, Gallery]) -> None:
    world, gallery = tiny
    files = [path for path in world.parent.rglob("*") if path.is_file()]
    made = {path: path.stat().st_mtime_ns for path in files}
    assert make_world(TINY, world) == world
    assert len(make_gallery(world, model, gallery.path)) == len(gallery)
    assert made == {path: path.stat().st_mtime_ns for path in files}


def test_a_node_that_does_not_start_is_said_with_its_last_line(tmp_path: Path, tiny: tuple[Path, Gallery]) -> None:
    world, gallery = tiny
    with pytest.raises(GeowarpError, match=r"the node did not start: .*nowhere\.safetensors"):
        replay(world / "drive", gallery, str(tmp_path / "nowhere.safetensors"), tmp_path)
