"""The node in its own process, timed from outside: start, memory, and each stage between image and fix."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from geowarp_ros.errors import SourceError
from geowarp_ros.gallery.manifest import StoredModel
from geowarp_ros.lab.benchmark.scene import picture
from geowarp_ros.lab.benchmark.synthetic import write_gallery
from geowarp_ros.lab.verbs.options import Size
from geowarp_ros.model.checkpoints import fingerprint, load_model
from geowarp_ros.progress import Progress, silent

PATIENCE_S = 120.0
ATTEMPTS = 8
ACTIVE = "activate: now active"
"""Logged by the node once it is active."""


def measure_node(
    model: str, size: Size, places: int, frames: int, modes: Sequence[str], progress: Progress = silent
) -> list[dict[str, Any]]:
    """Start the node in each mode of re-ranking, publish images one by one and read its diagnostics.

    Everything stays on loopback, in a domain of its own. The gallery is synthetic: its places share one image.

    Args:
        model: Model of the gallery and of the node.
        size: Size of the camera images.
        places: Number of places in the gallery.
        frames: Number of images.
        modes: Values of ``rerank.mode``.
        progress: Shows the progress of the images.

    Returns:
        One row per mode: mode, places, start_s (process start to active), start_processor_s (processor time of
        the same, independent of other work on the machine), memory_mib (resident, at the end),
        publish_to_fix_p50_ms and _p95_ms (by this process's clock, with both transfers), each stage and the total
        (p50 and p95 by the node's clock), and rest_share: the share of the median total that is in no stage
        (conversion and publishing).

    Raises:
        SourceError: The node did not start or does not answer.
    """
    from geowarp_ros.lab.loopback import loopback_environment, own_domain_id

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gallery = _gallery(folder, model, size, places)
        os.environ.update(loopback_environment(own_domain_id()), ROS_LOG_DIR=str(folder / "ros_log"))
        return [
            {
                "mode": mode,
                "places": places,
                **_measure(folder / "node.log", gallery, model, mode, size, frames, progress),
            }
            for mode in modes
        ]


def _gallery(folder: Path, model: str, size: Size, places: int) -> Path:
    network = load_model(model)
    pixels = np.ascontiguousarray(picture(size, 0)[:, :, ::-1])
    (folder / "place.jpg").write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    stored = StoredModel(
        fingerprint=fingerprint(network),
        config=network.config,
        descriptor_dim=network.descriptor_dim,
        channels=network.channels,
    )
    write_gallery(folder / "gallery", places, network.descriptor_dim, 0, stored, folder / "place.jpg")
    return folder / "gallery"


def _measure(
    log: Path, gallery: Path, model: str, mode: str, size: Size, frames: int, progress: Progress
) -> dict[str, Any]:
    with _node(log, gallery, model, mode) as (process, start):
        with _Camera(size) as camera:
            camera.await_node()
            camera.show_until_answered(0)  # not counted
            latencies_ms = [
                camera.show_until_answered(number)
                for number in progress(range(1, frames + 1), frames, f"{mode}: images")
            ]
            stages = camera.diagnosed_ms()
        found: dict[str, Any] = {
            **start,
            "memory_mib": _resident_mib(process.pid),
            "publish_to_fix_p50_ms": float(np.percentile(latencies_ms, 50)),
            "publish_to_fix_p95_ms": float(np.percentile(latencies_ms, 95)),
        }
    found |= {f"{key.removesuffix(' (ms)').replace(' ', '_')}_ms": value for key, value in stages.items()}
    total_ms = found["total_p50_ms"]
    stages_ms = sum(value for key, value in stages.items() if key.endswith("p50 (ms)")) - total_ms
    found["rest_share"] = 1 - stages_ms / total_ms
    return found


@contextmanager
def _node(
    log: Path, gallery: Path, model: str, mode: str
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, float]]]:
    """Run ``localizer`` while the context lasts; yields its process once it is active, and the time that took."""
    words = [sys.executable, "-m", "geowarp_ros.ros.node", "--ros-args"]
    for name, value in (("gallery", gallery), ("model", model), ("device", "cpu"), ("rerank.mode", mode)):
        words += ["-p", f"{name}:={value}"]
    begun = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
        try:
            while ACTIVE not in log.read_text(errors="replace"):
                if process.poll() is not None or time.monotonic() > begun + PATIENCE_S:
                    last = (log.read_text(errors="replace").strip().splitlines() or ["it logged nothing"])[-1]
                    raise SourceError(f"the node did not start: {last}")
                time.sleep(0.01)
            yield process, {"start_s": time.monotonic() - begun, "start_processor_s": _processor_s(process.pid)}
        finally:
            process.terminate()
            process.wait()


class _Camera:
    """Publishes images to the node and waits for its answers."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._news = threading.Condition()
        self._answered: dict[int, float] = {}
        self._diagnosed: dict[str, float] = {}

    def __enter__(self) -> _Camera:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image, NavSatFix

        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._robot = rclpy.create_node("benchmark", context=self._context)
        self._publisher = self._robot.create_publisher(Image, "image", qos_profile_sensor_data)
        self._robot.create_subscription(NavSatFix, "/geowarp_localizer/fix", self._on_fix, 50)
        self._robot.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._robot)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._thread.join()
        self._robot.destroy_node()
        self._context.try_shutdown()

    def await_node(self) -> None:
        """Wait until the node has subscribed: a best-effort subscriber loses what is published before."""
        deadline = time.monotonic() + PATIENCE_S
        while not self._publisher.get_subscription_count():
            if time.monotonic() > deadline:
                raise SourceError("the node does not subscribe to the images")
            time.sleep(0.01)

    def show_until_answered(self, number: int) -> float:
        """Publish an image, again if it seems lost; returns the time to its fix, ms."""
        from geowarp_ros.ros.conversions import header

        message = self._message(number)
        shown: dict[int, float] = {}  # an answer belongs to one attempt

        def answered() -> set[int]:
            return shown.keys() & self._answered.keys()

        for attempt in range(ATTEMPTS):
            stamp_ns = (1 + number) * 1_000_000_000 + attempt
            message.header = header(stamp_ns, "camera")
            shown[stamp_ns] = time.monotonic()
            self._publisher.publish(message)
            with self._news:
                if self._news.wait_for(answered, PATIENCE_S / ATTEMPTS):
                    first = min(answered())
                    return (self._answered[first] - shown[first]) * 1e3
        raise SourceError(f"the node does not answer image {number}")

    def diagnosed_ms(self) -> dict[str, float]:
        """Return the latencies in the node's next diagnostics."""
        with self._news:
            self._diagnosed = {}
            if not self._news.wait_for(lambda: bool(self._diagnosed), PATIENCE_S):
                raise SourceError("the node's diagnostics show no latencies")
            return dict(self._diagnosed)

    def _message(self, number: int) -> Any:
        from sensor_msgs.msg import Image

        pixels = picture(self._size, 1 + number)
        message = Image(height=self._size.height, width=self._size.width, encoding="rgb8")
        message.step = self._size.width * 3
        message.data = pixels.tobytes()
        return message

    def _on_fix(self, message: Any) -> None:
        from geowarp_ros.ros.conversions import stamp_ns

        with self._news:
            self._answered[stamp_ns(message.header.stamp)] = time.monotonic()
            self._news.notify()

    def _on_diagnostics(self, array: Any) -> None:
        items = {item.key: item.value for status in array.status for item in status.values}
        with self._news:
            self._diagnosed = {key: float(value) for key, value in items.items() if key.endswith("(ms)")}
            self._news.notify()


def _processor_s(pid: int) -> float:
    """Processor time so far, s; NaN if not on Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # in user and in system mode


def _resident_mib(pid: int) -> float:
    """Resident memory, MiB; NaN if not on Linux."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), float("nan"))
