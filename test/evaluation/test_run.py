"""A localizer asked about a drive, and recorded fixes joined to its images."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from geowarp_ros.config import SessionConfig, TrackingConfig, parse_config
from geowarp_ros.errors import ImageError
from geowarp_ros.evaluation.drive import NS, Drive, DriveImage, Position
from geowarp_ros.evaluation.fixes import precision_availability
from geowarp_ros.evaluation.judging import error_en_m, figures, judge
from geowarp_ros.evaluation.run import Criteria, Run, frame_of, join_recorded, run_drive
from geowarp_ros.evaluation.words import summary_rows
from geowarp_ros.integrity.evidence import gather_evidence
from geowarp_ros.localizer import Localizer, Ranked
from geowarp_ros.types import Answer, Candidate, Fix, FloatArray, Frame, Header, Image, Near, NoFix, Pair, Place
from test.evaluation import runs
from test.test_position import pose_of


class StandIn(Localizer):
    """A localizer that finds the place by the image's mean, and another place 400 m away, in equal parts."""

    def __init__(self, min_confidence: float = 0.9) -> None:
        self.config = config(min_confidence)
        self.gallery: Any = types.SimpleNamespace(frame=runs.FRAME, positions_enu=np.zeros((1, 3)))
        self.calibration, self.enu = None, runs.FRAME
        self.warm = False

    def warm_up(self) -> float:
        self.warm = True
        return 1.0

    def localize(
        self,
        frame: Frame | str | Path | Pillow.Image | Image,
        near: Near | None = None,
        deadline: Callable[[], int | None] = lambda: None,
    ) -> Answer:
        assert self.warm and isinstance(frame, Frame)
        row = next(i for i in range(9) if np.array_equal(runs.picture(i), frame.image))
        here, elsewhere = runs.position(5.0 * row, 3.0), runs.position(400.0, 0.0)
        best = Candidate(row, Place("near", here.latitude_deg, here.longitude_deg), 0.5)
        # 0.5 and 0.51: the rival keeps most of its weight; 0.9: it keeps nearly none
        far = Candidate(
            99, Place("far", elsewhere.latitude_deg, elsewhere.longitude_deg), 0.51 if row % 2 else 0.9
        )
        ranked = Ranked((best, far), gather_evidence([best, far], 10.0), 0, {})
        header = Header(frame.stamp_ns, frame.frame_id)
        pair = Pair(frame.image, frame.image, np.empty((0, 2)), np.empty((0, 2)))
        return Answer(header, self.judge(ranked), ranked.candidates, ranked.evidence, pair=lambda: pair)


def config(min_confidence: float = 0.9) -> SessionConfig:
    return parse_config(SessionConfig, {"position": {"min_confidence": min_confidence}})


def localized(drive: Drive, **options: float) -> Run:
    return run_drive(StandIn(**options), config(**options), drive)


def test_the_same_answers_as_the_localizers_and_what_lies_below_the_threshold() -> None:
    result = localized(runs.drive(4))
    kinds = [type(item.answer.result).__name__ for item in result.answered]
    assert kinds == ["Fix", "NoFix", "Fix", "NoFix"]
    # without the threshold the two no-fixes are 3 m off as well
    assert judge(result).error_m == pytest.approx([3.0] * 4, abs=1e-6)
    assert judge(result).fixed.tolist() == [True, False, True, False]
    assert result.settings["position"]["min_confidence"] == 0.9
    assert all(item.answer.pair is None for item in result.answered), "which would keep every image in memory"


def test_what_is_judged_of_a_fix_is_what_is_published_and_not_a_pose_that_is_not_trusted() -> None:
    class Posed(StandIn):
        """A pose 150 m off, which by the rule of thumb is not trusted."""

        def localize(self, *given: Any, **options: Any) -> Answer:
            answer = super().localize(*given, **options)
            pose = replace(pose_of(0.3), position_m=np.array([150.0, 0.0, 0.0]))
            ranked = Ranked(answer.candidates, answer.evidence, 0, {}, pose)
            return replace(answer, result=self.judge(ranked, 0.9), pose=pose)

    result = run_drive(Posed(0.9), config(0.9), runs.drive(4))
    assert judge(result).fixed.tolist() == [True, False, True, False]
    published = [item for item in result.answered if item.answer.fix]
    assert [item.position for item in published] == [item.answer.fix for item in published]
    assert [item.method for item in result.answered] == ["cluster", "points"] * 2
    assert judge(result).error_m[::2] == pytest.approx([3.0] * 2, abs=1e-6)
    assert figures(result)["false_fix_rate"]["count"] == 0


def test_a_jump_that_the_track_holds_back_is_no_answer_at_any_confidence() -> None:
    localizer = StandIn()
    localizer.gallery.positions_enu = np.array([[{4: 5000.0, 99: 9000.0}.get(row, 0.0)] * 3 for row in range(100)])
    tracked = config().model_copy(update={"tracking": TrackingConfig(method="hmm")})
    result = run_drive(localizer, tracked, runs.drive(5).thinned(2))
    assert [getattr(item.answer.result, "reason", "fix") for item in result.answered] == ["fix", "fix", "jump"]
    assert result.answered[2].answer.confidence > 0.9 and result.answered[2].position is None
    tradeoff = precision_availability(judge(result), 25.0)
    assert tradeoff.availability[-1] == pytest.approx(2 / 3)
    assert figures(result)["no_fix_reasons"] == {"jump": 1}


def test_an_image_that_cannot_be_read_is_named_and_the_rest_goes_on() -> None:
    drive = runs.drive(2)

    def broken() -> Image:
        raise ImageError("1.jpg: truncated")

    bad = DriveImage("1.jpg", drive.images[1].stamp_ns, broken, drive.images[1].truth)
    result = localized(type(drive)("d", (drive.images[0], bad)))
    assert [item.name for item in result.answered] == ["0.jpg"]
    assert result.unreadable[0].reason == "1.jpg: truncated"
    assert figures(result)["unreadable"] == 1


def test_images_without_truth_are_answered_and_not_judged() -> None:
    result = figures(localized(runs.drive(4, missing_truth=(1, 3))))
    assert (result["images"], result["judged"], result["without_truth"]) == (4, 2, 2)
    assert result["availability"]["value"] == 1.0


def test_figures_by_hand() -> None:
    result = figures(runs.run(criteria=Criteria(25.0, (2.0, 5.0, 100.0))))
    # published errors: 1, 3, 4, 60, 8; the fifth image (2 m) is no fix
    assert result["availability"] | {"low": 0, "high": 0} == {
        "value": 5 / 6,
        "low": 0,
        "high": 0,
        "count": 5,
        "of": 6,
    }
    assert result["false_fix_rate"]["value"] == pytest.approx(0.2)
    assert {key: share["count"] for key, share in result["recall"].items()} == {"2": 1, "5": 3, "100": 5}
    assert result["error_m"]["0.5"] == pytest.approx(4.0, abs=1e-4)
    assert result["error_m"]["max"] == pytest.approx(60.0, abs=1e-2)
    assert result["no_fix_reasons"] == {"low_confidence": 1}
    # 5 m in each direction claimed: NEES 1/25, 9/25, 16/25, 144, 64/25; the 50 % ellipse holds three, 95 % four
    calibration = result["calibration"]
    assert calibration["nees_mean"] == pytest.approx((1 + 9 + 16 + 3600 + 64) / 125, rel=1e-4)
    assert [share["count"] for share in calibration["inside"].values()] == [3, 4, 4]
    assert [share["count"] for share in calibration["inside_of_right"].values()] == [3, 4, 4]
    # claimed 95 % radius 5·√5.99 = 12.2 m, within the limit of 25 m; 60 m off is the one that misleads
    assert calibration["stanford"] == {"nominal": 4, "unavailable": 0, "misleading": 0, "hazardous": 1}
    # describe takes 20 + row ms; median of 0..5 is 2.5
    assert result["latency_ms"]["describe"]["50"] == pytest.approx(22.5)
    assert result["latency_ms"]["total"]["50"] == pytest.approx(63.6)
    assert result["dropped_at_recorded_rate"]["count"] == 0


def test_a_run_without_any_fix_has_figures_that_say_so() -> None:
    result = figures(runs.run(lost=range(6)))
    assert result["availability"]["count"] == 0
    assert result["false_fix_rate"]["value"] is None
    assert result["error_m"]["0.5"] is None
    assert result["calibration"]["nees_mean"] is None
    json.dumps(result, allow_nan=False)


def test_with_a_base_frame_the_base_is_judged() -> None:
    drive = runs.drive(4)
    offset = {"base_frame": "base_link", "camera_offset": {"z_m": 3.0, "x_m": 4.0}}
    based = run_drive(StandIn(), parse_config(SessionConfig, {**config().model_dump(), **offset}), drive)
    for item, plain in zip(based.answered, localized(drive).answered, strict=True):
        assert item.answer.header.frame_id == "base_link" and item.position is not None
        assert plain.position is not None
        # no orientation: 5 m of lever in any direction
        np.testing.assert_allclose(item.position.covariance, plain.position.covariance + 25.0 * np.eye(3))
        assert (item.answer.fix is None) == (plain.answer.fix is None)


def test_headings_and_methods_by_hand() -> None:
    result = figures(runs.headed_run())
    # sizes 0.5, 1, 2.5, 170: one and two within 1.96 standard deviations of 1°
    heading = result["heading"]
    assert (heading["headings"], heading["median_deg"]) == (4, pytest.approx(1.75))
    assert heading["p95_deg"] == pytest.approx(2.5 + 0.85 * 167.5)
    assert heading["bias_deg"] == pytest.approx(-0.25)
    assert (heading["inside_95"]["count"], heading["inside_95"]["of"]) == (2, 4)
    assert heading["nees_mean"] == pytest.approx((0.25 + 1 + 6.25 + 170.0**2) / 4)
    points, cluster = result["methods"]["points"], result["methods"]["cluster"]
    assert list(result["methods"]) == ["points", "cluster"]
    assert (points["fixes"], cluster["fixes"]) == (4, 2)
    assert points["error_m"]["0.5"] == pytest.approx(3.5, abs=1e-4) and points["heading"] == heading
    assert cluster["error_m"] == pytest.approx({"0.5": 5.0, "0.95": 7.7, "max": 8.0}, abs=1e-3)
    assert cluster["nees_mean"] == pytest.approx((4 + 64) / 50, rel=1e-4)
    assert points["inside"]["0.95"]["count"] == 3
    assert cluster["heading"]["headings"] == 0 and cluster["heading"]["median_deg"] is None
    json.dumps(result, allow_nan=False)


def test_the_figures_are_said_in_words() -> None:
    said = dict(summary_rows(figures(runs.headed_run())))
    assert said["heading error of 4, median / 95 %"] == "1.75° / 144.87°"
    assert said["heading error, signed median"] == "-0.25°"
    assert said["points: fixes, error, heading error"] == "4, 3.5 m / 51.6 m, 1.75° / 144.87°"
    plain = dict(summary_rows(figures(runs.run())))
    assert not [name for name in plain if "heading" in name or "points" in name]


def test_a_heading_that_either_side_lacks_is_not_judged() -> None:
    run = runs.headed_run()
    without = tuple(replace(item, truth=runs.position(0.0, 0.0)) for item in run.answered)
    assert figures(replace(run, answered=without))["heading"]["headings"] == 0


def test_recorded_fixes_have_no_method_of_their_own() -> None:
    drive = runs.drive(2)
    run = join_recorded(drive, [recorded_fix(item.stamp_ns, np.eye(3)) for item in drive.images], runs.FRAME)
    assert list(figures(run)["methods"]) == ["recorded"]


def recorded_fix(stamp_ns: int, covariance: FloatArray) -> Answer:
    return Answer(Header(stamp_ns), Fix(45.0, 9.0, 0.0, covariance, math.nan))


def test_recorded_fixes_belong_to_the_image_with_their_stamp() -> None:
    drive = runs.drive(4)
    recorded = [
        recorded_fix(drive.images[0].stamp_ns, np.diag([25.0, 25.0, 1e6])),
        Answer(Header(drive.images[2].stamp_ns), NoFix("unknown", "", math.nan)),
        recorded_fix(drive.images[3].stamp_ns + 1, np.eye(3)),
    ]
    result = join_recorded(drive, recorded, runs.FRAME)
    assert [item.name for item in result.answered if item.answer.fix] == ["0.jpg"]
    assert result.dropped == ("1.jpg", "3.jpg")
    assert "1 recorded fixes carry the stamp of no image" in result.notes[0]
    found = figures(result)
    assert (found["images"], found["dropped"], found["judged"]) == (4, 2, 4)
    assert found["availability"]["value"] == 0.25  # an image that was dropped has no fix
    assert found["precision_availability_area"] is None  # a NavSatFix carries no confidence
    assert found["no_fix_reasons"] == {"unknown": 1, "dropped": 2}


def test_a_recorded_covariance_of_zeros_is_left_out_of_the_calibration() -> None:
    drive = runs.drive(2)
    recorded = [
        recorded_fix(drive.images[0].stamp_ns, np.zeros((3, 3))),
        recorded_fix(drive.images[1].stamp_ns, np.diag([25.0, 25.0, 1.0])),
    ]
    calibration = figures(join_recorded(drive, recorded, runs.FRAME))["calibration"]
    assert (calibration["fixes"], calibration["without_covariance"]) == (1, 1)
    assert calibration["nees_mean"] == pytest.approx(1.0, rel=1e-4)  # 5 m east of the datum, 5 m claimed


def test_error_is_answer_minus_truth() -> None:
    error = error_en_m(runs.FRAME, runs.fix(3.0, -4.0, 1.0), runs.position(1.0, 1.0))
    assert error == pytest.approx([2.0, -5.0], abs=1e-6)


def test_frame_about_the_middle_of_the_truth() -> None:
    frame = frame_of(runs.drive(5))
    assert frame.to_enu(*_degrees(runs.position(10.0, 0.0)))[:2] == pytest.approx([0.0, 0.0], abs=1e-3)


def _degrees(where: Position) -> tuple[float, float]:
    return where.latitude_deg, where.longitude_deg


def test_stamps_are_the_drives() -> None:
    assert localized(runs.drive(2)).answered[1].stamp_ns == runs.START_NS + NS // 2
