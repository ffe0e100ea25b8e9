"""The demo's steps on a tiny world, with the node as its own process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from geowarp_ros.cli import main
from geowarp_ros.config import LocalizerConfig
from geowarp_ros.errors import GeowarpError
from geowarp_ros.evaluation.drive import Drive, DriveImage
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.lab import demo
from geowarp_ros.lab.demo import Replay, kept_rate, make_gallery, make_world, replay
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


def drive_of(images: int) -> Drive:
    """Images every 0.2 s, with an interruption of a minute in the middle."""
    stamps = [number * 200_000_000 + (number >= images // 2) * 60_000_000_000 for number in range(images)]
    black = np.zeros((6, 8, 3), np.uint8)
    return Drive("town", tuple(DriveImage(f"{stamp}", stamp, lambda: black) for stamp in stamps))


def replayed(answered: int, rate: float = 1.0) -> Replay:
    some: Any = (object(),) * answered
    return Replay(drive_of(20), some, np.zeros(0), np.zeros(0), rate)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (replayed(20), ""),
        (replayed(19), ""),
        (replayed(4), "DROPPED 16 OF 20 IMAGES: 5 a second were shown and 1 answered; --rate 0.12 could be kept"),
        (
            replayed(10, 0.5),
            "DROPPED 10 OF 20 IMAGES: 2.5 a second were shown and 1.2 answered; --rate 0.15 could",
        ),
    ],
)
def test_dropped_images_are_said_with_a_rate_that_fits(result: Replay, said: str) -> None:
    assert result.complaint().startswith(said) and ("--rate auto" in result.complaint()) == bool(said)


@pytest.mark.parametrize(("taken_s", "rate"), [(1.0, 0.12), (0.6, 0.2), (0.001, 1.0)])
def test_the_rate_that_is_kept_follows_from_the_time_of_an_image(
    taken_s: float, rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = [0.0], []

    def localize(frame: Any) -> None:
        asked.append(frame)
        now[0] += taken_s

    localizer: Any = SimpleNamespace(warm_up=lambda: 0.0, localize=localize)
    monkeypatch.setattr(demo, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert kept_rate(drive_of(20), localizer) == pytest.approx(rate)
    assert len(asked) == 7  # every third


@pytest.mark.parametrize(("answered", "status"), [(20, 0), (10, 0), (9, 1)])
def test_the_verb_fails_where_fewer_than_half_are_answered(
    answered: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = []

    def stand_in(*_: Any, rate: float, **__: Any) -> Replay:
        rates.append(rate)
        return replayed(answered, rate)

    stub = SimpleNamespace(path=tmp_path, places=[])
    for name, value in (("make_world", tmp_path), ("make_gallery", stub), ("kept_rate", 0.12)):
        monkeypatch.setattr(demo, name, lambda *_, value=value, **__: value)
    monkeypatch.setattr(demo, "read_demo", lambda bag: drive_of(20))
    monkeypatch.setattr(demo, "replay", stand_in)
    monkeypatch.setattr(Localizer, "open", lambda *_: None)
    monkeypatch.setattr("geowarp_ros.lab.demo_picture.write_picture", lambda *_: None)
    assert main(["demo", "--output", str(tmp_path), "--rate", "auto"]) == status
    printed = capsys.readouterr()
    assert "rate 0.12: 0.6 images a second\n" in printed.out
    assert ("DROPPED" in printed.err) == (answered < 20)
    assert main(["demo", "--output", str(tmp_path)]) == status
    assert rates == [0.12, 1.0]


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "fast"])
def test_a_rate_is_above_0_or_auto(rate: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--output", str(tmp_path), f"--rate={rate}"])
    assert ended.value.code == 2 and rate in capsys.readouterr().err
