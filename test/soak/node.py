"""The node for a long time: more images than it can take, lifecycle cycles, signals, a camera that changes."""

from __future__ import annotations

import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from test.ros.conftest import Robot, image_message, until, values
from test.ros.test_lifecycle import Nav2Manager
from test.ros.test_process import NodeProcess
from test.soak.kills import content
from test.soak.robot import (
    descriptors,
    graph,
    make_gallery,
    make_quick_model,
    resident_mib,
    running,
    slope,
    taken,
    threads,
    view,
)
from test.soak.table import Table

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def load(minutes: float, rate_hz: float) -> Table:
    """Publish 1080p images faster than the node takes them; watch its memory and the age of its answers."""
    message = image_message(view(1, 1920, 1080))
    with tempfile.TemporaryDirectory() as folder, graph() as robot, running(make_gallery(Path(folder))) as node:
        until(robot.raw.get_subscription_count, "the localizer to subscribe")
        begun = time.monotonic()
        times: list[float] = []
        memory: list[float] = []
        answered_s: list[float] = []
        ages_s: list[float] = []
        published = 0
        with tqdm(total=round(60 * minutes), desc="load", unit="s") as bar:
            while (now := time.monotonic() - begun) < 60 * minutes:
                _stamp(message)
                robot.raw.publish(message)
                published += 1
                for fix in taken(robot.fixes):
                    answered_s.append(time.monotonic())
                    ages_s.append(time.time() - _seconds(fix.header.stamp))
                if now >= len(times):
                    times.append(now)
                    memory.append(resident_mib(node.popen.pid))
                    bar.update(1)
                time.sleep(max(0.0, begun + published / rate_hz - time.monotonic()))
        seconds = time.monotonic() - begun
        parts = robot.diagnosis()
        counts = values(parts["input"])
        assert node.popen.poll() is None and node.end(signal.SIGINT) == 0
    warm = len(times) // 5  # the first fifth fills caches
    third = len(ages_s) // 3
    # whatever else the machine does: without a queue an answer is about as old as its image took
    waits = np.array(ages_s[1:]) / np.diff(answered_s)
    rows = [
        ("minutes", f"{seconds / 60:.1f}"),
        ("published, 1920×1080 rgb8", f"{published:,}, {published / seconds:.1f} Hz"),
        ("received", f"{int(counts['received']):,}, {int(counts['received']) / seconds:.1f} Hz"),
        ("dropped", f"{int(counts['dropped']):,}"),
        ("answered", f"{len(ages_s):,}, {len(ages_s) / seconds:.1f} Hz"),
        ("fixes, by the node's own count", values(parts["localization"])["fixes"]),
        ("memory at the start, and highest in each fifth (MiB)",
         f"{memory[0]:.0f}; {', '.join(f'{max(part):.0f}' for part in np.array_split(memory, 5))}"),
        ("memory, slope after the first fifth (MiB a minute)",
         f"{60 * slope(times[warm:], memory[warm:]):+.2f}"),
        ("age of the answers, median of the first and last third (ms)",
         f"{1e3 * np.median(ages_s[:third]):.0f}, {1e3 * np.median(ages_s[-third:]):.0f}"),
        ("age of the answers, 95 % of the first and last third (ms)",
         f"{1e3 * np.quantile(ages_s[:third], 0.95):.0f}, {1e3 * np.quantile(ages_s[-third:], 0.95):.0f}"),
        ("age over the time between two answers, median of the first and last third",
         f"{np.median(waits[:third]):.2f}, {np.median(waits[-third:]):.2f}"),
        ("the same, 95 % of all", f"{np.quantile(waits, 0.95):.2f}"),
    ]  # fmt: skip
    return Table("load", ("", "seen"), list(rows))


def _stamp(message: Any) -> None:
    now = time.time_ns()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 1_000_000_000)


def _seconds(stamp: Any) -> float:
    return float(stamp.sec + stamp.nanosec * 1e-9)


def cycle(robot: Robot, node: NodeProcess, count: int) -> list[tuple[float, int, int]]:
    """Configure, activate, deactivate, clean up so often; returns (MiB, threads, files) after each time."""
    seen = []
    for _ in tqdm(range(count), desc="cycles", disable=count < 50):
        for transition in ("configure", "activate", "deactivate", "cleanup"):
            assert robot.change(transition), f"{transition} failed:\n" + "\n".join(node.lines[-5:])
        pid = node.popen.pid
        seen.append((resident_mib(pid), threads(pid), descriptors(pid)))
    return seen


def cycles(count: int) -> Table:
    """Many lifecycle cycles of one node."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, graph() as robot:
        model = make_quick_model(Path(folder))
        gallery = make_gallery(Path(folder), model)
        with running(gallery, f"model:={model}", "autostart:=false", until_said="") as node:
            until(lambda: robot.state() == "unconfigured", "the node")
            seen = cycle(robot, node, count)
            assert node.end(signal.SIGINT) == 0
    at = sorted({0, count // 10, count // 2, count - 1})
    rows: list[tuple[object, ...]] = [(f"after cycle {i + 1}", f"{seen[i][0]:.0f}", *seen[i][1:]) for i in at]
    warm = count // 10
    rise = slope(list(range(warm, count)), [memory for memory, _, _ in seen[warm:]])
    rows.append((f"slope per 1000 cycles after the first tenth ({time.monotonic() - begun:.0f} s in all)",
                 f"{1000 * rise:+.1f}",
                 *(f"{1000 * slope(list(range(warm, count)), [float(s[k]) for s in seen[warm:]]):+.1f}"
                   for k in (1, 2))))  # fmt: skip
    return Table("cycles", ("", "memory (MiB)", "threads", "open files"), rows)


def manager(count: int) -> Table:
    """Bring one node up and down as nav2's lifecycle manager does, and shut it down in the end."""
    seen, durations_s = list[tuple[float, int, int]](), list[float]()
    with tempfile.TemporaryDirectory() as folder, graph() as robot:
        model = make_quick_model(Path(folder))
        gallery = make_gallery(Path(folder), model)
        with running(gallery, f"model:={model}", "autostart:=false", until_said="") as node:
            until(lambda: robot.state() == "unconfigured", "the node")
            nav2 = Nav2Manager(robot)
            for _ in tqdm(range(count), desc="manager"):
                begun = time.monotonic()
                for step in (nav2.startup, nav2.pause, nav2.resume, nav2.reset):
                    assert step(), f"{step.__name__} failed:\n" + "\n".join(node.lines[-5:])
                durations_s.append(time.monotonic() - begun)
                pid = node.popen.pid
                seen.append((resident_mib(pid), threads(pid), descriptors(pid)))
            assert nav2.startup() and nav2.shutdown() and robot.state() == "finalized"
            assert not nav2.startup() and node.popen.poll() is None  # out of turn: refused, and it lives
            assert node.end(signal.SIGINT) == 0
    rows = [
        (f"after {i + 1}", f"{np.mean(durations_s[: i + 1]):.2f}", f"{seen[i][0]:.0f}", *seen[i][1:])
        for i in sorted({0, count // 10, count // 2, count - 1})
    ]
    head = "startup, pause, resume, reset", "mean so far (s)", "memory (MiB)", "threads", "open files"
    return Table("manager", head, list(rows))


def kills(trials: int, seed: int) -> Table:
    """Kill galleries' changes and the node at random moments."""
    from test.soak.kills import kill_changes

    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, seen in kill_changes(Path(folder), trials, seed).items():
            rows.append(
                (f"`gallery {name}`", seen.killed, seen.ended, f"{seen.wholes} of {seen.wholes}", seen.resumed)
            )
    rows.append(_killed_nodes(max(3, trials // 10), seed))
    header = ("killed", "while it worked", "quicker than the signal", "galleries whole", "ended by a second run")
    return Table("kills", header, rows)


def _killed_nodes(trials: int, seed: int) -> tuple[object, ...]:
    rng = random.Random(seed)
    whole = 0
    with tempfile.TemporaryDirectory() as folder, graph() as robot:
        gallery = make_gallery(Path(folder))
        before = content(gallery)
        message = image_message(np.full((480, 640, 3), 90, np.uint8))
        with running(gallery) as node:
            usual_s = _until_active(node)
        for _ in tqdm(range(trials), desc="killing the node"):
            with running(gallery, until_said="") as node:
                end = time.monotonic() + rng.uniform(0, 1.5 * usual_s + 2)
                while time.monotonic() < end:
                    robot.raw.publish(message)
                    time.sleep(0.02)
                assert node.end(signal.SIGKILL) == -signal.SIGKILL
            assert content(gallery) == before
            whole += 1
    return "the node", trials, 0, f"{whole} of {trials}, unchanged", "–"


def _until_active(node: NodeProcess) -> float:
    begun = time.monotonic()
    node.says("activate: now active")
    return time.monotonic() - begun


def signals() -> Table:
    """End the node by both signals in every state."""
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as folder, graph() as robot:
        gallery = make_gallery(Path(folder))
        for state in ("unconfigured", "inactive", "active", "localising", "loading"):
            cells: list[str] = []
            for number in SIGNALS:
                seconds, status, traced = _ended(state, number, robot, gallery)
                assert not traced, f"{state}:\n{traced}"
                cells.append(f"{seconds:.2f} s, status {status}")
            rows.append((state, *cells))
    return Table("signals", ("state", *(number.name for number in SIGNALS)), rows)


def _ended(state: str, number: int, robot: Robot, gallery: Path) -> tuple[float, int, str]:
    if state in ("localising", "loading"):  # for good: what hangs there never returns
        node = NodeProcess("-p", f"model:={state}", module="test.ros.stuck_node")
        message = image_message(np.full((48, 64, 3), 90, np.uint8))
        if state == "localising":

            def shown() -> bool:
                robot.show(message)
                return "stuck" in node.lines

            until(shown, "an image to arrive")
        node.says("stuck")
        return _timed(node, number)
    autostart = "true" if state == "active" else "false"
    ready = "activate: now active" if state == "active" else ""
    with running(gallery, f"autostart:={autostart}", until_said=ready) as node:
        if state != "active":
            until(lambda: robot.state() == "unconfigured", "the node")
        if state == "inactive":
            assert robot.change("configure")
        return _timed(node, number)


def _timed(node: NodeProcess, number: int) -> tuple[float, int, str]:
    begun = time.monotonic()
    node.popen.send_signal(number)
    status = node.popen.wait(60)
    seconds = time.monotonic() - begun
    node.wait()
    return seconds, status, "\n".join(node.lines) if any("Traceback" in line for line in node.lines) else ""
