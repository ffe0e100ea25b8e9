"""geowarp gallery list and export: every photograph with what is known of it, and null for what is not."""

from __future__ import annotations

import csv
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pyproj import Transformer

from geowarp_ros.cameras import Camera
from geowarp_ros.cli import main
from geowarp_ros.cli.gallery_table import ALIGNED, KEYS
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.readers import read_source
from geowarp_ros.readers.camera_files import write_camera
from test.gallery.alignment.fakes import put, random_alignment
from test.rerank.conftest import textured

EAST = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Rotation ``enu_from_camera`` of a level camera that looks east: right is south, forward east."""

TOPOCENTRIC = Transformer.from_pipeline(
    "+proj=pipeline +step +inv +proj=topocentric +ellps=WGS84 +lat_0=45 +lon_0=9 +h_0=100"
    " +step +inv +proj=cart +ellps=WGS84 +step +proj=unitconvert +xy_in=rad +xy_out=deg"
)
"""East, north, up of the alignment's datum -> longitude, latitude, altitude, by PROJ."""


def geowarp(*words: object) -> int:
    return main(["gallery", *(str(word) for word in words)])


@pytest.fixture(scope="module")
def gallery(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs a, b (removed), c of known altitude and d, of which c was not tied by the alignment."""
    folder = tmp_path_factory.mktemp("photographs")
    write_camera(folder / "camera.yaml", Camera(96, 72, 80.0, 80.0, 47.5, 35.5))
    for name in "abcd":
        cv2.imwrite(str(folder / f"{name}, 1.png"), textured(ord(name), 72, 96))
    (folder / "positions.csv").write_text(
        "filename,latitude,longitude,altitude,heading,split\n"
        '"a, 1.png",45.0,9.0,,12.5,gallery\n'
        '"b, 1.png",45.001,9.0,,,gallery\n'
        '"c, 1.png",45.002,9.0,101.25,,query\n'
        '"d, 1.png",45.003,-9.0000000001,,,\n'
    )
    words = ("--model", model, "--device", "cpu", "--no-align", "--output", folder / "g")
    assert geowarp("build", folder, *words) == 0
    names = [place.name[0] for place in Gallery.open(folder / "g").places]  # in the gallery's own order
    assert geowarp("remove", folder / "g", "b, 1.png") == 0
    north_m = {"a": 100.0, "b": 0.0, "c": 0.0, "d": -50.0}
    std_m = {"a": 0.25, "b": 0.5, "c": np.nan, "d": 1.0}
    known = replace(
        random_alignment([5] * 4),
        datum=(45.0, 9.0, 100.0),
        tied=np.array([name != "c" for name in names]),
        position_m=np.array([[0.0, north_m[name], 2.0] for name in names]),
        rotation=np.stack([EAST] * 4),
        position_std_m=np.array([std_m[name] for name in names]),
    )
    put(folder / "g", known)
    return folder / "g"


def rows_of(gallery: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert geowarp("list", gallery, "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return sorted(rows, key=lambda row: str(row["name"]))


def test_a_line_each_with_every_key(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, c, d = rows_of(gallery, capsys)
    assert {*a} == {*c} == {*d} == {*KEYS}
    assert [row["name"] for row in (a, c, d)] == ["a, 1.png", "c, 1.png", "d, 1.png"]
    assert (a["latitude"], a["longitude"], a["altitude"], a["heading"]) == (45.0, 9.0, None, 12.5)
    assert (c["latitude"], c["altitude"], c["heading"], c["split"]) == (45.002, 101.25, None, "query")
    assert (d["longitude"], d["split"], d["time"]) == (-9.0000000001, None, None)
    assert a["camera"].endswith("camera.yaml") and all(Path(row["filename"]).is_file() for row in (a, c, d))
    assert [c[key] for key in ALIGNED] == [None] * 5
    for row, north_m in ((a, 100.0), (d, -50.0)):
        longitude, latitude, altitude = TOPOCENTRIC.transform(0.0, north_m, 2.0)
        assert row["aligned_latitude"] == pytest.approx(latitude, abs=1e-9)
        assert row["aligned_longitude"] == pytest.approx(longitude, abs=1e-9)
        assert row["aligned_altitude"] == pytest.approx(altitude, abs=1e-3)
        assert row["aligned_heading"] == 90.0
    assert (a["aligned_std_m"], d["aligned_std_m"]) == (0.25, 1.0)


def test_people_read_a_line_each(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert geowarp("list", gallery) == 0
    first, second, _ = sorted(capsys.readouterr().out.splitlines())
    assert first == "a, 1.png: 45.0000000, 9.0000000, heading 12.5°, split gallery"
    assert second == "c, 1.png: 45.0020000, 9.0000000, altitude 101.2 m, split query"


@pytest.mark.parametrize("beside", [True, False])
def test_a_csv_can_be_built_again(
    gallery: Path, beside: bool, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = (gallery.parent if beside else tmp_path) / "out.CSV"
    assert geowarp("export", gallery, out) == 0
    assert capsys.readouterr().out == f"{out}: 3 places\n"
    expected = rows_of(gallery, capsys)
    with out.open(newline="") as file:
        read = sorted(csv.DictReader(file), key=lambda row: row["name"])
    for row, whole in zip(read, expected, strict=True):
        assert Path(row["filename"]).is_absolute() != beside
        assert (out.parent / row.pop("filename")).resolve() == Path(whole.pop("filename"))
        assert row == {key: "" if value is None else str(value) for key, value in whole.items()}
    images = sorted(read_source(out).images, key=lambda image: image.place.latitude_deg)
    for image, whole in zip(images, expected, strict=True):
        assert (image.place.latitude_deg, image.place.longitude_deg) == (whole["latitude"], whole["longitude"])
        values = zip((image.place.altitude_m, image.place.heading_deg), ("altitude", "heading"), strict=True)
        assert all(np.isnan(value) if whole[key] is None else value == whole[key] for value, key in values)
        assert image.split == (whole["split"] or "") and image.read().shape[2] == 3
    words = ("--model", model, "--device", "cpu", "--output", tmp_path / "again", "--no-align")
    assert geowarp("build", out, *words) == 0
    again = rows_of(tmp_path / "again", capsys)
    places = ("latitude", "longitude", "altitude", "heading", "split")
    again.sort(key=lambda row: row["latitude"])
    assert [[row[key] for key in places] for row in again] == [[row[key] for key in places] for row in expected]


def test_geojson_holds_points_with_all_that_is_known(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert geowarp("export", gallery, tmp_path / "out.geojson") == 0
    read = json.loads((tmp_path / "out.geojson").read_text(), parse_constant=pytest.fail)
    assert read["type"] == "FeatureCollection"
    features = sorted(read["features"], key=lambda feature: feature["properties"]["name"])
    assert [feature["properties"] for feature in features] == rows_of(gallery, capsys)
    assert [feature["geometry"] for feature in features] == [
        {"type": "Point", "coordinates": [9.0, 45.0]},
        {"type": "Point", "coordinates": [9.0, 45.002, 101.25]},
        {"type": "Point", "coordinates": [-9.0000000001, 45.003]},
    ]


def test_parquet_holds_the_same(gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert geowarp("export", gallery, tmp_path / "out.parquet") == 0
    table = parquet.read_table(tmp_path / "out.parquet")
    rows = sorted(table.to_pylist(), key=lambda row: str(row["name"]))
    points = [struct.unpack("<BIdd", row.pop("geometry")) for row in rows]
    assert rows == rows_of(gallery, capsys)
    assert points == [(1, 1, row["longitude"], row["latitude"]) for row in rows]  # little-endian, point
    assert json.loads(table.schema.metadata[b"geo"])["columns"] == {
        "geometry": {"encoding": "WKB", "geometry_types": ["Point"]}
    }


def test_what_cannot_be_written_is_said(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert geowarp("export", gallery, tmp_path / "out.geojsn") == 1
    error = capsys.readouterr().err
    assert "ends in '.geojsn' (did you mean '.geojson'?), expected one of .csv, .geojson, .parquet" in error
    assert geowarp("export", gallery, tmp_path / "no" / "out.csv") == 1
    assert "out.csv: cannot be written: No such file or directory" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert geowarp("export", gallery, tmp_path / "out.parquet") == 1
    assert capsys.readouterr().err == (
        "geowarp gallery: needs pyarrow, which is not installed: pip install 'geowarp_ros[parquet]'\n"
    )
    assert not list(tmp_path.iterdir())


def test_every_photograph_left_out_is_named_with_its_reason(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("s", "t"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "broken.png").write_bytes(b"no image")
        cv2.imwrite(str(tmp_path / folder / f"{folder}.png"), textured(1, 72, 96))
        table = f"filename,latitude,longitude\n{folder}.png,45,9\nbroken.png,45,9\ngone.png,45,9\n"
        (tmp_path / folder / "positions.csv").write_text(table)
    s, t, gallery = tmp_path / "s", tmp_path / "t", tmp_path / "g"
    words = ("--model", model, "--device", "cpu")
    build = ("build", s, *words, "--output", gallery)
    assert geowarp(*build) == 0
    assert f"2 left out: 1 absent, 1 unreadable; named in {gallery / 'left_out.csv'}\n" in capsys.readouterr().out

    def named() -> list[list[str]]:
        with (gallery / "left_out.csv").open(newline="") as file:
            return list(csv.reader(file))

    header = ["name", "reason", "source"]
    of_s = [
        ["gone.png", "absent", f"CSV {s}/positions.csv"],
        ["broken.png", "unreadable", f"CSV {s}/positions.csv"],
    ]
    assert named() == [header, *of_s]
    assert geowarp("add", gallery, t, *words, "--prefix", "t") == 0
    assert f"named in {gallery / 'left_out.csv'}\n" in capsys.readouterr().out
    assert named()[:3] == [header, *of_s]
    assert [row[1:] for row in named()[3:]] == [
        [reason, f"CSV {t}/positions.csv"] for reason in ("absent", "unreadable")
    ]
    assert geowarp(*build, "--replace") == 0
    assert named() == [header, *of_s]
    (s / "positions.csv").write_text("filename,latitude,longitude\ns.png,45,9\n")
    assert geowarp(*build, "--replace") == 0
    assert not (gallery / "left_out.csv").exists()
    assert geowarp("verify", gallery) == 0
