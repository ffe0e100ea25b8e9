"""The whole line with a network as its authors publish it: file, model, gallery, localizer, node; by default."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image as Pillow

from geowarp_ros.cli import main
from geowarp_ros.types import Image as Pixels
from test.model.published_layouts import Case, seeded_checkpoint
from test.model.transformer_layout import dinov2, salad, seeded
from test.ros.conftest import LATITUDES, Robot, colourful, image_message
from test.ros.test_process import NodeProcess, _first_fix

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]


@pytest.fixture(scope="module")
def photographs() -> list[Pixels]:
    return colourful(15, 20, 240, 180)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photographs: list[Pixels]) -> Path:
    """Photographs with positions, and models: CosPlace twice, with the local features of ours, and SALAD."""
    folder = tmp_path_factory.mktemp("robot")
    rows = ["filename,latitude,longitude"]
    for number, (pixels, latitude) in enumerate(zip(photographs, LATITUDES, strict=True)):
        Pillow.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{latitude},8.0")
    (folder / "positions.csv").write_text("\n".join(rows) + "\n")
    for name, encoder in (("alone", "ResNet18"), ("vgg", "VGG16")):
        torch.save(seeded_checkpoint(Case("cosplace", encoder, 64)), folder / f"{name}.pth")
        method = ["import-weights", "--method", "cosplace", "--checkpoint", str(folder / f"{name}.pth")]
        assert main([*method, "--output", str(folder / f"{name}.safetensors")]) == 0
    both = ["combine", "--retrieval", str(folder / "alone.safetensors")]
    assert main([*both, "--output", str(folder / "both.safetensors")]) == 0
    small = dinov2("backbone.model.", 384, 1) | salad("aggregator.", 384, 128)
    torch.save(seeded(small, seed=3), folder / "salad.pth")
    method = ["import-weights", "--method", "salad", "--checkpoint", str(folder / "salad.pth")]
    assert main([*method, "--output", str(folder / "transformer.safetensors")]) == 0
    return folder


@pytest.fixture(scope="module")
def robot(graph: None) -> Iterator[Robot]:
    robot = Robot("operator")
    yield robot
    robot.close()


SAID = "the model has no warping regression: rerank.mode = 'gated' is the fast mode alone"


def built(folder: Path, name: str) -> Path:
    """The gallery of a model, made when first asked for."""
    gallery, words = folder / name, ["--model", str(folder / f"{name}.safetensors"), "--device", "cpu"]
    if not gallery.exists():
        assert main(["gallery", "build", str(folder / "positions.csv"), "--output", str(gallery), *words]) == 0
    return gallery


@pytest.mark.parametrize(
    ("name", "dimension", "warns"),
    [("alone", 64, True), ("vgg", 64, True), ("both", 64, False), ("transformer", 8448, True)],
)
def test_a_photograph_is_found_by_the_command_line(
    name: str,
    dimension: int,
    warns: bool,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    gallery = built(folder, name)
    assert json.loads((gallery / "gallery.json").read_text())["model"]["descriptor_dim"] == dimension
    capsys.readouterr()
    caplog.clear()
    assert main(["localize", str(folder / "2.png"), "--gallery", str(gallery), "--json", "--device", "cpu"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["latitude"] == pytest.approx(LATITUDES[2], abs=1e-6)
    assert (SAID in caplog.text) == warns


@pytest.mark.parametrize("name", ["vgg", "transformer"])
def test_the_node_finds_them_by_the_gallerys_own_model(
    name: str, folder: Path, photographs: list[Pixels], robot: Robot
) -> None:
    process = NodeProcess("-p", f"gallery:={built(folder, name)}", "-p", "device:=cpu")
    try:
        process.says("activate: now active")
        _first_fix(robot, lambda: robot.show(image_message(photographs[1], stamp_s=10.0)))
        for number in (2, 0):
            fix = robot.answer(image_message(photographs[number], stamp_s=20.0 + number))
            assert (fix.status.status, fix.latitude) == (0, pytest.approx(LATITUDES[number], abs=1e-6))
        assert any(SAID in line for line in process.lines)
    finally:
        process.close()
