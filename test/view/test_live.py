"""The answers of a running node: joined by their stamps, told once, begun anew when time jumps back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from geowarp_ros.evaluation.drive import NS
from geowarp_ros.evaluation.scene import Ground
from geowarp_ros.gallery.making.build import set_datum
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.pictures import encode_jpeg
from geowarp_ros.view import live, server
from geowarp_ros.view.live import COLUMNS, Live
from geowarp_ros.view.shown import NoPictureError
from test.browser import Browser
from test.view.scenes import served
from test.view.test_server import Client

COVARIANCE = np.diag([4.0, 9.0, 1e6])


class Clock:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def tell(to: Live, second: float, north: float = 0.0, fix: bool = True) -> int:
    stamp = round(second * NS)
    to.answer(stamp, 45.0 + north, 9.0, COVARIANCE, fix=fix)
    return stamp


def test_an_answer_is_a_row_with_its_claimed_radius_and_place() -> None:
    seen = Live("/n")
    tell(seen, 5.0)
    tell(seen, 5.5, north=1e-5)
    drive = seen.scene()["drive"]
    assert drive["t"] == [0.0, 0.5] and drive["title"] == ["0.0 s", "0.5 s"]
    assert drive["x"] == [0.0, 0.0] and drive["y"] == pytest.approx(
        [0.0, 1.11], abs=0.01
    )  # 1e-5° of 40,000 km / 360
    # the long axis is 3 m; 95 % of a Gaussian in the plane lie within sqrt(5.991) of its standard deviations
    assert drive["radius"] == pytest.approx([3.0 * 5.991**0.5] * 2, abs=0.01)
    assert (drive["ee"][0], drive["en"][0], drive["nn"][0]) == (4.0, 0.0, 9.0)
    assert all(len(drive[name]) == 2 for name in COLUMNS)
    json.dumps(seen.scene(), allow_nan=False)


def test_details_come_before_or_after_their_answer() -> None:
    seen = Live("/n")
    stamp = round(7 * NS)
    seen.detail(stamp, heading=90.0, heading_std=1.0)
    seen.pictured(stamp, b"jpeg of 7")
    tell(seen, 7.0)
    tell(seen, 8.0)
    version = seen.scene()["version"]
    seen.detail(8 * NS, heading=45.0)
    drive = seen.scene()["drive"]
    assert drive["heading"] == [90.0, 45.0] and drive["picture"] == [0, None]
    assert seen.picture("live", 0) == b"jpeg of 7"
    news = seen.news(version)
    assert [row for row, _ in news["rows"]] == [1] and news["rows"][0][1]["heading"] == 45.0
    assert seen.news(news["version"])["rows"] == []
    for kind, row in (("live", 1), ("live", -1), ("live", 9), ("place", 0), ("query", 0)):
        with pytest.raises(NoPictureError):
            seen.picture(kind, row)


def test_a_guess_of_a_no_fix_lies_where_its_candidate_does() -> None:
    seen = Live("/n")
    tell(seen, 1.0, fix=False)  # carries the datum: 45° N, 9° E
    seen.candidate(1 * NS, "gallery/a.jpg", 30.0, -40.0)
    drive = seen.scene()["drive"]
    assert drive["status"] == ["no_fix"] and drive["candidate"] == ["gallery/a.jpg"]
    # within the 0.7 % by which the map's sphere is off
    assert (drive["x"][0], drive["y"][0]) == pytest.approx((30.0, -40.0), rel=0.007)
    tell(seen, 2.0, north=1e-4)
    seen.candidate(2 * NS, "gallery/b.jpg", 30.0, -40.0)
    assert seen.scene()["drive"]["y"][1] == pytest.approx(11.1, abs=0.1)  # a fix stays where it is


def test_the_gallery_is_shown_and_the_candidate_found_in_it(gallery: Path) -> None:
    opened = Gallery.open(gallery)
    seen = Live("/n", opened)
    shown = seen.scene()
    assert len(shown["places"]["x"]) == 7 and shown["pictures"] == ["live", "place"]
    tell(seen, 1.0)
    seen.candidate(1 * NS, "003.png", 0.0, 0.0)
    assert seen.scene()["drive"]["place"] == [3]
    assert np.array_equal(seen.picture("place", 3), opened.image(3))
    assert shown["run"] == seen.scene()["run"]  # the ground was known: the page need not begin anew


def test_a_guess_lies_where_its_candidate_does_whatever_the_map_frame_is(gallery: Path, tmp_path: Path) -> None:
    shutil.copytree(gallery, tmp_path / "g")
    middle = Gallery.open(tmp_path / "g").frame
    latitude, longitude, _ = middle.to_geodetic([500.0, -300.0, 0.0])
    set_datum(tmp_path / "g", (float(latitude), float(longitude), 0.0))
    opened = Gallery.open(tmp_path / "g")
    place = opened.places[3]
    east, north, _ = opened.datum.to_enu(place.latitude_deg, place.longitude_deg)

    def guessed(with_gallery: Gallery | None, name: str, origin: bool) -> tuple[float, float]:
        seen = Live("/n", with_gallery)
        if origin:
            seen.answer(1 * NS, float(latitude), float(longitude), COVARIANCE, fix=False)
        else:
            tell(seen, 1.0, fix=False)
        seen.candidate(1 * NS, name, float(east), float(north))
        shown = seen.scene()
        ground = Ground(*shown["datum"])(place.latitude_deg, place.longitude_deg)
        return shown["drive"]["x"][0] - ground[0], shown["drive"]["y"][0] - ground[1]

    for given in (
        (opened, place.name, True),
        (opened, place.name, False),  # the node's parameters put the map frame elsewhere
        (opened, "of another gallery.png", True),
        (None, place.name, True),
    ):
        # the map's sphere is off by 0.7 % of 580 m
        assert np.hypot(*guessed(*given)) < (5.0 if given[0] is None else 0.5), given


def test_a_jump_back_in_time_begins_anew_and_a_repeated_stamp_is_nothing_new() -> None:
    seen = Live("/n")
    tell(seen, 100.0)
    tell(seen, 101.0)
    run = seen.scene()["run"]
    tell(seen, 101.0)
    tell(seen, 100.5)
    assert len(seen.scene()["drive"]["t"]) == 2 and seen.scene()["run"] == run
    tell(seen, 3.0)  # a bag that loops, with its /clock
    shown = seen.scene()
    assert shown["drive"]["t"] == [0.0] and shown["run"] != run
    assert seen.news(0)["run"] == shown["run"]


def test_a_drive_that_begins_anew_shows_its_own_pictures() -> None:
    """Its rows count from 0 again, and neither the server nor a browser may answer with what they kept."""
    seen = Live("/n")
    asking = Client(server.application(seen), "127.0.0.1:8460")

    def first_picture() -> tuple[str, bytes]:
        address = f"/picture/live/0?width=480&of={asking.get('/scene.json').json()['session']}"
        return address, asking.get(address).content

    seen.pictured(tell(seen, 100.0), b"first drive")
    before, data = first_picture()
    assert data == b"first drive" and first_picture() == (before, data)
    seen.pictured(tell(seen, 3.0), b"second drive")
    after, data = first_picture()
    assert after != before and data == b"second drive"


def test_a_long_life_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_ANSWERS", 3)
    monkeypatch.setattr(live, "PICTURES_KEPT", 2)
    seen = Live("/n")
    for second in range(1, 4):
        seen.pictured(tell(seen, second), b"jpeg")
    with pytest.raises(NoPictureError):
        seen.picture("live", 0)
    assert seen.picture("live", 2) == b"jpeg"
    tell(seen, 4.0)
    assert seen.scene()["drive"]["t"] == [0.0]


def test_it_says_how_often_and_how_long_ago() -> None:
    clock = Clock()
    seen = Live("/n", now=clock)
    assert seen.news(0)["state"] == "no answer of /n yet" and not seen.news(0)["fresh"]
    for count in range(5):
        clock.s += 0.25
        tell(seen, 1.0 + count)
    seen.says("localizing")
    assert seen.news(0)["state"] == "4.0 answers a second · localizing"
    clock.s += 10
    assert seen.news(0)["state"] == "last answer 10 s ago · localizing" and not seen.news(0)["fresh"]


def test_the_page_follows_until_one_looks_back(tmp_path: Path) -> None:
    seen = Live("/n", now=Clock())
    jpeg = encode_jpeg(np.full((40, 80, 3), 99, np.uint8))
    with served(seen) as address, Browser(tmp_path) as browser:
        browser.size(1200, 800)
        browser.open(address)
        browser.until("window.viewer?.map?.x0")
        assert "waiting for the first answer" in browser.text(".shown")
        browser.ask("window.old = true")
        seen.pictured(tell(seen, 1.0), jpeg)
        browser.until("!window.old && window.viewer?.drive?.t.length === 1")  # it knows now where on earth
        tell(seen, 2.0, north=1e-4)
        browser.until("viewer.chosen?.row === 1")
        assert "1.0 s" in browser.text(".shown h3")
        browser.press("ArrowLeft")
        browser.until("document.querySelector('.shown img')?.naturalWidth === 80")
        tell(seen, 3.0, fix=False)
        browser.until("viewer.drive.t.length === 3")
        assert browser.ask("viewer.chosen.row") == 0
        browser.click_on(".timeline input")
        browser.until("viewer.chosen.row === 2")
        assert "no fix" in browser.text(".shown") and "1 no fix" in browser.text(".legend")
        assert browser.problems == []


def test_ground_of_the_map_by_hand() -> None:
    ground = Ground(60.0, 179.9999)
    # a degree of longitude at 60° N is half of one at the equator, 6378137 m * π / 180; over the antimeridian, too
    (near,) = ground([60.0], [-179.9999])
    assert near == pytest.approx([0.0002 * 111319.4908 / 2, 0.0], abs=1e-3)
    (north,) = ground([60.0001], [179.9999])
    assert north == pytest.approx([0.0, 1e-4 * 111319.4908], abs=1e-3)
