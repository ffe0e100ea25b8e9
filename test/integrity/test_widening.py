"""The widening against tables, and its coverage over simulated calibrations of few errors."""

from __future__ import annotations

import numpy as np
import pytest

from geowarp_ros.integrity.widening import widening
from geowarp_ros.types import FloatArray

CHI2_95 = {1: 3.8414588, 2: 5.9914645}


def test_hand_values() -> None:
    # one error on a line of unknown scale: Student's t with 1 degree of freedom, 12.706 (tables)
    assert widening(np.array([0.5, 0.5]), 1, 1) == pytest.approx(12.7062**2 / CHI2_95[1], rel=1e-4)
    # five in a plane, two parameters: F(2, 8) = 4.4590 (tables)
    assert widening(np.full(5, 2.0), 2, 2) == pytest.approx(2 * 4.4590 * 10 / 8 / CHI2_95[2], rel=1e-4)
    # 39 and the next: rank 38 bounds 95 %, whatever lies beyond; here Student asks for less
    far = np.array([*np.full(37, 0.01), 60.0, 61.0])
    assert widening(far, 2, 2) == pytest.approx(60.0 / CHI2_95[2])
    # nine: the largest is the quantile 0.9, 4.605 of chi-squared with 2 degrees of freedom
    assert widening(np.array([*np.full(8, 1e-3), 46.0517]), 2, 2) == pytest.approx(10.0, rel=1e-4)


def test_many_gaussian_errors_are_not_widened() -> None:
    draws = np.random.default_rng(0).chisquare(2, 200_000)
    assert widening(draws, 2, 2) == pytest.approx(1.0, abs=0.02)


def gaussian(rng: np.random.Generator, count: int) -> FloatArray:
    return rng.normal(size=(count, 2))


def heavy(rng: np.random.Generator, count: int) -> FloatArray:
    return np.asarray(rng.normal(size=(count, 2)) * np.where(rng.random((count, 1)) < 0.1, 4.0, 1.0))


@pytest.mark.parametrize("count", [5, 10, 14, 30, 100])
def test_the_ellipse_of_few_gaussian_errors_holds_the_next_one_as_often_as_it_claims(count: int) -> None:
    rng = np.random.default_rng(count)
    held, unwidened = [], []
    for _ in range(2000):
        errors, fresh = gaussian(rng, count), gaussian(rng, 50)
        variance = (errors**2).mean()  # of greatest likelihood: the one parameter
        factor = widening((errors**2).sum(axis=1) / variance, 2, 1)
        nees = (fresh**2).sum(axis=1) / variance
        held.append((nees <= CHI2_95[2] * factor).mean())
        unwidened.append((nees <= CHI2_95[2]).mean())
    assert 0.945 <= np.mean(held) <= 0.97
    assert count > 30 or np.mean(unwidened) < 0.945, "without it, they hold less"


def test_nineteen_errors_are_enough_for_any_distribution() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(3000):
        errors, fresh = heavy(rng, 19), heavy(rng, 50)
        variance = (errors**2).mean()
        factor = widening((errors**2).sum(axis=1) / variance, 2, 1)
        held.append(((fresh**2).sum(axis=1) / variance <= CHI2_95[2] * factor).mean())
    assert np.mean(held) >= 0.945
