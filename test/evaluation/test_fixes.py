"""Each figure against a case worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from geowarp_ros.evaluation import fixes
from geowarp_ros.evaluation.fixes import Judged


def judged(
    errors_east: Sequence[float],
    confidence: Sequence[float] | None = None,
    fixed: Sequence[bool] | None = None,
    variance: float = 25.0,
) -> Judged:
    errors = np.array([[e, 0.0] for e in errors_east])
    count = len(errors)
    return Judged(
        errors,
        np.tile(variance * np.eye(2), (count, 1, 1)),
        np.full(count, 0.9) if confidence is None else np.array(confidence, float),
        np.ones(count, bool) if fixed is None else np.array(fixed),
    )


def test_error_is_the_hypotenuse() -> None:
    assert Judged(np.array([[3.0, -4.0]]), np.eye(2)[None], np.ones(1), np.ones(1, bool)).error_m == pytest.approx(
        [5]
    )


def test_share_carries_wilsons_interval() -> None:
    # 1 of 10: Wilson's interval for 95 % is 1.79 % to 40.42 % (Newcombe 1998's method 3)
    result = fixes.share(np.array([True] + 9 * [False]))
    assert (result.count, result.of, result.value) == (1, 10, 0.1)
    assert (result.low, result.high) == pytest.approx((0.0179, 0.4042), abs=1e-4)


def test_share_of_none_of_twenty_still_has_an_upper_end() -> None:
    # z² / (n + z²) = 3.8415 / 23.8415
    result = fixes.share(np.zeros(20, bool))
    assert (result.value, result.low) == (0.0, 0.0)
    assert result.high == pytest.approx(0.16113, abs=1e-5)


def test_share_of_nothing_is_nan() -> None:
    assert math.isnan(fixes.share(np.zeros(0, bool)).value)


def test_recall_counts_only_published_fixes_among_all_images() -> None:
    result = fixes.recall_within(judged([1, 4, 4, 40], fixed=[True, True, False, True]), [2, 5, 50])
    assert [result[metres].count for metres in (2, 5, 50)] == [1, 2, 3]
    assert all(recall.of == 4 for recall in result.values())


def test_recall_counts_an_image_without_answer_as_missed() -> None:
    result = fixes.recall_within(judged([1, math.nan], fixed=[True, False]), [5])
    assert result[5].value == 0.5


def test_false_fix_rate_is_over_the_fixes() -> None:
    result = fixes.false_fix_rate(judged([1, 30, 99, 99], fixed=[True, True, False, False]), 25.0)
    assert (result.count, result.of) == (1, 2)


def test_quantiles_interpolate() -> None:
    assert fixes.error_quantiles(np.array([0.0, 1, 2, 3, 4])) == pytest.approx({0.5: 2.0, 0.9: 3.6, 0.95: 3.8})
    assert math.isnan(fixes.error_quantiles(np.zeros(0))[0.5])


def test_cumulative_ends_at_availability() -> None:
    errors, shares = fixes.cumulative(np.array([4.0, 1.0, 2.0]), of=4)
    assert errors.tolist() == [1, 2, 4]
    assert shares.tolist() == [0.25, 0.5, 0.75]


def test_precision_availability_by_hand() -> None:
    # confidences .9 right, .8 wrong, .8 right, .1 right, one without any answer
    curve = fixes.precision_availability(
        judged([1, 99, 2, 3, math.nan], confidence=[0.9, 0.8, 0.8, 0.1, 0.0]), correct_within_m=10.0
    )
    assert curve.threshold.tolist() == [0.9, 0.8, 0.1]
    assert curve.availability == pytest.approx([0.2, 0.6, 0.8])
    assert curve.precision == pytest.approx([1.0, 2 / 3, 3 / 4])
    # 0.2·1 + 0.4·2/3 + 0.2·3/4
    assert fixes.area_under_precision(curve) == pytest.approx(0.2 + 0.8 / 3 + 0.15)


def test_precision_availability_of_no_answers_is_empty() -> None:
    curve = fixes.precision_availability(judged([math.nan], confidence=[math.nan]), 10.0)
    assert len(curve.threshold) == 0
    assert fixes.area_under_precision(curve) == 0.0


def test_nees_by_hand() -> None:
    # diagonal: 6²/9 + 4²/4; correlated: e = (1, 1), C = [[2, 1], [1, 2]], C⁻¹ = [[2, -1], [-1, 2]]/3 -> 2/3
    errors = np.array([[6.0, 4.0], [1.0, 1.0]])
    covariances = np.array([[[9.0, 0], [0, 4.0]], [[2.0, 1.0], [1.0, 2.0]]])
    assert fixes.nees(errors, covariances) == pytest.approx([8.0, 2 / 3])


def test_ellipse_bounds_are_chi_squared_with_two_degrees() -> None:
    assert [fixes.ellipse_bound(p) for p in (0.5, 0.95, 0.99)] == pytest.approx([1.386294, 5.991465, 9.210340])


def test_inside_ellipses_counts_by_hand() -> None:
    result = fixes.inside_ellipses(np.array([1.0, 2.0, 6.0, 10.0]))
    assert [result[p].count for p in fixes.PROBABILITIES] == [1, 2, 3]


def test_true_covariances_hold_what_they_claim() -> None:
    rng = np.random.default_rng(4)
    root = rng.normal(size=(4000, 2, 2)) + np.eye(2)
    errors = (root @ rng.normal(size=(4000, 2, 1)))[:, :, 0]
    values = fixes.nees(errors, root @ root.transpose(0, 2, 1))
    assert values.mean() == pytest.approx(2.0, abs=0.1)
    for probability, inside in fixes.inside_ellipses(values).items():
        assert inside.low - 0.01 <= probability <= inside.high + 0.01


def test_claimed_radius_is_the_longer_half_axis() -> None:
    # 95 % ellipse of variances 4 and 9 m²: 3·√5.9915; turning the ellipse changes nothing
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    straight = np.diag([4.0, 9.0])
    result = fixes.claimed_radius_m(np.stack([straight, turn @ straight @ turn.T]))
    assert result == pytest.approx([7.3432, 7.3432], abs=1e-4)


def test_stanford_fields_by_hand() -> None:
    #            nominal  unavailable  misleading (claim ok, error ok)  misleading (both beyond)  hazardous
    errors = np.array([5.0, 5.0, 20.0, 60.0, 60.0])
    radii = np.array([10.0, 30.0, 10.0, 50.0, 10.0])
    result = fixes.stanford(errors, radii, alert_limit_m=25.0)
    assert result == {"nominal": 1, "unavailable": 1, "misleading": 2, "hazardous": 1}


def test_latency_percentiles_by_hand() -> None:
    timings = [{"describe": float(t), "search": 1.0} for t in range(101)]
    result = fixes.latency_percentiles(timings)
    assert result["describe"] == {50: 50.0, 95: 95.0, 99: 99.0}
    assert result["total"] == {50: 51.0, 95: 96.0, 99: 100.0}
    assert fixes.latency_percentiles([]) == {}


def test_an_image_refused_early_hides_no_stage() -> None:
    result = fixes.latency_percentiles([{"texture": 1.0}, {"texture": 1.0, "describe": 20.0}], [100])
    assert result == {"texture": {100: 1.0}, "describe": {100: 20.0}, "total": {100: 21.0}}


def test_latest_frame_wins_while_busy() -> None:
    # frames each 100 ms, each busy 250 ms: 0 runs 0–250; 1 is replaced by 2, which runs 250–500; 3 and 4 wait in
    # turn, 5 comes at 500 when all is free again and 4 starts first, so 5 waits for the end
    stamps = np.arange(6, dtype=np.int64) * 100_000_000
    dropped = fixes.dropped_at_rate(stamps, np.full(6, 250.0))
    assert dropped.tolist() == [False, True, False, True, False, False]


def test_nothing_is_dropped_by_a_quick_node_or_a_slow_replay() -> None:
    stamps = np.arange(6, dtype=np.int64) * 100_000_000
    assert not fixes.dropped_at_rate(stamps, np.full(6, 100.0)).any()
    assert not fixes.dropped_at_rate(stamps, np.full(6, 250.0), rate=0.4).any()
    assert fixes.dropped_at_rate(np.zeros(0, np.int64), np.zeros(0)).tolist() == []
