from __future__ import annotations

import numpy as np
import pytest
from visualization_msgs.msg import Marker

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.ros.candidates import NAMED, candidate_markers
from geowarp_ros.types import Answer, Candidate, Fix, Header, NoFix, Place

TOWN = LocalFrame(48.0, 11.0, 500.0)


def candidate(index: int, east_m: float, score: float | None) -> Candidate:
    latitude, longitude, _ = TOWN.to_geodetic(np.array([east_m, 20.0, 0.0]))
    return Candidate(index, Place(f"{index}.jpg", float(latitude), float(longitude)), 0.1, score)


CANDIDATES = tuple(candidate(index, 10.0 * index, 0.9 - index / 10 if index < 2 else None) for index in range(6))
FIX = Fix(48.0, 11.0, 0.0, np.eye(3), 0.9)
HEADER = Header(1_500_000_000, score_unit="mean cosine")


def test_each_candidate_lies_where_its_place_does() -> None:
    markers = candidate_markers(Answer(HEADER, FIX, CANDIDATES), TOWN, "town").markers
    assert markers[0].action == Marker.DELETEALL
    spheres = [marker for marker in markers if marker.type == Marker.SPHERE]
    assert [marker.pose.position.x for marker in spheres] == pytest.approx([0, 10, 20, 30, 40, 50], abs=0.01)
    assert all(marker.pose.position.y == pytest.approx(20.0, abs=0.01) for marker in spheres)
    assert {(m.header.frame_id, m.header.stamp.sec, m.header.stamp.nanosec) for m in markers} == {
        ("town", 1, 500_000_000)
    }
    assert len({(marker.ns, marker.id) for marker in markers[1:]}) == len(markers) - 1  # none hides another
    assert all(marker.pose.orientation.w == 1.0 and marker.color.a > 0 for marker in markers[1:])
    names = [marker.text for marker in markers if marker.type == Marker.TEXT_VIEW_FACING]
    assert names == ["1  0.jpg  0.900", "2  1.jpg  0.800", "3  2.jpg"]
    assert len(names) == NAMED


def test_colours_tell_fix_no_fix_and_what_was_re_ranked() -> None:
    fix = candidate_markers(Answer(HEADER, FIX, CANDIDATES), TOWN, "map").markers[1].color
    lost = candidate_markers(Answer(HEADER, NoFix("jump"), CANDIDATES), TOWN, "map").markers
    assert fix.g > fix.r and lost[1].color.r > lost[1].color.g
    spheres = [marker.color for marker in lost if marker.type == Marker.SPHERE]
    assert spheres[1] != spheres[2] and spheres[2] == spheres[3]


def test_inliers_are_whole_numbers() -> None:
    answer = Answer(Header(score_unit="inliers"), FIX, (candidate(0, 0.0, 31.0),))
    assert candidate_markers(answer, TOWN, "map").markers[-1].text == "1  0.jpg  31 inliers"


def test_without_candidates_the_old_ones_are_deleted() -> None:
    (only,) = candidate_markers(Answer(HEADER, NoFix("empty_gallery")), TOWN, "map").markers
    assert only.action == Marker.DELETEALL
