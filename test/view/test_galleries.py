"""A gallery's scene: each place where its tag says, its own pose beside it, and nothing outside its folder."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geowarp_ros.attitude import BODY_FROM_OPTICAL
from geowarp_ros.gallery.making.build import build_gallery, remove_from_gallery
from geowarp_ros.gallery.manifest import AlignmentSummary, SuspiciousTag
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.keypoints.detector import KeypointConfig
from geowarp_ros.view import galleries
from geowarp_ros.view.galleries import show_gallery
from geowarp_ros.view.shown import NoPictureError
from test.gallery.alignment.fakes import DATUM, alignment_for, put
from test.gallery.conftest import ColourDescriber, Views


def test_places_lie_where_their_tags_say(gallery: Path) -> None:
    opened = Gallery.open(gallery)
    shown = show_gallery(opened).scene()
    places = shown["places"]
    assert places["name"] == [f"{row:03}.png" for row in range(7)]
    assert places["heading"] == [10.0 * row for row in range(7)]
    assert places["altitude"] == [100.0 + row for row in range(7)]
    assert places["split"] == ["a", "b", "a", "b", "a", "b", "a"]
    enu = opened.positions_enu
    # the map's sphere is up to 0.7 % off
    np.testing.assert_allclose(np.stack([places["x"], places["y"]], axis=1), enu[:, :2], atol=0.007 * 34 + 0.01)
    assert shown["points"] is None and "own_x" not in places and shown["left_out"] == []
    assert "geowarp gallery align" in shown["notes"][0]
    json.dumps(shown, allow_nan=False)


def test_removed_places_are_gone_and_pictures_are_those_of_the_rest(gallery: Path) -> None:
    remove_from_gallery(gallery, ["000.png", "004.png"])
    opened = Gallery.open(gallery)
    shown = show_gallery(opened)
    assert shown.scene()["places"]["name"] == ["001.png", "002.png", "003.png", "005.png", "006.png"]
    for row in range(5):
        np.testing.assert_array_equal(shown.picture("place", row), opened.image(row))
    for row in (-1, 5):
        with pytest.raises(NoPictureError, match="expected 0 to 4"):
            shown.picture("place", row)


def test_an_alignment_gives_own_positions_headings_points_and_suspicious_tags(
    views: Views, tmp_path: Path
) -> None:
    describer = ColourDescriber(resolution=48)
    path = build_gallery(views(5), describer, tmp_path / "g", keypoints=KeypointConfig(count=20)).gallery
    half = np.sqrt(0.5)
    east = np.array([[half, half, 0.0], [-half, half, 0.0], [0.0, 0.0, 1.0]])  # x ahead: heading 135°
    given = alignment_for(path)
    given = replace(given, rotation=np.where(given.tied[:, None, None], east @ BODY_FROM_OPTICAL, np.nan))
    put(path, given)
    opened = Gallery.open(path)
    stored = opened.manifest.alignment
    assert stored is not None
    summary = AlignmentSummary(
        photographs=5, tied=4, points=9, suspicious=(SuspiciousTag(name="002.png", off_m=9.0),)
    )
    opened.manifest = opened.manifest.model_copy(
        update={"alignment": stored.model_copy(update={"summary": summary})}
    )
    shown = show_gallery(opened).scene()
    places = shown["places"]
    assert (places["own_x"][0], places["own_heading"][0], places["own_std"][0]) == (None, None, None)  # not tied
    latitude, longitude, _ = LocalFrame(*DATUM).to_geodetic(given.position_m[1:])
    expected = opened.frame.to_enu(latitude, longitude)[:, :2]
    found = np.stack([places["own_x"][1:], places["own_y"][1:]], axis=1).astype(float)
    np.testing.assert_allclose(found, expected, atol=0.3)  # 0.7 % of some 30 m
    assert places["own_heading"][1:] == [135.0] * 4
    assert places["own_std"][1:] == pytest.approx(given.position_std_m[1:], abs=0.006)
    assert places["suspicious"] == [2]
    assert shown["points"]["of"] == 9 and len(shown["points"]["x"]) == 9
    remove_from_gallery(path, ["003.png"])
    assert "3 aligned" in show_gallery(Gallery.open(path)).scene()["facts"][-1], "of those that are there"


def test_very_many_points_are_thinned(views: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    describer = ColourDescriber(resolution=48)
    path = build_gallery(views(5), describer, tmp_path / "g", keypoints=KeypointConfig(count=20)).gallery
    put(path, alignment_for(path))
    monkeypatch.setattr(galleries, "MOST_POINTS", 4)
    points = show_gallery(Gallery.open(path)).scene()["points"]
    assert (points["of"], len(points["x"])) == (9, 3)


def test_what_was_left_out_is_named_with_its_reason(gallery: Path) -> None:
    for part, names in (("", ["a.jpg", "<b>.jpg"]), ("-1", ["c.jpg"])):
        with (gallery / f"left_out{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["name", "reason", "source"], *([name, "no GPS", "x"] for name in names)])
    (gallery / "left_out-2.csv").write_bytes(b"\xff\xfe\x00 no table")
    left = show_gallery(Gallery.open(gallery)).scene()["left_out"]
    assert sorted(left) == [["<b>.jpg", "no GPS"], ["a.jpg", "no GPS"], ["c.jpg", "no GPS"]]


def test_a_copy_that_lies_outside_of_the_gallery_is_not_shown(gallery: Path, tmp_path: Path) -> None:
    """An edited places.csv names a photograph elsewhere on this machine; so does a link."""
    segment, outside = gallery / "segments" / "0001", tmp_path / "p.jpg"
    first, second = (next((segment / "images").glob(f"00000{row}*")) for row in range(2))
    outside.write_bytes(first.read_bytes())
    first.unlink()
    first.symlink_to(outside)
    named = f"images/{second.name}"
    climbs = "../../.." + "p.jpg".rjust(len(named) - 8, "/")  # of the same length: the table's offsets stay
    table = (segment / "places.csv").read_text()
    (segment / "places.csv").write_text(table.replace(named, climbs))
    opened = Gallery.open(gallery)
    np.testing.assert_array_equal(opened.image(1), opened.image(0))  # both read the one outside
    for row in (0, 1):
        with pytest.raises(NoPictureError, match="outside of the gallery"):
            show_gallery(opened).picture("place", row)
