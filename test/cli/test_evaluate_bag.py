"""``geowarp evaluate bag`` and ``compare`` from end to end, with a localizer that needs no network."""

import json
import types

import numpy as np
import pytest

import geowarp_ros.localizer
from geowarp_ros.cli import main
from geowarp_ros.config import LocalizerConfig
from geowarp_ros.evaluation.exports import write_bag
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.types import Candidate, Fix, NoFix, Place
from test.evaluation import runs
from test.gallery import bags

IMAGES = 6


class ByShade:
    """Knows the place from the red channel of the test bags' images; is 3 m off and unsure of the last two."""

    def __init__(self, config):
        self.config = config
        self.calibration = None
        self.gallery = types.SimpleNamespace(
            frame=LocalFrame(bags.LATITUDE, bags.LONGITUDE),
            positions_enu=np.zeros((IMAGES, 3)),
            image=lambda index: bags.picture(10 * index),
        )

    def warm_up(self):
        pass

    def localize(self, frame):
        row = int(frame.image[0, 0, 0]) // 10
        latitude, longitude, _ = LocalFrame(bags.LATITUDE + row * 0.5e-3, bags.LONGITUDE).to_geodetic(
            [3.0, 0.0, 0.0]
        )
        place = Place(f"{row}.png", float(latitude), float(longitude))
        common = {
            "candidates": (Candidate(row, place, 0.4),),
            "stamp_ns": frame.stamp_ns,
            "timing_ms": {"all": 9.0},
        }
        if row >= IMAGES - 2:
            return NoFix("low_confidence", "", 0.2, **common)
        return Fix(float(latitude), float(longitude), 0.0, np.diag([9.0, 9.0, 1e6]), 0.9, **common)


@pytest.fixture
def opened(monkeypatch):
    """The configurations that localizers were opened with."""
    configs = []

    def open_stand_in(gallery, config):
        configs.append(config)
        return ByShade(config)

    monkeypatch.setattr(geowarp_ros.localizer.Localizer, "open", open_stand_in)
    return configs


@pytest.fixture
def bag(tmp_path):
    return bags.write_bag(tmp_path / "drive", bags.drive(IMAGES))


def evaluate(*words):
    return main(["evaluate", "bag", *map(str, words)])


def test_everything_is_written_and_said(tmp_path, bag, opened, capsys):
    output = tmp_path / "run"
    assert evaluate(bag, "--gallery", "g", "--rerank", "none", "--min-confidence", 0.3, "--output", output) == 0
    said = capsys.readouterr().out
    assert "availability                            66.7 %" in said
    assert "3 m / 3 m" in said
    names = {path.name for path in output.iterdir()}
    assert names == {
        *("report.html", "results.json", "run.json", "images.csv", "fixes", "fixes.geojson", "fixes.gpx"),
        *("truth.tum", "estimate.tum"),
    }
    results = json.loads((output / "results.json").read_text())
    assert results["availability"]["count"] == 4
    assert results["error_m"]["0.5"] == pytest.approx(3.0, abs=1e-3)
    settings = json.loads((output / "run.json").read_text())
    assert settings["localizer"]["position"]["min_confidence"] == 0.3
    assert {"commit", "seed", "version", "options"} <= set(settings)
    assert opened[0] == LocalizerConfig.model_validate(
        {"rerank": {"method": "none"}, "position": {"min_confidence": 0.3}}
    )


def test_the_nodes_parameter_file_is_taken_and_options_go_before_it(tmp_path, bag, opened, capsys):
    params = tmp_path / "node.yaml"
    params.write_text(
        "/**:\n  ros__parameters:\n    gallery: elsewhere\n    use_sim_time: true\n    rerank.candidates: 3\n"
        "    rerank:\n      method: none\n    position:\n      min_confidence: 0.4\n"
    )
    words = ("--gallery", "g", "--params-file", params, "--min-confidence", 0.1, "--output", tmp_path / "run")
    assert evaluate(bag, *words) == 0
    rerank, position = opened[0].rerank, opened[0].position
    assert (rerank.method, rerank.candidates, position.min_confidence) == ("none", 3, 0.1)
    params.write_text("- no\n- parameters\n")
    assert evaluate(bag, *words) == 1
    assert "is no parameter file" in capsys.readouterr().err
    params.write_text("/**:\n  ros__parameters:\n    rerank:\n      metod: none\n")
    assert evaluate(bag, *words) == 1
    assert "did you mean 'rerank.method'" in capsys.readouterr().err


def test_recorded_fixes_are_judged_without_a_gallery(tmp_path, bag, opened, capsys):
    assert evaluate(bag, "--gallery", "g", "--output", tmp_path / "offline") == 0
    capsys.readouterr()
    assert evaluate(bag, "--fixes", tmp_path / "offline" / "fixes", "--output", tmp_path / "live") == 0
    offline, live = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("offline", "live"))
    assert live["availability"] == offline["availability"]
    assert live["error_m"]["0.95"] == pytest.approx(offline["error_m"]["0.95"], abs=1e-3)
    assert live["calibration"]["nees_mean"] == pytest.approx(1.0, abs=1e-3)
    assert live["precision_availability_area"] is None
    assert len(opened) == 1


def test_a_csv_is_a_drive(tmp_path, opened, capsys):
    from PIL import Image as Pillow

    rows = ["filename,latitude,longitude,split"]
    for row in range(4):
        Pillow.fromarray(bags.picture(10 * row)).save(tmp_path / f"{row}.png")
        rows.append(
            f"{row}.png,{bags.LATITUDE + row * 0.5e-3},{bags.LONGITUDE},{'query' if row % 2 else 'gallery'}"
        )
    (tmp_path / "positions.csv").write_text("\n".join(rows) + "\n")
    words = (tmp_path / "positions.csv", "--split", "query", "--gallery", "g", "--output", tmp_path / "run")
    assert evaluate(*words) == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["judged"] == 2
    said = capsys.readouterr().out
    assert "no stamps" in said
    assert "dropped at the recorded rate" not in said  # there is no rate


def test_two_runs_side_by_side(tmp_path, bag, opened, capsys):
    evaluate(bag, "--gallery", "g", "--output", tmp_path / "a")
    evaluate(bag, "--gallery", "g", "--rerank", "none", "--output", tmp_path / "b")
    capsys.readouterr()
    words = [str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(tmp_path / "both")]
    assert main(["evaluate", "compare", *words]) == 0
    assert "images in both                          6" in capsys.readouterr().out
    assert (tmp_path / "both" / "compare.html").is_file()
    assert json.loads((tmp_path / "both" / "compare.json").read_text())["gained"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gallery", "g", "--image-topic", "/camra"], "did you mean '/camera'?"),
        (["--gallery", "g", "--truth-offset", "7200"], "--truth-offset"),
        ([], "give --gallery to localise in, or --fixes"),
        (["--gallery", "g", "--every", "0"], "--every 0: expected at least 1"),
        (["--gallery", "g", "--thresholds", "5", "-1"], "-1 m as a distance that counts"),
        (["--fixes", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_line(tmp_path, bag, opened, capsys, words, said):
    assert evaluate(bag, *words, "--output", tmp_path / "run") == 1
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_absent_drive_is_one_line(tmp_path, capsys):
    assert evaluate(tmp_path / "nowhere", "--gallery", "g", "--output", tmp_path / "run") == 1
    assert "does not exist" in capsys.readouterr().err


def test_the_fixes_that_are_judged_are_not_overwritten(tmp_path, bag, capsys):
    write_bag(runs.run(), tmp_path / "run" / "fixes")
    before = sorted(path.read_bytes() for path in (tmp_path / "run" / "fixes").iterdir())
    assert evaluate(bag, "--fixes", tmp_path / "run" / "fixes", "--output", tmp_path / "run") == 1
    assert "would overwrite" in capsys.readouterr().err
    assert sorted(path.read_bytes() for path in (tmp_path / "run" / "fixes").iterdir()) == before
