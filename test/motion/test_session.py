"""What the localizer, the tracker and the prior are told of the images before, and what a reset forgets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import geowarp_ros.motion.session
from geowarp_ros.config import SessionConfig, parse_config
from geowarp_ros.errors import ImageError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.odometry import Pose
from geowarp_ros.motion.pace import Pace
from geowarp_ros.motion.prior import Hint
from geowarp_ros.motion.session import Arrival, Session
from geowarp_ros.types import Answer, Candidate, Fix, Frame, Header, Near, NoFix, Place

SECOND = 1_000_000_000
FIX = Fix(48.0, 11.0, 0.0, np.eye(3), 0.9)
CANDIDATES = (Candidate(0, Place("a.jpg", 48.0, 11.0), 0.1),)


class OnePlace:
    """A gallery of one place."""

    def __init__(self) -> None:
        self.positions_enu = np.zeros((1, 3))
        self.frame = LocalFrame(48.0, 11.0)


class Listener:
    """A localizer that notes what it was given and answers as told."""

    def __init__(self) -> None:
        self.gallery = OnePlace()
        self.given: list[tuple[int, Near | None]] = []
        self.affordable: list[int | None] = []
        self.answer = Answer(Header(), FIX, CANDIDATES)
        self.falls_back = False
        self.each_ms = 0.0  # a candidate's re-ranking
        self.rest_ms = {"describe": 60.0, "verify": 8.0, "position": 2.0}
        self.meanwhile: Callable[[], object] = lambda: None
        self.inside = threading.Lock()

    def localize(self, frame: Frame, near: Near | None, deadline: Callable[[], int | None]) -> Answer:
        assert self.inside.acquire(blocking=False), "two images at once"
        self.given.append((frame.stamp_ns // SECOND, near))
        count = deadline()
        self.affordable.append(count)
        self.meanwhile()
        self.inside.release()
        reranked = min(5, 5 if count is None else count)
        timing_ms = {**self.rest_ms, "rerank": self.each_ms * reranked}
        near = None if self.falls_back else near
        return replace(self.answer, header=Header(frame.stamp_ns, "", near, reranked, timing_ms))


class ToldTracker:
    """A tracker that notes what it is told and counts its resets."""

    def __init__(self) -> None:
        self.travelled: list[float | None] = []
        self.resets = 0

    def __call__(self, answer: Answer, travelled_m: float | None = None, /) -> Answer:
        self.travelled.append(travelled_m)
        return answer

    def reset(self) -> None:
        self.resets += 1


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> list[ToldTracker]:
    """The trackers that were built, in their order."""
    built: list[ToldTracker] = []

    def build(*_: object) -> ToldTracker:
        built.append(ToldTracker())
        return built[-1]

    monkeypatch.setattr(geowarp_ros.motion.session, "build_tracker", build)
    return built


def config(**sections: Any) -> SessionConfig:
    return parse_config(SessionConfig, {"rerank": {"method": "none"}, **sections})


def session(**prior: Any) -> Session:
    return Session(config(prior=prior))


def frame(stamp_s: float) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), int(stamp_s * SECOND))


def pose(stamp_s: float, x: float) -> Pose:
    return Pose(int(stamp_s * SECOND), np.array([x, 0.0, 0.0]), 0.0)


# ---- what is handed on


def test_travelled_is_counted_between_images_that_the_tracker_saw(trackers: list[ToldTracker]) -> None:
    known, listener = session(), Listener()
    for second in range(8):
        known.odometer.add(pose(100 + second, 2.0 * second))
    known.localize(listener, frame(100))
    known.localize(listener, frame(102))
    seen, listener.answer = listener.answer, Answer(Header(), NoFix("empty_gallery"))
    known.localize(listener, frame(103))
    listener.answer = seen
    known.localize(listener, frame(106))
    (tracker,) = trackers
    assert tracker.travelled == [None, 4.0, 2.0, 8.0]


def test_what_the_tracker_says_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Answer(Header(), NoFix("jump"))
    monkeypatch.setattr(geowarp_ros.motion.session, "build_tracker", lambda *_: lambda answer, travelled_m: held)
    assert session().localize(Listener(), frame(100)) is held


def test_a_fresh_prior_is_handed_on_and_what_came_of_it_is_said() -> None:
    known, listener = session(source="fix"), Listener()
    assert known.prior_said == "no message yet"
    known.prior.offer(Hint(48.0, 11.0, 5.0, 100 * SECOND))
    answer = known.localize(listener, frame(100))
    assert answer.header.near == Near(48.0, 11.0, 50.0) and known.prior_said == "within 50 m"
    listener.falls_back = True
    assert known.localize(listener, frame(101)).header.near is None
    assert known.prior_said == "within 50 m, nothing convincing there: whole gallery"
    known.localize(listener, frame(200))
    assert known.prior_said == "100.0 s old, at most 5 s"
    assert listener.given[-1] == (200, None)


def test_the_way_since_the_prior_widens_its_circle_by_odometry() -> None:
    known, listener = session(source="fix", min_radius_m=1.0), Listener()
    known.prior.offer(Hint(48.0, 11.0, 5.0, 100 * SECOND))
    known.localize(listener, frame(102))  # without odometry: 3 m/s
    for second in range(3):
        known.odometer.add(pose(100 + second, 0.5 * second))
    known.localize(listener, frame(102))
    radii = [near.radius_m for _, near in listener.given if near]
    assert radii == pytest.approx([21.0, 16.0])


def test_its_own_fixes_are_a_track_for_the_prior() -> None:
    known, listener = session(source="track", min_radius_m=7.0), Listener()
    for second in range(3):
        known.localize(listener, frame(100 + second))
    # the second fix agrees with the first; 3·1 m and 3 m of way are less than the least radius
    assert listener.given == [(100, None), (101, None), (102, Near(48.0, 11.0, 7.0))]


def far(metres: float) -> Fix:
    latitude, longitude, _ = LocalFrame(48.0, 11.0).to_geodetic(np.array([metres, 0.0, 0.0]))
    return replace(FIX, latitude_deg=float(latitude), longitude_deg=float(longitude))


def test_a_fix_that_contradicts_the_odometry_is_held_back_and_no_track() -> None:
    known, listener = session(source="track", min_radius_m=7.0), Listener()
    for second in range(6):
        known.odometer.add(pose(100 + second, 1.0 * second))
    said = []
    for second, metres in enumerate((0.0, 1.0, 60.0, 3.0, 4.0)):
        listener.answer = Answer(Header(), far(metres), CANDIDATES)
        said.append(known.localize(listener, frame(100 + second)))
    assert [answer.fix is not None for answer in said] == [True, True, False, True, True]
    assert isinstance(said[2].result, NoFix) and said[2].result.reason == "jump"
    near = listener.given[3][1]
    assert near is not None
    assert (near.latitude_deg, near.longitude_deg) == (far(1.0).latitude_deg, far(1.0).longitude_deg)


def test_after_a_reset_or_with_another_gallery_no_fix_is_contradicted() -> None:
    known, listener = session(), Listener()
    for second in range(6):
        known.odometer.add(pose(100 + second, 1.0 * second))
    assert known.localize(listener, frame(100)).fix
    listener.answer = Answer(Header(), far(60.0), CANDIDATES)
    assert not known.localize(listener, frame(101)).fix
    other = Listener()
    assert known.localize(other, frame(102)).fix
    known.reset()
    for second in range(6):
        known.odometer.add(pose(100 + second, 1.0 * second))
    other.answer = listener.answer
    assert known.localize(other, frame(103)).fix


# ---- time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the steady clock that pace and session read; it stands still otherwise."""
    now = [1000.0]
    monkeypatch.setattr(geowarp_ros.motion.session, "Pace", lambda: Pace(lambda: now[0]))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_with_a_latency_budget_fewer_candidates_fit_once_their_cost_is_known(
    clock: Callable[[float], None],
) -> None:
    known, listener = Session(config(latency_budget_ms=100.0)), Listener()
    listener.each_ms = 20.0
    known.localize(listener, frame(100))
    assert listener.affordable == [None]  # nothing is known yet
    known.localize(listener, frame(101))
    assert listener.affordable[-1] == 4  # 10 ms are for what comes afterwards
    waiting, _ = known.arrive(102 * SECOND)
    clock(0.045)
    known.localize(listener, frame(102), waiting)
    assert listener.affordable[-1] == 2  # it has waited for 45 ms


def test_without_a_budget_nothing_is_left_out(clock: Callable[[float], None]) -> None:
    known, listener = Session(config()), Listener()
    listener.each_ms = 1e6
    for second in range(3):
        known.localize(listener, frame(100 + second))
    assert listener.affordable == [None] * 3


def test_an_arrival_is_when_the_image_came(clock: Callable[[float], None]) -> None:
    assert session().arrive(100 * SECOND) == (Arrival(1000.0, 0), 0)


# ---- time that jumps back


def test_a_jump_back_in_time_resets_everything_exactly_once(trackers: list[ToldTracker]) -> None:
    known, listener = session(source="fix"), Listener()
    known.odometer.add(pose(100, 0.0))
    known.odometer.add(pose(101, 1.0))
    known.prior.offer(Hint(48.0, 11.0, 5.0, 101 * SECOND))
    known.localize(listener, frame(101))
    back = [known.arrive(stamp_s * SECOND)[1] for stamp_s in (99, 100, 101)]  # as of a bag that loops
    assert back == [2 * SECOND, 0, 0] and known.epoch == 1
    for stamp_s in (99, 100, 101):
        known.localize(listener, frame(stamp_s), Arrival(0.0, known.epoch))
    (tracker,) = trackers
    assert tracker.resets == 1
    assert tracker.travelled == [None] * 4  # odometry is forgotten, too
    assert [near for _, near in listener.given[1:]] == [None] * 3  # and so is the prior
    assert known.prior_said == "no message yet"


def test_localize_itself_takes_note_of_an_image_that_was_not_announced(trackers: list[ToldTracker]) -> None:
    known, listener = session(), Listener()
    for stamp_s in (100, 101, 50, 51):
        known.localize(listener, frame(stamp_s))
    assert known.epoch == trackers[0].resets == 1


@pytest.mark.parametrize(("back_s", "resets"), [(0.5, 0), (0.999, 0), (1.0, 0), (1.001, 1), (3600.0, 1)])
def test_an_image_that_was_overtaken_by_up_to_a_second_is_no_jump(back_s: float, resets: int) -> None:
    known = session(source="fix")
    known.arrive(10_000 * SECOND)
    known.prior.offer(Hint(48.0, 11.0, 5.0, 10_000 * SECOND))
    arrival, back_ns = known.arrive(int((10_000 - back_s) * SECOND))
    assert known.epoch == arrival.epoch == resets
    assert back_ns == (round(back_s * SECOND) if resets else 0)
    assert (known.prior.near(10_000 * SECOND)[0] is None) == bool(resets)


def test_two_clocks_are_one_new_beginning_and_images_on_their_own(
    trackers: list[ToldTracker], clock: Callable[[float], None]
) -> None:
    known, listener = session(source="fix"), Listener()
    arrivals = []
    for number in range(80):
        clock(0.1)
        arrival, back_ns = known.arrive((10_000 + number - 7200 * (number % 2)) * SECOND)
        assert back_ns == (7199 * SECOND if number == 1 else 0)
        known.prior.offer(Hint(48.0, 11.0, 5.0, 10_000 * SECOND))
        known.localize(listener, frame(10_000), arrival)
        arrivals.append(arrival)
    assert known.epoch == 1 and len(listener.given) == 80
    assert [arrival.alone for arrival in arrivals] == [False] * 3 + [True] * 77
    assert [near for _, near in listener.given[3:]] == [None] * 77  # the prior is another clock's, perhaps
    assert known.prior_said == "off: stamps go back and forth"
    assert len(trackers[0].travelled) == 3
    for number in range(11):  # one of the clocks is gone
        clock(0.1)
        arrival, back_ns = known.arrive((20_000 + number) * SECOND)
        assert (arrival.alone, back_ns) == (number < 10, 0)
    clock(5.1)
    assert known.arrive(100 * SECOND)[1] == 19_910 * SECOND  # which is a new beginning again
    assert known.epoch == 2


@pytest.mark.parametrize("each", [12, 30, 100])
def test_so_are_two_clocks_one_of_which_is_heard_seldom(each: int, clock: Callable[[float], None]) -> None:
    known = session()
    alone = []
    for number in range(1200):
        clock(1 / 30)
        seldom = number % each == each - 1
        alone.append(known.arrive((10_000 + number - 7200 * seldom) * SECOND)[0].alone)
    assert known.epoch == 1  # not with every image of the other
    assert all(alone[2 * each - 1 :: each])
    assert not alone[each]


@pytest.mark.parametrize(("images", "pause_s", "resets"), [(3, 0.1, 1), (3, 2.0, 4), (12, 0.1, 4)])
def test_every_loop_of_a_bag_is_a_new_beginning_if_it_has_time_to_settle(
    images: int, pause_s: float, resets: int, clock: Callable[[float], None]
) -> None:
    known = session()
    for _ in range(5):
        for number in range(images):
            known.arrive((100 + 10 * number) * SECOND)
            clock(pause_s)
    assert known.epoch == resets


def test_an_announced_image_is_compared_nowhere_else(trackers: list[ToldTracker]) -> None:
    # two images wait while a bag loops: the later is localised first, the earlier with the stamp of before
    known, listener = session(), Listener()
    for stamp_s in (100.0, 50.0, 100.0):
        known.localize(listener, frame(stamp_s), Arrival(0.0, 0))
    assert known.epoch == trackers[0].resets == 0


# ---- resets


def test_a_reset_reaches_tracker_odometry_and_prior_once(trackers: list[ToldTracker]) -> None:
    known, listener = session(source="fix"), Listener()
    known.odometer.add(pose(100, 0.0))
    known.odometer.add(pose(101, 1.0))
    known.prior.offer(Hint(48.0, 11.0, 5.0, 100 * SECOND))
    known.localize(listener, frame(100))
    known.reset()
    known.localize(listener, frame(101))
    known.localize(listener, frame(102))
    assert known.epoch == 1
    assert [tracker.resets for tracker in trackers] == [1]
    assert trackers[0].travelled == [None] * 3
    assert listener.given[1:] == [(101, None), (102, None)]


def test_after_a_reset_an_older_image_is_no_jump() -> None:
    known = session()
    known.arrive(100 * SECOND)
    known.reset()
    assert known.arrive(50 * SECOND)[1] == 0 and known.epoch == 1


def test_an_image_from_before_a_reset_teaches_the_prior_nothing() -> None:
    known, listener = session(source="track"), Listener()
    known.localize(listener, frame(100))
    listener.meanwhile = known.reset  # while it is in hand
    known.localize(listener, frame(101))
    listener.meanwhile = lambda: None
    known.localize(listener, frame(102))
    known.localize(listener, frame(103))
    assert listener.given[-1] == (103, None), "one fix since the reset is no track"
    known.localize(listener, frame(104))
    assert listener.given[-1][1] is not None


def test_a_new_gallery_or_other_tracking_settings_begin_a_new_track(trackers: list[ToldTracker]) -> None:
    known, listener = session(), Listener()
    for second in range(10):
        known.odometer.add(pose(100 + second, 2.0 * second))
    known.localize(listener, frame(100))
    other = Listener()
    other.gallery = listener.gallery  # another localizer over the same gallery goes on with the track
    known.localize(other, frame(101))
    assert [tracker.travelled for tracker in trackers] == [[None, 2.0]]
    other.gallery = OnePlace()
    known.localize(other, frame(102))
    known.localize(other, frame(103))
    known.configure(config(tracking={"method": "hmm"}))
    known.localize(other, frame(104))
    known.localize(other, frame(105))
    known.configure(config(tracking={"method": "hmm"}, position={"cluster_radius_m": 20.0}))
    known.localize(other, frame(106))
    known.configure(  # neither confidence nor prior nor budget concern the track
        config(
            tracking={"method": "hmm"},
            position={"cluster_radius_m": 20.0, "min_confidence": 0.7},
            prior={"source": "track"},
            latency_budget_ms=50.0,
        )
    )
    known.localize(other, frame(107))
    assert [tracker.travelled for tracker in trackers] == [[None, 2.0]] * 4
    assert [tracker.resets for tracker in trackers] == [0] * 4


# ---- settings that change while running


def test_a_prior_is_switched_on_and_keeps_what_it_heard() -> None:
    known, listener = session(), Listener()
    known.prior.offer(Hint(48.0, 11.0, 5.0, 100 * SECOND))
    known.localize(listener, frame(100))
    known.configure(config(prior={"source": "fix", "min_radius_m": 70.0}))
    known.localize(listener, frame(100.5))
    assert listener.given == [(100, None), (100, Near(48.0, 11.0, 70.0))]


def test_another_maximum_speed_forgets_the_odometry_and_widens_the_prior_by_it() -> None:
    known, listener = session(source="fix", min_radius_m=1.0), Listener()
    for second in range(3):
        known.odometer.add(pose(100 + second, 0.5 * second))
    known.prior.offer(Hint(48.0, 11.0, 5.0, 100 * SECOND))
    known.configure(config(prior={"source": "fix", "min_radius_m": 1.0}, tracking={"max_speed_mps": 10.0}))
    assert known.odometer.travelled_m(100 * SECOND, 101 * SECOND) is None
    known.localize(listener, frame(102))
    radius_m: Any = pytest.approx(3 * 5.0 + 2 * 10.0)
    assert listener.given == [(102, Near(48.0, 11.0, radius_m))]


@pytest.mark.parametrize("changed", [{"rerank": {"method": "sift"}}, {"position": {"verify": "orb"}}])
def test_a_budget_holds_from_the_next_image_and_another_way_of_matching_forgets_the_costs(
    changed: dict[str, Any], clock: Callable[[float], None]
) -> None:
    known, listener = Session(config()), Listener()
    listener.each_ms = 10.0
    known.localize(listener, frame(100))
    known.configure(config(latency_budget_ms=45.0))
    known.localize(listener, frame(101))
    known.configure(config(latency_budget_ms=45.0, **changed))
    known.localize(listener, frame(102))
    assert listener.affordable == [None, 3, None]


# ---- threads


def test_one_image_at_a_time_and_nothing_else_waits_for_it() -> None:
    turn = threading.Lock()
    known, other = Session(config(prior={"source": "fix"}), turn), Session(config(), turn)
    listener, inside, leave = Listener(), threading.Event(), threading.Event()

    def in_hand() -> None:
        inside.set()
        assert leave.wait(10)

    listener.meanwhile = in_hand
    first = threading.Thread(target=known.localize, args=(listener, frame(100)))
    first.start()
    assert inside.wait(10)
    # the first is in hand: these return all the same
    known.odometer.add(pose(100, 0.0))
    known.prior.offer(Hint(48.0, 11.0, 5.0, 100 * SECOND))
    known.arrive(101 * SECOND)
    known.configure(config(prior={"source": "fix"}, tracking={"max_speed_mps": 5.0}))
    known.reset()
    # a session that shares the model waits; Listener refuses two at once
    second = threading.Thread(target=other.localize, args=(listener, frame(200)))
    second.start()
    second.join(0.05)
    assert second.is_alive() and [stamp_s for stamp_s, _ in listener.given] == [100]
    leave.set()
    first.join(10)
    second.join(10)
    assert [stamp_s for stamp_s, _ in listener.given] == [100, 200]


def test_an_image_that_cannot_be_localised_leaves_the_session_usable() -> None:
    known, listener = session(source="track"), Listener()

    def broken() -> None:
        listener.inside.release()
        raise ImageError("frame: has no pixels")

    listener.meanwhile = broken
    with pytest.raises(ImageError):
        known.localize(listener, frame(100))
    listener.meanwhile = lambda: None
    assert known.localize(listener, frame(101)).fix
