"""A node in its own process on a real graph, with a small gallery; and what Linux says of it."""

from __future__ import annotations

import os
import queue
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import rclpy

from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.lab.loopback import loopback_environment, own_domain_id
from geowarp_ros.model.checkpoints import load_model, save_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.readers import read_source
from geowarp_ros.types import Image
from test.faults.mutations import write_source
from test.ros.conftest import Robot
from test.ros.test_process import NodeProcess

T = TypeVar("T")


@contextmanager
def graph() -> Iterator[Robot]:
    """Join a graph on loopback; yields the other end of the line."""
    with tempfile.TemporaryDirectory(prefix="ros-log-") as log:
        os.environ.update(loopback_environment(own_domain_id()))
        os.environ.update(ROS_LOG_DIR=log, OMP_NUM_THREADS="1")
        rclpy.init()
        robot = Robot("soak")
        try:
            yield robot
        finally:
            robot.close()
            rclpy.try_shutdown()


def view(number: int, width: int, height: int) -> Image:
    """A picture with texture, one of many, in any size."""
    coarse = np.random.default_rng(number).integers(0, 256, (27, 48, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def make_gallery(folder: Path, model: str = "default") -> Path:
    """Build a gallery of four views of :func:`view`."""
    table = write_source(folder / "source")
    for number in range(4):
        cv2.imwrite(str(folder / "source" / f"{number}.png"), view(number, 480, 270)[..., ::-1])
    source = read_source(table)
    return build_gallery(source, Describer(load_model(model), "cpu"), folder / "gallery").gallery


def make_quick_model(folder: Path) -> str:
    """Write a model that works at 32 px, for what is about loading and not about localising."""
    path = folder / "quick.safetensors"
    save_model(GeoWarp(ModelConfig(encoder="resnet18", resolution=32)), path)
    return str(path)


@contextmanager
def running(gallery: Path, *parameters: str, until_said: str = "activate: now active") -> Iterator[NodeProcess]:
    """Start the node and wait until it says so; killed at the end where it still runs."""
    words = [word for given in (f"gallery:={gallery}", "device:=cpu", *parameters) for word in ("-p", given)]
    process = NodeProcess(*words)
    try:
        if until_said:
            process.says(until_said)
        yield process
    finally:
        if process.popen.poll() is None:
            process.popen.kill()
            process.wait()


def taken(waiting: queue.Queue[T]) -> list[T]:
    """Take what waits."""
    found = []
    with suppress(queue.Empty):
        while True:
            found.append(waiting.get_nowait())
    return found


def resident_mib(pid: int) -> float:
    """Resident memory of a process, without what it shares by DDS's shared memory."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return (int(status["VmRSS"].split()[0]) - int(status["RssShmem"].split()[0])) / 1024


def threads(pid: int) -> int:
    """Number of its threads."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def descriptors(pid: int) -> int:
    """Number of its open files."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def slope(times: list[float], values: list[float]) -> float:
    """Least-squares rise of ``values`` per unit of ``times``."""
    return float(np.polyfit(times, values, 1)[0])
