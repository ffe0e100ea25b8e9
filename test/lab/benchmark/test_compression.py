"""The cost of compression in recall, on a gallery whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from geowarp_ros.cli import main
from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.lab.benchmark.compression import measure_local_features
from geowarp_ros.model.checkpoints import save_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.readers import read_source


@pytest.fixture(scope="module")
def model() -> GeoWarp:
    torch.manual_seed(0)
    model = GeoWarp(ModelConfig(encoder="resnet18")).eval()
    assert model.regression is not None
    with torch.no_grad():
        model.regression.linear.weight.normal_(std=0.05)
    return model


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, model: GeoWarp) -> Path:
    """Six places 100 m apart, each once in the gallery and four of them once as a query, a little noisier."""
    folder = tmp_path_factory.mktemp("compression")
    lines = ["filename,latitude,longitude,split"]
    for number in range(10):
        place, split = number % 6, "gallery" if number < 6 else "query"
        coarse = np.random.default_rng(place).integers(0, 256, (12, 16, 3), np.uint8)
        picture = cv2.resize(coarse, (128, 96), interpolation=cv2.INTER_CUBIC)
        noise = np.random.default_rng(100 + number).integers(0, 10, picture.shape)
        cv2.imwrite(str(folder / f"{number}.png"), np.clip(picture + noise, 0, 255))
        lines.append(f"{number}.png,{45 + place * 9e-4},9,{split}")
    (folder / "positions.csv").write_text("\n".join(lines))
    return build_gallery(read_source(folder), Describer(model, "cpu"), folder / "g").gallery


def test_local_features(gallery: Path, model: GeoWarp) -> None:
    half, int8, pq = measure_local_features(gallery, Describer(model, "cpu"), 10.0, queries=2)
    cells = 15 * 15
    assert [row["local_features"] for row in (half, int8, pq)] == ["half", "int8", "pq"]
    assert [row["bytes_per_image"] for row in (half, int8, pq)] == [cells * 512, cells * 258, cells * 32]
    assert [row["queries"] for row in (half, int8, pq)] == [2, 2, 2]
    assert half["quad_px"] == 0 < int8["quad_px"] < pq["quad_px"]
    assert half["recall_1"] == 100


def test_the_verb(gallery: Path, model: GeoWarp, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(model, tmp_path / "m.safetensors")
    words = [
        "benchmark",
        "--output",
        str(tmp_path),
        "--gallery",
        str(gallery),
        "--model",
        str(tmp_path / "m.safetensors"),
    ]
    assert main([*words, "--parts", "features", "--threshold", "10", "--queries", "1"]) == 0
    assert "| half | 115,200 | 1 |" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "benchmark.json").read_text())["parts"]) == {"features"}
    assert main(["benchmark", "--output", str(tmp_path), "--parts", "features"]) == 1
    assert "part features: needs --gallery" in capsys.readouterr().err


def test_a_gallery_without_splits_is_refused(model: GeoWarp, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8))
    (tmp_path / "positions.csv").write_text("filename,latitude,longitude\na.png,45,9\n")
    describer = Describer(model, "cpu")
    plain = build_gallery(read_source(tmp_path / "positions.csv"), describer, tmp_path / "g").gallery
    with pytest.raises(GalleryError, match="has no splits query and gallery"):
        measure_local_features(plain, describer, 10.0, 1)
