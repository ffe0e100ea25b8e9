"""Two streets that a few points tie to each other, rightly or by a twin façade, against the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from geowarp_ros.gallery.alignment import aligning
from geowarp_ros.gallery.alignment.adjustment import Scene, adjust
from geowarp_ros.gallery.alignment.points import Tracks
from geowarp_ros.gallery.alignment.positions import Tags
from geowarp_ros.gallery.alignment.seams import cut_seams
from test.gallery.alignment.scenes import CAMERA, FloatArray, street

COUNT = 16
TIED = 20
TURN = Rotation.from_euler("Z", -90, degrees=True)
CORNER = np.array([70.0, 62.0, 0.0])
STD_M = 1.0
WORST = 6.0


def two_streets(seed: int, off_m: float, turned_deg: float, outliers: int = 0) -> tuple[Scene, FloatArray]:
    """Return a scene, adjusted, and the true positions of its 32 photographs.

    Points at the corner are seen by the last three photographs of both streets; the second's see them as if that
    street were ``off_m`` north and turned by ``turned_deg``.
    """
    rng = np.random.default_rng(seed)
    town = street(seed, COUNT, noise_px=0.0)
    positions = np.concatenate([town.positions, TURN.apply(town.positions) + CORNER])
    rotations = np.concatenate([town.rotations, TURN.as_matrix() @ town.rotations])
    points = np.concatenate([town.points, TURN.apply(town.points) + CORNER])
    seen = [*town.seen, *(one + len(town.points) for one in town.seen)]
    corner = np.column_stack([rng.uniform(62, 76, TIED), rng.uniform(-6, 6, TIED), rng.uniform(0, 9, TIED)])
    error = Rotation.from_euler("Z", turned_deg, degrees=True)
    photograph = np.concatenate([np.full(len(one), k) for k, one in enumerate(seen)])
    point = np.concatenate(seen)
    local = np.einsum("oji,oj->oi", rotations[photograph], points[point] - positions[photograph])
    for k in (*range(COUNT - 3, COUNT), *range(2 * COUNT - 3, 2 * COUNT)):
        wrong = k >= COUNT
        at = positions[k] + (np.array([0.0, off_m, 0.0]) if wrong else 0.0)
        axes = (error.as_matrix() if wrong else np.eye(3)) @ rotations[k]
        photograph = np.append(photograph, np.full(TIED, k))
        point = np.append(point, len(points) + np.arange(TIED))
        local = np.concatenate([local, (corner - at) @ axes])
    points = np.concatenate([points, corner])
    order = np.lexsort((photograph, point))
    photograph, point, local = photograph[order], point[order], local[order]
    used, number = np.unique(point, return_inverse=True)
    tracks = Tracks(photograph, np.arange(len(photograph)), number.reshape(-1), len(used))
    ahead = local[:, 2] > 0.1
    local = local[ahead & (np.bincount(tracks.point[ahead], minlength=tracks.count) >= 2)[tracks.point]]
    tracks, old = tracks.only(ahead)
    points = points[used[old]]
    std = 0.5 / CAMERA.focal_px
    rays = local[:, :2] / local[:, 2:] + rng.normal(0, std, (len(local), 2))
    tagged = positions + rng.normal(0, STD_M, positions.shape)
    tagged[rng.choice(2 * COUNT, outliers, replace=False), :2] += 15.0
    nothing = np.full(2 * COUNT, math.nan)
    tags = Tags(tagged, np.full(positions.shape, STD_M), nothing, 1.0)
    up = np.full(2 * COUNT, math.radians(3) * math.sqrt(2 * COUNT))
    none = np.empty((0, 2), np.int64)
    scene = Scene(positions.copy(), rotations, points, tracks, rays, np.full(len(rays), std), tags, up, none)
    adjust(scene)
    return scene, positions


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("off_m", "turned_deg"), [(8.0, 0.0), (0.0, 12.0)])
def test_a_twin_that_tags_refuse_ties_nothing(seed: int, off_m: float, turned_deg: float) -> None:
    scene, true = two_streets(seed, off_m, turned_deg)
    bent = np.linalg.norm((scene.positions - true)[:, :2], axis=1)
    assert len(np.unique(scene.groups())) == 1
    assert cut_seams(scene) == 1
    assert len(np.unique(scene.groups())) == 2
    healed = np.linalg.norm((scene.positions - true)[:, :2], axis=1)
    assert np.median(healed) < 0.5 * np.median(bent)
    # each street's place is known as well as the mean of its tags: 95 % of Rayleigh's law
    middle = (scene.positions - true)[:, :2].reshape(2, COUNT, 2).mean(axis=1)
    assert np.linalg.norm(middle, axis=1).max() < 2.5 * STD_M / math.sqrt(COUNT) * 1.5


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("outliers", [0, 3])
def test_a_right_tie_holds_whatever_the_tags(seed: int, outliers: int) -> None:
    scene, true = two_streets(seed, 0.0, 0.0, outliers)
    before = scene.positions.copy()
    assert cut_seams(scene) == 0
    assert np.array_equal(scene.positions, before) and len(np.unique(scene.groups())) == 1
    if not outliers:
        assert np.median(np.linalg.norm((before - true)[:, :2], axis=1)) < 0.6


def test_a_part_of_few_places_is_not_judged() -> None:
    scene, _ = two_streets(0, 8.0, 0.0)
    scene.tags.position_m[COUNT:] = scene.tags.position_m[COUNT]
    assert cut_seams(scene) == 0


@pytest.mark.parametrize("left", [0, 1])
def test_nothing_or_one_photograph_has_no_seam(left: int) -> None:
    scene, _ = two_streets(0, 0.0, 0.0)
    kept: NDArray[np.bool_] = np.arange(2 * COUNT) < left
    scene.keep(kept)
    assert cut_seams(scene) == 0
    kept_rows, lines = aligning._drop_wrong_ties(scene)
    assert (len(kept_rows), lines) == (0, ())
