"""How far alignments put photographs right whose true places are known, because their tags were made wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.gallery.alignment.positions import laid_on, same_tag
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.lab.studies.tables import Cell, Table
from geowarp_ros.lab.world.tags import Tags
from geowarp_ros.types import FloatArray, Place

APART_M, WITHIN_M = 20.0, 5.0
"""Distance, and how much it may differ, over which two photographs are compared."""


def alignment_table(found: Sequence[tuple[Cell, ...]]) -> Table:
    """Tabulate rows of :func:`alignment_row`."""
    header = (
        *("gallery", "tied", "groups", "tags off, median / 95 %", "photographs off, median / 95 %"),
        *(
            "were the groups' shapes exact",
            f"over {APART_M:g} m: tags, photographs",
            "outliers named, others named",
        ),
    )
    return Table("galleries", "Photographs whose tags were made wrong, as aligned", header, tuple(found))


def alignment_row(name: str, gallery: Gallery, truth: Sequence[Place], tags: Tags) -> tuple[Cell, ...] | None:
    """Compare a gallery's alignment with the truth.

    Args:
        name: Of the row.
        gallery: The gallery.
        truth: True places of its photographs, by name.
        tags: Law of their tags' errors.

    Returns:
        A row; None where the gallery is not aligned, or nothing is tied.
    """
    alignment, stored = gallery.alignment, gallery.manifest.alignment
    if alignment is None or stored is None:
        return None
    frame, numbers = LocalFrame(*alignment.datum), gallery.numbers.stored(np.arange(len(gallery)))
    places = {place.name: place for place in truth}
    true = _flat(frame, [places[place.name] for place in gallery.places])
    told, own = _flat(frame, gallery.places), alignment.position_m[numbers, :2]
    tied = alignment.tied[numbers]
    if not tied.any():
        return None
    groups = alignment.component[numbers]
    off_tags, off = (np.linalg.norm(each - true, axis=1) for each in (told, own))
    wrong = {p.name for p, far in zip(gallery.places, off_tags, strict=True) if far > 0.7 * tags.outlier_m}
    named = {suspect.name for suspect in stored.summary.suspicious}
    over = [_over(each[tied], true[tied]) for each in (told, own)]
    return (
        name,
        f"{tied.sum()} of {len(gallery)}",
        len(np.unique(groups[tied])),
        _pair(off_tags[tied]),
        _pair(off[tied]),
        f"{np.median(_with_exact_shapes(true, told, groups)[tied]):.2f} m",
        f"{over[0]:.2f}, {over[1]:.2f} m",
        f"{len(named & wrong)} of {len(wrong)}, {len(named - wrong)}" if tags.outliers else "–",
    )


def _flat(frame: LocalFrame, places: Sequence[Place]) -> FloatArray:
    return np.asarray(frame.to_enu([p.latitude_deg for p in places], [p.longitude_deg for p in places]))[:, :2]


def _pair(errors: FloatArray) -> str:
    return f"{np.median(errors):.2f} / {np.quantile(errors, 0.95):.2f} m"


def _over(found: FloatArray, true: FloatArray) -> float:
    """Median error of the vector between two photographs some distance apart, m."""
    apart = true[:, None] - true[None]
    first, second = np.nonzero(np.abs(np.linalg.norm(apart, axis=2) - APART_M) <= WITHIN_M)
    if not len(first):
        return math.nan
    return float(np.median(np.linalg.norm(found[first] - found[second] - apart[first, second], axis=1)))


def _with_exact_shapes(true: FloatArray, tags: FloatArray, groups: NDArray[np.int32]) -> FloatArray:
    """Errors (N,) of groups that are rigid and right, laid by their tags: nothing beats them."""
    left = np.zeros(len(true))
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        spot = same_tag(np.asarray(tags[rows], np.float64))
        weight = 1.0 / np.bincount(spot)[spot]
        shape, wanted = (each[rows, 0] + 1j * each[rows, 1] for each in (true, tags))
        middle, centre, turn = laid_on(shape, wanted, weight)
        left[rows] = np.abs((shape - middle) * np.exp(1j * turn) + centre - shape)
    return left
