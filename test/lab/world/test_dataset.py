from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from geowarp_ros.errors import SourceError
from geowarp_ros.lab.world import dataset
from geowarp_ros.lab.world.dataset import street_map, town_frame, write_world
from geowarp_ros.lab.world.passes import shots
from geowarp_ros.lab.world.world import World
from geowarp_ros.pictures import encode_jpeg
from geowarp_ros.readers import read_source
from geowarp_ros.types import Image
from test.lab.world.conftest import SMALL

TINY = SMALL.model_copy(
    update={"streets": 1, "train_streets": 0, "val_streets": 0, "spacing_m": 40, "query_passes": 0}
)
TINY = TINY.model_copy(update={"drive": False, "width_px": 64, "height_px": 48})


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "positions.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_photograph_is_listed_with_its_true_position(world: World, world_folder: Path) -> None:
    listed = rows(world_folder)
    planned = list(shots(world))
    assert [row["filename"] for row in listed] == [shot.name for shot in planned]
    on_disk = {str(path.relative_to(world_folder)) for path in world_folder.rglob("*.jpg")}
    assert on_disk == {row["filename"] for row in listed}
    position = [np.array([float(row[key]) for row in listed]) for key in ("latitude", "longitude", "altitude")]
    enu = town_frame(world.config).to_enu(*position)
    assert enu == pytest.approx(np.array([shot.camera.position for shot in planned]), abs=2e-3)
    assert float(listed[0]["heading"]) == pytest.approx(planned[0].camera.heading_deg, abs=0.01)


def test_splits_lie_on_streets_of_their_own(world_folder: Path) -> None:
    listed = rows(world_folder)
    assert set(Counter(row["split"] for row in listed)) == {
        "gallery", "query", "train/gallery", "train/queries", "val/gallery", "val/queries",
    }  # fmt: skip
    streets: dict[str, set[str]] = {}
    for row in listed:
        streets.setdefault(row["split"].rpartition("/")[0] or "test", set()).add(row["street"])
    assert not streets["test"] & streets["train"] and not streets["test"] & streets["val"]
    assert not streets["train"] & streets["val"]


def test_the_readers_read_it(world_folder: Path) -> None:
    gallery = read_source(world_folder, split="gallery")
    assert len(gallery.images) == sum(row["split"] == "gallery" for row in rows(world_folder))
    assert not gallery.skipped
    assert gallery.images[0].read().shape == (72, 96, 3)
    assert len(read_source(world_folder, split="train/queries").images) > 0


def test_its_images_and_its_drive_have_the_camera_that_rendered_them(world: World, world_folder: Path) -> None:
    """A point of the town lands where the renderer's own matrix puts it."""
    truth = world.camera_at(world.streets[0], 10.0)
    images = (*read_source(world_folder).images, *read_source(world_folder / "drive").images[:1])
    ray = np.array([[0.3, -0.2, 1.0]])
    for image in (images[0], images[-2], images[-1]):
        camera = image.camera_at(96, 72)
        assert camera is not None
        assert camera.project(ray) == pytest.approx((ray @ truth.matrix.T)[:, :2], abs=1e-9)
    assert images[0].camera is not None and images[0].camera.source == str(world_folder / "camera.yaml")
    assert images[-1].camera is not None and images[-1].camera.source == "/camera/camera_info"


def test_every_query_has_a_gallery_photograph_near(world_folder: Path) -> None:
    listed = rows(world_folder)
    frame = town_frame(SMALL)
    position = {
        split: frame.to_enu(
            *(np.array([float(r[k]) for r in listed if r["split"] == split]) for k in ("latitude", "longitude"))
        )
        for split in ("gallery", "query")
    }
    nearest = np.linalg.norm(position["query"][:, None] - position["gallery"][None], axis=2).min(1)
    assert nearest.max() < 25


def test_the_description_and_the_map(world: World, world_folder: Path) -> None:
    description = json.loads((world_folder / "world.json").read_text())
    assert description["format"] == "geowarp-world"
    assert description["config"]["seed"] == 5
    drawn = json.loads((world_folder / "map.json").read_text())
    assert drawn == street_map(world)
    assert sum(street["photographed"] for street in drawn["streets"]) == len(world.streets)
    assert len(drawn["buildings"]) == sum(len(quarter.buildings) for quarter in world.quarters)


def test_an_interrupted_world_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bytes] = []

    def until_the_third(image: Image, quality: int) -> bytes:
        if len(taken) == 2:
            raise KeyboardInterrupt
        taken.append(encode_jpeg(image, quality))
        return taken[-1]

    output = tmp_path / "town"
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "encode_jpeg", until_the_third)
        with pytest.raises(KeyboardInterrupt):
            write_world(TINY, output)
    assert not output.exists()
    again: list[bytes] = []

    def counted(image: Image, quality: int) -> bytes:
        again.append(encode_jpeg(image, quality))
        return again[-1]

    monkeypatch.setattr(dataset, "encode_jpeg", counted)
    write_world(TINY, output)
    listed = rows(output)
    assert len(again) == len(listed) - 2
    assert (output / listed[0]["filename"]).read_bytes() == taken[0]
    assert [path.name for path in tmp_path.iterdir()] == ["town"]


def test_the_same_configuration_writes_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_world(TINY, tmp_path / name) for name in ("a", "b"))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes()


def test_nothing_that_is_not_a_world_is_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "papers"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    for overwrite in (False, True):
        with pytest.raises(SourceError, match="papers is not empty and not a world"):
            write_world(TINY, precious, overwrite=overwrite)
    assert (precious / "thesis.txt").read_text() == "years"
    with pytest.raises(SourceError, match=r"thesis\.txt is a file"):
        write_world(TINY, precious / "thesis.txt")


def test_a_world_is_replaced_only_on_request(tmp_path: Path) -> None:
    output = write_world(TINY, tmp_path / "town")
    with pytest.raises(SourceError, match="--overwrite"):
        write_world(TINY, output)
    other = TINY.model_copy(update={"seed": 99})
    write_world(other, output, overwrite=True)
    assert json.loads((output / "world.json").read_text())["config"]["seed"] == 99


def test_jpeg_keeps_the_order_of_the_colours() -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 220
    decoded = cv2.imdecode(np.frombuffer(encode_jpeg(red, 95), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded[32, 32, 2] > 200 and decoded[32, 32, 0] < 30
