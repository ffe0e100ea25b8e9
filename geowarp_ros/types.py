"""The values that pass between rooms. NumPy only, no torch, no ROS.

Angles are WGS84 degrees, lengths metres, times nanoseconds since the epoch of the clock that stamped them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from geowarp_ros.cameras import Camera

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) uint8, RGB."""

FloatArray: TypeAlias = NDArray[np.floating]

NoFixReason: TypeAlias = Literal[
    "empty_gallery", "no_texture", "low_confidence", "disagreement", "jump", "paused", "no_image", "unknown"
]
"""Why there is no position. ``no_texture``: the image shows nothing that could be recognised.
``low_confidence``: the best candidate is too unlike the query. ``disagreement``: the candidates that are alike lie
too far from one another. ``jump``: the motion, by the track or by odometry, does not explain the place.
``unknown``: a recorded NO_FIX does not say."""


def confidence_text(confidence: float) -> str:
    """Return a confidence with three digits, rounded down: what is not enough does not look like it."""
    return f"{math.floor(1000.0 * confidence + 1e-9) / 1000.0:.3f}"


@dataclass(frozen=True, slots=True)
class Place:
    """One geotagged photograph of the gallery.

    Attributes:
        name: The image's path relative to its source; unique within a gallery.
        latitude_deg: WGS84 latitude, -90 to 90.
        longitude_deg: WGS84 longitude, -180 to 180.
        altitude_m: Height above the WGS84 ellipsoid as its source gave it; NaN where unknown.
        heading_deg: Compass heading of the optical axis, clockwise from north, 0 to 360; NaN where unknown.
        stamp_ns: When it was taken; 0 where unknown.
    """

    name: str
    latitude_deg: float
    longitude_deg: float
    altitude_m: float = math.nan
    heading_deg: float = math.nan
    stamp_ns: int = 0


@dataclass(frozen=True, slots=True)
class Gravity:
    """Where up is in the camera's optical frame, as an IMU says.

    Attributes:
        up: (3,) unit vector in the optical frame.
        std_rad: Standard deviation about each horizontal axis.
    """

    up: FloatArray
    std_rad: float


@dataclass(frozen=True, slots=True)
class Frame:
    """One camera image to be localised.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        stamp_ns: When it was taken.
        frame_id: The camera's optical frame (REP 105), or empty.
        camera: Its intrinsics for an image of that size; None where unknown.
        gravity: Where up is; None where nothing says so.
    """

    image: Image
    stamp_ns: int = 0
    frame_id: str = ""
    camera: Camera | None = None
    gravity: Gravity | None = None


@dataclass(frozen=True, slots=True)
class Near:
    """A prior: the camera is somewhere in this circle.

    Attributes:
        latitude_deg: WGS84 latitude of the centre.
        longitude_deg: WGS84 longitude of the centre.
        radius_m: Radius on the ground, above 0.
    """

    latitude_deg: float
    longitude_deg: float
    radius_m: float


ScoreUnit: TypeAlias = Literal["mean cosine", "correlation", "inliers"]
"""Unit of a re-ranking score; larger is better in all. ``mean cosine``: -1 to 1, eq. 4 over the number of cells.
``correlation``: -1 to 1.1, likeness and coherence of :mod:`geowarp_ros.rerank.fast`. ``inliers``: number of
matches that obey one homography."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One gallery place that may be where the query was taken.

    Attributes:
        index: Row in the gallery.
        place: The geotagged photograph.
        distance: Squared Euclidean distance of the descriptors; smaller is more alike.
        score: Re-ranking score, larger is better; None where it was not re-ranked.
        score_unit: Unit of the score; None where it has none.
        score_unwarped: The same score without the warp; None where not computed.
        quad_q: (4, 2) quad on the query, clockwise from top-left, -1..1; None without a warp.
        quad_p: (4, 2) quad on the candidate, likewise.
        inliers: Matches with the query that obey one homography; None where it was not verified.
    """

    index: int
    place: Place
    distance: float
    score: float | None = None
    score_unit: ScoreUnit | None = None
    score_unwarped: float | None = None
    quad_q: FloatArray | None = None
    quad_p: FloatArray | None = None
    inliers: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values: path, latitude, longitude, altitude (null if unknown), distance, score."""
        place = self.place
        return {
            "path": place.name,
            "latitude": place.latitude_deg,
            "longitude": place.longitude_deg,
            "altitude": None if math.isnan(place.altitude_m) else place.altitude_m,
            "distance": self.distance,
            "score": self.score,
        }


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the ranked candidates say about the position of the best one.

    Attributes:
        east_north_m: (N, 2) positions of the candidates relative to the best one, m.
        weights: (N,) in (0, 1], from ratios of descriptor distances.
        agrees: (N,) bool, within the cluster radius of the best one.
        agreement: Share of the weight that agrees, 0..1: spatial uncertainty estimation (Zaffar et al., "On the
            Estimation of Image-matching Uncertainty in Visual Place Recognition", CVPR 2024).
        distance: Squared descriptor distance of the best one.
        contrast: Distance of the nearest candidate elsewhere over the best one's; 1 if there is none elsewhere.
        score: Re-ranking score of the best one; NaN where it was not re-ranked.
        score_gain: Score minus the unwarped score; NaN likewise.
        score_margin: Score minus the best score elsewhere; 0 if there is none, NaN where not re-ranked.
        quad_area: Smaller area of the two quads over the frame's; 0 for a quad that folds; NaN without a warp.
        inliers: Matches with the best one that obey one homography; NaN where it was not verified.
        rival_inliers: Most inliers of any verified candidate elsewhere; 0 if there is none, NaN likewise.
    """

    east_north_m: FloatArray
    weights: FloatArray
    agrees: NDArray[np.bool_]
    agreement: float
    distance: float
    contrast: float
    score: float
    score_gain: float
    score_margin: float
    quad_area: float
    inliers: float
    rival_inliers: float

    @property
    def contrasted(self) -> bool:
        """Whether any candidate lies elsewhere."""
        return not bool(self.agrees.all())


PoseMethod: TypeAlias = Literal["points", "anchors", "cluster", "best"]
"""Where a position is from. ``points``: the camera's pose from the gallery's triangulated points; ``anchors``:
from relative poses to photographs; ``cluster``, ``best``: the place of photographs, without an orientation."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a camera is and where it looks, as an estimator found it from matches.

    Convention:
        ENU of the gallery's alignment; ``rotation`` is ``enu_from_camera`` of the optical frame (REP 103: x right,
        y down, z forward). The covariance is of (east, north, up, rotation about east, north, up), in m² and rad²;
        the rotation error is a small rotation vector in ENU applied from the left.

    Attributes:
        method: Estimator.
        position_m: (3,) position of the camera.
        rotation: (3, 3) ``enu_from_camera``.
        covariance: (6, 6) of the estimate, symmetric positive definite, as the estimator has it, not calibrated.
        inliers: Number of matches that obey it.
        near_m: 10th percentile of the inliers' distances from the camera, m.
        photographs: Number of photographs that support it.
        spread: Share of the image that the inliers cover: area of their bounding box over the image's, 0..1.
        residual_px: Median reprojection error of the inliers.
        apart_m: Distance from the nearest of the candidates it was measured against, m.
        significance: Decimal logarithm of how unlikely it is that as many matches obey it by chance.
        photographs_std_m: Standard deviation per axis that the photographs' own positions have in common, m.
    """

    method: PoseMethod
    position_m: FloatArray
    rotation: FloatArray
    covariance: FloatArray
    inliers: int
    near_m: float
    photographs: int
    spread: float
    residual_px: float
    apart_m: float
    significance: float = math.nan
    photographs_std_m: float = 0.0

    @property
    def std_m(self) -> float:
        """Horizontal standard deviation along the worse axis, m, not calibrated."""
        return float(np.sqrt(np.linalg.eigvalsh(np.asarray(self.covariance, float)[:2, :2])[-1]))

    @property
    def fit_std_m(self) -> float:
        """The same were the photographs where the gallery says: how well the matches determine the position."""
        return math.sqrt(max(self.std_m**2 - self.photographs_std_m**2, 0.0))


@dataclass(frozen=True, slots=True)
class Fix:
    """A position with its uncertainty, and where the camera looks if it is known.

    Attributes:
        latitude_deg: WGS84 latitude.
        longitude_deg: WGS84 longitude.
        altitude_m: Altitude where the gallery knows it, else 0 with a vertical variance that says so.
        covariance: (3, 3) east, north, up in m², symmetric positive definite.
        confidence: Probability that the position is right, 0..1.
        method: Where the position is from.
        orientation: Quaternion (x, y, z, w) of the camera's body frame (x forward, y left, z up) in ENU
            (REP 103); None where unknown.
        heading_deg: Compass heading, clockwise from true north, 0 to 360: of the optical axis; of a camera that
            looks down, of the image's top. NaN where unknown.
        heading_std_deg: Standard deviation of the heading; NaN where unknown.
        pose_covariance: (6, 6) of east, north, up, and rotation about east, north, up, in m² and rad² (REP 103);
            its first block is ``covariance``. None where the orientation is unknown.
    """

    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    covariance: FloatArray
    confidence: float
    method: PoseMethod = "cluster"
    orientation: tuple[float, float, float, float] | None = None
    heading_deg: float = math.nan
    heading_std_deg: float = math.nan
    pose_covariance: FloatArray | None = None

    @property
    def std_m(self) -> float:
        """Horizontal standard deviation along the worse axis, m."""
        return float(np.sqrt(np.linalg.eigvalsh(np.asarray(self.covariance, float)[:2, :2])[-1]))


@dataclass(frozen=True, slots=True)
class NoFix:
    """An honest absence of a position, with its reason.

    Attributes:
        reason: One word for programs.
        detail: The same for people, with the values that led to it.
        confidence: Probability that the best candidate's position is right, 0..1.
        held_back: The fix that the motion did not explain, with the reason ``jump``.
    """

    reason: NoFixReason
    detail: str = ""
    confidence: float = 0.0
    held_back: Fix | None = field(default=None, compare=False, repr=False)


class Deadline(Protocol):
    """What there is still time for, by the clock at the moment of asking."""

    def __call__(self) -> int | None:
        """Number of candidates to re-rank, at least 1; None: all that are configured."""

    def affords(self, rung: PoseMethod, /) -> bool:
        """Whether there is time for a rung of the pose."""


class NoDeadline:
    """The null deadline: there is time for everything."""

    def __call__(self) -> None:
        """Return that all candidates are re-ranked."""

    def affords(self, rung: PoseMethod, /) -> bool:
        """Return that there is time."""
        return True


@dataclass(frozen=True, slots=True)
class Header:
    """What belongs to an answer whatever it says.

    Attributes:
        stamp_ns: Stamp of the image.
        frame_id: Frame of the image (REP 105), or empty.
        near: Circle to which the search was limited; None: the whole gallery was searched.
        reranked: How many candidates were handed to the re-ranker, over all searches.
        timing_ms: Duration of each stage, ms.
        camera: Source of the camera model that was used; empty without one.
        dropped: What there was no time for: rungs of the pose, and ``candidates`` where not all were re-ranked.
    """

    stamp_ns: int = 0
    frame_id: str = ""
    near: Near | None = None
    reranked: int = 0
    timing_ms: dict[str, float] = field(default_factory=dict)
    camera: str = ""
    dropped: tuple[str, ...] = ()

    @property
    def total_ms(self) -> float:
        """Duration of all stages together, ms."""
        return sum(self.timing_ms.values())


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and an image that it was matched with.

    Attributes:
        query: (H, W, 3) uint8 RGB.
        candidate: The same; its size may differ.
        points_q: (N, 2) keypoints of the query that agree with the candidate's on one homography, -1..1.
        points_p: (N, 2) those of the candidate.
        matches: Number of keypoints that were matched; 0 where none were looked for.
    """

    query: Image
    candidate: Image
    points_q: FloatArray
    points_p: FloatArray
    matches: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the localizer says about one image.

    Attributes:
        header: Stamp, frame, circle searched, timing.
        result: A Fix or a NoFix.
        candidates: Best first; may be empty.
        evidence: What the candidates say; None without candidates.
        pose: What was estimated from matches, trusted or not; None without a pose.
        pair: Reads the best candidate's image and matches it with the query, for pictures; None without either.
    """

    header: Header
    result: Fix | NoFix
    candidates: tuple[Candidate, ...] = ()
    evidence: Evidence | None = None
    pose: Pose | None = None
    pair: Callable[[], Pair] | None = field(default=None, compare=False, repr=False)

    @property
    def fix(self) -> Fix | None:
        """The result if it is a fix."""
        return self.result if isinstance(self.result, Fix) else None

    @property
    def confidence(self) -> float:
        """Confidence of the result, 0..1."""
        return self.result.confidence

    def __repr__(self) -> str:
        """Return one line for people."""
        result = self.result
        words = [f"confidence {confidence_text(result.confidence)}", *(c.place.name for c in self.candidates[:1])]
        if isinstance(result, Fix):
            place = f"{result.latitude_deg:.5f}, {result.longitude_deg:.5f}"
            parts = [f"Fix {place} ± {result.std_m:.{0 if result.std_m >= 1 else 1}f} m"]
            if result.orientation is not None:
                parts += [f"heading {result.heading_deg:.1f} ± {result.heading_std_deg:.1f}°", result.method]
            return ", ".join([*parts, *words])
        said = f"NoFix {result.reason}: {result.detail or words[0]}"
        guess = [
            f"; best guess {place.name}, {place.latitude_deg:.5f}, {place.longitude_deg:.5f}"
            for place in [candidate.place for candidate in self.candidates[:1]]
        ]
        return "".join([said, *guess])

    def _repr_html_(self) -> str:
        """Return the line and, where images are at hand, the matched pair: what a notebook shows."""
        from geowarp_ros.pictures import answer_html  # brings OpenCV

        return answer_html(self)

    def to_dict(self, image: str = "") -> dict[str, Any]:
        """Return JSON-ready values: the form of ``geowarp localize --json`` and of ``~/localize``.

        Keys: image, status (fix | no_fix), reason, detail, latitude, longitude, altitude, covariance (9 values
        row-major, m²), confidence, method (points | anchors | cluster | best), heading_deg (clockwise from true
        north: of the optical axis; of a camera that looks down, of the image's top), heading_std_deg, orientation
        (x, y, z, w of the body frame, x forward, in ENU), pose_covariance (36 values row-major: east, north, up,
        rotation about each, m² and rad²), camera (source of the camera model), candidates
        (:meth:`Candidate.to_dict`), score_unit (mean cosine | correlation | inliers), near (latitude, longitude,
        radius_m of the circle searched), timing_ms, dropped (what there was no time for:
        anchors | points | candidates). What is not known, or what a NoFix lacks, is null.
        """
        result, near = self.result, self.header.near
        fix = self.fix
        return {
            "image": image,
            "status": "fix" if fix else "no_fix",
            "reason": None if isinstance(result, Fix) else result.reason,
            "detail": None if isinstance(result, Fix) else result.detail,
            "latitude": fix.latitude_deg if fix else None,
            "longitude": fix.longitude_deg if fix else None,
            "altitude": fix.altitude_m if fix else None,
            "covariance": [float(value) for value in fix.covariance.flat] if fix else None,
            "confidence": result.confidence,
            "method": fix.method if fix else None,
            "heading_deg": _known(fix.heading_deg) if fix else None,
            "heading_std_deg": _known(fix.heading_std_deg) if fix else None,
            "orientation": [float(value) for value in fix.orientation] if fix and fix.orientation else None,
            "pose_covariance": None
            if fix is None or fix.pose_covariance is None
            else [float(value) for value in fix.pose_covariance.flat],
            "camera": self.header.camera or None,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "score_unit": next((c.score_unit for c in self.candidates if c.score is not None), None),
            "near": near and {
                "latitude": near.latitude_deg, "longitude": near.longitude_deg, "radius_m": near.radius_m
            },
            "timing_ms": {stage: round(value, 3) for stage, value in self.header.timing_ms.items()},
            "dropped": list(self.header.dropped),
        }  # fmt: skip


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
