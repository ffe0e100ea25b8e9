"""``geowarp evaluate dataset`` as it is typed, on eight small pictures."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geowarp_ros.cli import main
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.model.checkpoints import save_model
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from test.untrained import store

STEP_DEG = 20 / 111_132


def _textured(seed: int) -> NDArray[Any]:
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    return cv2.resize(coarse, (96, 80), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    rows = [["filename", "latitude", "longitude", "split"]]
    for i in range(10):
        for kind, shift, north_m in (("gallery", 0, 0.0), ("query", 4, 2.0)):
            name = f"{kind}_{i:02d}.png"
            cv2.imwrite(str(folder / name), np.roll(_textured(i), shift, axis=1))
            if kind == "gallery" or i < 3:
                rows.append([name, f"{45 + i * STEP_DEG + north_m / 111_132:.8f}", "9.0", kind])
    with (folder / "positions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """One with a regression, one without."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    paths = (folder / "warping.safetensors", folder / "plain.safetensors")
    for path, regression in zip(paths, (True, False), strict=True):
        save_model(GeoWarp(ModelConfig(regression=regression)), path)
    return str(paths[0]), str(paths[1])


def test_the_fast_mode_needs_no_regression_and_any_encoder_has_a_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ModelConfig(encoder="resnet18_layer4", aggregation="gem_linear", dimension=16, regression=False)
    torch.manual_seed(0)
    save_model(GeoWarp(whole), tmp_path / "whole.safetensors")
    command = ["evaluate", "dataset", str(folder), "--model", str(tmp_path / "whole.safetensors")]
    command += ["--output", str(tmp_path / "out"), "--rerank", "geowarp", "--recalls", "1", "--thresholds", "25"]
    assert main([*command, "--set", "rerank.mode=fast"]) == 0
    assert "| resnet18_layer4 | gem_linear + GeoWarp |" in capsys.readouterr().out


def test_without_a_model_it_is_the_one_that_ships(folder: Path, tmp_path: Path) -> None:
    command = ["evaluate", "dataset", str(folder), "--output", str(tmp_path), "--rerank", "none"]
    assert main([*command, "--recalls", "1", "--thresholds", "25", "--device", "cpu"]) == 0
    assert list(json.loads((tmp_path / "config.json").read_text())["models"]) == ["default"]


def test_tables_plot_and_configuration_are_written_and_galleries_are_used_again(
    folder: Path, models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "dataset", str(folder), "--model", *models, "--output", str(tmp_path / "out")]
    command += ["--rerank", "none", "geowarp", "sift", "--recalls", "1", "5", "--thresholds", "5", "25"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "3 of 3 queries, 10 places" in said
    assert "plain: has no warping regression: without geowarp." in said
    assert "| ResNet-18 | GeM + GeoWarp |" in said
    out = tmp_path / "out"
    results = json.loads((out / "results.json").read_text())
    assert [row["Method"] for row in results["table2"]] == [
        "GeM", "GeM + GeoWarp", "GeM + SIFT + RANSAC", "GeM", "GeM + SIFT + RANSAC",
    ]  # fmt: skip
    resolved = json.loads((out / "config.json").read_text())
    assert resolved["config"]["thresholds_m"] == [5.0, 25.0]
    assert resolved["config"]["localizer"]["rerank"]["candidates"] == 5
    assert {"commit", "seed", "version"} <= resolved.keys()
    assert len(resolved["models"]) == 2
    with (out / "queries.csv").open() as file:
        queries = list(csv.DictReader(file))
    assert len(queries) == 5 * 3
    hits = [
        float(row["first_error_m"]) <= 5 for row in queries if (row["model"], row["method"]) == ("plain", "sift")
    ]
    assert results["table2"][4]["5 m"] == pytest.approx(100 * np.mean(hits)), "the table is the queries' mean"
    assert (out / "recall.png").stat().st_size > 10_000
    made = {path: path.stat().st_mtime_ns for path in (out / "galleries").rglob("descriptors.npy")}
    assert len(made) == 2
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "galleries").rglob("descriptors.npy")} == made


def test_a_local_frame_stays_in_metres(
    models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As VPR-datasets-downloader lays out Nordland: east 0, a frame every 2.4 m, no zone; no option is needed."""
    for part, shift in (("database", 0), ("queries", 2)):
        images = tmp_path / "nordland" / "images" / "test" / part
        images.mkdir(parents=True)
        for i in range(5):
            cv2.imwrite(
                str(images / f"@0@{24 * i:07.1f}@@@@@{i}@@@@@@@@.png"), np.roll(_textured(i), shift, axis=1)
            )
    command = ["evaluate", "dataset", str(tmp_path / "nordland"), "--model", models[1], "--rerank", "none"]
    assert main([*command, "--thresholds", "25", "--output", str(tmp_path / "out")]) == 0
    assert "metres of the data set's own frame, nowhere on the earth" in capsys.readouterr().out
    with (tmp_path / "out" / "queries.csv").open() as file:
        queries = list(csv.DictReader(file))
    assert [(float(row["east_m"]), float(row["north_m"])) for row in queries] == [(0, 24 * i) for i in range(5)]


def test_densevlad_is_trained_on_the_gallery_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "dataset", str(folder), "--model", "densevlad", "--rerank", "none", "dense-ransac"]
    command += ["--thresholds", "25", "--output", str(tmp_path), "--limit-queries", "2"]
    assert main(command) == 0
    assert "| – | DenseVLAD + dense features + RANSAC |" in capsys.readouterr().out
    (trained,) = (tmp_path / "models").iterdir()
    before = trained.stat().st_mtime_ns
    assert main(command) == 0
    assert trained.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rerank", "sfit"], "rerank.0 = 'sfit'"),
        (["--thresholds", "-1"], "thresholds_m.0 = -1.0"),
        (["--set", "baselines.expansion.alfa=1"], "did you mean 'baselines.expansion.alpha'"),
        (["--set", "rerank"], "expected NAME=VALUE"),
        (["--gallery-split", "train"], "no image of split 'train'"),
        (["--every", "99"], "expected 1 to 13"),
        (["--every", "1"], "leave it out with --exclude-neighbours"),
        (["--thresholds", "0.5"], "none of 3 queries has a gallery image within 0.5 m"),
        (["--model", "absent.safetensors"], "does not exist"),
        (["--rerank", "loftr"], "matcher_weights = '': loftr needs weights"),
        (["--rerank", "xfeat"], "keypoint_weights = '': xfeat needs weights"),
        (
            ["--set", "tracking.method=hmm"],
            "tracking.method = 'hmm': evaluate dataset answers each image on its own",
        ),
        (["--set", "rerank.method=sift"], "rerank.method = 'sift': say by --rerank which methods to compare"),
        (["--set", "model=default"], "--set model: --model names the models to compare"),
        (["--set", "position.min_confidence=0.9"], "evaluate dataset ranks places; it estimates no position"),
        (["--output", "/dev/null/x"], "/dev/null"),
        (["--model", "PLAIN", "--rerank", "geowarp"], "has no warping regression, which geowarp needs"),
    ],
)
def test_mistakes_are_said_in_one_line(
    options: list[str],
    said: str,
    folder: Path,
    models: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [models[1] if option == "PLAIN" else option for option in options]
    if "--model" not in options:
        options += ["--model", models[0]]
    assert main(["evaluate", "dataset", str(folder), "--output", str(tmp_path), *options]) == 1
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("geowarp evaluate:")]
    assert said in line


def test_a_nodes_parameters_reach_model_and_re_rankers(
    folder: Path, models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = tmp_path / "node.yaml"
    node.write_text(f"node: {{ros__parameters: {{model: {models[1]}, rerank: {{candidates: 3}}}}}}\n")
    command = ["evaluate", "dataset", str(folder), "--rerank", "sift", "qe-dba", "--thresholds", "25"]
    command += ["--params-file", str(node), "--output", str(tmp_path / "out")]
    command += ["--set", "position.verification.ratio=0.6", "baselines.expansion.alpha=0"]
    assert main(command) == 0
    assert "| plain | GeM + SIFT + RANSAC |" in capsys.readouterr().out
    config = json.loads((tmp_path / "out" / "config.json").read_text())["config"]
    assert config["localizer"]["position"]["verification"]["ratio"] == 0.6
    assert config["localizer"]["rerank"]["candidates"] == 3
    assert config["baselines"]["expansion"]["alpha"] == 0.0


def test_the_keypoints_of_a_network_are_matched_in_a_gallery_of_their_own(
    folder: Path, models: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(store(tmp_path, "xfeat", "xfeat-lighterglue")))
    command = ["evaluate", "dataset", str(folder), "--model", models[0], "--limit-queries", "1"]
    command += ["--rerank", "none", "xfeat", "sift", "xfeat-lighterglue", "--thresholds", "25"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    found = [row["Method"].removeprefix("GeM").removeprefix(" + ") for row in results["table2"]]
    assert found == ["", "SIFT + RANSAC", "XFeat + RANSAC", "XFeat + LighterGlue + RANSAC"]
    galleries = [Gallery.open(path).keypoint_config for path in sorted((tmp_path / "out" / "galleries").iterdir())]
    assert [config and config.kind for config in galleries] == ["sift", "xfeat"]


def test_all_are_the_methods_that_need_no_weights_in_the_order_of_the_papers_table(
    folder: Path, models: tuple[str, str], tmp_path: Path
) -> None:
    command = ["evaluate", "dataset", str(folder), "--model", models[0], "--rerank", "all", "--limit-queries", "1"]
    assert main([*command, "--thresholds", "25", "--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["Method"].removeprefix("GeM").removeprefix(" + ") for row in results["table2"]] == [
        "", "GeoWarp", "GeoWarp without warp", "one-way homography", "QE + DBA", "diffusion",
        "dense features + RANSAC", "SIFT + RANSAC", "ORB + RANSAC",
    ]  # fmt: skip
