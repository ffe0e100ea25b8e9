"""A small town is asked in three modes; what the rows say is what the answers were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from geowarp_ros.cli import main
from geowarp_ros.lab.benchmark.answers import STAGES
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.lab.world.dataset import write_world


def test_the_modes_of_a_small_town(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = WorldConfig(seed=5, streets=1, street_length_m=40.0, width_px=160, height_px=120, drive=False)
    town, output = write_world(config, tmp_path / "town"), tmp_path / "out"
    words = ["benchmark", "--parts", "answers", "--world", str(town), "--queries", "6", "--output", str(output)]
    assert main([*words, "--device", "cpu", "--runtime", "torch"]) == 0
    rows = json.loads((output / "benchmark.json").read_text())["parts"]["answers"]
    assert [row["mode"] for row in rows] == ["exact", "fast", "gated"]
    for row in rows:
        assert 3 <= row["images"] <= 6
        assert row["describe"] > 0 and row["all"] <= row["all_95"] and set(STAGES) < row.keys()
        assert row["posed"] <= row["fixes"] <= 100
        assert (row["fixes"] == 0) == (row["error_m"] != row["error_m"])
    assert "| gated |" in capsys.readouterr().out
    assert main(["benchmark", "--parts", "answers", "--output", str(output)]) == 1
    assert "part answers: needs --world" in capsys.readouterr().err
