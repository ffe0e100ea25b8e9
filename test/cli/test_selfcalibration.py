"""The last step of ``geowarp gallery build``, what keeps it up to date, and what ``info`` says of it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from geowarp_ros.cli import main
from geowarp_ros.gallery.manifest import CALIBRATION
from geowarp_ros.integrity.calibration import beside_model, load_calibration, save_calibration
from test.lab.studies.street import PLACES, write_model, write_source


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve places, and the third once more, 1.1 km away."""
    folder = tmp_path_factory.mktemp("street") / "source"
    write_source(folder, 0, 45.0)
    shutil.copy(folder / "gallery_02.png", folder / "twin.png")
    with (folder / "positions.csv").open("a", newline="") as file:
        csv.writer(file).writerow(("twin.png", 45.01, 7.0, "twin"))
    return folder


def geowarp(*words: object) -> int:
    return main([str(word) for word in words])


def test_the_life_of_a_calibration_by_the_gallerys_own_photographs(
    street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, g = write_model(tmp_path / "small.safetensors"), tmp_path / "g"
    by = ("--model", model, "--device", "cpu")
    build = ("gallery", "build", street, "--split", "gallery", "--output", g, "--no-align", *by)

    def said() -> str:
        return capsys.readouterr().out

    def info() -> tuple[dict[str, object] | None, str]:
        said()
        assert geowarp("gallery", "info", g, "--json") == 0
        found = json.loads(said())["calibration"]
        assert geowarp("gallery", "info", g) == 0
        return found, next(line for line in said().splitlines() if line.startswith("calibration"))

    calibrate = ("gallery", "calibrate", g, *by)
    assert geowarp(*build) == 0  # nothing lies beside this model yet
    assert f"  look-alikes not counted: none lies beside {model}\n" in said()
    assert info() == (None, f"calibration none of its own; 'geowarp calibrate DRIVE --gallery {g}' measures one")
    assert geowarp(*calibrate) == 1

    drive = ("calibrate", street, "--split", "query", "--gallery", g, *by)
    said()
    assert geowarp(*drive) == 0
    shown = said()
    assert f"wrong among published               0.0% [0.0%, 24.2%], 0 of {PLACES}\n" in shown, "Wilson's interval"
    found, line = info()
    assert found is not None and found["by"] == "drive"
    assert line.startswith("calibration by a drive, ") and "with rerank.mode gated" in line
    assert geowarp(*calibrate, "--never-outside") == 1
    assert "was measured on a drive, which says more" in capsys.readouterr().err
    measured = load_calibration(g / CALIBRATION)
    assert measured is not None
    shipped = measured.model_copy(update={"look_alikes": 0.4, "min_confidence": 0.99})
    save_calibration(beside_model(model, "gated"), shipped)

    said()
    assert geowarp(*build, "--replace", "--no-calibrate") == 0
    assert "look like" not in said() and not (g / CALIBRATION).exists()
    assert geowarp(*build, "--replace") == 0
    shown = said()
    assert (
        f"{g}: 0 of {PLACES} photographs look like another place of this gallery (95 %: 0.0 to 24.2 %)\n" in shown
    )
    # odds of 99, by the upper end over the share on the drive that calibrated the model
    odds = 99 * 3.8415 / (PLACES + 3.8415) / 0.4
    wanted = odds / (1 + odds)
    assert f"from confidence 0.990; {wanted:.3f} is enough if the robot never leaves" in shown
    assert f": geowarp gallery calibrate {g} --never-outside\n" in shown
    assert info()[0] is None
    assert geowarp(*calibrate, "--never-outside") == 0
    assert f"a fix from confidence {wanted:.3f} instead of 0.990, for a robot that stays inside\n" in said()
    found, line = info()
    assert found is not None and (found["by"], found["alike"], found["problem"]) == ("own photographs", 0, "")
    assert line.startswith("calibration by its own photographs, for a robot that stays inside: 0 of 12 look like")

    stale = "photographs were added or removed since; 'geowarp gallery calibrate "
    add = ("gallery", "add", g, street, "--split", "twin", *by)
    assert geowarp(*add, "--no-calibrate") == 0
    assert f"  its calibration is not used: {stale}{g} --never-outside' makes it anew\n" in said()
    assert f"calibration by its own photographs, not used: {stale}" in info()[1]
    assert geowarp("gallery", "remove", g, "twin.png") == 0
    assert stale not in said(), "it holds again"
    assert geowarp(*add) == 0
    shown = said()
    assert f"2 of {PLACES + 1} photographs look like another place" in shown, "it was made anew"
    assert "  twin.png like gallery_02.png, 1,118 m apart, confidence " in shown
    assert geowarp("gallery", "remove", g, "twin.png") == 0
    assert stale in said()

    assert geowarp(*drive) == 0
    assert info()[0]["by"] == "drive"  # type: ignore[index]
    assert geowarp("gallery", "remove", g, "gallery_00.png") == 0
    assert stale not in said(), "a drive's stays"
