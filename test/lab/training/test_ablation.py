from __future__ import annotations

import csv
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from geowarp_ros.cli import main
from geowarp_ros.errors import TrainingError
from geowarp_ros.lab.training.ablation import LOSS_TABLE, Measured, Terms, markdown_table
from geowarp_ros.lab.training.recall import recall_at, retrieve
from geowarp_ros.model.checkpoints import save_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.readers import read_source


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve places 20 m apart; each query is its place's image, a little brighter, 5 m on."""
    folder = tmp_path_factory.mktemp("places")
    rng = np.random.default_rng(0)
    lines = ["filename,latitude,longitude,split"]
    for index in range(12):
        coarse = rng.integers(0, 220, (6, 6, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (96, 96), interpolation=cv2.INTER_CUBIC)
        for split, brighter, east_m in (("gallery", 0, 0), ("query", 12, 5)):
            name = f"{split}_{index:03d}.png"
            cv2.imwrite(str(folder / name), cv2.add(image, np.full_like(image, brighter)))
            lines.append(f"{name},0,{(index * 20 + east_m) / 111_319.49:.8f},{split}")
    (folder / "positions.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(GeoWarp(ModelConfig()), path)
    return path


def test_recall_by_hand() -> None:
    error = np.array([[30.0, 5.0, 12.0], [8.0, 50.0, 60.0]])
    assert recall_at(error, (10, 25, 50)).tolist() == [50, 50, 100]
    assert recall_at(error, (10, 25, 50), first=2).tolist() == [100, 100, 100]
    score = np.array([[1.0, 1.0, 3.0], [0.0, 2.0, 1.0]])
    assert recall_at(error, (10, 25, 50), score).tolist() == [0, 50, 100]
    tied = np.zeros((2, 3))
    assert recall_at(error, (10, 25), tied).tolist() == recall_at(error, (10, 25)).tolist(), "ties as retrieved"


def test_retrieval_equals_brute_force(source: Path, model: Path) -> None:
    from geowarp_ros.model.checkpoints import load_model

    queries, places = read_source(source, split="query").images, read_source(source, split="gallery").images
    describer = Describer(load_model(model), "cpu")
    found = retrieve(describer, queries, places, 3)
    descriptors = np.stack([describer(image.read()).descriptor for image in places])
    for row, query in enumerate(found.queries):
        distance = ((descriptors - query.descriptor) ** 2).sum(axis=1)
        assert np.allclose(np.sort(distance)[:3], distance[found.indices[row]], atol=1e-6)
    same = found.indices == np.arange(12)[:, None]
    assert np.allclose(found.error_m[same], 5, atol=0.01)
    apart = retrieve(describer, queries, places, 3, apart=2)
    assert np.abs(apart.indices - np.arange(12)[:, None]).min() >= 3
    with pytest.raises(TrainingError, match="only 7"):
        retrieve(describer, queries, places, 12, apart=2)


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


def test_command_trains_measures_and_goes_on_where_it_stopped(source: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "ablation"
    arguments = ["train", "ablation", str(source), "--model", str(model), "--output", str(output)]
    arguments += ["--iterations", "1", "--batch-generated", "2", "--batch-pairs", "2", "--height", "96"]
    arguments += ["--width", "96", "--split", "gallery", "--sweep", "0.2", "0.6", "--candidates", "2"]
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
