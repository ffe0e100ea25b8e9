"""Parts of the alignment against truth, brute force and numerical differentiation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from geowarp_ros.gallery.alignment import adjustment
from geowarp_ros.gallery.alignment.adjustment import Scene, adjust, camera_covariances, zoom_std
from geowarp_ros.gallery.alignment.belief import outvoted, strain
from geowarp_ros.gallery.alignment.pairs import Pair, candidate_pairs
from geowarp_ros.gallery.alignment.points import Tracks, find_tracks, triangulate
from geowarp_ros.gallery.alignment.positions import Tags, baseline_ratios
from geowarp_ros.gallery.alignment.rotations import average_rotations, components
from test.gallery.alignment.scenes import CAMERA, FloatArray, Town, ring


def true_pairs(town: Town, reach: int = 3) -> list[Pair]:
    """Return the pairs of neighbours on a ring, exact."""
    found = []
    count = len(town.positions)
    for a in range(count):
        for b in range(a + 1, count):
            if min(b - a, count - b + a) > reach:
                continue
            _, one, two = np.intersect1d(town.seen[a], town.seen[b], return_indices=True)
            step = town.rotations[a].T @ (town.positions[b] - town.positions[a])
            turn = town.rotations[b].T @ town.rotations[a]
            matches = np.column_stack([one, two]).astype(np.int32)
            found.append(Pair(a, b, turn, step / np.linalg.norm(step), math.radians(10), matches))
    return found


def test_candidate_pairs_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    positions, headings = rng.uniform(0, 50, (40, 2)), rng.uniform(0, 360, 40)
    headings[::5] = np.nan
    views = np.full(40, math.radians(75))
    views[7] = np.nan
    wanted = set()
    for a in set(range(40)) - {7}:
        others = [b for b in range(40) if b not in (a, 7)]
        for b in sorted(others, key=lambda b: np.linalg.norm(positions[a] - positions[b]))[:6]:
            apart = abs((headings[a] - headings[b] + 180) % 360 - 180)
            if not apart > 75 + 10:
                wanted.add((min(a, b), max(a, b)))
    assert candidate_pairs(positions, headings, views, 6, 10.0) == sorted(wanted)


def test_average_rotations_is_exact_in_spite_of_outliers() -> None:
    town = ring(0, 16)
    pairs = true_pairs(town)
    rng = np.random.default_rng(0)
    bad = set(rng.choice(len(pairs), len(pairs) // 6, replace=False).tolist())
    given = [
        Pair(
            p.first,
            p.second,
            Rotation.from_rotvec(rng.normal(0, 0.8, 3)).as_matrix() @ p.rotation if k in bad else p.rotation,
            p.direction,
            p.parallax_rad,
            p.matches,
        )
        for k, p in enumerate(pairs)
    ]
    found, good = average_rotations(given, 17)
    assert np.isnan(found[16]).all() and set(np.flatnonzero(~good).tolist()) == bad
    common = found[:16] @ town.rotations.transpose(0, 2, 1)
    left = Rotation.from_matrix(common @ common[0].T).magnitude()
    assert np.degrees(left).max() < 0.5
    assert components(given, 17).tolist() == [0] * 16 + [-1] and components([], 2).tolist() == [-1, -1]


def test_baseline_ratios_are_exact() -> None:
    town = ring(0, 12, noise_px=0.0)
    pairs = true_pairs(town)
    both, logs, stds = baseline_ratios(pairs, town.rays, town.rotations)
    length = np.array([np.linalg.norm(town.positions[p.second] - town.positions[p.first]) for p in pairs])
    assert len(both) > 30 and (stds > 0).all()
    assert np.abs(logs - np.log(length[both[:, 1]] / length[both[:, 0]])).max() < 1e-3


def test_find_tracks_equals_a_flood_by_hand() -> None:
    rng = np.random.default_rng(0)
    pairs = [
        Pair(a, b, np.eye(3), np.zeros(3), 0.0, np.unique(rng.integers(0, 12, (6, 2)), axis=0).astype(np.int32))
        for a in range(4)
        for b in range(a + 1, 4)
    ]
    beside: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for p in pairs:
        for i, j in p.matches.tolist():
            beside.setdefault((p.first, i), set()).add((p.second, j))
            beside.setdefault((p.second, j), set()).add((p.first, i))
    wanted, left = set(), set(beside)
    while left:
        whole, ahead = set(), [min(left)]
        while ahead:
            here = ahead.pop()
            if here not in whole:
                whole.add(here)
                ahead += beside[here]
        left -= whole
        once = frozenset(o for o in whole if sum(o[0] == other[0] for other in whole) == 1)
        if len(once) >= 2:
            wanted.add(once)
    tracks = find_tracks(pairs, np.full(4, 12))
    found: dict[int, set[tuple[int, int]]] = {}
    for row, keypoint, point in zip(tracks.photograph, tracks.keypoint, tracks.point, strict=True):
        found.setdefault(int(point), set()).add((int(row), int(keypoint)))
    assert {frozenset(seen) for seen in found.values()} == wanted and len(wanted) > 0


def scene_of(town: Town, noise: float = 0.0) -> Scene:
    """Return a scene at its truth, or near."""
    rng = np.random.default_rng(0)
    tracks = find_tracks(true_pairs(town), np.array([len(k) for k in town.keypoints]))
    rays = np.array([town.rays[i][k] for i, k in zip(tracks.photograph, tracks.keypoint, strict=True)])
    first = np.searchsorted(tracks.point, np.arange(tracks.count))
    truth: NDArray[np.int64] = np.array([town.seen[tracks.photograph[i]][tracks.keypoint[i]] for i in first])
    count = len(town.positions)
    heading = np.radians(town.headings_deg)
    heading[::3] = np.nan
    tags = Tags(town.positions + rng.normal(0, noise, (count, 3)), np.full((count, 3), 1.0), heading, 0.1)
    return Scene(
        town.positions + rng.normal(0, noise, (count, 3)),
        Rotation.from_rotvec(rng.normal(0, noise / 20, (count, 3))).as_matrix() @ town.rotations,
        town.points[truth] + rng.normal(0, noise, (tracks.count, 3)),
        tracks,
        rays,
        np.full(len(rays), 0.7 / CAMERA.focal_px),
        tags,
        np.full(count, 0.2),
        np.array([[0, 1], [2, 3]]),
        5.0,
    )


def test_triangulate_finds_exact_points() -> None:
    scene = scene_of(ring(0, 8, noise_px=0.0))
    ahead = scene.points[scene.tracks.point] - scene.positions[scene.tracks.photograph]
    found = triangulate(scene.tracks, ahead / np.linalg.norm(ahead, axis=1, keepdims=True), scene.positions, 0.005)
    assert np.abs(found - scene.points).max() < 1e-6
    along = Tracks(np.array([0, 1]), np.array([0, 0]), np.array([0, 0]), 1)
    parallel = triangulate(along, np.array([[0.0, 1, 0], [0, 1, 0]]), np.array([[0.0, 0, 0], [1, 0, 0]]), 0.005)
    assert np.isnan(parallel).all()


def moved(scene: Scene, camera: FloatArray, points: FloatArray) -> Scene:
    """Return a scene a step (N, 6), (P, 3) on."""
    rotations = Rotation.from_rotvec(camera[:, 3:]).as_matrix() @ scene.rotations
    parts = {name: getattr(scene, name) for name in Scene.__dataclass_fields__}
    return Scene(
        **{
            **parts,
            "positions": scene.positions + camera[:, :3],
            "rotations": rotations,
            "points": scene.points + points,
        }
    )


def test_the_right_side_is_the_slope_of_the_cost() -> None:
    scene = scene_of(ring(0, 6), noise=0.3)
    system = adjustment._System(scene, adjustment._Coupling.of(scene.tracks, len(scene.positions)))
    rng = np.random.default_rng(1)
    for _ in range(5):
        camera, points = rng.normal(0, 1, (6, 6)), rng.normal(0, 1, (len(scene.points), 3))
        step = 1e-6
        ahead, behind = (adjustment._cost(moved(scene, s * camera, s * points)) for s in (step, -step))
        # the cost is the sum of squares, twice that whose slope is the right side
        slope = -2 * ((system.right * camera).sum() + (system.point_right * points).sum())
        assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=1e-4)


def dense(scene: Scene, system: adjustment._System) -> FloatArray:
    """Return the normal equations of cameras and points at once, without elimination."""
    cameras, count = 6 * system.cameras, 3 * system.count
    whole: FloatArray = np.zeros((cameras + count, cameras + count))
    for k, block in enumerate(system.blocks):
        whole[6 * k : 6 * k + 6, 6 * k : 6 * k + 6] = block
    whole[:cameras, :cameras] += system.links.toarray()
    for k, block in enumerate(system.point_blocks):
        at = cameras + 3 * k
        whole[at : at + 3, at : at + 3] = block
    for i, p, block in zip(scene.tracks.photograph, scene.tracks.point, system.across, strict=True):
        at = cameras + 3 * p
        whole[6 * i : 6 * i + 6, at : at + 3] += block
        whole[at : at + 3, 6 * i : 6 * i + 6] += block.T
    return whole


def test_the_step_of_a_focal_length_is_that_of_the_dense_system_with_numerical_slopes() -> None:
    scene = scene_of(ring(0, 5), noise=0.02)
    scene.lens, scene.zoom = np.array([0, 0, -1, 1, 1]), np.ones(2)
    coupling = adjustment._Coupling.of(scene.tracks, 5)
    system = adjustment._System(scene, coupling)
    steps, step = np.eye(2), 1e-6
    slopes = []
    for zoom in steps:
        ahead, behind = (replace(scene) for _ in range(2))
        ahead.zoomed(np.exp(step * zoom))
        behind.zoomed(np.exp(-step * zoom))
        assert ahead.zoom[zoom == 1] == pytest.approx(1 + step)
        slopes.append((adjustment._cost(ahead) - adjustment._cost(behind)) / (2 * step))
    np.testing.assert_allclose(slopes, -2 * system.zoom_right, rtol=1e-4)
    # all unknowns at once, without elimination
    of_zoom = np.concatenate([system.of_zoom.reshape(-1, 2), system.zoom_on_points.reshape(-1, 2)])
    whole = np.block([[dense(scene, system), of_zoom], [of_zoom.T, system.zoom_block]])
    right = np.concatenate([system.right.ravel(), system.point_right.ravel(), system.zoom_right])
    wanted = np.linalg.solve(whole, right)
    found = system.solve(0.0)
    assert found is not None
    # points are held by a billionth of their weight
    step_found = np.concatenate([part.ravel() for part in found])
    np.testing.assert_allclose(step_found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    inverse = np.linalg.inv(whole)
    np.testing.assert_allclose(zoom_std(scene), np.sqrt(np.diag(inverse)[-2:]), rtol=1e-3)
    for k, covariance in enumerate(camera_covariances(scene)):
        block = inverse[6 * k : 6 * k + 6, 6 * k : 6 * k + 6]
        np.testing.assert_allclose(covariance, block, rtol=1e-3, atol=1e-5 * np.abs(block).max())


def test_adjust_comes_back_to_the_truth_and_covariances_are_the_dense_inverse() -> None:
    town = ring(0, 6, noise_px=0.0)
    scene = scene_of(town, noise=0.05)
    scene.tags.position_m[:] = town.positions
    scene.up_std_rad[:] = np.inf
    scene.together = np.empty((0, 2), np.int64)
    adjust(scene)
    assert np.abs(scene.positions - town.positions).max() < 1e-3
    assert np.abs(scene.rotations - town.rotations).max() < 1e-4
    scene = scene_of(town)
    system = adjustment._System(scene, adjustment._Coupling.of(scene.tracks, len(scene.positions)))
    whole = dense(scene, system)
    inverse = np.linalg.inv(whole)
    for k, found in enumerate(camera_covariances(scene)):
        wanted = inverse[6 * k : 6 * k + 6, 6 * k : 6 * k + 6]
        assert np.allclose(found, wanted, rtol=1e-3, atol=1e-5 * np.abs(wanted).max())


def test_strain_is_what_tags_about_a_photograph_have_in_common() -> None:
    rng = np.random.default_rng(0)
    true = np.column_stack([np.arange(0.0, 400.0, 5.0), np.zeros(80)])
    tags = true + rng.normal(0, 1.0, true.shape)
    component = np.zeros(80, np.int32)
    assert np.median(strain(true, tags, component, 1.0)) < 0.1
    bent = true + np.array([0.0, 4.0]) * (true[:, :1] > 200)
    found = strain(bent, tags, component, 1.0)
    assert np.median(found[:35]) < 0.1
    assert abs(np.median(found[45:]) - 4.0 / np.sqrt(2)) < 0.3
    # one outlier in eight moves no median, and another group's tags are not asked
    tags[20] += 50.0
    assert strain(true, tags, component, 1.0)[18:23].max() < 1.0
    assert np.median(strain(bent, tags, (true[:, 0] > 200).astype(np.int32), 1.0)[:40]) < 0.1
    assert strain(true[:1], tags[:1], component[:1], 1.0).shape == (1,)


def test_outvoted_are_those_whose_spot_is_elsewhere() -> None:
    scene = scene_of(ring(0, 8))
    at = np.array([0, 0, 0, 1, 1, 2, 2, 3])
    scene.positions = np.column_stack([10.0 * at, np.zeros(8), np.zeros(8)])
    scene.tags.position_m[:] = scene.positions + 1.0
    scene.together = np.array([(0, 1), (0, 2), (1, 2), (3, 4), (5, 6)])
    scene.together_std_m = 0.02
    assert not outvoted(scene).any()
    scene.positions[2] += [4.0, 0.0, 0.0]  # two others know better
    scene.positions[3] += [0.0, 0.25, 0.0]  # near enough
    scene.positions[6] += [0.0, 3.0, 0.0]  # of two, one
    points = np.bincount(scene.tracks.photograph)
    fewer = 5 if points[5] < points[6] else 6
    assert np.flatnonzero(outvoted(scene)).tolist() == [2, fewer]
    scene.together_std_m = 0.5  # photographs with one tag are metres apart here
    assert not outvoted(scene).any()
