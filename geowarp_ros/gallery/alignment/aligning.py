"""Photographs put right: from tags and keypoints to poses and points. See docs/architecture.md.

Pairs that see the same → rotations averaged over the graph → positions by tags, directions and depth ratios →
points → bundle adjustment with tags, headings and gravity as priors, points found again in between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from geowarp_ros.gallery.alignment import rotations as turning
from geowarp_ros.gallery.alignment.adjustment import (
    MIN_POINTS,
    SOFT_TAG,
    Scene,
    adjust,
    camera_covariances,
    zoom_std,
)
from geowarp_ros.gallery.alignment.aligned import Alignment, FloatArray
from geowarp_ros.gallery.alignment.bearings import against_bearings, against_headings
from geowarp_ros.gallery.alignment.belief import (
    believed_components,
    outvoted,
    strain,
    suspicious,
    torn_share,
    witnessed,
)
from geowarp_ros.gallery.alignment.bridges import Bridge, Known, find_bridges
from geowarp_ros.gallery.alignment.options import DEFAULTS, MIN_PHOTOGRAPHS, AlignOptions
from geowarp_ros.gallery.alignment.pairs import Compared, Pair, Tagged, candidate_pairs, compare
from geowarp_ros.gallery.alignment.points import Tracks, find_tracks, triangulate, widest_angles
from geowarp_ros.gallery.alignment.positions import Tags, first_turn, same_tag, solve_positions
from geowarp_ros.gallery.alignment.seams import cut_seams
from geowarp_ros.progress import Progress, silent

KEYPOINT_PX = 0.7
"""Standard deviation of a keypoint before it is estimated (px at working resolution)."""
MIN_ANGLE_RAD = math.radians(2.0)
"""Minimum angle between two rays of a point."""
UPRIGHT_RAD = math.radians(25.0)
"""Maximum tilt of one photograph against another that upright photographs have."""
NO_ALTITUDE_STD_M = 10.0
"""Standard deviation of a height where the tag gives none."""
MIN_LINKS = 8
"""Minimum number of pairs with one tag for a statement on whether these are at one spot."""
MIN_SPOT_STD_M = 0.01
MAX_SPOT_STD_M = 0.5
"""Distance of photographs with one tag (standard deviation) beyond which they are not at one spot."""
BRIDGE_RAD = math.radians(15.0)
"""Maximum rotation between what two components say about a photograph."""
MIN_TAG_STD_M = 0.02
"""Least standard deviation of tags: that of a surveyor's receiver."""
ROUGH = 1e-4
"""Gain at which an adjustment stops that another will follow."""
MUCH_BETTER = 0.75
"""Share of the stated standard deviation of tags below which the one that was found is believed instead."""
COMMON_TILT_RAD = math.radians(3.0)
"""Standard deviation of the tilt that all photographs of a component may have in common."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A tag that the geometry contradicts.

    Attributes:
        row: The photograph.
        off_m: Distance of the tag from the photograph's own position, m.
    """

    row: int
    off_m: float


@dataclass(frozen=True, slots=True)
class Report:
    """What an alignment found.

    Attributes:
        photographs: Number of photographs.
        tied: Number of those that are tied.
        components: Photographs of each component.
        residual_m: Median distance of the tied photographs' positions from their tags, m; NaN: none is tied.
        tag_std_m: Standard deviation of the tags, per axis, as the geometry finds it.
        suspects: Tags that are wrong, the worst first.
        headings: Number of headings found where the tags gave none.
        points: Number of points.
        reprojection_px: Median reprojection error, px.
        pairs: Number of pairs that see the same.
        compared: Number of pairs compared by this run.
        lines: What there is to say to people.
        zoom: Unknown focal lengths over those that their photographs came with, by ``Tagged.lens``.
        zoom_std: Standard deviations of their logarithms.
    """

    photographs: int
    tied: int
    components: tuple[int, ...]
    residual_m: float
    tag_std_m: float
    suspects: tuple[Suspect, ...]
    headings: int
    points: int
    reprojection_px: float
    pairs: int
    compared: int
    lines: tuple[str, ...]
    zoom: tuple[float, ...] = ()
    zoom_std: tuple[float, ...] = ()


def align(
    photographs: Sequence[Tagged],
    datum: tuple[float, float, float],
    options: AlignOptions = DEFAULTS,
    compared: Compared | None = None,
    progress: Progress = silent,
) -> tuple[Alignment, Report]:
    """Find the poses of photographs, and the points that they see.

    Args:
        photographs: Tags, cameras and keypoints by stored row.
        datum: Latitude (deg), longitude (deg), altitude (m) of the origin of the tags' ENU frame.
        options: Standard deviations of the tags.
        compared: Pairs compared by earlier runs; new ones are added.
        progress: Shows the pairs compared.
    """
    compared = {} if compared is None else compared
    before = len(compared)
    given = Given.of(photographs)
    candidates = given.candidates(options)
    pairs = compare(photographs, given.rays, candidates, compared, progress)
    return settle(given, candidates, pairs, datum, options, len(compared) - before, progress)


def settle(
    given: Given,
    candidates: Sequence[tuple[int, int]],
    pairs: Sequence[Pair],
    datum: tuple[float, float, float],
    options: AlignOptions,
    compared: int,
    progress: Progress,
) -> tuple[Alignment, Report]:
    """Find the poses of photographs whose pairs are compared.

    Args:
        given: The photographs.
        candidates: Rows of those that may see the same.
        pairs: Those of them that do.
        datum: Origin of the tags' ENU frame.
        options: Standard deviations of the tags.
        compared: Number of pairs that this run compared, for the report.
        progress: Shows what is looked at.
    """
    solved, lines = _solve(given, candidates, pairs, options, progress)
    if solved is not None and solved.tag_std_m < MUCH_BETTER * options.position_std_m:
        # tags that are better than they were said to be refuse more of what is wrong
        told = options.model_copy(update={"position_std_m": solved.tag_std_m})
        again, said = _solve(given, candidates, pairs, told, progress)
        solved, lines = (solved, lines) if again is None else (again, said)
    alignment = _assemble(solved, given.positions, datum, options.position_std_m)
    report = report_of(
        given, alignment, _suspects(solved, off_tags(given, alignment)) if solved else [], len(pairs), compared
    )
    report = replace(report, lines=_lines(given.every, alignment, lines, len(pairs)))
    if solved is None:
        return alignment, report
    return alignment, replace(
        report,
        tag_std_m=solved.tag_std_m,
        reprojection_px=float(np.median(solved.reprojection_px)) if len(solved.rows) else math.nan,
        zoom=tuple(solved.scene.zoom.tolist()),
        zoom_std=tuple(solved.zoom_std.tolist()),
    )


def zooms(
    photographs: Sequence[Tagged], pairs: Sequence[Pair], options: AlignOptions
) -> tuple[FloatArray, FloatArray, int] | None:
    """Return the zooms (G,) that a first adjustment finds, their standard deviations, and its observations."""
    _, _, refined = _first(Given.of(photographs), pairs, options)
    return None if refined is None else (refined[1].zoom, zoom_std(refined[1]), len(refined[1].rays))


@dataclass(frozen=True)
class Given:
    """Photographs as they are given.

    Attributes:
        every: The photographs.
        rays: Of each, the normalised coordinates (K, 2) of its keypoints; NaN where its camera is unknown.
        positions: (N, 3) tags.
        headings_deg: (N,) headings; NaN where unknown.
    """

    every: Sequence[Tagged]
    rays: Sequence[FloatArray]
    positions: FloatArray
    headings_deg: FloatArray

    @classmethod
    def of(cls, photographs: Sequence[Tagged]) -> Given:
        """Work out what is worked out once."""
        rays = [
            np.full((len(p.keypoints), 2), np.nan) if p.camera is None else p.camera.normalised(p.keypoints.points)
            for p in photographs
        ]
        positions = np.array([p.position_m for p in photographs], float).reshape(len(photographs), 3)
        return cls(photographs, rays, positions, np.array([p.heading_deg for p in photographs], float))

    @property
    def focal_px(self) -> FloatArray:
        """(N,) focal lengths; NaN where unknown."""
        return np.array([math.nan if p.camera is None else p.camera.focal_px for p in self.every])

    @property
    def lens(self) -> NDArray[np.int64]:
        """(N,) which unknown focal length each has; -1: its camera is known."""
        return np.array([p.lens for p in self.every], np.int64)

    @property
    def views_rad(self) -> FloatArray:
        """(N,) angles of view; NaN where a photograph has no camera or no tag: nothing can tie it."""
        views = np.array(
            [
                math.nan if p.camera is None else 2 * math.atan(p.camera.width_px / 2 / p.camera.fx)
                for p in self.every
            ]
        )
        return np.where(np.isfinite(self.positions[:, :2]).all(axis=1), views, math.nan)

    def candidates(self, options: AlignOptions) -> list[tuple[int, int]]:
        """Return the rows of those that may see the same; see :func:`candidate_pairs`."""
        views = self.views_rad
        if np.isfinite(views).sum() < MIN_PHOTOGRAPHS:
            return []
        slack = 3 * math.sqrt(2) * options.heading_std_deg
        return candidate_pairs(self.positions[:, :2], self.headings_deg, views, options.neighbours, slack)


@dataclass
class _Solved:
    """Photographs that are tied, by their own numbers."""

    rows: NDArray[np.int64]
    scene: Scene
    covariances: FloatArray
    reprojection_px: FloatArray
    tag_std_m: float
    zoom_std: FloatArray


def _solve(
    photographs: Given,
    candidates: Sequence[tuple[int, int]],
    pairs: Sequence[Pair],
    options: AlignOptions,
    progress: Progress,
) -> tuple[_Solved | None, tuple[str, ...]]:
    """Return what is tied, None if nothing is, and lines about what is not."""
    pairs, trusted, refined = _first(photographs, pairs, options)
    if refined is None:
        return None, ()
    rows, scene, pixel = refined
    for _ in range(2):
        bridges = _bridges(photographs, candidates, rows, scene, options, progress)
        if not bridges:
            break
        new = sorted({bridge.row for bridge in bridges} - set(rows.tolist()))
        best = {bridge.row: bridge for bridge in sorted(bridges, key=lambda bridge: bridge.inliers)}
        placed = np.concatenate([scene.positions, *(best[row].position_m[None] for row in new)])
        turned = np.concatenate([scene.rotations, *(best[row].rotation[None] for row in new)])
        rows = np.concatenate([rows, np.array(new, np.int64)])
        pairs = [*pairs, *(pair for bridge in bridges for pair in bridge.pairs)]
        # components are not yet where they see each other: at first no pixel is worth much
        refined = _refine(
            photographs,
            rows,
            placed,
            turned,
            renumbered(pairs, rows),
            options,
            (5.0, 2.0, pixel, pixel),
            scene.zoom,
        )
        if refined is None:
            return None, ()
        rows, scene, pixel = refined
    _hold_together(scene)
    kept, untied = _drop_wrong_ties(scene)
    rows = rows[kept]
    believed, lines = believed_components(
        scene, renumbered(pairs, rows), torn_share(scene, rows, trusted), options
    )
    lines += untied
    rows = rows[scene.keep(believed)]
    tag_std = options.position_std_m
    for _ in range(3 if len(rows) else 0):
        tag_std, before = _tag_std(scene, camera_covariances(scene), tag_std), tag_std
        scene.tags = replace(scene.tags, std_m=scene.tags.std_m * tag_std / before)
        adjust(scene)
    covariances = camera_covariances(scene) if len(rows) else np.empty((0, 6, 6))
    positive = (covariances[:, range(6), range(6)] > 0).all(axis=1)
    held = np.asarray(np.isfinite(covariances).all(axis=(1, 2)) & positive)
    rows, covariances = rows[scene.keep(held)], covariances[held]
    sure = witnessed(scene, suspicious(scene, covariances, tag_std))
    if not sure.all():
        lines += (f"not tied: {(~sure).sum()} photographs, each far from its tag and tied by one other alone",)
    of_zoom = zoom_std(scene) if len(rows) else np.full(len(scene.zoom), np.inf)
    rows, covariances = rows[scene.keep(sure)], covariances[sure]
    off = np.linalg.norm(scene.residuals()[0], axis=1)
    reprojection = off * scene.ray_std * photographs.focal_px[rows][scene.tracks.photograph]
    return _Solved(rows, scene, covariances, reprojection, tag_std, of_zoom), lines


def _first(
    photographs: Given, pairs: Sequence[Pair], options: AlignOptions
) -> tuple[list[Pair], list[Pair], tuple[NDArray[np.int64], Scene, float] | None]:
    """Return the pairs that agree, those that loops confirm, and what :func:`_refine` makes of them."""
    every = _tags(photographs.positions, photographs.headings_deg, options)
    if not options.free_tilt:
        pairs = [p for p in pairs if math.acos(min(1.0, p.rotation[1, 1])) < UPRIGHT_RAD]
    trusted = turning.trusted(pairs)
    pairs, rotations = _consistent(trusted, every, options.free_tilt)
    component = turning.components(pairs, len(photographs.rays))
    rows = np.flatnonzero(component >= 0)
    if not len(rows):
        return pairs, trusted, None
    tags = _tags(photographs.positions[rows], photographs.headings_deg[rows], options)
    here = renumbered(pairs, rows)
    rays = [photographs.rays[row] for row in rows.tolist()]
    placed, turned = _place(component[rows], here, rays, rotations[rows], tags, options)
    return pairs, trusted, _refine(photographs, rows, placed, turned, here, options, (KEYPOINT_PX,) * 3)


def _refine(
    photographs: Given,
    rows: NDArray[np.int64],
    placed: FloatArray,
    turned: FloatArray,
    pairs: Sequence[Pair],
    options: AlignOptions,
    pixels: Sequence[float],
    zoom: FloatArray | None = None,
) -> tuple[NDArray[np.int64], Scene, float] | None:
    """Find points and adjust, in turns; returns the photographs that points hold, the scene, a pixel's worth."""
    rays = [photographs.rays[row] for row in rows.tolist()]
    focal = photographs.focal_px[rows]
    tags = _tags(photographs.positions[rows], photographs.headings_deg[rows], options)
    tracks = find_tracks(pairs, np.array([len(r) for r in rays]))
    up_std = np.full(len(rows), math.inf)
    if not options.free_tilt:
        _, label = connected_components(
            sparse.coo_matrix(
                (np.ones(len(pairs)), ([p.first for p in pairs], [p.second for p in pairs])), (len(rows),) * 2
            )
        )
        up_std = COMMON_TILT_RAD * np.sqrt(np.bincount(label)[label])
    empty = np.empty((0, 3)), tracks, np.empty((0, 2)), np.empty(0)
    lens = photographs.lens[rows]
    zoom = np.ones(photographs.lens.max(initial=-1) + 1) if zoom is None else zoom
    scene = Scene(placed, turned, *empty, tags, up_std, np.empty((0, 2), np.int64), lens=lens, zoom=zoom)
    pixel = pixels[0]
    for number, start in enumerate(pixels):
        pixel = start if number == 0 or start > pixel else pixel
        pixel = max(pixel, start) if number < len(pixels) - 1 else pixel
        limit_px = max(2.5, 6 * start) if number < len(pixels) - 1 else 2.5
        if not _find_points(scene, tracks, rays, focal, pixel, limit_px):
            return None
        adjust(scene, enough=ROUGH)
        if start <= KEYPOINT_PX:
            pixel = _pixel_std(scene, pixel)
    rows = rows[_drop_loose(scene)]
    return (rows, scene, pixel) if len(rows) else None


def _bridges(
    photographs: Given,
    candidates: Sequence[tuple[int, int]],
    rows: NDArray[np.int64],
    scene: Scene,
    options: AlignOptions,
    progress: Progress,
) -> list[Bridge]:
    """Return views across components, and of photographs that are not tied, which tags and tilt do not forbid."""
    count = len(photographs.rays)
    component = np.full(count, -1, np.int32)
    component[rows] = scene.groups()
    number = np.full(count, -1)
    number[rows] = np.arange(len(rows))
    nothing = np.empty(0, np.int64), np.empty((0, 3))
    points = [nothing] * count
    order = np.argsort(scene.tracks.photograph, kind="stable")
    starts = np.searchsorted(scene.tracks.photograph[order], np.arange(len(rows) + 1))
    for k, row in enumerate(rows):
        seen = order[starts[k] : starts[k + 1]]
        points[row] = scene.tracks.keypoint[seen], scene.points[scene.tracks.point[seen]]
    found = find_bridges(photographs.every, photographs.rays, candidates, Known(component, points), progress)
    kept = []
    for bridge in found:
        k = number[bridge.row]
        known = scene.positions[k] if k >= 0 else np.nan_to_num(photographs.positions[bridge.row])
        turn = scene.rotations[k].T @ bridge.rotation if k >= 0 else np.eye(3)
        wrong = math.acos(min(1.0, max(-1.0, (np.trace(turn) - 1) / 2))) > BRIDGE_RAD
        if allowed(bridge, known, options) and not wrong:
            kept.append(bridge)
    return kept


def allowed(bridge: Bridge, known_m: FloatArray, options: AlignOptions) -> bool:
    """Whether neither a photograph's position (3,) by now nor its tilt forbids a view across."""
    far = float(np.linalg.norm((bridge.position_m - known_m)[:2]))
    tilted = not options.free_tilt and bridge.rotation[2, 1] > -math.cos(UPRIGHT_RAD)
    return far < 4 * options.position_std_m + 2.0 and not tilted


def _consistent(pairs: Sequence[Pair], tags: Tags, free: bool) -> tuple[list[Pair], FloatArray]:
    """Return the pairs that agree with all others and with the tags, and the rotations that they agree on."""
    if not free:
        pairs = [p for p, good in zip(pairs, against_headings(pairs, tags), strict=True) if good]
        allowed = against_bearings(pairs, turning.support_of(pairs), tags)
        pairs = [p for p, good in zip(pairs, allowed, strict=True) if good]
    rotations, agrees = turning.average_rotations(pairs, len(tags.heading_rad))
    return [p for p, good in zip(pairs, agrees, strict=True) if good], rotations


def renumbered(pairs: Sequence[Pair], rows: NDArray[np.int64]) -> list[Pair]:
    """Return the pairs of some photographs, by their numbers among these."""
    number = {int(row): k for k, row in enumerate(rows)}
    return [
        replace(p, first=number[p.first], second=number[p.second])
        for p in pairs
        if p.first in number and p.second in number
    ]


def _place(
    component: NDArray[np.int32],
    pairs: Sequence[Pair],
    rays: Sequence[FloatArray],
    rotations: FloatArray,
    tags: Tags,
    options: AlignOptions,
) -> tuple[FloatArray, FloatArray]:
    """Return first positions and rotations, each component by its own tags."""
    placed, turned = np.empty((len(rotations), 3)), rotations.copy()
    for number in range(int(component.max()) + 1):
        rows = np.flatnonzero(component == number)
        here = renumbered(pairs, rows)
        if not options.free_tilt:
            turned[rows] = turning.upright(turned[rows]) @ turned[rows]
        own = tags.of(rows)
        turned[rows] = first_turn(here, turned[rows], own, options.free_tilt) @ turned[rows]
        placed[rows], turned[rows] = solve_positions(
            here, [rays[row] for row in rows.tolist()], turned[rows], own, options.free_tilt
        )
    return placed, turned


def _tags(positions: FloatArray, headings_deg: FloatArray, options: AlignOptions) -> Tags:
    """Return the tags of photographs; those that share one position count as one, each with its share."""
    group = same_tag(positions)
    share = np.sqrt(np.bincount(group)[group])
    std = np.repeat(options.position_std_m * share[:, None], 3, axis=1)
    unknown = ~np.isfinite(positions[:, 2])
    filled = positions.copy()
    filled[unknown, 2] = np.nanmean(positions[:, 2]) if not unknown.all() else 0.0
    std[unknown, 2] = NO_ALTITUDE_STD_M * math.sqrt(len(positions))
    return Tags(filled, std, np.radians(headings_deg), math.radians(options.heading_std_deg))


def _drop_loose(scene: Scene) -> NDArray[np.int64]:
    """Drop photographs that hardly any point holds; returns the numbers of those that stay."""
    rows = np.arange(len(scene.positions))
    while True:
        fine = np.bincount(scene.tracks.photograph, minlength=len(rows)) >= MIN_POINTS
        if fine.all():
            return rows
        rows = rows[scene.keep(fine)]


def _drop_wrong_ties(scene: Scene) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Drop what repeating windows and twin façades tie; returns the numbers of what stays, and lines."""
    count = len(scene.positions)
    rows = np.arange(count)
    while (odd := outvoted(scene)).any():
        rows = rows[scene.keep(~odd)]
        rows = rows[_drop_loose(scene)]
        adjust(scene, enough=ROUGH)
    lines: tuple[str, ...] = ()
    if lost := count - len(rows):
        lines += (f"not tied: {lost} photographs whose points put them elsewhere than others of their spot",)
    if cut := cut_seams(scene):
        lines += (f"cut: {cut} times where few points joined two groups that the tags of both hold apart",)
    return rows[_drop_loose(scene)], lines


def _hold_together(scene: Scene) -> None:
    """Hold photographs with one tag at one spot, if the geometry finds them there: a tag alone does not say so."""
    group = same_tag(scene.tags.position_m)
    order = np.argsort(group, kind="stable")
    links = [
        (order[k], order[m])
        for k in range(len(order))
        for m in range(k + 1, min(k + 4, len(order)))
        if group[order[k]] == group[order[m]]
    ]
    if len(links) < MIN_LINKS:
        return
    scene.together = np.array(links)
    std = 1.0
    for _ in range(4):
        scene.together_std_m = std
        adjust(scene, enough=ROUGH)
        a, b = scene.together.T
        apart = np.abs(scene.positions[a] - scene.positions[b])
        std = max(1.4826 * float(np.median(apart)), MIN_SPOT_STD_M)
        if std > MAX_SPOT_STD_M:
            scene.together = np.empty((0, 2), np.int64)
            break
    adjust(scene)


def _tag_std(scene: Scene, covariances: FloatArray, assumed: float) -> float:
    """Return the standard deviation of the tags that the geometry finds (a variance component; robust).

    A tag's error shows less, the more the position follows it: by the share of the tag's variance that is left.
    """
    std = scene.tags.std_m[:, 0]
    left = np.clip(1 - covariances[:, [0, 1], [0, 1]].mean(axis=1) / assumed**2, 0.0, 1.0) * (assumed / std) ** 2
    squared = (scene.tag_errors()[:, :2] ** 2).sum(axis=1) / std**2
    weight = 1.0 / (1.0 + squared / SOFT_TAG**2)
    share = float((weight * squared).sum() / max((weight * 2 * left).sum(), 1e-9))
    return max(assumed * math.sqrt(share), MIN_TAG_STD_M)


def _pixel_std(scene: Scene, assumed: float) -> float:
    """Return the standard deviation of a keypoint that the residuals show, px, but for those that poses absorb."""
    off, _ = scene.residuals()
    free = 2 * len(off) - 3 * scene.tracks.count - 6 * len(scene.positions)
    shown = 1.4826 * float(np.median(np.abs(off))) * math.sqrt(2 * len(off) / max(free, 0.1 * len(off)))
    return float(np.clip(shown * assumed, 0.2, 2.0))


def _find_points(
    scene: Scene, tracks: Tracks, rays: Sequence[FloatArray], focal: FloatArray, pixel: float, limit_px: float
) -> bool:
    """Put into the scene the points that its poses let rays meet in; returns whether there are any."""
    longer = np.append(scene.zoom, 1.0)[-1 if scene.lens is None else scene.lens]
    rays, focal = [r / by for r, by in zip(rays, longer, strict=True)], focal * longer
    flat = _gather(tracks, rays)
    for _ in range(2):
        directions = np.column_stack([flat, np.ones(len(flat))])
        directions = np.einsum("oij,oj->oi", scene.rotations[tracks.photograph], directions)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        points = triangulate(tracks, directions, scene.positions, 2 * pixel / float(np.median(focal)))
        scene.points, scene.tracks, scene.rays = points, tracks, flat
        scene.ray_std = pixel / focal[tracks.photograph]
        off, depth = scene.residuals()
        with np.errstate(invalid="ignore"):
            good = (np.linalg.norm(off, axis=1) * pixel < limit_px) & (depth > 0.1)
        tracks, old = tracks.only(good)
        flat = _gather(tracks, rays)
        points = points[old]
        wide = widest_angles(tracks, points, scene.positions) > MIN_ANGLE_RAD
        tracks, old = tracks.only(wide[tracks.point])
        flat, points = _gather(tracks, rays), points[old]
        scene.points, scene.tracks, scene.rays = points, tracks, flat
        scene.ray_std = pixel / focal[tracks.photograph]
        if not tracks.count:
            return False
    return True


def _gather(tracks: Tracks, rays: Sequence[FloatArray]) -> FloatArray:
    starts = np.concatenate([[0], np.cumsum([len(r) for r in rays])])
    return np.concatenate(rays)[starts[tracks.photograph] + tracks.keypoint]


def _assemble(
    solved: _Solved | None, tags: FloatArray, datum: tuple[float, float, float], tag_std_m: float
) -> Alignment:
    count = len(tags)
    positions = np.where(np.isfinite(tags), tags, 0.0)
    rotations = np.full((count, 3, 3), np.nan)
    std = np.where(np.isfinite(tags[:, :2]).all(axis=1), tag_std_m, math.inf)
    heading_std = np.full(count, math.nan)
    component = np.full(count, -1, np.int32)
    points = np.empty((0, 3))
    photograph = keypoint = point = np.empty(0, np.int64)
    if solved is not None:
        rows, scene = solved.rows, solved.scene
        positions[rows], rotations[rows], points = scene.positions, scene.rotations, scene.points
        component[rows] = scene.groups()
        std[rows] = np.sqrt(np.linalg.eigvalsh(solved.covariances[:, :2, :2])[:, -1])
        std[rows] = np.hypot(
            std[rows], strain(positions[rows, :2], tags[rows, :2], component[rows], solved.tag_std_m)
        )
        heading_std[rows] = np.sqrt(solved.covariances[:, 5, 5])
        photograph, keypoint, point = rows[scene.tracks.photograph], scene.tracks.keypoint, scene.tracks.point
    order = np.argsort(photograph, kind="stable")
    return Alignment(
        datum=datum,
        tied=component >= 0,
        position_m=positions,
        rotation=rotations,
        position_std_m=std,
        heading_std_rad=heading_std,
        component=component,
        points_m=points,
        starts=np.searchsorted(photograph[order], np.arange(count + 1)).astype(np.int64),
        keypoint=keypoint[order].astype(np.int32),
        point=point[order].astype(np.int32),
    )


def _lines(
    photographs: Sequence[Tagged], alignment: Alignment, rejected: tuple[str, ...], pairs: int
) -> tuple[str, ...]:
    """Return what people should know: why nothing is aligned, and what was rejected."""
    count, known = len(photographs), sum(p.camera is not None for p in photographs)
    if alignment.tied.any() or rejected:
        return rejected
    if count < MIN_PHOTOGRAPHS:
        return (f"nothing to align: {count} photographs, at least {MIN_PHOTOGRAPHS} are needed",)
    if known < MIN_PHOTOGRAPHS:
        return (f"nothing to align: the camera of {count - known} of {count} photographs is unknown",)
    if not pairs:
        return (f"nothing to align: no two of {count} photographs see the same",)
    return (f"nothing is aligned: {pairs} pairs see the same, but not from places apart, or unlike their tags",)


def off_tags(given: Given, alignment: Alignment) -> FloatArray:
    """Return how far (N,) photographs are from their tags, m."""
    return np.asarray(np.linalg.norm((alignment.position_m - given.positions)[:, :2], axis=1))


def report_of(
    given: Given, alignment: Alignment, suspects: Sequence[Suspect], pairs: int, compared: int
) -> Report:
    """Return what an alignment itself says of what it found."""
    tied = alignment.tied
    return Report(
        photographs=len(tied),
        tied=int(tied.sum()),
        components=tuple(np.bincount(alignment.component[tied]).tolist()),
        residual_m=float(np.median(off_tags(given, alignment)[tied])) if tied.any() else math.nan,
        tag_std_m=math.nan,
        suspects=tuple(sorted(suspects, key=lambda suspect: -suspect.off_m)),
        headings=int((tied & ~np.isfinite(given.headings_deg)).sum()),
        points=len(alignment.points_m),
        reprojection_px=math.nan,
        pairs=pairs,
        compared=compared,
        lines=(),
    )


def _suspects(solved: _Solved, off_m: FloatArray) -> list[Suspect]:
    wrong = solved.rows[suspicious(solved.scene, solved.covariances, solved.tag_std_m)]
    return [Suspect(int(row), float(off_m[row])) for row in wrong]
