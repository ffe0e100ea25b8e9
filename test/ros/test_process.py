"""The node's own process, with a real model and gallery, talked to over DDS from this one."""

from __future__ import annotations

import io
import json
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from PIL import Image as Pillow
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, NavSatFix

from geowarp_ros.config import NodeConfig, RetrievalConfig, leaves
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.model.checkpoints import save_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.readers import read_source
from geowarp_ros.ros.process import LAST_S
from geowarp_ros.types import Image as Pixels
from test.ros.conftest import LATITUDES, PATIENCE_S, Robot, colourful, image_message, seconds, until, values

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]


class NodeProcess:
    """``localizer`` as ``ros2 run`` would start it."""

    def __init__(
        self, *ros_args: str, module: str = "geowarp_ros.ros.node", arguments: tuple[str, ...] = ()
    ) -> None:
        words = [sys.executable, "-m", module, *arguments, "--ros-args", *ros_args]
        self.popen = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def says(self, text: str) -> str:
        """Wait for a line of its log."""

        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        with self._news:
            self._news.wait_for(lambda: found() or self._ended, PATIENCE_S)
        line = found()
        assert line is not None, f"{text!r} not in:\n" + "\n".join(self.lines)
        return line

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; returns the exit status."""
        self.popen.send_signal(number)
        return self.wait()

    def shared_memory(self) -> list[Path]:
        """Its DDS participant's segments, none of another's: while it lives it keeps the lock of each open."""
        found = []
        for link in Path(f"/proc/{self.popen.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed by now
                if lock := re.fullmatch(r"(/dev/shm/fastrtps_[0-9a-f]{16})_el", str(link.readlink())):
                    found.append(Path(lock[1]))
        return found

    def close(self) -> None:
        """End it, if it has not; killed, it would leave its shared memory behind."""
        try:
            if self.popen.poll() is None:
                self.end()
        except subprocess.TimeoutExpired:
            self.end(signal.SIGKILL)
            raise

    def wait(self) -> int:
        status = self.popen.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status


@pytest.fixture(scope="module")
def photographs() -> list[Pixels]:
    return colourful(6, 8, 128, 96)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, photographs: list[Pixels]) -> Path:
    folder = tmp_path_factory.mktemp("robot")
    torch.manual_seed(3)
    torch.set_num_threads(1)
    model = GeoWarp(ModelConfig(encoder="resnet18", aggregation="gem")).eval()
    save_model(model, folder / "model.safetensors")
    (folder / "images").mkdir()
    rows = ["filename,latitude,longitude"]
    for number, (pixels, latitude) in enumerate(zip(photographs, LATITUDES, strict=True)):
        Pillow.fromarray(pixels).save(folder / "images" / f"{number}.png")
        rows.append(f"images/{number}.png,{latitude},8.0")
    (folder / "positions.csv").write_text("\n".join(rows) + "\n")
    build_gallery(read_source(folder / "positions.csv"), Describer(model, "cpu"), folder / "gallery")
    (folder / "node.yaml").write_text(
        "/**:\n  ros__parameters:\n"
        f"    model: {folder / 'model.safetensors'}\n    gallery: {folder / 'gallery'}\n    device: cpu\n"
        "    rerank.candidates: 2\n    position:\n      min_confidence: 0\n      cluster_radius_m: 30\n"
    )
    return folder


@pytest.fixture(scope="module")
def robot(graph: None) -> Iterator[Robot]:
    robot = Robot("operator")
    yield robot
    robot.close()


@pytest.fixture(scope="module")
def node(files: Path, robot: Robot) -> Iterator[NodeProcess]:
    process = NodeProcess("--params-file", str(files / "node.yaml"))
    try:
        process.says("activate: now active")
        yield process
    finally:
        process.close()


def test_fix_over_dds_from_another_process(node: NodeProcess, robot: Robot, photographs: list[Pixels]) -> None:
    message = image_message(photographs[2], stamp_s=20.5, frame_id="front_camera")
    fix = _first_fix(robot, lambda: robot.show(message))
    assert (fix.status.status, fix.status.service) == (0, 0)
    assert fix.latitude == pytest.approx(LATITUDES[2], abs=1e-6)
    assert fix.longitude == pytest.approx(8.0, abs=1e-6)
    assert np.isfinite(fix.altitude)
    covariance = fix.position_covariance.reshape(3, 3)
    assert fix.position_covariance_type == NavSatFix.COVARIANCE_TYPE_APPROXIMATED
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    assert covariance[2, 2] == 1000.0**2  # the gallery knows no altitude
    assert (fix.header.frame_id, seconds(fix.header.stamp)) == ("front_camera", 20.5)
    pose = robot.poses.get(timeout=PATIENCE_S)
    assert pose.header.frame_id == "map"
    # the datum is the gallery's centre, latitude 50.0015: half a thousandth of a degree south of the place
    assert pose.pose.pose.position.y == pytest.approx(55.6, abs=0.5)
    (info,) = robot.node.get_publishers_info_by_topic("/geowarp_localizer/fix")
    assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert info.qos_profile.durability == DurabilityPolicy.VOLATILE
    (info,) = robot.node.get_subscriptions_info_by_topic("/image")
    assert info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT


def test_the_log_says_what_an_image_will_take(node: NodeProcess) -> None:
    expected_ms = re.search(r"about (\d+) ms an image", node.says("ms an image"))
    assert expected_ms is not None and 0 < int(expected_ms[1]) < 60_000
    assert "places, datum 50.0015" in node.says("gallery ") and " on cpu" in node.says("gallery ")


def test_every_encoding_is_localised_alike(node: NodeProcess, robot: Robot, photographs: list[Pixels]) -> None:
    pixels = photographs[1]
    padded = np.zeros((96, 140 * 3), np.uint8)
    padded[:, : 128 * 3] = pixels.reshape(96, -1)
    message = image_message(pixels, stamp_s=21.0)
    message.step, message.data = padded.strides[0], padded.tobytes()
    messages = [
        message,
        image_message(np.ascontiguousarray(pixels[..., ::-1]), 21.1, encoding="bgr8"),
        image_message(np.dstack([pixels, pixels[..., :1]]), 21.2, encoding="rgba8"),
    ]
    for message in messages:
        fix = robot.answer(message)
        assert (fix.status.status, fix.latitude) == (0, pytest.approx(LATITUDES[1], abs=1e-6))


def test_bad_frames_leave_the_node_alive(node: NodeProcess, robot: Robot, photographs: list[Pixels]) -> None:
    robot.show(image_message(photographs[0], stamp_s=22.0, encoding="32FC3"))
    parts = robot.diagnosis(lambda parts: values(parts["input"]).get("bad: encoding") == "1")
    assert parts["input"].level == DiagnosticStatus.WARN
    assert "'32FC3' is not supported" in parts["input"].message
    node.says("'32FC3' is not supported")
    assert robot.answer(image_message(photographs[0], stamp_s=22.1)).latitude == pytest.approx(
        LATITUDES[0], abs=1e-6
    )


def test_a_burst_is_answered_by_its_newest_image(
    node: NodeProcess, robot: Robot, photographs: list[Pixels]
) -> None:
    parts = robot.diagnosis()
    before, fixes_before = values(parts["input"]), int(values(parts["localization"])["fixes"])
    for number in range(30):
        robot.show(image_message(photographs[number % 4], stamp_s=23.0 + number / 100))
    stamps: list[float] = []
    while not stamps or stamps[-1] < 23.285:
        stamps.append(seconds(robot.fix().header.stamp))
    assert stamps == sorted(stamps)

    def settled(parts: dict[str, Any]) -> bool:
        return values(parts["localization"])["fixes"] == str(fixes_before + len(stamps))

    after = values(robot.diagnosis(settled)["input"])
    received = int(after["received"]) - int(before["received"])
    dropped = int(after["dropped"]) - int(before["dropped"])
    assert received == dropped + len(stamps)  # none is lost without being counted
    assert dropped > 0


def test_below_the_minimum_it_says_no(node: NodeProcess, robot: Robot, photographs: list[Pixels]) -> None:
    assert robot.set(position__min_confidence=1) == ""  # a whole number for a double
    while not robot.poses.empty():
        robot.poses.get()
    fix = robot.answer(image_message(photographs[0], stamp_s=24.0))
    assert (fix.status.status, fix.status.service) == (-1, 0)
    assert fix.latitude == pytest.approx(50.0015, abs=1e-6)  # the datum, not a guess
    assert np.isfinite(fix.altitude)
    assert fix.position_covariance_type == NavSatFix.COVARIANCE_TYPE_APPROXIMATED
    assert (np.diag(fix.position_covariance.reshape(3, 3)) == 1e14).all()
    answer = robot.ask(image_message(photographs[0], stamp_s=24.1))
    assert not answer.success
    assert json.loads(answer.message)["status"] == "no_fix"
    parts = robot.diagnosis(lambda parts: int(values(parts["localization"])["no fixes"]) > 0)
    assert parts["localization"].level == DiagnosticStatus.WARN
    assert robot.poses.empty()
    assert robot.set(position__min_confidence=0.0) == ""
    assert (
        json.loads(robot.ask(image_message(photographs[0], stamp_s=24.2)).message)["candidates"][0]["path"]
        == "images/0.png"
    )


def test_parameters_are_described(node: NodeProcess, robot: Robot) -> None:
    retrieval, transport = robot.describe("retrieval.candidates", "image_transport")
    assert retrieval.description == RetrievalConfig.model_fields["candidates"].description
    assert retrieval.integer_range[0].to_value == 1000
    assert "raw, compressed" in transport.additional_constraints
    assert "before configure" in robot.set(device="cuda")


def test_lifecycle_to_compressed_images_and_back(
    node: NodeProcess, robot: Robot, photographs: list[Pixels]
) -> None:
    assert robot.state() == "active"
    assert robot.change("deactivate")
    assert robot.state() == "inactive"
    assert robot.change("cleanup")
    assert robot.state() == "unconfigured"
    until(lambda: not robot.node.count_publishers("/geowarp_localizer/fix"), "the publishers to go")
    assert robot.set(image_transport="compressed") == ""
    assert robot.change("configure")
    assert robot.change("activate")
    buffer = io.BytesIO()
    Pillow.fromarray(photographs[3]).save(buffer, "PNG")
    header = image_message(photographs[3], stamp_s=30.0).header
    until(lambda: robot.node.count_publishers("/geowarp_localizer/fix"), "the publishers to come back")
    fix = _first_fix(
        robot, lambda: robot.show(CompressedImage(header=header, format="png", data=buffer.getvalue()))
    )
    assert fix.latitude == pytest.approx(LATITUDES[3], abs=1e-6)


def test_sigint_ends_it_cleanly(node: NodeProcess) -> None:
    segments = node.shared_memory()
    assert segments
    assert node.end(signal.SIGINT) == 0
    assert not any(segment.exists() for segment in segments)
    assert not any("Traceback" in line for line in node.lines)


def test_sigterm_ends_even_an_unconfigured_node(files: Path, robot: Robot) -> None:
    process = NodeProcess("-p", "autostart:=false", "-r", "__node:=geowarp_localizer")
    assert robot.state() == "unconfigured"
    assert not robot.change("configure")  # no gallery is named
    process.says("cannot configure: gallery = ''")
    assert process.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("busy_with", ["loading", "localising"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_even_while_busy(
    busy_with: str, number: int, robot: Robot, photographs: list[Pixels]
) -> None:
    process = NodeProcess("-p", f"model:={busy_with}", module="test.ros.stuck_node")
    if busy_with == "localising":  # the first images can be lost while discovery goes on

        def shown() -> bool:
            robot.show(image_message(photographs[0]))
            return "stuck" in process.lines

        until(shown, "an image to arrive")
    process.says("stuck")
    segments = process.shared_memory()
    assert segments
    assert process.end(number) == 0  # it would hang for good without the last resort, which acts in time
    assert LAST_S < 2.0
    assert not any("Traceback" in line for line in process.lines)
    assert not any(segment.exists() for segment in segments)


def test_it_ends_even_where_native_code_keeps_the_interpreter_for_good(robot: Robot) -> None:
    process = NodeProcess("-p", "autostart:=false", module="test.ros.stuck_node", arguments=("ending",))
    assert robot.state() == "unconfigured"
    segments = process.shared_memory()
    assert process.end(signal.SIGTERM) == 1  # no thread of Python can end it: it would hang for good
    process.says("in destroy_node")  # where it hung
    for segment in segments:  # which it could not free
        segment.unlink()


def test_a_signal_that_another_thread_gets_ends_it_too(robot: Robot) -> None:
    process = NodeProcess("-p", "model:=signalled", module="test.ros.stuck_node")
    assert process.wait() == 0
    assert "stuck" in process.lines


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-p", "galery:=/nowhere"), "unknown parameter 'galery' (did you mean 'gallery'?)"),
        (("-p", "gallery:=/nowhere/at/all"), "cannot configure: "),
        (("--params-file", "/nowhere/node.yaml"), "cannot start: "),
    ],
)
def test_a_bad_start_is_one_line_and_status_1(arguments: tuple[str, ...], said: str, graph: None) -> None:
    process = NodeProcess(*arguments)
    assert process.wait() == 1
    process.says(said)
    assert not any("Traceback" in line for line in process.lines)


def test_help_is_help(graph: None) -> None:
    for module, word, begins in (
        ("node", "--help", "localizer --ros-args"),
        ("localizers", "-h", "localizers CAM"),
    ):
        process = NodeProcess(module=f"geowarp_ros.ros.{module}", arguments=(word,))
        assert process.wait() == 0
        told = " ".join(process.lines)
        assert told.startswith(f"usage: {begins}") and all(f"  {name}" in told for name, _ in leaves(NodeConfig))
        assert "Number of retrieved candidates to re-rank. (default: 5)" in " ".join(told.split())


def test_a_missing_home_is_said_by_its_name(graph: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "ROS_HOME", "ROS_LOG_DIR"):
        monkeypatch.delenv(name, raising=False)
    process = NodeProcess("-p", "gallery:=/nowhere")
    assert process.wait() == 1
    assert "cannot start: HOME is not set, and ROS keeps its logs there" in process.says("cannot start")
    assert len(process.lines) == 1


def _first_fix(robot: Robot, show: Callable[[], None]) -> NavSatFix:
    """Show an image until its answer comes back: a subscriber may not yet have found a new publisher."""
    deadline = time.monotonic() + PATIENCE_S
    while not robot.fixes.empty():  # of before
        robot.fixes.get()
    while True:
        show()
        try:
            return robot.fixes.get(timeout=0.5)
        except queue.Empty:
            assert time.monotonic() < deadline, "no fix"
