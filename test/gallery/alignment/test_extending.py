"""An alignment extended: what is untouched stays to the bit, and what is new is as good as in a full alignment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from geowarp_ros.gallery.alignment.aligned import Alignment
from geowarp_ros.gallery.alignment.aligning import Given, Report, Suspect, align
from geowarp_ros.gallery.alignment.extending import extend
from geowarp_ros.gallery.alignment.options import AlignOptions
from geowarp_ros.gallery.alignment.pairs import Compared, Tagged
from geowarp_ros.keypoints.detector import Keypoints
from test.gallery.alignment.scenes import CAMERA, DATUM, FloatArray, Town, ring, street
from test.gallery.alignment.test_aligning import off

OPTIONS = AlignOptions(position_std_m=1.0, neighbours=12)
EAST, NORTH = np.array([300.0, 0, 0]), np.array([0.0, 150, 0])
PER_ROW = ("tied", "position_m", "rotation", "position_std_m", "heading_std_rad")


class Begun(NamedTuple):
    given: list[Tagged]
    alignment: Alignment
    report: Report
    compared: Compared


def photographs(town: Town, where: FloatArray, seed: int) -> list[Tagged]:
    """Photographs of a town elsewhere, with tags that are off by 0.5 m per axis."""
    tags = town.tagged(off(len(town.positions), 0.5, seed))
    return [replace(p, position_m=p.position_m + where) for p in tags]


def begun(given: list[Tagged]) -> Begun:
    compared: Compared = {}
    alignment, report = align(given, DATUM, OPTIONS, compared)
    return Begun(given, alignment, report, compared)


STREET, RING, OTHER = street(0), ring(2, 12), street(1, 10)
DRIVEN = photographs(STREET, np.zeros(3), 0)


@pytest.fixture(scope="module")
def town() -> Begun:
    """Ten photographs of a street, and a ring of twelve 300 m to its east."""
    return begun(DRIVEN[:10] + photographs(RING, EAST, 1))


def longer(alignment: Alignment, more: int) -> Alignment:
    """Return an alignment with rows of photographs that came since, as the gallery opens it."""
    rows = {name: getattr(alignment, name) for name in (*PER_ROW, "component")}
    nothing = {"tied": False, "component": -1}
    padded: dict[str, Any] = {
        name: np.concatenate([row, np.full((more, *row.shape[1:]), nothing.get(name, math.nan), row.dtype)])
        for name, row in rows.items()
    }
    starts = np.concatenate([alignment.starts, np.full(more, alignment.starts[-1])])
    return replace(alignment, starts=starts, **padded)


def extended(town: Begun, new: Sequence[Tagged], torn: Sequence[int] = ()) -> tuple[Alignment, Report, Compared]:
    compared = dict(town.compared)
    before = longer(town.alignment, len(new))
    report = town.report
    found, said = extend([*town.given, *new], before, torn, report.suspects, report.tag_std_m, OPTIONS, compared)
    return found, said, compared


def assert_untouched(found: Alignment, before: Alignment, rows: range) -> None:
    assert before.tied[rows].any()
    for name in PER_ROW:
        np.testing.assert_array_equal(getattr(found, name)[rows], getattr(before, name)[rows], name)
    for row in rows:
        (keypoint, point), (then, points) = found.observations(row), before.observations(row)
        np.testing.assert_array_equal(keypoint, then)
        np.testing.assert_array_equal(found.points_m[point], before.points_m[points])


def errors(found: Alignment, rows: range, truth: FloatArray) -> FloatArray:
    assert found.tied[rows].all()
    return np.asarray(np.linalg.norm((found.position_m[rows] - truth)[:, :2], axis=1))


def test_a_street_far_from_all_touches_nothing(town: Begun) -> None:
    new = photographs(OTHER, NORTH, 2)
    found, said, compared = extended(town, new)
    here, there = range(22), range(22, 32)
    assert_untouched(found, town.alignment, here)
    truth = OTHER.positions + NORTH
    full, told = align([*town.given, *new], DATUM, OPTIONS)
    ours, theirs = (np.median(errors(each, there, truth)) for each in (found, full))
    assert ours < 0.5 and ours < theirs + 0.1
    turned = found.rotation[there] @ OTHER.rotations.transpose(0, 2, 1)
    assert np.degrees(np.arccos((np.trace(turned, axis1=1, axis2=2) - 1) / 2)).max() < 2.5

    candidates = Given.of([*town.given, *new]).candidates(OPTIONS)
    expected = {pair for pair in candidates if max(pair) >= 22}
    assert {pair for pair in compared if pair not in town.compared} == expected
    assert said.compared == len(expected) < told.compared
    assert said.lines[0].startswith("10 new photographs aligned with 0 about them; 22 others stay as they were")
    assert (said.photographs, said.tied, said.components) == (32, 32, (12, 10, 10))
    assert said.points == len(found.points_m) == told.points
    assert said.reprojection_px == pytest.approx(told.reprojection_px, rel=0.05)
    assert said.tag_std_m == pytest.approx(told.tag_std_m, rel=0.3)
    flat = np.linalg.norm((found.position_m - [p.position_m for p in [*town.given, *new]])[:, :2], axis=1)
    assert said.residual_m == pytest.approx(np.median(flat))


def test_a_street_goes_on_and_the_ring_stays(town: Begun) -> None:
    found, said, _ = extended(town, DRIVEN[10:])
    assert_untouched(found, town.alignment, range(10, 22))
    joined = [*range(10), *range(22, 28)]
    assert len({*found.component[joined].tolist()}) == 1 and said.components == (16, 12)
    assert said.lines[0].startswith("6 new photographs aligned with 10 about them; 12 others")
    assert not np.array_equal(found.position_m[:10], town.alignment.position_m[:10])
    off_m = np.linalg.norm((found.position_m[joined] - STREET.positions)[:, :2], axis=1)
    assert np.median(off_m) < 0.5


def test_what_two_views_do_not_tie_points_do(town: Begun) -> None:
    """Fourteen keypoints are too few for a pair, and enough against points."""
    one, seen, alignment = DRIVEN[10], STREET.seen[10], town.alignment
    known = {int(STREET.seen[row][k]) for row in range(10) for k in alignment.observations(row)[0]}
    few = np.flatnonzero([int(point) in known for point in seen])[:14]
    assert len(few) == 14
    sparse = Keypoints(one.keypoints.points[few], one.keypoints.descriptors[few])
    found, said, compared = extended(town, [replace(one, keypoints=sparse)])
    assert not any(len(pair) for rows, pair in compared.items() if max(rows) >= 22)
    assert found.tied[22] and found.component[22] == found.component[0] != found.component[10]
    assert_untouched(found, alignment, range(10, 22))
    assert np.linalg.norm(found.position_m[22] - STREET.positions[10]) < 1.0
    assert said.lines[0].startswith("1 new photographs aligned with 10 about them; 12 others")


def test_a_group_that_lost_photographs_is_adjusted_and_the_other_stays(town: Begun) -> None:
    gone = replace(town.given[3], camera=None, keypoints=Keypoints.none())
    (group,) = {*town.alignment.component[:10].tolist()}
    left = town._replace(given=[*town.given[:3], gone, *town.given[4:]])
    found, said, _ = extended(left, [], [group])
    assert_untouched(found, town.alignment, range(10, 22))
    assert np.flatnonzero(~found.tied).tolist() == [3] and found.component[3] == -1
    assert not len(found.observations(3)[0]) and np.isnan(found.rotation[3]).all()
    rows = [0, 1, 2, *range(4, 10)]
    off_m = np.linalg.norm((found.position_m[rows] - STREET.positions[rows])[:, :2], axis=1)
    assert np.median(off_m) < 0.5 and said.components == (12, 9)


def test_nothing_new_changes_nothing(town: Begun) -> None:
    report = town.report
    wrong = [Suspect(4, 9.0), Suspect(15, 11.0)]
    compared = dict(town.compared)
    found, said = extend(town.given, town.alignment, (), wrong, report.tag_std_m, OPTIONS, compared)
    assert_untouched(found, town.alignment, range(22))
    assert (said.compared, said.pairs, said.points) == (0, report.pairs, report.points)
    assert said.suspects == (Suspect(15, 11.0), Suspect(4, 9.0))
    assert (said.tag_std_m, said.residual_m) == pytest.approx((report.tag_std_m, report.residual_m))
    assert said.components == report.components == (12, 10)


def test_new_photographs_that_nothing_ties_stay_tags(town: Begun) -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(0, 200, (2, 40, 2)).astype(np.float32)
    new = [
        Tagged(np.array([5.0 * k, 2.0, math.nan]), math.nan, CAMERA,
               Keypoints(points[k], rng.integers(0, 120, (40, 128)).astype(np.uint8)))
        for k in range(2)
    ]  # fmt: skip
    found, said, _ = extended(town, new)
    assert_untouched(found, town.alignment, range(22))
    assert not found.tied[22:].any() and (found.component[22:] == -1).all()
    np.testing.assert_array_equal(found.position_m[22:, :2], [[0, 2], [5, 2]])
    assert (found.position_std_m[22:] == OPTIONS.position_std_m).all()
    assert said.lines[0].startswith("2 new photographs aligned with 0 about them; 22 others")
