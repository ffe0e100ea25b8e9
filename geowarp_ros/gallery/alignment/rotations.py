"""Rotations of many photographs from those between pairs, and which way is up and north.

Govindu, "Lie-algebraic averaging for globally consistent motion estimation", CVPR 2004; robustly weighted as in
Chatterjee and Govindu, "Efficient and robust large-scale rotation averaging", ICCV 2013.

Convention:
    Rotations (N, 3, 3) take a camera's optical frame to the component's. Rotation vectors act from the left.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from geowarp_ros.gallery.alignment.aligned import FloatArray
from geowarp_ros.gallery.alignment.pairs import Pair

LOOP_RAD = math.radians(3.0)
"""Maximum rotation that a loop of three right pairs leaves."""
SURE_INLIERS = 14.0
"""Number of inliers, times their share, above which a pair that no loop confirms or refutes is believed."""
WRONG_RAD = math.radians(6.0)
"""Rotation of a pair against the average beyond which the pair is wrong."""
_SOFT_RAD = math.radians(1.5)


def average_rotations(pairs: Sequence[Pair], count: int) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Average the rotations of photographs, each component in a frame of its own.

    Args:
        pairs: Relative rotations.
        count: Number of photographs, N.

    Returns:
        Rotations (N, 3, 3), NaN where no pair holds one; and for each pair whether it agrees with them.
    """
    rotations = np.full((count, 3, 3), np.nan)
    if not pairs:
        return rotations, np.zeros(0, bool)
    first, second = (np.array([getattr(p, side) for p in pairs]) for side in ("first", "second"))
    between = np.stack([p.rotation for p in pairs])
    support = support_of(pairs)
    _spread(rotations, first, second, between, support)
    weights = np.ones(len(pairs))
    for step in range(30):
        error = Rotation.from_matrix(rotations[second] @ between @ rotations[first].transpose(0, 2, 1)).as_rotvec()
        size = np.linalg.norm(error, axis=1)
        soft = max(_SOFT_RAD, math.radians(12.0) * 0.7**step)
        weights = np.sqrt(support) / (1 + (size / soft) ** 2) ** 2
        turn = _solve(first, second, weights, -error, count)
        rotations = Rotation.from_rotvec(turn).as_matrix() @ rotations
        if soft == _SOFT_RAD and np.abs(turn).max() < 1e-7:
            break
    error = Rotation.from_matrix(rotations[second] @ between @ rotations[first].transpose(0, 2, 1)).magnitude()
    good = np.asarray(error < WRONG_RAD)
    return rotations, good


def support_of(pairs: Sequence[Pair]) -> FloatArray:
    """Return how far each pair is to be believed: by its inliers, and by the loops of three that hold it."""
    if not pairs:
        return np.empty(0)
    closed, open_ = _loops(pairs, np.stack([p.rotation for p in pairs]))
    return np.asarray(np.minimum([len(p) for p in pairs], 200) * (1 + closed) / (1 + open_))


def trusted(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs that loops of three confirm, or that need no confirmation."""
    if not pairs:
        return []
    closed, open_ = _loops(pairs, np.stack([p.rotation for p in pairs]))
    alone = np.array([len(p) * p.share >= SURE_INLIERS for p in pairs])
    good = (closed > 0) | (alone & (open_ == 0))
    return [p for p, fine in zip(pairs, good, strict=True) if fine]


def _loops(pairs: Sequence[Pair], between: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return for each pair how many loops of three close over it, and of how many open ones it is the weakest."""
    inliers = [len(p) * p.share for p in pairs]
    row: dict[tuple[int, int], int] = {(p.first, p.second): k for k, p in enumerate(pairs)}
    beside: Mapping[int, set[int]] = defaultdict(set)
    for p in pairs:
        beside[p.first].add(p.second)
        beside[p.second].add(p.first)
    closed, open_ = np.zeros(len(pairs)), np.zeros(len(pairs))
    for (a, b), k in row.items():
        for c in beside[a] & beside[b]:
            if c < b:
                continue  # each loop once, at its two lowest rows
            ac, bc = row[a, c], row[b, c]
            # from a to c, and by b
            left = Rotation.from_matrix(between[ac].T @ between[bc] @ between[k]).magnitude()
            if left < LOOP_RAD:
                closed[[k, ac, bc]] += 1
            else:
                open_[min((k, ac, bc), key=inliers.__getitem__)] += 1
    return closed, open_


def _spread(
    rotations: FloatArray,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    between: FloatArray,
    support: FloatArray,
) -> None:
    """Give each photograph a first rotation along the best supported tree of its component."""
    edges: Mapping[int, list[int]] = defaultdict(list)
    for k, (a, b) in enumerate(zip(first, second, strict=True)):
        edges[int(a)].append(k)
        edges[int(b)].append(k)
    for root in edges:
        if not np.isnan(rotations[root, 0, 0]):
            continue
        rotations[root] = np.eye(3)
        ahead = [(-support[k], k, root) for k in edges[root]]
        heapq.heapify(ahead)
        while ahead:
            _, k, here = heapq.heappop(ahead)
            forwards = here == first[k]
            there = int(second[k] if forwards else first[k])
            if not np.isnan(rotations[there, 0, 0]):
                continue
            rotations[there] = rotations[here] @ (between[k].T if forwards else between[k])
            for other in edges[there]:
                heapq.heappush(ahead, (-support[other], other, there))


def _solve(
    first: NDArray[np.int64], second: NDArray[np.int64], weights: FloatArray, wanted: FloatArray, count: int
) -> FloatArray:
    """Solve w_second - w_first = wanted by weighted least squares; the mean of all turns is zero."""
    rows = np.arange(len(first))
    ones = np.ones(len(first))
    incidence = sparse.csr_matrix(
        (np.concatenate([ones, -ones]), (np.tile(rows, 2), np.concatenate([second, first]))), (len(first), count)
    )
    weighted = incidence.T @ sparse.diags(weights)
    normal = (weighted @ incidence + 1e-9 * weights.max() * sparse.eye(count)).tocsc()
    return np.asarray(spsolve(normal, weighted @ wanted)).reshape(count, 3)


def components(pairs: Sequence[Pair], count: int) -> NDArray[np.int32]:
    """Return the component of each photograph (N,), the largest first; -1 where no pair holds it."""
    if not pairs:
        return np.full(count, -1, np.int32)
    first, second = [p.first for p in pairs], [p.second for p in pairs]
    graph = sparse.coo_matrix((np.ones(len(pairs)), (first, second)), (count, count))
    _, labels = connected_components(graph, directed=False)
    sizes = np.bincount(labels, minlength=labels.max() + 1)
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 1]
    renamed = np.full(len(sizes), -1, np.int32)
    renamed[order] = np.arange(len(order), dtype=np.int32)
    return np.asarray(renamed[labels])


def upright(rotations: FloatArray) -> FloatArray:
    """Return the turn (3, 3) that puts the mean of the cameras' "down" (y axis) to ENU's down."""
    down = rotations[:, :, 1].sum(axis=0)
    # a median against the few that are held otherwise
    for _ in range(10):
        down = down / max(float(np.linalg.norm(down)), 1e-12)
        apart = np.linalg.norm(rotations[:, :, 1] - down, axis=1)
        down = (rotations[:, :, 1] / np.maximum(apart, 0.02)[:, None]).sum(axis=0)
    down = down / max(float(np.linalg.norm(down)), 1e-12)
    turn, _ = Rotation.align_vectors(np.array([[0.0, 0.0, -1.0]]), down[None])
    return np.asarray(turn.as_matrix())
