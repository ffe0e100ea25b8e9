"""Bundle adjustment with tags, headings and gravity as priors.

Levenberg-Marquardt on the reduced camera system (Triggs et al., "Bundle adjustment: a modern synthesis", 1999,
sec. 6.1), losses of Cauchy by reweighting. pycolmap's has priors for positions alone; a track on one line needs
gravity too, or it turns about itself.

Convention:
    A rotation error is a small vector in ENU that acts from the left; each camera's unknowns are (position,
    rotation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation

from geowarp_ros.gallery.alignment.aligned import FloatArray
from geowarp_ros.gallery.alignment.points import Tracks, summed
from geowarp_ros.gallery.alignment.positions import Tags

SOFT = 2.0
"""Standard deviations at which an observation weighs half."""
SOFT_TAG = 3.0
"""Standard deviations at which a heading, or two photographs of one spot, weigh half."""
HARD_TAG = 1.5
"""Standard deviations beyond which a tag pulls no harder (Huber's loss): a photograph is never lost to it."""
MIN_POINTS = 12
"""Minimum number of points that hold a photograph."""
_AT_ONCE = 2000
"""Blocks of the reduced system that are made at once."""
MAX_ZOOM = 0.1
"""Logarithm by which a focal length changes at most in one step."""
DENSE = 2400
"""Number of unknowns up to which the reduced system is factored as a dense one."""


@dataclass
class Scene:
    """What is adjusted, and how well each part is known.

    Attributes:
        positions: (N, 3).
        rotations: (N, 3, 3) ``enu_from_camera``.
        points: (P, 3).
        tracks: Observations.
        rays: (O, 2) normalised coordinates of the observations.
        ray_std: (O,) their standard deviation, normalised.
        tags: Tags.
        up_std_rad: (N,) standard deviation of each camera's "down"; infinite: none is known.
        together: (K, 2) photographs that seem to be taken at one spot.
        together_std_m: How far from one another such photographs are, standard deviation per axis.
        lens: (N,) which unknown focal length each photograph has; -1: it is known. None: all are.
        zoom: (G,) unknown focal lengths over those that ``rays`` were first made with; ``rays`` follow them.
    """

    positions: FloatArray
    rotations: FloatArray
    points: FloatArray
    tracks: Tracks
    rays: FloatArray
    ray_std: FloatArray
    tags: Tags
    up_std_rad: FloatArray
    together: NDArray[np.int64]
    together_std_m: float = math.inf
    lens: NDArray[np.int64] | None = None
    zoom: FloatArray = field(default_factory=lambda: np.empty(0))

    def residuals(self) -> tuple[FloatArray, FloatArray]:
        """Return reprojection residuals (O, 2) over their standard deviations, and depths (O,)."""
        seen = self._seen()
        with np.errstate(divide="ignore", invalid="ignore"):
            off = (seen[:, :2] / seen[:, 2:] - self.rays) / self.ray_std[:, None]
        return np.where(seen[:, 2:] > 1e-6, off, 1e3), seen[:, 2]

    def _seen(self) -> FloatArray:
        """Return each observed point (O, 3) in its camera's frame."""
        ahead = self.points[self.tracks.point] - self.positions[self.tracks.photograph]
        return np.asarray(np.einsum("oji,oj->oi", self.rotations[self.tracks.photograph], ahead))

    def tag_errors(self) -> FloatArray:
        """Return (N, 3) position minus tag; 0 where there is no tag."""
        return np.nan_to_num(self.positions - self.tags.position_m)

    def lens_of_rays(self) -> NDArray[np.int64]:
        """Return the unknown focal length (O,) of each observation, -1: it is known."""
        return np.full(len(self.rays), -1) if self.lens is None else self.lens[self.tracks.photograph]

    def zoomed(self, by: FloatArray) -> None:
        """Make unknown focal lengths longer by factors (G,)."""
        own = np.append(by, 1.0)[self.lens_of_rays()]
        self.rays, self.ray_std, self.zoom = self.rays / own[:, None], self.ray_std / own, self.zoom * by

    def groups(self) -> NDArray[np.int32]:
        """Return the component (N,) of each photograph, the largest first: joined by points or by one spot."""
        count, tracks = len(self.positions), self.tracks
        spot_a, spot_b = self.together.T
        a = np.concatenate([tracks.photograph, spot_a])
        b = np.concatenate([count + tracks.point, spot_b])
        size = count + tracks.count
        joined = sparse.coo_matrix((np.ones(len(a)), (a, b)), (size, size))
        _, label = connected_components(joined, directed=False)
        _, label, often = np.unique(label[:count], return_inverse=True, return_counts=True)
        rank = np.empty(len(often), np.int32)
        rank[np.argsort(-often, kind="stable")] = np.arange(len(often), dtype=np.int32)
        return np.asarray(rank[label.reshape(-1)])

    def observe(self, kept: NDArray[np.bool_]) -> None:
        """Keep some observations (O,), and the points that two of them see."""
        seen = np.bincount(self.tracks.point[kept], minlength=self.tracks.count)
        observed = kept & (seen >= 2)[self.tracks.point]
        self.tracks, old = self.tracks.only(kept)
        self.points, self.rays, self.ray_std = self.points[old], self.rays[observed], self.ray_std[observed]

    def keep(self, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Keep some photographs and the points that two of them see; returns their numbers."""
        rows, number = np.flatnonzero(kept), np.cumsum(kept) - 1
        self.observe(kept[self.tracks.photograph])
        self.tracks = replace(self.tracks, photograph=number[self.tracks.photograph])
        self.positions, self.rotations = self.positions[rows], self.rotations[rows]
        self.tags = self.tags.of(rows)
        self.up_std_rad = self.up_std_rad[rows]
        self.lens = None if self.lens is None else self.lens[rows]
        self.together = number[self.together[kept[self.together].all(axis=1)]]
        return rows


def adjust(scene: Scene, iterations: int = 30, enough: float = 1e-6) -> None:
    """Adjust positions, rotations and points in place.

    Args:
        scene: What is adjusted.
        iterations: Maximum number of steps.
        enough: Share of the cost that a step must gain for another to follow.
    """
    damping = 1e-4
    coupling = _Coupling.of(scene.tracks, len(scene.positions))
    cost = _cost(scene)
    for _ in range(iterations):
        system = _System(scene, coupling)
        for _ in range(8):
            found = system.solve(damping)
            if found is None:
                damping *= 8
                continue
            step, points, zoom = found
            before = scene.positions, scene.rotations, scene.points, scene.rays, scene.ray_std, scene.zoom
            scene.positions = scene.positions + step[:, :3]
            scene.rotations = Rotation.from_rotvec(step[:, 3:]).as_matrix() @ scene.rotations
            scene.points = scene.points + points
            if len(zoom):
                scene.zoomed(np.exp(np.clip(zoom, -MAX_ZOOM, MAX_ZOOM)))
            after = _cost(scene)
            if after < cost:
                damping = max(damping / 5, 1e-9)
                break
            scene.positions, scene.rotations, scene.points, scene.rays, scene.ray_std, scene.zoom = before
            damping *= 8
        else:
            return
        gain = (cost - after) / max(cost, 1e-300)
        cost = after
        if gain < enough:
            return


def camera_covariances(scene: Scene) -> FloatArray:
    """Return the covariance (N, 6, 6) of each camera at the solution, points and other cameras marginalised.

    Infinite where nothing holds them: the system is singular.
    """
    return _System(scene, _Coupling.of(scene.tracks, len(scene.positions))).covariances()


def zoom_std(scene: Scene) -> FloatArray:
    """Return the standard deviation (G,) of the logarithms of unknown focal lengths, all else marginalised."""
    return _System(scene, _Coupling.of(scene.tracks, len(scene.positions))).zoom_std()


def _cauchy(squared: FloatArray, soft: float) -> FloatArray:
    return np.asarray(soft**2 * np.log1p(squared / soft**2))


def _cost(scene: Scene) -> float:
    off, _ = scene.residuals()
    total = _cauchy((off**2).sum(axis=1), SOFT).sum()
    flat, height = _tag_terms(scene)
    total += _huber(flat).sum() + _huber(height).sum()
    total += _cauchy(heading_terms(scene)[0] ** 2, SOFT_TAG).sum()
    total += ((scene.rotations[:, :2, 1] / scene.up_std_rad[:, None]) ** 2).sum()
    total += _cauchy((_apart(scene) ** 2).sum(axis=1), SOFT_TAG).sum()
    return float(total)


def _huber(squared: FloatArray) -> FloatArray:
    size = np.sqrt(squared)
    return np.asarray(np.where(size < HARD_TAG, squared, 2 * HARD_TAG * size - HARD_TAG**2))


def _tag_weight(squared: FloatArray) -> FloatArray:
    return np.asarray(1.0 / np.maximum(1.0, np.sqrt(squared) / HARD_TAG))


def _apart(scene: Scene) -> FloatArray:
    """Return how far photographs of one spot are apart (K, 3), over its standard deviation."""
    a, b = scene.together.T
    return np.asarray((scene.positions[a] - scene.positions[b]) / scene.together_std_m)


def _tag_terms(scene: Scene) -> tuple[FloatArray, FloatArray]:
    """Return squared horizontal (N,) and vertical (N,) tag errors, over their variances."""
    terms = (scene.tag_errors() / scene.tags.std_m) ** 2
    return terms[:, :2].sum(axis=1), terms[:, 2]


def heading_terms(scene: Scene) -> tuple[FloatArray, FloatArray]:
    """Return heading errors (N,) over their standard deviation, 0 where unknown; and their slopes (N, 3)."""
    axis = scene.rotations[:, :, 2]
    flat = np.maximum((axis[:, :2] ** 2).sum(axis=1), 1e-3)
    compass = np.arctan2(axis[:, 0], axis[:, 1])
    error = np.angle(np.exp(1j * (compass - np.nan_to_num(scene.tags.heading_rad))))
    known = np.isfinite(scene.tags.heading_rad) & (np.abs(axis[:, 2]) < 0.87)
    # axis moves by w × axis; compass = atan2(x, y)
    x, y, z = axis.T
    slope = np.stack([x * z / flat, y * z / flat, -np.ones_like(x)], axis=1)
    std = scene.tags.heading_std_rad
    return np.where(known, error, 0.0) / std, np.where(known[:, None], slope, 0.0) / std


@dataclass(frozen=True, slots=True)
class _Coupling:
    """Observations of the same point, two by two, in blocks of the two photographs that made them.

    Attributes:
        one: (K,) number of an observation, by block.
        other: (K,) number of the same or another observation of its point.
        starts: (B + 1,) where each block begins, and the end.
        row: (B,) photograph of ``one``.
        column: (B,) photograph of ``other``, not below it.
    """

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    starts: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]

    @classmethod
    def of(cls, tracks: Tracks, cameras: int) -> _Coupling:
        point, photograph = tracks.point, tracks.photograph
        ones, others = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for apart in range(int(np.bincount(point).max(initial=0))):  # observations of a point follow one another
            k = np.flatnonzero(point[: len(point) - apart] == point[apart:])
            ones.append(k)
            others.append(k + apart)
        one, other = np.concatenate(ones), np.concatenate(others)
        swapped = photograph[one] > photograph[other]
        one, other = np.where(swapped, other, one), np.where(swapped, one, other)
        order = np.argsort(photograph[one] * cameras + photograph[other], kind="stable")
        one, other = one[order], other[order]
        blocks, starts = np.unique(photograph[one] * cameras + photograph[other], return_index=True)
        return cls(one, other, np.append(starts, len(one)), blocks // cameras, blocks % cameras)


def _factor(matrix: sparse.csc_matrix) -> Any:
    """Factor a symmetric positive definite matrix; RuntimeError if it is singular."""
    return splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})


class _System:
    """Normal equations about a scene, points to be eliminated."""

    def __init__(self, scene: Scene, coupling: _Coupling) -> None:
        tracks = scene.tracks
        self.coupling = coupling
        self.cameras, self.count = len(scene.positions), tracks.count
        off, depth = scene.residuals()
        ahead = scene.points[tracks.point] - scene.positions[tracks.photograph]
        turned = scene.rotations[tracks.photograph].transpose(0, 2, 1)
        seen = np.einsum("oij,oj->oi", turned, ahead)
        in_front = depth > 1e-6
        z = np.where(in_front, depth, 1.0)
        weight = np.where(in_front, 1.0 / (1.0 + (off**2).sum(axis=1) / SOFT**2), 0.0)
        root = np.sqrt(weight) / scene.ray_std
        project = np.zeros((len(z), 2, 3))
        project[:, 0, 0] = project[:, 1, 1] = 1 / z
        project[:, :, 2] = -seen[:, :2] / z[:, None] ** 2
        of_point = np.einsum("oij,ojk->oik", project, turned) * root[:, None, None]
        of_turn = np.cross(of_point, ahead[:, None, :])  # row of J R^T [v]x is the row's cross product with v
        of_camera = np.concatenate([-of_point, of_turn], axis=2)
        residual = off * np.sqrt(weight)[:, None]
        flipped = of_camera.transpose(0, 2, 1)
        blocks = summed(flipped @ of_camera, tracks.photograph, self.cameras)
        right = -summed((flipped @ residual[:, :, None])[:, :, 0], tracks.photograph, self.cameras)
        self._add_priors(scene, blocks, right)
        self.blocks, self.right = blocks, right
        self.links = self._add_links(scene)
        self.across = flipped @ of_point  # (O, 6, 3)
        down = of_point.transpose(0, 2, 1)
        self.point_blocks = summed(down @ of_point, tracks.point, self.count)
        self.point_right = -summed((down @ residual[:, :, None])[:, :, 0], tracks.point, self.count)
        self.tracks = tracks
        # a longer focal length moves what is seen outwards: each has a column beside the right side
        lens = scene.lens_of_rays()[:, None] == np.arange(len(scene.zoom))
        outwards = (seen[:, :2] / z[:, None] * root[:, None])[:, :, None] * lens[:, None, :]  # (O, 2, G)
        self.of_zoom = summed(flipped @ outwards, tracks.photograph, self.cameras)  # (N, 6, G)
        self.zoom_on_points = summed(down @ outwards, tracks.point, self.count)  # (P, 3, G)
        self.zoom_block = np.einsum("oig,oih->gh", outwards, outwards)
        self.zoom_right = -np.einsum("oig,oi->g", outwards, residual)

    @staticmethod
    def _add_priors(scene: Scene, blocks: FloatArray, right: FloatArray) -> None:
        flat, height = _tag_terms(scene)
        weight = _tag_weight(np.column_stack([flat, flat, height])) / scene.tags.std_m**2
        axes = np.arange(3)
        blocks[:, axes, axes] += weight
        right[:, :3] -= weight * scene.tag_errors()
        error, slope = heading_terms(scene)
        weight = 1.0 / (1.0 + error**2 / SOFT_TAG**2)
        blocks[:, 3:, 3:] += (weight[:, None] * slope)[:, :, None] * slope[:, None, :]
        right[:, 3:] -= (weight * error)[:, None] * slope
        down = scene.rotations[:, :, 1]
        # down moves by w × down; its first two components are to be 0
        zero = np.zeros(len(down))
        slope = np.stack(
            [np.stack([zero, down[:, 2], -down[:, 1]], axis=1), np.stack([-down[:, 2], zero, down[:, 0]], axis=1)],
            axis=1,
        )
        weight = 1.0 / scene.up_std_rad**2
        blocks[:, 3:, 3:] += weight[:, None, None] * (slope.transpose(0, 2, 1) @ slope)
        right[:, 3:] -= weight[:, None] * (slope * down[:, :2, None]).sum(axis=1)

    def _add_links(self, scene: Scene) -> sparse.csc_matrix:
        """Add what holds photographs of one spot together; returns its part beside the diagonal."""
        size = 6 * self.cameras
        apart = _apart(scene)
        weight = 1.0 / (1.0 + (apart**2).sum(axis=1) / SOFT_TAG**2) / scene.together_std_m**2
        a, b = scene.together.T
        pull = weight[:, None] * (scene.positions[a] - scene.positions[b])
        axes = np.arange(3)
        for side, sign in ((a, -1.0), (b, 1.0)):
            self.blocks[:, axes, axes] += np.bincount(side, weight, self.cameras)[:, None]
            self.right[:, :3] += sign * summed(pull, side, self.cameras)
        rows = (6 * a[:, None] + axes).ravel()
        columns = (6 * b[:, None] + axes).ravel()
        half = sparse.csc_matrix((-np.repeat(weight, 3), (rows, columns)), (size, size))
        return half + half.T

    def _reduced(self, damping: float) -> tuple[sparse.csc_matrix, FloatArray, FloatArray, FloatArray]:
        """Return S, its right side, the inverses of the points' blocks, and W V^-1 per observation."""
        tracks = self.tracks
        axes = np.arange(3)
        points = self.point_blocks.copy()
        points[:, axes, axes] *= 1 + damping
        points[:, axes, axes] += 1e-9 * np.trace(points, axis1=1, axis2=2)[:, None] + 1e-12
        inverse = np.linalg.inv(points)
        carried = self.across @ inverse[tracks.point]
        cameras = self.blocks.copy()
        axes = np.arange(6)
        cameras[:, axes, axes] *= 1 + damping
        cameras[:, axes, axes] += 1e-12
        reduced = self._coupled(cameras, carried) + self.links
        right = self.right - summed(
            np.einsum("oij,oj->oi", carried, self.point_right[tracks.point]), tracks.photograph, self.cameras
        )
        return reduced, right, inverse, carried

    def _coupled(self, cameras: FloatArray, carried: FloatArray) -> sparse.csc_matrix:
        """Return the cameras' blocks less what the points that they share take away."""
        c = self.coupling
        taken = np.empty((len(c.row), 6, 6))
        for first in range(0, len(c.row), _AT_ONCE):
            last = min(first + _AT_ONCE, len(c.row))
            here = slice(c.starts[first], c.starts[last])
            products = carried[c.one[here]] @ self.across[c.other[here]].transpose(0, 2, 1)
            taken[first:last] = np.add.reduceat(products, c.starts[first:last] - c.starts[first])
        same = c.row == c.column
        diagonal = cameras.copy()
        diagonal[c.row[same]] -= taken[same]
        upper, row, column = -taken[~same], c.row[~same], c.column[~same]
        every = np.arange(self.cameras)
        values = np.concatenate([diagonal, upper, upper.transpose(0, 2, 1)])
        rows, columns = np.concatenate([every, row, column]), np.concatenate([every, column, row])
        at = np.broadcast_to((6 * rows)[:, None, None] + np.arange(6)[None, :, None], values.shape)
        across = np.broadcast_to((6 * columns)[:, None, None] + np.arange(6)[None, None, :], values.shape)
        size = 6 * self.cameras
        return sparse.csc_matrix((values.ravel(), (at.ravel(), across.ravel())), (size, size))

    def solve(self, damping: float) -> tuple[FloatArray, FloatArray, FloatArray] | None:
        """Return the steps of cameras (N, 6), points (P, 3) and zooms (G,); None where the system is singular."""
        found = self._eliminated(damping)
        if found is None:
            return None
        cameras, points = found
        zoom: FloatArray = np.empty(0)
        if len(self.zoom_right):
            block, right = self._zoom_system(cameras, points, damping)
            zoom = np.asarray(np.linalg.lstsq(block, right, rcond=None)[0], np.float64)
        by = np.append(1.0, -zoom)
        return np.asarray(cameras @ by), np.asarray(points @ by), zoom

    def zoom_std(self) -> FloatArray:
        found = self._eliminated(0.0)
        if found is None:
            return np.full(len(self.zoom_right), np.inf)
        block, _ = self._zoom_system(*found, 0.0)
        values, vectors = np.linalg.eigh(block)
        return np.asarray(np.sqrt((vectors**2 / np.maximum(values, 1e-12)).sum(axis=1)))

    def _zoom_system(
        self, cameras: FloatArray, points: FloatArray, damping: float
    ) -> tuple[FloatArray, FloatArray]:
        """Return the normal equations of the zooms, (G, G) and (G,), all else eliminated."""
        took = np.einsum("nig,nih->gh", self.of_zoom, cameras) + np.einsum(
            "pig,pih->gh", self.zoom_on_points, points
        )
        return self.zoom_block * (1 + damping) - took[:, 1:], self.zoom_right - took[:, 0]

    def _eliminated(self, damping: float) -> tuple[FloatArray, FloatArray] | None:
        """Return what cameras (N, 6, 1 + G) and points (P, 3, 1 + G) do for the right side, and for each zoom."""
        reduced, right, inverse, carried = self._reduced(damping)
        tracks = self.tracks
        beside = self.of_zoom - summed(
            carried @ self.zoom_on_points[tracks.point], tracks.photograph, self.cameras
        )
        sides = np.concatenate([right[:, :, None], beside], axis=2).reshape(reduced.shape[0], -1)
        if reduced.shape[0] <= DENSE:
            try:
                step = cho_solve(cho_factor(reduced.toarray(), lower=True), sides)
            except np.linalg.LinAlgError:
                return None
        else:
            try:
                step = _factor(reduced).solve(sides)
            except RuntimeError:  # SuperLU: exactly singular
                return None
        if not np.isfinite(step).all():
            return None
        cameras = step.reshape(self.cameras, 6, -1)
        back = summed(self.across.transpose(0, 2, 1) @ cameras[tracks.photograph], tracks.point, self.count)
        ahead = np.concatenate([self.point_right[:, :, None], self.zoom_on_points], axis=2)
        return np.asarray(cameras), np.asarray(inverse @ (ahead - back))

    def covariances(self) -> FloatArray:
        reduced, _, _, _ = self._reduced(0.0)
        size = reduced.shape[0]
        found = np.empty((self.cameras, 6, 6))
        try:
            factor = _factor(reduced)
        except RuntimeError:  # SuperLU: exactly singular
            return np.full((self.cameras, 6, 6), np.inf)
        for first in range(0, self.cameras, 64):
            here = np.arange(first, min(first + 64, self.cameras))
            unit = np.zeros((size, 6 * len(here)))
            unit[6 * first + np.arange(6 * len(here)), np.arange(6 * len(here))] = 1.0
            columns = factor.solve(unit)
            for k, camera in enumerate(here):
                found[camera] = columns[6 * camera : 6 * camera + 6, 6 * k : 6 * k + 6]
        if len(self.zoom_right) and (eliminated := self._eliminated(0.0)) is not None:
            block, _ = self._zoom_system(*eliminated, 0.0)
            moved = eliminated[0][:, :, 1:]  # how a camera follows each zoom
            found += moved @ np.linalg.pinv(block) @ moved.transpose(0, 2, 1)
        return found
