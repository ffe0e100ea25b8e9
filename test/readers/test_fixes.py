"""Fixes that are no positions: by hand, and against a brute-force search for the longest chain."""

from __future__ import annotations

import math
import statistics
from itertools import combinations, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geowarp_ros.errors import SourceError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.readers import Source, read_source
from geowarp_ros.readers.fixes import JUMP_M, MAX_SPEED_M_S, FixTrack, flaw, jumping
from geowarp_ros.readers.positions import NULL_ISLAND
from test.gallery.bags import LATITUDE, LONGITUDE, Message, drive, fix, image, write_bag

M_PER_MILLIDEGREE = 111.13
"""Of latitude, at 45° (WGS84)."""


def message(**fields: Any) -> Any:
    usual: dict[str, Any] = {
        "latitude": 45.0,
        "longitude": 9.0,
        "status": 0,
        "position_covariance": np.diag([1.0, 1, 4]).ravel(),
    }
    usual |= fields
    usual["status"] = SimpleNamespace(status=usual["status"])
    return SimpleNamespace(**usual)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, ""),
        ({"status": 2}, ""),
        ({"status": -1}, "without a position"),
        ({"status": -2}, "without a position"),
        ({"latitude": math.nan}, "without a position"),
        ({"longitude": 181.0}, "without a position"),
        ({"latitude": 0.0, "longitude": 0.0}, NULL_ISLAND),
        ({"latitude": -0.0, "longitude": 0.0}, NULL_ISLAND),
        ({"latitude": 0.0, "longitude": 9.0}, ""),
        ({"latitude": 45.0, "longitude": 0.0}, ""),
        ({"position_covariance": np.diag([9e6, 9e6, 1.0]).ravel()}, "with a standard deviation above 100 m"),
        ({"position_covariance": np.diag([1.0, 10_001.0, 1.0]).ravel()}, "with a standard deviation above 100 m"),
        (
            {"position_covariance": np.diag([math.inf, math.inf, 1.0]).ravel()},
            "with a standard deviation above 100 m",
        ),
        ({"position_covariance": np.diag([9_999.0, 9_999.0, 1e9]).ravel()}, ""),
        ({"position_covariance": np.diag([-1.0, -1.0, -1.0]).ravel()}, ""),
        ({"position_covariance": np.full(9, math.nan)}, ""),
    ],
)
def test_what_a_fix_says_of_itself(fields: dict[str, Any], said: str) -> None:
    assert flaw(message(**fields)) == said
    assert flaw(message(**fields), accept_null_island=True) == ("" if said == NULL_ISLAND else said)


def kept_by_brute_force(time_s: list[float], east_m: list[float]) -> int:
    """Return how many fixes the longest chain of runs has, of all subsets of runs."""
    speeds = [abs(b - a) / (t - s) for (s, a), (t, b) in pairwise(zip(time_s, east_m, strict=True))]
    speed = max(MAX_SPEED_M_S, 2 * statistics.median(speeds))

    def reached(a: int, b: int) -> bool:
        return abs(east_m[b] - east_m[a]) <= JUMP_M + speed * (time_s[b] - time_s[a])

    runs = [[0]]
    for row in range(1, len(time_s)):
        runs = [*runs[:-1], [*runs[-1], row]] if reached(row - 1, row) else [*runs, [row]]
    subsets = (subset for size in range(len(runs)) for subset in combinations(runs, size + 1))
    return max(
        sum(map(len, subset)) for subset in subsets if all(reached(a[-1], b[0]) for a, b in pairwise(subset))
    )


STEPS = st.tuples(st.sampled_from((0.1, 1.0, 5.0)), st.sampled_from((0, 10, 500, 520, 4000)))


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, min_size=2, max_size=9))
def test_the_longest_chain_of_runs_is_kept(steps: list[tuple[float, int]]) -> None:
    time_s = np.cumsum([step for step, _ in steps])
    east_m = np.array([place for _, place in steps], float)
    latitude, longitude, _ = LocalFrame(45.0, 9.0).to_geodetic(np.stack([east_m, 0 * east_m, 0 * east_m], axis=1))
    lost = jumping(np.round(time_s * 1e9).astype(np.int64), latitude, longitude)
    assert (~lost).sum() == kept_by_brute_force(time_s.tolist(), east_m.tolist())


def test_altitudes_that_are_none_are_unknown() -> None:
    heights = [50.0, math.inf, -40_000.0, 4_294_967.0, math.nan, 8_848.0]
    positions = np.array([(45.0, 9.0, height) for height in heights])
    track, _ = FixTrack.of(np.arange(6) * 10**9, positions, [""] * 6)
    assert track.positions[:, 2] == pytest.approx([50, *[math.nan] * 4, 8848], nan_ok=True)


def test_a_single_jump_a_run_and_a_first_wrong_fix() -> None:
    north_m = np.arange(60.0)  # 10 m/s, ten a second
    times = np.arange(60) * 100_000_000
    for rows in ([30], [30, 31, 32], [0], [0, 1], [59], [10, 40]):
        moved = north_m.copy()
        moved[rows] += 500.0
        lost = jumping(times, LATITUDE + moved / M_PER_MILLIDEGREE * 1e-3, np.full(60, LONGITUDE))
        assert np.flatnonzero(lost).tolist() == rows
    assert not jumping(times, LATITUDE + north_m * 1e-5, np.full(60, LONGITUDE)).any()


def test_a_train_an_aeroplane_and_a_pause_are_no_jumps() -> None:
    seconds = np.arange(100, dtype=np.int64) * 1_000_000_000
    for speed_m_s in (90, 250):
        latitude = LATITUDE + np.arange(100) * speed_m_s / M_PER_MILLIDEGREE * 1e-3
        assert not jumping(seconds, latitude, np.full(100, LONGITUDE)).any()
    seconds[50:] += 600 * 1_000_000_000  # the recorder rested while the car drove 20 km
    latitude = LATITUDE + np.where(np.arange(100) < 50, 0.0, 0.18)
    assert not jumping(seconds, latitude, np.full(100, LONGITUDE)).any()
    assert not jumping(np.arange(3) * 10**9, np.full(3, -17.0), np.array([179.9999, -179.9999, 179.9999])).any()


# ---- in bags


def reasons(source: Source) -> list[str]:
    return sorted(skip.reason for skip in source.skipped)


def placed(source: Source) -> dict[int, tuple[float, float]]:
    return {int(i.read()[0, 0, 0]): (i.place.latitude_deg, i.place.longitude_deg) for i in source.images}


def seeking(seconds: int, at: tuple[float, float] = (0.0, 0.0), status: int = 0) -> list[Message]:
    """Fixes and images while the receiver seeks, and then a street to the north."""
    fixes = [fix(t, *at, status=status) for t in range(seconds)]
    fixes += [fix(t, LATITUDE + t * 1e-4, LONGITUDE) for t in range(seconds, seconds + 4)]
    return fixes + [image(0.25 + t / 2, 10 * t) for t in range(2 * seconds + 6)]


@pytest.mark.parametrize("status", [0, -1])
def test_no_image_is_placed_at_null_island_nor_on_the_way_from_it(tmp_path: Path, status: int) -> None:
    source = read_source(write_bag(tmp_path / "b", seeking(3, status=status)))
    truth = {10 * t: LATITUDE + (0.25 + t / 2) * 1e-4 for t in range(6, 12)}
    found = placed(source)
    assert found.keys() == truth.keys()
    for shade, (latitude, longitude) in found.items():
        assert latitude == pytest.approx(truth[shade], abs=1e-8)
        assert longitude == pytest.approx(LONGITUDE, abs=1e-8)
    why = f"of the fixes {NULL_ISLAND}" if status == 0 else "of the fixes without a position"
    assert reasons(source).count(why) == 3
    assert reasons(source).count("farther than 1 s from a fix") == 4
    # at 2.25 s and 2.75 s the receiver had none yet; the first fix is at 3 s
    assert reasons(source).count("beside fixes without a position") == 2


def test_a_receiver_that_loses_its_fix_on_the_way(tmp_path: Path) -> None:
    fixes = [fix(t, 0.0, 0.0) if 3 <= t <= 6 else fix(t, LATITUDE + t * 1e-4) for t in range(10)]
    on_fixes = [image(2, 200), image(7, 210)]  # the last before, and the first behind
    images = [*(image(t + 0.5, 10 * t) for t in range(9)), *on_fixes]
    source = read_source(write_bag(tmp_path / "b", [*fixes, *images]))
    assert [placed(source)[shade][0] for shade in (200, 210)] == pytest.approx([LATITUDE + 2e-4, LATITUDE + 7e-4])
    # beside the gap an image half a second from a true fix is not on a line across it
    assert sorted(placed(source)) == [0, 10, 70, 80, 200, 210]
    assert reasons(source).count("beside fixes without a position") == 2
    assert reasons(source).count("farther than 1 s from a fix") == 3
    brief = [fix(t, 0.0, 0.0) if t == 3 else fix(t, LATITUDE + t * 1e-4) for t in range(8)]
    source = read_source(write_bag(tmp_path / "c", [*brief, *(image(t + 0.5, 10 * t) for t in range(7))]))
    assert placed(source)[20][0] == pytest.approx(LATITUDE + 2.5e-4, abs=1e-8)  # one of the fixes, a second long
    assert len(source.images) == 7


def test_who_lives_there_says_so(tmp_path: Path) -> None:
    messages = [*(fix(t, 0.0, 0.0) for t in range(4)), *(image(t + 0.5, 10 * t) for t in range(3))]
    bag = write_bag(tmp_path / "b", messages)
    with pytest.raises(SourceError, match=r"no fix on /fix: .*found 4 at 0°, 0°, which receivers report"):
        read_source(bag)
    found = read_source(bag, accept_null_island=True)
    assert list(placed(found).values()) == [(0.0, 0.0)] * 3


def test_fixes_that_say_that_they_are_uncertain_place_nothing(tmp_path: Path) -> None:
    messages = drive()
    wild = fix(1.5, LATITUDE + 0.03)
    wild[2].position_covariance[[0, 4]] = 3000.0**2
    wild[2].position_covariance_type = 2
    source = read_source(write_bag(tmp_path / "b", [*messages, wild]))
    for shade, (latitude, _) in placed(source).items():
        assert latitude == pytest.approx(LATITUDE + shade / 10 * 0.5e-3, abs=1e-8)
    assert reasons(source) == ["of the fixes with a standard deviation above 100 m"]


def test_fixes_that_jump_place_nothing(tmp_path: Path) -> None:
    fixes = [
        fix(t / 10, LATITUDE + t * 1e-5 + (500 / M_PER_MILLIDEGREE * 1e-3 if t in (20, 21) else 0))
        for t in range(41)
    ]
    source = read_source(write_bag(tmp_path / "b", [*fixes, *(image(t / 2, 10 * t) for t in range(8))]))
    assert len(source.images) == 8
    for shade, (latitude, _) in placed(source).items():
        assert latitude == pytest.approx(LATITUDE + shade / 10 * 5e-5, abs=1e-8)
    assert reasons(source) == ["of the fixes that jump away from the others"] * 2
