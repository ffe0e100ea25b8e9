from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.lab.baselines import Method
from geowarp_ros.lab.studies.dataset import Contender, Outcome
from geowarp_ros.lab.studies.recall_plot import write_recall_plot
from geowarp_ros.lab.studies.tables import (
    Estimate,
    Table,
    cost_table,
    gain_table,
    paper_table,
    pose_table,
    query_table,
    recall_table,
)
from geowarp_ros.types import Candidate, Fix, NoFix, Place


def _outcome(method: Method, errors: list[list[float]], label: str = "model") -> Outcome:
    count = len(errors)
    ranked = tuple(
        tuple(
            Candidate(i, Place(f"g{i}.jpg", 0, 0), 0.1 * i, score=None if method == "none" else 5.0 - i)
            for i in range(len(row))
        )
        for row in errors
    )
    nobody: Any = None
    return Outcome(
        contender=Contender(label, "ResNet-18", "GeM", nobody),
        method=method,
        queries=tuple(Place(f"q{i}.jpg", 45.0, 9.0) for i in range(count)),
        ranked=ranked,
        error_m=np.array(errors),
        nearest_m=np.full(count, 1.0),
        describe_ms=np.full(count, 10.0),
        search_ms=np.full(count, 1.0),
        rerank_ms=np.arange(count, dtype=float),
        peak_mib=np.array([math.nan] * count) if method == "none" else np.arange(count, dtype=float),
        place_bytes=1024,
    )


PLAIN = _outcome("none", [[30.0, 5.0], [5.0, 90.0], [60.0, 60.0], [5.0, 5.0]])
WARPED = _outcome("geowarp", [[5.0, 30.0], [5.0, 90.0], [60.0, 60.0], [5.0, 5.0]])


def test_the_papers_layout() -> None:
    text = paper_table("table1", "Title", [PLAIN, WARPED], [10.0, 50.0], seed=0).markdown()
    assert "| Backbone | Method | 10 m | 50 m |" in text
    assert "|---|---|---:|---:|" in text
    assert "| ResNet-18 | GeM | 50.0 [" in text
    assert "| ResNet-18 | GeM + GeoWarp | 75.0 [" in text


def test_recall_at_every_n_and_threshold_by_hand() -> None:
    records = recall_table([PLAIN], [1, 2], [10.0, 40.0], seed=0).records()
    assert [(r["Within"], r["R@1"], r["R@2"]) for r in records] == [("10 m", 50.0, 75.0), ("40 m", 75.0, 75.0)]
    assert all(r["R@1 low"] <= r["R@1"] <= r["R@1 high"] for r in records)


def test_gains_are_paired_query_by_query() -> None:
    (record,) = gain_table([PLAIN, WARPED], [10.0], seed=0).records()
    assert record["10 m"] == 25.0  # one of four queries more
    assert record["10 m low"] == 0.0
    assert gain_table([WARPED], [10.0], seed=0).rows == (), "nothing to compare with"


def _fix(north_m: float, heading_deg: float | None) -> Fix:
    latitude, longitude, _ = LocalFrame(45.0, 9.0).to_geodetic([0.0, north_m, 0.0])
    found = Fix(float(latitude), float(longitude), 0.0, np.eye(3), 0.9)
    if heading_deg is None:
        return found
    return replace(found, method="points", orientation=(0.0, 0.0, 0.0, 1.0), heading_deg=heading_deg)


def test_poses_by_hand() -> None:
    # of four queries at one place two are posed; one tag has a heading, 355°
    fixes = (_fix(1.0, 2.0), _fix(50.0, None), NoFix("low_confidence"), _fix(-3.0, 90.0))
    queries = tuple(
        replace(place, heading_deg=355.0 if n == 0 else math.nan) for n, place in enumerate(PLAIN.queries)
    )
    (record,) = pose_table([PLAIN, replace(WARPED, queries=queries, fixes=fixes)]).records()
    assert (record["Method"], record["posed %"]) == ("GeM + GeoWarp", 50.0)
    assert (record["median m"], record["95 % m"], record["largest m"]) == (2.0, 2.9, 3.0)
    assert (record["headings"], record["heading median °"], record["heading 95 % °"]) == (1, 7.0, 7.0)
    assert pose_table([PLAIN]).rows == (), "nothing was posed"
    no_tags = pose_table([replace(WARPED, fixes=fixes)])
    assert no_tags.records()[0]["heading median °"] is None and "| – |" in no_tags.markdown()


def test_costs_are_medians_and_unknown_memory_stays_unknown() -> None:
    plain, warped = cost_table([PLAIN, WARPED]).records()
    assert plain["total ms"] == 12.5  # 10 + 1 + the median of 0, 1, 2, 3
    assert plain["peak MiB"] is None
    assert warped["peak MiB"] == 3.0
    assert plain["KiB/place"] == 1.0


def test_every_query_has_a_row_and_csv_reads_back() -> None:
    table = query_table([PLAIN, WARPED], [10.0])
    rows = list(csv.DictReader(io.StringIO(table.csv())))
    assert len(rows) == 8
    assert [row["rank_within_10m"] for row in rows[:4]] == ["2", "1", "0", "1"]
    assert rows[0]["first"] == "g0.jpg"
    assert rows[0]["first_score"] == ""
    assert rows[4]["first_score"] == "5.0"


def test_json_has_no_nan() -> None:
    table = Table("x", "X", ("a", "b"), ((math.nan, Estimate(1.0, 0.5, 2.0)), (math.inf, 3)))
    assert json.loads(json.dumps(table.records(), allow_nan=False)) == [
        {"a": None, "b": 1.0, "b low": 0.5, "b high": 2.0},
        {"a": None, "b": 3},
    ]


def test_an_estimate_as_text() -> None:
    assert str(Estimate(61.5, 58.24, 64.7)) == "61.5 [58.2, 64.7]"
    assert str(Estimate(2.0, -1.0, 5.0, signed=True)) == "+2.0 [-1.0, +5.0]"


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    write_recall_plot(
        [PLAIN, WARPED, _outcome("sift", [[1.0, 2.0]], "other")], [10.0, 25.0, 50.0], "T", tmp_path / "r.png"
    )
    from geowarp_ros.images import read_image

    image = read_image(tmp_path / "r.png")
    assert image.shape[1] > 1000
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50, "curves of several colours"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_markdown_shows_what_is_unknown_as_a_dash(bad: float) -> None:
    text = Table("x", "X", ("a",), ((bad,),)).markdown()
    assert "| – |" in text
