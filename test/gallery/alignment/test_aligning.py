from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from geowarp_ros.gallery.alignment.aligning import align
from geowarp_ros.gallery.alignment.options import AlignOptions
from geowarp_ros.gallery.alignment.pairs import Compared, Pair, Tagged
from geowarp_ros.keypoints.detector import Keypoints
from test.gallery.alignment.scenes import (
    CAMERA,
    DATUM,
    FloatArray,
    Town,
    looking,
    meadow,
    photographed,
    ring,
    rows,
    street,
)

pytest.importorskip("poselib")
FREE = AlignOptions(free_tilt=True)


def off(count: int, std_m: float, seed: int = 0) -> FloatArray:
    return np.random.default_rng(100 + seed).normal(0, std_m, (count, 2))


@pytest.mark.parametrize(
    ("town", "headings", "options"),
    [(ring(), True, AlignOptions()), (street(), True, AlignOptions()), (meadow(), False, FREE)],
    ids=["ring", "street", "drone"],
)
def test_exact_tags_give_exact_poses(town: Town, headings: bool, options: AlignOptions) -> None:
    found, report = align(town.tagged(0.0, headings), DATUM, options)
    assert found.tied.all() and report.tied == len(town.positions) and report.lines == ()
    far, turned = town.errors(found)
    assert np.median(far) < 0.01 and far.max() < 0.03
    assert np.median(turned) < 0.1 and turned.max() < 0.15
    assert not report.suspects


def test_points_are_where_they_are_and_belong_to_their_keypoints() -> None:
    town = ring()
    found, _ = align(town.tagged(0.0, True), DATUM)
    for row in range(len(town.positions)):
        keypoint, point = found.observations(row)
        assert len(point) > 50
        apart = np.linalg.norm(found.points_m[point] - town.points[town.seen[row][keypoint]], axis=1)
        assert np.median(apart) < 0.02


def similar(positions: FloatArray, tags: FloatArray) -> FloatArray:
    """Return positions (N, 2) as the least-squares similarity puts them onto tags: the best there is."""
    here, there = (x[:, 0] + 1j * x[:, 1] for x in (positions, tags))
    ratio = np.vdot(here - here.mean(), there - there.mean()) / np.vdot(here - here.mean(), here - here.mean())
    put = there.mean() + ratio * (here - here.mean())
    return np.column_stack([put.real, put.imag])


def test_ring_with_noisy_tags_is_healed_and_its_covariance_holds() -> None:
    squared, of_tags, z, turned_z, from_best = [], [], [], [], []
    for seed in range(5):
        town = ring(seed, count=16)
        noise = off(16, 1.0, seed)
        found, report = align(town.tagged(noise), DATUM, AlignOptions(position_std_m=1.0))
        assert found.tied.all() and report.headings == 16
        far, turned = town.errors(found)
        best = similar(town.positions[:, :2], town.positions[:, :2] + noise)
        from_best.append(np.linalg.norm(found.position_m[:, :2] - best, axis=1).max())
        squared.append((far**2).mean())
        of_tags.append((noise**2).sum(axis=1).mean())
        z.append((far**2 / found.position_std_m**2).mean())
        turned_z.append((np.radians(turned) ** 2 / found.heading_std_rad**2).mean())
        assert np.median(turned) < 3.0
    # keypoints fix the ring up to a similarity: 4 of the tags' 32 numbers remain, sqrt(4 / 32) = 0.35 of the error
    assert np.sqrt(np.mean(squared) / np.mean(of_tags)) < 0.5
    assert np.median(from_best) < 0.3
    assert 0.5 < np.mean(z) < 4.0
    assert 0.2 < np.mean(turned_z) < 4.0


@pytest.mark.parametrize("town", [street(0), street(1)], ids=["0", "1"])
def test_a_track_on_one_line_is_not_flipped(town: Town) -> None:
    found, _ = align(town.tagged(off(len(town.positions), 1.0)), DATUM)
    _, turned = town.errors(found)
    assert found.tied.all() and turned.max() < 6.0
    assert (found.rotation[:, 2, 1] < -0.9).all()  # upright


def test_outliers_are_named_and_pull_nobody() -> None:
    town = ring(3, count=20)
    noise = off(20, 1.0)
    noise[[4, 13]] += [[15.0, 0.0], [0.0, -15.0]]
    found, report = align(town.tagged(noise), DATUM)
    assert {suspect.row for suspect in report.suspects} == {4, 13}
    far, turned = town.errors(found)
    assert found.tied.all() and far.max() < 1.5 and turned.max() < 3.0


def test_two_photographs_at_one_place_with_contradicting_tags() -> None:
    ringed = ring(2)
    positions = ringed.positions.copy()
    positions[5] = positions[4]
    town = photographed(positions, ringed.rotations, ringed.points)
    noise = off(24, 0.5)
    noise[5] = [6.0, 8.0]
    found, report = align(town.tagged(noise), DATUM)
    assert [suspect.row for suspect in report.suspects] == [5]
    assert np.linalg.norm((found.position_m - positions)[[4, 5], :2], axis=1).max() < 0.5


@pytest.mark.parametrize("headings", [False, True])
@pytest.mark.parametrize("town", [ring(1, 14), street(1, 14)], ids=["ring", "street"])
@pytest.mark.parametrize("how", ["permuted", "anywhere"])
@pytest.mark.parametrize("seed", range(6))
def test_tags_that_have_nothing_to_do_with_the_photographs_tie_nothing(
    town: Town, headings: bool, how: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    count = len(town.positions)
    where = rng.permutation(town.positions)[:, :2] if how == "permuted" else rng.uniform(-50, 50, (count, 2))
    found, report = align(town.tagged(where - town.positions[:, :2], headings), DATUM)
    assert not found.tied.any() and len(found.points_m) == 0
    assert any("not tied" in line or "unlike their tags" in line for line in report.lines)


def test_headings_that_contradict_the_positions_tie_nothing() -> None:
    town = street(0)
    given = [replace(p, heading_deg=p.heading_deg + 180.0) for p in town.tagged(0.0, True)]
    found, report = align(given, DATUM)
    assert not found.tied.any() and "headings" in report.lines[0]


def _all_the_same(town: Town) -> Town:
    rng = np.random.default_rng(0)
    pixels, descriptors = rng.uniform(0, 240, (150, 2)), rng.integers(0, 255, (150, 128)).astype(np.uint8)
    shown = [Keypoints((pixels + rng.normal(0, 0.3, (150, 2))).astype(np.float32), descriptors)] * len(town.seen)
    return replace(town, keypoints=shown)


def _sky(town: Town) -> Town:
    rng = np.random.default_rng(0)
    shown = [
        Keypoints(rng.uniform(0, 240, (150, 2)).astype(np.float32), rng.integers(0, 255, (150, 128), np.uint8))
        for _ in town.seen
    ]
    return replace(town, keypoints=shown)


def _one_spot() -> Town:
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-30, 30, (3000, 2)), rng.uniform(-2, 12, 3000)])
    points = points[np.hypot(points[:, 0], points[:, 1]) > 6]
    return photographed(np.tile([0.0, 0.0, 1.6], (12, 1)), looking(np.arange(12) * 12.0, 0.0, 0.0), points)


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("noise_m", [0.0, 2.0])
@pytest.mark.parametrize(
    "town", [_all_the_same(street(0, 12)), _sky(street(0, 12)), _one_spot()], ids=["car", "sky", "one spot"]
)
def test_without_parallax_nothing_is_tied(town: Town, noise_m: float, free: bool) -> None:
    found, report = align(town.tagged(off(12, noise_m)), DATUM, AlignOptions(free_tilt=free))
    assert not found.tied.any() and len(found.points_m) == 0 and math.isnan(report.residual_m)
    assert report.lines and report.lines[0].startswith("nothing")


@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("camera", [None, CAMERA])
def test_little_or_nothing_to_align_is_said(count: int, camera: object) -> None:
    given = [
        Tagged(np.array([3.0 * k, 0, math.nan]), math.nan, CAMERA if camera else None, Keypoints.none())
        for k in range(count)
    ]
    found, report = align(given, DATUM)
    assert found.tied.shape == (count,) and not found.tied.any() and report.lines[0].startswith("nothing to align")


def test_photographs_without_camera_or_position_are_left_as_they_are() -> None:
    given = street(0).tagged(0.0, True)
    given[3] = replace(given[3], camera=None)
    given[7] = replace(given[7], position_m=np.full(3, math.nan))
    found, _ = align(given, DATUM)
    assert np.flatnonzero(~found.tied).tolist() == [3, 7]
    assert found.position_std_m[3] == AlignOptions().position_std_m and math.isinf(found.position_std_m[7])
    assert np.array_equal(found.position_m[3], given[3].position_m)


def test_the_same_again_and_from_what_was_compared_before() -> None:
    given = street(0, 12).tagged(off(12, 1.0))
    compared: Compared = {}
    first, report = align(given, DATUM, compared=compared)
    assert report.compared == len(compared) > 0 and all(isinstance(pair, Pair) for pair in compared.values())
    for known in (compared, None):
        again, said = align(given, DATUM, compared=known)
        assert said.compared == (0 if known is not None else report.compared)
        for name in (
            "tied",
            "position_m",
            "rotation",
            "position_std_m",
            "points_m",
            "keypoint",
            "point",
            "starts",
        ):
            assert np.array_equal(getattr(first, name), getattr(again, name), equal_nan=True), name
    assert np.array_equal(rows(given), rows(street(0, 12).tagged(off(12, 1.0))))  # tags are never written to
