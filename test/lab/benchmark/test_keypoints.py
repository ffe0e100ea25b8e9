"""The epipolar geometry against projected points; the table on a small town."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.cli import main
from geowarp_ros.errors import SourceError
from geowarp_ros.lab.benchmark.keypoints import measure_keypoints, off_line_px
from geowarp_ros.lab.world.camera import Camera
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.lab.world.dataset import write_world
from test.untrained import store


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_points_of_two_cameras_lie_on_their_lines(factor: float) -> None:
    q = Camera(1.0, 2.0, 1.6, 20.0, pitch_deg=4.0, roll_deg=-2.0)
    p = Camera(-2.5, -3.0, 1.9, 5.0, pitch_deg=2.0)
    rng = np.random.default_rng(0)
    world = np.stack([rng.uniform(-5, 15, 200), rng.uniform(15, 60, 200), rng.uniform(0, 10, 200)], axis=1)

    def seen(camera: Camera) -> NDArray[np.float64]:
        rays = (world - camera.position) @ camera.camera_from_world.T @ camera.matrix.T
        assert (rays[:, 2] > 0).all()
        # pixel centres: (0, 0) is that of the first
        return np.asarray((rays[:, :2] / rays[:, 2:] + 0.5) * factor - 0.5)

    points_q, points_p = seen(q), seen(p)
    np.testing.assert_allclose(off_line_px(q, p, points_q, points_p, factor), 0, atol=1e-8)
    # by 3 px in all directions: never farther off than that, and nearly so where it is across the line
    angle = rng.uniform(0, 2 * np.pi, 200)
    off = off_line_px(q, p, points_q + 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1), points_p, factor)
    assert np.quantile(off, 0.9) > 2.5
    shuffled = off_line_px(q, p, points_q, rng.permutation(points_p), factor)
    assert np.median(shuffled) > 10 * factor


def test_the_table_of_a_small_town(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = WorldConfig(seed=5, streets=1, street_length_m=40.0, width_px=160, height_px=120, drive=False)
    town = write_world(config, tmp_path / "town")
    few, many = measure_keypoints(town, [20, 1000], [2.0], 120, 40)
    assert (few["count"], few["scale"], few["keypoints"]) == (20, 2.0, 20)
    assert few["bytes_per_image"] == 20 * 136 and many["keypoints"] > 100
    assert few["pairs"] == many["pairs"] > 5
    assert few["right"] < many["right"] <= many["matches"] and many["right_share"] > 30
    output = tmp_path / "out"
    words = [
        "benchmark",
        "--parts",
        "keypoints",
        "--world",
        str(town),
        "--keypoints",
        "50",
        "--output",
        str(output),
    ]
    assert main(words) == 0
    assert "| scale | count | keypoints |" in capsys.readouterr().out
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(store(tmp_path, "xfeat", "xfeat-lighterglue")))
    nearest, network = measure_keypoints(town, [60], [1.0], 120, 4, ["xfeat", "xfeat-lighterglue"])
    assert (nearest["method"], network["method"]) == ("xfeat", "xfeat-lighterglue")
    assert nearest["keypoints"] == network["keypoints"] > 20 and nearest["bytes_per_image"] == 60 * 72
    assert main([*words[:3], "--output", str(output)]) == 1
    assert "part keypoints: needs --world" in capsys.readouterr().err
    with pytest.raises(SourceError, match="is no world of 'geowarp world'"):
        measure_keypoints(tmp_path, [20], [1.0], 120, 40)
