"""Keypoints of either kind in a gallery: made, stored, asked for, and another kind or other weights refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from geowarp_ros.cameras import Camera
from geowarp_ros.cli import main
from geowarp_ros.config import LocalizerConfig
from geowarp_ros.errors import ModelError
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.keypoints.detector import KeypointConfig, KeypointDetector
from geowarp_ros.model.learned import load_keypoints
from geowarp_ros.readers import read_source
from geowarp_ros.readers.camera_files import write_camera
from geowarp_ros.rerank.verification import StoredKeypointMatcher, build_matcher
from test.gallery.conftest import ColourDescriber
from test.untrained import state_of, store
from test.rerank.conftest import textured

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files of weights."""
    folder = tmp_path_factory.mktemp("weights")
    for seed in range(2):
        torch.save(state_of("xfeat", seed), folder / f"{seed}.pt")
    return [folder / "0.pt", folder / "1.pt"]


def photographs(folder: Path, numbers: Sequence[int]) -> Path:
    folder.mkdir()
    write_camera(folder / "camera.yaml", Camera(128, 96, 100.0, 100.0, 63.5, 47.5))
    with (folder / "positions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "latitude", "longitude"])
        for number in numbers:
            cv2.imwrite(str(folder / f"{number}.png"), textured(number, 96, 128)[..., ::-1])
            rows.writerow([f"{number}.png", 45 + number * 1e-4, 9])
    return folder


def test_a_gallery_of_xfeat(model: str, files: list[Path], tmp_path: Path, capsys: Said) -> None:
    here, there = photographs(tmp_path / "here", range(3)), photographs(tmp_path / "there", range(5, 7))
    path, by = tmp_path / "g", ("--model", model, "--device", "cpu")
    words = ["gallery", "build", here, "--output", path, "--no-align", *by]

    def run(*words: object) -> tuple[int, str]:
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        return status, said.out + said.err

    status, said = run(*words, "--keypoints", "xfeat")
    assert status == 1 and "keypoints xfeat: give --keypoint-weights" in said and not path.exists()
    status, said = run(*words, "--keypoint-weights", files[0])
    assert status == 1 and f"keypoints sift: take no {files[0]}" in said and not path.exists()
    assert run(*words, "--keypoints", "xfeat", "--keypoint-weights", files[0])[0] == 0

    weights, other = load_keypoints("xfeat", files[0]), load_keypoints("xfeat", files[1])
    opened = Gallery.open(path)
    config = opened.keypoint_config
    assert config == KeypointConfig(kind="xfeat", weights=weights, scale=2.0)
    kept = opened.keypoints(1)
    expected = KeypointDetector(config)(textured(1, 96, 128), 128, 96)
    assert kept is not None and len(expected) > 5
    np.testing.assert_array_equal(kept.points, expected.points)
    np.testing.assert_array_equal(kept.descriptors, expected.descriptors)
    matcher = build_matcher(opened, "auto", LocalizerConfig())
    assert isinstance(matcher, StoredKeypointMatcher), "what the gallery stores is what verifies"
    said = json.loads(run("gallery", "info", path, "--json")[1])
    assert (said["keypoints"]["kind"], said["keypoints"]["weights"]) == ("xfeat", weights)
    assert run("gallery", "verify", path)[0] == 0

    add = ("gallery", "add", path, there, "--no-align", *by)
    status, said = run(*add)
    assert status == 1 and "keypoints xfeat: give --keypoint-weights" in said
    status, said = run(*add, "--keypoints", "sift")
    assert status == 1 and f"{path}: its keypoints are {config}, not sift; use their kind" in said
    status, said = run(*add, "--keypoint-weights", files[1])
    refused = f"its keypoints are xfeat with weights {weights}, and those given are {other}; give their file"
    assert status == 1 and refused in said and len(Gallery.open(path)) == 3
    assert run(*add, "--keypoint-weights", files[0])[0] == 0 and len(Gallery.open(path)) == 5

    ask = ("localize", here / "1.png", "--gallery", path, *by, "--rerank", "sift", "--json")
    status, said = run(*ask)
    assert status == 1 and f"xfeat with weights {weights}, and those given are none" in said
    status, said = run(*ask, "--keypoint-weights", files[1])
    assert status == 1 and refused in said
    status, said = run(*ask, "--keypoint-weights", files[0])
    answer = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    best = answer["candidates"][0]
    assert status == 0 and best["path"] == "1.png"
    assert 0.9 * 1000 < best["score"] <= 1000 < len(expected), "the strongest thousand verify"


def test_a_gallery_without_keypoints_gets_them(
    model: str, files: list[Path], tmp_path: Path, capsys: Said
) -> None:
    path, source = tmp_path / "g", photographs(tmp_path / "here", range(3))
    build_gallery(read_source(source), ColourDescriber(), path, keypoints=None)
    words = ["gallery", "upgrade", str(path), "--keypoints", "xfeat", "--keypoint-weights", str(files[0])]
    assert main(words) == 0 and "keypoints of 3" in capsys.readouterr().out
    config = Gallery.open(path).keypoint_config
    assert config is not None and (config.kind, config.weights) == ("xfeat", load_keypoints("xfeat", files[0]))
    assert main(["gallery", "upgrade", str(path), "--keypoints", "sift"]) == 1
    assert "not sift; use their kind" in capsys.readouterr().err


def test_weights_that_were_not_loaded_write_nothing(tmp_path: Path) -> None:
    source = read_source(photographs(tmp_path / "here", range(3)))
    with pytest.raises(ModelError, match="weights beef, which are not loaded"):
        build_gallery(
            source, ColourDescriber(), tmp_path / "g", keypoints=KeypointConfig(kind="xfeat", weights="beef")
        )
    assert not list((tmp_path / "g").glob("[!.]*"))
