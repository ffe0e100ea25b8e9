"""geowarp import-weights of published methods, and geowarp combine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from geowarp_ros.cli import main
from geowarp_ros.model.checkpoints import fingerprint, load_model, read_header, save_model
from geowarp_ros.model.methods import import_method
from test.model.published_layouts import Case, seeded_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cosplace") / "ResNet18_32_cosplace.pth"
    torch.save(seeded_checkpoint(Case("cosplace", "ResNet18", 32)), path)
    return path


def test_a_method_is_imported_and_what_it_left_to_chance_is_said(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["import-weights", "--method", "cosplace", "--checkpoint", str(checkpoint)]
    assert main([*words, "--output", str(tmp_path / "m.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "resnet18_layer4 + gem_linear, 32 values a descriptor, without warping regression" in said
    assert "256 of 512 channels, by a random projection" in said
    model, notes = load_model(tmp_path / "m.safetensors"), read_header(tmp_path / "m.safetensors")
    assert (model.channels, model.config.resolution) == (256, 512)
    assert (notes["method"], notes["imported_from"]) == ("cosplace", checkpoint.name)
    assert main([*words, "--output", str(tmp_path / "m"), "--projection", "0", "--resolution", "240"]) == 0
    assert "random" not in capsys.readouterr().out
    model = load_model(tmp_path / "m")
    assert (model.channels, model.config.resolution) == (512, 240)


def test_a_combined_model_keeps_whose_its_parts_are(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(tmp_path))
    model = import_method("cosplace", checkpoint)
    save_model(model, tmp_path / "theirs.safetensors", notes={"name": "theirs", "licence": "GPL-3.0"})
    assert main(["combine", "--retrieval", "theirs", "--output", str(tmp_path / "both.safetensors")]) == 0
    notes = read_header(tmp_path / "both.safetensors")
    assert notes["retrieval"] == fingerprint(model)
    assert (notes["retrieval_name"], notes["retrieval_licence"]) == ("theirs", "GPL-3.0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--method cosplace", "expected --method, --checkpoint, or .* found one without --checkpoint"),
        ("--checkpoint FILE", "found one without --method"),
        ("--method cosplace --checkpoint FILE --encoder vgg16", "found one with --encoder"),
        ("--encoder vgg16", "found one without --aggregation, --features-extractor"),
        ("", "found one without --encoder, --aggregation, --features-extractor"),
        ("--method cosplce --checkpoint FILE", "method 'cosplce': expected one of .*did you mean 'cosplace'"),
        ("--method mixvpr --checkpoint FILE", "holds no weights of mixvpr: 'aggregator.channel_proj.weight'"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    words: str, message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words.replace("FILE", str(checkpoint)).split()
    assert main(["import-weights", *given, "--output", str(tmp_path / "m")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
    assert not (tmp_path / "m").exists()
