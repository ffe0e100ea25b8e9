"""The node's own process over a camera's life: it stops, returns, changes size and encoding; cycles leak nothing.

``python -m test.soak`` does the same for longer.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from geowarp_ros.types import Image as Pixels
from test.ros.conftest import Robot, image_message, seconds, values
from test.ros.test_process import NodeProcess, files, node, photographs, robot  # noqa: F401  (fixtures)
from test.soak.node import cycle

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]


def counts(robot: Robot, settled: int) -> dict[str, int]:  # noqa: F811
    """Return the counts once so many images have arrived and each is accounted for."""

    def accounted(parts: dict[str, Any]) -> bool:
        found = values(parts["input"]) | values(parts["localization"])
        ended = sum(int(found[name]) for name in ("dropped", "bad", "fixes", "no fixes"))
        return int(found["received"]) >= settled and ended == int(found["received"])

    parts = robot.diagnosis(accounted)
    found = values(parts["input"]) | values(parts["localization"])
    return {name: int(text) for name, text in found.items() if text.isdecimal()}


def test_sizes_and_encodings_change_from_image_to_image(node: NodeProcess, robot: Robot) -> None:  # noqa: F811
    rng = np.random.default_rng(3)
    before = counts(robot, 0)
    shown = 0
    for shape, encoding in (
        ((96, 128, 3), "rgb8"), ((48, 64, 3), "bgr8"), ((480, 640), "mono8"), ((64, 48, 4), "bgra8"),
        ((200, 120, 2), "yuv422_yuy2"), ((60, 80), "bayer_rggb8"), ((8, 8, 3), "rgb8"), ((96, 128, 3), "rgb24"),
        ((16, 16, 3), "rgb8"), ((720, 1280, 3), "rgb8"),
    ):  # fmt: skip
        message = image_message(rng.integers(0, 255, shape, np.uint8), 40.0 + shown, encoding=encoding)
        robot.show(message)
        shown += 1
        if encoding == "rgb24" or shape[0] == 8:
            counts(robot, before["received"] + shown)  # it is counted before the next one comes
        else:
            assert robot.fix().header.stamp == message.header.stamp
    after = counts(robot, before["received"] + shown)
    assert after["received"] - before["received"] == shown
    assert after["bad: encoding"] - before.get("bad: encoding", 0) == 1  # rgb24
    assert after["bad: data"] - before.get("bad: data", 0) == 1  # 8×8
    answered = sum(after[name] - before[name] for name in ("fixes", "no fixes"))
    assert answered == shown - 2 and after["dropped"] == before["dropped"]
    assert node.popen.poll() is None


def test_the_camera_stops_and_returns(node: NodeProcess, robot: Robot, photographs: list[Pixels]) -> None:  # noqa: F811
    assert robot.set(input_timeout_s=1.0) == ""
    silent = robot.diagnosis(lambda parts: parts["input"].message.startswith("no image for"))
    assert silent["input"].level != DiagnosticStatus.OK
    while not robot.fixes.empty():
        robot.fixes.get()
    robot.show(image_message(photographs[1], stamp_s=90.0))
    assert seconds(robot.fix().header.stamp) == 90.0
    robot.set(input_timeout_s=600.0)
    robot.diagnosis(lambda parts: not parts["input"].message.startswith("no image for"))


def test_cycles_leak_no_memory_threads_or_files(files: Path, robot: Robot, node: NodeProcess) -> None:  # noqa: F811
    for transition in ("deactivate", "cleanup"):
        assert robot.change(transition)
    seen = cycle(robot, node, 20)
    memory, threads, open_files = (list(column) for column in zip(*seen[5:], strict=True))
    # what another thread still holds for a moment comes and goes; what stays lifts the floor
    assert min(threads[-5:]) <= min(threads[:5]) and min(open_files[-5:]) <= min(open_files[:5]), seen
    # a model that stayed each time would lift the floor by its 11 MB of weights ten times; what the allocator
    # keeps for a while comes and goes above it, and once it may keep a new arena for good: one step is no leak
    step = max(after - before for before, after in pairwise(memory))
    assert min(memory[-5:]) - min(memory[:5]) - max(step, 0.0) < 40, memory
    assert robot.change("configure")
    assert robot.change("activate")
    assert robot.state() == "active"
