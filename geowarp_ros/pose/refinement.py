"""The last stage of every rung: least squares over all matches at once, and the covariance of its solution.

Two kinds of residual. A match with a triangulated point has its reprojection error, weighted with the point's own
covariance: a point far away or seen at a small angle by the gallery says little. A match along a ray of a
photograph has its Sampson error (Hartley and Zisserman, "Multiple View Geometry", sec. 11.4.3): how far the
query's ray passes that ray.

Convention:
    The state is (east, north, up, rotation about east, north, up); rotations act from the left, R <- exp(ω) R.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.cameras import Camera
from geowarp_ros.pose.sightings import KEYPOINT_STD_PX, Sightings, projection_jacobian
from geowarp_ros.types import FloatArray, Gravity

BoolArray = NDArray[np.bool_]

INLIER_SIGMAS = 3.0
"""Maximum residual of an inlier, in standard deviations: holds 98.9 % of Gaussian reprojection errors."""

WITHIN = 0.95
"""Mean square of Gaussian errors that are inliers over that of all."""

SCALE = 1.5
"""Scale c of Geman and McClure's loss e² / (1 + e² / c²), in standard deviations: real errors are mostly smaller
than assumed, and some so much larger that they must not count at all."""

LOSS = 1.643
"""Variance of a solution with that loss over that of least squares, where errors are Gaussian in two dimensions:
E[s w²] / 2 / E[w + s w']² with w = (1 + s / c²)^-2 and s exponential of mean 2 (Huber, "Robust statistics",
sec. 3.2)."""

PATCH_BIAS_PX = 0.2
"""Standard deviation of the error that neighbouring matches share (px): one façade's keypoints move together with
light, blur and the viewpoint, so that hundreds of them are no hundredfold evidence."""

PATCH_PX = 60.0
"""Side of the patches of the image whose matches share an error."""

ROUGH_SIGMAS = 5.0
"""Size of the residuals of a first guess, in standard deviations."""

SCALE_PRIOR = 20.0
"""Number of residuals of the assumed size that the estimate of their true size starts with."""

ITERATIONS = 15

DEGENERATE = 1e-9
"""Minimum eigenvalue of the Hessian, scaled to unit diagonal, of a pose that the matches determine."""

INTERSECTION_DEG = 3.0
"""Minimum angle (root mean square) between the lines from the photographs to the query that tells where on them it
is: driving straight ahead, their intersection is that of noise."""

PARALLAX_SIGMAS = 12.0
"""Minimum angle between two matched rays, in keypoint standard deviations, that says anything of a position: the
noise of parallel rays would hold the query where a photograph was taken."""


@dataclass(frozen=True, slots=True)
class Refined:
    """A pose of least squares.

    Attributes:
        position_m: (3,).
        rotation: (3, 3) ``enu_from_camera``.
        covariance: (6, 6).
        inlier: (M,) bool.
        cost: Sum of the robust losses: smaller is better, for the same matches.
        residuals_px: (M,) size of the reprojection or Sampson errors.
        ranges_m: (M,) distances of what is matched; NaN for parallel rays.
        significance: Decimal logarithm of the likelihood of the matches under this pose over that of matches at
            random places, see :func:`_significance`.
    """

    position_m: FloatArray
    rotation: FloatArray
    covariance: FloatArray
    inlier: BoolArray
    cost: float
    residuals_px: FloatArray
    ranges_m: FloatArray
    significance: float


def refine(
    seen: Sightings,
    point_covariance: FloatArray,
    position_m: FloatArray,
    rotation: FloatArray,
    camera: Camera,
    gravity: Gravity | None = None,
) -> Refined | None:
    """Refine a pose by Levenberg and Marquardt's method with a robust loss.

    Args:
        seen: Matches; those with a triangulated point are reprojected, the others compared as rays.
        point_covariance: (M, 3, 3) of the triangulated points, m²; ignored for the others.
        position_m: (3,) first estimate.
        rotation: (3, 3) first estimate of ``enu_from_camera``.
        camera: Of the query, at working resolution.
        gravity: A prior of roll and pitch.

    Returns:
        The pose; None where the matches do not determine it.
    """
    whitened = _Whitened(seen, point_covariance, camera.focal_px)
    damping = 1e-4
    state = position_m, rotation
    errors, jacobian, _ = whitened(*state)
    cost = _cost(errors, gravity, rotation)
    for _ in range(ITERATIONS):
        hessian, gradient = _normal_equations(errors, jacobian, _weights(errors), gravity, state[1])
        moved = False
        for _ in range(6):
            try:
                step = -np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), gradient)
            except np.linalg.LinAlgError:
                return None
            candidate = state[0] + step[:3], rotation_of(step[3:]) @ state[1]
            new_errors, new_jacobian, _ = whitened(*candidate)
            new_cost = _cost(new_errors, gravity, candidate[1])
            if new_cost < cost:
                moved, damping = True, damping * 0.2
                break
            damping = max(damping, 1e-6) * 10
        if not moved:
            break
        gain, cost = cost - new_cost, new_cost
        state, errors, jacobian = candidate, new_errors, new_jacobian
        if gain < 1e-5 * cost:
            break
    errors, jacobian, by_shift = whitened(*state)
    ranges = whitened.ranges(*state)
    inlier = (np.sqrt((errors**2).sum(axis=1)) < INLIER_SIGMAS) & ~(ranges < 0)
    covariance = _covariance(errors, jacobian, by_shift, inlier, _patches(seen.pixels), gravity, state[1])
    if covariance is None:
        return None
    significance = _significance(errors, by_shift, seen.located, inlier, camera)
    return Refined(*state, covariance, inlier, float(cost), whitened.pixels(*state), ranges, significance)


def rough_agreement(
    seen: Sightings, point_covariance: FloatArray, position_m: FloatArray, rotation: FloatArray, camera: Camera
) -> float:
    """How well matches obey a first guess that is some pixels off: larger is better."""
    errors, _, _ = _Whitened(seen, point_covariance, camera.focal_px)(position_m, rotation)
    return float((1 / (1 + (errors**2).sum(axis=1) / ROUGH_SIGMAS**2)).sum())


class _Whitened:
    """Residuals (M, 2) in standard deviations and their derivatives (M, 2, 6); rays fill the first row only."""

    def __init__(self, seen: Sightings, point_covariance: FloatArray, focal_px: float) -> None:
        self._located = np.flatnonzero(seen.located)
        self._rays = np.flatnonzero(~seen.located)
        self._seen = seen
        self._points = seen.points_m[self._located]
        self._covariance = point_covariance[self._located]
        self._focal = focal_px
        self._parallel = PARALLAX_SIGMAS * KEYPOINT_STD_PX / focal_px
        along = np.column_stack([seen.rays_p, np.ones(len(seen))])[self._rays]
        self._axes_p = seen.axes[self._rays]
        self._along_p = (self._axes_p @ along[:, :, None])[:, :, 0]
        self._query = np.column_stack([seen.rays, np.ones(len(seen))])

    def __call__(self, position: FloatArray, rotation: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return errors, and their derivatives by the state and by a shift of the query's keypoint (M, 2, 2)."""
        errors = np.zeros((len(self._seen), 2))
        jacobian = np.zeros((len(self._seen), 2, 6))
        by_shift = np.zeros((len(self._seen), 2, 2))
        if len(self._located):
            raw, by_point, by_state, behind = self._reprojection(position, rotation)
            variance = by_point @ self._covariance @ np.swapaxes(by_point, 1, 2)
            by_pixel = self._focal * self._seen.by_pixel[self._located]
            variance += KEYPOINT_STD_PX**2 * by_pixel @ np.swapaxes(by_pixel, 1, 2)
            whiten = np.linalg.inv(np.linalg.cholesky(variance))
            errors[self._located] = np.where(behind[:, None], 1e3, (whiten @ raw[:, :, None])[:, :, 0])
            jacobian[self._located] = np.where(behind[:, None, None], 0.0, whiten @ by_state)
            by_shift[self._located] = whiten @ by_pixel
        if len(self._rays):
            error, by_state, by_query = self._sampson(position, rotation)
            errors[self._rays, 0] = error / KEYPOINT_STD_PX
            jacobian[self._rays, 0] = by_state / KEYPOINT_STD_PX
            by_shift[self._rays, 0] = by_query / KEYPOINT_STD_PX
        return errors, jacobian, by_shift

    def pixels(self, position: FloatArray, rotation: FloatArray) -> FloatArray:
        sizes = np.zeros(len(self._seen))
        if len(self._located):
            raw, _, _, behind = self._reprojection(position, rotation)
            sizes[self._located] = np.where(behind, np.inf, np.linalg.norm(raw, axis=1))
        if len(self._rays):
            sizes[self._rays] = np.abs(self._sampson(position, rotation)[0])
        return sizes

    def ranges(self, position: FloatArray, rotation: FloatArray) -> FloatArray:
        """Distances (M,) of what is matched, m; negative behind a camera, NaN for parallel rays."""
        ranges = np.empty(len(self._seen))
        ranges[self._located] = np.linalg.norm(self._points - position, axis=1)
        along_q, along_p = self._query[self._rays] @ rotation.T, self._along_p
        baseline = self._seen.origins_m[self._rays] - position
        across = _cross(along_q, along_p)
        squared = (across**2).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            of_q = (_cross(baseline, along_p) * across).sum(axis=1) / squared
            of_p = (_cross(baseline, along_q) * across).sum(axis=1) / squared
        of_q, of_p = (np.where(squared > self._parallel**2, part, np.nan) for part in (of_q, of_p))
        ranges[self._rays] = np.where(of_p < 0, -1.0, of_q) * np.linalg.norm(along_q, axis=1)
        return ranges

    def _reprojection(
        self, position: FloatArray, rotation: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, BoolArray]:
        offset = self._points - position
        local = offset @ rotation
        behind = local[:, 2] < 0.1
        local = np.where(behind[:, None], 1.0, local)
        raw = self._focal * (local[:, :2] / local[:, 2:] - self._query[self._located, :2])
        by_point = self._focal * projection_jacobian(local) @ rotation.T
        # local = R^T (X - c); R <- exp(ω) R gives d local = R^T ((X - c) × ω)
        by_state = np.concatenate([-by_point, by_point @ _cross_matrix(offset)], axis=2)
        return raw, by_point, by_state, behind

    def _sampson(self, position: FloatArray, rotation: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Signed Sampson error (K,) of the rays, px; its derivatives by state and pixel, the denominator held."""
        baseline = position - self._seen.origins_m[self._rays]
        along_q, along_p = self._query[self._rays] @ rotation.T, self._along_p
        normal = _cross(baseline, along_p)
        error = (normal * along_q).sum(axis=1)
        by_q = ((normal @ rotation)[:, None, :2] @ self._seen.by_pixel[self._rays])[:, 0]
        across = _cross(along_q, baseline)
        by_p = (across[:, None, :] @ self._axes_p)[:, 0, :2] / self._focal
        scale = 1 / np.sqrt((by_q**2).sum(axis=1) + (by_p**2).sum(axis=1) + 1e-18)
        sideways = _cross(along_p, along_q)
        sideways[(sideways**2).sum(axis=1) < self._parallel**2] = 0.0
        # the error does not change with the length of the baseline, whatever its noise says
        unit = _baseline_directions(baseline)
        sideways -= (sideways * unit).sum(axis=1, keepdims=True) * unit
        by_state = np.concatenate([sideways, _cross(along_q, normal)], axis=1)
        return error * scale, by_state * scale[:, None], by_q * scale[:, None]


def _baseline_directions(baseline: FloatArray) -> FloatArray:
    """Unit vectors (K, 3) along which rays say nothing of the position: their baselines, or the line of all."""
    unit = baseline / (np.linalg.norm(baseline, axis=1, keepdims=True) + 1e-9)
    sizes, axes = np.linalg.eigh(unit.T @ unit / len(unit))
    along_one_line = sizes[:2].sum() < np.radians(INTERSECTION_DEG) ** 2
    return np.broadcast_to(axes[:, 2], unit.shape) if along_one_line else np.asarray(unit)


def rotation_of(vector: FloatArray) -> FloatArray:
    """Rotation (3, 3) of a rotation vector (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    cross = _cross_matrix(vector[None])[0]
    if angle < 1e-8:
        return np.asarray(np.eye(3) + cross)
    return np.asarray(np.eye(3) + np.sin(angle) / angle * cross + (1 - np.cos(angle)) / angle**2 * cross @ cross)


def _cross(first: FloatArray, second: FloatArray) -> FloatArray:
    """Cross products (N, 3); numpy's own takes four times as long for some hundred rows."""
    (a, b, c), (x, y, z) = first.T, second.T
    return np.stack([b * z - c * y, c * x - a * z, a * y - b * x], axis=1)


def _cross_matrix(vectors: FloatArray) -> FloatArray:
    """Matrices (N, 3, 3) with [v]× w = v × w."""
    matrices = np.zeros((len(vectors), 3, 3))
    x, y, z = vectors.T
    matrices[:, 0, 1], matrices[:, 0, 2], matrices[:, 1, 2] = -z, y, -x
    matrices[:, 1, 0], matrices[:, 2, 0], matrices[:, 2, 1] = z, -y, x
    return matrices


def _cost(errors: FloatArray, gravity: Gravity | None, rotation: FloatArray) -> float:
    squared = (errors**2).sum(axis=1)
    cost = float((squared / (1 + squared / SCALE**2)).sum())
    if gravity is not None:
        cost += float((((rotation @ gravity.up)[:2] / gravity.std_rad) ** 2).sum())
    return cost


def _weights(errors: FloatArray) -> FloatArray:
    """Weight (M,) of each match in reweighted least squares: half the loss's derivative by the squared error."""
    return np.asarray(1 / (1 + (errors**2).sum(axis=1) / SCALE**2) ** 2)


def _normal_equations(
    errors: FloatArray, jacobian: FloatArray, weights: FloatArray, gravity: Gravity | None, rotation: FloatArray
) -> tuple[FloatArray, FloatArray]:
    weighted = jacobian * weights[:, None, None]
    hessian = np.einsum("nri,nrj->ij", weighted, jacobian)
    gradient = np.einsum("nri,nr->i", weighted, errors)
    if gravity is not None:
        up = rotation @ gravity.up
        # d (ω × up) about ω, its horizontal part
        lean = np.zeros((2, 6))
        lean[:, 3:] = -_cross_matrix(up[None])[0][:2] / gravity.std_rad
        hessian = hessian + lean.T @ lean
        gradient = gradient + lean.T @ (up[:2] / gravity.std_rad)
    return np.asarray(hessian), np.asarray(gradient)


def _covariance(
    errors: FloatArray,
    jacobian: FloatArray,
    by_shift: FloatArray,
    inlier: BoolArray,
    patch: NDArray[np.int64],
    gravity: Gravity | None,
    rotation: FloatArray,
) -> FloatArray | None:
    """Covariance (6, 6) of the solution; None where the matches do not determine it.

    The inverse Hessian over the inliers, plus what the errors that neighbours share do to the solution, H^-1
    (Σ_patches G G^T) H^-1 with G the patch's summed influence of a shift in x and in y; both scaled with the size
    of the residuals.
    """
    weights = inlier.astype(np.float64)
    hessian, _ = _normal_equations(errors, jacobian, weights, gravity, rotation)
    # scaled to unit diagonal, so that metres and radians do not decide
    size = np.sqrt(np.diag(hessian))
    if not (size > 0).all():
        return None
    scaled = hessian / np.outer(size, size)
    if np.linalg.eigvalsh(scaled)[0] < DEGENERATE:
        return None
    inverse = np.linalg.inv(scaled) / np.outer(size, size)
    influence = np.einsum("nri,nrs->nis", jacobian, by_shift)[inlier] * PATCH_BIAS_PX
    shared = np.zeros((patch.max() + 1, 6, 2))
    np.add.at(shared, patch[inlier], influence)
    # the loss costs what independent errors average to; what neighbours share it weighs like least squares
    covariance = LOSS * inverse + inverse @ np.einsum("pis,pjs->ij", shared, shared) @ inverse
    # residuals larger or smaller than assumed; few of them say little
    rows = (by_shift[inlier] != 0).any(axis=2).sum()
    expected = rows + PATCH_BIAS_PX**2 * (by_shift[inlier] ** 2).sum() - 6
    expected = SCALE_PRIOR + WITHIN * max(expected, 0.0)
    excess = (SCALE_PRIOR + (errors[inlier] ** 2).sum()) / expected
    return np.asarray((covariance + covariance.T) / 2 * excess)


def _significance(
    errors: FloatArray, by_shift: FloatArray, located: BoolArray, inlier: BoolArray, camera: Camera
) -> float:
    """Decimal logarithm of a likelihood ratio: matches under the pose, or anywhere in the image.

    A match is right with the inliers' share, and Gaussian then; else it lies anywhere (Torr and Zisserman,
    "MLESAC", 2000). A point that may lie anywhere along a long ray proves little, a near and sharp one much: a
    count cannot tell them apart. The matches that determine a pose obey it, and there were as many poses to choose
    from as there are such sets.
    """
    share, count = float(inlier.mean()), len(inlier)
    of_point = camera.width_px * camera.height_px / (2 * np.pi) * np.abs(np.linalg.det(by_shift))
    of_ray = camera.height_px / np.sqrt(2 * np.pi) * np.linalg.norm(by_shift[:, 0], axis=1)
    density = np.where(located, of_point, of_ray) * np.exp(-(errors**2).sum(axis=1) / 2) * inlier
    ratio = np.sort(np.log10(share * density + 1 - share))
    # six rays determine a pose, or three points
    free = 3 if located.all() else 6
    return float(ratio[:-free].sum() - np.log10(math.comb(count, free)))


def _patches(pixels: FloatArray) -> NDArray[np.int64]:
    """Number (M,) of the square patch of the image in which each keypoint lies."""
    cell = np.floor(pixels / PATCH_PX).astype(np.int64)
    return np.unique(cell, axis=0, return_inverse=True)[1].reshape(-1)
