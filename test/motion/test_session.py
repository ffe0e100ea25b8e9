"""What of the past reaches the localizer, and what does not."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from geowarp_ros.config import NodeConfig, parse_config
from geowarp_ros.motion.odometry import Pose
from geowarp_ros.motion.prior import Hint
from geowarp_ros.motion.session import Past
from geowarp_ros.types import Candidate, Fix, Frame, Near, NoFix, Place

SECOND = 1_000_000_000
FIX = Fix(48.0, 11.0, 0.0, np.eye(3), 0.9, (Candidate(0, Place("a.jpg", 48.0, 11.0), 0.1),))


class Listener:
    """A localizer that notes what it was given and answers as told."""

    def __init__(self) -> None:
        self.tracker = self
        self.given: list[tuple[Near | None, float | None, float | None]] = []
        self.answer: Fix | NoFix = FIX
        self.falls_back = False
        self.resets = 0
        self.inside = threading.Lock()

    def reset(self) -> None:
        self.resets += 1

    def localize(
        self,
        frame: Frame,
        near: Near | None = None,
        travelled_m: float | None = None,
        deadline_s: float | None = None,
    ) -> Fix | NoFix:
        assert self.inside.acquire(blocking=False), "two images at once"
        self.given.append((near, travelled_m, deadline_s))
        self.inside.release()
        return replace(self.answer, stamp_ns=frame.stamp_ns, near=None if self.falls_back else near)


def past(**prior: Any) -> Past:
    return Past(parse_config(NodeConfig, {"prior": prior}), threading.Lock())


def frame(stamp_s: float) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), int(stamp_s * SECOND))


def pose(stamp_s: float, x: float) -> Pose:
    return Pose(int(stamp_s * SECOND), np.array([x, 0.0, 0.0]), 0.0)


def test_travelled_is_counted_between_images_that_the_tracker_saw() -> None:
    known, listener = past(), Listener()
    for second in range(8):
        known.odometer.add(pose(100 + second, 2.0 * second))
    known.localize(listener, frame(100), 0)
    known.localize(listener, frame(102), 0, 7.0)
    listener.answer = NoFix("empty_gallery")
    known.localize(listener, frame(103), 0)
    listener.answer = FIX
    known.localize(listener, frame(106), 0)
    assert listener.given == [(None, None, None), (None, 4.0, 7.0), (None, 2.0, None), (None, 8.0, None)]


def test_a_fresh_prior_is_handed_on_and_what_came_of_it_is_said() -> None:
    known, listener = past(source="fix"), Listener()
    assert known.prior_said == "no message yet"
    known.prior.offer(Hint(48.0, 11.0, 5.0, 100 * SECOND))
    answer = known.localize(listener, frame(100), 0)
    assert answer.near is not None and known.prior_said == "within 50 m"
    listener.falls_back = True
    assert known.localize(listener, frame(101), 0).near is None
    assert known.prior_said == "within 50 m, nothing convincing there: whole gallery"
    known.localize(listener, frame(200), 0)
    assert known.prior_said == "100.0 s old, at most 5 s"
    assert listener.given[-1][0] is None


def test_a_new_epoch_resets_tracker_odometry_and_prior_once() -> None:
    known, listener = past(source="fix"), Listener()
    known.odometer.add(pose(100, 0.0))
    known.odometer.add(pose(101, 1.0))
    known.prior.offer(Hint(48.0, 11.0, 5.0, 100 * SECOND))
    known.localize(listener, frame(100), known.epoch)
    known.reset()
    known.localize(listener, frame(101), known.epoch)
    known.localize(listener, frame(102), known.epoch)
    assert listener.resets == 1
    assert listener.given[1:] == [(None, None, None)] * 2


def test_settings_change_while_running() -> None:
    known, listener = past(), Listener()
    known.prior.offer(Hint(48.0, 11.0, 5.0, 100 * SECOND))
    known.localize(listener, frame(100), 0)
    known.configure(parse_config(NodeConfig, {"prior": {"source": "fix", "min_radius_m": 70.0}}))
    known.localize(listener, frame(100.5), 0)
    assert listener.given[0][0] is None
    assert listener.given[1][0] == Near(48.0, 11.0, 70.0)


def test_the_way_since_the_prior_widens_its_circle_by_odometry() -> None:
    known, listener = past(source="fix", min_radius_m=1.0), Listener()
    known.prior.offer(Hint(48.0, 11.0, 5.0, 100 * SECOND))
    known.localize(listener, frame(102), 0)  # without odometry: 3 m/s
    for second in range(3):
        known.odometer.add(pose(100 + second, 0.5 * second))
    known.localize(listener, frame(102), 0)
    radii = [near.radius_m for near, *_ in listener.given if near]
    assert radii == pytest.approx([21.0, 16.0])
