"""Cameras that fail while the node works: two clocks on one topic, pictures and stamps that freeze."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from diagnostic_msgs.msg import DiagnosticStatus
from tqdm import tqdm

from test.ros.conftest import PATIENCE_S, Robot, image_message, until, values
from test.ros.test_process import NodeProcess
from test.soak.robot import graph, make_gallery, resident_mib, running, taken, view
from test.soak.table import Table

RATE_HZ = 10.0

HEALTHY_S = 20.0
"""How long the camera works before it fails, s."""

APART_S = 7200.0
"""Between the two clocks, s."""

Fault: TypeAlias = Callable[[int, float, float], tuple[int, float]]
"""From number of the image, begin of the fault and time (s): number of the picture and stamp (s)."""

FAULTS: dict[str, Fault] = {
    "two clocks in turn, 2 h apart": lambda number, _, now_s: (number, now_s - APART_S * (number % 2)),
    "the picture freezes": lambda number, begun_s, now_s: (0, now_s),
    "the stamps freeze": lambda number, begun_s, now_s: (number, begun_s),
    "picture and stamps freeze": lambda number, begun_s, now_s: (0, begun_s),
}


@dataclass
class Seen:
    """What became of the images of one phase.

    Attributes:
        published: Images.
        answered: Answers that came.
        level_s: When the diagnostics of the input first had the level that was waited for, s; None: never.
        memory: The node's, each second, MiB.
    """

    published: int = 0
    answered: int = 0
    level_s: float | None = None
    memory: list[float] = field(default_factory=list)


def healthy(number: int, _: float, now_s: float) -> tuple[int, float]:
    """Each image another picture and the present time."""
    return number, now_s


def cameras(minutes: float) -> Table:
    """Let a camera fail in each way for so long, and recover."""
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as folder, graph() as robot:
        gallery = make_gallery(Path(folder))
        for name, fault in tqdm(FAULTS.items(), desc="cameras that fail"):
            with running(gallery) as node:
                until(robot.raw.get_subscription_count, "the localizer to subscribe")
                show(robot, node, healthy, HEALTHY_S, DiagnosticStatus.OK)
                before = counts(robot)
                failed = show(robot, node, fault, 60 * minutes, DiagnosticStatus.WARN)
                after = counts(robot)
                mended = show(robot, node, healthy, PATIENCE_S, DiagnosticStatus.OK, then_stop=True)
                assert failed.level_s is not None, f"{name}: no warning"
                assert mended.level_s is not None, f"{name}: a warning that stays"
                assert node.popen.poll() is None and node.end(signal.SIGINT) == 0
            rows.append(
                (name, f"{failed.published:,}", f"{failed.answered:,}",
                 *(after[what] - before[what] for what in ("resets", "bad")),
                 f"{failed.level_s:.0f}", f"{mended.level_s:.0f}",
                 f"{failed.memory[0]:.0f}; {max(failed.memory):.0f}")
            )  # fmt: skip
    head = (f"{minutes:g} min each, {RATE_HZ:g} Hz", "images", "answers", "resets", "bad images",
            "warns after (s)", "OK again after (s)", "memory at the start; highest (MiB)")  # fmt: skip
    return Table("cameras", head, rows)


def show(
    robot: Robot, node: NodeProcess, fault: Fault, duration_s: float, level: bytes, *, then_stop: bool = False
) -> Seen:
    """Publish images for so long, or until the diagnostics of the input have that level."""
    seen, begun, begun_s = Seen(), time.monotonic(), time.time()
    pictures = [view(number, 640, 360) for number in range(20)]
    taken(robot.fixes)
    taken(robot.diagnostics)
    while (passed_s := time.monotonic() - begun) < duration_s and not (then_stop and seen.level_s is not None):
        picture, stamp_s = fault(seen.published, begun_s, time.time())
        robot.raw.publish(image_message(pictures[picture % len(pictures)], stamp_s))
        seen.published += 1
        seen.answered += len(taken(robot.fixes))
        levels = [status.level for array in taken(robot.diagnostics) for status in array.status[1:2]]
        if seen.level_s is None and level in levels:
            seen.level_s = passed_s
        if seen.published % round(RATE_HZ) == 1:
            seen.memory.append(resident_mib(node.popen.pid))
        time.sleep(max(0.0, begun + seen.published / RATE_HZ - time.monotonic()))
    return seen


def counts(robot: Robot) -> dict[str, int]:
    """Return the node's own counts."""
    parts = robot.diagnosis()
    found = values(parts["input"]) | values(parts["localization"])
    return {name: int(text) for name, text in found.items() if text.isdecimal()}
