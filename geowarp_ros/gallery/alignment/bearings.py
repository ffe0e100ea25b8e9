"""Which pairs of photographs the tags allow: between two tags is a bearing, and a pair has a direction.

Two façades that look alike make a pair with many inliers and a wrong rotation, and loops of three may confirm it:
all three see the same twin. The tags do not. Pairs join clusters, the best supported first; a pair that would turn
one cluster against another beyond what the tags of both allow is wrong. What joined while both were small is
looked at again: a part of a cluster that its own tags turn against the rest is cut off.

Convention:
    Compass angles, rad. Cameras count as upright here: their tilt of some degrees hardly turns a bearing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import networkx
import numpy as np
from numpy.typing import NDArray

from geowarp_ros.gallery.alignment.aligned import FloatArray
from geowarp_ros.gallery.alignment.pairs import MIN_PARALLAX_RAD, Pair
from geowarp_ros.gallery.alignment.positions import Tags, laid_on

DIRECTION_RAD = math.radians(6.0)
"""Standard deviation of a pair's direction, cameras taken as upright."""
ROTATION_RAD = math.radians(3.0)
"""Standard deviation of a pair's turn, cameras taken as upright."""
MAX_VOTE_RAD = math.radians(60.0)
"""Standard deviation beyond which a bearing between two tags says nothing."""
GATE = 3.0
"""Standard deviations up to which two clusters may contradict each other."""
MIN_GROUP = 3
"""Minimum number of photographs of a group whose shape says anything about its heading."""
ALIKE = 2.0
"""Factor of a cluster's standard deviation: its votes share tags, so they are not independent."""


@dataclass(frozen=True, slots=True)
class _Votes:
    """What tags say about the heading of a cluster's first photograph."""

    angles: FloatArray
    stds: FloatArray

    def turned(self, by: float) -> _Votes:
        return _Votes(self.angles + by, self.stds)

    def and_(self, other: _Votes) -> _Votes:
        return _Votes(np.concatenate([self.angles, other.angles]), np.concatenate([self.stds, other.stds]))

    def mean(self) -> tuple[float, float]:
        """Return the heading that most agree on, and its standard deviation; infinite where none says anything."""
        if not len(self.angles):
            return 0.0, math.inf
        weight = 1.0 / self.stds**2
        some = self.angles[:: -(-len(self.angles) // 50)]
        off = _wrapped(self.angles[None] - some[:, None]) / self.stds
        best = float(some[int((weight / (1 + off**2)).sum(axis=1).argmax())])
        for _ in range(10):
            off = _wrapped(self.angles - best)
            robust = weight / (1 + (off / self.stds / 2) ** 2)
            best += float((robust * off).sum() / robust.sum())
        return best, ALIKE / math.sqrt(float(robust.sum()))


_NOTHING = _Votes(np.empty(0), np.empty(0))


def against_headings(pairs: Sequence[Pair], tags: Tags) -> NDArray[np.bool_]:
    """Return whether the headings that came with the tags allow each pair's turn, or are not both known."""
    limit = GATE * math.hypot(math.sqrt(2.0) * tags.heading_std_rad, ROTATION_RAD)
    turned = [_turn(p) - (tags.heading_rad[p.second] - tags.heading_rad[p.first]) for p in pairs]
    return ~(np.abs(_wrapped(np.array(turned))) > limit)


def against_bearings(pairs: Sequence[Pair], support: FloatArray, tags: Tags) -> NDArray[np.bool_]:
    """Return for each pair whether the tags allow it.

    Args:
        pairs: Pairs of upright photographs.
        support: How far each is to be believed; larger is better.
        tags: Of all photographs.
    """
    count = len(tags.heading_rad)
    root = np.arange(count)
    # heading of each photograph minus that of its cluster's root
    offset = np.zeros(count)
    members = {k: [k] for k in range(count)}
    votes = {k: _own(tags, k) for k in range(count)}
    means: dict[int, tuple[float, float]] = {}
    allowed = np.zeros(len(pairs), bool)
    for k in np.argsort(-support, kind="stable").tolist():
        p = pairs[k]
        a, b = int(root[p.first]), int(root[p.second])
        told = _told(p, tags)
        # heading of b's root minus that of a's
        between = offset[p.first] + _turn(p) - offset[p.second]
        if a == b:
            allowed[k] = abs(float(_wrapped(between))) < GATE * 2 * ROTATION_RAD
            if allowed[k]:
                votes[a] = votes[a].and_(told.turned(-offset[p.first]))
                means.pop(a, None)
            continue
        for cluster in (a, b):
            if cluster not in means:
                means[cluster] = votes[cluster].mean()
        (of_a, std_a), (of_b, std_b) = means[a], means[b]
        std = math.hypot(std_a, std_b)
        if math.isfinite(std) and abs(float(_wrapped(of_b - of_a - between))) > GATE * math.hypot(
            std, ROTATION_RAD
        ):
            continue
        allowed[k] = True
        if len(members[a]) < len(members[b]):
            a, b, between = b, a, -between
        moved = np.array(members.pop(b))
        members[a] += moved.tolist()
        offset[moved] += between
        root[moved] = a
        votes[a] = votes[a].and_(votes.pop(b).turned(-between)).and_(told.turned(-offset[p.first]))
        means.pop(a, None), means.pop(b, None)
    while (wrong := _wrong_bridges(pairs, allowed, offset, tags)).any():
        allowed &= ~wrong
    return allowed


def _wrong_bridges(
    pairs: Sequence[Pair], allowed: NDArray[np.bool_], offset: FloatArray, tags: Tags
) -> NDArray[np.bool_]:
    """Return for each pair whether it alone joins two groups that the tags turn against each other.

    One pair a cluster: that without which the rest fits its tags best. Directions and distances between
    tags give a group a shape, and a shape among its tags has a heading that is better known than any pair's.
    """
    rows = np.flatnonzero(allowed)
    graph = networkx.Graph()
    graph.add_edges_from((pairs[k].first, pairs[k].second, {"pair": k}) for k in rows.tolist())
    wrong = np.zeros(len(pairs), bool)
    for cluster in list(networkx.connected_components(graph)):
        here = graph.subgraph(cluster)
        shape = _shape(here, pairs, offset, tags)
        best = math.inf
        for a, b in networkx.bridges(here):
            cut = networkx.restricted_view(here, (), ((a, b),))
            sides = [np.array(sorted(networkx.node_connected_component(cut, side))) for side in (a, b)]
            if min(map(len, sides)) < MIN_GROUP:
                continue
            (turn_a, std_a, cost_a), (turn_b, std_b, cost_b) = (_fit(shape, side, tags) for side in sides)
            if abs(float(_wrapped(turn_a - turn_b))) > GATE * math.hypot(std_a, std_b) and cost_a + cost_b < best:
                best, which = cost_a + cost_b, here[a][b]["pair"]
        if math.isfinite(best):
            wrong[which] = True
    return wrong


def _shape(graph: networkx.Graph, pairs: Sequence[Pair], offset: FloatArray, tags: Tags) -> dict[int, complex]:
    """Return where photographs are, east + i north, if their root looks north; lengths are those between tags."""
    root = min(graph)
    shape = {root: 0j}
    flat = tags.position_m[:, 0] + 1j * tags.position_m[:, 1]
    for a, b in networkx.bfs_edges(graph, root):
        p = pairs[graph[a][b]["pair"]]
        bearing = offset[p.first] + math.atan2(p.direction[0], p.direction[2])
        step = abs(flat[b] - flat[a]) * complex(math.sin(bearing), math.cos(bearing))
        shape[b] = shape[a] + (step if p.first == a else -step)
    return shape


def _fit(shape: Mapping[int, complex], rows: NDArray[np.int64], tags: Tags) -> tuple[float, float, float]:
    """Fit a shape to its tags: its heading, the standard deviation of it, and the robust sum of squares left."""
    z = np.array([shape[int(row)] for row in rows])
    t = tags.position_m[rows, 0] + 1j * tags.position_m[rows, 1]
    std = tags.std_m[rows, 0]
    weight = 1 / std**2
    for _ in range(5):
        z0, t0, turn = laid_on(z, t, weight)
        off = np.abs((t - t0) - (z - z0) * np.exp(1j * turn)) / std
        weight = 1 / (std**2 * (1 + off**2 / 4))
    held = float((weight * np.abs(z - z0) ** 2).sum())
    # mathematical angles turn the other way
    return (
        -turn,
        math.hypot(ROTATION_RAD, ALIKE / math.sqrt(max(held, 1e-9))),
        float(np.log1p(off**2).sum()),
    )


def _own(tags: Tags, row: int) -> _Votes:
    heading = float(tags.heading_rad[row])
    return _Votes(np.array([heading]), np.array([tags.heading_std_rad])) if math.isfinite(heading) else _NOTHING


def _told(pair: Pair, tags: Tags) -> _Votes:
    """Return what a pair's direction and tags say about the first photograph's heading."""
    if pair.parallax_rad < MIN_PARALLAX_RAD or math.hypot(pair.direction[0], pair.direction[2]) < 0.5:
        return _NOTHING
    east, north = (tags.position_m[pair.second] - tags.position_m[pair.first])[:2]
    spread = math.hypot(tags.std_m[pair.first, 0], tags.std_m[pair.second, 0])
    std = math.hypot(DIRECTION_RAD, spread / max(math.hypot(east, north), 1e-6))
    if std > MAX_VOTE_RAD:
        return _NOTHING
    heading = math.atan2(east, north) - math.atan2(pair.direction[0], pair.direction[2])
    return _Votes(np.array([heading]), np.array([std]))


def _turn(pair: Pair) -> float:
    """Return the second's heading minus the first's."""
    # the second's axis in the first's frame
    return math.atan2(pair.rotation[2, 0], pair.rotation[2, 2])


def _wrapped(angle: FloatArray | float) -> FloatArray:
    return np.asarray((np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi)
