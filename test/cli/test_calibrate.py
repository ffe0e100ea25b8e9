"""``geowarp calibrate`` as it is typed, and what ``geowarp localize`` makes of what it stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from geowarp_ros.cli import main
from geowarp_ros.config import LocalizerConfig, parse_config
from geowarp_ros.gallery.manifest import CALIBRATION
from geowarp_ros.integrity.calibration import load_calibration
from geowarp_ros.localizer import Localizer
from test.lab.studies.street import write_model, write_source


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("street") / "source"
    write_source(folder, 0, 45.0)
    return folder


@pytest.fixture
def gallery(street: Path, model: Path, tmp_path: Path) -> Path:
    words = ["gallery", "build", street, "--split", "gallery", "--model", model, "--output", tmp_path / "gallery"]
    assert main([str(word) for word in words]) == 0
    return tmp_path / "gallery"


def settings_file(folder: Path, mode: str) -> Path:
    path = folder / "node.yaml"
    path.write_text(f"geowarp_localizer: {{ros__parameters: {{rerank: {{mode: {mode}}}}}}}\n")
    return path


@pytest.mark.parametrize(("mode", "how"), [("exact", "--set"), ("fast", "--params-file")])
def test_a_mode_is_calibrated_and_its_calibration_is_used_for_that_mode_alone(
    mode: str,
    how: str,
    street: Path,
    gallery: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen = [how, f"rerank.mode={mode}" if how == "--set" else str(settings_file(tmp_path, mode))]
    where = ["--gallery", str(gallery), "--model", str(model), "--device", "cpu"]
    assert main(["calibrate", str(street), "--split", "query", *where, *chosen]) == 0
    assert "answers, 5-fold cross-validated" in capsys.readouterr().out
    stored = load_calibration(gallery / CALIBRATION)
    assert stored is not None and stored.measured_with["rerank.mode"] == mode
    assert "score" in stored.features, "of the re-ranking"

    image = str(street / "query_03.png")
    refused = f"the gallery's calibration is not used: it was measured with rerank.mode = '{mode}' (now 'gated')"
    caplog.clear()
    assert main(["localize", image, "--json", *where, *chosen]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert not caplog.records
    config = parse_config(LocalizerConfig, {"model": str(model), "device": "cpu", "rerank": {"mode": mode}})
    localizer = Localizer.open(gallery, config)
    assert localizer.calibration == stored.at_spacing(localizer.gallery.spacing_m)
    evidence = localizer.localize(image).evidence
    assert evidence is not None
    assert answer["confidence"] == pytest.approx(stored.confidence(evidence))

    assert main(["localize", image, "--json", *where]) == 0
    assert [record.message for record in caplog.records] == [refused]
    assert json.loads(capsys.readouterr().out)["confidence"] != pytest.approx(answer["confidence"])


def test_a_broken_calibration_is_replaced(street: Path, gallery: Path, model: Path) -> None:
    (gallery / CALIBRATION).write_text("{")
    words = ["calibrate", str(street), "--split", "query", "--gallery", str(gallery), "--model", str(model)]
    assert main([*words, "--correct-within", "5"]) == 0
    assert load_calibration(gallery / CALIBRATION) is not None
