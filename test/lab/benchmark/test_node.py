"""The node is started, shown pictures and timed; how long it takes is no test's business."""

from __future__ import annotations

import math

import pytest

from geowarp_ros.lab.benchmark import node
from geowarp_ros.lab.benchmark.node import measure_node
from geowarp_ros.lab.verbs.options import parse_size


@pytest.mark.ros
@pytest.mark.usefixtures("graph")
def test_every_stage_of_every_mode_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        node, "ATTEMPTS", 120
    )  # the first image is lost to discovery: show it again after a second
    (row,) = measure_node("default", parse_size("96x64"), 40, 3, ("fast",))
    assert (row["mode"], row["places"]) == ("fast", 40)
    stages = [key for key in row if key.endswith("_p50_ms")]
    assert {"describe_p50_ms", "search_p50_ms", "rerank_p50_ms", "total_p50_ms"} <= set(stages)
    assert row["start_s"] > 0 and row["memory_mib"] > 50
    others = sum(row[key] for key in stages if key not in ("total_p50_ms", "publish_to_fix_p50_ms"))
    assert row["rest_share"] == pytest.approx(1 - others / row["total_p50_ms"], abs=1e-9)
    assert math.isfinite(row["publish_to_fix_p95_ms"])
