"""geowarp gallery: every action on a tiny gallery, its tables, and its one-line errors."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from geowarp_ros.cameras import Camera
from geowarp_ros.cli import main
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.model.checkpoints import save_model
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.readers.camera_files import write_camera


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four images of 64×80, of two splits, one of them absent."""
    folder = tmp_path / "source"
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (folder / "positions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "latitude", "longitude", "altitude", "split"])
        for index, split in enumerate(["gallery", "gallery", "query", "gallery"]):
            if index != 3:
                cv2.imwrite(str(folder / f"{index}.png"), rng.integers(0, 256, (64, 80, 3), np.uint8))
            rows.writerow([f"{index}.png", 45 + index * 1e-3, 9, 100, split])
    return folder


def geowarp(*words: object) -> int:
    return main(["gallery", *(str(word) for word in words)])


def test_a_dense_folder_is_thinned_and_the_gallery_remembers(
    source: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0, 1 and 2 are 111 m apart; 1 goes, 2 is 222 m from 0 and of another split besides."""
    build = ("build", source, "--model", model, "--output", tmp_path / "g", "--device", "cpu")
    assert geowarp(*build, "--min-spacing", "200") == 0
    reason = "closer than 200 m to another that looks the same way"
    assert f"2 left out: 1 absent, 1 {reason}" in capsys.readouterr().out
    assert [place.name for place in Gallery.open(tmp_path / "g").places] == ["0.png", "2.png"]
    assert geowarp("info", tmp_path / "g", "--json") == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == {"absent": 1, reason: 1}
    assert ["1.png", reason] in [row[:2] for row in csv.reader((tmp_path / "g" / "left_out.csv").open())]


def test_the_life_of_a_gallery(
    source: Path, model: str, tmp_path: Path, terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = tmp_path / "g"
    build = ("build", source, "--model", model, "--output", gallery, "--device", "cpu", "--split", "gallery")
    assert geowarp(*build) == 0
    said = capsys.readouterr()
    assert "2 images, 2 added" in said.out and "1 left out: 1 absent" in said.out
    assert "describing images: 100%" in said.err and " images/s]" in said.err

    assert geowarp(*build) == 1
    assert "has a gallery of 2 images already" in capsys.readouterr().err
    assert geowarp(*build, "--replace") == 0

    assert geowarp("add", gallery, source, "--device", "cpu") == 0  # by its own model, which it finds
    out = capsys.readouterr().out
    assert "of splits gallery (2), query (1); --split takes only one" in out
    assert "3 images, 1 added" in out and "2 already in the gallery" in out

    assert geowarp("info", gallery) == 0
    table = capsys.readouterr().out
    assert "images      3\n" in table
    assert "resnet18 + gem, images as they are" in table
    assert "0.0 m east-west, 222.3 m north-south" in table  # 2e-3° of latitude at 45°
    assert "splits      gallery 2, query 1" in table
    assert "left out    2 already in the gallery, 1 absent\n" in table

    assert geowarp("info", gallery, "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["images"], info["removed"], info["splits"]) == (3, 0, {"gallery": 2, "query": 1})
    assert info["model"]["fingerprint"] == Gallery.open(gallery).model_fingerprint
    assert info["centre"] == pytest.approx([45.001, 9])
    assert info["size_bytes"] == sum(path.stat().st_size for path in gallery.rglob("*") if path.is_file())
    assert info["bytes_per_image"] > 15 * 15 * 256 * 2
    assert info["index"] == {"kind": "exact", "whitened": 0, "images": 3, "bytes": 0, "recall": 1.0}
    assert [segment["options"].get("split") for segment in info["segments"]] == ["gallery", None]

    assert geowarp("remove", gallery, "0.png") == 0
    assert "1 removed, 2 images left" in capsys.readouterr().out
    assert geowarp("verify", gallery) == 0
    assert "2 images, all as written" in capsys.readouterr().out
    (gallery / "segments/0003/images/000000.jpg").unlink()
    assert geowarp("verify", gallery) == 1
    said = capsys.readouterr()
    assert "000000.jpg: cannot be read" in said.err and "1 problems" in said.out

    assert geowarp("index", gallery, "--kind", "hnsw") == 1
    assert "3 images are too few for an index of kind hnsw, expected 256; use exact" in capsys.readouterr().err
    assert geowarp("index", gallery) == 0
    assert capsys.readouterr().out == f"{gallery}: exact search\n"

    assert geowarp("remove", gallery, "1.png", "2.png") == 0
    capsys.readouterr()
    assert geowarp("info", gallery) == 0
    assert "images      0\n" in capsys.readouterr().out


def test_the_datum_is_shown_and_moved_by_hand(
    source: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = tmp_path / "g"
    build = ("build", source, "--model", model, "--output", gallery, "--device", "cpu", "--no-keypoints")
    assert geowarp(*build) == 0
    capsys.readouterr()
    assert geowarp("datum", gallery) == 0
    assert capsys.readouterr().out == f"{gallery}: datum 45.0010000, 9.0000000, 100.0 m\n"
    assert geowarp("datum", gallery, 45.0, -9.5) == 0
    assert "datum 45.0000000, -9.5000000, 100.0 m: moved by -1" in capsys.readouterr().out
    assert Gallery.open(gallery).datum.datum == (45.0, -9.5, 100.0)
    assert geowarp("datum", gallery, 45.0, 9.0, 0.0) == 0
    assert geowarp("info", gallery) == 0
    assert "datum       45.0000000, 9.0000000, 0.0 m\n" in capsys.readouterr().out
    assert geowarp("datum", gallery, "--centre") == 0
    # a thousandth of a degree of latitude is 111.14 m at 45°
    assert "moved by 0.0 m east, 111.1 m north, 100.0 m up; " in capsys.readouterr().out
    for wrong in ((45.0,), (45.0, 9.0, "--centre"), (1, 2, 3, 4)):
        assert geowarp("datum", gallery, *wrong) == 1
        assert "expected LATITUDE LONGITUDE" in capsys.readouterr().err
    assert geowarp("datum", gallery, 99, 9) == 1
    assert "expected a latitude of -90 to 90°" in capsys.readouterr().err


def test_keypoints_of_a_gallery_that_has_none(
    source: Path, model: str, tmp_path: Path, terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = tmp_path / "g"
    build = ("build", source, "--model", model, "--output", gallery, "--device", "cpu", "--no-keypoints")
    assert geowarp(*build) == 0
    assert geowarp("info", gallery) == 0
    assert f"keypoints   none; 'geowarp gallery upgrade {gallery}' makes them" in capsys.readouterr().out
    (gallery / "calibration.json").write_text("{}")
    assert geowarp("upgrade", gallery) == 0
    said = capsys.readouterr()
    assert (
        "keypoints of 3 and cameras of 0 photographs in " in said.out
        and "run 'geowarp calibrate' again" in said.out
    )
    assert "looking at segment 0001 in batches: 100%" in said.err
    assert geowarp("info", gallery) == 0
    table = capsys.readouterr().out
    assert "keypoints   sift, up to 2,000 at 1.5x the working resolution; " in table
    assert "cameras     known of 0 images, 0 different" in table
    assert geowarp("info", gallery, "--json") == 0
    info = json.loads(capsys.readouterr().out)
    stored = info["keypoints"]["stored"]
    assert stored > 50 and info["keypoints"]["bytes"] == stored * (128 + 8) + 8 * 4 + 3 * 128
    assert geowarp("upgrade", gallery) == 0
    assert capsys.readouterr().out == f"{gallery}: nothing to add\n"
    write_camera(tmp_path / "camera.yaml", Camera(640, 512, 500.0, 500.0, 320.0, 256.0))
    assert geowarp("upgrade", gallery, "--camera", tmp_path / "camera.yaml") == 0
    assert "keypoints of 0 and cameras of 3 photographs in " in capsys.readouterr().out
    assert geowarp("info", gallery) == 0
    assert "cameras     known of 3 images, 1 different" in capsys.readouterr().out
    camera = Gallery.open(gallery).camera(2)  # 80×64, an eighth
    assert camera is not None and (camera.fx, camera.source) == (62.5, str(tmp_path / "camera.yaml"))
    assert geowarp("upgrade", gallery, "--camera", tmp_path / "absent.yaml") == 1
    assert "absent.yaml: cannot be read" in capsys.readouterr().err


def test_a_gallery_gets_another_model(
    source: Path, model: str, tmp_path: Path, terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery, other = tmp_path / "g", tmp_path / "other.safetensors"
    save_model(GeoWarp(ModelConfig(encoder="mobilenet_v2", projection=32, regression=False)), other)
    assert geowarp("build", source, "--model", model, "--output", gallery, "--device", "cpu") == 0
    old = Gallery.open(gallery).model_fingerprint
    capsys.readouterr()
    assert geowarp("add", gallery, source, "--model", other, "--device", "cpu") == 1
    assert f"(geowarp gallery upgrade {gallery} --model {other})" in capsys.readouterr().err
    assert geowarp("upgrade", gallery) == 0
    assert capsys.readouterr().out == f"{gallery}: nothing to add\n", "its own model stays"
    (gallery / "calibration.json").write_text("{}")
    assert geowarp("upgrade", gallery, "--model", other, "--device", "cpu", "--batch-size", "2") == 0
    new, said = Gallery.open(gallery).model_fingerprint, capsys.readouterr()
    assert f"{gallery}: 3 photographs described by model {new} instead of {old} in " in said.out
    assert "calibration.json was measured with the old model and is not used: run 'geowarp calibrate'" in said.out
    assert "describing segment 0001 anew, images: 100%" in said.err
    assert geowarp("info", gallery, "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["model"]["encoder"], info["model"]["descriptor_dim"]) == ("mobilenet_v2", 576)
    assert info["segments"][0]["options"]["model"] == str(other)
    assert info["model"]["file"] == "../other.safetensors"
    moved = other.rename(tmp_path / "g" / "its own.safetensors")
    assert geowarp("add", gallery, source, "--device", "cpu") == 1
    assert f"its file, {other}, is not there" in capsys.readouterr().err
    assert geowarp("upgrade", gallery, "--model", moved, "--device", "cpu") == 0
    assert capsys.readouterr().out.startswith(f"{gallery}: its model {new} noted as ./its own.safetensors in ")
    assert geowarp("info", gallery) == 0
    assert f"{new}, ./its own.safetensors\n" in capsys.readouterr().out
    assert geowarp("verify", gallery) == 0
    assert geowarp("upgrade", gallery, "--model", "default") == 1
    assert "its working resolution is that of the images, that of model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("info", "{tmp}/absent"), "absent: does not exist, expected a gallery"),
        (("verify", "{tmp}/source"), "has no gallery in it"),
        (("remove", "{tmp}/absent", "x"), "does not exist"),
        (("build", "{tmp}/absent", "--output", "{tmp}/g"), "absent: does not exist, expected a folder"),
        (("build", "{tmp}/source", "--output", "{tmp}/g", "--split", "galery"), "did you mean 'gallery'"),
        (("build", "{tmp}/source", "--output", "{tmp}/g", "--model", "{tmp}/no.safetensors"), "no.safetensors"),
        (("build", "{tmp}/source", "--output", "{tmp}/g", "--camera", "{tmp}/no.yaml"), "no.yaml: cannot be read"),
        (("build", "{tmp}/source", "--output", "{tmp}/g", "--camera", "{tmp}/source/0.png"), "0.png: is not YAML"),
    ],
)
def test_mistakes_are_one_line_and_status_1(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert geowarp(*(word.format(tmp=tmp_path) for word in words)) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.startswith("geowarp gallery: ")


@pytest.mark.parametrize(
    "words",
    [("burn",), ("build", "s"), ("build", "s", "--output", "g", "--batch-size", "0"),
     ("build", "s", "--output", "g", "--max-gap", "-1"), ("add", "g", "s", "--min-spacing", "nan")],
)  # fmt: skip
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        geowarp(*words)
    assert raised.value.code == 2
    assert "usage: geowarp gallery" in capsys.readouterr().err


@pytest.mark.parametrize(("form", "size"), [("int8", 15 * 15 * (256 + 2)), ("pq", 15 * 15 * 32)])
def test_smaller_local_features(
    source: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, size: int
) -> None:
    build = ("build", source, "--model", model, "--device", "cpu", "--split", "gallery")
    assert geowarp(*build, "--output", tmp_path / "half") == 0
    assert geowarp(*build, "--output", tmp_path / "small", "--local-features", form) == 0
    half, small = Gallery.open(tmp_path / "half"), Gallery.open(tmp_path / "small")
    files = small.manifest.segments[0].files
    assert files["local_codes.npy"].size + ("local_scales.npy" in files) * 2 * 2 * 225 == pytest.approx(
        2 * size, abs=300
    )
    cosines = (half.local_features([0, 1]).astype(float) * small.local_features([0, 1])).sum(axis=1)
    assert cosines.mean() > (0.999 if form == "int8" else 0.9)
    capsys.readouterr()
    assert geowarp("info", tmp_path / "small") == 0
    assert f"256 numbers each, local features {form}" in capsys.readouterr().out


def test_names_without_a_zone_need_one(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "utm"
    folder.mkdir()
    cv2.imwrite(str(folder / "@500000@4982950@.jpg"), np.zeros((64, 80, 3), np.uint8))
    build = ("build", folder, "--model", model, "--output", tmp_path / "g", "--device", "cpu")
    assert geowarp(*build) == 1
    assert "give it once as utm_zone (--utm-zone), such as 32N" in capsys.readouterr().err
    assert geowarp(*build, "--utm-zone", "33N", "--reference-images") == 0
    assert Gallery.open(tmp_path / "g").places[0].longitude_deg == pytest.approx(15)
    centre = "45.00000, 15.00000: https://www.openstreetmap.org/?mlat=45.0&mlon=15.0#map=15/45.0/15.0"
    assert f"centre {centre}" in capsys.readouterr().out


def test_null_island_panoramas_and_every_reason_are_said(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["filename;lat;lon;heading"]
    for name, where in {"a": "48,1371;11,5753", "b": "48,1372;11,5753", "zero": "0;0"}.items():
        cv2.imwrite(
            str(tmp_path / f"{name}.png"), np.random.default_rng(0).integers(0, 256, (128, 256, 3), np.uint8)
        )
        rows.append(f"{name}.png;{where};90")
    (tmp_path / "positions.csv").write_text("\n".join(rows))
    build = ("build", tmp_path, "--model", model, "--device", "cpu", "--no-align", "--panorama", 4)
    assert geowarp(*build, "--output", tmp_path / "g") == 0
    said = capsys.readouterr().out
    assert "8 images, 8 added" in said and "1 left out: 1 at 0°, 0°, which receivers report without a fix" in said
    gallery = Gallery.open(tmp_path / "g")
    assert [place.heading_deg for place in gallery.places][:4] == [90, 180, 270, 0]
    assert geowarp(*build, "--output", tmp_path / "h", "--accept-null-island") == 0
    assert len(Gallery.open(tmp_path / "h")) == 12


def test_a_local_frame_has_no_place_on_the_map(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "nordland"
    folder.mkdir()
    for north in ("0000.0", "0002.3"):
        cv2.imwrite(str(folder / f"@0@{north}@@@@@1@@@@@@@@.jpg"), np.zeros((64, 80, 3), np.uint8))
    build = ("build", folder, "--model", model, "--output", tmp_path / "g", "--device", "cpu", "--no-align")
    assert geowarp(*build) == 0
    assert "metres of the source's own frame, nowhere on the earth" in capsys.readouterr().out
    assert np.ptp(Gallery.open(tmp_path / "g").positions_enu[:, 1]) == pytest.approx(2.3, abs=1e-3)
