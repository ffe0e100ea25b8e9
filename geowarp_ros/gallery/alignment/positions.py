"""Positions of photographs whose rotations are known: from tags, directions between pairs, and depth ratios.

Two views say in which direction the other camera lies, not how far. Two pairs that share a photograph and points
do: the same point's depth, in units of one baseline and of the other, is the ratio of the two. Everything is
linear in positions and baselines: ``p_j - p_i = s_ij d_ij``, ``s_ij z = s_ik z'``, and is solved by reweighted
least squares.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from geowarp_ros.gallery.alignment.aligned import FloatArray
from geowarp_ros.gallery.alignment.pairs import MIN_PARALLAX_RAD, Pair

IntArray = NDArray[np.int64]
ComplexArray = NDArray[Any]

MIN_SHARED = 6
"""Minimum number of points for a ratio of two baselines."""
MAX_PARTNERS = 12
"""Maximum number of pairs of a photograph whose baselines are compared with one another."""
SAME_TAG_M = 0.02
"""Distance below which two tags are one."""
DIRECTION_STD = 0.1
"""Standard deviation of a direction between two photographs, rad."""
RATIO_STD = 0.05
"""Least standard deviation of the logarithm of a ratio of two baselines."""


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags of a component's photographs.

    Attributes:
        position_m: (N, 3), NaN as its third where there is no altitude.
        std_m: (N, 3) standard deviation of each; infinite where there is none.
        heading_rad: (N,) compass headings, NaN where unknown.
        heading_std_rad: Their standard deviation.
    """

    position_m: FloatArray
    std_m: FloatArray
    heading_rad: FloatArray
    heading_std_rad: float

    def of(self, rows: NDArray[np.int64]) -> Tags:
        """Return the tags of some photographs."""
        return replace(
            self, position_m=self.position_m[rows], std_m=self.std_m[rows], heading_rad=self.heading_rad[rows]
        )


def same_tag(positions: FloatArray) -> NDArray[np.int64]:
    """Return the number (N,) of each photograph's tag: those that share one have the same."""
    rounded = np.round(np.nan_to_num(positions) / SAME_TAG_M).astype(np.int64)
    _, group = np.unique(rounded, axis=0, return_inverse=True)
    return np.asarray(group.reshape(-1), np.int64)


def laid_on(shape: ComplexArray, tags: ComplexArray, weight: FloatArray) -> tuple[complex, complex, float]:
    """Lay a shape on its tags by a turn and a shift, least squares; both as east + i north.

    Returns:
        Weighted means of the shape and of the tags, and the turn, rad anticlockwise: a point z comes to lie at
        ``(z - shape) * exp(i turn) + tags``.
    """
    middle, centre = (complex((weight * each).sum() / weight.sum()) for each in (shape, tags))
    return middle, centre, float(np.angle((weight * np.conj(shape - middle) * (tags - centre)).sum()))


def first_turn(pairs: Sequence[Pair], rotations: FloatArray, tags: Tags, free: bool) -> FloatArray:
    """Return the turn (3, 3) of a component that brings its directions to those between its tags.

    Args:
        pairs: Pairs of the component, by its rows.
        rotations: (N, 3, 3).
        tags: Its tags, for lengths those of pairs far apart count most.
        free: Whether up is unknown too: else it turns about the vertical only.
    """
    directed = [p for p in pairs if p.parallax_rad > MIN_PARALLAX_RAD]
    if free and not directed:
        return np.eye(3)
    known = np.where(np.isfinite(tags.position_m), tags.position_m, 0.0)
    ahead = np.array([rotations[p.first] @ p.direction for p in directed]).reshape(-1, 3)
    wanted = np.array([known[p.second] - known[p.first] for p in directed]).reshape(-1, 3)
    if free:
        weights = np.ones(len(directed))
        turn = np.eye(3)
        for _ in range(20):
            length = np.linalg.norm(wanted, axis=1)
            found, _ = Rotation.align_vectors(wanted, ahead, weights + 1e-9)
            turn = np.asarray(found.as_matrix())
            left = np.linalg.norm(wanted - length[:, None] * (ahead @ turn.T), axis=1)
            soft = max(float(np.median(left)), 1e-3)
            weights = 1.0 / (soft**2 + left**2)
            weights /= weights.max()
        return turn
    std = float(np.median(tags.std_m[:, 0])) * math.sqrt(2.0)
    flat = wanted[:, 0] + 1j * wanted[:, 1]
    here = ahead[:, 0] + 1j * ahead[:, 1]
    told = (np.conj(here) * flat / (np.abs(flat) + std)).sum()
    # headings: compass, so that the mathematical angle is 90° minus it
    with np.errstate(invalid="ignore"):
        axis = np.exp(1j * (np.pi / 2 - tags.heading_rad)) * np.conj(rotations[:, 0, 2] + 1j * rotations[:, 1, 2])
    told = told + (np.nansum(axis) * 3.0 if np.isfinite(axis).any() else 0.0)
    return np.asarray(Rotation.from_rotvec([0.0, 0.0, float(np.angle(told))]).as_matrix())


def baseline_ratios(
    pairs: Sequence[Pair], rays: Sequence[FloatArray], rotations: FloatArray
) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
    """Compare baselines.

    Returns:
        Pairs of pairs (K, 2) that share a photograph and points, the logarithms (K,) of the second's baseline over
        the first's, and the standard deviations of these.
    """
    depths: Mapping[int, list[tuple[int, dict[int, float]]]] = defaultdict(list)
    for k, p in enumerate(pairs):
        if p.parallax_rad < MIN_PARALLAX_RAD:
            continue
        one = _homogeneous(rays[p.first][p.matches[:, 0]])
        two = _homogeneous(rays[p.second][p.matches[:, 1]]) @ (rotations[p.first].T @ rotations[p.second]).T
        z_one, z_two, angle = _depths(one, two, p.direction)
        good = (z_one > 0) & (z_two > 0) & (angle > MIN_PARALLAX_RAD)
        for side, z, column in ((p.first, z_one, 0), (p.second, z_two, 1)):
            points = p.matches[good, column].tolist()
            depths[side].append((k, dict(zip(points, z[good].tolist(), strict=True))))
    both, logs, stds = [], [], []
    for partners in depths.values():
        kept = sorted(partners, key=lambda entry: -len(entry[1]))[:MAX_PARTNERS]
        for a in range(len(kept)):
            for b in range(a + 1, len(kept)):
                (k, of_k), (m, of_m) = kept[a], kept[b]
                shared = of_k.keys() & of_m.keys()
                if len(shared) >= MIN_SHARED:
                    # s_k z_k = s_m z_m, so log s_m - log s_k = log z_k - log z_m
                    both.append((k, m))
                    each = np.log([of_k[i] / of_m[i] for i in shared])
                    logs.append(float(np.median(each)))
                    spread = 1.4826 * float(np.median(np.abs(each - logs[-1])))
                    stds.append(math.hypot(RATIO_STD, 3 * spread / math.sqrt(len(shared))))
    return np.array(both, np.int64).reshape(-1, 2), np.array(logs), np.array(stds)


def _homogeneous(rays: FloatArray) -> FloatArray:
    return np.column_stack([rays, np.ones(len(rays))])


def _depths(one: FloatArray, two: FloatArray, direction: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Depths of points along rays (N, 3) of two cameras, in baselines, and the angles between the rays."""
    # z_one one - z_two two = direction, in the least squares sense
    aa, bb, ab = (one * one).sum(1), (two * two).sum(1), (one * two).sum(1)
    ad, bd = one @ direction, two @ direction
    determinant = np.maximum(aa * bb - ab**2, 1e-15)
    angle = np.arcsin(np.sqrt(np.clip(determinant / (aa * bb), 0, 1)))
    return (bb * ad - ab * bd) / determinant, (ab * ad - aa * bd) / determinant, angle


def solve_positions(
    pairs: Sequence[Pair], rays: Sequence[FloatArray], rotations: FloatArray, tags: Tags, free: bool
) -> tuple[FloatArray, FloatArray]:
    """Return positions (N, 3) and rotations (N, 3, 3), which one common turn may correct.

    Args:
        pairs: Pairs of the component, by its rows.
        rays: Of each photograph.
        rotations: (N, 3, 3), near ENU.
        tags: Its tags.
        free: Whether the turn may tilt.
    """
    count = len(rotations)
    directed = [p for p in pairs if p.parallax_rad > MIN_PARALLAX_RAD]
    both, logs, ratio_std = baseline_ratios(directed, rays, rotations)
    first, second = (np.array([getattr(p, s) for p in directed], np.int64) for s in ("first", "second"))
    known = np.where(np.isfinite(tags.position_m), tags.position_m, 0.0)
    sure = 1.0 / np.where(np.isfinite(tags.std_m), tags.std_m, 1e3)
    positions = known.copy()
    local = np.array([p.direction for p in directed]).reshape(-1, 3)
    edges = len(directed)
    # a baseline's error is measured by its length; by the tags' at least by a half, or short ones draw together
    told = np.maximum(np.linalg.norm(known[second] - known[first], axis=1), 0.1)
    s = told
    w_tag, w_edge, w_ratio = np.ones(count), np.ones(edges), np.ones(len(both))
    every, e3 = np.arange(count), 3 * np.arange(edges)
    base_s, base_turn = 3 * count, 3 * count + edges
    size = base_turn + 3
    for step in range(40):
        ahead = np.einsum("nij,nj->ni", rotations[first], local)
        floor = np.maximum(s, 0.5 * told)
        per_edge = w_edge / (DIRECTION_STD * floor)
        entries: list[tuple[IntArray, IntArray, FloatArray]] = []  # rows, columns, values
        wanted = []
        at = 0
        for axis in range(3):
            r = at + e3 + axis
            entries.append((r, 3 * second + axis, per_edge))
            entries.append((r, 3 * first + axis, -per_edge))
            entries.append((r, base_s + np.arange(edges), -per_edge * ahead[:, axis]))
            # the turn w: d + w × d
            for other, sign in (((axis + 1) % 3, 1.0), ((axis + 2) % 3, -1.0)):
                third = 3 - axis - other
                entries.append((r, np.full(edges, base_turn + other), -per_edge * floor * sign * ahead[:, third]))
        wanted.append(np.zeros(3 * edges))
        at += 3 * edges
        if len(both):
            k, m = both.T
            r = at + np.arange(len(both))
            # s_m - exp(log) s_k = 0, relative to s_m
            unit = w_ratio / (ratio_std * np.maximum(floor[m], np.exp(logs) * floor[k]))
            entries.append((r, base_s + m, unit))
            entries.append((r, base_s + k, -unit * np.exp(logs)))
            wanted.append(np.zeros(len(both)))
            at += len(both)
        for axis in range(3):
            weight = w_tag * sure[:, axis]
            entries.append((at + every, 3 * every + axis, weight))
            wanted.append(weight * known[:, axis])
            at += count
        hold = np.full(3, 1e-3) if free else np.array([1e4, 1e4, 1e-3])
        entries.append((at + np.arange(3), base_turn + np.arange(3), hold))
        wanted.append(np.zeros(3))
        at += 3
        rows, columns, values = (np.concatenate(part) for part in zip(*entries, strict=True))
        matrix = sparse.csr_matrix((values, (rows, columns)), (at, size))
        normal = (matrix.T @ matrix + 1e-9 * sparse.eye(size)).tocsc()
        solved = spsolve(normal, matrix.T @ np.concatenate(wanted))
        moved = float(np.abs(solved[: 3 * count].reshape(-1, 3) - positions).max())
        positions, s = solved[: 3 * count].reshape(-1, 3), solved[base_s:base_turn]
        turn = np.clip(solved[base_turn:], -0.2, 0.2)
        rotations = Rotation.from_rotvec(turn).as_matrix() @ rotations
        soft = max(1.0, 6.0 * 0.8**step)
        off = (positions - known) * sure
        w_tag = 1.0 / np.sqrt(np.maximum(1.0, np.linalg.norm(off[:, :2], axis=1) / 1.5))  # Huber's: never lost
        ahead = np.einsum("nij,nj->ni", rotations[first], local)
        left = np.linalg.norm(positions[second] - positions[first] - s[:, None] * ahead, axis=1)
        wrong_way = s <= 0
        w_edge = _cauchy(left / (DIRECTION_STD * np.maximum(np.abs(s), 0.5 * told)), 2.0 * soft)
        w_edge = np.where(wrong_way, 0.1 * w_edge, w_edge)
        if len(both):
            k, m = both.T
            apart = np.log(np.maximum(s[m], 0.1 * told[m]) / np.maximum(s[k], 0.1 * told[k])) - logs
            w_ratio = _cauchy(np.abs(apart) / ratio_std, 2.0 * soft)
        if soft == 1.0 and moved < 1e-3:
            break
    return positions, rotations


def _cauchy(size: FloatArray, soft: float) -> FloatArray:
    """Return square roots of the weights of Cauchy's loss."""
    return np.asarray(1.0 / np.sqrt(1.0 + (size / soft) ** 2))
