"""The page of the doctor: what is here, what is not, and what one does about it."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest

from geowarp_ros.cli import main
from geowarp_ros.config import LocalizerConfig
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.manifest import CALIBRATION
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.integrity.calibration import Calibration, save_calibration, settings_of
from geowarp_ros.lab.benchmark.scene import write_pictures
from geowarp_ros.lab.verbs import doctor
from geowarp_ros.lab.verbs.options import Size
from geowarp_ros.localizer import Localizer
from geowarp_ros.model.checkpoints import load_model, save_model
from geowarp_ros.model.describer import Describer
from test.model.weights import make_model
from test.test_package import DISTRIBUTIONS, bare

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]

Page = Callable[..., tuple[int, dict[str, dict[str, Any]]]]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Gallery]:
    """A model's file and its gallery of four places, not aligned."""
    folder = tmp_path_factory.mktemp("doctor")
    save_model(make_model("resnet18"), folder / "model.safetensors")
    describer = Describer(load_model(folder / "model.safetensors"), "cpu")
    build_gallery(write_pictures(folder / "pictures", Size(96, 128), 4), describer, folder / "gallery")
    return str(folder / "model.safetensors"), Gallery.open(folder / "gallery")


@pytest.fixture
def page(capsys: pytest.CaptureFixture[str]) -> Page:
    """Run the verb; returns its status and its findings by name."""

    def page(*words: str) -> tuple[int, dict[str, dict[str, Any]]]:
        status = main(["doctor", "--json", *words])
        told = json.loads(capsys.readouterr().out)
        assert told["healthy"] == (status == 0)
        return status, {finding["name"]: finding for finding in told["findings"]}

    return page


def test_what_is_looked_for_is_what_setup_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("setuptools.setup", given.update)
    extras = runpy.run_path("setup.py")["EXTRAS"]
    assert {DISTRIBUTIONS.get(name, name) for name in doctor.NEEDED} == set(map(bare, given["install_requires"]))
    assert {name: set(what) for name, (_, what) in doctor.EXTRAS.items()} == {
        name: set(map(bare, requirements)) for name, requirements in extras.items()
    }


def test_a_healthy_machine_and_its_gallery(made: tuple[str, Gallery], page: Page) -> None:
    gallery = made[1]
    status, found = page("--gallery", str(gallery.path))  # by the model that made it, which it finds
    assert status == 0
    names = {"Python", "libraries", "/dev/shm", "ROS 2", "processor", "cores", "memory", "torch", "CUDA", "OpenCV"}
    assert names | {f"extra {name}" for name in doctor.EXTRAS} < found.keys()
    assert found["libraries"]["state"] == "ok" and cv2.__version__ in found["OpenCV"]["found"]
    assert "rmw_fastrtps_cpp" in found["ROS 2"]["found"]
    fingerprint = gallery.model_fingerprint
    assert found["model"]["found"].startswith(f"resnet18, {fingerprint}, by ")
    assert found["gallery"]["numbers"] == {"places": 4, "format": 3, "fingerprint": fingerprint}
    assert (found["gallery"]["state"], found["gallery"]["advice"]) == (
        "warn", f"geowarp gallery align {gallery.path} gives poses"
    )  # fmt: skip
    assert found["calibration"]["advice"].startswith(f"geowarp calibrate DRIVE --gallery {gallery.path}")
    exact, gated = (found["speed"]["numbers"][name] for name in ("exact_ms", "gated_ms"))
    assert exact > 0 and gated > 0
    assert found["speed"]["found"] == f"exact ≈ {exact:.0f} ms, gated ≈ {gated:.0f} ms an image here"


def test_a_calibration_applies_or_it_is_said_why_not(made: tuple[str, Gallery], page: Page) -> None:
    model, gallery = made
    here = settings_of(LocalizerConfig(model=model), gallery.model_fingerprint, gallery.keypoint_config)
    values: dict[str, Any] = {name: () for name in ("features", "mean", "scale", "weights")}
    values |= {"intercept": 0.0, "min_confidence": 0.875, "position_std_m": 2.0, "scatter_gain": 1.0}
    values |= {"correct_within_m": 25.0, "samples": 84}
    for measured, state, said in (
        (here, "ok", "the gallery's calibration, of 84 answers: a fix from confidence 0.875"),
        (here | {"rerank.mode": "fast"}, "warn", "is not used: it was measured with rerank.mode = 'fast'"),
    ):
        save_calibration(gallery.path / CALIBRATION, Calibration(**values, measured_with=measured))
        _, found = page("--gallery", str(gallery.path), "--model", model)
        assert found["calibration"]["state"] == state and said in found["calibration"]["found"]
        assert (found["calibration"]["advice"] == "") == (state == "ok")
    (gallery.path / CALIBRATION).unlink()


def test_another_models_gallery_and_a_truncated_one_are_missing(
    made: tuple[str, Gallery], page: Page, tmp_path: Path
) -> None:
    status, found = page("--gallery", str(made[1].path), "--model", "default")
    assert status == 1 and "speed" not in found
    assert f"was made by model {made[1].model_fingerprint}" in found["gallery's model"]["found"]
    (tmp_path / "gallery.json").write_text("{")
    status, found = page("--gallery", str(tmp_path), "--model", made[0])
    assert status == 1 and "is truncated or no JSON" in found["gallery"]["found"]
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    status, found = page("--gallery", str(made[1].path), "--model", str(tmp_path / "bad.safetensors"))
    assert status == 1 and found["model"]["state"] == "missing" and found["gallery"]["numbers"]["places"] == 4


def test_without_ros_it_works_and_without_a_library_it_does_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "geowarp_ros.ros.discovery", raising=False)
    monkeypatch.setitem(sys.modules, "rclpy", None)
    assert [(each.state, each.found) for each in doctor._ros()] == [("warn", "no rclpy")]
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(doctor, "EXTRAS", {"pose": ("poses", ("no-such-thing", "numpy"))})
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines].count("missing") == 1
    assert any(re.match(r"missing  libraries +faiss: .*pip install", line) for line in lines)
    assert "warn     extra pose      no no-such-thing - for poses: pip install 'geowarp_ros[pose]'" in lines


def test_times_are_medians_and_without_a_gallery_one_is_made(
    made: tuple[str, Gallery], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([second for step in (0.1, 0.3, 0.9, 0.2) * 2 for second in (0.0, step)])
    monkeypatch.setattr(doctor, "time", SimpleNamespace(perf_counter=clock.__next__))
    rank, without = Localizer.rank, list[Any]()

    def spy(self: Localizer, *words: Any, **options: Any) -> Any:
        without.append(options.get("without"))
        return rank(self, *words, **options)

    monkeypatch.setattr(Localizer, "rank", spy)
    describer, config = Describer(make_model("resnet18"), "cpu"), LocalizerConfig()
    assert doctor._time(config, describer, made[1], left_out=True) == pytest.approx({"exact": 250, "gated": 250})
    assert [rows for rows in without if rows is not None] == [{0}, {1}, {2}, {3}] * 2
    made_up = doctor._synthetic(made[1].path.parent / "synthetic", describer)
    assert len(made_up) == doctor.PLACES and made_up.keypoint_config is not None
