"""A localizer asked about a drive, and recorded fixes joined to its images."""

import json
import types

import numpy as np
import pytest

from geowarp_ros.config import LocalizerConfig
from geowarp_ros.errors import ImageError
from geowarp_ros.evaluation.drive import NS, DriveImage
from geowarp_ros.evaluation.judging import error_en_m, figures, judge
from geowarp_ros.evaluation.run import Criteria, frame_of, join_recorded, run_drive
from geowarp_ros.position import estimate_position
from geowarp_ros.types import Candidate, Fix, NoFix, Place
from test.evaluation import runs


class StandIn:
    """A localizer that finds the place by the image's mean, and another place 400 m away, in equal parts."""

    def __init__(self, min_confidence=0.9):
        self.config = LocalizerConfig.model_validate({"position": {"min_confidence": min_confidence}})
        self.gallery = types.SimpleNamespace(frame=runs.FRAME)
        self.calibration = None
        self.warm = False

    def warm_up(self):
        self.warm = True

    def localize(self, frame):
        assert self.warm
        row = next(i for i in range(9) if np.array_equal(runs.picture(i), frame.image))
        here, elsewhere = runs.position(5.0 * row, 3.0), runs.position(400.0, 0.0)
        near = Candidate(row, Place("near", here.latitude_deg, here.longitude_deg), 0.5)
        # 0.5 and 0.51: the rival keeps most of its weight; 0.9: it keeps nearly none
        far = Candidate(
            99, Place("far", elsewhere.latitude_deg, elsewhere.longitude_deg), 0.51 if row % 2 else 0.9
        )
        answer = estimate_position([near, far], self.config.position, None)
        return answer


def test_the_same_answers_as_the_localizers_and_what_lies_below_the_threshold():
    result = run_drive(StandIn(), runs.drive(4))
    kinds = [type(item.answer).__name__ for item in result.answered]
    assert kinds == ["Fix", "NoFix", "Fix", "NoFix"]
    # without the threshold the two no-fixes are 3 m off as well
    assert judge(result).error_m == pytest.approx([3.0] * 4, abs=1e-6)
    assert judge(result).fixed.tolist() == [True, False, True, False]
    assert result.settings["position"]["min_confidence"] == 0.9


def test_an_image_that_cannot_be_read_is_named_and_the_rest_goes_on():
    drive = runs.drive(2)

    def broken():
        raise ImageError("1.jpg: truncated")

    bad = DriveImage("1.jpg", drive.images[1].stamp_ns, broken, drive.images[1].truth)
    result = run_drive(StandIn(), type(drive)("d", (drive.images[0], bad)))
    assert [item.name for item in result.answered] == ["0.jpg"]
    assert result.unreadable[0].reason == "1.jpg: truncated"
    assert figures(result)["unreadable"] == 1


def test_images_without_truth_are_answered_and_not_judged():
    result = figures(run_drive(StandIn(), runs.drive(4, missing_truth=(1, 3))))
    assert (result["images"], result["judged"], result["without_truth"]) == (4, 2, 2)
    assert result["availability"]["value"] == 1.0


def test_figures_by_hand():
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


def test_a_run_without_any_fix_has_figures_that_say_so():
    result = figures(runs.run(lost=range(6)))
    assert result["availability"]["count"] == 0
    assert result["false_fix_rate"]["value"] is None
    assert result["error_m"]["0.5"] is None
    assert result["calibration"]["nees_mean"] is None
    json.dumps(result, allow_nan=False)


def test_recorded_fixes_belong_to_the_image_with_their_stamp():
    drive = runs.drive(4)
    recorded = [
        Fix(45.0, 9.0, 0.0, np.diag([25.0, 25.0, 1e6]), float("nan"), stamp_ns=drive.images[0].stamp_ns),
        NoFix("unknown", "", float("nan"), stamp_ns=drive.images[2].stamp_ns),
        Fix(45.0, 9.0, 0.0, np.eye(3), float("nan"), stamp_ns=drive.images[3].stamp_ns + 1),
    ]
    result = join_recorded(drive, recorded, runs.FRAME)
    assert [item.name for item in result.answered if isinstance(item.answer, Fix)] == ["0.jpg"]
    assert result.dropped == ("1.jpg", "3.jpg")
    assert "1 recorded fixes carry the stamp of no image" in result.notes[0]
    found = figures(result)
    assert (found["images"], found["dropped"], found["judged"]) == (4, 2, 4)
    assert found["availability"]["value"] == 0.25  # an image that was dropped has no fix
    assert found["precision_availability_area"] is None  # a NavSatFix carries no confidence
    assert found["no_fix_reasons"] == {"unknown": 1, "dropped": 2}


def test_a_recorded_covariance_of_zeros_is_left_out_of_the_calibration():
    drive = runs.drive(2)
    recorded = [
        Fix(45.0, 9.0, 0.0, np.zeros((3, 3)), float("nan"), stamp_ns=drive.images[0].stamp_ns),
        Fix(45.0, 9.0, 0.0, np.diag([25.0, 25.0, 1.0]), float("nan"), stamp_ns=drive.images[1].stamp_ns),
    ]
    calibration = figures(join_recorded(drive, recorded, runs.FRAME))["calibration"]
    assert (calibration["fixes"], calibration["without_covariance"]) == (1, 1)
    assert calibration["nees_mean"] == pytest.approx(1.0, rel=1e-4)  # 5 m east of the datum, 5 m claimed


def test_error_is_answer_minus_truth():
    error = error_en_m(runs.FRAME, runs.fix(0, 3.0, -4.0, 1.0), runs.position(1.0, 1.0))
    assert error == pytest.approx([2.0, -5.0], abs=1e-6)


def test_frame_about_the_middle_of_the_truth():
    frame = frame_of(runs.drive(5))
    assert frame.to_enu(*_degrees(runs.position(10.0, 0.0)))[:2] == pytest.approx([0.0, 0.0], abs=1e-3)


def _degrees(where):
    return where.latitude_deg, where.longitude_deg


def test_stamps_are_the_drives():
    assert run_drive(StandIn(), runs.drive(2)).answered[1].stamp_ns == runs.START_NS + NS // 2
