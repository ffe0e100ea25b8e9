"""An alignment extended: photographs that came, and the groups that they touch, are aligned; all others stay.

A group is touched if a new photograph sees what one of it sees, by two views or by the group's points, or if it
lost a photograph. Its photographs, the new ones and those near that nothing tied before are adjusted together; the
rest keeps its poses and points to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.gallery.alignment import rotations as turning
from geowarp_ros.gallery.alignment.aligned import Alignment, FloatArray
from geowarp_ros.gallery.alignment.aligning import (
    Given,
    Report,
    Suspect,
    allowed,
    renumbered,
    report_of,
    settle,
)
from geowarp_ros.gallery.alignment.bridges import Known, find_bridges
from geowarp_ros.gallery.alignment.options import AlignOptions
from geowarp_ros.gallery.alignment.pairs import Compared, Tagged, compare
from geowarp_ros.progress import Progress, silent

Rows = tuple[int, int]
BoolArray = NDArray[np.bool_]


def extend(
    photographs: Sequence[Tagged],
    before: Alignment,
    torn: Collection[int],
    suspects: Sequence[Suspect],
    tag_std_m: float,
    options: AlignOptions,
    compared: Compared,
    progress: Progress = silent,
) -> tuple[Alignment, Report]:
    """Find the poses of photographs that an alignment does not have, in its frame, and adjust what they touch.

    Only pairs of the new photographs are compared; of a group that lost some, also those that are neighbours now.

    Args:
        photographs: Tags, cameras and keypoints by stored row.
        before: The alignment, by the same rows; NaN as the position of photographs that came since.
        torn: Groups of it that lost photographs.
        suspects: Wrong tags that it found.
        tag_std_m: Standard deviation of the tags that it found.
        options: Those that it was made with.
        compared: Pairs compared by earlier runs; new ones are added.
        progress: Shows the pairs compared.
    """
    done = len(compared)
    given = Given.of(photographs)
    usable, new = np.isfinite(given.views_rad), before.came_later()
    candidates = given.candidates(options)
    fresh = [rows for rows in candidates if new[rows[0]] or new[rows[1]]]
    compare(photographs, given.rays, fresh, compared, progress)
    touched = _touched(given, before, new, fresh, compared, options, progress) | set(torn)
    area = new | np.isin(before.component, [*touched])
    untied = usable & ~area & (before.component < 0)
    area |= untied & _beside(area, candidates)
    rows = np.flatnonzero(area & usable)
    inside = {pair for pair in (*candidates, *compared) if area[pair[0]] and area[pair[1]]}
    inside = {pair for pair in inside if usable[pair[0]] and usable[pair[1]]}
    pairs = compare(photographs, given.rays, sorted(inside), compared, progress)
    number = {int(row): k for k, row in enumerate(rows)}
    found, said = settle(
        Given.of([photographs[row] for row in rows.tolist()]),
        [(number[a], number[b]) for a, b in sorted(inside)],
        renumbered(pairs, rows),
        before.datum,
        options,
        0,
        progress,
    )
    kept = before.tied & ~area & usable
    alignment = _merged(given, before, kept, found, rows, options)
    wrong = [*(s for s in suspects if kept[s.row]), *(Suspect(int(rows[s.row]), s.off_m) for s in said.suspects)]
    seen = sum(len(pair) > 0 for (a, b), pair in compared.items() if usable[a] and usable[b])
    came = new & usable
    told = (
        f"{came.sum()} new photographs aligned with {(area & usable & ~came).sum()} about them;"
        f" {(usable & ~area).sum()} others stay as they were (geowarp gallery align --anew aligns all)",
        *(said.lines if len(rows) else ()),
    )
    squares = [(n, std**2) for n, std in ((kept.sum(), tag_std_m), (said.tied, said.tag_std_m)) if n]
    known = [(n, square) for n, square in squares if math.isfinite(square)]
    std = math.sqrt(sum(n * s for n, s in known) / sum(n for n, _ in known)) if known else math.nan
    off_px = _reprojections_px(given, alignment)
    report = replace(
        report_of(given, alignment, wrong, seen, len(compared) - done),
        tag_std_m=std,
        reprojection_px=float(np.median(off_px)) if len(off_px) else math.nan,
        lines=told,
    )
    return alignment, report


def _touched(
    given: Given,
    before: Alignment,
    new: BoolArray,
    fresh: Sequence[Rows],
    compared: Compared,
    options: AlignOptions,
    progress: Progress,
) -> set[int]:
    """Return the groups that new photographs tie themselves to, by two views or by points."""
    usable = np.isfinite(given.views_rad)
    known = [pair for (a, b), pair in compared.items() if len(pair) and usable[a] and usable[b]]
    ends = [(pair.first, pair.second) for pair in turning.trusted(known)]
    touched = {int(before.component[row]) for pair in ends if new[list(pair)].any() for row in pair}
    group = np.where(np.isin(before.component, [*touched]), -1, before.component)
    across = [pair for pair in fresh if (group[list(pair)] >= 0).any()]
    points = [(k.astype(np.int64), before.points_m[p]) for k, p in map(before.observations, range(len(group)))]
    bridges = find_bridges(given.every, given.rays, across, Known(group, points), progress)
    touched |= {b.component for b in bridges if allowed(b, np.nan_to_num(given.positions[b.row]), options)}
    return touched - {-1}


def _beside(area: BoolArray, candidates: Sequence[Rows]) -> BoolArray:
    """Return which photographs (N,) may see what one of the area sees."""
    beside = np.zeros(len(area), bool)
    a, b = np.array(candidates, np.int64).reshape(-1, 2).T
    beside[a[area[b]]] = beside[b[area[a]]] = True
    return beside


def _merged(
    given: Given,
    before: Alignment,
    kept: BoolArray,
    found: Alignment,
    rows: NDArray[np.int64],
    options: AlignOptions,
) -> Alignment:
    """Return what is kept of an alignment, and what was found of ``rows``; all others are not tied."""
    count = len(kept)
    placed = np.isfinite(given.positions[:, :2]).all(axis=1)
    component = np.where(kept, before.component, -1)
    position = np.where(kept[:, None], before.position_m, np.nan_to_num(given.positions))
    rotation = np.where(kept[:, None, None], before.rotation, np.nan)
    std = np.where(kept, before.position_std_m, np.where(placed, options.position_std_m, math.inf))
    heading_std = np.where(kept, before.heading_std_rad, math.nan)
    position[rows], rotation[rows] = found.position_m, found.rotation
    std[rows], heading_std[rows] = found.position_std_m, found.heading_std_rad
    component[rows] = np.where(found.component < 0, -1, found.component + 1 + component.max(initial=-1))
    _, label, often = np.unique(component[component >= 0], return_inverse=True, return_counts=True)
    component[component >= 0] = np.argsort(np.argsort(-often, kind="stable"))[label.reshape(-1)]
    of_before = np.repeat(np.arange(count), np.diff(before.starts))
    stay = kept[of_before]
    still, point = np.unique(before.point[stay], return_inverse=True)
    photograph = np.concatenate([of_before[stay], np.repeat(rows, np.diff(found.starts))])
    order = np.argsort(photograph, kind="stable")
    return Alignment(
        datum=before.datum,
        tied=component >= 0,
        position_m=position,
        rotation=rotation,
        position_std_m=std,
        heading_std_rad=heading_std,
        component=component.astype(np.int32),
        points_m=np.concatenate([before.points_m[still], found.points_m]),
        starts=np.searchsorted(photograph[order], np.arange(count + 1)).astype(np.int64),
        keypoint=np.concatenate([before.keypoint[stay], found.keypoint])[order].astype(np.int32),
        point=np.concatenate([point.reshape(-1), found.point + len(still)])[order].astype(np.int32),
    )


def _reprojections_px(given: Given, alignment: Alignment) -> FloatArray:
    """Return how far (O,) observations are from their points' images, px."""
    photograph = np.repeat(np.arange(len(alignment.tied)), np.diff(alignment.starts))
    starts = np.cumsum([0, *map(len, given.rays)])
    rays = np.concatenate([np.empty((0, 2)), *given.rays])[starts[photograph] + alignment.keypoint]
    ahead = alignment.points_m[alignment.point] - alignment.position_m[photograph]
    seen = np.einsum("oji,oj->oi", alignment.rotation[photograph], ahead)
    off = np.linalg.norm(seen[:, :2] / seen[:, 2:] - rays, axis=1)
    return np.asarray(off * given.focal_px[photograph])
