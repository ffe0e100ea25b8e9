"""What was built is what is opened; what is not whole is refused by name."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.making.build import add_to_gallery, build_gallery, remove_from_gallery
from geowarp_ros.gallery.places import Row
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.images import read_image
from geowarp_ros.readers import Source, read_source
from geowarp_ros.types import Near, Place
from test.gallery.conftest import LATITUDE, LONGITUDE, ColourDescriber, MakeSource, shade

T = TypeVar("T")


def test_round_trip(source: Source, describer: ColourDescriber, gallery: Path) -> None:
    opened = Gallery.open(gallery)
    assert len(opened) == 7
    assert tuple(opened.places) == tuple(image.place for image in source.images)
    assert opened.splits == ("a", "b", "a", "b", "a", "b", "a")
    assert opened.model_fingerprint == describer.fingerprint
    assert opened.manifest.model.config.model_dump() == describer.model.config.model_dump()
    images = [image.read() for image in source.images]
    descriptors, local_features = ColourDescriber().describe_batch(images)
    np.testing.assert_array_equal(opened.descriptors, descriptors)
    np.testing.assert_array_equal(opened.local_features(range(7)), local_features)
    np.testing.assert_array_equal(opened.local_features([5, 0]), local_features[[5, 0]])
    assert opened.local_features([]).shape == (0, 2, 15, 15)
    for index, image in enumerate(images):
        stored = opened.image(index)
        assert stored.shape == image.shape  # 48×64 and 64×48 in one gallery
        np.testing.assert_allclose(stored.astype(int), image, atol=4)  # JPEG
    assert opened.verify() == []


def test_descriptors_are_mapped(gallery: Path) -> None:
    base: Any = Gallery.open(gallery).descriptors
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        Gallery.open(gallery).descriptors[0] = 0


def test_images_at_working_resolution(source: Source, tmp_path: Path) -> None:
    small = ColourDescriber(resolution=24)
    opened = Gallery.open(build_gallery(source, small, tmp_path / "g").gallery)
    assert {opened.image(i).shape for i in range(7)} == {(24, 32, 3), (32, 24, 3)}
    referring = Gallery.open(build_gallery(source, small, tmp_path / "r", copy_images=False).gallery)
    assert referring.image(1).shape == (24, 32, 3)
    assert not list((tmp_path / "r" / "segments/0001/images").iterdir())
    assert referring.verify() == []
    assert (referring.image(1) == shade(1)).all()  # no JPEG between
    shutil.rmtree(tmp_path / "source")
    with pytest.raises(GalleryError, match=r"image of 001\.png: .*001\.png: cannot be read"):
        referring.image(1)
    assert len(referring.verify()) == 7
    assert opened.image(1).shape == (24, 32, 3)  # self-contained


def test_positions(gallery: Path) -> None:
    opened = Gallery.open(gallery)
    assert opened.frame.datum_latitude_deg == pytest.approx(LATITUDE + 3e-4, abs=1e-9)
    assert opened.frame.datum_longitude_deg == pytest.approx(LONGITUDE)
    assert opened.frame.datum_altitude_m == 103
    north = (np.arange(7) - 3) * 11.1132  # metres per 1e-4° of latitude at 45°
    np.testing.assert_allclose(opened.positions_enu[:, 1], north, atol=2e-3)
    np.testing.assert_allclose(opened.positions_enu[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(opened.positions_enu[:, 2], np.arange(7) - 3, atol=1e-3)


def test_unknown_altitudes_lie_at_the_datum(
    make_source: MakeSource, describer: ColourDescriber, tmp_path: Path
) -> None:
    folder = make_source(3)
    table = folder / "positions.csv"
    table.write_text(table.read_text().replace(",101,", ",,"))
    opened = Gallery.open(build_gallery(read_source(folder), describer, tmp_path / "g").gallery)
    assert math.isnan(opened.places[1].altitude_m)
    np.testing.assert_allclose(opened.positions_enu[:, 2], [-1, 0, 1], atol=1e-3)


def test_search_finds_what_went_in(source: Source, gallery: Path) -> None:
    opened = Gallery.open(gallery)
    for index, image in enumerate(source.images):
        descriptor = ColourDescriber().describe_batch([image.read()])[0][0]
        candidates = opened.search(descriptor, 3)
        assert candidates[0].index == index
        assert candidates[0].place == image.place
        assert candidates[0].distance == 0
        expected = np.sort(((opened.descriptors - descriptor).astype(float) ** 2).sum(axis=1))[:3]
        np.testing.assert_allclose([c.distance for c in candidates], expected, rtol=1e-5)
    assert len(opened.search(descriptor)) == 7  # 20 by default, and only 7 there


def test_a_gallery_of_one_and_of_none(make_source: MakeSource, describer: ColourDescriber, tmp_path: Path) -> None:
    path = build_gallery(read_source(make_source(1)), describer, tmp_path / "g").gallery
    assert [c.place.name for c in Gallery.open(path).search(np.zeros(6, np.float32))] == ["000.png"]
    assert remove_from_gallery(path, ["000.png"]) == 0
    empty = Gallery.open(path)
    assert len(empty) == 0 and list(empty.places) == [] and empty.search(np.zeros(6, np.float32)) == []
    assert empty.descriptors.shape == (0, 6) and empty.positions_enu.shape == (0, 3)
    assert empty.verify() == []
    assert not list((path / "segments").iterdir())
    add_to_gallery(read_source(make_source(2)), describer, path)
    assert len(Gallery.open(path)) == 2


def test_another_model_is_refused_with_both_names(gallery: Path) -> None:
    opened = Gallery.open(gallery)
    opened.check_model("0123456789abcdef")
    with pytest.raises(
        GalleryError, match=r"made by model 0123456789abcdef \(resnet18, gem\), the model given is beef"
    ):
        opened.check_model("beef")


@pytest.mark.parametrize("name", ["descriptors.npy", "local_features.npy", "places.csv"])
def test_truncated_and_missing_files_are_named(gallery: Path, name: str) -> None:
    path = gallery / "segments/0001" / name
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(GalleryError, match=rf"{name}: is truncated: {len(data) - 1} bytes, expected {len(data)}"):
        Gallery.open(gallery)
    path.write_bytes(data + b"x")
    with pytest.raises(GalleryError, match=rf"{name}: has changed: {len(data) + 1} bytes"):
        Gallery.open(gallery)
    path.unlink()
    with pytest.raises(GalleryError, match=rf"{name}: is missing, expected {len(data)} bytes"):
        Gallery.open(gallery)


def test_foreign_content_of_the_right_size_is_refused(gallery: Path) -> None:
    path = gallery / "segments/0001/descriptors.npy"
    data = path.read_bytes()
    path.write_bytes(b"\0" * len(data))
    with pytest.raises(GalleryError, match=r"descriptors\.npy: is no array"):
        Gallery.open(gallery)
    path.write_bytes(data.replace(b"'<f4'", b"'<i4'"))
    with pytest.raises(GalleryError, match=r"holds int32 \(7, 6\), expected float32 \(7, 6\)"):
        Gallery.open(gallery)
    path.write_bytes(data)
    table = gallery / "segments/0001/places.csv"
    table.write_bytes(table.read_bytes().replace(b"45.0001", b"45.000x"))
    opened = Gallery.open(gallery)  # reads no line of it
    assert opened.places[2].latitude_deg == pytest.approx(LATITUDE + 2e-4)
    with pytest.raises(GalleryError, match=r"places\.csv: cannot be read as places: could not convert .*45.000x"):
        _ = opened.places[1]
    assert ["places.csv: " in problem for problem in opened.verify()] == [True, True]
    table.write_bytes(table.read_bytes().replace(b"name,latitude", b"name,lotitude"))
    with pytest.raises(GalleryError, match=r"places\.csv: cannot be read as places: its first line is not name, "):
        Gallery.open(gallery)


def test_a_gallery_of_format_1_is_read(gallery: Path, source: Source) -> None:
    path = gallery / "gallery.json"
    manifest = json.loads(path.read_text())
    del manifest["index"], manifest["keypoints"], manifest["segments"][0]["local_features"]
    for name in ("places.npy", "keypoints.npy", "keypoint_descriptors.npy", "keypoint_starts.npy"):
        del manifest["segments"][0]["files"][name]
    path.write_text(json.dumps(manifest | {"format_version": 1}))
    (gallery / "segments/0001/places.npy").unlink()
    opened = Gallery.open(gallery)
    assert tuple(opened.places) == tuple(image.place for image in source.images)
    assert opened.places[-1] == source.images[-1].place and opened.verify() == []
    with pytest.raises(IndexError):
        _ = opened.places[7]
    remove_from_gallery(gallery, ["003.png"])
    assert json.loads(path.read_text())["format_version"] == 3
    table = gallery / "segments/0001/places.csv"
    table.write_bytes(table.read_bytes().replace(b"45.0001", b"45.000x"))
    with pytest.raises(GalleryError, match=r"places\.csv: cannot be read as places"):
        Gallery.open(gallery)


def edit(gallery: Path, **values: Any) -> None:
    path = gallery / "gallery.json"
    manifest = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format_version": 4}, r"format_version is 4, this geowarp_ros reads up to 3; update it"),
        ({"format_version": None}, "format_version is None"),
        ({"format": "other"}, "is not a gallery's manifest, expected format 'geowarp-gallery'"),
        ({"model": None}, "model: field required"),
        ({"colour": "red"}, "colour: extra inputs are not permitted"),
        ({"segments": [{"name": "../../etc"}]}, r"segments\.0\.name"),
        ({"model": {"config": {"encoder": "rootsift", "resolution": 480}}}, r"model\..*: field required"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(gallery: Path, values: dict[str, Any], said: str) -> None:
    edit(gallery, **values)
    with pytest.raises(GalleryError, match=said) as raised:
        Gallery.open(gallery)
    assert "gallery.json" in str(raised.value) and "\n" not in str(raised.value)


def test_the_models_configuration_keeps_all_its_entries(gallery: Path) -> None:
    path = gallery / "gallery.json"
    manifest = json.loads(path.read_text())
    manifest["model"]["config"] |= {"encoder": "of another version", "bins_px": [4, 6], "nested": {"depth": 0.1}}
    path.write_text(json.dumps(manifest))
    remove_from_gallery(gallery, ["003.png"])
    assert json.loads(path.read_text())["model"] == manifest["model"]
    del manifest["model"]["config"]["resolution"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(GalleryError, match=r"gallery\.json: model\.config\.resolution: field required"):
        Gallery.open(gallery)


def test_no_gallery_at_all(tmp_path: Path, gallery: Path) -> None:
    with pytest.raises(GalleryError, match=r"absent: does not exist, expected a gallery"):
        Gallery.open(tmp_path / "absent")
    with pytest.raises(GalleryError, match=r"has no gallery in it"):
        Gallery.open(tmp_path)
    with pytest.raises(GalleryError, match=r"gallery\.json: is a file, expected a gallery"):
        Gallery.open(gallery / "gallery.json")
    manifest = gallery / "gallery.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    with pytest.raises(GalleryError, match=r"gallery\.json: is truncated or no JSON"):
        Gallery.open(gallery)
    manifest.unlink()
    with pytest.raises(GalleryError, match="has an unfinished gallery"):
        Gallery.open(gallery)


def test_verify_finds_every_change_that_sizes_do_not_show(gallery: Path) -> None:
    def flip(path: Path, at: int) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    segment = gallery / "segments/0001"
    flip(segment / "local_features.npy", -1)
    flip(segment / "images/000002.jpg", -10)
    (segment / "images/000004.jpg").unlink()
    seen = []

    def progress(items: Iterable[T], total: int, label: str, /) -> Iterable[T]:
        seen.append((total, label))
        return items

    problems = Gallery.open(gallery).verify(progress)
    assert seen == [(7, "verifying images")]
    assert len(problems) == 3
    assert "local_features.npy: content has changed" in problems[0]
    assert "000002.jpg: content has changed" in problems[1]
    assert "000004.jpg: cannot be read" in problems[2]
    with pytest.raises(GalleryError, match=r"image of 004\.png"):
        Gallery.open(gallery).image(4)


def test_rows_keep_every_digit_and_any_name() -> None:
    place = Place('a "b",c\nü.jpg', 45.123456789012345, -1e-9, math.nan, 359.9, 1_700_000_000_123_456_789)
    row = Row(place, "", "images/0.jpg", 7, "ab")
    back = Row.from_text(row.to_text())
    assert math.isnan(back.place.altitude_m)
    assert replace(back.place, altitude_m=0) == replace(place, altitude_m=0)
    with pytest.raises(ValueError, match="values to unpack"):
        Row.from_text(["a"])


def test_odd_names_survive_a_gallery(make_source: MakeSource, describer: ColourDescriber, tmp_path: Path) -> None:
    folder = make_source(1)
    (folder / "000.png").rename(folder / "ü, .. x.png")
    table = folder / "positions.csv"
    table.write_text(table.read_text().replace("000.png", '"ü, .. x.png"'))
    opened = Gallery.open(build_gallery(read_source(folder), describer, tmp_path / "g").gallery)
    assert opened.places[0].name == "ü, .. x.png"
    np.testing.assert_allclose(opened.image(0), read_image(folder / "ü, .. x.png"), atol=4)


def test_a_prior_limits_the_search_to_its_circle(gallery: Path) -> None:
    opened = Gallery.open(gallery)
    query = opened.descriptors[6]
    everywhere = [c.index for c in opened.search(query)]
    assert everywhere[0] == 6
    near = Near(LATITUDE + 1e-4, LONGITUDE, radius_m=12.0)  # the places are 11.1 m apart, northwards
    assert opened.rows_within(near).tolist() == [0, 1, 2]
    found = opened.search(query, near=near)
    assert [c.index for c in found] == [row for row in everywhere if row <= 2]
    assert [c.distance for c in found] == [c.distance for c in opened.search(query) if c.index <= 2]
    assert opened.search(query, near=Near(LATITUDE + 1.0, LONGITUDE, radius_m=12.0)) == []
