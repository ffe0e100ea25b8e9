"""Answers as GeoJSON, held against RFC 7946 and the covariance; as a page, looked at in a real browser."""

from __future__ import annotations

import json
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geowarp_ros.evaluation.answers import MATCHES_SHOWN, Localized, write_answers_geojson, write_answers_page
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.types import Answer, Candidate, Fix, Header, NoFix, Pair, Place
from test.browser import Browser
from test.evaluation import runs

COVARIANCE = np.array([[9.0, 4.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 100.0]])
FIX = Fix(50.0, 8.0, 0.0, COVARIANCE, 0.9712345)
HEADED = replace(FIX, orientation=(0.0, 0.0, 0.0, 1.0), heading_deg=274.9, heading_std_deg=0.4, method="points")
HOSTILE = "</script><img src=x onerror=alert(1)>"


def answer(result: Fix | NoFix, *names: str) -> Answer:
    """An answer whose candidates stand 10 m apart on the way east."""
    wheres = [runs.position(10.0 * row, 3.0) for row in range(len(names))]
    candidates = tuple(
        Candidate(row, Place(name, where.latitude_deg, where.longitude_deg), 0.1 + 0.1 * row)
        for row, (name, where) in enumerate(zip(names, wheres, strict=True))
    )
    image, points = runs.picture(3), np.array([[-0.5, 0.0], [0.5, 0.2]])
    return Answer(Header(), result, candidates, pair=lambda: Pair(image, image, points, points, 4))


def features(tmp_path: Path, *answers: Answer) -> list[dict[str, Any]]:
    items = [Localized(f"{row}.jpg", each) for row, each in enumerate(answers)]
    write_answers_geojson(items, tmp_path / "a.geojson")
    read = json.loads((tmp_path / "a.geojson").read_text())
    assert set(read) == {"type", "features"} and read["type"] == "FeatureCollection"
    for each in read["features"]:
        assert set(each) == {"type", "geometry", "properties"} and each["type"] == "Feature"
    return list(read["features"])


def area(ring: list[list[float]]) -> float:
    """Signed, positive for a ring that runs anticlockwise; square degrees."""
    x, y = np.array(ring[:-1]).T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


# ---- GeoJSON


def test_a_fix_is_a_point_and_its_ellipse_a_polygon(tmp_path: Path) -> None:
    point, ellipse = features(tmp_path, answer(HEADED, "a.jpg"))
    assert point["geometry"] == {"type": "Point", "coordinates": [8.0, 50.0]}  # longitude first
    assert point["properties"] == {
        "image": "0.jpg", "confidence": 0.971, "kind": "fix", "photograph": "a.jpg", "method": "points",
        "std_m": round(HEADED.std_m, 3), "heading_deg": 274.9, "heading_std_deg": 0.4, "altitude_m": 0.0,
    }  # fmt: skip
    assert ellipse["properties"] == {"image": "0.jpg", "confidence": 0.971, "kind": "ellipse", "probability": 0.95}
    assert ellipse["geometry"]["type"] == "Polygon"
    (ring,) = ellipse["geometry"]["coordinates"]
    assert ring[0] == ring[-1] and len(ring) == 65 and area(ring) > 0
    longitude, latitude = np.array(ring).T
    offset = LocalFrame(50.0, 8.0).to_enu(latitude, longitude)[:, :2]
    distances = np.einsum("ni,ij,nj->n", offset, np.linalg.inv(COVARIANCE[:2, :2]), offset)
    assert distances == pytest.approx(np.full(65, 5.991), rel=1e-3)  # chi-squared, two degrees of freedom, 95 %


def test_what_is_unknown_of_a_fix_is_null(tmp_path: Path) -> None:
    point, _ = features(tmp_path, answer(FIX))
    assert [point["properties"][name] for name in ("heading_deg", "heading_std_deg", "photograph")] == [None] * 3


def test_a_no_fix_has_no_geometry_and_names_its_guess(tmp_path: Path) -> None:
    lost, empty = features(
        tmp_path,
        answer(NoFix("disagreement", "two places", 0.4), "a.jpg", "b.jpg"),
        answer(NoFix("empty_gallery")),
    )
    assert lost["geometry"] is None and empty["geometry"] is None
    said = lost["properties"]
    assert (said["kind"], said["reason"], said["detail"], said["confidence"]) == (
        "no_fix", "disagreement", "two places", 0.4
    )  # fmt: skip
    where = runs.position(0.0, 3.0)
    assert said["best_guess"] == "a.jpg"
    assert said["best_guess_latitude"] == pytest.approx(where.latitude_deg, abs=1e-9)
    assert said["best_guess_longitude"] == pytest.approx(where.longitude_deg, abs=1e-9)
    assert "latitude" not in said and "longitude" not in said, "which programs take for a position"
    assert empty["properties"]["best_guess"] is None


@pytest.mark.parametrize("longitude", [179.9999, -179.9999, 180.0, -180.0])
def test_an_ellipse_across_the_antimeridian_is_cut_there(longitude: float, tmp_path: Path) -> None:
    across = replace(FIX, longitude_deg=longitude, latitude_deg=-16.8, covariance=np.diag([900.0, 400.0, 1.0]))
    elsewhere = replace(across, longitude_deg=20.0)
    _, cut, _, whole = features(tmp_path, answer(across), answer(elsewhere))
    assert cut["geometry"]["type"] == "MultiPolygon"
    parts = [ring for (ring,) in cut["geometry"]["coordinates"]]
    sides = [set(np.sign(np.array(ring)[:, 0]).tolist()) for ring in parts]
    assert sorted(map(tuple, sides)) == [(-1.0,), (1.0,)]
    assert all(ring[0] == ring[-1] and area(ring) > 0 and np.abs(ring).max() <= 180 for ring in parts)
    assert sum(map(area, parts)) == pytest.approx(area(whole["geometry"]["coordinates"][0]), rel=1e-4)


# ---- the page


def gallery() -> Any:
    return types.SimpleNamespace(
        path=Path("town <b>"), frame=runs.FRAME, image=lambda row: runs.picture(100 + row),
        positions_enu=np.array([[10.0 * row, 3.0, 0.0] for row in range(9)]),
    )  # fmt: skip


def test_the_page_shows_fixes_guesses_and_matches(tmp_path: Path) -> None:
    near = runs.position(22.0, 5.0)
    fix = replace(HEADED, latitude_deg=near.latitude_deg, longitude_deg=near.longitude_deg)
    answers = [
        answer(fix, "a.jpg"),
        answer(NoFix("low_confidence"), "a.jpg", "b.jpg"),
        answer(NoFix("no_texture")),
    ]
    items = [Localized.shown(f"{HOSTILE}{row}", each, runs.picture(row), row) for row, each in enumerate(answers)]
    write_answers_page(items, ["broken.jpg: is <i>truncated"], gallery(), tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 1e6, "a map needs no Plotly"
    with Browser(tmp_path) as browser:
        browser.size(1280, 1200)
        browser.open((tmp_path / "page.html").as_uri())
        browser.until("document.readyState === 'complete' && Boolean(window.viewer)")
        text = browser.text("body")
        assert "3 images in town <b>" in text and "1 with a fix, 2 without" in text
        assert "broken.jpg: is <i>truncated" in text
        assert browser.text(".clock") == "1 of 3"
        assert "fix, 95 % within" in browser.text("#map .chip")
        # the fix where it is, the guess at its photograph's place, the one without a candidate nowhere
        xs = browser.ask("[...viewer.drive.MX].map((x) => Number.isNaN(x) ? null : x)")
        assert xs[:2] == pytest.approx([22.0, 0.0], abs=0.3) and xs[2] is None
        left, top, _, _ = browser.box("#map .ground")
        x, y = browser.ask("viewer.map.at(viewer.drive.MX[1], viewer.drive.MY[1])")
        browser.click(left + x, top + y)
        assert browser.text(".clock") == "2 of 3"
        shown = browser.text("#map .shown")
        assert "no fix: low confidence" in shown and "its guess" in shown and "like a.jpg" in shown
        wide = browser.ask("[...document.querySelectorAll('img.matched')].map((image) => image.naturalWidth)")
        assert wide == [1000, 1000, 1000]
        assert (browser.problems, browser.asked[1:]) == ([], [])


def test_of_very_many_images_the_first_have_a_large_picture() -> None:
    for number, large in ((MATCHES_SHOWN - 1, True), (MATCHES_SHOWN, False)):
        item = Localized.shown("a.jpg", answer(FIX, "a"), runs.picture(0), number)
        assert bool(item.match) is large and item.thumbnail
