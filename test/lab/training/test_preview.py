from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.patches import Polygon
from PIL import Image

from geowarp_ros.cli import main
from geowarp_ros.lab.training.preview import draw_quadruplets, to_pixels
from geowarp_ros.lab.training.quadruplets import generate_quadruplets


def test_pixels_by_hand() -> None:
    quad = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    assert to_pixels(quad, 100, 200).tolist() == [[-0.5, -0.5], [199.5, -0.5], [199.5, 99.5], [99.5, 49.5]]


def test_drawn_quads_are_the_generated_ones() -> None:
    photographs = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    figure = draw_quadruplets(photographs, k=0.6, seed=5)
    torch.manual_seed(5)
    made = generate_quadruplets(photographs.float() / 255, 0.6)
    assert len(figure.axes) == 10, "a row of five for each photograph"
    for axes, quad in (
        (figure.axes[0], made.trapezoid_x[0]),
        (figure.axes[1], made.quad_a[0]),
        (figure.axes[7], made.quad_b[1]),
    ):
        outlines = [patch for patch in axes.patches if isinstance(patch, Polygon) and not patch.get_fill()]
        assert np.allclose(outlines[0].get_xy()[:4], to_pixels(quad.numpy(), 64, 96), atol=1e-4)


def test_random_state_is_left_as_it_was() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    draw_quadruplets(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), k=0.5)
    assert torch.equal(torch.rand(3), expected)


def test_command_writes_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    lines = ["filename,latitude,longitude"]
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), rng.integers(0, 256, (80, 100, 3), dtype=np.uint8))
        lines.append(f"{index}.png,48.{index},11")
    (tmp_path / "positions.csv").write_text("\n".join(lines) + "\n")
    picture = tmp_path / "new" / "preview.png"
    assert main(["train", "preview", str(tmp_path), "--output", str(picture), "--count", "2"]) == 0
    with Image.open(picture) as image:
        assert image.width > 1500
        assert np.asarray(image.convert("L")).std() > 10
    assert main(["train", "preview", str(tmp_path), "--output", str(picture), "--k", "2"]) == 1
    assert "k = 2" in capsys.readouterr().err
