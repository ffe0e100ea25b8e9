"""Priors for a study: circles around the truth, or around a place elsewhere, and what is published within them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geowarp_ros.config import PriorConfig
from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation.asking import Circle, LeaveOut, Question, ask, sample_of, way
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.integrity.calibration import Calibration, Sample
from geowarp_ros.localizer import Localizer
from geowarp_ros.motion.prior import Hint, Prior
from geowarp_ros.progress import Progress, silent
from geowarp_ros.types import Near, Place


@dataclass(frozen=True, slots=True)
class Within:
    """The answers to one image with a prior.

    Attributes:
        circle: Answer of the places in the circle; None where there are none.
        whole: Answer of the whole gallery, published where the circle's does not convince.
    """

    circle: Sample | None
    whole: Sample

    def published(self, calibration: Calibration) -> Sample:
        """Return the answer that :meth:`Localizer.localize` would give."""
        if self.circle is None or not self.circle.evidence.contrasted:
            return self.whole
        fixed = calibration.confidence(self.circle.evidence) >= calibration.min_confidence
        return self.circle if fixed else self.whole


def ask_within(
    localizer: Localizer,
    questions: Sequence[Question],
    leave_out: LeaveOut,
    circles: Sequence[Circle],
    correct_within_m: float,
    progress: Progress = silent,
) -> list[list[Within]]:
    """Ask about each image in the whole gallery, and in each of its circles.

    Args:
        localizer: Localizer to ask.
        questions: Images of known position.
        leave_out: Places to ignore.
        circles: Kinds of prior.
        correct_within_m: Error up to which an answer is right (m).
        progress: Shows the questions.

    Returns:
        The answers for each of ``circles``, without images that lack texture or cannot be decoded.
    """
    answers: list[list[Within]] = [[] for _ in circles]
    ways = [way(localizer, leave_out), *(way(localizer, leave_out, circle) for circle in circles)]
    refuse = localizer.config.position
    for asked in ask(localizer.describer, questions, ways, refuse=refuse, progress=progress, label="priors"):
        truth = asked.question.truth
        samples = [sample_of(localizer, ranked, truth, correct_within_m) for ranked in asked.ranked]
        for within, found in zip(samples[1:], answers, strict=False):
            if samples[0] is not None:
                found.append(Within(within, samples[0]))
    return answers


def circle_of_prior(std_m: float, seed: int = 0) -> Circle:
    """Return circles about fresh messages on ``prior_fix`` whose errors have the standard deviation claimed."""
    rng = np.random.default_rng(seed)

    def circle(truth: Place) -> Near:
        east_m, north_m = rng.normal(0.0, std_m, 2)
        return _circle(truth, east_m, north_m, std_m)

    return circle


def circle_elsewhere(gallery: Gallery, std_m: float, seed: int = 0) -> Circle:
    """Return circles about wrong messages: about random places of the gallery, far from the truth.

    Far is a place whose circle does not reach the truth; in a gallery too small for that, the farthest place.
    """
    rng = np.random.default_rng(seed)
    places = gallery.positions_enu[:, :2]

    def circle(truth: Place) -> Near:
        east, north, _ = gallery.frame.to_enu(truth.latitude_deg, truth.longitude_deg)
        apart_m = np.hypot(places[:, 0] - east, places[:, 1] - north)
        reach_m = 2 * _circle(truth, 0.0, 0.0, std_m).radius_m
        far = np.flatnonzero(apart_m > min(reach_m, float(apart_m.max()) - 1e-6))
        about = gallery.places[int(rng.choice(far))]
        return _circle(about, 0.0, 0.0, std_m)

    return circle


def _circle(about: Place, east_m: float, north_m: float, std_m: float) -> Near:
    """Return the circle that the node's prior makes, by default, of a message with an error."""
    frame = LocalFrame(about.latitude_deg, about.longitude_deg)
    latitude, longitude, _ = frame.to_geodetic(np.array([[east_m, north_m, 0.0]]))
    prior = Prior(PriorConfig(source="fix"), lambda _, __: 0.0)
    prior.offer(Hint(float(latitude[0]), float(longitude[0]), std_m, stamp_ns=0))
    near, why = prior.near(0)
    if near is None:
        raise SourceError(f"a prior of {std_m:g} m standard deviation is not used: {why}")
    return near
