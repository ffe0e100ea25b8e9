"""Keypoints of either kind in a gallery: made, stored, asked for, and another kind or other weights refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

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
from geowarp_ros.geodesy import distance_m
from geowarp_ros.keypoints.detector import KeypointConfig, KeypointDetector
from geowarp_ros.keypoints.learned import FORMS, LearnedKind
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.lab.world.dataset import write_world
from geowarp_ros.localizer import Localizer
from geowarp_ros.model.learned import load_keypoints
from geowarp_ros.readers import read_source
from geowarp_ros.readers.camera_files import write_camera
from geowarp_ros.rerank.verification import StoredKeypointMatcher, build_matcher
from geowarp_ros.types import Frame
from test.gallery.conftest import ColourDescriber
from test.rerank.conftest import textured
from test.untrained import published, store

Said = pytest.CaptureFixture[str]
SHARED = Path(__file__).parents[3] / "shared" / "weights" / "xfeat"


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


@pytest.mark.parametrize("kind", get_args(LearnedKind))
def test_a_gallery_of_a_networks_keypoints(
    kind: LearnedKind, model: str, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = photographs(tmp_path / "here", range(3)), photographs(tmp_path / "there", range(5, 7))
    path, by = tmp_path / "g", ("--model", model, "--device", "cpu")
    files = [tmp_path / "0.pt", tmp_path / "1.pt"]
    for seed, file in enumerate(files):
        torch.save(published(kind, seed), file)
    words = ["gallery", "build", here, "--output", path, "--no-align", *by]

    def run(*words: object) -> tuple[int, str]:
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        return status, said.out + said.err

    monkeypatch.setenv("GEOWARP_WEIGHTS", str(tmp_path / "stored"))
    status, said = run(*words, "--keypoints", kind)
    assert status == 1 and f"keypoint_weights = '': {kind} needs weights" in said and not path.exists()
    assert f"'geowarp models get {kind}' fetches it" in said
    status, said = run(*words, "--keypoint-weights", files[0])
    assert status == 1 and f"keypoints sift: take no {files[0]}" in said and not path.exists()
    assert run(*words, "--keypoints", kind, "--keypoint-weights", files[0])[0] == 0

    weights, other = load_keypoints(kind, files[0]), load_keypoints(kind, files[1])
    opened = Gallery.open(path)
    config = opened.keypoint_config
    assert config == KeypointConfig(kind=kind, weights=weights, scale=FORMS[kind].scale)
    kept = opened.keypoints(1)
    expected = KeypointDetector(config)(textured(1, 96, 128), 128, 96)
    assert kept is not None and len(expected) > 5
    np.testing.assert_array_equal(kept.points, expected.points)
    np.testing.assert_array_equal(kept.descriptors, expected.descriptors)
    matcher = build_matcher(opened, "auto", LocalizerConfig())
    assert isinstance(matcher, StoredKeypointMatcher), "what the gallery stores is what verifies"
    said = json.loads(run("gallery", "info", path, "--json")[1])
    assert (said["keypoints"]["kind"], said["keypoints"]["weights"]) == (kind, weights)
    assert run("gallery", "verify", path)[0] == 0

    add = ("gallery", "add", path, there, "--no-align", *by)
    status, said = run(*add)
    assert status == 1 and f"keypoint_weights = '': {kind} needs weights" in said
    status, said = run(*add, "--keypoints", "sift")
    assert status == 1 and f"{path}: its keypoints are {config}, not sift; use their kind" in said
    status, said = run(*add, "--keypoint-weights", files[1])
    refused = f"its keypoints are {kind} with weights {weights}, and those given are {other}; give their file"
    assert status == 1 and refused in said and len(Gallery.open(path)) == 3
    assert run(*add, "--keypoint-weights", files[0])[0] == 0 and len(Gallery.open(path)) == 5

    ask = ("localize", here / "1.png", "--gallery", path, *by, "--rerank", kind, "--json")
    status, said = run(*ask)
    assert status == 1 and f"keypoint_weights = '': {kind} needs weights" in said
    status, said = run(*ask, "--keypoint-weights", files[1])
    assert status == 1 and refused in said
    given = ("--keypoint-weights", files[0])
    status, said = run(*ask[:-2], "sift", *given)
    assert status == 1 and f"its keypoints are {config}, and sift matches sift; use {kind}, or build" in said
    status, said = run(*ask, *given)
    answer = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    best, most = answer["candidates"][0], min(1000, len(expected))
    assert status == 0 and best["path"] == "1.png"
    assert 0.9 * most < best["score"] <= most, "the strongest thousand verify"

    # with weights stored under their names nothing needs to be given, for the networks that match neither
    name = {"xfeat": "xfeat-lighterglue"}.get(kind, f"{kind}-lightglue")
    (tmp_path / "stored").mkdir()
    store(tmp_path / "stored", kind, name)
    status, said = run(*ask[:-2], name, "--json", "--set", f"position.verify={name}")
    assert status == 0 and json.loads(said.splitlines()[0])["candidates"][0]["score"] is not None


def test_a_gallery_without_keypoints_gets_them(model: str, tmp_path: Path, capsys: Said) -> None:
    torch.save(published("xfeat"), tmp_path / "xfeat.pt")
    path, source = tmp_path / "g", photographs(tmp_path / "here", range(3))
    build_gallery(read_source(source), ColourDescriber(), path, keypoints=None)
    words = [
        "gallery",
        "upgrade",
        str(path),
        "--keypoints",
        "xfeat",
        "--keypoint-weights",
        str(tmp_path / "xfeat.pt"),
    ]
    assert main(words) == 0 and "keypoints of 3" in capsys.readouterr().out
    config = Gallery.open(path).keypoint_config
    assert config is not None and (config.kind, config.weights) == (
        "xfeat",
        load_keypoints("xfeat", tmp_path / "xfeat.pt"),
    )
    assert main(["gallery", "upgrade", str(path), "--keypoints", "sift"]) == 1
    assert "not sift; use their kind" in capsys.readouterr().err


def test_weights_that_were_not_loaded_write_nothing(tmp_path: Path) -> None:
    source = read_source(photographs(tmp_path / "here", range(3)))
    with pytest.raises(ModelError, match="weights beef, which are not loaded"):
        build_gallery(
            source, ColourDescriber(), tmp_path / "g", keypoints=KeypointConfig(kind="xfeat", weights="beef")
        )
    assert not list((tmp_path / "g").glob("[!.]*"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the project's shared data: XFeat's published weights")
def test_poses_by_the_keypoints_that_the_alignment_was_made_of(tmp_path: Path, capsys: Said) -> None:
    """A rendered street whose photographs are tied by XFeat's keypoints, and queries between them."""
    pytest.importorskip("poselib")
    world = WorldConfig(seed=5, streets=1, street_length_m=50.0, width_px=320, height_px=240, drive=False)
    town = write_world(world, tmp_path / "town")
    path, weights = tmp_path / "g", str(SHARED / "xfeat.pt")
    words = ["gallery", "build", str(town), "--split", "gallery", "--output", str(path), "--device", "cpu"]
    words += ["--keypoints", "xfeat", "--keypoint-weights", weights, "--position-std", "0.1"]
    assert main(words) == 0 and "of 21 photographs tied" in capsys.readouterr().out
    queries = [image for image in read_source(town).images if image.split == "query"]
    loaded = {
        "keypoint_weights": weights,
        "matcher_weights": str(SHARED / "xfeat-lighterglue.pt"),
        "device": "cpu",
    }
    for verify in ("auto", "xfeat-lighterglue"):
        position = {"verify": verify, "min_confidence": 0.0, "verify_candidates": 3}
        config = LocalizerConfig.model_validate({**loaded, "rerank": {"method": "none"}, "position": position})
        localizer, off_m = Localizer.open(path, config, calibrated=False), list[float]()
        for query in queries[:4]:
            answer = localizer.localize(Frame(query.read(), camera=query.camera_at(320, 240)))
            if answer.pose is not None:
                fix, place = answer.fix, query.place
                assert fix is not None and fix.method in ("points", "anchors")
                here = (fix.latitude_deg, fix.longitude_deg)
                off_m.append(float(distance_m(*here, place.latitude_deg, place.longitude_deg)))
        assert len(off_m) >= 2 and np.median(off_m) < 0.5, (verify, off_m)
