"""Seams: few points hold two parts of a component together, and the tags of both say that they lie otherwise.

A façade with a twin ties two streets to each other, and the adjustment bends both to it: points are known to
centimetres, tags to metres. But each street's tags together say where it lies and which way it runs. So a seam is
judged by how much better its two parts fit their tags when each lies by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.transform import Rotation

from geowarp_ros.gallery.alignment.adjustment import SOFT_TAG, Scene, adjust
from geowarp_ros.gallery.alignment.aligned import FloatArray
from geowarp_ros.gallery.alignment.belief import RAYLEIGH
from geowarp_ros.gallery.alignment.positions import laid_on, same_tag

BoolArray = NDArray[np.bool_]

MAX_SHARED = 100
"""Maximum number of points of a seam: what more points hold together is no twin."""
MIN_PLACES = 4
"""Minimum number of places of a part whose tags say how it lies."""
GAIN = 20.0
"""Minimum gain of two parts that lie by themselves: with Gaussian tags and a right seam it is chi-squared with
three degrees of freedom, above this with a probability of 2e-4."""


def cut_seams(scene: Scene) -> int:
    """Cut the seams that tags refuse, the worst first, and adjust after each; returns their number."""
    count = 0
    while (seam := _worst(scene)) is not None:
        _cut(scene, seam)
        adjust(scene)
        count += 1
    return count


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a component, as its own tags would have it.

    Attributes:
        rows: (N,) bool, its photographs.
        turn_rad: Anticlockwise, about ``centre_m``.
        centre_m: (3,) mean of its places, level.
        shift_m: (3,) by which that mean moves.
        gain: By how much its tags fit it better so.
    """

    rows: BoolArray
    turn_rad: float
    centre_m: FloatArray
    shift_m: FloatArray
    gain: float


def _worst(scene: Scene) -> tuple[_Part, _Part] | None:
    """Return the two parts that gain most from lying by themselves; None where none gains enough."""
    tag = same_tag(scene.tags.position_m)
    best, found = GAIN, None
    for sides in _seams(scene):
        one, other = (_by_itself(scene, rows, tag) for rows in sides)
        if one is not None and other is not None and one.gain + other.gain > best:
            best, found = one.gain + other.gain, (one, other)
    return found


def _seams(scene: Scene) -> Iterator[tuple[BoolArray, BoolArray]]:
    """Yield the parts on both sides of every link of the components' strongest trees that few points make."""
    count, tracks = len(scene.positions), scene.tracks
    a, b = scene.together.T
    _, spot = connected_components(sparse.coo_matrix((np.ones(len(a)), (a, b)), (count, count)), directed=False)
    spots = int(spot.max(initial=-1)) + 1
    seen = sparse.csr_matrix(
        (np.ones(len(tracks.point)), (spot[tracks.photograph], tracks.point)), (spots, tracks.count)
    ).astype(bool)
    shared = (seen.astype(np.int32) @ seen.T.astype(np.int32)).tocoo()
    apart = shared.row != shared.col
    tree = minimum_spanning_tree(
        sparse.csr_matrix((1.0 / shared.data[apart], (shared.row[apart], shared.col[apart])), (spots, spots))
    ).tocoo()
    for link in np.flatnonzero(tree.data > 1.0 / MAX_SHARED):
        rest = np.arange(len(tree.data)) != link
        cut = sparse.coo_matrix((tree.data[rest], (tree.row[rest], tree.col[rest])), (spots, spots))
        _, label = connected_components(cut, directed=False)
        sides = [label == label[end[link]] for end in (tree.row, tree.col)]
        across = np.logical_and(*(np.asarray(seen[side].sum(axis=0)).ravel() > 0 for side in sides))
        if across.sum() <= MAX_SHARED:
            yield sides[0][spot], sides[1][spot]


def _by_itself(scene: Scene, rows: BoolArray, tag: NDArray[np.int64]) -> _Part | None:
    """Lay a part where its own tags would have it, by a turn and a shift; None where they say nothing."""
    photographs = np.flatnonzero(rows)
    _, first, of, often = np.unique(tag[rows], return_index=True, return_inverse=True, return_counts=True)
    if len(first) < MIN_PLACES:
        return None
    # as complex numbers, a place each: photographs that share a tag have a share of it
    here = (np.bincount(of, scene.positions[rows, 0]) + 1j * np.bincount(of, scene.positions[rows, 1])) / often
    tags = scene.tags.of(photographs[first])
    there = tags.position_m[:, 0] + 1j * tags.position_m[:, 1]
    std = tags.std_m[:, 0] / np.sqrt(np.bincount(tag)[tag[photographs[first]]])
    weight = 1 / std**2
    for _ in range(10):
        centre, wanted, turn = laid_on(here, there, weight)
        off = np.abs(there - wanted - (here - centre) * np.exp(1j * turn)) / std
        weight = 1 / (std**2 * (1 + off**2 / SOFT_TAG**2))
    worse = max(1.0, float(np.median(off)) / RAYLEIGH)  # than stated
    gain = float((_loss(np.abs(there - here) / std / worse) - _loss(off / worse)).sum())
    middle, shift = (np.array([z.real, z.imag, 0.0]) for z in (centre, wanted - centre))
    return _Part(rows, turn, middle, shift, gain)


def _loss(off: FloatArray) -> FloatArray:
    return np.asarray(SOFT_TAG**2 * np.log1p(off**2 / SOFT_TAG**2))


def _cut(scene: Scene, parts: tuple[_Part, _Part]) -> None:
    """Take a seam's points from the part where fewer see them, and lay both parts by their own tags."""
    tracks = scene.tracks
    one, other = (np.bincount(tracks.point, part.rows[tracks.photograph], tracks.count) for part in parts)
    torn = (one > 0) & (other > 0)
    of_one, of_other = (part.rows[tracks.photograph] for part in parts)
    lost = torn[tracks.point] & np.where((one >= other)[tracks.point], of_other, of_one)
    for part in parts:
        turn = Rotation.from_rotvec([0.0, 0.0, part.turn_rad]).as_matrix()
        points = np.unique(tracks.point[part.rows[tracks.photograph] & ~lost])
        middle, moved = part.centre_m, part.centre_m + part.shift_m
        scene.positions[part.rows] = (scene.positions[part.rows] - middle) @ turn.T + moved
        scene.points[points] = (scene.points[points] - middle) @ turn.T + moved
        scene.rotations[part.rows] = turn @ scene.rotations[part.rows]
    scene.observe(~lost)
