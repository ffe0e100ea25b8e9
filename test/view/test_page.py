"""The page in a real browser, by mouse and keys: galleries, drives, both themes, narrow windows, hostile names."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from geowarp_ros.evaluation.drive import DriveImage
from geowarp_ros.evaluation.scene import ASSETS, positions, scene
from geowarp_ros.view.runs import show_run
from geowarp_ros.view.shown import Still
from test.browser import Browser
from test.evaluation import runs
from test.view.scenes import GROUND, large, picture, served, written

HOSTILE = "<img src=x onerror=\"document.title='broken into'\">"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def look(browser: Browser, address: str, width: int = 1300, height: int = 850) -> None:
    """Open a page anew; what went wrong before is another test's."""
    browser.size(width, height)
    browser.dark(False)
    browser.problems.clear()
    browser.asked.clear()
    browser.open(address)
    browser.until(f"location.href === {json.dumps(address)} && window.viewer?.map?.x0")
    settled(browser)


def settled(browser: Browser) -> None:
    """Wait until pictures that come have no say in the layout any more: the map fills what room they leave it."""
    browser.until("document.readyState === 'complete' && [...document.images].every(image => image.complete)")
    before = None
    while (now := (browser.box(".ground"), browser.ask("viewer.map.scale"))) != before:
        before = now
        browser.ask("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(() => drawn(1))))")
    browser.until("!viewer.map.waiting")


def on_map(browser: Browser, kind: str, row: int) -> tuple[float, float]:
    """Where an image or a place is in the window."""
    left, top, _, _ = browser.box(".ground")
    of = (
        "viewer.drive.MX[{0}], viewer.drive.MY[{0}]"
        if kind == "query"
        else "viewer.places.X[{0}], viewer.places.Y[{0}]"
    )
    x, y = browser.ask(f"viewer.map.at({of.format(row)})")
    return left + x, top + y


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = written(tmp_path_factory.mktemp("run"))
    with served(show_run(folder, runs_images)) as address:
        yield address


def runs_images() -> list[DriveImage]:
    return [DriveImage(f"drive/{row:03}.jpg", 0, partial(runs.picture, row)) for row in range(6)]


def test_a_drive_is_looked_through_by_clicks_and_keys(browser: Browser, drive: str) -> None:
    look(browser, drive)
    assert browser.text("#title") == "a drive"
    assert "fix, 1.0 m off" in browser.text(".shown")
    browser.click(*on_map(browser, "query", 3))
    assert "fix, 60.0 m off" in browser.text(".shown") and "003.jpg" in browser.text(".shown h3")
    browser.press("ArrowRight")
    assert "no fix: low confidence; its guess is 2.0 m off" in browser.text(".shown")
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    assert "002.jpg" in browser.text(".shown h3")
    browser.press("End")
    assert "image 6 of 6" in browser.text(".shown")
    browser.press("Home")
    assert "image 1 of 6" in browser.text(".shown")
    browser.press("n")  # the next problem is the false fix, then the no-fix
    assert "60.0 m off" in browser.text(".shown")
    browser.press("n")
    assert "no fix" in browser.text(".shown")
    left, top, width, height = browser.box(".strip")
    browser.click(left + width * 0.41, top + height / 2)  # of 2.5 s: nearest is the image at 1.0 s
    assert "002.jpg" in browser.text(".shown h3") and browser.text(".clock") == "1.0 s"
    assert browser.problems == []


def test_space_plays_in_its_own_time_and_stops_at_the_end(browser: Browser, drive: str) -> None:
    look(browser, drive)
    browser.press("Home")
    began = browser.ask("performance.now()")
    browser.press(" ")
    assert browser.ask("viewer.playing") is True
    browser.until("viewer.chosen.row === 2")
    assert browser.ask("performance.now()") - began >= 900  # the third image is at 1.0 s
    browser.press(" ")
    assert browser.ask("viewer.playing") is False
    browser.ask("viewer.speed = 30")
    browser.click_on(".play")
    browser.until("viewer.chosen.row === 5 && !viewer.playing")
    assert browser.problems == []


def test_the_pair_is_enlarged_with_what_both_see(browser: Browser, drive: str) -> None:
    look(browser, drive)
    browser.press("ArrowRight")
    browser.press("Enter")
    assert browser.ask("viewer.dialog.open") is True
    browser.until(
        "[...document.querySelectorAll('.pair img')].every((image) => image.complete && image.naturalWidth)"
    )
    (points,) = browser.ask(
        "[...document.querySelectorAll('.pair polygon')].map((one) => one.getAttribute('points'))"
    )
    np.testing.assert_allclose([float(value) for value in points.split()], runs.QUAD.ravel(), atol=1e-3)
    browser.press("ArrowRight")
    assert "002.jpg" in browser.text(".pair h3")
    browser.press("Escape")
    assert browser.ask("viewer.dialog.open") is False
    browser.click_on(".enlarge")
    assert browser.ask("viewer.dialog.open") is True
    browser.click(4, 4)  # beside it
    assert browser.ask("viewer.dialog.open") is False
    assert browser.problems == []


def test_what_the_legend_names_is_counted_and_switched(browser: Browser, drive: str) -> None:
    look(browser, drive)
    legend = browser.text(".legend")
    assert "5 fixes, error" in legend and "1 no fix" in legend and "false fix" in legend and "25 m" in legend
    before = browser.ask("viewer.map.canvas.toDataURL()")
    browser.click_on(".legend .mark.ellipse")
    browser.until(f"viewer.map.canvas.toDataURL() !== {json.dumps(before)}")
    assert browser.ask("viewer.on.ellipses") is True


def test_drag_wheel_and_keys_move_the_map(browser: Browser, drive: str) -> None:
    look(browser, drive)
    browser.drag((500, 300), (510, 310))  # from now on no change of size fits the map anew
    settled(browser)
    x, y = on_map(browser, "query", 0)
    browser.drag((500, 300), (540, 320))
    assert on_map(browser, "query", 0) == pytest.approx((x + 40, y + 20), abs=0.5)
    x, y = on_map(browser, "query", 2)
    before = browser.ask("viewer.map.scale")
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-120)
    browser.until(f"viewer.map.scale > {before}")
    browser.until("!viewer.map.waiting")
    assert on_map(browser, "query", 2) == pytest.approx((x, y), abs=0.5)  # what is pointed at stays
    browser.press("0")
    browser.until("!viewer.map.waiting")
    assert browser.ask("viewer.map.scale") == pytest.approx(before)


@pytest.mark.parametrize("turned", [False, True])
def test_a_street_fills_the_map_whichever_way_it_runs(browser: Browser, turned: bool) -> None:
    along, across = [10.0 * row for row in range(30)], [0.2 * (row % 2) for row in range(30)]
    places = {"x": across if turned else along, "y": along if turned else across}
    with served(Still(scene("gallery", "street", GROUND, places=places))) as address:
        look(browser, address)
        _, _, width, _ = browser.box(".ground")
        ends = [on_map(browser, "place", row) for row in (0, 29)]
        assert abs(ends[1][0] - ends[0][0]) > 0.85 * width
        assert browser.ask("viewer.map.turn") == int(turned)
        if turned:  # north is right, then up again on demand
            assert ends[1][0] > ends[0][0]
            browser.click_on(".compass")
            browser.until("!viewer.map.waiting")
            start, end = (on_map(browser, "place", row) for row in (0, 29))
            assert end[1] < start[1] and abs(end[0] - start[0]) < 2


def test_a_town_has_its_north_up(browser: Browser) -> None:
    with served(Still(scene("gallery", "town", GROUND, places={"x": [0.0, 90.0], "y": [0.0, 180.0]}))) as address:
        look(browser, address)
        assert browser.ask("viewer.map.turn") == 0


def test_hostile_names_are_only_text(browser: Browser) -> None:
    places = {"x": [0.0, 9.0], "y": [0.0, 9.0], "name": [HOSTILE, "b.jpg"]}
    left_out = [[f"</script>{HOSTILE}", f"reason {HOSTILE}"]]
    shown = scene("gallery", HOSTILE, GROUND, [HOSTILE], [HOSTILE], places=places, left_out=left_out)
    with served(Still(shown, {"place": picture})) as address:
        look(browser, address)
        browser.click_on("summary")
        assert HOSTILE in browser.text(".shown")
        browser.mouse("mouseMoved", *on_map(browser, "place", 0))
        assert HOSTILE in browser.text(".tip")
        browser.click(*on_map(browser, "place", 0))
        assert HOSTILE in browser.text(".shown h3")
        browser.press("Enter")
        assert HOSTILE in browser.text(".pair h3")
        assert browser.ask("document.querySelectorAll('img[src=x]').length") == 0
        assert browser.ask("document.title") == f"gallery {HOSTILE} · geowarp"
        assert browser.problems == []


def test_a_gallery_shows_tags_and_own_positions_and_every_place_by_keys(browser: Browser) -> None:
    own = {
        "own_x": [1.0, None, 40.0],
        "own_y": [2.0, None, 0.0],
        "own_heading": [90.0, None, 0.0],
        "own_std": [0.4, None, 0.5],
    }
    places = {"x": [0.0, 20.0, 90.0], "y": [0.0, 0.0, 0.0], "name": ["a", "b", "c"], "heading": [None] * 3, **own}
    shown = scene(
        "gallery", "g", GROUND, places={**places, "suspicious": [2]}, points={"x": [5.0], "y": [5.0], "of": 1}
    )
    with served(Still(shown, {"place": picture})) as address:
        look(browser, address)
        legend = browser.text(".legend")
        for entry in ("2 aligned", "1 not tied", "1 suspicious tag", "1 points of the structure"):
            assert entry in legend
        for state in ("aligned, 2.2 m from its tag", "not tied to others", "suspicious tag, off by 50.0 m"):
            browser.press("ArrowRight")
            assert state in browser.text(".shown")
        assert browser.ask("viewer.places.X[2]") == 40.0
        browser.click_on(".switch button:first-child")
        browser.until("viewer.places.X[2] === 90")
        assert browser.problems == []


def test_several_photographs_of_one_spot_are_shown_one_after_the_other(browser: Browser) -> None:
    places = {"x": [0.0, 0.0, 0.0, 30.0], "y": [0.0] * 4, "name": ["a", "b", "c", "d"]}
    with served(Still(scene("gallery", "g", GROUND, places=places))) as address:
        look(browser, address)
        seen = []
        for _ in range(4):
            browser.click(*on_map(browser, "place", 0))
            seen.append(browser.text(".shown h3"))
        assert seen == ["a", "b", "c", "a"]


def test_near_places_have_their_photographs_on_the_map(browser: Browser) -> None:
    places = {"x": [0.0, 1.0, 60.0], "y": [0.0] * 3, "name": ["a", "b", "c"]}
    with served(Still(scene("gallery", "g", GROUND, places=places), {"place": picture})) as address:
        look(browser, address)
        browser.until("viewer.boxes.length === 2")  # b's would cover a's
        left, top, _, _ = browser.box(".ground")
        (x, y), (_, below) = browser.ask("viewer.boxes[1]")[:2], on_map(browser, "place", 2)
        assert top + y + 66 < below  # above its place
        browser.click(left + x + 44, top + y + 20)
        assert browser.text(".shown h3") == "c"
        browser.click_on(".legend .mark.photograph")
        browser.until("viewer.boxes.length === 0")
        assert browser.problems == []


def test_positions_are_said_in_degrees(browser: Browser) -> None:
    latitude, longitude = [45.0, 45.0123, 44.99], [9.0, 9.0456, 8.9]
    where = GROUND(latitude, longitude)
    with served(Still(scene("gallery", "g", GROUND, places=positions(where)))) as address:
        look(browser, address)
        for north, east in zip(latitude, longitude, strict=True):
            browser.press("ArrowRight")
            assert f"{north:.6f}, {east:.6f}" in browser.text(".shown")


def test_a_hundred_thousand_places_are_found_by_a_click(browser: Browser) -> None:
    shown = large(100_000, 50_000)
    with served(shown) as address:
        look(browser, address)
        places = shown.content["places"]
        where = np.stack([places["own_x"], places["own_y"]], axis=1)
        browser.ask("viewer.map.middle = [3000, 3000], viewer.map.zoom(60)")
        browser.until("!viewer.map.waiting")
        left, top, _, _ = browser.box(".ground")
        x, y = on_map(browser, "place", int(np.argmin(np.hypot(*(where - 3000).T))))
        browser.click(x + 2, y + 2)
        there = browser.ask(f"viewer.map.ground({x + 2 - left}, {y + 2 - top})")
        nearest = int(np.argmin(np.hypot(*(where - there).T)))  # by brute force
        assert browser.text(".shown h3") == f"street/{nearest:06}.jpg"
        assert browser.problems == []


@pytest.mark.parametrize("dark", [False, True])
def test_narrow_windows_and_both_themes(browser: Browser, drive: str, dark: bool) -> None:
    look(browser, drive, 420, 900)
    browser.dark(dark)
    browser.until("!viewer.map.waiting")
    assert browser.ask("document.documentElement.scrollWidth") <= 420  # nothing lies beyond the edge
    for selector in (".ground", ".legend", ".timeline", ".shown", ".tools"):
        left, _, width, _ = browser.box(selector)
        assert left >= 0 and left + width <= 420 and width > 30, selector
    paper = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 150) == dark
    browser.click(*on_map(browser, "query", 1))
    assert "001.jpg" in browser.text(".shown h3")
    assert browser.problems == []


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of #rrggbb."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_have_the_contrast_that_is_wanted_for_text() -> None:
    style = (ASSETS / "report.css").read_text()
    themes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colour = dict(re.findall(r"--(\w+): (#\w{6})", theme))
        for ground in ("paper", "card"):
            for ink in ("ink", "soft", "good", "doubt", "bad", "accent"):
                light, dark = sorted((luminance(colour[ink]), luminance(colour[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def test_nothing_is_asked_of_the_network(browser: Browser, drive: str) -> None:
    look(browser, drive)
    browser.press("ArrowRight")
    assert len(browser.asked) > 6
    assert [address for address in browser.asked if not address.startswith(drive)] == []


class Chessboard(BaseHTTPRequestHandler):
    """Tiles of one colour: black where x + y is even, else white."""

    def do_GET(self) -> None:
        _, x, y = map(int, re.findall(r"\d+", self.path))
        pixels = np.full((4, 4, 3), 255 * ((x + y) % 2), np.uint8)
        data = cv2.imencode(".png", pixels)[1].tobytes()
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("turned", [0, 1])
def test_tiles_lie_where_they_belong(browser: Browser, tmp_path: Path, turned: int) -> None:
    places = {"x": [-50.0, 50.0], "y": [-50.0, 50.0], "name": ["a", "b"]}
    with ThreadingHTTPServer(("127.0.0.1", 0), Chessboard) as tiles:
        threading.Thread(target=tiles.serve_forever, daemon=True).start()
        shown = Still(scene("gallery", "g", GROUND, places=places))
        with served(shown, f"http://127.0.0.1:{tiles.server_port}/{{z}}/{{x}}/{{y}}.png") as address:
            look(browser, address)
            browser.ask(f"viewer.on.places = false, viewer.map.setTurn({turned})")
            browser.until("!viewer.map.waiting && viewer.map.tiles.kept.size > 3")
            browser.until("[...viewer.map.tiles.kept.values()].every((image) => image.complete)")
            browser.until("!viewer.map.waiting")
            names = browser.ask("[...viewer.map.tiles.kept.keys()].pop()")
            browser.picture(tmp_path / "seen.png")
            left, top, _, _ = browser.box(".ground")
            at, scale = browser.ask("viewer.map.at(0, 0)"), float(browser.ask("viewer.map.scale"))
            attribution = browser.text(".attribution")
        tiles.shutdown()
    assert attribution.startswith("127.0.0.1")
    # 45° N 9° E (https://wiki.openstreetmap.org/wiki/Slippy_map_tilenames): x = 2^z (9 + 180) / 360,
    # y = 2^z (1 - asinh(tan 45°) / π) / 2; asinh(1) = 0.8813735870
    level = int(re.findall(r"/(\d+)/\d+/\d+\.png", names)[0])
    x, y = 2**level * 189 / 360, 2**level * (1 - 0.8813735870195430 / np.pi) / 2
    side = 2 * np.pi * 6378137 * np.cos(np.pi / 4) / 2**level * scale  # px
    assert 150 < side < 400
    seen = cv2.imread(str(tmp_path / "seen.png"))
    assert seen is not None
    for column in (0, 1):  # 5 px on either side of both edges of the tile in which the origin lies
        for east in (-5.0, 5.0):
            for south in (-5.0, 5.0):
                right, down = (int(x) + column - x) * side + east, (int(y) - y) * side + south
                screen = (at[0] - down, at[1] + right) if turned else (at[0] + right, at[1] + down)
                pixel = seen[round(top + screen[1]), round(left + screen[0])]
                white = (int(x) + column - (east < 0) + int(y) - (south < 0)) % 2
                assert (pixel.mean() > 200) == bool(white), (column, east, south)
