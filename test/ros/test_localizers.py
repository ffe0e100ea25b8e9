"""Several cameras in one process: one model, and each camera its own gallery and answers."""

from __future__ import annotations

import gc
import queue
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import SetParameters
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile

from geowarp_ros.config import NodeConfig
from geowarp_ros.errors import ConfigError, GalleryError
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.manifest import CALIBRATION
from geowarp_ros.integrity.calibration import Calibration, save_calibration
from geowarp_ros.model.checkpoints import fingerprint, load_model, save_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.readers import read_source
from geowarp_ros.ros.loading import SharedModel
from geowarp_ros.ros.localizers import make_nodes
from geowarp_ros.ros.node import LocalizerNode
from geowarp_ros.types import Image as Pixels
from test.ros.conftest import PATIENCE_S, Robot, image_message, values
from test.ros.test_process import NodeProcess

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]

LATITUDES = {"front": 50.0, "rear": -33.0}
"""The same photographs, said to be of two towns."""


@pytest.fixture(scope="module")
def photographs() -> list[Pixels]:
    coarse = np.random.default_rng(11).integers(0, 255, (3, 6, 8, 3), np.uint8)
    return [np.asarray(Pillow.fromarray(small).resize((128, 96), Pillow.Resampling.BICUBIC)) for small in coarse]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photographs: list[Pixels]) -> Path:
    folder = tmp_path_factory.mktemp("cameras")
    torch.manual_seed(3)
    torch.set_num_threads(1)
    save_model(GeoWarp(ModelConfig(encoder="resnet18", aggregation="gem")), folder / "model.safetensors")
    describer = Describer(load_model(folder / "model.safetensors"), "cpu")
    text = (
        "/**:\n  ros__parameters:\n"
        f"    model: {folder / 'model.safetensors'}\n    device: cpu\n    rerank.candidates: 2\n"
        "    position.min_confidence: 0\n"
    )
    for camera, latitude in LATITUDES.items():
        rows = ["filename,latitude,longitude"]
        for number, pixels in enumerate(photographs):
            Pillow.fromarray(pixels).save(folder / f"{number}.png")
            rows.append(f"{number}.png,{latitude + number * 1e-3},8.0")
        (folder / f"{camera}.csv").write_text("\n".join(rows) + "\n")
        build_gallery(read_source(folder / f"{camera}.csv"), describer, folder / camera)
        save_calibration(folder / camera / CALIBRATION, foreign_calibration(camera))
        text += f"/{camera}/geowarp_localizer:\n  ros__parameters:\n    gallery: {folder / camera}\n"
    (folder / "cameras.yaml").write_text(text)
    return folder


def foreign_calibration(camera: str) -> Calibration:
    """A calibration that is not used, which the localizer says when it looks for one."""
    return Calibration(
        title=f"the calibration of {camera}",
        **{name: () for name in ("features", "mean", "scale", "weights")},
        **{name: 1.0 for name in ("intercept", "min_confidence", "position_std_m", "scatter_gain")},
        correct_within_m=1.0,
        measured_with={"model": "another"},
    )


@pytest.fixture(scope="module")
def robots(graph: None) -> Iterator[dict[str, Robot]]:
    robots = {camera: Robot("robot", f"/{camera}") for camera in LATITUDES}
    yield robots
    for robot in robots.values():
        robot.close()


@pytest.mark.parametrize("processes", [1, 2])
def test_each_camera_is_answered_from_its_own_gallery(
    processes: int, folder: Path, robots: dict[str, Robot], photographs: list[Pixels]
) -> None:
    groups = [tuple(LATITUDES)] if processes == 1 else [(camera,) for camera in LATITUDES]
    started = [
        NodeProcess(
            "--params-file", str(folder / "cameras.yaml"), module="geowarp_ros.ros.localizers", arguments=group
        )
        for group in groups
    ]
    try:
        for process, group in zip(started, groups, strict=True):
            for camera in group:
                process.says(f"[{camera}.geowarp_localizer]: activate: now active")
        for number, pixels in enumerate(photographs):
            for camera, robot in robots.items():
                stamp_s = 10.0 * processes + number + 0.5
                fix = _answer(robot, image_message(pixels, stamp_s=stamp_s, frame_id=camera))
                assert fix.latitude == pytest.approx(LATITUDES[camera] + number * 1e-3, abs=1e-6)
                assert fix.header.frame_id == camera
        for camera, robot in robots.items():
            parts = _diagnosis(robot, f"{camera}/geowarp_localizer: gallery")
            assert values(parts)["gallery"] == str(folder / camera)
        assert [process.end(signal.SIGINT) for process in started] == [0] * len(started)
        assert not any("Traceback" in line for process in started for line in process.lines)
    finally:
        for process in started:
            if process.popen.poll() is None:
                process.end(signal.SIGKILL)


def test_warnings_of_the_core_reach_rosout_under_the_name_of_their_node(
    folder: Path, robots: dict[str, Robot]
) -> None:
    logs: queue.Queue[Log] = queue.Queue()
    qos = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    subscription = robots["front"].node.create_subscription(Log, "/rosout", logs.put, qos)

    def warned() -> tuple[str, str]:
        while "is not used" not in (log := logs.get(timeout=PATIENCE_S)).msg:
            pass
        assert log.level == Log.WARN
        return log.name, log.msg.split(" is not used")[0]

    def set_parameter(camera: str, name: str, value: object) -> None:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        service = f"/{camera}/geowarp_localizer/set_parameters"
        assert robots[camera].call(SetParameters, service, request).results[0].successful

    process = NodeProcess(
        *("--params-file", str(folder / "cameras.yaml")),
        module="geowarp_ros.ros.localizers",
        arguments=tuple(LATITUDES),
    )
    try:
        for camera in LATITUDES:
            process.says(f"[{camera}.geowarp_localizer]: activate: now active")
        by_node = {(f"{camera}.geowarp_localizer", f"the calibration of {camera}") for camera in LATITUDES}
        assert {warned(), warned()} == by_node
        set_parameter("front", "input_timeout_s", 7.0)  # has nothing to do with a calibration: says nothing
        set_parameter("rear", "rerank.candidates", 3)
        assert warned() == ("rear.geowarp_localizer", "the calibration of rear")
        assert process.end(signal.SIGINT) == 0  # only then has its log been read to the end
        assert sum("is not used" in line for line in process.lines) == 3
    finally:
        robots["front"].node.destroy_subscription(subscription)
        process.close()


def test_a_parameter_rebuilds_only_what_it_touches_and_repeats_no_warning(
    folder: Path, graph: None, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"model": str(folder / "model.safetensors"), "device": "cpu", "gallery": str(folder / "front")}
    given = [Parameter(name, value=value) for name, value in (config | {"autostart": False}).items()]
    node = LocalizerNode(parameter_overrides=given)
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS

        def parts() -> tuple[Any, ...]:
            assert node._loaded is not None
            localizer = node._loaded.localizer
            return localizer.verifier, localizer.reranker, localizer.describer, localizer.gallery

        def changed_by(name: str, value: object) -> list[bool]:
            before = parts()
            (result,) = node.set_parameters([Parameter(name, value=value)])
            assert result.successful, result.reason
            return [was is not now for was, now in zip(before, parts(), strict=True)]

        assert len(caplog.records) == 1  # the calibration is not used
        for name, value in (
            *(("input_timeout_s", 7.0), ("max_rate_hz", 3.0), ("frame_id", "base_link")),
            *(("tracking.method", "hmm"), ("prior.source", "track"), ("latency_budget_ms", 500.0)),
            *(("position.min_texture", 0.5), ("position.min_confidence", 0.9)),
        ):
            assert changed_by(name, value) == [False, False, False, False], name
        assert len(caplog.records) == 1
        assert changed_by("position.verify_candidates", 3) == [True, False, False, False]
        assert changed_by("rerank.mode", "fast") == [False, True, False, False]
        assert len(caplog.records) == 3  # what a calibration depends on has changed twice
        assert node._loaded is not None
        assert node._loaded.localizer.config.position.min_confidence == 0.9
    finally:
        node.destroy_node()


def test_one_model_is_loaded_for_all_and_freed_after_the_last(folder: Path) -> None:
    shared = SharedModel()
    named = dict(zip(LATITUDES, (str(folder / "model.safetensors"), "gallery"), strict=True))  # its own: the same
    configs = {
        camera: NodeConfig(model=named[camera], device="cpu", gallery=str(folder / camera), autostart=False)
        for camera in LATITUDES
    }
    opened: dict[str, Any] = {}
    threads = [
        threading.Thread(target=lambda camera=camera: opened.update({camera: shared(configs[camera])}))
        for camera in LATITUDES
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    front, rear = opened["front"], opened["rear"]
    assert front.describer is rear.describer
    assert front.gallery.path != rear.gallery.path
    other = shared(configs["front"].model_copy(update={"precision": "float32"}))
    assert other.describer is front.describer
    opened.clear()
    del front, rear, other
    gc.collect()
    assert len(shared._loaded) == 0


def test_a_model_that_took_anothers_place_is_loaded(tmp_path: Path, folder: Path) -> None:
    """Although the old one is still in use; that it is not the gallery's is said of the new one."""
    shared, model = SharedModel(), tmp_path / "model.safetensors"
    model.write_bytes((folder / "model.safetensors").read_bytes())
    config = NodeConfig(model=str(model), device="cpu", gallery=str(folder / "front"), autostart=False)
    old = shared(config)
    torch.manual_seed(4)
    save_model(GeoWarp(ModelConfig(encoder="resnet18", aggregation="gem")), model)
    new = load_model(model)
    with pytest.raises(GalleryError, match=f"made by model {old.describer.fingerprint} .*{fingerprint(new)}"):
        shared(config)


@pytest.mark.parametrize(
    ("cameras", "said"),
    [
        ([], "no camera"),
        (["front", "/front"], "camera 'front': given twice"),
        (["front door"], "camera 'front door': not a valid namespace"),
    ],
)
def test_cameras_that_cannot_be_are_refused_by_name(cameras: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_nodes(cameras, lambda: None)


def test_namespaces_lie_below_that_of_the_process(robots: dict[str, Robot]) -> None:
    """As ``launch_ros`` pushes it, which would put all of them into one."""
    process = NodeProcess(
        *("-p", "autostart:=false", "-r", "__ns:=/robot"),
        module="geowarp_ros.ros.localizers",
        arguments=("front", "rear", "/sky"),
    )
    wanted = {("geowarp_localizer", namespace) for namespace in ("/robot/front", "/robot/rear", "/sky")}
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not wanted <= (seen := set(robots["front"].node.get_node_names_and_namespaces())):
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)
        assert ("geowarp_localizer", "/robot") not in seen
    finally:
        assert process.end(signal.SIGINT) == 0


def _answer(robot: Robot, message: Any) -> Any:
    """Show an image until it is answered: what discovery lost is shown again."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        robot.show(message)
        try:
            while (fix := robot.fixes.get(timeout=1.0)).header.stamp != message.header.stamp:
                pass
            return fix
        except queue.Empty:
            continue
    raise AssertionError("no answer")


def _diagnosis(robot: Robot, name: str) -> Any:
    while True:  # the first ones are from before it was loaded
        for status in robot.diagnostics.get(timeout=PATIENCE_S).status:
            if status.name == name and values(status):
                return status
