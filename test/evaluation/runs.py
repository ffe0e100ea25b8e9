"""Small runs with known errors, for the tests of judging, exports and report."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from geowarp_ros.evaluation.drive import NS, Drive, DriveImage, Position
from geowarp_ros.evaluation.run import THUMBNAIL_PX, Answered, Criteria, Run
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.pictures import encode_jpeg
from geowarp_ros.types import Answer, Candidate, Fix, Header, Image, NoFix, Place

FRAME = LocalFrame(45.0, 9.0)
START_NS = 1_700_000_000 * NS + 123_456_789
QUAD = np.array([[-0.8, -0.9], [0.9, -0.7], [0.8, 0.9], [-0.9, 0.8]], np.float32)


def position(east_m: float, north_m: float) -> Position:
    latitude, longitude, _ = FRAME.to_geodetic([east_m, north_m, 0.0])
    return Position(float(latitude), float(longitude), 12.0)


def picture(seed: int) -> Image:
    return np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)


def candidate(row: int) -> Candidate:
    here = position(5.0 * row, 0.0)
    place = Place(f"gallery/{row}.jpg", here.latitude_deg, here.longitude_deg)
    return Candidate(row, place, 0.5, 150.0 / 225, "mean cosine", 120.0 / 225, QUAD, QUAD[::-1][[3, 2, 1, 0]])


def fix(east_m: float, north_m: float, confidence: float, std_m: float = 5.0) -> Fix:
    where = position(east_m, north_m)
    covariance = np.diag([std_m**2, std_m**2, 1e6])
    return Fix(where.latitude_deg, where.longitude_deg, 0.0, covariance, confidence)


def answer(row: int, result: Fix | NoFix) -> Answer:
    timing_ms = {"describe": 20.0 + row, "search": 1.0, "rerank": 40.0, "position": 0.1}
    header = Header(START_NS + row * NS // 2, "camera", None, 5, timing_ms)
    return Answer(header, result, (candidate(row),))


def run(
    errors_m: Sequence[float] = (1.0, 3.0, 4.0, 60.0, 2.0, 8.0),
    lost: Collection[int] = (4,),
    criteria: Criteria | None = None,
    **kwargs: Any,
) -> Run:
    """A drive east, 5 m an image, each answer so far north of the truth; ``lost`` rows are no fixes."""
    answered = []
    for row, error in enumerate(errors_m):
        found = fix(5.0 * row, error, 0.95 - 0.1 * row)
        given = answer(row, NoFix("low_confidence", "", found.confidence) if row in lost else found)
        thumbnail = encode_jpeg(picture(row), 78, THUMBNAIL_PX)
        truth = position(5.0 * row, 0.0)
        answered.append(Answered(f"drive/{row:03}.jpg", given.header.stamp_ns, truth, given, found, thumbnail))
    return Run("a drive", tuple(answered), FRAME, criteria or Criteria(), **kwargs)


def headed_run(heading_errors_deg: Sequence[float] = (0.5, -1.0, 2.5, -170.0), std_deg: float = 1.0) -> Run:
    """The drive with fixes from points that know their headings, 350° in truth, and two more from the cluster."""
    plain, answered = run(errors_m=(1.0, 3.0, 4.0, 60.0, 2.0, 8.0), lost=()), []
    for row, item in enumerate(plain.answered):
        truth, given = item.truth, item.answer
        assert truth is not None and given.fix is not None
        truth, found = replace(truth, heading_deg=350.0), given.fix
        if row < len(heading_errors_deg):
            degrees = (350.0 + heading_errors_deg[row]) % 360
            half = math.radians(90.0 - degrees) / 2
            covariance = np.zeros((6, 6))
            covariance[:3, :3] = found.covariance
            covariance[2, 2] = 4.0  # a pose knows its altitude
            covariance[3:, 3:] = np.eye(3) * math.radians(std_deg) ** 2
            found = replace(
                found,
                covariance=covariance[:3, :3],
                method="points",
                orientation=(0.0, 0.0, math.sin(half), math.cos(half)),
                heading_deg=degrees,
                heading_std_deg=std_deg,
                pose_covariance=covariance,
            )
        answered.append(replace(item, truth=truth, answer=replace(given, result=found), position=found))
    return replace(plain, answered=tuple(answered))


def drive(count: int = 4, missing_truth: Collection[int] = ()) -> Drive:
    images = [
        DriveImage(
            f"{row}.jpg",
            START_NS + row * NS // 2,
            partial(picture, row),
            None if row in missing_truth else position(5.0 * row, 0.0),
            "camera",
        )
        for row in range(count)
    ]
    return Drive("a drive", tuple(images))
