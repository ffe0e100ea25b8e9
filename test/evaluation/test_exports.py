"""What is written is read back, by this package's readers and by the formats' own."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import pytest
from evo.core import metrics, sync
from evo.tools import file_interface as evo_files
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation import exports
from geowarp_ros.evaluation.bags import POSE_TOPIC, read_fixes
from geowarp_ros.evaluation.run import Run
from geowarp_ros.readers import Skipped
from geowarp_ros.types import Fix
from test.evaluation import runs


@pytest.fixture(scope="module")
def run() -> Run:
    return runs.run()


@pytest.fixture(scope="module")
def bag(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "fixes"
    exports.write_bag(run, folder)
    return folder


def test_the_bag_comes_back_as_it_was(run: Run, bag: Path) -> None:
    answers, notes = read_fixes(bag)
    assert notes == ()
    for answer, item in zip(answers, run.answered, strict=True):
        assert (answer.header.stamp_ns, answer.header.frame_id) == (item.stamp_ns, "camera")
        read, written = answer.result, item.answer.result
        assert type(read) is type(written)
        if isinstance(written, Fix) and isinstance(read, Fix):
            assert (read.latitude_deg, read.longitude_deg) == (written.latitude_deg, written.longitude_deg)
            np.testing.assert_array_equal(read.covariance, written.covariance)


def test_poses_are_east_and_north_of_the_datum_with_an_orientation_nobody_knows(run: Run, bag: Path) -> None:
    with AnyReader([bag]) as reader:
        connections = [c for c in reader.connections if c.topic == POSE_TOPIC]
        messages = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages(connections)]
        recorded = [time for _, time, _ in reader.messages(connections)]
    assert len(messages) == 5  # of six answers one is no fix
    pose = messages[3].pose
    assert (pose.pose.position.x, pose.pose.position.y) == pytest.approx((15.0, 60.0), abs=1e-3)
    covariance = pose.covariance.reshape(6, 6)
    np.testing.assert_array_equal(covariance[:3, :3], np.diag([25.0, 25.0, 1e6]))
    assert (np.diag(covariance)[3:] > 9).all()
    assert messages[0].header.frame_id == "map"
    assert recorded[0] == runs.START_NS


def test_a_second_run_replaces_its_own_bag_and_nothing_else(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "fixes"
    exports.write_bag(run, folder)
    exports.write_bag(run, folder)
    foreign = tmp_path / "recording"
    foreign.mkdir()
    (foreign / "drive.mcap").write_bytes(b"precious")
    with pytest.raises(SourceError, match="not written by an evaluation"):
        exports.write_bag(run, foreign)
    assert (foreign / "drive.mcap").read_bytes() == b"precious"


def test_tum_trajectories(run: Run, tmp_path: Path) -> None:
    exports.write_tum(run, tmp_path / "truth.tum", tmp_path / "estimate.tum")
    truth = np.loadtxt(tmp_path / "truth.tum")
    estimate = np.loadtxt(tmp_path / "estimate.tum")
    assert truth.shape == (6, 8) and estimate.shape == (5, 8)
    np.testing.assert_allclose(truth[:, 1], 5.0 * np.arange(6), atol=1e-3)
    np.testing.assert_allclose(estimate[:, 2], [1, 3, 4, 60, 8], atol=2e-3)
    np.testing.assert_array_equal(estimate[:, 4:], np.tile([0, 0, 0, 1], (5, 1)))
    first = (tmp_path / "truth.tum").read_text().split()[0]
    assert first == "1700000000.123456789"  # to the nanosecond, which a float would lose


def test_evo_reads_both(run: Run, bag: Path, tmp_path: Path) -> None:
    exports.write_tum(run, tmp_path / "truth.tum", tmp_path / "estimate.tum")
    truth = evo_files.read_tum_trajectory_file(tmp_path / "truth.tum")
    with Reader(bag) as reader:
        from_bag = evo_files.read_bag_trajectory(reader, POSE_TOPIC)
    for estimate in (evo_files.read_tum_trajectory_file(tmp_path / "estimate.tum"), from_bag):
        pair = sync.associate_trajectories(truth, estimate)
        error = metrics.APE(metrics.PoseRelation.translation_part)
        error.process_data(pair)
        assert sorted(error.error) == pytest.approx([1, 3, 4, 8, 60], abs=2e-3)


def test_geojson_is_longitude_first(run: Run, tmp_path: Path) -> None:
    exports.write_geojson(run, tmp_path / "fixes.geojson")
    features = json.loads((tmp_path / "fixes.geojson").read_text())["features"]
    kinds = [feature["properties"]["kind"] for feature in features]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"truth": 1, "fix": 5, "error": 5, "no_fix": 1}
    point = next(feature for feature in features if feature["properties"]["kind"] == "fix")
    assert point["geometry"]["coordinates"] == pytest.approx([9.0, 45.0], abs=1e-4)
    assert point["properties"]["error_m"] == pytest.approx(1.0, abs=1e-3)
    assert point["properties"]["candidate"] == "gallery/0.jpg"


def test_gpx_has_two_tracks_with_times(run: Run, tmp_path: Path) -> None:
    exports.write_gpx(run, tmp_path / "fixes.gpx")
    space = {"g": "http://www.topografix.com/GPX/1/1"}
    tracks = Xml.parse(tmp_path / "fixes.gpx").getroot().findall("g:trk", space)
    assert [track.findtext("g:name", "", space) for track in tracks] == ["truth", "fixes"]
    points = tracks[1].findall(".//g:trkpt", space)
    assert len(points) == 5
    assert float(points[0].get("lat", "")) == pytest.approx(45.0, abs=1e-4)
    assert points[0].findtext("g:time", "", space).startswith("2023-11-14T22:13:20.12345")


def test_csv_has_every_image(tmp_path: Path) -> None:
    result = runs.run(unreadable=(Skipped("bad.jpg", "bad.jpg: truncated"),), dropped=("drive/004.jpg",))
    exports.write_csv(result, tmp_path / "images.csv")
    with (tmp_path / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["fix"] * 4 + ["dropped", "fix", "unreadable"]
    assert float(rows[3]["error_m"]) == pytest.approx(60.0, abs=1e-3)
    assert float(rows[3]["nees"]) == pytest.approx(144.0, rel=1e-3)
    assert float(rows[3]["claimed_radius_m"]) == pytest.approx(12.2387, rel=1e-4)
    assert float(rows[0]["latency_ms"]) == pytest.approx(61.1)
    assert rows[6]["reason"] == "bad.jpg: truncated"


def test_a_run_without_a_fix_exports_nothing_wrong(tmp_path: Path) -> None:
    lost = runs.run(lost=range(6))
    exports.write_bag(lost, tmp_path / "fixes")
    answers, _ = read_fixes(tmp_path / "fixes")
    assert len(answers) == 6 and not any(answer.fix for answer in answers)
    exports.write_tum(lost, tmp_path / "t.tum", tmp_path / "e.tum")
    assert Path(tmp_path / "e.tum").read_text() == ""
    exports.write_geojson(lost, tmp_path / "f.geojson")
    exports.write_gpx(lost, tmp_path / "f.gpx")


# ---- orientation


def test_orientations_come_back_from_the_bag(tmp_path: Path) -> None:
    headed = runs.headed_run()
    exports.write_bag(headed, tmp_path / "fixes")
    answers, _ = read_fixes(tmp_path / "fixes")
    for answer, item in zip(answers, headed.answered, strict=True):
        read, written = answer.fix, item.answer.fix
        assert read is not None and written is not None
        assert (read.orientation is None) == (written.orientation is None)
        if read.orientation is not None:
            assert read.heading_deg == pytest.approx(written.heading_deg, abs=1e-3)
            assert read.heading_std_deg == pytest.approx(1.0, abs=1e-4)
            assert read.pose_covariance is not None and written.pose_covariance is not None
            np.testing.assert_allclose(read.pose_covariance, written.pose_covariance, atol=1e-3)


def test_tum_has_the_orientations_and_evo_finds_the_heading_errors(tmp_path: Path) -> None:
    exports.write_tum(runs.headed_run(), tmp_path / "truth.tum", tmp_path / "estimate.tum")
    truth = evo_files.read_tum_trajectory_file(tmp_path / "truth.tum")
    estimate = evo_files.read_tum_trajectory_file(tmp_path / "estimate.tum")
    error = metrics.APE(metrics.PoseRelation.rotation_angle_deg)
    error.process_data(sync.associate_trajectories(truth, estimate))
    # the last two fixes have no orientation: the identity, 100° from a truth of 350°
    assert list(error.error) == pytest.approx([0.5, 1.0, 2.5, 170.0, 100.0, 100.0], abs=1e-3)


def test_csv_and_geojson_have_headings_and_methods(tmp_path: Path) -> None:
    exports.write_csv(runs.headed_run(), tmp_path / "images.csv")
    with (tmp_path / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["points"] * 4 + ["cluster"] * 2
    assert [row["heading"] for row in rows] == ["350.5", "349", "352.5", "180", "", ""]
    assert [row["heading_error_deg"] for row in rows] == ["0.5", "-1", "2.5", "-170", "", ""]
    assert {row["true_heading"] for row in rows} == {"350"} and rows[0]["heading_std"] == "1"
    exports.write_geojson(runs.headed_run(), tmp_path / "fixes.geojson")
    features = json.loads((tmp_path / "fixes.geojson").read_text())["features"]
    first, *_, last = [feature["properties"] for feature in features if feature["properties"]["kind"] == "fix"]
    assert (first["method"], first["heading_deg"], first["heading_std_deg"]) == ("points", 350.5, 1.0)
    assert first["heading_error_deg"] == 0.5 and last["heading_deg"] is None and last["method"] == "cluster"
