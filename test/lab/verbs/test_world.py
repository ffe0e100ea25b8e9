from __future__ import annotations

import json
from pathlib import Path

import pytest

from geowarp_ros.cli import main

SIZE = ["--size", "64x48", "--supersampling", "1"]
FEW = [*SIZE, "--streets", "1", "--spacing-m", "40", "--query-passes", "0", "--no-drive"]


def test_the_verb_writes_a_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "town"
    assert main(["world", "--output", str(output), "--seed", "11", *FEW]) == 0
    assert str(output) in capsys.readouterr().out
    config = json.loads((output / "world.json").read_text())["config"]
    assert (config["seed"], config["width_px"], config["height_px"], config["drive"]) == (11, 64, 48, False)
    assert (output / "positions.csv").is_file()
    assert not (output / "drive").exists()
    assert main(["world", "--output", str(output), *FEW]) == 1
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seed", "-1"], "seed = '-1'"),
        (["--seed", "x"], "seed = 'x'"),
        (["--streets", "99999"], "streets = '99999'"),
        (["--fov-deg", "nan"], "fov_deg = 'nan'"),
        (["--streets", "0"], "expected at least one street"),
        (["--size", "320"], "--size '320': expected WIDTHxHEIGHT"),
        (["--size", "320xtall"], "height_px = 'tall'"),
        (["--size", "9x9"], "width_px = '9'"),
    ],
)
def test_a_wrong_option_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["world", "--output", str(tmp_path / "town"), *options]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
