"""A gallery's own photographs against galleries whose look-alikes are known, over the street of calibrations."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from geowarp_ros.config import LocalizerConfig, parse_config
from geowarp_ros.errors import GalleryError
from geowarp_ros.evaluation.calibration import calibrate_gallery
from geowarp_ros.evaluation.selfcalibration import ANSWERS, SelfCalibrated, self_calibrate
from geowarp_ros.gallery.making.build import DEFAULT_KEYPOINTS, add_to_gallery, build_gallery, remove_from_gallery
from geowarp_ros.gallery.making.segment import JOURNAL
from geowarp_ros.gallery.manifest import CALIBRATION
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.integrity.calibration import (
    beside_model,
    find_calibration,
    load_calibration,
    save_calibration,
    settings_of,
)
from geowarp_ros.localizer import Localizer
from geowarp_ros.model.describer import Describer, open_describer
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import read_source
from test.lab.studies.street import PLACES, write_model, write_source

T = TypeVar("T")
KNOWN = 0.4
"""Share of look-alikes on the drive that calibrated the model."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def config(model: Path) -> LocalizerConfig:
    return parse_config(LocalizerConfig, {"model": str(model), "device": "cpu"})


@pytest.fixture(scope="module")
def describer(config: LocalizerConfig) -> Describer:
    return open_describer(config)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve places, and a picture of the third at a thirteenth and a fourteenth that no gallery has at first."""
    folder = tmp_path_factory.mktemp("street") / "source"
    write_source(folder, 0, 45.0)
    with (folder / "positions.csv").open("a", newline="") as file:
        for number, split in ((PLACES, "twin"), (PLACES + 1, "later")):
            name = f"{split}_{number}.png"
            shutil.copy(folder / "gallery_02.png", folder / name)
            csv.writer(file).writerow((name, 45.0 + 0.01 * (number - PLACES + 1), 7.0, split))
    return folder


@pytest.fixture(scope="module")
def plain(street: Path, model: Path, describer: Describer, config: LocalizerConfig, tmp_path_factory) -> Path:  # type: ignore[no-untyped-def]
    """A gallery without look-alikes; a drive through it calibrates the model, whose own drive had many."""
    folder: Path = tmp_path_factory.mktemp("plain") / "gallery"
    build_gallery(read_source(street, split="gallery"), describer, folder, keypoints=DEFAULT_KEYPOINTS)
    localizer = Localizer.open(folder, config, describer, calibrated=False)
    calibrate_gallery(localizer, read_source(street, split="query").images)
    drive = load_calibration(folder / CALIBRATION)
    assert drive is not None
    named = {"title": "the calibration beside the model", "look_alikes": KNOWN, "min_confidence": 0.99}
    save_calibration(beside_model(model, "gated"), drive.model_copy(update=named))
    (folder / CALIBRATION).unlink()
    return folder


@pytest.fixture
def gallery(plain: Path, tmp_path: Path) -> Path:
    return shutil.copytree(plain, tmp_path / "gallery")


def asked(
    gallery: Path, config: LocalizerConfig, describer: Describer, progress: Progress = silent, **more: Any
) -> SelfCalibrated:
    return self_calibrate(Gallery.open(gallery), describer, config, progress, **{"store": True, **more})


def test_without_look_alikes_less_confidence_is_enough_inside(
    gallery: Path, config: LocalizerConfig, describer: Describer, caplog: pytest.LogCaptureFixture
) -> None:
    asked(gallery, config, describer, store=False)
    assert not (gallery / CALIBRATION).exists(), "nobody said that the robot stays inside"
    found = asked(gallery, config, describer)
    assert (found.share.count, found.share.of) == (0, PLACES)
    # Wilson's upper end for 0 of 12, z² / (n + z²), over the share known, as a factor on odds of 99
    odds = 99 * min(1.0, 3.8415 / (PLACES + 3.8415) / KNOWN)
    assert found.calibration is not None
    assert found.calibration.min_confidence == pytest.approx(odds / (1 + odds), rel=1e-4)
    # the localizer takes it from then on
    used = Localizer.open(gallery, config, describer).calibration
    assert used is not None and used.own is not None and not caplog.records
    assert used.min_confidence == found.calibration.min_confidence


def test_look_alikes_are_found_and_named(
    gallery: Path, street: Path, config: LocalizerConfig, describer: Describer
) -> None:
    add_to_gallery(read_source(street, split="twin"), describer, gallery)
    found = asked(gallery, config, describer)
    twins = {"gallery_02.png", f"twin_{PLACES}.png"}
    assert {(a.name, a.like) for a in found.look_alikes} == {(a, (twins - {a}).pop()) for a in twins}
    assert found.look_alikes[0].apart_m == pytest.approx(1118, abs=2)  # 0.01° of latitude north, 120 m east
    assert found.calibration is not None and found.calibration.own is not None
    assert (found.calibration.own.asked, found.calibration.own.alike) == (PLACES + 1, 2)
    without = asked(gallery, config, describer, photographs=1)
    assert without.share.of == 1 and without.calibration is not None
    assert without.calibration.min_confidence == 0.99, "one photograph says nothing"


def test_a_stopped_run_goes_on_and_says_the_same(
    gallery: Path, config: LocalizerConfig, describer: Describer
) -> None:
    shown: list[int] = []

    def stopping(items: Iterable[T], total: int, label: str) -> Iterable[T]:
        shown.append(total)
        for number, item in enumerate(items):
            if number == 5 and len(shown) == 1:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        asked(gallery, config, describer, stopping)
    assert not (gallery / CALIBRATION).exists()
    journal = gallery / ANSWERS / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-7])  # the power failed in the fifth line
    resumed = asked(gallery, config, describer, stopping)
    assert shown == [PLACES, PLACES - 4]
    assert [json.loads(line)["name"] for line in journal.read_text().splitlines()] == [
        answer.name for answer in resumed.answers
    ]
    shutil.rmtree(gallery / ANSWERS)
    assert asked(gallery, config, describer) == resumed
    again = asked(gallery, config, describer, stopping, within_m=10.0)
    assert shown[-1] == PLACES, "other questions are asked anew"
    assert again.answers != () and again.calibration is not None


def test_it_is_not_used_once_photographs_were_added_or_removed(
    gallery: Path, street: Path, config: LocalizerConfig, describer: Describer, model: Path
) -> None:
    def found() -> tuple[bool, list[str]]:
        stored = Localizer.open(gallery, config, describer, calibrated=False).gallery.keypoint_config
        used, refused = find_calibration(config, describer.fingerprint, stored, model, gallery, 60.0)
        return used is not None and used.own is not None, refused

    asked(gallery, config, describer)
    assert found() == (True, [])
    why = (
        "the calibration by the gallery's own photographs is not used: photographs were added or removed since;"
        f" 'geowarp gallery calibrate {gallery} --never-outside' makes it anew"
    )
    remove_from_gallery(gallery, ["gallery_00.png"])
    assert found() == (False, [why])
    asked(gallery, config, describer)
    assert found() == (True, [])
    add_to_gallery(read_source(street, split="later"), describer, gallery)
    assert found() == (False, [why])


def test_a_drive_goes_before_it_and_replaces_it(
    gallery: Path, street: Path, config: LocalizerConfig, describer: Describer
) -> None:
    asked(gallery, config, describer)
    calibrate_gallery(
        Localizer.open(gallery, config, describer, calibrated=False), read_source(street, split="query").images
    )
    drive = load_calibration(gallery / CALIBRATION)
    assert drive is not None and drive.own is None
    with pytest.raises(GalleryError, match="was measured on a drive, which says more"):
        asked(gallery, config, describer)
    assert load_calibration(gallery / CALIBRATION) == drive
    other = {**settings_of(config, describer.fingerprint, DEFAULT_KEYPOINTS), "rerank.mode": "exact"}
    save_calibration(gallery / CALIBRATION, drive.model_copy(update={"measured_with": other}))
    with pytest.raises(GalleryError, match="was measured on a drive"):
        asked(gallery, config, describer)
    assert asked(gallery, config, describer, store=False).calibration is not None, "counting harms nothing"


def test_without_a_calibration_to_begin_with_nothing_is_stored(
    gallery: Path, config: LocalizerConfig, describer: Describer
) -> None:
    exact = parse_config(LocalizerConfig, {**config.model_dump(), "rerank": {"mode": "exact"}})
    found = asked(gallery, exact, describer)
    assert found.calibration is None and "rerank.mode = 'gated' (now 'exact')" in found.obstacle
    remove_from_gallery(gallery, [f"gallery_{number:02}.png" for number in range(1, PLACES)])
    found = asked(gallery, config, describer)
    assert found.calibration is None and "far enough" in found.obstacle
    assert not (gallery / CALIBRATION).exists()
