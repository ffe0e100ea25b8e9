"""The calibration against draws whose truth is known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from geowarp_ros.config import LocalizerConfig, RerankConfig, RerankMode
from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.manifest import CALIBRATION
from geowarp_ros.integrity.calibration import (
    Calibration,
    OwnPlace,
    Sample,
    beside_model,
    find_calibration,
    fit_calibration,
    load_calibration,
    normalized_error,
    save_calibration,
    settings_of,
)
from geowarp_ros.integrity.evidence import feature_row
from geowarp_ros.integrity.logistic import fit_logistic, minimum_confidence
from geowarp_ros.keypoints.detector import KeypointConfig
from geowarp_ros.model.checkpoints import fingerprint, load_model
from geowarp_ros.model.installed import DEFAULT_MODEL
from geowarp_ros.types import Evidence
from test.untrained import published, store


def drawn(rng: np.random.Generator, right: bool, sigma: float, gain: float) -> Sample:
    """An answer whose contrast and score tell right from wrong, with an error of known covariance."""
    contrast = math.exp(rng.normal(0.8 if right else 0.05, 0.15))
    score = rng.normal(0.7 if right else 0.5, 0.04)
    scatter = np.diag(rng.uniform(0, 9, 2))
    evidence = Evidence(
        np.zeros((1, 2)),
        np.ones(1),
        np.ones(1, bool),
        0.9 if right else 0.6,
        0.3,
        contrast,
        score,
        0.05,
        0.1,
        0.6,
        math.nan,
        math.nan,
    )
    error = rng.multivariate_normal(np.zeros(2), gain * scatter + sigma**2 * np.eye(2))
    return Sample(evidence, float(np.hypot(*error)) if right else math.inf, error, scatter, 25.0, 5.0)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    rng = np.random.default_rng(1)
    return [drawn(rng, index % 2 == 0, 1.5, 0.5) for index in range(2000)]


def test_calibration_tells_right_from_wrong_and_its_probability_is_one(samples: list[Sample]) -> None:
    calibration, summary = fit_calibration(samples)
    assert summary["auc"] > 0.99
    assert summary["false_fix_rate"] <= 0.01
    assert summary["availability"] > 0.95
    rng = np.random.default_rng(2)
    fresh = [drawn(rng, index % 3 == 0, 1.5, 0.5) for index in range(1500)]
    confidence = np.array([calibration.confidence(s.evidence) for s in fresh])
    right = np.array([math.isfinite(s.error_m) for s in fresh])
    kept = confidence >= calibration.min_confidence
    assert (kept & ~right).sum() / kept.sum() <= 0.03
    assert ((confidence - right) ** 2).mean() < 0.02


def test_calibration_finds_the_covariance_of_the_draws(samples: list[Sample]) -> None:
    calibration, _ = fit_calibration(samples)
    assert calibration.position_std_m == pytest.approx(1.5, rel=0.15)
    assert calibration.scatter_gain == pytest.approx(0.5, rel=0.25)
    rng = np.random.default_rng(3)
    fresh = [drawn(rng, True, 1.5, 0.5) for _ in range(3000)]
    nees = np.array([normalized_error(s, calibration) for s in fresh])
    assert 0.93 <= (nees <= 5.991).mean() <= 0.97
    assert 1.6 <= nees.mean() <= 2.5


def test_heavy_tails_widen_the_ellipse() -> None:
    rng = np.random.default_rng(4)
    base = [drawn(rng, index % 2 == 0, 1.0, 0.0) for index in range(600)]
    tails = [
        Sample(s.evidence, s.error_m, s.error_en_m * (4.0 if i % 10 == 0 else 1.0), s.scatter, 100.0, 5.0)
        for i, s in enumerate(base)
    ]
    _, summary = fit_calibration(tails)
    assert summary["inside_95"] >= 0.945


def test_where_right_and_wrong_look_alike_little_is_published(samples: list[Sample]) -> None:
    # the evidence of the right answers given to right and wrong ones alike
    alike = [
        Sample(samples[index - index % 2].evidence, s.error_m, s.error_en_m, s.scatter, 25.0, 5.0)
        for index, s in enumerate(samples)
    ]
    calibration, summary = fit_calibration(alike)
    assert summary["auc"] == pytest.approx(0.5, abs=0.05)
    assert summary["availability"] < 0.02
    assert calibration.min_confidence > 0.45


def test_too_few_samples_are_refused(samples: list[Sample]) -> None:
    with pytest.raises(ValueError, match="at least 10 of each"):
        fit_calibration(samples[::2])


def test_round_trip_in_a_gallery_folder(tmp_path: Path, samples: list[Sample]) -> None:
    assert load_calibration(tmp_path / CALIBRATION) is None
    calibration, _ = fit_calibration(samples[:200])
    calibration = calibration.model_copy(update={"measured_with": settings_of(LocalizerConfig(), "abc", None)})
    save_calibration(tmp_path / CALIBRATION, calibration)
    assert load_calibration(tmp_path / CALIBRATION) == calibration
    assert calibration.measured_with["rerank.method"] == "geowarp"
    assert [path.name for path in tmp_path.iterdir()] == [CALIBRATION]


def test_the_gallerys_calibration_goes_before_the_models_and_others_are_said(tmp_path: Path) -> None:
    def stored(path: Path, title: str, **changed: str) -> None:
        measured_with = settings_of(LocalizerConfig(), "abc", None) | changed
        save_calibration(path, calibration.model_copy(update={"title": title, "measured_with": measured_with}))

    def found(config: LocalizerConfig = LocalizerConfig()) -> tuple[str, list[str]]:  # noqa: B008
        applies, refused = find_calibration(config, "abc", None, model, tmp_path, 12.0)
        return applies.title if applies else "none", refused

    calibration = Calibration(
        features=("agreement",), mean=(0.5,), scale=(0.1,), weights=(1.0,), intercept=0.0, min_confidence=0.5,
        position_std_m=3.0, std_per_spacing=0.5, scatter_gain=1.0, correct_within_m=25.0,
    )  # fmt: skip
    model = tmp_path / "model" / "m.safetensors"
    model.parent.mkdir()
    assert found() == ("none", [])
    stored(beside_model(model, "gated"), "the model's")
    assert found() == ("the model's", [])
    stored(tmp_path / CALIBRATION, "the gallery's")
    assert found() == ("the gallery's", [])
    stored(tmp_path / CALIBRATION, "the gallery's", **{"rerank.method": "sift", "retrieval.candidates": "7"})
    why = (
        "the gallery's is not used: it was measured with retrieval.candidates = '7' (now '20'),"
        " rerank.method = 'sift' (now 'geowarp')"
    )
    assert found() == ("the model's", [why])
    stored(beside_model(model, "gated"), "the model's", model="xyz")
    assert found() == ("none", [why, "the model's is not used: it was measured with model = 'xyz' (now 'abc')"])
    # another mode has a file of its own; without it the default mode's says why it is not used
    exact = LocalizerConfig.model_validate({"rerank": {"mode": "exact"}})
    (tmp_path / CALIBRATION).unlink()
    stored(beside_model(model, "gated"), "the model's")
    why = "the model's is not used: it was measured with rerank.mode = 'gated' (now 'exact')"
    assert found(exact) == ("none", [why])
    beside_model(model, "gated").rename(model.with_name("m.calibration.json"))  # as version 0.1 named it
    assert found(exact) == ("none", [why])
    stored(beside_model(model, "exact"), "the model's for exact", **{"rerank.mode": "exact"})
    stored(beside_model(model, "gated"), "the model's")
    assert (found(exact), found()) == (("the model's for exact", []), ("the model's", []))
    # and so has another verification
    unverified = LocalizerConfig.model_validate({"position": {"verify": "none"}})
    assert found(unverified)[0] == "none"
    saved = settings_of(unverified, "abc", None)
    of_none = calibration.model_copy(update={"title": "the model's without", "measured_with": saved})
    save_calibration(beside_model(model, "gated", "none"), of_none)
    assert (found(unverified), found()) == (("the model's without", []), ("the model's", []))
    # where the places lie 12 m apart: 3 m and 6 m in quadrature
    stored(tmp_path / CALIBRATION, "the gallery's")
    applies, _ = find_calibration(LocalizerConfig(), "abc", None, model, tmp_path, 12.0)
    assert applies is not None and applies.position_std_m == pytest.approx(math.hypot(3.0, 6.0))


def test_the_verification_counts_only_where_it_is_read() -> None:
    verified = settings_of(LocalizerConfig(), "abc", None)
    assert verified["position.verification.keypoints"] == "1000" and verified["position.verify_candidates"] == "10"
    without = settings_of(LocalizerConfig.model_validate({"position": {"verify": "none"}}), "abc", None)
    assert {name for name in without if "verif" in name} == {"position.verify"}


def test_stored_keypoints_are_another_measure_where_they_are_used(tmp_path: Path) -> None:
    stored = KeypointConfig(count=1500)
    detected, matched = (settings_of(LocalizerConfig(), "abc", one) for one in (None, stored))
    assert matched == detected | {"keypoints": "sift, 1500 at 1.5x, contrast 0.03"}
    for verify, method in (("none", "geowarp"), ("orb", "geowarp"), ("orb", "orb")):
        values = {"position": {"verify": verify, "estimate": "cluster"}, "rerank": {"method": method}}
        config = LocalizerConfig.model_validate(values)
        assert settings_of(config, "abc", stored) == settings_of(config, "abc", None)
        values["position"]["estimate"] = "pose"  # which is measured by the stored ones, whatever verifies
        config = LocalizerConfig.model_validate(values)
        assert settings_of(config, "abc", stored)["keypoints"] == "sift, 1500 at 1.5x, contrast 0.03"
    sift = LocalizerConfig.model_validate({"position": {"verify": "none"}, "rerank": {"method": "sift"}})
    assert settings_of(sift, "abc", stored)["keypoints"] == "sift, 1500 at 1.5x, contrast 0.03"

    calibration = Calibration(
        features=("agreement",), mean=(0.5,), scale=(0.1,), weights=(1.0,), intercept=0.0, min_confidence=0.5,
        position_std_m=3.0, scatter_gain=1.0, correct_within_m=25.0, measured_with=detected,
    )  # fmt: skip
    save_calibration(tmp_path / CALIBRATION, calibration)
    model = tmp_path / "m.safetensors"
    assert find_calibration(LocalizerConfig(), "abc", None, model, tmp_path, 12.0)[0] is not None
    now = "sift, 1500 at 1.5x, contrast 0.03"
    why = f"the gallery's calibration is not used: it was measured with keypoints = None (now '{now}')"
    assert find_calibration(LocalizerConfig(), "abc", stored, model, tmp_path, 12.0) == (None, [why])


def test_settings_of_version_0_1_have_their_new_names(tmp_path: Path, samples: list[Sample]) -> None:
    calibration, _ = fit_calibration(samples[:200])
    measured_with = settings_of(LocalizerConfig(), "abc", None)
    save_calibration(tmp_path / CALIBRATION, calibration.model_copy(update={"measured_with": measured_with}))
    text = (tmp_path / CALIBRATION).read_text()
    (tmp_path / CALIBRATION).write_text(text.replace("position.verification.", "rerank.verification."))
    read = load_calibration(tmp_path / CALIBRATION)
    assert read is not None and read.measured_with == measured_with


def test_what_is_automatic_is_what_the_gallery_stores(tmp_path: Path) -> None:
    """Calibrations of galleries of SIFT, and of XFeat where that was called sift, hold as before."""
    xfeat = KeypointConfig(kind="xfeat", weights="beef", scale=2.0)
    sift = LocalizerConfig.model_validate({"position": {"verify": "sift"}})
    for stored in (None, KeypointConfig()):
        assert settings_of(LocalizerConfig(), "abc", stored) == settings_of(sift, "abc", stored)
    here = settings_of(LocalizerConfig(), "abc", xfeat)
    assert (here["position.verify"], here["keypoints"]) == ("xfeat", "xfeat, 2000 at 2x, weights beef")
    before = here | {"position.verify": "sift"}
    calibration = Calibration(
        features=("agreement",), mean=(0.5,), scale=(0.1,), weights=(1.0,), intercept=0.0, min_confidence=0.5,
        position_std_m=3.0, scatter_gain=1.0, correct_within_m=25.0, measured_with=before,
    )  # fmt: skip
    save_calibration(tmp_path / CALIBRATION, calibration)
    read = load_calibration(tmp_path / CALIBRATION)
    assert read is not None and read.measured_with == here
    assert find_calibration(LocalizerConfig(), "abc", xfeat, tmp_path / "m", tmp_path, 12.0)[1] == []


def test_a_network_that_matches_is_told_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(store(tmp_path, "xfeat-lighterglue")))
    xfeat = KeypointConfig(kind="xfeat", weights="beef", scale=2.0)
    config = LocalizerConfig.model_validate({"position": {"verify": "xfeat-lighterglue"}})
    here = settings_of(config, "abc", xfeat)
    torch.save(published("xfeat-lighterglue", 1), tmp_path / "other.pt")
    there = settings_of(config.model_copy(update={"matcher_weights": str(tmp_path / "other.pt")}), "abc", xfeat)
    assert {name for name in here | there if here[name] != there[name]} == {"matcher_weights"}
    assert here["position.verify"] == "xfeat-lighterglue" and here["keypoints"].startswith("xfeat")


def test_a_foreign_calibration_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / CALIBRATION).write_text('{"features": []', encoding="utf-8")
    with pytest.raises(GalleryError, match=CALIBRATION):
        load_calibration(tmp_path / CALIBRATION)


def test_an_unwritable_folder_is_said(tmp_path: Path, samples: list[Sample]) -> None:
    calibration: Calibration = fit_calibration(samples[:200])[0]
    with pytest.raises(GalleryError, match=r"calibration\.json: cannot be written"):
        save_calibration(tmp_path / "absent" / CALIBRATION, calibration)


def test_the_covariance_grows_with_the_spacing_of_the_gallery() -> None:
    # errors of 0.8 spacings, in galleries of 6, 12 and 20 m: one number explains them all
    rng = np.random.default_rng(5)
    samples = []
    for index in range(3000):
        spacing_m = (6.0, 12.0, 20.0)[index % 3]
        sample = drawn(rng, index % 2 == 0, 0.8 * spacing_m, 0.0)
        samples.append(replace(sample, spacing_m=spacing_m, correct_within_m=200.0))
    calibration, _ = fit_calibration(samples)
    assert calibration.std_per_spacing == pytest.approx(0.8, rel=0.1)
    for spacing_m in (6.0, 12.0, 20.0):
        fresh = [replace(drawn(rng, True, 0.8 * spacing_m, 0.0), spacing_m=spacing_m) for _ in range(2000)]
        nees = np.array([normalized_error(s, calibration) for s in fresh])
        assert 0.93 <= (nees <= 5.991).mean() <= 0.97
        assert 1.6 <= nees.mean() <= 2.5
    at = calibration.at_spacing(12.0)
    assert at.position_std_m == pytest.approx(
        math.hypot(calibration.position_std_m, 12 * calibration.std_per_spacing)
    )
    assert at.std_m(3.0) == at.position_std_m


def test_light_tails_do_not_make_the_ellipse_too_small() -> None:
    # all errors 4 m long: 95 % lie inside any ellipse that holds them at all
    rng = np.random.default_rng(6)
    base = [drawn(rng, index % 2 == 0, 1.0, 0.0) for index in range(600)]
    ring = [replace(s, error_en_m=4.0 * s.error_en_m / np.hypot(*s.error_en_m)) for s in base]
    _, summary = fit_calibration(ring)
    assert summary["mean_nees"] == pytest.approx(2.0, abs=0.03), "which is consistent"
    assert summary["inside_95"] == 1.0


def test_logistic_weights_are_those_of_the_draws() -> None:
    # right with probability logistic(1.5·log_inliers - 4): the fit, of standardised features, says the same
    rng = np.random.default_rng(7)
    template = drawn(rng, True, 1.0, 0.0)
    samples = []
    for inliers in rng.integers(3, 60, 6000):
        right = rng.random() < 1 / (1 + math.exp(-(1.5 * math.log1p(inliers) - 4.0)))
        evidence = replace(template.evidence, inliers=float(inliers), rival_inliers=float(inliers))
        samples.append(replace(template, evidence=evidence, error_m=1.0 if right else math.inf))
    calibration, _ = fit_calibration(samples)
    row = calibration.features.index("log_inliers")
    assert calibration.weights[row] / calibration.scale[row] == pytest.approx(1.5, rel=0.1)
    for inliers in (5, 14, 40):
        evidence = replace(template.evidence, inliers=float(inliers), rival_inliers=float(inliers))
        truth = 1 / (1 + math.exp(-(1.5 * math.log1p(inliers) - 4.0)))
        assert calibration.confidence(evidence) == pytest.approx(truth, abs=0.03)


def test_theminimum_confidence_by_hand() -> None:
    # best first: 150 right, 2 wrong, 100 right, then 10 wrong: 2 of 252 are less than 1 %, 3 of 253 are not
    confidence = np.linspace(0.95, 0.01, 262)
    right = np.array([True] * 150 + [False] * 2 + [True] * 100 + [False] * 10)
    assert minimum_confidence(confidence, right, 0.01) == confidence[251]
    # too few to count 1 %: as many as there are before the first wrong one
    assert minimum_confidence(confidence[:40], np.arange(40) < 25, 0.01) == confidence[24]
    # unless the confidences promise it, which forgives one: 30 of 0.5 % wrong each, then too much
    sure = np.concatenate([np.linspace(0.9951, 0.9949, 30), [0.5, 0.4]])
    assert minimum_confidence(sure, np.arange(32) != 3, 0.01) == sure[29]
    assert minimum_confidence(sure, ~np.isin(np.arange(32), (3, 4)), 0.01) == sure[3]
    assert minimum_confidence(confidence[:3], np.array([False, True, True]), 0.01) == 1.0
    # equal confidences stand or fall together
    assert minimum_confidence(np.array([0.9, 0.5, 0.5]), np.array([True, True, False]), 0.01) == 0.9
    # one wrong answer is forgiven in any case, two are not
    assert minimum_confidence(np.array([0.9, 0.8, 0.7, 0.6]), np.array([False, True, False, True]), 0.01, 1) == 0.8


def test_each_drive_is_held_to_the_rate() -> None:
    rng = np.random.default_rng(0)
    # 990 answers of a drive where 2 tells right from wrong, 60 of one where it does not
    easy, hard = rng.normal(0, 1, 990), rng.normal(2, 1, 60)
    told = np.concatenate([easy + 4 * (np.arange(990) % 3 > 0), hard])
    right = np.concatenate([np.arange(990) % 3 > 0, np.arange(60) % 2 > 0])
    drives = [0] * 990 + [1] * 60
    alone = fit_logistic(told[:, None], ("x",), right, 0.05)
    each = fit_logistic(told[:, None], ("x",), right, 0.05, drives=drives)
    wrong = np.array(drives, bool) & ~right
    assert (alone.kept & wrong).sum() > 5 and (each.kept & wrong).sum() <= 1
    assert each.kept.sum() > 300


def test_a_calibration_beside_the_model_that_ships_was_measured_with_it() -> None:
    paths = sorted(DEFAULT_MODEL.parent.glob("default*.calibration.json"))
    stored = {path: load_calibration(path) for path in paths}
    assert beside_model(DEFAULT_MODEL, RerankConfig().mode) in stored
    for path, calibration in stored.items():
        assert calibration is not None
        measured = calibration.measured_with
        assert measured["model"] == fingerprint(load_model("default")), (
            "run the command of docs/integrity.md again"
        )
        mode, verify = measured["rerank.mode"], measured["position.verify"]
        assert path == beside_model(DEFAULT_MODEL, mode, verify)  # type: ignore[arg-type]
        assert measured["keypoints"], "those of the poses"
        assert 0.0 < calibration.look_alikes < 1.0, "what a gallery's own photographs are compared with"


def test_a_weight_that_says_the_opposite_is_left_out() -> None:
    rng = np.random.default_rng(0)
    right = np.arange(600) % 2 > 0
    shared = rng.normal(0, 1, 600)
    # the second is what blurs the first: subtracted, it sharpens it, though it should speak for an answer
    rows = np.column_stack([3.0 * right + shared, shared + rng.normal(0, 0.3, 600), rng.normal(0, 1, 600)])
    names = ("told", "blur", "nothing")
    free = fit_logistic(rows, names, right, 0.01)
    assert dict(zip(names, free.values["weights"], strict=True))["blur"] < -1  # type: ignore[call-overload]
    meant = fit_logistic(rows, names, right, 0.01, signs={"told": 1, "blur": 1})
    assert meant.values["features"] == ("told", "nothing")
    assert fit_logistic(rows, names, right, 0.01, signs={"told": 1, "blur": -1}).values == free.values


@pytest.mark.parametrize("mode", ["exact", "gated", "fast"])
def test_nothing_verified_is_no_fix_however_strange_the_picture(mode: RerankMode) -> None:
    # noise in a gallery of fifteen photographs: four matches, no rival, and a descriptor far from all
    shipped = load_calibration(beside_model(DEFAULT_MODEL, mode))
    assert shipped is not None
    nothing = Evidence(
        np.zeros((1, 2)), np.ones(1), np.ones(1, bool), 0.36, 0.105, 1.048, 0.5, 0.0, 0.0, 0.6, 4.0, 0.0
    )  # fmt: skip
    assert shipped.probability(feature_row(nothing)) < shipped.min_confidence  # its strangeness does not convince
    assert shipped.confidence(nothing) == 0.0
    some = replace(nothing, inliers=5.0)
    assert shipped.confidence(some) == shipped.probability(feature_row(some)) > 0.0


@pytest.mark.parametrize("count", [20, 28])
def test_a_calibration_on_few_photographs_holds_the_next_ones(count: int) -> None:
    # half of them right; before, 88 to 90 % of the next errors lay in the ellipse of 10 to 14
    held = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        calibration, _ = fit_calibration([drawn(rng, index % 2 == 0, 3.0, 0.5) for index in range(count)])
        fresh = [drawn(rng, True, 3.0, 0.5) for _ in range(50)]
        held += [normalized_error(sample, calibration) <= 5.991 for sample in fresh]
    assert 0.93 <= np.mean(held) <= 0.98


def test_the_share_of_look_alikes_is_that_of_the_drive_that_has_most(samples: list[Sample]) -> None:
    rng = np.random.default_rng(5)
    alike = [drawn(rng, True, 1.5, 0.5) for _ in range(400)]
    for row in range(1, 400, 4):  # a quarter is wrong with the evidence of right ones, a quarter with its own
        alike[row] = replace(alike[row], error_m=math.inf)
        alike[row + 2] = drawn(rng, False, 1.5, 0.5)
    both, drives = [*samples[:400], *alike], [0] * 400 + [1] * 400
    assert fit_calibration(samples[:400])[0].look_alikes < 0.05
    assert fit_calibration(both, drives=drives)[0].look_alikes == pytest.approx(0.5, abs=0.05)


OWN = OwnPlace(photographs="x", asked=200, alike=10, fixes=1, before=0.99)


@pytest.mark.parametrize(
    ("before", "known", "most", "wanted"),
    [
        (0.99, 0.4, 0.1, 24.75 / 25.75),  # odds of 99, and wrong answers a quarter as often
        (0.99, 0.4, 0.4, 0.99),
        (0.99, 0.4, 1.0, 0.99),  # never more is demanded
        (0.99, 0.0, 0.1, 0.99),  # nothing to compare with
        (0.99, 0.4, 0.001, 0.5),  # never less than what is more likely right
        (0.3, 0.4, 0.1, 0.3),
        (1.0, 0.4, 0.1, 1.0),  # nothing convinced there
    ],
)
def test_where_look_alikes_are_fewer_smaller_odds_are_enough(
    before: float, known: float, most: float, wanted: float
) -> None:
    calibration = Calibration(
        features=("agreement",), mean=(0.5,), scale=(0.1,), weights=(1.0,), intercept=0.0, min_confidence=before,
        position_std_m=3.0, scatter_gain=1.0, correct_within_m=25.0, look_alikes=known,
    )  # fmt: skip
    here = calibration.at_place(OWN, most)
    assert here.min_confidence == pytest.approx(wanted)
    assert here == calibration.model_copy(
        update={"min_confidence": here.min_confidence, "own": OWN, "title": here.title}
    ), "nothing else changes"


def test_the_rule_holds_the_rate_of_the_drive_with_most_look_alikes() -> None:
    """Draws whose odds are true: wrong answers a tenth as often exceed their threshold as rarely as there."""
    rng = np.random.default_rng(6)
    wanted, known = 0.99, 0.4
    calibration = Calibration(
        features=("agreement",), mean=(0.5,), scale=(0.1,), weights=(1.0,), intercept=0.0, min_confidence=wanted,
        position_std_m=3.0, scatter_gain=1.0, correct_within_m=25.0, look_alikes=known,
    )  # fmt: skip
    here = calibration.at_place(OWN, known / 10).min_confidence
    right = rng.uniform(0, 10, 200_000)  # log odds there; wrong answers are the right ones over the odds
    wrong = rng.exponential(1.0, 200_000)
    threshold, lower = (math.log(p / (1 - p)) for p in (wanted, here))
    there = (wrong > threshold).mean() / (right > threshold).mean()
    assert lower < threshold - 2
    assert 0.1 * (wrong > lower).mean() / (right > lower).mean() <= 1.05 * there
