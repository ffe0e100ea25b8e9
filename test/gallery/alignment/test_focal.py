"""Focal lengths of photographs without a camera: synthetic towns whose focal length is known and hidden."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from geowarp_ros.cameras import ESTIMATED
from geowarp_ros.gallery.alignment import focal
from geowarp_ros.gallery.alignment.aligned import Alignment
from geowarp_ros.gallery.alignment.aligning import Report, align
from geowarp_ros.gallery.alignment.focal import Found, Size, estimating
from geowarp_ros.gallery.alignment.options import DEFAULTS, AlignOptions
from geowarp_ros.gallery.alignment.pairs import Tagged
from test.gallery.alignment.scenes import CAMERA, DATUM, Town, looking, photographed, ring

pytest.importorskip("poselib")
FREE = AlignOptions(free_tilt=True)
SIZE = (CAMERA.width_px, CAMERA.height_px)


class Aligns:
    """Aligns, and keeps the focal lengths that it was given."""

    def __init__(self, options: AlignOptions = DEFAULTS) -> None:
        self.options = options
        self.focal_px: list[Mapping[Size, float]] = []

    def __call__(self, photographs: Sequence[Tagged], focal_px: Mapping[Size, float]) -> tuple[Alignment, Report]:
        self.focal_px.append(dict(focal_px))
        return align(photographs, DATUM, self.options)


def hidden(town: Town, off_m: float = 0.0, seed: int = 0) -> list[Tagged]:
    """Return photographs without their camera, with tags that are off."""
    off = np.random.default_rng(seed).normal(0, off_m, (len(town.positions), 2))
    return [replace(p, camera=None, size=SIZE) for p in town.tagged(off)]


def test_a_hidden_focal_length_is_found_and_photographs_are_tied() -> None:
    town = ring(1, 10)
    run = Aligns()
    found, report = estimating(hidden(town, 0.5), run, DEFAULTS, {})
    camera = found.estimated_camera(3)
    assert camera is not None and found.cameras == (camera,)
    assert camera.fx == pytest.approx(CAMERA.fx, rel=0.02) and camera.source == ESTIMATED
    assert (camera.cx, camera.cy) == ((SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2)
    assert found.tied.all() and np.median(town.errors(found)[0]) < 0.6
    assert report.lines[-1].startswith(
        f"focal length of 10 photographs of 320×240 px estimated: {camera.fx:.1f} px"
    )
    # the next run begins where this one ended, and finds the same
    again = Aligns()
    there, _ = estimating(hidden(town, 0.5), again, DEFAULTS, {SIZE: camera.fx})
    assert again.focal_px == [{SIZE: camera.fx}]
    assert there.cameras[0].fx == pytest.approx(camera.fx, rel=0.005)


def test_a_known_camera_stays_and_others_of_the_size_share_one() -> None:
    town = ring(2, 16)
    given = hidden(town)
    given[:4] = town.tagged()[:4]
    # a quarter turn to the left: the same lens
    width, height = SIZE
    for row in (5, 6):
        k = given[row].keypoints
        turned = np.column_stack([k.points[:, 1], width - 1 - k.points[:, 0]])
        given[row] = replace(given[row], keypoints=replace(k, points=turned), size=(height, width))
    found, report = estimating(given, Aligns(FREE), FREE, {SIZE: 1.1 * CAMERA.fx})
    assert [found.estimated_camera(row) is None for row in range(6)] == [True] * 4 + [False] * 2
    upright, lying = found.estimated_camera(7), found.estimated_camera(5)
    assert upright is not None and lying is not None and upright.fx == lying.fx
    assert upright.fx == pytest.approx(CAMERA.fx, rel=0.02)
    assert (lying.width_px, lying.height_px, lying.cx) == (height, width, (height - 1) / 2)
    assert found.tied.all() and any("12 photographs of 320×240 px" in line for line in report.lines)


def test_a_track_that_looks_one_way_determines_none() -> None:
    """Parallel optical axes: a longer focal length and a deeper street are the same images."""
    rng = np.random.default_rng(0)
    along = np.arange(10) * 2.5
    positions = np.column_stack([along, np.zeros(10), np.full(10, 1.6)])
    n = 1200
    side = np.where(rng.random(n) < 0.5, rng.uniform(5, 12, n), rng.uniform(-12, -5, n))
    points = np.column_stack([rng.uniform(0, 80, n), side, rng.uniform(0, 9, n)])
    town = photographed(positions, looking(np.full(10, 90.0), 0.0, 0.0), points, reach_m=45.0)
    found, report = estimating(hidden(town, 0.5), Aligns(), DEFAULTS, {})
    assert not found.tied.any() and found.cameras == () and found.camera is None
    refused = [
        line for line in report.lines if line.startswith("focal length of 10 photographs of 320×240 px not")
    ]
    assert len(refused) == 1 and "give --camera" in refused[0]


def test_a_focal_length_that_contradicts_a_neighbourhood_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Found(math.log(CAMERA.fx * 1.3), 0.01, 1000)
    monkeypatch.setattr(
        focal, "_guessed", lambda _, lens, *__: replace(lens, focal_px=CAMERA.fx, found=(elsewhere,))
    )
    found, report = estimating(hidden(ring(1, 12)), Aligns(), DEFAULTS, {})
    assert not found.tied.any() and found.cameras == ()
    assert any("not determined" in line for line in report.lines)


def test_neighbourhoods_are_near_and_apart() -> None:
    rng = np.random.default_rng(0)
    positions = rng.uniform(0, 300, (200, 2))
    chosen = focal._neighbourhoods(positions)
    rows = [row for one in chosen for row in one]
    assert [len(one) for one in chosen] == [focal.NEIGHBOURHOOD] * 3 and len(set(rows)) == len(rows)
    for one in chosen:
        spread = np.linalg.norm(positions[one] - positions[one].mean(axis=0), axis=1).mean()
        assert spread < 0.6 * np.linalg.norm(positions - positions.mean(axis=0), axis=1).mean()
    assert focal._neighbourhoods(positions[:20]) == [list(range(20))]
