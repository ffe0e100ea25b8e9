"""The node with a scripted localizer: what it publishes, counts, refuses and forgets."""

from __future__ import annotations

import importlib.util
import json
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, NavSatFix
from visualization_msgs.msg import Marker, MarkerArray

from geowarp_ros.attitude import Mounting, fix_from_pose
from geowarp_ros.config import LocalizerConfig, NodeConfig
from geowarp_ros.errors import ConfigError, GalleryError, ModelError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion import session
from geowarp_ros.motion.pace import Pace
from geowarp_ros.pictures import WIDTH_PX
from geowarp_ros.ros.executor import PoolExecutor
from geowarp_ros.ros.node import LocalizerNode
from geowarp_ros.ros.process import THREADS
from geowarp_ros.types import Answer, Candidate, Deadline, Fix, Frame, Header, Near, NoFix, Place, Pose
from geowarp_ros.types import Image as Pixels
from test.ros.conftest import (
    PATIENCE_S,
    Robot,
    image_message,
    imu_message,
    odometry_message,
    prior_message,
    seconds,
    until,
    values,
)

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]

DATUM = LocalFrame(55.71, 13.19, 30.0)
PLACE = Place("a.jpg", 55.71, 13.19)
COVARIANCE = np.array([[9.0, 1.0, 0.0], [1.0, 16.0, 0.0], [0.0, 0.0, 1e6]])
FIX = Fix(55.7109, 13.1902, 0.0, COVARIANCE, 0.9)
CANDIDATES = (Candidate(0, PLACE, 0.1, score=0.7),)


class ScriptedGallery:
    frame, places, model_fingerprint, positions_enu = DATUM, (PLACE,), "f00d", np.zeros((1, 3))

    def __init__(self, datum: LocalFrame = DATUM) -> None:
        self.datum = datum

    def image(self, index: int, /) -> Pixels:
        return np.full((48, 64, 3), 10 * index, np.uint8)


class ScriptedLocalizer:
    """Answers as told; ``gate`` holds it, ``frames`` is what it was shown."""

    runtime, device = "torch", "cpu"

    def __init__(self, script: Script) -> None:
        self.script, self.gallery = script, script.gallery

    @property
    def caution(self) -> str:
        return self.script.caution

    def localize(self, frame: Frame, near: Near | None, deadline: Callable[[], int | None]) -> Answer:
        self.script.frames.append(frame)
        self.script.near.append(near)
        self.script.begun.set()
        assert self.script.gate.wait(PATIENCE_S)
        if self.script.error:
            raise self.script.error
        header = Header(frame.stamp_ns, frame.frame_id, near, 1, {"describe": 3.0, "rerank": 1.0})
        return Answer(header, self.script.result, CANDIDATES)

    def reconfigured(self, config: LocalizerConfig) -> ScriptedLocalizer:
        if config.rerank.method == "none":
            raise ModelError("rerank.method = 'none': not with this script")
        self.script.configs.append(config)
        return ScriptedLocalizer(self.script)


class Script:
    """What the localizer answers; and what it, the tracker and the pace were asked."""

    def __init__(self) -> None:
        self.gallery = ScriptedGallery()
        self.result: Fix | NoFix = FIX
        self.error: Exception | None = None
        self.opening_error: Exception | None = None
        self.frames: list[Frame] = []
        self.near: list[Near | None] = []
        self.travelled_m: list[float | None] = []
        self.due_s: list[float | None] = []
        self.configs: list[Any] = []
        self.tracks = 0
        self.caution = ""
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()

    def open(self, config: NodeConfig) -> ScriptedLocalizer:
        self.configs.append(config)
        if self.opening_error:
            raise self.opening_error
        return ScriptedLocalizer(self)


class NotingTracker:
    def __init__(self, script: Script) -> None:
        self.script = script

    def __call__(self, answer: Answer, travelled_m: float | None = None, /) -> Answer:
        self.script.travelled_m.append(travelled_m)
        return answer

    def reset(self) -> None:
        self.script.tracks += 1


class NotingPace(Pace):
    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script

    def deadline(self, at_s: float | None) -> Deadline:
        self.script.due_s.append(at_s)
        return super().deadline(at_s)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()
    monkeypatch.setattr(session, "build_tracker", lambda *_: NotingTracker(script))
    monkeypatch.setattr(session, "Pace", lambda: NotingPace(script))
    return script


@pytest.fixture
def start(script: Script, robot: Robot) -> Iterator[Callable[..., LocalizerNode]]:
    executor = PoolExecutor(THREADS)
    thread = threading.Thread(target=executor.spin, daemon=True)
    nodes: list[LocalizerNode] = []

    def begin(given: dict[str, Any] | None = None, **options: Any) -> LocalizerNode:
        overrides = [Parameter(name, value=value) for name, value in ({"gallery": "g"} | (given or {})).items()]
        node = LocalizerNode(options.pop("opener", script.open), parameter_overrides=overrides, **options)
        nodes.append(node)
        executor.add_node(node)
        if not thread.is_alive():
            thread.start()
        return node

    yield begin
    script.gate.set()
    for node in nodes:
        node.halt(PATIENCE_S)
    executor.shutdown()
    for node in nodes:
        node.destroy_node()


def test_a_fix_obeys_every_rule_of_its_consumers(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels
) -> None:
    start()
    robot.show(image_message(pixels, stamp_s=12.25, frame_id="front_camera"))
    fix = robot.fix()
    assert (fix.status.status, fix.status.service) == (0, 0)
    assert (fix.latitude, fix.longitude, fix.altitude) == (55.7109, 13.1902, 0.0)
    assert fix.position_covariance_type == NavSatFix.COVARIANCE_TYPE_APPROXIMATED
    assert np.array_equal(fix.position_covariance.reshape(3, 3), COVARIANCE)
    assert fix.header.frame_id == "front_camera"
    assert seconds(fix.header.stamp) == 12.25
    (info,) = robot.node.get_publishers_info_by_topic("/geowarp_localizer/fix")
    assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert info.qos_profile.durability == DurabilityPolicy.VOLATILE


def test_the_pose_lies_in_the_map_frame_about_the_datum(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels
) -> None:
    start()
    robot.show(image_message(pixels, stamp_s=12.25))
    pose = robot.poses.get(timeout=PATIENCE_S)
    assert (pose.header.frame_id, seconds(pose.header.stamp)) == ("map", 12.25)
    # by hand: 0.0009° of latitude are 100.2 m at 55.7°, 0.0002° of longitude 12.6 m
    assert pose.pose.pose.position.x == pytest.approx(12.56, abs=0.1)
    assert pose.pose.pose.position.y == pytest.approx(100.2, abs=0.2)
    assert pose.pose.pose.position.z == 0.0  # the gallery has no altitude
    q = pose.pose.pose.orientation
    assert (q.x, q.y, q.z, q.w) == (0.0, 0.0, 0.0, 1.0)
    covariance = pose.pose.covariance.reshape(6, 6)
    assert np.array_equal(covariance[:3, :3], COVARIANCE)
    assert np.array_equal(covariance[3:, 3:], np.eye(3) * 1e6)
    assert not covariance[:3, 3:].any()


def test_no_fix_weighs_nothing_and_leads_nobody(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    script.result = NoFix("low_confidence", "0.1 of 0.5")
    start()
    robot.show(image_message(pixels, stamp_s=3.5))
    fix = robot.fix()
    assert fix.status.status == -1
    assert (fix.latitude, fix.longitude, fix.altitude) == (55.71, 13.19, 30.0)  # the datum, not the candidate
    assert fix.position_covariance_type == NavSatFix.COVARIANCE_TYPE_APPROXIMATED
    assert np.array_equal(fix.position_covariance.reshape(3, 3), np.eye(3) * 1e14)
    assert (fix.header.frame_id, seconds(fix.header.stamp)) == ("camera", 3.5)
    script.result = FIX
    robot.show(image_message(pixels, stamp_s=4.0))
    assert robot.fix().status.status == 0
    assert seconds(robot.poses.get(timeout=PATIENCE_S).header.stamp) == 4.0  # none came of the first image


def test_altitude_nan_and_frame_by_parameter(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    start({"altitude_nan": True, "frame_id": "base_link", "datum_latitude": 55.7, "datum_longitude": 13.1})
    robot.show(image_message(pixels))
    fix = robot.fix()
    assert math.isnan(fix.altitude)
    assert fix.header.frame_id == "base_link"
    assert robot.poses.get(timeout=PATIENCE_S).pose.pose.position.y == pytest.approx(1217.5, abs=5)
    script.result = replace(FIX, altitude_m=42.0, covariance=np.eye(3))  # known: its variance says so
    robot.show(image_message(pixels, stamp_s=2.0))
    assert robot.fix().altitude == 42.0


def received(node: LocalizerNode, count: int) -> Callable[[], bool]:
    """Whether so many images have come."""
    return lambda: node.statistics.received == count


def test_only_the_latest_frame_is_kept_while_busy(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    script.gate.clear()
    node = start()
    robot.show(image_message(pixels, stamp_s=1.0))
    assert script.begun.wait(PATIENCE_S)
    for number in range(2, 7):
        robot.show(image_message(pixels, stamp_s=float(number)))
        until(received(node, number), "the image to arrive")
    script.gate.set()
    assert [seconds(robot.fix().header.stamp) for _ in range(2)] == [1.0, 6.0]
    counts = node.statistics
    assert (counts.received, counts.dropped) == (6, 4)
    assert [frame.stamp_ns for frame in script.frames] == [10**9, 6 * 10**9]


def test_bad_frames_are_counted_by_reason_and_the_node_lives(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start()
    robot.show(image_message(pixels, encoding="32FC1"))
    short = image_message(pixels, stamp_s=1.1)
    short.data = short.data[:100]
    until(lambda: node.statistics.bad == {"encoding": 1}, "the first to be counted")
    robot.show(short)
    parts = robot.diagnosis(lambda parts: "bad: data" in values(parts["input"]))
    assert parts["input"].level == DiagnosticStatus.WARN
    assert "100 bytes" in parts["input"].message
    script.error = ZeroDivisionError("unexpected")
    robot.show(image_message(pixels, stamp_s=1.2))
    parts = robot.diagnosis(lambda parts: "bad: internal error" in values(parts["input"]))
    assert values(parts["input"])["bad"] == "3"
    assert "ZeroDivisionError: unexpected" in parts["input"].message
    script.error = GalleryError("g: image of a.jpg: is gone")  # known: one line, no traceback
    robot.show(image_message(pixels, stamp_s=1.3))
    parts = robot.diagnosis(lambda parts: values(parts["input"]).get("bad: gallery") == "1")
    assert parts["input"].message.split("; ")[0] == "g: image of a.jpg: is gone"
    script.error = None
    robot.show(image_message(pixels, stamp_s=1.4))
    assert seconds(robot.fix().header.stamp) == pytest.approx(1.4)


def test_short_memory_is_a_warning_that_says_so(
    start: Callable[..., LocalizerNode], robot: Robot, script: Script
) -> None:
    start()
    robot.diagnosis(lambda parts: parts["gallery"].message == "g")
    script.caution = "out of CUDA memory 1 times, goes on with at most 300,000 px a pass"
    parts = robot.diagnosis(lambda parts: parts["gallery"].level == DiagnosticStatus.WARN)
    assert parts["gallery"].message == script.caution


def test_diagnostics_say_how_it_goes(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    start({"input_timeout_s": 0.5})
    silent = robot.diagnosis(lambda parts: parts["input"].message.startswith("no image for"))
    assert silent["input"].level == DiagnosticStatus.WARN
    assert silent["localization"].name == "geowarp_localizer: localization"  # REP 107
    gallery = values(silent["gallery"])
    assert (gallery["gallery"], gallery["places"], gallery["model fingerprint"]) == ("g", "1", "f00d")
    script.result = NoFix("disagreement", "they spread")
    robot.show(image_message(pixels))
    lost = robot.diagnosis(lambda parts: values(parts["localization"])["no fixes"] == "1")
    assert lost["localization"].level == DiagnosticStatus.WARN
    assert lost["localization"].message == "no fix, disagreement: they spread"
    assert values(lost["localization"])["no fixes: disagreement"] == "1"
    script.result = FIX
    robot.show(image_message(pixels, stamp_s=1.1))
    found = values(robot.diagnosis(lambda parts: values(parts["localization"])["fixes"] == "1")["localization"])
    assert (found["describe p50 (ms)"], found["describe p95 (ms)"]) == ("3.0", "3.0")
    assert float(found["total p50 (ms)"]) > 0
    assert found["state"] == "active"


def test_a_bag_that_loops_begins_anew(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start()
    robot.show(image_message(pixels, stamp_s=100.0))
    robot.fix()
    script.gate.clear()
    script.begun.clear()
    robot.show(image_message(pixels, stamp_s=101.0))
    assert script.begun.wait(PATIENCE_S)
    robot.show(image_message(pixels, stamp_s=50.0))
    until(lambda: node.statistics.resets == 1, "the jump to be seen")
    script.gate.set()
    assert seconds(robot.fix().header.stamp) == 50.0  # the answer from before the jump is dropped
    assert script.tracks == 1
    robot.show(image_message(pixels, stamp_s=49.9))  # out of order by a little: no jump
    assert seconds(robot.fix().header.stamp) == pytest.approx(49.9)
    assert node.statistics.resets == 1


def test_sim_time_stamps_what_is_published_and_its_jumps_reset(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels
) -> None:
    start({"use_sim_time": True})
    clock = robot.node.create_publisher(Clock, "/clock", 10)
    until(clock.get_subscription_count, "the node to follow /clock")
    tick = Clock()
    tick.clock.sec = 5000
    clock.publish(tick)
    robot.diagnosis(lambda parts: parts["stamp"].sec == 5000)
    tick.clock.sec = 4000
    clock.publish(tick)
    parts = robot.diagnosis(lambda parts: parts["stamp"].sec == 4000)
    assert values(parts["localization"])["resets"] == "1"


def test_match_images_are_rendered_while_someone_looks(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    start()
    robot.show(image_message(pixels))
    robot.fix()
    seen: queue.Queue[CompressedImage] = queue.Queue()
    robot.node.create_subscription(CompressedImage, "/geowarp_localizer/match_image/compressed", seen.put, 10)
    until(lambda: robot.node.count_publishers("/geowarp_localizer/match_image/compressed"), "the topic")
    stamp = 2.0
    while seen.empty():  # the node learns of the subscription in its own time
        robot.show(image_message(pixels, stamp_s=stamp))
        robot.fix()
        stamp += 0.1
        assert stamp < 100
    message = seen.get()
    picture = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    assert message.format == "jpeg"
    assert picture is not None
    assert picture.shape[1:] == (WIDTH_PX, 3)


def test_lifecycle_stops_frees_and_begins_again(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start({"autostart": False})
    assert robot.state() == "unconfigured"
    assert robot.set(image_transport="compressed") == ""
    assert robot.change("configure")
    assert "before configure" in robot.set(image_transport="raw")
    assert robot.raw.get_subscription_count() == robot.compressed.get_subscription_count() == 0
    assert robot.change("activate")
    encoded = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    message = CompressedImage(header=image_message(pixels).header, format="png", data=encoded)
    robot.show(message)
    robot.fix()
    assert np.array_equal(script.frames[0].image, pixels)
    assert robot.change("deactivate")
    until(lambda: not robot.compressed.get_subscription_count(), "the subscription to go")
    assert robot.change("cleanup")
    until(lambda: not robot.node.count_publishers("/geowarp_localizer/fix"), "the publishers to go")
    assert node.state == "unconfigured"
    assert robot.set(image_transport="raw") == ""
    assert robot.change("configure")
    assert robot.change("activate")
    robot.show(image_message(pixels, stamp_s=9.0))
    assert seconds(robot.fix().header.stamp) == 9.0


@pytest.mark.parametrize(
    ("error", "said"), [(GalleryError("g: no such gallery"), "g: no such gallery"), (KeyError("x"), "KeyError")]
)
def test_a_failed_configure_is_said_and_can_be_tried_again(
    start: Callable[..., LocalizerNode], robot: Robot, script: Script, error: Exception, said: str
) -> None:
    start({"autostart": False})
    script.opening_error = error
    assert not robot.change("configure")
    assert robot.state() == "unconfigured"
    parts = robot.diagnosis(lambda parts: parts["localization"].level == DiagnosticStatus.ERROR)
    assert said in parts["localization"].message
    script.opening_error = None
    assert robot.change("configure")
    robot.diagnosis(lambda parts: parts["localization"].level == DiagnosticStatus.OK)


def test_autostart_gives_up_when_it_cannot_configure(start: Callable[..., LocalizerNode], script: Script) -> None:
    script.opening_error = GalleryError("g: no such gallery")
    gave_up = threading.Event()
    start(give_up=gave_up.set)
    assert gave_up.wait(PATIENCE_S)


def test_parameters_change_while_running_as_a_whole(
    start: Callable[..., LocalizerNode], robot: Robot, script: Script, pixels: Pixels
) -> None:
    start()
    until(lambda: robot.state() == "active", "activation")
    assert robot.set(position__cluster_radius_m=30, retrieval__candidates=7) == ""  # 30 for a double
    config = script.configs[-1]
    assert (config.position.cluster_radius_m, config.retrieval.candidates) == (30.0, 7)
    assert "out of range" in robot.set(retrieval__candidates=0).lower()
    refused = robot.set(position__cluster_radius_m=0.0, frame_id="base_link")
    assert "position.cluster_radius_m = 0.0: input should be greater than 0" in refused
    assert "not with this script" in robot.set(rerank__method="none")
    assert "'vlad'" in robot.set(rerank__method="vlad")
    assert "before configure" in robot.set(model="other.safetensors")
    assert "autostart" in robot.set(autostart=False)
    robot.show(image_message(pixels))
    assert robot.fix().header.frame_id == "camera"  # nothing of a refused set was taken
    assert script.configs[-1] == config


@pytest.mark.parametrize("asked_first", [True, False])
def test_what_another_callback_rejects_changes_nothing(
    start: Callable[..., LocalizerNode], robot: Robot, script: Script, pixels: Pixels, asked_first: bool
) -> None:
    node = start()
    until(lambda: robot.state() == "active", "activation")
    reject = SetParametersResult(successful=False, reason="not today")
    node.add_on_set_parameters_callback(lambda _: reject)
    if not asked_first:  # rclpy asks the newest first
        node._on_set_parameters_callbacks.reverse()
    before = node._config, node._loaded
    assert robot.set(frame_id="base_link", prior__source="fix", max_rate_hz=0.01) == "not today"
    assert (node._config, node._loaded) == before
    assert robot.prior.get_subscription_count() == 0
    for stamp_s in (1.0, 2.0):
        robot.show(image_message(pixels, stamp_s=stamp_s))
        assert robot.fix().header.frame_id == "camera"


def test_parameters_change_where_there_is_no_post_set_callback(
    start: Callable[..., LocalizerNode],
    robot: Robot,
    script: Script,
    pixels: Pixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kind in ("pre", "post"):  # as in Humble
        monkeypatch.delattr(Node, f"add_{kind}_set_parameters_callback")
    start()
    until(lambda: robot.state() == "active", "activation")
    assert robot.set(frame_id="base_link") == ""
    assert "not with this script" in robot.set(rerank__method="none", frame_id="head")
    robot.show(image_message(pixels))
    assert robot.fix().header.frame_id == "base_link"


def test_a_topic_that_cannot_be_subscribed_to_is_logged_and_the_node_lives(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, capfd: pytest.CaptureFixture[str]
) -> None:
    start({"qos_overrides./prior_fix.subscription.reliability": "relyable"})
    until(lambda: robot.state() == "active", "activation")
    assert robot.set(prior__source="fix") == ""
    assert "cannot apply parameters: /prior_fix" in capfd.readouterr().err
    robot.show(image_message(pixels))
    assert robot.fix().status.status == 0


def test_services_localize_pause_reset_reload(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start({"localize_max_age_s": 3600.0})
    until(lambda: robot.state() == "active", "activation")
    assert robot.pause(True).message == "paused"
    robot.show(image_message(pixels, stamp_s=7.0))
    until(lambda: node.statistics.dropped == 1, "the image to arrive")
    answer = robot.trigger("localize")
    said = json.loads(answer.message)
    assert answer.success
    assert (said["status"], said["latitude"], said["stamp_ns"]) == ("fix", 55.7109, 7 * 10**9)
    assert seconds(robot.fix().header.stamp) == 7.0  # what it answers it publishes
    counts = node.statistics
    assert (counts.received, counts.dropped, counts.fixes) == (1, 0, 1)
    robot.show(image_message(pixels, stamp_s=7.5))
    until(lambda: node.statistics.dropped == 1, "the image to arrive")
    assert robot.trigger("reset").success
    assert robot.set(input_timeout_s=0.5) == ""
    assert not robot.trigger("localize").success  # the image is forgotten
    assert robot.pause(False).message == "active"
    assert robot.fixes.empty()
    script.opening_error = GalleryError("other: no such gallery")
    assert robot.set(gallery="other") == ""
    refused = robot.trigger("reload_gallery")
    assert (refused.success, refused.message) == (False, "the old gallery stays: other: no such gallery")
    script.opening_error = None
    assert json.loads(robot.trigger("reload_gallery").message)["gallery"] == "other"
    robot.show(image_message(pixels, stamp_s=8.0))
    assert seconds(robot.fix().header.stamp) == 8.0


def why_not(robot: Robot) -> str:
    """Return why there is no answer to where the robot is."""
    answer = robot.trigger("localize")
    said = json.loads(answer.message)
    assert (answer.success, said["status"], said["reason"]) == (False, "no_fix", "no_image")
    return str(said["detail"])


def test_where_it_is_cannot_be_said_while_inactive_or_without_a_young_image(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start({"autostart": False, "input_timeout_s": 0.3, "localize_max_age_s": 0.2})
    assert why_not(robot) == "the node is unconfigured: expected active"
    assert robot.change("configure")
    assert why_not(robot) == "the node is inactive: expected active"
    assert robot.change("activate")
    assert why_not(robot) == "no image younger than 0.2 s, and none came within 0.3 s"
    robot.pause(True)
    robot.show(image_message(pixels, stamp_s=1.0))
    until(received(node, 1), "the image to arrive")
    time.sleep(0.3)  # it grows old
    assert "none came within" in why_not(robot)
    assert robot.set(input_timeout_s=PATIENCE_S) == ""
    answer = robot.ask(image_message(pixels, stamp_s=2.0))  # the next image
    assert json.loads(answer.message)["stamp_ns"] == 2 * 10**9
    assert seconds(robot.fix().header.stamp) == 2.0
    bad = image_message(pixels, stamp_s=3.0, encoding="32FC1")
    until(lambda: "'32FC1' is not supported" in robot.ask(bad).message, "the others that were shown to pass")
    assert {frame.stamp_ns for frame in script.frames} == {2 * 10**9}


def test_who_waits_for_an_answer_is_told_when_the_node_is_deactivated_or_reset(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start({"input_timeout_s": PATIENCE_S})
    until(lambda: robot.state() == "active", "activation")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(why_not, robot)
        until(lambda: node._inquiries, "the question")
        assert robot.change("deactivate") and robot.change("activate")
        assert waiting.result(PATIENCE_S) == "the node is inactive: expected active"
        script.gate.clear()
        waiting = pool.submit(why_not, robot)
        until(lambda: node._inquiries, "the question")
        robot.show(image_message(pixels))
        assert script.begun.wait(PATIENCE_S)
        node._session.reset()
        script.gate.set()
        assert waiting.result(PATIENCE_S) == "the node was reset meanwhile"
    assert robot.fixes.empty()


def test_an_image_in_progress_answers_nobody_who_asks_later(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start({"input_timeout_s": 0.5, "localize_max_age_s": 3600.0})
    script.gate.clear()
    robot.show(image_message(pixels, stamp_s=1.0))
    assert script.begun.wait(PATIENCE_S)
    robot.show(image_message(pixels, stamp_s=2.0))  # waits for the worker
    until(received(node, 2), "the image to arrive")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(robot.trigger, "localize")
        until(lambda: node._inquiries, "the question")
        script.gate.set()
        assert json.loads(waiting.result(PATIENCE_S).message)["stamp_ns"] == 2 * 10**9
    assert [seconds(robot.fix().header.stamp) for _ in range(2)] == [1.0, 2.0]  # each is answered once
    assert robot.fixes.empty()


def test_qos_overrides_are_taken_and_unknown_ones_refused(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels
) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'qos_overrides\./image\.subscription\.depth'"):
        start({"qos_overrides./imag.subscription.depth": 1})
    start({"qos_overrides./image.subscription.reliability": "reliable"})
    (info,) = until(lambda: robot.node.get_subscriptions_info_by_topic("/image"), "the subscription")
    assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE


def test_an_impossible_qos_override_fails_the_transition(
    start: Callable[..., LocalizerNode], robot: Robot
) -> None:
    start({"autostart": False, "qos_overrides./geowarp_localizer/fix.publisher.reliability": "relyable"})
    assert not robot.change("configure")
    parts = robot.diagnosis(lambda parts: parts["localization"].level == DiagnosticStatus.ERROR)
    assert "relyable" in parts["localization"].message


def test_images_above_the_maximum_rate_are_dropped_and_counted(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start({"max_rate_hz": 0.01, "localize_max_age_s": 3600.0})  # one in 100 s
    for number in range(5):
        robot.show(image_message(pixels, stamp_s=1.0 + number))
        until(received(node, number + 1), "the image to arrive")
    assert seconds(robot.fix().header.stamp) == 1.0
    counts = node.statistics
    assert (counts.dropped, counts.too_frequent) == (4, 4)
    assert (
        json.loads(robot.trigger("localize").message)["stamp_ns"] == 5 * 10**9
    )  # it can be asked about all the same
    assert seconds(robot.fix().header.stamp) == 5.0
    assert robot.set(max_rate_hz=0) == ""
    for number in range(2):
        robot.show(image_message(pixels, stamp_s=6.0 + number))
        assert seconds(robot.fix().header.stamp) == 6.0 + number


def test_the_budget_is_a_deadline_from_the_images_arrival(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    start()
    robot.show(image_message(pixels, stamp_s=1.0))
    robot.fix()
    assert robot.set(latency_budget_ms=250.0) == ""
    before_s = time.monotonic()
    robot.show(image_message(pixels, stamp_s=2.0))
    robot.fix()
    assert robot.ask(image_message(pixels, stamp_s=3.0)).success  # who asks wants the whole answer
    first, second, asked = script.due_s
    assert first is None and asked == math.inf
    assert second is not None and before_s + 0.25 <= second <= time.monotonic() + 0.25


def test_who_asks_is_not_over_budget(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start({"mode": "on_demand", "latency_budget_ms": 1.0, "localize_max_age_s": PATIENCE_S})
    robot.show(image_message(pixels, stamp_s=1.0))
    until(received(node, 1), "the image to arrive")
    time.sleep(0.01)  # the image is older than the budget before anybody asks
    assert robot.trigger("localize").success
    until(lambda: node.statistics.fixes == 1, "the answer to be counted")
    assert node.statistics.over_budget == 0


def test_a_prior_reaches_the_search_while_it_is_wanted_fresh_and_a_fix(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start()
    robot.show(image_message(pixels, stamp_s=10.0))
    robot.fix()
    assert robot.prior.get_subscription_count() == 0
    assert robot.set(prior__source="fix", prior__min_radius_m=1) == ""
    until(robot.prior.get_subscription_count, "the localizer to subscribe")

    def asked_about(stamp_s: float, message: NavSatFix) -> Near | None:
        """Tell the position, wait until it is known, show an image; returns the circle searched."""

        def known() -> bool:
            robot.prior.publish(message)  # best effort: what discovery lost is told again
            said = node._session.prior.near(int(stamp_s * 1e9))[1]
            return said.startswith("within") == (message.status.status >= 0) and said != "no message yet"

        until(known, "the position to arrive")
        robot.answer(image_message(pixels, stamp_s=stamp_s))
        return script.near[-1]

    near = asked_about(12.0, prior_message(55.7110, 13.1900, stamp_s=11.0, std_m=20.0))
    radius_m: Any = pytest.approx(3 * 20.0 + 1.0 * 3.0)
    assert near == Near(55.7110, 13.1900, radius_m)
    parts = robot.diagnosis(lambda parts: values(parts["localization"])["prior"] != "no message yet")
    assert values(parts["localization"])["prior"] == "within 63 m"
    said = json.loads(robot.ask(image_message(pixels, stamp_s=12.0)).message)
    assert said["near"]["radius_m"] == pytest.approx(63.0)
    assert said["prior"] == "within 63 m"
    assert asked_about(13.0, prior_message(55.7110, 13.1900, stamp_s=12.0, status=-1)) is None
    said = json.loads(robot.ask(image_message(pixels, stamp_s=13.1)).message)
    assert said["prior"] == "status -1: no fix"
    assert "min_radius_m (900)" in robot.set(prior__min_radius_m=900)
    assert robot.set(prior__source="none") == ""
    until(lambda: not robot.prior.get_subscription_count(), "the subscription to go")


def test_odometry_says_how_far_it_was_between_two_images(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    node = start({"tracking.method": "hmm"})
    until(robot.odometry.get_subscription_count, "the localizer to subscribe")
    for second, x in enumerate([0.0, 1.5, 3.0, 2.0]):
        robot.drive(node, odometry_message(x, 0.0, 0.0, stamp_s=20.0 + second))
    for stamp_s in (20.0, 23.0):
        robot.show(image_message(pixels, stamp_s=stamp_s))
        robot.fix()
    assert script.travelled_m == [None, pytest.approx(1.5 + 1.5 + 1.0)]
    robot.show(image_message(pixels, stamp_s=2.0))  # time jumped back
    robot.fix()
    assert script.travelled_m[-1] is None
    assert script.tracks == 1


def test_an_imu_says_which_way_is_up(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    """The base is rolled by 20°, and the camera looks to its left: it is pitched."""
    given = {"gravity": "imu", "base_frame": "base_link", "camera_offset.yaw_deg": 90.0, "gravity_std_deg": 4.0}
    node = start(given)
    until(robot.imu.get_subscription_count, "the localizer to subscribe")
    lean = math.radians(20)
    message = imu_message((0.0, math.sin(lean), math.cos(lean)), stamp_s=20.0)

    def arrived() -> bool:
        robot.imu.publish(message)  # best effort: what discovery lost is told again
        return node._session.plumb.gravity(20 * 10**9, Mounting.of((0, 0, 0), (0, 0, 0))) is not None

    until(arrived, "the measurement to arrive")
    for stamp_s in (20.0, 30.0):
        robot.show(image_message(pixels, stamp_s=stamp_s))
        robot.fix()
    found, stale = (frame.gravity for frame in script.frames[-2:])
    assert found is not None and found.up == pytest.approx([0.0, -math.cos(lean), math.sin(lean)])
    assert math.degrees(found.std_rad) == pytest.approx(5.0)
    assert stale is None


def test_without_the_setting_no_imu_is_heard(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    start()
    robot.show(image_message(pixels, stamp_s=20.0))
    robot.fix()
    assert robot.imu.get_subscription_count() == 0 and script.frames[-1].gravity is None


def test_candidates_are_markers_while_someone_looks(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels
) -> None:
    start()
    seen: queue.Queue[MarkerArray] = queue.Queue()
    robot.node.create_subscription(MarkerArray, "/geowarp_localizer/candidates", seen.put, 10)
    until(lambda: robot.node.count_publishers("/geowarp_localizer/candidates"), "the topic")
    stamp = 2.0
    while seen.empty():  # the node learns of the subscription in its own time
        robot.show(image_message(pixels, stamp_s=stamp))
        robot.fix()
        stamp += 0.1
        assert stamp < 100
    first, sphere, name = seen.get().markers
    assert first.action == Marker.DELETEALL
    assert (sphere.type, sphere.header.frame_id) == (Marker.SPHERE, "map")
    assert name.text == "1  a.jpg  0.700"


def test_map_to_odom_without_tf2_msgs_is_refused_by_name(
    start: Callable[..., LocalizerNode], robot: Robot
) -> None:
    if importlib.util.find_spec("tf2_msgs"):
        pytest.skip("tf2_msgs is installed here")
    start({"autostart": False, "map_to_odom": True})
    assert not robot.change("configure")
    parts = robot.diagnosis(lambda parts: parts["localization"].level == DiagnosticStatus.ERROR)
    assert "map_to_odom = true: needs the ROS package tf2_msgs" in parts["localization"].message
    assert robot.set(map_to_odom=False) == ""
    assert robot.change("configure")


def test_two_nodes_in_two_namespaces_keep_apart(
    start: Callable[..., LocalizerNode], script: Script, pixels: Pixels, graph: None
) -> None:
    rear_script = Script()
    rear_script.result = replace(FIX, latitude_deg=10.0)
    front, rear = Robot("robot", "/front"), Robot("robot", "/rear")
    try:
        nodes = start(namespace="/front"), start(namespace="/rear", opener=rear_script.open)
        front.show(image_message(pixels, stamp_s=1.0))
        rear.show(image_message(pixels, stamp_s=2.0))
        assert (front.fix().latitude, rear.fix().latitude) == (55.7109, 10.0)
        assert [node.statistics.received for node in nodes] == [1, 1]
        names: set[str] = set()

        def both() -> bool:
            names.update(s.name for s in front.diagnostics.get(timeout=PATIENCE_S).status)
            return len(names) == 8

        until(both, "the diagnostics of both")
        assert {"front/geowarp_localizer: input", "rear/geowarp_localizer: input"} <= names
    finally:
        front.close()
        rear.close()


def test_an_oriented_fix_is_published_of_the_base(
    start: Callable[..., LocalizerNode], robot: Robot, pixels: Pixels, script: Script
) -> None:
    north = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    spread = np.diag([0.01] * 3 + [1e-4] * 3)
    pose = Pose("points", np.array([10.0, 20.0, 1.0]), north, spread, 40, 5.0, 3, 0.5, 0.7, 1.0)
    script.result = fix_from_pose(pose, DATUM, 0.9, spread)
    # it looks to the left of the base, 2 m ahead of it: the base heads east and lies 2 m west of the camera
    start({"base_frame": "base_link", "camera_offset.x_m": 2.0, "camera_offset.yaw_deg": 90.0})
    fix = robot.answer(image_message(pixels, stamp_s=5.0))
    assert fix.header.frame_id == "base_link"
    assert DATUM.to_enu(fix.latitude, fix.longitude, fix.altitude) == pytest.approx([8.0, 20.0, 1.0], abs=1e-6)
    published = robot.poses.get(timeout=PATIENCE_S).pose
    q = published.pose.orientation
    assert (q.x, q.y, q.z, q.w) == pytest.approx((0.0, 0.0, 0.0, 1.0), abs=1e-6)
    # 2 m of lever: a turn about up moves the base north by it
    assert published.covariance[7] == pytest.approx(0.01 + 4 * 1e-4) and published.covariance[35] < 1.01e-4
    said = values(robot.diagnosis(lambda parts: "method" in values(parts["localization"]))["localization"])
    assert (said["method"], said["camera on base"]) == ("points", "2.00 m from base_link")
    assert said["heading (deg)"] == "0.0 ± 0.6" or said["heading (deg)"] == "360.0 ± 0.6"
    answer = json.loads(robot.ask(image_message(pixels, stamp_s=6.0)).message)
    assert answer["method"] == "points" and len(answer["pose_covariance"]) == 36
