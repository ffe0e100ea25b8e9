"""What an answer says of an orientation, and what it says without one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from geowarp_ros.types import Answer, Candidate, Fix, Header, NoFix, Place, confidence_text

COVARIANCE = np.arange(36.0).reshape(6, 6)
PLAIN = Fix(55.69826, 13.19514, 20.0, np.diag([0.09, 0.04, 1.0]), 0.97)
ORIENTED = replace(
    PLAIN,
    method="points",
    orientation=(0.0, 0.0, 0.6, 0.8),
    heading_deg=231.4,
    heading_std_deg=0.5,
    pose_covariance=COVARIANCE,
)
CANDIDATES = (Candidate(0, Place("IMG_1003.JPG", 55.7, 13.2), 0.1),)


def test_a_pose_is_one_line() -> None:
    assert repr(Answer(Header(), ORIENTED, CANDIDATES)) == (
        "Fix 55.69826, 13.19514 ± 0.3 m, heading 231.4 ± 0.5°, points, confidence 0.970, IMG_1003.JPG"
    )
    assert repr(Answer(Header(), PLAIN, CANDIDATES)) == (
        "Fix 55.69826, 13.19514 ± 0.3 m, confidence 0.970, IMG_1003.JPG"
    )


def test_no_fix_says_the_best_guess() -> None:
    doubtful = NoFix("low_confidence", "confidence 0.82, at least 0.92 wanted", 0.82)
    assert repr(Answer(Header(), doubtful, CANDIDATES)) == (
        "NoFix low_confidence: confidence 0.82, at least 0.92 wanted; best guess IMG_1003.JPG, 55.70000, 13.20000"
    )
    assert repr(Answer(Header(), NoFix("jump", confidence=0.4))) == "NoFix jump: confidence 0.400"


def test_json_has_the_orientation() -> None:
    said = json.loads(json.dumps(Answer(Header(camera="camera_info"), ORIENTED).to_dict("a.jpg")))
    assert said["method"] == "points" and said["camera"] == "camera_info"
    assert (said["heading_deg"], said["heading_std_deg"]) == (231.4, 0.5)
    assert said["orientation"] == [0.0, 0.0, 0.6, 0.8]
    assert said["pose_covariance"] == list(range(36))  # row-major


def test_json_is_null_where_nothing_is_known() -> None:
    unknown = ("heading_deg", "heading_std_deg", "orientation", "pose_covariance", "camera")
    cluster, lost = (Answer(Header(), result).to_dict() for result in (PLAIN, NoFix("jump")))
    assert cluster["method"] == "cluster" and lost["method"] is None
    assert all(said[key] is None for said in (cluster, lost) for key in unknown)
    json.dumps(cluster, allow_nan=False)


def test_a_confidence_that_is_not_enough_does_not_look_like_it() -> None:
    assert [confidence_text(c) for c in (0.0, 0.5699, 0.57, 0.9949, 0.99999, 1.0)] == [
        *("0.000", "0.569", "0.570", "0.994", "0.999", "1.000")
    ]
