"""Focal lengths of photographs whose camera nobody knows, from what they see of one another and their tags.

Two views hardly tell: along a street their optical axes are parallel, and any focal length explains them. Many
views that turn and come together do. Neighbourhoods are adjusted from several first guesses with the focal length
free (as in Snavely et al., "Photo tourism", 2006, sec. 4.2), then all photographs from where these arrive. What is
not determined, or contradicts a neighbourhood, is refused.

Convention:
    One focal length for all photographs of a size, turned by a quarter or not; the principal point in the middle,
    no distortion. Its error is that of its logarithm.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.cameras import ESTIMATED, Camera
from geowarp_ros.gallery.alignment.aligned import Alignment, FloatArray
from geowarp_ros.gallery.alignment.aligning import Report, zooms
from geowarp_ros.gallery.alignment.options import MIN_PHOTOGRAPHS, AlignOptions
from geowarp_ros.gallery.alignment.pairs import (
    EPIPOLAR_PX,
    MIN_INLIERS,
    MIN_SHARE,
    RATIO,
    Pair,
    Tagged,
    candidate_pairs,
    relate,
)
from geowarp_ros.keypoints.matching import match
from geowarp_ros.progress import Progress, silent

GUESSES = (0.36, 0.5, 0.7, 1.0, 1.4)
"""First guesses, over the longer side: angles of view from 108° to 39°."""
NEIGHBOURHOOD = 30
"""Number of photographs of a neighbourhood."""
NEIGHBOURHOODS = 3
NEIGHBOURS = 16
"""Number of nearest photographs with which each is compared."""
MAX_STD = 0.01
"""Maximum standard deviation of a focal length that is determined.

Five of them are to be below 5 %: bent lenses, rolling shutters and wrong matches that agree are no noise.
"""
AGREEMENT = 0.03
"""Maximum difference of two that agree, beside three of their standard deviations."""
SETTLED = 0.02
"""Change below which the photographs need not be compared anew."""
ROUNDS = 3

Size: TypeAlias = tuple[int, int]
"""Longer and shorter side, px at working resolution."""


@dataclass(frozen=True, slots=True)
class Found:
    """A focal length that an adjustment found.

    Attributes:
        log: Its logarithm, px.
        std: Standard deviation of that.
        observations: Number of observations that it explains.
    """

    log: float
    std: float
    observations: int

    def agrees(self, other: Found) -> bool:
        """Whether two may be the same."""
        return abs(self.log - other.log) < AGREEMENT + 3 * math.hypot(self.std, other.std)


@dataclass(frozen=True, slots=True)
class Lens:
    """Photographs of one size whose focal length nobody knows.

    Attributes:
        size: Their size.
        rows: Their rows.
        pairs: Number of pairs in the neighbourhoods that were looked at.
        found: What each of these neighbourhoods says.
        focal_px: The focal length by now.
    """

    size: Size
    rows: tuple[int, ...]
    pairs: int
    found: tuple[Found, ...]
    focal_px: float

    def camera(self, size: tuple[int, int]) -> Camera:
        """Return the camera of a photograph of this width and height."""
        width, height = size
        middle = (width - 1) / 2, (height - 1) / 2
        return Camera(width, height, self.focal_px, self.focal_px, *middle, source=ESTIMATED)

    def holds(self, std: float) -> bool:
        """Whether the focal length is determined, and contradicts no neighbourhood."""
        here = Found(math.log(self.focal_px), std, 0)
        return std < MAX_STD and all(here.agrees(there) for there in self.found)

    def refusal(self) -> str:
        """Return the line that says that it is not."""
        return (
            f"focal length of {self} not determined by {self.pairs} pairs: give --camera (geowarp gallery upgrade)"
        )

    def told(self, std: float) -> str:
        """Return the line that says what it is."""
        return f"focal length of {self} estimated: {self.focal_px:.1f} px ± {std:.1%}"

    def __str__(self) -> str:
        """Return words for people."""
        return f"{len(self.rows)} photographs of {self.size[0]}×{self.size[1]} px"


def estimating(
    photographs: Sequence[Tagged],
    align: Callable[[Sequence[Tagged], Mapping[Size, float]], tuple[Alignment, Report]],
    options: AlignOptions,
    known: Mapping[Size, float],
    progress: Progress = silent,
) -> tuple[Alignment, Report]:
    """Align photographs, estimating the focal length of those without a camera where what they see determines it.

    Args:
        photographs: Tags, cameras or sizes, and keypoints.
        align: Aligns photographs; the focal lengths (px) that are estimated come with it.
        options: How they are aligned.
        known: Focal lengths (px) that an earlier run found: where this one begins.
        progress: Shows the pairs compared.

    Returns:
        The alignment, with the cameras that were estimated; and the report, with what there is to say of them.
    """
    lines: list[str] = []
    lenses: list[Lens] = []
    for lens in _unknown(photographs):
        guessed = replace(lens, focal_px=known.get(lens.size, math.nan))
        if lens.size not in known:
            guessed = _guessed(photographs, lens, options, progress)
        if math.isfinite(guessed.focal_px):
            lenses.append(guessed)
        else:
            lines.append(guessed.refusal())
    for rounds in count(1):
        given = _with_cameras(photographs, lenses)
        alignment, report = align(given, {lens.size: lens.focal_px for lens in lenses})
        moved = zip(lenses, report.zoom or [1.0] * len(lenses), strict=True)
        lenses = [replace(x, focal_px=x.focal_px * zoom, pairs=report.pairs) for x, zoom in moved]
        unsettled = any(abs(math.log(zoom)) > SETTLED for zoom in report.zoom)
        if unsettled and rounds < ROUNDS:
            continue
        stds = report.zoom_std or [math.inf] * len(lenses)
        refused = [lens.refusal() for lens, std in zip(lenses, stds, strict=True) if not lens.holds(std)]
        kept = [lens for lens, std in zip(lenses, stds, strict=True) if lens.holds(std)]
        lines += refused
        if not refused:
            break
        lenses = kept
    lines += [lens.told(std) for lens, std in zip(lenses, stds, strict=True)]
    return _with_lens(alignment, photographs, lenses), replace(report, lines=(*report.lines, *lines))


def _unknown(photographs: Sequence[Tagged]) -> list[Lens]:
    """Return the photographs without a camera, by size."""
    groups: dict[Size, list[int]] = defaultdict(list)
    for row, p in enumerate(photographs):
        if p.camera is None and p.size is not None and np.isfinite(p.position_m[:2]).all():
            groups[max(p.size), min(p.size)].append(row)
    return [
        Lens(size, tuple(rows), 0, (), math.nan) for size, rows in groups.items() if len(rows) >= MIN_PHOTOGRAPHS
    ]


def _guessed(photographs: Sequence[Tagged], lens: Lens, options: AlignOptions, progress: Progress) -> Lens:
    """Return the focal length at which neighbourhoods arrive, on average; NaN if none does."""
    found, pairs = [], 0
    for rows in _neighbourhoods(np.array([photographs[row].position_m[:2] for row in lens.rows])):
        here = [photographs[lens.rows[row]] for row in rows]
        matches = _matches(here, progress)
        pairs += len(matches)
        every = [_adjusted(here, lens.size, matches, guess, options) for guess in GUESSES]
        one = _agreed([f for f in every if f is not None and math.isfinite(f.std)])
        found += [] if one is None else [one]
    focal_px = math.nan
    if found:
        weights = [1 / (f.std**2 + AGREEMENT**2) for f in found]
        focal_px = math.exp(float(np.average([f.log for f in found], weights=weights)))
    return replace(lens, pairs=pairs, found=tuple(found), focal_px=focal_px)


def _agreed(found: Sequence[Found]) -> Found | None:
    """Return where the guess arrives that explains most, of those that another agrees with."""
    good = [f for f in found if sum(f.agrees(other) for other in found) > 1]
    return max(good, key=lambda f: f.observations, default=None)


def _adjusted(
    photographs: Sequence[Tagged],
    size: Size,
    matches: Mapping[tuple[int, int], tuple[NDArray[np.int64], float]],
    guess: float,
    options: AlignOptions,
) -> Found | None:
    """Return where an adjustment of a neighbourhood arrives from a guess; None if it falls apart."""
    seen = _with_cameras(photographs, [Lens(size, tuple(range(len(photographs))), 0, (), guess * size[0])])
    rays = [p.camera.normalised(p.keypoints.points) if p.camera else np.empty((0, 2)) for p in seen]

    def related(rows: tuple[int, int]) -> Pair:
        kept, share = matches[rows]
        pair = relate(seen, rays, *rows, kept)
        return replace(pair, share=pair.share * share)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        pairs = [pair for pair in threads.map(related, matches) if len(pair)]
    adjusted = zooms(seen, pairs, options)
    if adjusted is None:
        return None
    zoom, std, observations = adjusted
    return Found(math.log(guess * size[0] * zoom[0]), float(std[0]), observations)


def _with_cameras(photographs: Sequence[Tagged], lenses: Sequence[Lens]) -> list[Tagged]:
    """Return the photographs, with cameras as far as focal lengths are known."""
    given = list(photographs)
    for number, lens in enumerate(lenses):
        for row in lens.rows:
            size = photographs[row].size
            given[row] = replace(photographs[row], camera=size and lens.camera(size), lens=number)
    return given


def _with_lens(alignment: Alignment, photographs: Sequence[Tagged], lenses: Sequence[Lens]) -> Alignment:
    """Return the alignment with the cameras that were estimated."""
    return with_cameras(alignment, [p.camera if p.lens >= 0 else None for p in _with_cameras(photographs, lenses)])


def with_cameras(alignment: Alignment, given: Sequence[Camera | None]) -> Alignment:
    """Return the alignment with the cameras that were estimated of its photographs."""
    cameras = tuple(dict.fromkeys(filter(None, given)))
    numbers = np.array([-1 if camera is None else cameras.index(camera) for camera in given], np.int32)
    return replace(alignment, cameras=cameras, camera=numbers) if cameras else alignment


def known_cameras(photographs: Sequence[Tagged], estimated: Sequence[Camera]) -> list[Camera | None]:
    """Return for each photograph without a camera the one that an earlier run estimated of its size, if it did."""
    focal = {(max(size), min(size)): c.fx for c in estimated for size in [(c.width_px, c.height_px)]}
    return [
        Lens(key, (), 0, (), focal[key]).camera(p.size)
        if p.camera is None and p.size is not None and (key := (max(p.size), min(p.size))) in focal
        else None
        for p in photographs
    ]


def _matches(
    photographs: Sequence[Tagged], progress: Progress
) -> dict[tuple[int, int], tuple[NDArray[np.int64], float]]:
    """Return the matches of pairs that obey some epipolar geometry, and which share of all they are."""
    import poselib

    positions = np.array([p.position_m[:2] for p in photographs])
    headings = np.array([p.heading_deg for p in photographs])
    wide = np.full(len(photographs), 2 * math.atan(0.5 / min(GUESSES)))
    candidates = candidate_pairs(positions, headings, wide, NEIGHBOURS, 30.0)

    def look(rows: tuple[int, int]) -> tuple[NDArray[np.int64], float]:
        one, two = (photographs[row].keypoints for row in rows)
        found = match(one.descriptors, two.descriptors, RATIO)
        if len(found) < MIN_INLIERS:
            return found[:0], 0.0
        points = (k.points[found[:, side]].astype(float) for side, k in enumerate((one, two)))
        _, said = poselib.estimate_fundamental(
            *points, {"max_epipolar_error": EPIPOLAR_PX, "max_iterations": 2000}, {}
        )
        good = np.asarray(said["inliers"], bool)
        return found[good], float(good.mean())

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        looked = progress(threads.map(look, candidates), len(candidates), "trying focal lengths")
        found = dict(zip(candidates, looked, strict=True))
    return {
        rows: (kept, share)
        for rows, (kept, share) in found.items()
        if len(kept) >= MIN_INLIERS and share > MIN_SHARE
    }


def _neighbourhoods(positions: FloatArray) -> list[list[int]]:
    """Return photographs near one another, group by group; all, if they are few."""
    if len(positions) < 2 * NEIGHBOURHOOD:
        return [list(range(len(positions)))]
    left, taken = np.arange(len(positions)), np.empty((0, 2))
    chosen: list[list[int]] = []
    centre = np.median(positions, axis=0)
    while len(chosen) < NEIGHBOURHOODS and len(left) >= NEIGHBOURHOOD:
        seed = positions[left[np.argmin(np.linalg.norm(positions[left] - centre, axis=1))]]
        order = np.argsort(np.linalg.norm(positions[left] - seed, axis=1), kind="stable")
        chosen.append(sorted(left[order[:NEIGHBOURHOOD]].tolist()))
        left = np.delete(left, order[:NEIGHBOURHOOD])
        if len(left):  # the next one is far from all that were taken
            taken = np.concatenate([taken, positions[chosen[-1]]])
            apart = np.linalg.norm(positions[left][:, None] - taken[None], axis=2).min(axis=1)
            centre = positions[left[np.argmax(apart)]]
    return chosen
