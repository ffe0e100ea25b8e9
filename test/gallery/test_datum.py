"""The origin of the map frame: written at the build, kept by every change, moved by hand alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.index.indexing import IndexOptions
from geowarp_ros.gallery.making.build import (
    add_to_gallery,
    build_gallery,
    index_gallery,
    remove_from_gallery,
    set_datum,
)
from geowarp_ros.gallery.making.upgrade import upgrade_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.readers import Source, read_source
from test.gallery.conftest import LATITUDE, LONGITUDE, ColourDescriber, MakeSource


def stored(gallery: Path) -> Any:
    return json.loads((gallery / "gallery.json").read_text())["datum"]


def without_datum(gallery: Path) -> None:
    """As a version made it that stored none."""
    path = gallery / "gallery.json"
    manifest = json.loads(path.read_text())
    del manifest["datum"]
    path.write_text(json.dumps(manifest))


def test_it_is_the_middle_at_the_build_and_stays_with_every_change(
    gallery: Path, source: Source, make_source: MakeSource, describer: ColourDescriber
) -> None:
    opened = Gallery.open(gallery)
    datum = opened.datum.datum
    # by hand: seven places 1e-4° apart northwards have their middle at the fourth
    assert datum[:2] == pytest.approx((LATITUDE + 3e-4, LONGITUDE), abs=1e-9)
    assert datum[2] == opened.frame.datum_altitude_m
    assert tuple(stored(gallery)) == datum

    remove_from_gallery(gallery, ["004.png", "005.png", "006.png"])
    moved_m = Gallery.open(gallery).datum.to_enu(*Gallery.open(gallery).frame.datum)
    # how far the map frame used to move: a degree of latitude is 111 130 m at 45°
    assert moved_m[:2] == pytest.approx([0.0, -1.5e-4 * 111_130], abs=0.01)
    assert Gallery.open(gallery).datum.datum == datum
    add_to_gallery(read_source(make_source(5, "later", first=40)), describer, gallery)
    assert Gallery.open(gallery).datum.datum == datum
    upgrade_gallery(gallery, describer=ColourDescriber("beef"))
    index_gallery(gallery, IndexOptions())
    assert Gallery.open(gallery).datum.datum == datum
    build_gallery(
        read_source(make_source(3, "anew", first=60)), ColourDescriber("beef"), gallery, replace_existing=True
    )
    assert len(Gallery.open(gallery)) == 3 and Gallery.open(gallery).datum.datum == datum


def test_by_hand_it_moves_and_comes_back(gallery: Path) -> None:
    assert set_datum(gallery, (LATITUDE, LONGITUDE, 12.5)).datum == (LATITUDE, LONGITUDE, 12.5)
    opened = Gallery.open(gallery)
    assert opened.datum.datum == (LATITUDE, LONGITUDE, 12.5)
    assert opened.frame.datum != opened.datum.datum and opened.verify() == []
    assert set_datum(gallery).datum == opened.frame.datum == Gallery.open(gallery).datum.datum


@pytest.mark.parametrize(
    "datum", [(91.0, 0.0, 0.0), (0.0, -181.0, 0.0), (float("nan"), 0.0, 0.0), (0.0, 0.0, float("inf"))]
)
def test_a_datum_that_is_nowhere_is_refused(gallery: Path, datum: tuple[float, float, float]) -> None:
    before = stored(gallery)
    with pytest.raises(GalleryError, match=re.escape("expected a latitude of -90 to 90°")):
        set_datum(gallery, datum)
    assert stored(gallery) == before


def test_a_manifest_with_a_datum_that_is_nowhere_is_refused(gallery: Path) -> None:
    path = gallery / "gallery.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"datum": [95.0, 9.0, 0.0]}))
    with pytest.raises(GalleryError, match=r"gallery\.json: datum\.0: input should be less than or equal to 90"):
        Gallery.open(gallery)


def test_a_gallery_without_one_has_its_middle_and_gets_none_by_a_change(
    gallery: Path, make_source: MakeSource, describer: ColourDescriber
) -> None:
    without_datum(gallery)
    opened = Gallery.open(gallery)
    assert opened.datum is opened.frame
    add_to_gallery(read_source(make_source(4, "later", first=40)), describer, gallery)
    later = Gallery.open(gallery)
    assert later.datum.datum != opened.datum.datum and stored(gallery) is None
    set_datum(gallery)
    assert Gallery.open(gallery).datum.datum == later.frame.datum
