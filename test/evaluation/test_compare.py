"""Two runs side by side, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation import exports
from geowarp_ros.evaluation.compare import Finished, change_rows, compare, mcnemar, table_rows, write_comparison
from geowarp_ros.evaluation.judging import figures
from geowarp_ros.evaluation.run import Run
from test.evaluation import runs


def finished(folder: Path, run: Run) -> Finished:
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"title": run.title, **figures(run)}))
    (folder / "run.json").write_text(json.dumps(run.settings))
    exports.write_csv(run, folder / "images.csv")
    return Finished.open(folder)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Finished, Finished]:
    first = runs.run(lost=(4,), settings={"localizer": {"rerank": {"method": "none"}}, "seed": 0})
    # image 3 becomes right (60 -> 2 m), 4 stays lost, 5 becomes false (8 -> 90 m), 0 becomes lost
    second = runs.run(
        (1.0, 3.0, 4.0, 2.0, 2.0, 90.0),
        lost=(0, 4),
        settings={"localizer": {"rerank": {"method": "geowarp"}}, "seed": 0},
    )
    return finished(tmp_path / "none", first), finished(tmp_path / "geowarp", second)


def test_gained_and_lost(pair: tuple[Finished, Finished]) -> None:
    result = compare(*pair)
    assert result.gained == ("drive/003.jpg",)
    assert result.lost == ("drive/000.jpg", "drive/005.jpg")
    assert result.newly_false == ("drive/005.jpg",)
    assert result.no_longer_false == ("drive/003.jpg",)
    # both have fixes 1, 2, 3, 5: changes 0, 0, -58, +82
    assert result.median_change_m == pytest.approx(0.0, abs=1e-3)
    assert result.settings == (("localizer.rerank.method", "none", "geowarp"),)
    assert dict(change_rows(result))["gained (right in B alone)"] == "1"


def test_mcnemar_by_hand() -> None:
    # 1 of 6: (1 + 6) / 64 twice; an even split is certain to be at most as uneven as it is
    assert mcnemar(1, 5) == pytest.approx(14 / 64)
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 10) == pytest.approx(2 / 1024)


def test_figures_stand_side_by_side(pair: tuple[Finished, Finished]) -> None:
    rows = {name: (first, second) for name, first, second in table_rows(*pair)}
    assert rows["availability"][0].startswith("83.3 %") and rows["availability"][1].startswith("66.7 %")


def test_the_page_holds_both(pair: tuple[Finished, Finished], tmp_path: Path) -> None:
    write_comparison(*pair, compare(*pair), tmp_path / "compare.html")
    page = (tmp_path / "compare.html").read_text()
    assert "localizer.rerank.method" in page and "A: none" in page and "B: geowarp" in page


def test_runs_over_different_drives_are_refused(pair: tuple[Finished, Finished], tmp_path: Path) -> None:
    other = runs.run()
    renamed = type(other)(
        other.title,
        tuple(type(i)("x" + i.name, i.stamp_ns, i.truth, i.answer, i.position) for i in other.answered),
        other.frame,
    )
    with pytest.raises(SourceError, match="different drives"):
        compare(pair[0], finished(tmp_path / "other", renamed))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no finished run"):
        Finished.open(tmp_path)
    (tmp_path / "results.json").write_text('{"images": 3}')
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "images.csv").write_text("image,true_latitude\n")
    with pytest.raises(SourceError, match="damaged or of another version"):
        Finished.open(tmp_path)
