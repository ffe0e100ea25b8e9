"""What of an alignment is believed: components that their tags fit, wrong tags, and what nobody can tell.

Geometry and tags are witnesses of each other. Where nobody can tell which of two contradicting ones is wrong, a
photograph stays a plain tag, or its standard deviation grows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from geowarp_ros.gallery.alignment import rotations as turning
from geowarp_ros.gallery.alignment.adjustment import MIN_POINTS, Scene, heading_terms
from geowarp_ros.gallery.alignment.aligned import FloatArray
from geowarp_ros.gallery.alignment.options import MIN_PHOTOGRAPHS, AlignOptions
from geowarp_ros.gallery.alignment.pairs import MIN_PARALLAX_RAD, Pair
from geowarp_ros.gallery.alignment.positions import same_tag

SUSPECT = 4.0
"""Standard deviations by which a suspicious tag is off."""
WORSE = 2.0
"""By how many times tags may be worse than stated, where nothing else speaks for them."""
RAYLEIGH = math.sqrt(2 * math.log(2))
"""Median distance over the standard deviation per axis, of two normal axes."""
UNEXPLAINED = 0.1
"""Maximum share of the tags' spread (squared) that the geometry may leave, if they are worse than stated."""
BY_CHANCE = 0.01
"""Maximum probability of such a share by chance."""
ASTRAY_RAD = math.radians(30.0)
"""Angle beyond which the direction that two views give is another than that between their positions: 5 σ."""
MAX_ASTRAY = 0.25
"""Maximum share of a component's pairs that are so."""
APART, APART_M = 10.0, 0.3
"""Minimum distance of a photograph from all others of its spot that says that its ties are wrong: in standard
deviations of such distances, and m."""
STRAINED_SPOTS = 8
"""Number of nearest places, its own among them, whose tags are looked at together."""
MIN_WITNESSES = 2
"""Minimum number of photographs with right tags that must see the points of one whose tag is wrong."""


def suspicious(scene: Scene, covariances: FloatArray, tag_std_m: float) -> NDArray[np.bool_]:
    """Return whether the tag (N,) of each photograph is wrong, as the geometry says."""
    off = np.linalg.norm(scene.tag_errors()[:, :2], axis=1)
    return np.asarray(off > np.hypot(SUSPECT * tag_std_m, 2 * np.sqrt(covariances[:, 0, 0])))


def witnessed(scene: Scene, suspect: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which photographs (N,) stay: of a tag against one pair, nobody knows which of the two is wrong."""
    tracks, count = scene.tracks, len(scene.positions)
    seen = sparse.csr_matrix(
        (np.ones(len(tracks.point)), (tracks.photograph, tracks.point)), (count, tracks.count)
    )
    shared = (seen @ seen.T).tocoo()
    good = (shared.row != shared.col) & (shared.data >= MIN_POINTS) & ~suspect[shared.col]
    return ~suspect | (np.bincount(shared.row[good], minlength=count) >= MIN_WITNESSES)


def outvoted(scene: Scene) -> NDArray[np.bool_]:
    """Return which photographs (N,) their points put elsewhere than the others of their spot are.

    Windows repeat: shifted by one, a façade's match is as good as the right one. Where photographs with one tag
    are at one spot, the others know better; of two alone, the one with more points.
    """
    count = len(scene.positions)
    a, b = scene.together.T
    apart = np.linalg.norm(scene.positions[a] - scene.positions[b], axis=1)
    nearest = np.full(count, math.inf)
    np.minimum.at(nearest, a, apart)
    np.minimum.at(nearest, b, apart)
    odd = np.isfinite(nearest) & (nearest > max(APART * scene.together_std_m, APART_M))
    points = np.bincount(scene.tracks.photograph, minlength=count)
    spot = same_tag(scene.tags.position_m)
    for here in np.unique(spot[odd]):
        rows = np.flatnonzero(spot == here)
        if odd[rows].all():
            odd[rows[int(points[rows].argmax())]] = False
    return np.asarray(odd)


def torn_share(scene: Scene, rows: NDArray[np.int64], pairs: Sequence[Pair]) -> FloatArray:
    """Return for each component which share of its photographs' pairs, all that loops confirm, it does not obey.

    Tags that have nothing to do with the geometry refuse pairs until what is left is in pieces that fit any tags.
    """
    component = dict(zip(rows.tolist(), scene.groups().tolist(), strict=True))
    number = {row: k for k, row in enumerate(rows.tolist())}
    of, torn = np.zeros((2, 1 + max(component.values(), default=-1)))
    for p in pairs:
        one, other = component.get(p.first, -1), component.get(p.second, -1)
        error = math.inf
        if one == other != -1:
            first, second = scene.rotations[number[p.first]], scene.rotations[number[p.second]]
            error = float(Rotation.from_matrix(second @ p.rotation @ first.T).magnitude())
        for here in {one, other} - {-1}:
            of[here] += 1
            torn[here] += error > turning.WRONG_RAD
    return np.asarray(torn / np.maximum(of, 1))


def believed_components(
    scene: Scene, pairs: Sequence[Pair], torn: FloatArray, options: AlignOptions
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Return which photographs (N,) are of components whose tags fit the geometry, and lines.

    Tags may be worse than stated: the geometry must then explain them. Tags that have nothing to do
    with the geometry correlate with it by chance only: as complex numbers, r² > x with probability (1 - x)^(m - 2)
    for m places, as a similarity is fitted to them (turn and scale are free where no headings are given). Medians,
    so that a few outliers do not condemn a component.

    And wrong tags must not bend the geometry to them: two views alone say in which direction the other camera is.
    """
    component, believed = scene.groups(), np.ones(len(scene.positions), bool)
    lines, few = [], 0
    directed = [p for p in pairs if p.parallax_rad > MIN_PARALLAX_RAD]
    first, second = (np.array([getattr(p, side) for p in directed], np.int64) for side in ("first", "second"))
    local = np.array([p.direction for p in directed]).reshape(-1, 3)
    ahead = np.einsum("nij,nj->ni", scene.rotations[first], local)
    step = scene.positions[second] - scene.positions[first]
    cosine = (ahead * step).sum(axis=1) / np.maximum(np.linalg.norm(step, axis=1), 1e-9)
    astray = cosine < math.cos(ASTRAY_RAD)
    for number in range(int(component.max(initial=-1)) + 1):
        rows = np.flatnonzero(component == number)
        _, distinct = np.unique(same_tag(scene.tags.position_m[rows]), return_index=True)
        places = rows[distinct]  # each tag counts once, however many photographs share it
        tags = scene.tags.position_m[places, :2]
        off = float(np.median(np.linalg.norm(scene.tag_errors()[places, :2], axis=1)))
        spread = float(np.median(np.linalg.norm(tags - np.median(tags, axis=0), axis=1)))
        unexplained = min(1.0, (off / max(spread, 1e-9)) ** 2)
        by_chance = unexplained ** max(len(places) - 2, 0)
        turned = np.abs(heading_terms(scene)[0][rows])[np.isfinite(scene.tags.heading_rad[rows])]
        worse = off > WORSE * RAYLEIGH * options.position_std_m
        inside = (component[first] == number) & (component[second] == number)
        bent = float(astray[inside].mean()) if inside.any() else 0.0
        said = ""
        if len(places) < MIN_PHOTOGRAPHS:
            believed[rows] = False
            few += len(rows)
        elif worse and (unexplained > UNEXPLAINED or by_chance > BY_CHANCE):
            said = f"positions, by {off:.1f} m in the median ({options.position_std_m:g} m are stated)"
        elif len(turned) and np.median(turned) > WORSE:
            degrees = float(np.median(turned)) * options.heading_std_deg
            said = f"headings, by {degrees:.0f}° in the median ({options.heading_std_deg:g}° are stated)"
        elif torn[number] > MAX_ASTRAY:
            said = f"positions or headings: these refuse {torn[number]:.0%} of their pairs"
        elif bent > MAX_ASTRAY:
            said = f"positions: {bent:.0%} of their pairs look into other directions than these say"
        if said:
            believed[rows] = False
            lines.append(f"not tied: {len(rows)} photographs that see one another contradict their given {said}")
    if few:
        lines.append(f"not tied: {few} photographs in groups of fewer than {MIN_PHOTOGRAPHS} places")
    return believed, tuple(lines)


def strain(positions: FloatArray, tags: FloatArray, component: NDArray[np.int32], tag_std_m: float) -> FloatArray:
    """Return by how much (N,) tags about a photograph are off together, m per axis, beyond what chance does.

    A wrong tie bends a component, and its own covariance does not know. Tags that err alike look the same: nobody
    knows which of the two is wrong, so either way a position is known no better than that.

    Args:
        positions: (N, 2) of the photographs.
        tags: (N, 2) as they were given.
        component: (N,) of each photograph.
        tag_std_m: Standard deviation of a tag per axis.
    """
    found = np.zeros(len(positions))
    for number in np.unique(component):
        rows = np.flatnonzero(component == number)
        _, first, spot = np.unique(same_tag(tags[rows]), return_index=True, return_inverse=True)
        count = min(STRAINED_SPOTS, len(first))
        off = (positions - tags)[rows[first]]
        near = cKDTree(tags[rows[first]]).query(tags[rows[first]], k=count)[1].reshape(-1, count)
        squared = (np.median(off[near], axis=1) ** 2).sum(axis=1) / 2
        by_chance = math.pi / 2 * tag_std_m**2 / count  # variance of a median
        found[rows] = np.sqrt(np.maximum(squared - 2 * by_chance, 0.0))[spot.reshape(-1)]
    return found
