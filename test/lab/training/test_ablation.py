from __future__ import annotations

import csv
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from geowarp_ros.cli import main
from geowarp_ros.lab.training.ablation import LOSS_TABLE, Measured, Terms, markdown_table
from test.lab.studies.street import write_model


def write_places(folder: Path, count: int) -> Path:
    """Places 20 m apart; each query is its place's image, a little brighter, 5 m on."""
    rng = np.random.default_rng(0)
    lines = ["filename,latitude,longitude,split"]
    for index in range(count):
        coarse = rng.integers(0, 220, (6, 6, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC)
        for split, brighter, east_m in (("gallery", 0, 0), ("query", 12, 5)):
            name = f"{split}_{index:03d}.png"
            cv2.imwrite(str(folder / name), cv2.add(image, np.full_like(image, brighter)))
            lines.append(f"{name},0,{((index + 1) * 20 + east_m) / 111_319.49:.8f},{split}")
    (folder / "positions.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors")


def test_loss_table_is_table_3() -> None:
    assert len(LOSS_TABLE) == 8
    assert LOSS_TABLE[0] == (0, 0, 0)
    assert LOSS_TABLE[1] == (0, 0, 0.1)
    assert LOSS_TABLE[-1] == (1, 10, 0.1)


def test_markdown_by_hand() -> None:
    row = Measured("x", "local", Terms(1, 10, 0.1), 0.6, 0.12345, np.array([50.0, 75.25]))
    first = Measured("global", "global", Terms(0, 0, 0), 0.6, math.nan, np.array([40.0, 60.0]))
    assert markdown_table([first, row], (10, 25)).splitlines()[2:] == [
        "| global | 0 | 0 | 0 | 0.6 | – | 40.0 | 60.0 |",
        "| local | 1 | 10 | 0.1 | 0.6 | 0.123 | 50.0 | 75.2 |",
    ]


def test_command_trains_measures_and_goes_on_where_it_stopped(model: Path, tmp_path: Path) -> None:
    source, output = write_places(tmp_path, 3), tmp_path / "ablation"
    arguments = ["train", "ablation", str(source), "--model", str(model), "--output", str(output)]
    arguments += ["--iterations", "1", "--batch-generated", "2", "--batch-pairs", "1", "--height", "64"]
    arguments += ["--width", "64", "--split", "gallery", "--sweep", "0.2", "0.6", "--candidates", "2"]
    arguments += ["--hold-out", "*_002.png"]
    arguments += ["--device", "cpu", "--no-tensorboard", "--thresholds", "10", "25", "--t-feat", "100"]
    assert main(arguments) == 0
    rows = list(csv.DictReader((output / "losses.csv").open()))
    assert [row["features"] for row in rows] == ["global"] + ["local"] * 8
    assert all(0 <= float(row["recall_at_1_10m"]) <= float(row["recall_at_1_25m"]) <= 100 for row in rows)
    assert [float(row["k"]) for row in csv.DictReader((output / "coefficients.csv").open())] == [0.2, 0.6]
    assert (output / "coefficients.png").stat().st_size > 5000
    times = {path: path.stat().st_mtime_ns for path in output.glob("*/best.safetensors")}
    assert len(times) == 9, "eight rows less the untrained one, and two coefficients"
    assert main(arguments) == 0
    assert times == {path: path.stat().st_mtime_ns for path in output.glob("*/best.safetensors")}
