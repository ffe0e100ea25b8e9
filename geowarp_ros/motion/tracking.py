"""Fixes over time: jumps that the motion cannot explain are held back. NumPy only."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from geowarp_ros.config import TrackingConfig
from geowarp_ros.integrity.evidence import candidate_weights
from geowarp_ros.types import Answer, Candidate, FloatArray, NoFix

_FORGOTTEN = 1e-9
"""Belief below which a place leaves the filter's support."""

RELOCALISES_WITHIN = 5
"""Number of images within which a robot that was carried off is found again, with the default settings, if they
rank the new place first, give it at least 0.3 of the candidates' weight, and none to the place that it left.

From the recursion: the new place starts with kidnap_probability shared among the N places held, and gains on the
old one by a factor of at least (0.98 · 0.3 + 0.02) / 0.02 = 15.7 an image, so it has most of the belief
once 15.7^n > N / 0.001: after five images for all N < 953. 20 candidates an image hold fewer than 200 places."""

_TRUST = 0.98
"""Share of an image's evidence that comes from its candidates; the rest is the same for every place."""


class Tracker(Protocol):
    """Judges answers in the order of their images."""

    def __call__(self, answer: Answer, travelled_m: float | None = None, /) -> Answer:
        """Return the answer, with a NoFix in the place of a fix that is a jump.

        Args:
            answer: The answer to the newest image.
            travelled_m: Path length since the image before, by odometry (m); None without odometry.
        """

    def reset(self) -> None:
        """Forget everything."""


class NoTracking:
    """The null tracker: every image stands for itself."""

    def __call__(self, answer: Answer, travelled_m: float | None = None, /) -> Answer:
        """Return the answer as it is."""
        return answer

    def reset(self) -> None:
        """Nothing to forget."""


class HmmTracker:
    """A causal forward filter over the gallery's places (hidden Markov model; Rabiner 1989, sec. III.A).

    A place's belief is carried to the places that the robot can have reached since – by the maximum speed and the
    elapsed time, or by odometry – and multiplied by the share of the candidates' weight around it. A small
    probability of having been carried anywhere lets the filter recover: after that, a few images that agree with
    one another move the belief. A fix is published only where at least half of the belief lies.

    Only places with belief and the newest candidates are held, so the cost does not grow with the gallery.
    State is forgotten after ``forget_after_s`` without an image.
    """

    def __init__(self, positions_m: FloatArray, cluster_radius_m: float, config: TrackingConfig) -> None:
        self._positions_m = positions_m
        self._radius_m = cluster_radius_m
        self._config = config
        self.reset()

    def reset(self) -> None:
        """Forget where the robot was."""
        self._places = np.zeros(0, np.int64)
        self._belief = np.zeros(0)
        self._stamp_ns: int | None = None

    def __call__(self, answer: Answer, travelled_m: float | None = None, /) -> Answer:
        """Update the belief; a fix that is a jump becomes a NoFix ``jump``."""
        if not answer.candidates:
            return answer
        stamp_ns = answer.header.stamp_ns
        seen = bool(stamp_ns) and stamp_ns == self._stamp_ns
        first = not len(self._places)
        if not seen:  # an image that is asked about again is no new evidence
            elapsed_s = self._elapsed_s(stamp_ns)
            if elapsed_s is None:
                self.reset()
                elapsed_s, first = 0.0, True
            self._predict(answer.candidates, elapsed_s, travelled_m)
            self._correct(answer.candidates)
            self._stamp_ns = max(stamp_ns, self._stamp_ns or 0)
        if answer.fix is None or first:
            return answer
        support = self.belief_around(answer.candidates[0].index)
        if support >= 0.5:
            return answer
        detail = f"{support:.2f} of the track's belief lies there; the motion does not explain the jump"
        return replace(answer, result=NoFix("jump", detail, answer.confidence, answer.fix))

    def belief_around(self, place: int) -> float:
        """Return the share of the belief within the cluster radius of a place, 0..1."""
        offsets = self._positions_m[self._places] - self._positions_m[place]
        return float(self._belief[np.hypot(offsets[:, 0], offsets[:, 1]) <= self._radius_m].sum())

    def _elapsed_s(self, stamp_ns: int) -> float | None:
        """Return the time since the last image (s); None if the track has expired."""
        if self._stamp_ns is None:
            return None
        elapsed_s = abs(stamp_ns - self._stamp_ns) / 1e9
        return elapsed_s if elapsed_s <= self._config.forget_after_s else None

    def _predict(self, candidates: tuple[Candidate, ...], elapsed_s: float, travelled_m: float | None) -> None:
        """Carry the belief to where the robot can be now, over the old support and the new candidates."""
        places = np.union1d(self._places, [candidate.index for candidate in candidates]).astype(np.int64)
        uniform = np.full(len(places), 1.0 / len(places))
        if len(self._places):
            here, there = self._positions_m[self._places, :2], self._positions_m[places, :2]
            apart_m = np.linalg.norm(here[:, None] - there[None], axis=2)
            reach_m = self._config.max_speed_mps * elapsed_s if travelled_m is None else travelled_m
            # a gallery place stands for what lies around it, hence the radius on top of the way
            beyond = np.maximum(apart_m - reach_m - self._radius_m, 0.0) / self._radius_m
            moves = np.exp(-0.5 * beyond**2)
            carried = self._belief @ (moves / moves.sum(axis=1, keepdims=True))
            kidnapped = self._config.kidnap_probability
            self._belief = (1.0 - kidnapped) * carried + kidnapped * uniform
        else:
            self._belief = uniform
        self._places = places

    def _correct(self, candidates: tuple[Candidate, ...]) -> None:
        """Multiply the belief by the evidence of the candidates around each place (the forward step)."""
        rows = np.array([candidate.index for candidate in candidates])
        share = candidate_weights(np.array([candidate.distance for candidate in candidates]))
        # what re-ranking put first counts as the nearest, whatever its descriptor said
        share[0] = share.max()
        share = share / share.sum()
        there, seen = self._positions_m[self._places, :2], self._positions_m[rows, :2]
        around = np.linalg.norm(there[:, None] - seen[None], axis=2) <= self._radius_m
        evidence = _TRUST * (around @ share) + (1.0 - _TRUST)
        belief = self._belief * evidence
        belief /= belief.sum()
        kept = belief > _FORGOTTEN
        self._places, self._belief = self._places[kept], belief[kept] / belief[kept].sum()


def build_tracker(config: TrackingConfig, positions_m: FloatArray, cluster_radius_m: float) -> Tracker:
    """Return the tracker that the configuration names; positions (N, 2 or 3) are the gallery's, local ENU, m."""
    if config.method == "none":
        return NoTracking()
    return HmmTracker(positions_m, cluster_radius_m, config)
