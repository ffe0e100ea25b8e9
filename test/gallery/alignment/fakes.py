"""Alignments of random numbers, and the work of one without its geometry."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from geowarp_ros.gallery.alignment.aligned import Alignment
from geowarp_ros.gallery.alignment.aligning import Report, Suspect
from geowarp_ros.gallery.alignment.options import AlignOptions
from geowarp_ros.gallery.alignment.pairs import Compared, Pair, Tagged
from geowarp_ros.gallery.alignment.stored import store_alignment
from geowarp_ros.gallery.making.build import commit
from geowarp_ros.gallery.manifest import AlignmentSummary, StoredAlignment, read_manifest, writing
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.progress import Progress, silent

DATUM = (45.0, 9.0, 100.0)
PER_ROW = ("tied", "position_m", "rotation", "position_std_m", "heading_std_rad", "component")


def random_alignment(keypoints: Sequence[int], seed: int = 0, points: int = 9) -> Alignment:
    """Return an alignment of photographs with so many keypoints; the first is not tied."""
    rng = np.random.default_rng(seed)
    count = len(keypoints)
    tied = np.arange(count) > 0
    seen = [
        np.sort(rng.permutation(k)[: rng.integers(0, k // 2 + 1) * t])
        for k, t in zip(keypoints, tied, strict=True)
    ]
    starts = np.concatenate([[0], np.cumsum([len(s) for s in seen])]).astype(np.int64)
    rotation = rng.normal(size=(count, 3, 3))
    rotation[~tied] = np.nan
    return Alignment(
        datum=DATUM,
        tied=tied,
        position_m=rng.normal(size=(count, 3)),
        rotation=rotation,
        position_std_m=np.where(tied, rng.uniform(0.1, 1, count), np.nan),
        heading_std_rad=np.where(tied, rng.uniform(0.01, 0.1, count), np.nan),
        component=np.where(tied, rng.integers(0, 2, count), -1).astype(np.int32),
        points_m=rng.normal(size=(points, 3)),
        starts=starts,
        keypoint=np.concatenate([np.empty(0), *seen]).astype(np.int32),
        point=rng.integers(0, points, starts[-1]).astype(np.int32),
    )


def alignment_for(path: Path, seed: int = 0) -> Alignment:
    """Return a random alignment of a gallery's stored rows."""
    opened = Gallery.open(path)
    counts = [len(s.keypoints[k]) for s in opened.segments if s.keypoints for k in range(s.info.images)]
    return random_alignment(counts, seed)


def put(path: Path, alignment: Alignment) -> StoredAlignment:
    """Store an alignment in a gallery as :func:`align_gallery` does."""
    with writing(path):
        manifest = read_manifest(path)
        summary = AlignmentSummary(
            photographs=manifest.images, tied=int(alignment.tied.sum()), points=len(alignment.points_m)
        )
        stored = store_alignment(path, manifest.segments, alignment, {}, summary)
        commit(path, manifest.model_copy(update={"alignment": stored}))
    return stored


def opened_alignment(path: Path) -> Alignment:
    found = Gallery.open(path).alignment
    assert found is not None
    return found


def assert_rows(found: Alignment, expected: Alignment, rows: Sequence[int]) -> None:
    """Row by row, ``found`` is what ``expected`` has in ``rows``; -1: nothing."""
    assert len(found.tied) == len(rows) and found.datum == expected.datum
    np.testing.assert_array_equal(found.points_m, expected.points_m)
    for here, row in enumerate(rows):
        keypoint, point = found.observations(here)
        if row < 0:
            assert not found.tied[here] and found.component[here] == -1 and not len(keypoint)
            for name in ("position_m", "rotation", "position_std_m", "heading_std_rad"):
                assert np.isnan(getattr(found, name)[here]).all(), name
            continue
        for name in PER_ROW:
            np.testing.assert_array_equal(getattr(found, name)[here], getattr(expected, name)[row], name)
        np.testing.assert_array_equal(keypoint, expected.observations(row)[0])
        np.testing.assert_array_equal(point, expected.observations(row)[1])


def assert_same(found: Alignment, expected: Alignment) -> None:
    for field in fields(Alignment):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name), field.name)
        assert np.asarray(getattr(found, field.name)).dtype == np.asarray(getattr(expected, field.name)).dtype


class FakeAlign:
    """In the place of ``align``: compares all pairs of photographs with keypoints, and finds random poses."""

    TAKES_S = 0.01

    def __init__(self, suspects: Sequence[Suspect] = (), seed: int = 0) -> None:
        self.compared: list[tuple[int, int]] = []
        self.photographs: list[Sequence[Tagged]] = []
        self.options: list[AlignOptions] = []
        self._suspects = tuple(suspects)
        self.seed = seed
        self.alignment = random_alignment([])

    def __call__(
        self,
        photographs: Sequence[Tagged],
        datum: tuple[float, float, float],
        options: AlignOptions,
        compared: Compared,
        progress: Progress = silent,
    ) -> tuple[Alignment, Report]:
        self.photographs.append(photographs)
        self.options.append(options)
        usable = [row for row, p in enumerate(photographs) if len(p.keypoints)]
        missing = [rows for rows in combinations(usable, 2) if rows not in compared]
        for rows in progress(missing, len(missing), "comparing photographs in pairs"):
            self.compared.append(rows)
            compared[rows] = Pair(*rows, np.eye(3), np.array([0.0, 0, 1]), 0.1, np.array([[0, 1]], np.int32), 0.5)
        time.sleep(self.TAKES_S)
        counts = [len(p.keypoints) for p in photographs]
        self.alignment = replace(random_alignment(counts, self.seed), datum=datum)
        suspects = tuple(suspect for suspect in self._suspects if suspect.row < len(photographs))
        tied = int(self.alignment.tied.sum())
        self.report = Report(
            photographs=len(photographs), tied=tied, components=(tied,), residual_m=1.25, tag_std_m=1.5,
            suspects=suspects, headings=3, points=9, reprojection_px=0.5, pairs=len(compared),
            compared=len(missing), lines=("a moving car in 2 photographs",),
        )  # fmt: skip
        return self.alignment, self.report
