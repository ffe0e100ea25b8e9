"""Evidence against hand-worked values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.integrity.evidence import FEATURES, feature_row, gather_evidence
from geowarp_ros.types import Candidate, Place

FRAME = LocalFrame(55.7, 13.2)
FULL = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)


def candidate(
    east: float, distance: float, score: float | None = None, quad: NDArray[Any] | None = None
) -> Candidate:
    latitude, longitude, _ = FRAME.to_geodetic(np.array([[east, 0.0, 0.0]]))
    place = Place(f"{east}.jpg", float(latitude[0]), float(longitude[0]))
    unwarped = None if score is None else score - 0.1
    return Candidate(0, place, distance, score, "mean cosine", unwarped, quad, quad)


def test_evidence_of_a_reranked_list() -> None:
    half = FULL * [0.5, 1.0]
    ranked = [candidate(0, 1.0, 0.8, half), candidate(5, 1.2, 0.75, FULL), candidate(80, 2.0, 0.6, FULL)]
    evidence = gather_evidence(ranked, 10.0)
    assert evidence.agrees.tolist() == [True, True, False]
    inside, outside = 1 + math.exp(-2), math.exp(-10)
    assert evidence.agreement == pytest.approx(inside / (inside + outside))
    assert evidence.contrast == pytest.approx(2.0)
    assert evidence.score == pytest.approx(0.8)
    assert evidence.score_gain == pytest.approx(0.1)
    assert evidence.score_margin == pytest.approx(0.2)
    assert evidence.quad_area == pytest.approx(0.5)


def test_a_folded_quad_has_no_area() -> None:
    bow_tie = FULL[[0, 2, 1, 3]]
    assert gather_evidence([candidate(0, 1.0, 1.0, bow_tie)], 10.0).quad_area == 0.0


def test_without_reranking_the_scores_are_unknown() -> None:
    evidence = gather_evidence([candidate(0, 1.0), candidate(50, 1.5)], 10.0)
    assert math.isnan(evidence.score) and math.isnan(evidence.score_margin) and math.isnan(evidence.quad_area)
    assert evidence.contrast == pytest.approx(1.5)


def test_no_candidates_are_no_evidence() -> None:
    with pytest.raises(ValueError, match="no candidates"):
        gather_evidence([], 10.0)


def verified(east: float, distance: float, inliers: int | None) -> Candidate:
    return replace(candidate(east, distance), inliers=inliers)


def test_inliers_and_those_of_the_best_rival() -> None:
    ranked = [verified(0, 1.0, 40), verified(3, 1.1, 35), verified(90, 1.2, 9), verified(200, 1.3, None)]
    evidence = gather_evidence(ranked, 10.0)
    assert (evidence.inliers, evidence.rival_inliers) == (40.0, 9.0), "3 m away is no rival"
    row = dict(zip(FEATURES, feature_row(evidence), strict=True))
    assert row["log_inliers"] == pytest.approx(math.log(41))
    assert row["inlier_margin"] == pytest.approx(math.log(41 / 10))


def test_without_a_rival_the_margin_is_against_none_and_without_verification_unknown() -> None:
    assert gather_evidence([verified(0, 1.0, 12)], 10.0).rival_inliers == 0.0
    unknown = gather_evidence([verified(0, 1.0, None), verified(90, 1.2, None)], 10.0)
    assert math.isnan(unknown.inliers) and math.isnan(unknown.rival_inliers)
