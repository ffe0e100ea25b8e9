"""What a query and aligned photographs both see: matches with known points, and matches along known rays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.cameras import Camera
from geowarp_ros.gallery.alignment.aligned import LOCATED, SEEN, Photograph
from geowarp_ros.keypoints.detector import Keypoints
from geowarp_ros.keypoints.matching import REST, STRONGEST, Compared, Comparison, prepare
from geowarp_ros.types import FloatArray

Numbers = NDArray[np.int64]

KEYPOINT_STD_PX = 0.4
"""Standard deviation of a keypoint in each axis (px at working resolution), the gallery's and the query's. SIFT at
twice the size has about 0.4 on one photograph's noise and more across viewpoints."""

RANGE_STD = 0.05
"""Relative standard deviation of a triangulated point's distance where only one photograph at hand sees it: half
a pixel over the smallest angle at which an alignment triangulates (2° at 200 px focal length)."""


@dataclass(frozen=True, slots=True)
class Rays:
    """Viewing rays of a query's keypoints.

    Attributes:
        plain: (N, 2) normalised, undistorted coordinates; NaN where there is no ray.
        by_pixel: (N, 2, 2) their derivative by the pixel; NaN likewise.
    """

    plain: FloatArray
    by_pixel: FloatArray

    @classmethod
    def of(cls, query: Keypoints, camera: Camera) -> Rays:
        """Undistort keypoints, and pixels beside them."""
        points = query.points.astype(np.float64)
        plain = camera.normalised(points)
        steps = [
            (camera.normalised(points + step) - camera.normalised(points - step)) / 2 for step in np.eye(2) / 2
        ]
        return cls(plain, 2 * np.stack(steps, axis=2))


@dataclass(frozen=True, slots=True)
class Sightings:
    """Matches of a query's keypoints with those of photographs whose poses are known.

    Attributes:
        keypoint: (M,) number of the query's keypoint.
        pixels: (M, 2) where it is, px.
        rays: (M, 2) its normalised coordinates.
        by_pixel: (M, 2, 2) their derivative by the pixel: a lens does not stretch its image evenly.
        photograph: (M,) number of the photograph among those compared.
        origins_m: (M, 3) position of the photograph, ENU.
        axes: (M, 3, 3) ``enu_from_camera`` of the photograph.
        rays_p: (M, 2) normalised coordinates of its keypoint.
        points_m: (M, 3) the triangulated point, ENU; NaN where the keypoint has none.
        point: (M,) its number in the alignment; -1: none.
        distance: (M,) squared distance of the descriptors.
    """

    keypoint: Numbers
    pixels: FloatArray
    rays: FloatArray
    by_pixel: FloatArray
    photograph: Numbers
    origins_m: FloatArray
    axes: FloatArray
    rays_p: FloatArray
    points_m: FloatArray
    point: Numbers
    distance: FloatArray

    def __len__(self) -> int:
        return len(self.keypoint)

    def __getitem__(self, chosen: NDArray[np.bool_] | Numbers) -> Sightings:
        return Sightings(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @property
    def located(self) -> NDArray[np.bool_]:
        """(M,) whether the photograph's keypoint has a triangulated point."""
        return self.point >= 0


def together(parts: Sequence[Sightings]) -> Sightings:
    """Return sightings of several photographs as one set."""
    return Sightings(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Sightings)))


def sightings(
    query: Keypoints,
    rays: Rays,
    photograph: Photograph,
    number: int,
    ratio: float,
    *,
    located: bool | None = None,
    compared: Compared | None = None,
) -> Sightings:
    """Match a query with one photograph.

    Args:
        query: Its keypoints.
        rays: Of its keypoints; those without a ray are left out.
        photograph: With a pose.
        number: By which the sightings name it.
        ratio: Maximum ratio of the distances to the nearest and the second-nearest descriptor.
        located: Match only keypoints with a triangulated point (True), without (False), or all.
        compared: Comparison of their keypoints that others have begun; None: nobody has.
    """
    every = len(query) + len(photograph.keypoints)
    if compared is None:
        compared = Comparison(prepare(query.descriptors, every), photograph.prepared(every))
    parts = {True: (LOCATED,), False: (SEEN,), None: (LOCATED, SEEN)}[located]
    usable = np.asarray(np.isfinite(rays.by_pixel).all(axis=(1, 2)))
    q, p = compared.pairs(ratio, parts, (STRONGEST, REST), usable).T
    apart = query.descriptors[q].astype(np.float64) - photograph.keypoints.descriptors[p]
    return Sightings(
        keypoint=q,
        pixels=query.points[q].astype(np.float64),
        rays=rays.plain[q],
        by_pixel=rays.by_pixel[q],
        photograph=np.full(len(q), number),
        origins_m=np.broadcast_to(photograph.position_m, (len(q), 3)),
        axes=np.broadcast_to(photograph.rotation, (len(q), 3, 3)),
        rays_p=photograph.rays[p],
        points_m=photograph.points_m[p],
        point=photograph.point[p].astype(np.int64),
        distance=(apart**2).sum(axis=1),
    )


def distinct_points(seen: Sightings) -> Sightings:
    """Keep the nearest match of every triangulated point and of every place in the query.

    A point is seen by several photographs, and SIFT gives one place several keypoints of different orientation:
    counted twice, they would count as independent evidence.
    """
    seen = seen[seen.located]
    seen = seen[np.argsort(seen.distance, kind="stable")]
    seen = seen[np.unique(seen.point, return_index=True)[1]]
    seen = seen[np.argsort(seen.distance, kind="stable")]
    return seen[_first_at_each_place(seen.pixels)]


def distinct_rays(seen: Sightings) -> Sightings:
    """Keep the nearest match of every place in the query with each photograph."""
    seen = seen[np.argsort(seen.distance, kind="stable")]
    return seen[_first_at_each_place(np.column_stack([seen.pixels, seen.photograph]))]


def _first_at_each_place(places: FloatArray) -> Numbers:
    """Numbers of the first of all rows that are equal to a quarter of a pixel, in order."""
    return np.sort(np.unique(np.rint(4 * places), axis=0, return_index=True)[1]).astype(np.int64)


def point_covariances(seen: Sightings, photographs: Sequence[Photograph], focal_px: float) -> FloatArray:
    """Return the covariance (M, 3, 3) of each triangulated point as the photographs at hand see it, m².

    The inverse of J^T J / σ² over its observations (Hartley and Zisserman, "Multiple View Geometry", sec. 5.2),
    with RANGE_STD for what another photograph, not at hand, has seen.
    """
    numbers, where = np.unique(seen.point, return_inverse=True)
    ranges = np.linalg.norm(seen.points_m - seen.origins_m, axis=1)
    information = np.zeros((len(numbers), 3, 3))
    information[where] = np.eye(3) / (RANGE_STD * ranges[:, None, None]) ** 2
    for photograph in photographs:
        known = np.flatnonzero(photograph.point >= 0)
        known = known[np.isin(photograph.point[known], numbers)]
        local = (photograph.points_m[known] - photograph.position_m) @ photograph.rotation
        jacobian = projection_jacobian(local) @ photograph.rotation.T
        jacobian *= focal_px / KEYPOINT_STD_PX
        np.add.at(
            information,
            np.searchsorted(numbers, photograph.point[known]),
            np.swapaxes(jacobian, 1, 2) @ jacobian,
        )
    return np.asarray(np.linalg.inv(information)[where])


def projection_jacobian(local: FloatArray) -> FloatArray:
    """Derivative (N, 2, 3) of normalised coordinates by the point (N, 3) in the optical frame."""
    x, y, z = local.T
    jacobian = np.zeros((len(local), 2, 3))
    jacobian[:, 0, 0] = jacobian[:, 1, 1] = 1 / z
    jacobian[:, 0, 2], jacobian[:, 1, 2] = -x / z**2, -y / z**2
    return jacobian
