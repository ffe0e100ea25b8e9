"""What a query sees in its photographs, matched as it is asked for, and which pose of it is to be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from geowarp_ros.cameras import Camera
from geowarp_ros.config import PoseConfig
from geowarp_ros.gallery.alignment.aligned import Photograph
from geowarp_ros.keypoints.detector import Keypoints
from geowarp_ros.keypoints.matching import Compared
from geowarp_ros.pose.refinement import Refined, refine, rough_agreement
from geowarp_ros.pose.sightings import Rays, Sightings, point_covariances, sightings, together
from geowarp_ros.pose.solvers import Guess
from geowarp_ros.types import Gravity, Pose, PoseMethod

MIN_INLIERS = 8
"""Minimum number of matches that obey a pose: three determine it."""

MIN_SIGNIFICANCE = 6.0
"""A pose whose matches are not a million times likelier than matches anywhere is none."""

MIN_SPREAD = 0.02
"""Minimum share of the image that the inliers cover: below lies a passing car, a sign, a window."""

MIN_ACROSS_PX = 4.0
"""Minimum standard deviation of the inliers across the line that fits them best: points on a line let the pose
turn about it, and their noise alone would hold it."""

MAX_STD_M = 3.0
"""Maximum standard deviation in any direction: beyond, the place of a photograph is as good an answer."""

MAX_STD_RAD = 0.15
"""Maximum standard deviation about any axis: a pose that may turn about a line of points is none."""


@dataclass(frozen=True, slots=True)
class View:
    """A query before its photographs.

    Attributes:
        query: Its keypoints, px at working resolution.
        camera: Its camera at working resolution.
        photographs: Those with a pose, best candidate first.
        config: Ratio and thresholds.
        gravity: Where up is, if something says.
        rays: Of the query's keypoints.
        compared: Comparisons with the photographs' keypoints that others have begun; None where nobody has.
    """

    query: Keypoints
    camera: Camera
    photographs: Sequence[Photograph]
    config: PoseConfig
    gravity: Gravity | None
    rays: Rays
    compared: Callable[[Photograph], Compared | None] = lambda photograph: None
    _matched: dict[tuple[int, bool], Sightings] = field(default_factory=dict)

    def sightings(self, count: int, *, located: bool) -> Sightings:
        """Matches with the first ``count`` photographs' keypoints, those with a point (``located``) or without."""
        for number in range(count):
            if (number, located) not in self._matched:
                photograph = self.photographs[number]
                self._matched[number, located] = sightings(
                    self.query, self.rays, photograph, number, self.config.ratio,
                    located=located, compared=self.compared(photograph),
                )  # fmt: skip
        return together([self._matched[number, located] for number in range(count)])

    def pose(self, method: PoseMethod, seen: Sightings, guesses: Sequence[Guess], count: int = 2) -> Pose | None:
        """Refine the likeliest guesses over matches; the best as a pose, None where it is not to be trusted."""
        covariances = point_covariances(seen, self.photographs, self.camera.focal_px)
        if len(guesses) > count:
            rough = [rough_agreement(seen, covariances, *guess, self.camera) for guess in guesses]
            guesses = [guesses[number] for number in np.argsort(rough)[::-1][:count]]
        refined = [refine(seen, covariances, *guess, self.camera, self.gravity) for guess in guesses]
        fitting = max((r for r in refined if r is not None), key=lambda r: r.significance, default=None)
        if fitting is None or fitting.inlier.sum() < MIN_INLIERS:
            return None
        if np.linalg.eigvalsh(np.cov(seen.pixels[fitting.inlier].T))[0] < MIN_ACROSS_PX**2:
            return None
        pose = self._told(method, seen, fitting)
        determined = (
            np.linalg.eigvalsh(pose.covariance[:3, :3])[-1] < MAX_STD_M**2
            and np.linalg.eigvalsh(pose.covariance[3:, 3:])[-1] < MAX_STD_RAD**2
        )
        return pose if determined and pose.significance > MIN_SIGNIFICANCE and pose.spread > MIN_SPREAD else None

    def _told(self, method: PoseMethod, seen: Sightings, refined: Refined) -> Pose:
        inliers = seen[refined.inlier]
        support = [self.photographs[number] for number in np.unique(inliers.photograph)]
        covariance = refined.covariance.copy()
        # what the photographs' own errors have in common moves the camera with them
        position_variance = np.mean([photograph.position_std_m**2 for photograph in support])
        covariance[:3, :3] += position_variance * np.eye(3)
        covariance[5, 5] += np.nan_to_num(np.mean([photograph.heading_std_rad**2 for photograph in support]))
        count = len(inliers)
        width, height = np.ptp(inliers.pixels, axis=0)
        return Pose(
            method=method,
            position_m=refined.position_m,
            rotation=refined.rotation,
            covariance=covariance,
            inliers=count,
            near_m=float(np.nanpercentile(refined.ranges_m[refined.inlier], 10)),
            photographs=len(support),
            spread=float(width * height) / (self.camera.width_px * self.camera.height_px),
            residual_px=float(np.median(refined.residuals_px[refined.inlier])),
            apart_m=min(math.dist(refined.position_m, photograph.position_m) for photograph in support),
            significance=refined.significance,
            photographs_std_m=math.sqrt(position_variance),
        )
