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

from geowarp_ros.config import NodeConfig
from geowarp_ros.errors import ConfigError
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.model.checkpoints import save_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.readers import read_source
from geowarp_ros.ros.loading import SharedModel
from geowarp_ros.ros.localizers import make_nodes
from test.ros.conftest import PATIENCE_S, Robot, image_message, values
from test.ros.test_process import NodeProcess

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]

LATITUDES = {"front": 50.0, "rear": -33.0}
"""The same photographs, said to be of two towns."""


@pytest.fixture(scope="module")
def photographs() -> list[Any]:
    coarse = np.random.default_rng(11).integers(0, 255, (3, 6, 8, 3), np.uint8)
    return [np.asarray(Pillow.fromarray(small).resize((128, 96), Pillow.Resampling.BICUBIC)) for small in coarse]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photographs: list[Any]) -> Path:
    folder = tmp_path_factory.mktemp("cameras")
    torch.manual_seed(3)
    torch.set_num_threads(1)
    model = GeoWarp(ModelConfig(encoder="resnet18", aggregation="gem")).eval()
    save_model(model, folder / "model.safetensors")
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
        build_gallery(read_source(folder / f"{camera}.csv"), Describer(model, "cpu"), folder / camera)
        text += f"/{camera}/geowarp_localizer:\n  ros__parameters:\n    gallery: {folder / camera}\n"
    (folder / "cameras.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def robots(graph: None) -> Iterator[dict[str, Robot]]:
    robots = {camera: Robot("robot", f"/{camera}") for camera in LATITUDES}
    yield robots
    for robot in robots.values():
        robot.close()


@pytest.mark.parametrize("processes", [1, 2])
def test_each_camera_is_answered_from_its_own_gallery(
    processes: int, folder: Path, robots: dict[str, Robot], photographs: list[Any]
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


def test_one_model_is_loaded_for_all_and_freed_after_the_last(folder: Path) -> None:
    shared = SharedModel()
    configs = {
        camera: NodeConfig(
            model=str(folder / "model.safetensors"), device="cpu", gallery=str(folder / camera), autostart=False
        )
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


@pytest.mark.parametrize(
    ("cameras", "said"),
    [
        ([], "no camera"),
        (["front", "/front"], "camera 'front': is named twice"),
        (["front door"], "camera 'front door': is no namespace"),
    ],
)
def test_cameras_that_cannot_be_are_refused_by_name(cameras: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_nodes(cameras, lambda: None)


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
