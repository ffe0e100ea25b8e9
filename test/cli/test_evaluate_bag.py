"""``geowarp evaluate bag`` and ``compare`` from end to end, with a localizer that needs no network."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

import geowarp_ros.localizer
from geowarp_ros.cameras import Camera
from geowarp_ros.cli import main
from geowarp_ros.cli.next_step import command_line
from geowarp_ros.config import SessionConfig, parse_config
from geowarp_ros.evaluation.bags import POSE_TOPIC
from geowarp_ros.evaluation.exports import write_bag
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.readers.camera_files import write_camera
from geowarp_ros.types import Answer, Candidate, Fix, Frame, Header, Near, NoFix, Place
from test.evaluation import runs
from test.gallery import bags

pytestmark = pytest.mark.usefixtures("g")


IMAGES = 6


class ByShade:
    """Knows the place from the red channel of the test bags' images; is 3 m off and unsure of the last two."""

    calibration = None

    def __init__(self, config: SessionConfig) -> None:
        self.config = config
        row = np.arange(IMAGES)
        frame = LocalFrame(bags.LATITUDE, bags.LONGITUDE)
        self.gallery = types.SimpleNamespace(
            frame=frame,
            datum=LocalFrame(bags.LATITUDE - 1e-3, bags.LONGITUDE),
            positions_enu=frame.to_enu(bags.LATITUDE + row * 0.5e-3, np.full(IMAGES, bags.LONGITUDE)),
            image=lambda index: bags.picture(10 * index),
        )
        self.given: list[
            tuple[Near | None, int | None]
        ] = []  # of each image: the circle, and how many candidates there is time for
        self.cameras: list[Camera | None] = []
        self.frames: list[Frame] = []

    def warm_up(self) -> None:
        pass

    def localize(self, frame: Frame, near: Near | None, deadline: Callable[[], int | None]) -> Answer:
        row, count = int(frame.image[0, 0, 0]) // 10, deadline()
        self.given.append((near, count))
        self.cameras.append(frame.camera)
        self.frames.append(frame)
        reranked = min(5, 5 if count is None else count)
        header = Header(frame.stamp_ns, "", near, reranked, {"all": 9.0, "rerank": 200.0 * reranked})
        fix = self._fix(row)
        place = Place(f"{row}.png", fix.latitude_deg, fix.longitude_deg)
        result: Fix | NoFix = NoFix("low_confidence", "", 0.2) if row >= IMAGES - 2 else fix
        return Answer(header, result, (Candidate(row, place, 0.4),))

    def judge(self, answer: Answer, min_confidence: float) -> Fix:
        assert min_confidence == 0.0
        return self._fix(answer.candidates[0].index)

    def _fix(self, row: int) -> Fix:
        latitude, longitude, _ = LocalFrame(bags.LATITUDE + row * 0.5e-3, bags.LONGITUDE).to_geodetic(
            [3.0, 0.0, 0.0]
        )
        return Fix(float(latitude), float(longitude), 0.0, np.diag([9.0, 9.0, 1e6]), 0.9)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[ByShade]:
    """The localizers that were opened."""
    localizers = []

    def open_stand_in(gallery: str, config: SessionConfig) -> ByShade:
        localizers.append(ByShade(config))
        return localizers[-1]

    monkeypatch.setattr(geowarp_ros.localizer.Localizer, "open", open_stand_in)
    return localizers


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return bags.write_bag(tmp_path / "drive", bags.drive(IMAGES))


def evaluate(*words: object) -> int:
    return main(["evaluate", "bag", *map(str, words)])


def test_poses_of_the_bag_are_in_the_map_frame_that_the_node_has(
    tmp_path: Path, bag: Path, opened: list[ByShade]
) -> None:
    """A gallery's datum stays where it is when the gallery, and with it the middle of its extent, grows."""
    assert evaluate(bag, "--gallery", "g", "--output", tmp_path / "out") == 0
    with AnyReader([tmp_path / "out" / "fixes"]) as reader:
        poses = [c for c in reader.connections if c.topic == POSE_TOPIC]
        _, _, raw = next(reader.messages(poses))
        position = reader.deserialize(raw, poses[0].msgtype).pose.pose.position
    fix = opened[0]._fix(0)
    expected = opened[0].gallery.datum.to_enu(fix.latitude_deg, fix.longitude_deg)
    assert expected[1] > 100
    assert (position.x, position.y) == pytest.approx((expected[0], expected[1]), abs=1e-3)


def test_everything_is_written_and_said(
    tmp_path: Path, bag: Path, opened: list[ByShade], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert evaluate(bag, "--gallery", "g", "--rerank", "none", "--min-confidence", 0.3, "--output", output) == 0
    captured = capsys.readouterr()
    said = captured.out
    conclusion = (
        "0 of 6 guesses were wrong by more than 25 m at any threshold (95 %: below 39 %, for 6 are few);"
        " a calibration on a drive of this place would answer more."
    )
    assert conclusion in said.splitlines() and conclusion in (output / "report.html").read_text()
    assert captured.err.splitlines()[-1] == f"next: {command_line(['view', output])}"
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
    expected = {"rerank": {"method": "none"}, "position": {"min_confidence": 0.3}}
    assert opened[0].config == parse_config(SessionConfig, expected)


def test_images_are_localised_with_the_camera_of_the_bag_or_of_a_file(
    tmp_path: Path, opened: list[ByShade], capsys: pytest.CaptureFixture[str]
) -> None:
    bag = bags.write_bag(tmp_path / "drive", [*bags.drive(IMAGES), bags.info(0.0, 80.0, size=(64, 48))])
    words = (bag, "--gallery", "g", "--output", tmp_path / "run")
    assert evaluate(*words) == 0
    lens = (0.1, 0.0, 0.0, 0.0, 0.0)
    assert opened[0].cameras == [Camera(32, 24, 40, 40, 15.5, 11.5, "plumb_bob", lens, "/camera_info")] * IMAGES
    file = tmp_path / "camera.yaml"
    write_camera(file, Camera(32, 24, 30, 30, 15.5, 11.5))
    assert evaluate(*words, "--camera", file) == 0
    assert opened[1].cameras == [Camera(32, 24, 30, 30, 15.5, 11.5, source=str(file))] * IMAGES
    write_camera(file, Camera(32, 32, 30, 30, 15.5, 15.5))
    assert evaluate(*words, "--camera", file) == 1
    assert "camera.yaml: is of images of 32×32 px, the image has 32×24" in capsys.readouterr().err


def test_the_nodes_parameter_file_is_taken_and_options_go_before_it(
    tmp_path: Path, bag: Path, opened: list[ByShade], capsys: pytest.CaptureFixture[str]
) -> None:
    params = tmp_path / "node.yaml"
    params.write_text(
        "/**:\n  ros__parameters:\n    gallery: elsewhere\n    use_sim_time: true\n    rerank.candidates: 3\n"
        "    rerank:\n      method: none\n    position:\n      min_confidence: 0.4\n"
    )
    words = ("--gallery", "g", "--params-file", params, "--min-confidence", 0.1, "--output", tmp_path / "run")
    assert evaluate(bag, *words) == 0
    rerank, position = opened[0].config.rerank, opened[0].config.position
    assert (rerank.method, rerank.candidates, position.min_confidence) == ("none", 3, 0.1)
    params.write_text("- no\n- parameters\n")
    assert evaluate(bag, *words) == 1
    assert "is no parameter file" in capsys.readouterr().err
    params.write_text("/**:\n  ros__parameters:\n    rerank:\n      metod: none\n")
    assert evaluate(bag, *words) == 1
    assert "did you mean 'rerank.method'" in capsys.readouterr().err


def parameters(folder: Path, text: str) -> Path:
    """A parameter file of the node."""
    path = folder / "node.yaml"
    path.write_text(f"/**:\n  ros__parameters:\n    {text}\n")
    return path


def results_of(output: Path) -> Any:
    return json.loads((output / "results.json").read_text())


@pytest.fixture
def jumping_bag(tmp_path: Path) -> Path:
    """Four images along the drive, then one that looks like the first of them, 167 m behind."""
    shades = (0, 10, 20, 30, 0)
    images = [bags.image(row / 2, shade) for row, shade in enumerate(shades)]
    return bags.write_bag(tmp_path / "jumping", images + bags.drive(IMAGES)[IMAGES:])


def test_tracking_of_a_parameter_file_is_honoured_and_set_overrides_it(
    tmp_path: Path, jumping_bag: Path, opened: list[ByShade]
) -> None:
    params = parameters(tmp_path, "tracking: {method: hmm, max_speed_mps: 100.0}")
    words = (jumping_bag, "--gallery", "g", "--params-file", params)
    assert evaluate(*words, "--output", tmp_path / "hmm") == 0
    found = results_of(tmp_path / "hmm")
    assert (found["availability"]["count"], found["no_fix_reasons"]) == (4, {"jump": 1})
    assert found["false_fix_rate"]["count"] == 0
    assert evaluate(*words, "--set", "tracking.method=none", "--output", tmp_path / "none") == 0
    found = results_of(tmp_path / "none")
    assert (found["availability"]["count"], found["no_fix_reasons"]) == (5, {})
    assert found["false_fix_rate"]["count"] == 1
    settings = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("hmm", "none")]
    assert [each["localizer"]["tracking"]["method"] for each in settings] == ["hmm", "none"]
    assert [each["localizer"]["tracking"]["max_speed_mps"] for each in settings] == [100.0, 100.0]


def odometry(t_s: float, x_m: float) -> bags.Message:
    """A pose in the odometry's frame."""
    kinds = bags.ROS2.types
    point, quaternion = kinds["geometry_msgs/msg/Point"], kinds["geometry_msgs/msg/Quaternion"]
    pose = kinds["geometry_msgs/msg/Pose"](point(x_m, 0.0, 0.0), quaternion(0.0, 0.0, 0.0, 1.0))
    still = kinds["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
    twist = kinds["geometry_msgs/msg/Twist"](still, still)
    stamp_ns = bags.START_NS + round(t_s * 1e9)
    message = kinds["nav_msgs/msg/Odometry"](
        bags._header(bags.ROS2, stamp_ns),
        "base_link",
        kinds["geometry_msgs/msg/PoseWithCovariance"](pose, np.zeros(36)),
        kinds["geometry_msgs/msg/TwistWithCovariance"](twist, np.zeros(36)),
    )
    return "/odom", stamp_ns, message


def test_the_bags_odometry_says_how_far_the_robot_came(tmp_path: Path, opened: list[ByShade]) -> None:
    # images are 56 m apart, which 100 m/s explain; by odometry the robot stood still
    path = bags.write_bag(tmp_path / "still", [*bags.drive(4), *(odometry(t / 10, 0.0) for t in range(21))])
    words = (
        path,
        "--gallery",
        "g",
        "--truth-topic",
        "/fix",
        "--set",
        "tracking.method=hmm",
        "tracking.max_speed_mps=100",
    )
    assert evaluate(*words, "--output", tmp_path / "speed") == 0
    assert results_of(tmp_path / "speed")["no_fix_reasons"] == {}
    assert evaluate(*words, "--odometry-topic", "/odom", "--output", tmp_path / "odometry") == 0
    assert results_of(tmp_path / "odometry")["no_fix_reasons"]["jump"] >= 1


def test_fixes_that_contradict_the_bags_odometry_are_held_back_without_a_tracker(
    tmp_path: Path, opened: list[ByShade]
) -> None:
    path = bags.write_bag(tmp_path / "still", [*bags.drive(4), *(odometry(t / 10, 0.0) for t in range(21))])
    words = (path, "--gallery", "g", "--truth-topic", "/fix")
    assert evaluate(*words, "--output", tmp_path / "alone") == 0
    assert results_of(tmp_path / "alone")["no_fix_reasons"] == {}
    assert evaluate(*words, "--odometry-topic", "/odom", "--output", tmp_path / "odometry") == 0
    found = results_of(tmp_path / "odometry")
    # each is 56 m from the one before: the first stands, all others contradict
    assert (found["availability"]["count"], found["no_fix_reasons"]) == (1, {"jump": 3})


def test_the_bags_imu_and_the_setting_that_uses_it_belong_together(
    tmp_path: Path, opened: list[ByShade], capsys: pytest.CaptureFixture[str]
) -> None:
    path = bags.write_bag(tmp_path / "imu", [*bags.drive(4), *(bags.imu(t / 10, (0, 0, 1)) for t in range(21))])
    words = (path, "--gallery", "g", "--truth-topic", "/fix", "--output", tmp_path / "out")
    setting = ("--set", "gravity=imu", "base_frame=base_link")
    for one in (("--imu-topic", "/imu"), setting):
        assert evaluate(*words, *one) == 1
        assert (
            "gravity = 'imu' and --imu-topic, the topic of Imu in the bag: expected both"
            in capsys.readouterr().err
        )
    assert evaluate(*words, "--imu-topic", "/imu", *setting) == 0
    frames = [frame for each in opened for frame in each.frames]
    assert frames and all(frame.gravity is not None for frame in frames)


def test_a_prior_of_the_bag_limits_the_search(
    tmp_path: Path, opened: list[ByShade], capsys: pytest.CaptureFixture[str]
) -> None:
    messages = [*bags.drive(4), *(bags.fix(t, 45.1, topic="/gnss") for t in (0.4, 1.4))]
    path = bags.write_bag(tmp_path / "gnss", messages)
    params = parameters(tmp_path, "prior: {source: fix, max_age_s: 0.5, max_radius_m: 80.0}")
    words = (
        path,
        "--gallery",
        "g",
        "--params-file",
        params,
        "--truth-topic",
        "/fix",
        "--output",
        tmp_path / "run",
    )
    assert evaluate(*words, "--prior-topic", "/gnss") == 0
    # images at 0, 0.5, 1 and 1.5 s: no message yet; fresh; 0.6 s old; fresh
    near = Near(45.1, bags.LONGITUDE, 80.0)
    assert [given for given, _ in opened[0].given] == [None, near, None, near]
    capsys.readouterr()
    assert evaluate(*words) == 1
    said = capsys.readouterr().err
    assert "prior.source = 'fix'" in said and "--prior-topic" in said and said.count("\n") == 1
    assert len(opened) == 1
    assert evaluate(*words, "--set", "prior.source=none") == 0


def test_a_latency_budget_has_fewer_candidates_re_ranked(tmp_path: Path, bag: Path, opened: list[ByShade]) -> None:
    params = parameters(tmp_path, "latency_budget_ms: 700.0")
    assert evaluate(bag, "--gallery", "g", "--params-file", params, "--output", tmp_path / "run") == 0
    first, *counts = [count for _, count in opened[0].given]
    # 200 ms each: three, or fewer where this machine is slow; the first image is measured
    assert first is None and set(counts) <= {1, 2, 3} and 3 in counts


def test_a_parameter_file_with_an_unknown_name_is_refused(
    tmp_path: Path, bag: Path, opened: list[ByShade], capsys: pytest.CaptureFixture[str]
) -> None:
    params = parameters(tmp_path, "traking: {method: hmm}")
    assert evaluate(bag, "--gallery", "g", "--params-file", params, "--output", tmp_path / "run") == 1
    said = capsys.readouterr().err
    assert "unknown parameter 'traking'" in said and "did you mean 'tracking" in said and said.count("\n") == 1
    assert opened == []


def test_topics_that_nothing_would_listen_to_are_refused(
    tmp_path: Path, bag: Path, opened: list[ByShade], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--gallery", "g", "--output", tmp_path / "run")
    assert evaluate(bag, *words, "--prior-topic", "/fix") == 1
    assert "--prior-topic /fix: prior.source = 'none' does not use it" in capsys.readouterr().err
    (tmp_path / "positions.csv").write_text("filename,latitude,longitude\n")
    table = tmp_path / "positions.csv"
    assert evaluate(table, *words, "--set", "prior.source=fix", "--prior-topic", "/fix") == 1
    assert "is no bag and has no topics" in capsys.readouterr().err
    assert opened == []


def test_recorded_fixes_are_judged_without_a_gallery(
    tmp_path: Path, bag: Path, opened: list[ByShade], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(bag, "--gallery", "g", "--output", tmp_path / "offline") == 0
    capsys.readouterr()
    assert evaluate(bag, "--fixes", tmp_path / "offline" / "fixes", "--output", tmp_path / "live") == 0
    offline, live = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("offline", "live"))
    assert live["availability"] == offline["availability"]
    assert live["error_m"]["0.95"] == pytest.approx(offline["error_m"]["0.95"], abs=1e-3)
    assert live["calibration"]["nees_mean"] == pytest.approx(1.0, abs=1e-3)
    assert live["precision_availability_area"] is None
    assert len(opened) == 1


def test_a_csv_is_a_drive(tmp_path: Path, opened: list[ByShade], capsys: pytest.CaptureFixture[str]) -> None:
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


def test_two_runs_side_by_side(
    tmp_path: Path, bag: Path, opened: list[ByShade], capsys: pytest.CaptureFixture[str]
) -> None:
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
        (["--fixes", "g", "--set", "tracking.method=hmm"], "tracking: --fixes judges what was localised already"),
        (["--fixes", "g", "--rerank", "none"], "rerank: --fixes judges what was localised already"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    bag: Path,
    opened: list[ByShade],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    assert evaluate(bag, *words, "--output", tmp_path / "run") == 1
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_absent_drive_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(tmp_path / "nowhere", "--gallery", "g", "--output", tmp_path / "run") == 1
    assert "does not exist" in capsys.readouterr().err


def test_the_fixes_that_are_judged_are_not_overwritten(
    tmp_path: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bag(runs.run(), tmp_path / "run" / "fixes")
    before = sorted(path.read_bytes() for path in (tmp_path / "run" / "fixes").iterdir())
    assert evaluate(bag, "--fixes", tmp_path / "run" / "fixes", "--output", tmp_path / "run") == 1
    assert "would overwrite" in capsys.readouterr().err
    assert sorted(path.read_bytes() for path in (tmp_path / "run" / "fixes").iterdir()) == before
