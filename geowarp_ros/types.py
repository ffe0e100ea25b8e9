"""The values that pass between rooms. NumPy only, no torch, no ROS.

Angles are WGS84 degrees, lengths metres, times nanoseconds since the epoch of the clock that stamped them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) uint8, RGB."""

FloatArray: TypeAlias = NDArray[np.floating]

NoFixReason: TypeAlias = Literal[
    "empty_gallery", "no_texture", "low_confidence", "disagreement", "jump", "paused", "no_image", "unknown"
]
"""Why there is no position. ``no_texture``: the image shows nothing that could be recognised.
``low_confidence``: the best candidate is too unlike the query. ``disagreement``: the candidates that are alike lie
too far from one another. ``jump``: the track's motion does not explain the place. ``unknown``: a recorded NO_FIX
does not say."""


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
class Frame:
    """One camera image to be localised.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        stamp_ns: When it was taken.
        frame_id: The camera's optical frame (REP 105), or empty.
    """

    image: Image
    stamp_ns: int = 0
    frame_id: str = ""


@dataclass(frozen=True, slots=True)
class Near:
    """A prior: the camera is somewhere in this circle.

    Attributes:
        latitude_deg: WGS84 latitude of the centre.
        longitude_deg: WGS84 longitude of the centre.
        radius_m: Of the circle on the ground, above 0.
    """

    latitude_deg: float
    longitude_deg: float
    radius_m: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """One gallery place that may be where the query was taken.

    Attributes:
        index: Row in the gallery.
        place: The geotagged photograph.
        distance: Squared Euclidean distance of the descriptors, whitened where the gallery's are; smaller is more
            alike.
        score: Re-ranking score, larger is better; None where the candidate was not re-ranked.
        score_unwarped: The same score without the warp; None where not computed.
        quad_q: (4, 2) the query's quad, clockwise from top-left, -1..1; None without a warp.
        quad_p: (4, 2) the candidate's quad, likewise.
        inliers: Matched points that obey one homography between query and place; None where it was not verified.
    """

    index: int
    place: Place
    distance: float
    score: float | None = None
    score_unwarped: float | None = None
    quad_q: FloatArray | None = None
    quad_p: FloatArray | None = None
    inliers: int | None = None


@dataclass(frozen=True, slots=True)
class Fix:
    """A position with its uncertainty.

    Attributes:
        latitude_deg: WGS84 latitude.
        longitude_deg: WGS84 longitude.
        altitude_m: Altitude where the gallery knows it, else 0 with a vertical variance that says so.
        covariance: (3, 3) east, north, up in m², symmetric positive definite.
        confidence: 0..1, larger is surer.
        candidates: Best first.
        stamp_ns: The image's stamp.
        frame_id: The image's frame.
        timing_ms: Duration by stage.
        near: The circle to which the search was limited; None where it was the whole gallery.
    """

    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    covariance: FloatArray
    confidence: float
    candidates: tuple[Candidate, ...] = ()
    stamp_ns: int = 0
    frame_id: str = ""
    timing_ms: dict[str, float] = field(default_factory=dict)
    near: Near | None = None


@dataclass(frozen=True, slots=True)
class NoFix:
    """An honest absence of a position, with its reason.

    Attributes:
        reason: One word for programs.
        detail: The same for people, with the values that led to it.
        confidence: 0..1, larger is surer.
        candidates: Best first; may be empty.
        stamp_ns: The image's stamp.
        frame_id: The image's frame.
        timing_ms: Duration by stage.
        near: The circle to which the search was limited; None where it was the whole gallery.
    """

    reason: NoFixReason
    detail: str = ""
    confidence: float = 0.0
    candidates: tuple[Candidate, ...] = ()
    stamp_ns: int = 0
    frame_id: str = ""
    timing_ms: dict[str, float] = field(default_factory=dict)
    near: Near | None = None
