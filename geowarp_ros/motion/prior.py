"""A position from elsewhere – GNSS, or the track – that limits the search to a circle, while it can be believed.

NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from geowarp_ros.config import PriorConfig
from geowarp_ros.geodesy import distance_m
from geowarp_ros.types import Fix, FloatArray, Near, NoFix

SIGMAS = 3.0
"""Standard deviations that a circle holds: 98.9 % of a round Gaussian in two dimensions."""

Reach: TypeAlias = Callable[[int, int], float]
"""How far the robot can have come between two stamps, in m."""


@dataclass(frozen=True, slots=True)
class Hint:
    """A position that somebody claims.

    Attributes:
        latitude_deg: WGS84 latitude.
        longitude_deg: WGS84 longitude.
        std_m: Standard deviation along the worse of the two horizontal axes; infinite where nobody says.
        stamp_ns: When it was there.
    """

    latitude_deg: float
    longitude_deg: float
    std_m: float
    stamp_ns: int


def horizontal_std_m(covariance: FloatArray) -> float:
    """Standard deviation along the worse horizontal axis of an ENU covariance (3, 3), m²; infinite for none.

    Drivers fill in zeros where they know nothing: that is none, too.
    """
    horizontal = np.asarray(covariance, np.float64)[:2, :2]
    if not np.isfinite(horizontal).all():
        return math.inf
    variance = float(np.linalg.eigvalsh((horizontal + horizontal.T) / 2)[1])
    return math.sqrt(variance) if variance > 0 else math.inf


class Prior:
    """Decides for each image whether, and to which circle, the search is limited.

    With ``source: fix`` the circle is about the newest message; with ``track`` about the newest of the node's own
    fixes. Only fixes found in the whole gallery count for that, and only those that the one before agrees with: a
    circle about a wrong fix would go on finding what lies in it. So a track is confirmed, by a search of the whole
    gallery, at least once in ``max_age_s``.

    The circle holds :data:`SIGMAS` standard deviations and the way that the robot can have come in between. What
    is too old, too vague, or farther from the node's own last fixes than motion explains is not used.

    Args:
        config: Source, age and radii.
        reach_m: How far the robot can have come between two stamps.
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

    def offer(self, hint: Hint) -> None:
        """Take the newest message's position; nonsense is refused."""
        if not (abs(hint.latitude_deg) <= 90.0 and abs(hint.longitude_deg) <= 180.0):  # NaN is neither
            self.refuse(f"latitude {hint.latitude_deg:g}, longitude {hint.longitude_deg:g}: no position")
            return
        self._hint, self._refused = hint, ""

    def refuse(self, why: str) -> None:
        """The newest message has no position: its sender is lost, and the one before counts no longer."""
        self._hint, self._refused = None, why

    def near(self, stamp_ns: int) -> tuple[Near | None, str]:
        """Return the circle for an image, or None; and in words, why."""
        source = self._config.source
        if source == "none":
            return None, "off"
        hint = self._hint if source == "fix" else self._track
        if hint is None:
            return None, self._refused or ("no message yet" if source == "fix" else "no track yet")
        age_s = abs(stamp_ns - hint.stamp_ns) * 1e-9
        if age_s > self._config.max_age_s:
            return None, f"{age_s:.1f} s old, at most {self._config.max_age_s:g} s"
        if source == "fix" and (jump := self._contradiction(hint)):
            return None, jump
        radius_m = self._radius_m(hint, stamp_ns)
        if radius_m > self._config.max_radius_m:
            return None, f"{radius_m:.0f} m wide, at most {self._config.max_radius_m:g} m"
        return Near(hint.latitude_deg, hint.longitude_deg, radius_m), f"within {radius_m:.0f} m"

    def learn(self, answer: Fix | NoFix) -> None:
        """Take the node's own answer: of the track, and what a message must agree with."""
        if isinstance(answer, NoFix) or answer.near is not None:
            return
        std_m = horizontal_std_m(answer.covariance)
        new = Hint(answer.latitude_deg, answer.longitude_deg, std_m, answer.stamp_ns)
        self._track = new if self._own is not None and self._agree(self._own, new) else None
        self._own = new

    def _radius_m(self, hint: Hint, stamp_ns: int) -> float:
        if math.isinf(hint.std_m):
            return self._config.max_radius_m
        wide_m = SIGMAS * hint.std_m + self._reach_m(hint.stamp_ns, stamp_ns)
        return max(self._config.min_radius_m, wide_m)

    def _contradiction(self, hint: Hint) -> str:
        """Say how a message contradicts the node's own fixes; empty where it does not, or where there is none."""
        own = self._track
        if own is None or abs(hint.stamp_ns - own.stamp_ns) * 1e-9 > self._config.max_age_s:
            return ""
        if self._agree(own, hint):
            return ""
        return f"{_apart_m(own, hint):.0f} m from the node's own last fix"

    def _agree(self, one: Hint, other: Hint) -> bool:
        """Whether motion and both uncertainties explain the distance, or the uncertainty is not known."""
        allowed_m = SIGMAS * (one.std_m + other.std_m) + self._reach_m(one.stamp_ns, other.stamp_ns)
        return _apart_m(one, other) <= min(max(allowed_m, self._config.min_radius_m), self._config.max_radius_m)


def _apart_m(one: Hint, other: Hint) -> float:
    return float(distance_m(one.latitude_deg, one.longitude_deg, other.latitude_deg, other.longitude_deg))
