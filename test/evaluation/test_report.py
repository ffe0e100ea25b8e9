"""The report in a real browser: no console error, the map has its points, hovering shows a query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geowarp_ros.evaluation import cards
from geowarp_ros.evaluation.cards import choose
from geowarp_ros.evaluation.compare import Finished, compare, write_comparison
from geowarp_ros.evaluation.judging import figures, judge
from geowarp_ros.evaluation.report import write_report
from test.browser import Browser
from test.evaluation import runs
from test.evaluation.test_compare import finished


def look_at(page: Path, folder: Path) -> dict[str, Any]:
    """Open a page in headless Chromium; returns what is drawn, what was asked for and what went wrong."""
    with Browser(folder) as browser:
        browser.size(1280, 1400)
        browser.open(page.as_uri())
        browser.until("document.readyState === 'complete'")
        drawn = browser.ask(
            "Object.fromEntries([...document.querySelectorAll('.plot')].map((plot) =>"
            " [plot.id, plot.querySelectorAll('.point, .js-line, path.js-line').length]))"
        )
        found = {"drawn": drawn, "text": browser.text("body"), "fetched": browser.asked[1:]}
        found["cards"] = browser.ask(
            "[...document.querySelectorAll('.card img')].map((img) => [img.naturalWidth, img.naturalHeight])"
        )
        if browser.ask("Boolean(window.viewer)"):
            drive = browser.ask("({ fixed: viewer.drive.fixed, places: viewer.places.X.length })")
            found |= {"first": browser.text("#map .shown"), **drive}
            last = max(row for row, fixed in enumerate(found["fixed"]) if fixed) if any(found["fixed"]) else 0
            left, top, _, _ = browser.box("#map .ground")
            browser.ask("document.querySelector('#map').scrollIntoView()")
            left, top, _, _ = browser.box("#map .ground")
            x, y = browser.ask(f"viewer.map.at(viewer.drive.MX[{last}], viewer.drive.MY[{last}])")
            browser.mouse("mouseMoved", left + x, top + y)
            found["tip"] = browser.text("#map .tip")
            browser.click(left + x, top + y)
            found["shown"] = browser.text("#map .shown")
            found["pictures"] = browser.ask(
                "document.querySelectorAll('.shown img[src^=\"data:image/jpeg\"]').length"
            )
        return {**found, "problems": browser.problems}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("report")
    run = runs.run(notes=("the bag has a broken </script> end",))
    gallery = np.array([[5.0 * row, 1.0] for row in range(9)])
    write_report(run, figures(run), folder / "report.html", gallery, lambda index: runs.picture(100 + index))
    return look_at(folder / "report.html", folder)


def test_no_error_and_nothing_fetched(seen: dict[str, Any]) -> None:
    assert seen["problems"] == []
    assert seen["fetched"] == []


def test_the_map_has_its_images_and_its_gallery(seen: dict[str, Any]) -> None:
    assert seen["fixed"] == [True, True, True, True, False, True]
    assert seen["places"] == 9
    assert set(seen["drawn"]) == {"cdf", "time", "tradeoff", "ellipses", "stanford", "latency"}
    assert all(seen["drawn"].values())


def test_the_worst_fix_stands_there_first_and_a_click_shows_another(seen: dict[str, Any]) -> None:
    assert "fix, 60.0 m off" in seen["first"] and "003.jpg" in seen["first"]
    for text in (seen["tip"], seen["shown"]):
        assert "005.jpg" in text  # the last fix
        assert "fix, 8.0 m off" in text
    assert "like gallery/5.jpg" in seen["shown"]
    assert seen["pictures"] == 2  # query and candidate


def test_the_cards_show_query_candidate_and_both_warped(seen: dict[str, Any]) -> None:
    assert len(seen["cards"]) == 6
    assert all(high > 0.7 * wide > 0 for wide, high in seen["cards"]), "the warped pair stands below"


def test_a_run_without_any_fix_still_opens(tmp_path: Path) -> None:
    run = runs.run(lost=range(6))
    write_report(run, figures(run), tmp_path / "report.html")
    seen = look_at(tmp_path / "report.html", tmp_path)
    assert "there is no fix at all" in seen["text"]
    assert (seen["problems"], seen["fixed"]) == ([], [False] * 6)


def test_a_large_gallery_is_thinned_but_for_the_candidates() -> None:
    run = runs.run()
    gallery = np.array([[0.01 * row, 1.0] for row in range(50_000)])
    shown = cards.map_scene(run, 0, gallery, None)
    places = shown["places"]
    assert len(places["x"]) < cards.MOST_PLACES
    for row, place in enumerate(shown["drive"]["place"]):  # candidate i is row i of the gallery
        assert places["name"][place] == f"gallery/{row}.jpg"
        assert places["x"][place] == pytest.approx(0.01 * row, abs=0.011)


def test_the_comparison_opens(tmp_path: Path) -> None:
    a, b = finished(tmp_path / "a", runs.run()), finished(tmp_path / "b", runs.run(lost=(0, 1)))
    assert isinstance(a, Finished)
    write_comparison(a, b, compare(a, b), tmp_path / "compare.html")
    seen = look_at(tmp_path / "compare.html", tmp_path)
    assert seen["problems"] == []
    assert set(seen["drawn"]) == {"cdf", "tradeoff"} and all(seen["drawn"].values())


def test_cards_are_chosen_by_error_and_by_confidence() -> None:
    # errors 1, 3, 4, 60, (2), 8; confidences .95 … .45, the no-fix has .55
    worst, doubtful, good = choose(judge(runs.run()), 25.0)
    assert worst == [3]
    assert doubtful[:2] == [4, 5]  # the no-fix itself, then .45
    assert not set(good) & {*worst, *doubtful}


def test_without_a_false_fix_the_worst_are_the_farthest_right_ones() -> None:
    worst, _, _ = choose(judge(runs.run((1.0, 3.0, 2.0), lost=())), 25.0)
    assert worst == [1, 2, 0]


def test_headings_are_in_the_map_and_the_methods_tabled(tmp_path: Path) -> None:
    run = runs.headed_run()
    write_report(run, figures(run), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>By method</h2>" in page and "median heading error" in page
    assert '"heading":[350.5,349.0,' in page and '"true_heading":[350.0,' in page
    plain = runs.run()
    write_report(plain, figures(plain), tmp_path / "plain.html")
    without = (tmp_path / "plain.html").read_text(encoding="utf-8")
    assert '"heading":[null,null,' in without and "heading error</span>" not in without
