"""Integrity tables from hand-made answers; the recipe; the verb from end to end on two drawn towns."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from geowarp_ros.cameras import Camera
from geowarp_ros.cli import main
from geowarp_ros.config import LocalizerConfig, parse_config
from geowarp_ros.errors import ConfigError, SourceError
from geowarp_ros.evaluation.asking import Question, without_itself
from geowarp_ros.evaluation.calibration import Collected
from geowarp_ros.geodesy import distance_m
from geowarp_ros.integrity.calibration import Calibration, Sample, load_calibration
from geowarp_ros.integrity.trust import PoseSample
from geowarp_ros.lab.studies.integrity import (
    Asked,
    Drive,
    Images,
    elsewhere_table,
    fit_asked,
    fix_table,
    judge,
    pose_table,
    prior_table,
    read_recipe,
    select,
)
from geowarp_ros.lab.studies.priors import Within, ask_within, circle_elsewhere, circle_of_prior
from geowarp_ros.lab.studies.tables import Cell
from geowarp_ros.lab.world.tags import Tags
from geowarp_ros.localizer import Localizer
from geowarp_ros.readers import read_source
from geowarp_ros.readers.camera_files import write_camera
from geowarp_ros.types import Evidence, Frame, Near, Place, Pose
from test.lab.studies.street import PLACES, write_model, write_source

CALIBRATION = Calibration(
    features=("log_inliers",), mean=(math.log(21),), scale=(1.0,), weights=(2.0,), intercept=0.0,
    min_confidence=0.5, position_std_m=3.0, std_per_spacing=0.8, scatter_gain=0.0, correct_within_m=25.0,
)  # fmt: skip
"""Confidence is 0.5 at 20 inliers; the standard deviation in a gallery of 5 m spacing is hypot(3, 4) = 5 m."""


def answer(inliers: int, east_m: float = math.nan, contrasted: bool = False) -> Sample:
    agrees = np.array([True, not contrasted])
    evidence = Evidence(
        np.zeros((2, 2)), np.ones(2), agrees, 1.0, 0.3, 1.0, 0.5, 0.1, 0.1, 0.6, float(inliers), 0.0
    )
    error = np.array([east_m, 0.0]) if math.isfinite(east_m) else np.full(2, math.nan)
    error_m = abs(east_m) if math.isfinite(east_m) else math.inf
    return Sample(evidence, error_m, error, np.zeros((2, 2)), 25.0, 5.0)


def images(path: str = "x") -> Images:
    return Images(path=path)


DRIVE = Drive(name="drive", gallery=images(), queries=images())


def said(cell: Cell) -> str:
    assert isinstance(cell, str)
    return cell


def test_what_is_published_and_what_is_claimed_of_it() -> None:
    judged = judge(Collected((answer(50, 5.0), answer(20, 30.0), answer(19, 1.0)), textureless=2), CALIBRATION)
    assert judged.fixed.tolist() == [True, True, False, False, False]
    assert judged.error_m[:3] == pytest.approx([5.0, 30.0, 1.0])
    assert np.isnan(judged.error_m[3:]).all()
    assert judged.covariance_m2[0] == pytest.approx(25.0 * np.eye(2))
    assert judged.confidence[0] == pytest.approx(1 / (1 + math.exp(-2 * math.log(51 / 21))))


def test_the_tables_count_by_hand() -> None:
    as_it_is = Collected((answer(50, 5.0), answer(60, 0.0), answer(40, 30.0), answer(3, 2.0)))
    lost = Collected((answer(5), answer(25), answer(4)), textureless=1)
    asked = [Asked(DRIVE, as_it_is, lost, {"sky": Collected((), textureless=5)})]
    (row,) = fix_table(asked, CALIBRATION).rows
    assert said(row[1]).startswith("75.0 %") and said(row[1]).endswith("3 of 4")
    assert said(row[2]).startswith("33.3 %") and said(row[2]).endswith("1 of 3")
    assert said(row[3]).startswith("5.0 / ")
    assert said(row[4]).endswith("2 of 2")  # of the right ones: NEES 1 and 0
    assert row[5] == "0.50"
    without, sky = elsewhere_table(asked, CALIBRATION).rows
    assert without[1] == "its own images without their place"
    assert said(without[2]).startswith("75.0 %") and said(without[2]).endswith("3 of 4") and without[3] == 1
    assert said(sky[2]).startswith("100.0 %") and said(sky[2]).endswith("5 of 5") and sky[3] == 5


def test_the_pose_table_tells_methods_apart_by_hand() -> None:
    def posed(east_m: float, turned_deg: float = 0.0, std_m: float = 0.05, truth: bool = True) -> Sample:
        covariance = np.diag([std_m**2] * 3 + [math.radians(0.2) ** 2] * 3)
        level = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
        pose = Pose("points", np.zeros(3), level, covariance, 60, 8.0, 3, 0.5, 0.6, 3.0, 40.0)
        cluster = answer(50, 4.0) if truth else answer(3)
        error = np.array([east_m, 0.0]) if truth else np.full(2, math.inf)
        return replace(cluster, posed=PoseSample(pose, cluster.evidence, error, turned_deg if truth else math.nan))

    # errors of 0, 0.4 and 6 m by poses; the pose of 1 m deviation is not trusted, its cluster is
    as_it_is = Collected((posed(0.0), posed(0.4, -0.5), posed(6.0, 9.0), posed(30.0, std_m=1.0), answer(3, 1.0)))
    lost = Collected((posed(0.0, truth=False), posed(0.0, std_m=1.0, truth=False), answer(3), answer(3)))
    nothing = Asked(DRIVE, Collected((answer(50, 5.0),)), Collected(()), {})
    rows = pose_table([Asked(DRIVE, as_it_is, lost, {}), nothing], CALIBRATION).rows
    assert [row[1] for row in rows] == ["all", "points", "cluster"]
    every, points, cluster = rows
    assert said(every[2]).endswith("4 of 5") and said(points[2]).endswith("3 of 5")
    assert said(cluster[2]).endswith("1 of 5")
    assert said(points[3]).endswith("1 of 3") and said(every[3]).endswith("1 of 4")
    assert said(points[4]) == "0.40 / 5.44 m" and said(points[5]) == "0.50 / 8.15°"
    assert said(cluster[4]) == "4.00 / 4.00 m" and cluster[5] == "–"
    # standard deviations by the rule of thumb: hypot(4 · 0.05, 0.1) m and hypot(4 · 0.2, 0.5)°
    assert said(points[6]).endswith("2 of 3") and said(points[7]).endswith("2 of 3")
    assert said(every[8]).endswith("1 of 4") and points[8] == ""
    assert said(every[9]).endswith("2 of 5") and points[9] == ""
    # where the truth itself is known within 6 m per axis, an error of 6 m says nothing
    rough = Asked(DRIVE.model_copy(update={"truth_std_m": 6.0}), as_it_is, lost, {})
    assert said(pose_table([rough], CALIBRATION).rows[1][6]).endswith("3 of 3")
    assert (
        fix_table([rough], CALIBRATION).rows[0][5]
        != fix_table([Asked(DRIVE, as_it_is, lost, {})], CALIBRATION).rows[0][5]
    )


def test_with_a_prior_the_circle_counts_where_it_convinces_else_the_whole_gallery() -> None:
    found, doubted, alone = answer(50, 1.0, contrasted=True), answer(10, 2.0, contrasted=True), answer(50, 3.0)
    whole = answer(30, 40.0)
    pairs = [Within(near, whole) for near in (found, doubted, alone, None)]
    assert [pair.published(CALIBRATION) for pair in pairs] == [found, whole, whole, whole]
    drive = DRIVE.model_copy(update={"prior_std_m": 10.0})
    asked = [
        Asked(DRIVE, Collected(()), Collected(()), {}),
        Asked(drive, Collected(()), Collected(()), {}, {"right": pairs}),
    ]
    none, right = prior_table(asked, CALIBRATION).rows
    assert none[:3] == ("drive", "none", "10 m") and right[1] == "right"
    assert said(none[4]).endswith("4 of 4") and said(right[4]).endswith("3 of 4")


def test_only_the_drives_that_calibrate_are_fitted() -> None:
    rng = np.random.default_rng(0)
    right = tuple(
        answer(int(n), float(e)) for n, e in zip(rng.integers(30, 90, 60), rng.normal(0, 4, 60), strict=True)
    )
    wrong = Collected(tuple(answer(int(n)) for n in rng.integers(4, 9, 60)))
    calibrating = Asked(DRIVE.model_copy(update={"calibrates": True}), Collected(right), wrong, {})
    misleading = Asked(DRIVE, Collected(tuple(answer(90) for _ in range(60))), wrong, {})
    calibration, summary = fit_asked([calibrating, misleading], 0.01, {"model": "m"})
    assert (calibration.samples, calibration.measured_with) == (120, {"model": "m"})
    assert summary["auc"] == 1.0
    with pytest.raises(SourceError, match="cannot calibrate"):
        fit_asked([misleading], 0.01, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "expected a mapping, found list"),
        ("drives: [", "is no recipe"),
        ("drives: [{name: a, gallery: {path: x}, queries: {path: x}, evry: 2}, {}]", "evry"),
        (
            "drives: [{name: a, gallery: {path: x}, queries: {path: x}},"
            " {name: b, gallery: {path: x}, queries: {path: x}}]",
            "drives that calibrate",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_recipe(path)


def test_the_recipe_that_ships_can_be_read() -> None:
    recipe = read_recipe(Path(__file__).parents[3] / "docs/recipes/integrity.yaml")
    assert {drive.calibrates for drive in recipe.drives} == {True, False}
    known = {*recipe.towns, "tower", "lund", "seneca", "brighton"}
    assert {i.path for d in recipe.drives for i in (d.gallery, d.queries, *d.foreign)} <= known


def test_select_takes_what_is_meant(tmp_path: Path) -> None:
    write_source(tmp_path / "a", 0, 45.0)
    chosen = select(Images(path="a", split="query", leave_out=("*_00.png",), every=5, first=1), tmp_path)
    assert [item.place.name for item in chosen] == ["query_02.png", "query_07.png"]
    with pytest.raises(SourceError, match="none of 24"):
        select(Images(path="a", only=("nothing",)), tmp_path)


def test_select_gives_the_camera_and_the_tags_that_a_recipe_says(tmp_path: Path) -> None:
    write_source(tmp_path / "a", 0, 45.0)
    write_camera(tmp_path / "lens.yaml", Camera(640, 480, 500.0, 500.0, 319.5, 239.5))
    plain = select(Images(path="a", split="query"), tmp_path)
    meant = Images(path="a", split="query", camera="lens.yaml", tags=Tags(std_m=2.0, seed=3))
    chosen = select(meant, tmp_path, tmp_path)
    assert [item.place.name for item in chosen] == [item.place.name for item in plain]
    camera = chosen[0].camera_at(320, 240)
    assert camera is not None and camera.fx == 250.0 and plain[0].camera_at(320, 240) is None
    off_m = [
        float(distance_m(a.place.latitude_deg, a.place.longitude_deg, b.place.latitude_deg, b.place.longitude_deg))
        for a, b in zip(plain, chosen, strict=True)
    ]
    assert 0.5 < float(np.sqrt(np.mean(np.square(off_m)) / 2)) < 4.0 and min(off_m) > 0


def test_the_verb_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "small.safetensors")
    for name, seed, latitude in (("a", 0, 45.0), ("b", 100, 46.0)):
        write_source(tmp_path / name, seed, latitude)
    drives = [
        {
            "name": f"drive {name}",
            "gallery": {"path": name, "split": "gallery"},
            "queries": {"path": name, "split": "query"},
            "calibrates": name == "a",
            "prior_std_m": 0.0 if name == "a" else 20.0,
            "prior_every": 4,
            "foreign": [] if name == "a" else [{"path": "a", "split": "query", "every": 3}],
        }
        for name in ("a", "b")
    ]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"drives": drives, "plain_seeds": 1}))
    (tmp_path / "small.gated.calibration.json").write_text("{", encoding="utf-8")  # what is broken can be replaced
    words = ["evaluate", "integrity", recipe, "--data", tmp_path, "--output", tmp_path / "out", "--model", model]
    assert main([*map(str, words), "--device", "cpu", "--store"]) == 0
    said = capsys.readouterr().out
    assert "| drive b |" in said and "| drive a (calibrates) |" in said
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"integrity.md", "integrity.png", "results.json", "calibration.json", "galleries"}
    results = json.loads((tmp_path / "out/results.json").read_text())
    judged = results["fixes"][1]
    assert int(judged["fixes"].split()[-3]) >= 10 and judged["false fixes"].startswith("0.0 %")
    assert [(row["drive"], row["prior"].split(":")[0]) for row in results["priors"]] == [
        ("drive b", prior) for prior in ("none", "right", "wrong")
    ]
    assert all(int(row["fixes"].split()[-1]) == PLACES / 4 for row in results["priors"])
    refused = {row["asked about"]: row["NO_FIX"] for row in results["elsewhere"] if row["gallery of"] == "drive b"}
    assert refused["a"].endswith("4 of 4") and refused["its own images without their place"].endswith("12 of 12")
    assert all(text.startswith("100.0 %") for text in refused.values())
    # what was stored is what a gallery without a calibration of its own is opened with
    stored = load_calibration(tmp_path / "small.gated.calibration.json")
    assert stored is not None and stored.samples > 24
    config = parse_config(LocalizerConfig, {"model": str(model), "device": "cpu"})
    (opened,) = (
        localizer
        for path in (tmp_path / "out/galleries").iterdir()
        if (localizer := Localizer.open(path, config)).gallery.places[0].latitude_deg > 45.5
    )
    assert opened.calibration is not None
    assert opened.gallery.spacing_m == pytest.approx(60.0, abs=0.5)
    assert opened.calibration == stored.at_spacing(opened.gallery.spacing_m)
    # with a prior, what is judged is what the localizer answers
    images = read_source(tmp_path / "b", split="query").images[::4]
    limited = 0
    questions = [Question.of(item) for item in images]
    for circle in (circle_of_prior, functools.partial(circle_elsewhere, opened.gallery)):
        (asked,) = ask_within(opened, questions, without_itself(opened.gallery), [circle(20.0)], 25.0)
        again = circle(20.0)
        for item, pair in zip(images, asked, strict=True):
            published = opened.localize(Frame(item.read()), again(item.place))
            judged = pair.published(stored)
            fixed = stored.confidence(judged.evidence) >= stored.min_confidence
            assert (published.fix is not None) == fixed
            assert published.confidence == pytest.approx(stored.confidence(judged.evidence))
            assert (published.header.near is None) == (judged is pair.whole)
            limited += published.header.near is not None
    assert limited, "a circle convinced"


def test_the_circle_of_a_prior_holds_the_truth_as_often_as_it_claims() -> None:
    truth = Place("x", 45.0, 7.0)

    def apart_m(near: Near) -> float:
        return float(distance_m(near.latitude_deg, near.longitude_deg, truth.latitude_deg, truth.longitude_deg))

    circle = circle_of_prior(40.0)
    circles = [circle(truth) for _ in range(2000)]
    assert {near.radius_m for near in circles} == {120.0}, "three standard deviations"
    assert np.mean([apart_m(near) <= near.radius_m for near in circles]) == pytest.approx(0.989, abs=0.01)
    assert circle_of_prior(1.0)(truth).radius_m == 50.0, "prior.min_radius_m"
    with pytest.raises(SourceError, match="600 m wide"):
        circle_of_prior(200.0)(truth)
