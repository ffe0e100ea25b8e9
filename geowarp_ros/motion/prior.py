"""A position from elsewhere – GNSS, or the track – that limits the search to a circle, while it can be believed.

NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from geowarp_ros.config import PriorConfig
from geowarp_ros.geodesy import distance_m
from geowarp_ros.types import Answer, FloatArray, Near

SIGMAS = 3.0
"""Radius of a circle in standard deviations: holds 98.9 % of a round Gaussian in two dimensions."""

Reach: TypeAlias = Callable[[int, int], float]
"""Maximum distance (m) that the robot can have moved between two stamps."""


@dataclass(frozen=True, slots=True)
class Hint:
    """A claimed position.

    Attributes:
        latitude_deg: WGS84 latitude.
        longitude_deg: WGS84 longitude.
        std_m: Standard deviation along the worse of the two horizontal axes (m); infinite if unknown.
        stamp_ns: Time of the position.
    """

    latitude_deg: float
    longitude_deg: float
    std_m: float
    stamp_ns: int


@dataclass(frozen=True, slots=True)
class NoHint:
    """The sender says that it has no position.

    Attributes:
        reason: The reason, for people.
    """

    reason: str


def hint_from_message(message: Any) -> Hint | NoHint:
    """Return what a sensor_msgs/NavSatFix claims; a covariance of type UNKNOWN counts as none."""
    if message.status.status < 0:  # NavSatStatus.STATUS_NO_FIX
        return NoHint(f"status {message.status.status}: no fix")
    if message.latitude == 0 and message.longitude == 0:  # what receivers report without one
        return NoHint("position 0°, 0°: no fix")
    std_m, stamp = math.inf, message.header.stamp
    if message.position_covariance_type != 0:  # COVARIANCE_TYPE_UNKNOWN
        std_m = horizontal_std_m(np.asarray(message.position_covariance, np.float64).reshape(3, 3))
    stamp_ns = int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
    return Hint(float(message.latitude), float(message.longitude), std_m, stamp_ns)


def horizontal_std_m(covariance: FloatArray) -> float:
    """Return the standard deviation (m) along the worse horizontal axis of an ENU covariance (3, 3), m².

    Infinite if there is none; drivers that know nothing fill in zeros, which count as none.
    """
    horizontal = np.asarray(covariance, np.float64)[:2, :2]
    if not np.isfinite(horizontal).all():
        return math.inf
    variance = float(np.linalg.eigvalsh((horizontal + horizontal.T) / 2)[1])
    return math.sqrt(variance) if variance > 0 else math.inf


class Prior:
    """Decides for each image whether, and to which circle, the search is limited.

    With ``source: fix`` the circle lies around the newest message, with ``track`` around the newest of the node's
    own fixes. Only fixes found in the whole gallery count for a track, and only those that the one before agrees
    with: a circle around a wrong fix would go on finding what lies in it. So a search of the whole gallery
    confirms a track at least once in ``max_age_s``.

    The radius is :data:`SIGMAS` standard deviations plus the distance that the robot can have moved in between. A
    position is not used if it is too old, too uncertain, or farther from the node's own last fixes than motion
    explains.

    Args:
        config: Source, age and radii.
        reach_m: Maximum distance (m) that the robot can have moved between two stamps.
    """

    def __init__(self, config: PriorConfig, reach_m: Reach) -> None:
        self._config = config
        self._reach_m = reach_m
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._hint: Hint | None = None
        self._refused = ""
        self._own: Hint | None = None
        self._track: Hint | None = None

    def configure(self, config: PriorConfig) -> None:
        """Change the settings; what is known stays."""
        self._config = config

    def offer(self, hint: Hint | NoHint) -> None:
        """Take the newest message; if it has no valid position, the one before no longer counts."""
        if isinstance(hint, Hint) and not (abs(hint.latitude_deg) <= 90.0 and abs(hint.longitude_deg) <= 180.0):
            # NaN is neither
            hint = NoHint(f"latitude {hint.latitude_deg:g}, longitude {hint.longitude_deg:g}: no position")
        self._hint, self._refused = (None, hint.reason) if isinstance(hint, NoHint) else (hint, "")

    def near(self, stamp_ns: int) -> tuple[Near | None, str]:
        """Return the circle for an image, or None, and the reason in words."""
        source = self._config.source
        if source == "none":
            return None, "off"
        hint = self._hint if source == "fix" else self._track
        if hint is None:
            return None, (self._refused or "no message yet") if source == "fix" else "no track yet"
        age_s = abs(stamp_ns - hint.stamp_ns) * 1e-9
        if age_s > self._config.max_age_s:
            return None, f"{age_s:.1f} s old, at most {self._config.max_age_s:g} s"
        if source == "fix" and (jump := self._contradiction(hint)):
            return None, jump
        radius_m = self._radius_m(hint, stamp_ns)
        if radius_m > self._config.max_radius_m:
            return None, f"{radius_m:.0f} m wide, at most {self._config.max_radius_m:g} m"
        return Near(hint.latitude_deg, hint.longitude_deg, radius_m), f"within {radius_m:.0f} m"

    def learn(self, answer: Answer) -> None:
        """Take the session's own answer: it continues the track that messages must agree with.

        The same image again continues nothing: it agrees with itself.
        """
        fix, header = answer.fix, answer.header
        again = self._own is not None and header.stamp_ns == self._own.stamp_ns != 0
        if fix is None or header.near is not None or again:
            return
        std_m = horizontal_std_m(fix.covariance)
        new = Hint(fix.latitude_deg, fix.longitude_deg, std_m, header.stamp_ns)
        self._track = new if self._own is not None and self._agree(self._own, new) else None
        self._own = new

    def _radius_m(self, hint: Hint, stamp_ns: int) -> float:
        if math.isinf(hint.std_m):
            return self._config.max_radius_m
        wide_m = SIGMAS * hint.std_m + self._reach_m(hint.stamp_ns, stamp_ns)
        return max(self._config.min_radius_m, wide_m)

    def _contradiction(self, hint: Hint) -> str:
        """Return how a message contradicts the node's own fixes; empty if it does not or there is none."""
        own = self._track
        if own is None or abs(hint.stamp_ns - own.stamp_ns) * 1e-9 > self._config.max_age_s:
            return ""
        if self._agree(own, hint):
            return ""
        return f"{_apart_m(own, hint):.0f} m from the node's own last fix"

    def _agree(self, one: Hint, other: Hint) -> bool:
        """Return whether motion and both uncertainties explain the distance, up to the maximum radius."""
        allowed_m = SIGMAS * (one.std_m + other.std_m) + self._reach_m(one.stamp_ns, other.stamp_ns)
        return _apart_m(one, other) <= min(max(allowed_m, self._config.min_radius_m), self._config.max_radius_m)


def _apart_m(one: Hint, other: Hint) -> float:
    return float(distance_m(one.latitude_deg, one.longitude_deg, other.latitude_deg, other.longitude_deg))
