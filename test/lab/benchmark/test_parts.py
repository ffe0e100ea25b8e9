"""The contestants do what they are said to do; how long they take is no test's business."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from geowarp_ros.cli import main
from geowarp_ros.errors import ConfigError
from geowarp_ros.geometry import full_frame, quad_from_frame
from geowarp_ros.lab.benchmark.machine import describe_machine
from geowarp_ros.lab.benchmark.reference import ReferenceWay, homography_by_svd
from geowarp_ros.lab.benchmark.scene import make_model, make_scene, picture
from geowarp_ros.lab.benchmark.timing import Bench
from geowarp_ros.lab.benchmark.training import (
    AUGMENT,
    ENCODER,
    GENERATED,
    PAIRS,
    READ,
    RETRIEVAL,
    measure_training,
)
from geowarp_ros.lab.verbs.options import parse_size
from geowarp_ros.model.describer import Describer, Warper
from test.model.weights import make_model as telling_model

SIZE = parse_size("96x64")


def test_the_references_way_gives_the_exact_modes_scores(tmp_path: Path) -> None:
    scene = make_scene(telling_model("resnet18"), SIZE, 3, tmp_path)
    images = [scene.gallery.image(row) for row in range(3)]
    paths = [scene.gallery.path / "segments" / "0001" / "images" / f"{row:06d}.jpg" for row in range(3)]
    query = scene.describer(scene.pixels)
    exact = Warper(scene.describer)(query, images, scene.gallery.local_features(range(3)))
    assert np.ptp(exact.score) > 1
    np.testing.assert_allclose(ReferenceWay(scene.describer.model)(scene.pixels, paths), exact.score, rtol=1e-3)


def test_the_svd_finds_the_homography_that_eight_equations_have() -> None:
    quad = full_frame(4, torch.zeros(1, dtype=torch.float64)) + 0.3 * torch.rand(
        4, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    by_svd = homography_by_svd(quad)
    torch.testing.assert_close(by_svd / by_svd[:, 2:, 2:], quad_from_frame(quad), atol=1e-9, rtol=0)


def test_pictures_differ_and_have_their_size() -> None:
    assert picture(SIZE, 1).shape == (64, 96, 3)
    assert np.abs(picture(SIZE, 1).astype(int) - picture(SIZE, 2)).mean() > 10
    np.testing.assert_array_equal(picture(SIZE, 1), picture(SIZE, 1))


def test_weights_are_used_for_their_encoder_alone() -> None:
    shipped, about = make_model("mobilenet_v2", "default")
    assert shipped.config.resolution == 0 and "fingerprint" in about
    assert make_model("resnet50", "default")[1] == "random weights"
    query = Describer(shipped, "cpu")(picture(parse_size("320x256"), 0))
    assert query.image.shape[-2:] == (256, 320)


@pytest.mark.parametrize("text", ["640", "640x", "16x16", "-640x480", "a×b"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected WIDTHxHEIGHT"):
        parse_size(text)


def test_the_machine_is_named() -> None:
    assert {"processor", "cores", "threads", "torch", "geowarp_ros"} <= describe_machine().keys()


def test_the_command_measures_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["benchmark", "--output", str(tmp_path), "--parts", "encoders", "rerank", "rerankers", "building"]
    command += [
        "--encoders",
        "resnet18",
        "--sizes",
        "96x64",
        "--rounds",
        "1",
        "--images",
        "3",
        "--candidates",
        "2",
    ]
    assert main(command) == 0
    said = capsys.readouterr().out
    for name in ("fused, float32", "2·P + 1 encoder passes alone", "geowarp, fast", "the reference's way"):
        assert f"| {name} |" in said
    for name in ("sift", "dense-ransac", "gallery build"):
        assert f"| {name} |" in said
    assert {path.name for path in Path(tmp_path).iterdir()} >= {"benchmark.json", "benchmark.md", "benchmark.png"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--encoders", "resnet51"], "encoder 'resnet51'"),
        (["--rounds", "0"], "rounds = 0"),
        (["--sizes", "9"], "'9'"),
        (["--precision", "float16", "--device", "cpu"], "precision = 'float16': needs CUDA"),
    ],
)
def test_mistakes_are_said_in_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "--output", str(tmp_path), *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_processors_time_is_none_of_cuda(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    words = ["--parts", "rerank", "--clock", "processor", "--device", device]
    assert main(["benchmark", "--output", str(tmp_path), *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"clock = 'processor' with device = '{device}'" in line and "expected clock = 'wall'" in line


def test_the_device_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--parts", "encoders", "--encoders", "resnet18", "--sizes", "96x64", "--rounds", "1"]
    assert main(["benchmark", "--output", str(tmp_path), *words, "--device", "cpu"]) == 0
    assert "96×64, 1 an encoder pass, cpu (" in capsys.readouterr().out
    assert json.loads((tmp_path / "benchmark.json").read_text())["settings"]["device"] == "cpu"


def test_a_training_step_is_timed_beside_its_parts() -> None:
    times = measure_training("resnet18", SIZE, Bench(1), batch=8)
    assert times.baseline == ENCODER
    assert set(times.ms) == {ENCODER, READ, AUGMENT, RETRIEVAL, GENERATED, PAIRS}
    assert all(len(ms) == 1 and ms[0] > 0 for ms in times.ms.values())
