"""A run's scene: seconds from its start, errors and guesses as images.csv has them, pictures by row."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation import exports
from geowarp_ros.evaluation.drive import DriveImage
from geowarp_ros.evaluation.judging import figures
from geowarp_ros.evaluation.run import Run
from geowarp_ros.evaluation.scene import quad_of, quad_text, title_of
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.pictures import warp_to_frame
from geowarp_ros.readers import Skipped
from geowarp_ros.view.runs import show_run
from geowarp_ros.view.shown import NoPictureError
from test.evaluation import runs
from test.view.scenes import written


def test_images_in_seconds_from_the_start_with_their_errors(tmp_path: Path) -> None:
    shown = show_run(written(tmp_path)).scene()
    drive = shown["drive"]
    assert drive["t"] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert drive["error"] == pytest.approx([1.0, 3.0, 4.0, 60.0, 2.0, 8.0], abs=1e-3)
    assert drive["status"] == ["fix"] * 4 + ["no_fix", "fix"] and drive["reason"][4] == "low_confidence"
    # each answer is north of its truth by the error, the no-fix's guess too; the map's sphere is up to 0.7 % off
    north = np.subtract(drive["y"], drive["ty"])
    np.testing.assert_allclose(north, [1.0, 3.0, 4.0, 60.0, 2.0, 8.0], rtol=0.007, atol=0.011)
    np.testing.assert_allclose(np.diff(drive["tx"]), 5.0, rtol=0.007, atol=0.011)
    assert drive["ee"] == [25.0] * 6 and drive["en"] == [0.0] * 6
    assert drive["candidate"][2] == "gallery/2.jpg" and drive["place"] == [None] * 6
    assert drive["query_quad"][0] == pytest.approx(runs.QUAD.ravel().tolist())
    assert shown["facts"][0] == "83.3 % available" and "1 of 5 fixes beyond 25 m" in shown["facts"][1]
    assert shown["facts"][3].startswith(
        "1 of 6 guesses was wrong by more than 25 m at any threshold (95 %: 3 to 56 %"
    )
    assert shown["pictures"] == []
    json.dumps(shown, allow_nan=False)


def test_a_stamp_is_no_name_and_a_file_is() -> None:
    stamp, first = 1_777_600_005_500_000_000, 1_777_600_000_000_000_000
    assert title_of(f"drive/camera/image_raw/{stamp}", stamp, first) == "5.5 s"
    assert title_of("photos/IMG_1003.JPG", stamp, first) == "IMG_1003.JPG"


def test_quads_come_back_and_what_is_none_is_none() -> None:
    assert quad_of(quad_text(runs.QUAD)) == pytest.approx(runs.QUAD.ravel().tolist(), abs=1e-4)
    for text in ("", "1 2 3", "1 2 3 4 5 6 7 x", "1 2 3 4 5 6 7 nan", "inf 0 0 0 0 0 0 0"):
        assert quad_of(text) is None
    assert quad_text(None) == ""


def test_pictures_are_read_from_the_drive_when_they_are_asked_for(tmp_path: Path, gallery: Path) -> None:
    opened: list[int] = []

    def images() -> list[DriveImage]:
        opened.append(1)
        return [DriveImage(f"drive/{row:03}.jpg", 0, partial(runs.picture, row)) for row in range(4)]

    places = Gallery.open(gallery)
    shown = show_run(written(tmp_path), images, places)
    assert shown.scene()["pictures"] == ["candidate-warped", "place", "query", "query-warped"]
    assert opened == []
    np.testing.assert_array_equal(shown.picture("query", 2), runs.picture(2))
    expected = warp_to_frame(runs.picture(1), np.round(runs.QUAD, 4))
    np.testing.assert_array_equal(shown.picture("query-warped", 1), expected)
    np.testing.assert_array_equal(shown.picture("place", 3), places.image(3))
    assert opened == [1]

    def slowly() -> list[DriveImage]:
        time.sleep(0.2)
        return images()

    slow = show_run(written(tmp_path), slowly, places)
    with ThreadPoolExecutor(4) as pool:  # a page asks for several at once
        list(pool.map(lambda row: slow.picture("query", row), range(4)))
    assert opened == [1, 1]
    for kind, row in (
        ("query", 4),
        ("query", 6),
        ("query", -1),
        ("candidate-warped", 0),
        ("candidate-warped", 99),
        ("x", 0),
    ):
        with pytest.raises(NoPictureError):
            shown.picture(kind, row)


def test_images_without_a_true_position_are_shown_where_their_fix_is(tmp_path: Path) -> None:
    whole = runs.run()
    half = tuple(replace(item, truth=None) if row % 2 else item for row, item in enumerate(whole.answered))
    drive = show_run(written(tmp_path, replace(whole, answered=half))).scene()["drive"]
    assert [error is None for error in drive["error"]] == [False, True] * 3
    assert [x is None for x in drive["tx"]] == [False, True] * 3
    assert None not in drive["x"]


@pytest.mark.parametrize("name", ["results.json", "run.json", "images.csv"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b"\xff\xfe", b"image,stamp_ns\na,x\n", b"null"])
def test_a_run_that_is_not_whole_is_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    folder = written(tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    if name == "run.json" and content in (b"[]", b"{}", b"null"):
        assert show_run(folder).scene()["drive"]["t"]  # says nothing of where the drive is, and is not needed
        return
    with pytest.raises(SourceError, match=r"no finished run|damaged|no answered image"):
        show_run(folder)


def test_an_unreadable_image_is_no_row(tmp_path: Path) -> None:
    run: Any = runs.run(unreadable=(Skipped("drive/bad.jpg", "truncated"),))
    assert isinstance(run, Run)
    assert len(show_run(written(tmp_path, run)).scene()["drive"]["t"]) == 6
    assert figures(run)["unreadable"] == 1
    assert "bad.jpg" in (tmp_path / "images.csv").read_text()
    assert exports.COLUMNS[-2:] == ("query_quad", "candidate_quad")
