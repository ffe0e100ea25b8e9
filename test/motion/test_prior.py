"""Which circle, and why none: with a robot of 3 m/s, in numbers worked by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from geowarp_ros.config import NodeConfig, PriorConfig, parse_config
from geowarp_ros.errors import ConfigError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.prior import Hint, NoHint, Prior, hint_from_message, horizontal_std_m
from geowarp_ros.types import Answer, Fix, Header, Near, NoFix

SECOND = 1_000_000_000
TOWN = LocalFrame(48.0, 11.0)


def reach_m(from_ns: int, to_ns: int) -> float:
    return 3.0 * abs(to_ns - from_ns) / SECOND


def prior(source: str = "fix", **settings: float) -> Prior:
    given = {"source": source, "min_radius_m": 10.0, "max_radius_m": 200.0, "max_age_s": 5.0, **settings}
    return Prior(PriorConfig.model_validate(given), reach_m)


def geodetic(east_m: float, north_m: float = 0.0) -> tuple[float, float]:
    latitude, longitude, _ = TOWN.to_geodetic(np.array([east_m, north_m, 0.0]))
    return float(latitude), float(longitude)


def hint(east_m: float, stamp_s: float, std_m: float = 5.0) -> Hint:
    return Hint(*geodetic(east_m), std_m, round(stamp_s * SECOND))


def fix(east_m: float, stamp_s: float, near: Near | None = None, std_m: float = 2.0) -> Answer:
    covariance = np.diag([std_m**2, std_m**2, 1e6])
    header = Header(round(stamp_s * SECOND), near=near)
    return Answer(header, Fix(*geodetic(east_m), 0.0, covariance, 0.9))


def navsatfix(status: int = 0, covariance_type: int = 2, variance_m2: float = 9.0) -> SimpleNamespace:
    """A sensor_msgs/NavSatFix as rclpy and rosbags give it."""
    stamp = SimpleNamespace(sec=100, nanosec=500_000_000)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp),
        status=SimpleNamespace(status=status),
        latitude=48.0,
        longitude=11.0,
        position_covariance=np.diag([variance_m2, 4.0, 25.0]).ravel(),
        position_covariance_type=covariance_type,
    )


def test_off_by_default() -> None:
    off = Prior(PriorConfig(), reach_m)
    off.offer(hint(0, 100))
    assert off.near(100 * SECOND) == (None, "off")


def test_radius_is_three_sigma_and_the_way_since() -> None:
    p = prior()
    p.offer(hint(0, 100, std_m=8.0))
    near, said = p.near(102 * SECOND)
    assert near is not None
    assert near.radius_m == pytest.approx(3 * 8.0 + 3.0 * 2.0)
    assert (near.latitude_deg, near.longitude_deg) == geodetic(0)
    assert said == "within 30 m"
    before, _ = p.near(98 * SECOND)  # the message is newer than the image: the way counts just as well
    assert before is not None and before.radius_m == pytest.approx(30.0)


def test_radius_has_bounds_on_both_sides() -> None:
    p = prior()
    p.offer(hint(0, 100, std_m=0.02))  # RTK: but camera and gallery are not where the antenna is
    near, _ = p.near(100 * SECOND)
    assert near is not None and near.radius_m == 10.0
    p.offer(hint(0, 100, std_m=70.0))
    assert p.near(100 * SECOND) == (None, "210 m wide, at most 200 m")
    p.offer(hint(0, 100, std_m=math.inf))  # nobody says how sure it is
    near, _ = p.near(104 * SECOND)
    assert near is not None and near.radius_m == 200.0


def test_only_fresh_positions_count() -> None:
    p = prior()
    assert p.near(100 * SECOND) == (None, "no message yet")
    p.offer(hint(0, 100))
    assert p.near(105 * SECOND)[0] is not None
    assert p.near(106 * SECOND) == (None, "6.0 s old, at most 5 s")
    assert p.near(1_700_000_000 * SECOND)[0] is None  # another clock


def test_a_receiver_that_is_lost_takes_its_last_position_back() -> None:
    p = prior()
    p.offer(hint(0, 100))
    p.offer(NoHint("status -1: no fix"))
    assert p.near(100 * SECOND) == (None, "status -1: no fix")
    p.configure(PriorConfig(source="track"))
    assert p.near(100 * SECOND) == (None, "no track yet")  # the receiver has nothing to do with it
    p.configure(PriorConfig(source="fix"))
    p.offer(hint(0, 101))
    assert p.near(101 * SECOND)[0] is not None


@pytest.mark.parametrize(
    ("latitude", "longitude"), [(math.nan, 11.0), (48.0, math.inf), (91.0, 11.0), (48.0, 181.0)]
)
def test_what_is_no_position_is_refused(latitude: float, longitude: float) -> None:
    p = prior()
    p.offer(hint(0, 100))
    p.offer(Hint(latitude, longitude, 5.0, 100 * SECOND))
    near, said = p.near(100 * SECOND)
    assert near is None and "no position" in said


def test_a_message_far_from_the_nodes_own_fixes_is_not_believed() -> None:
    p = prior()
    p.learn(fix(0, 99))
    p.learn(fix(3, 100))
    p.offer(hint(150, 101))  # 3·(5 + 2) m of uncertainty and 3 m of way explain no 147 m
    near, said = p.near(101 * SECOND)
    assert near is None and said == "147 m from the node's own last fix"
    p.offer(hint(20, 101))
    assert p.near(101 * SECOND)[0] is not None
    p.offer(hint(150, 107))  # the node's own fix is too old to contradict it
    assert p.near(107 * SECOND)[0] is not None


def test_one_fix_of_its_own_contradicts_nothing() -> None:
    p = prior()
    p.learn(fix(0, 100))  # it may be the false one
    p.offer(hint(150, 101))
    assert p.near(101 * SECOND)[0] is not None


def test_a_track_needs_two_fixes_that_agree() -> None:
    p = prior("track")
    assert p.near(100 * SECOND) == (None, "no track yet")
    p.learn(fix(0, 100))
    assert p.near(100 * SECOND)[0] is None
    p.learn(fix(3, 101))
    near, _ = p.near(102 * SECOND)
    assert near is not None
    assert near.radius_m == pytest.approx(max(10.0, 3 * 2.0 + 3.0))
    assert (near.latitude_deg, near.longitude_deg) == geodetic(3)
    p.learn(fix(500, 102))  # a false fix, or a kidnap: no circle before the next one agrees
    assert p.near(102 * SECOND)[0] is None
    p.learn(fix(503, 103))
    assert p.near(103 * SECOND)[0] is not None


def test_the_same_image_again_does_not_confirm_itself() -> None:
    p = prior("track")
    p.learn(fix(0, 100))
    p.learn(fix(0, 100))  # sent twice, or asked about twice
    assert p.near(100 * SECOND)[0] is None
    p.learn(fix(3, 101))
    assert p.near(101 * SECOND)[0] is not None


def test_a_circle_does_not_confirm_itself() -> None:
    p = prior("track")
    p.learn(fix(0, 100))
    p.learn(fix(0, 101))
    inside, _ = p.near(102 * SECOND)
    for second in range(102, 110):  # what is found in the circle does not renew it
        p.learn(fix(0, second, near=inside))
    assert p.near(106 * SECOND)[0] is not None
    assert p.near(107 * SECOND)[0] is None  # now the whole gallery is searched, at least once in max_age_s
    p.learn(fix(9, 107))
    assert p.near(108 * SECOND)[0] is not None


def test_no_fix_teaches_nothing_and_reset_forgets() -> None:
    p = prior("track")
    p.learn(fix(0, 100))
    p.learn(Answer(Header(101 * SECOND), NoFix("low_confidence")))
    p.learn(fix(0, 102))
    assert p.near(102 * SECOND)[0] is not None
    p.reset()
    assert p.near(102 * SECOND) == (None, "no track yet")
    p.configure(PriorConfig(source="fix"))
    assert p.near(102 * SECOND) == (None, "no message yet")


def test_standard_deviation_is_the_worse_axis() -> None:
    # by hand: eigenvalues of [[5, 4], [4, 5]] are 1 and 9
    covariance = np.array([[5.0, 4.0, 0.0], [4.0, 5.0, 0.0], [0.0, 0.0, 400.0]])
    assert horizontal_std_m(covariance) == pytest.approx(3.0)
    assert horizontal_std_m(np.zeros((3, 3))) == math.inf
    assert horizontal_std_m(np.full((3, 3), np.nan)) == math.inf
    assert horizontal_std_m(np.diag([-4.0, -9.0, 1.0])) == math.inf


def test_a_message_says_where_when_and_how_sure() -> None:
    assert hint_from_message(navsatfix()) == Hint(48.0, 11.0, 3.0, 100_500_000_000)
    assert hint_from_message(navsatfix(variance_m2=1.0)) == Hint(48.0, 11.0, 2.0, 100_500_000_000)
    unknown = hint_from_message(navsatfix(covariance_type=0))
    assert isinstance(unknown, Hint) and unknown.std_m == math.inf
    assert hint_from_message(navsatfix(status=-1)) == NoHint("status -1: no fix")


def test_radii_that_cross_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"min_radius_m \(600\) to be at most max_radius_m \(500\)"):
        parse_config(NodeConfig, {"prior": {"min_radius_m": 600.0}})
