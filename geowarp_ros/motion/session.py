"""What is known besides the newest image: the way since the one before, a prior, and how odometry lies in the map.

NumPy only.
"""

from __future__ import annotations

import threading
from typing import Protocol

from geowarp_ros.config import NodeConfig
from geowarp_ros.motion.odometry import Odometer
from geowarp_ros.motion.prior import Prior
from geowarp_ros.types import Fix, Frame, Near, NoFix


class TrackerLike(Protocol):
    """What is asked of a :class:`geowarp_ros.motion.tracking.Tracker`."""

    def reset(self) -> None:
        """Forget everything."""


class LocalizerLike(Protocol):
    """What is asked of a :class:`geowarp_ros.localizer.Localizer`."""

    @property
    def tracker(self) -> TrackerLike:
        """What it remembers of earlier frames."""

    def localize(
        self,
        frame: Frame,
        near: Near | None = None,
        travelled_m: float | None = None,
        deadline_s: float | None = None,
    ) -> Fix | NoFix:
        """Say where an image was taken."""


class Past:
    """Localises images in the light of what came before them; one image at a time, whichever thread asks.

    Args:
        config: Greatest speed and prior.
        turn: Held while an image is localised; whoever shares a model shares it, too.

    Attributes:
        odometer: Takes odometry.
        prior: Takes positions from elsewhere.
        prior_said: What came of the prior with the last image, for people.
    """

    def __init__(self, config: NodeConfig, turn: threading.Lock) -> None:
        self.odometer = Odometer(config.tracking.max_speed_mps)
        self.prior = Prior(config.prior, lambda from_ns, to_ns: self.odometer.reach_m(from_ns, to_ns))
        self.prior_said = self.prior.near(0)[1]
        self._speed_mps = config.tracking.max_speed_mps
        self._turn = turn
        self._last_ns: int | None = None
        self._epoch = self._tracked_epoch = 0

    @property
    def epoch(self) -> int:
        """How often time has begun anew."""
        return self._epoch

    def configure(self, config: NodeConfig) -> None:
        """Change the settings while running; odometry is forgotten where the greatest speed changes."""
        self.prior.configure(config.prior)
        if config.tracking.max_speed_mps != self._speed_mps:
            self._speed_mps = config.tracking.max_speed_mps
            self.odometer = Odometer(self._speed_mps)

    def reset(self) -> None:
        """Forget everything; does not wait for an image in hand."""
        self._epoch += 1
        self.odometer.reset()
        self.prior.reset()

    def localize(
        self, localizer: LocalizerLike, frame: Frame, epoch: int, deadline_s: float | None = None
    ) -> Fix | NoFix:
        """Localise an image with a prior, where there is one, and the way since the image before.

        Args:
            localizer: Its tracker is reset where a new epoch begins.
            frame: The image.
            epoch: When the image came, as :attr:`epoch` said then.
            deadline_s: As the localizer's.

        Raises:
            GeowarpError: As the localizer.
        """
        with self._turn:
            if epoch != self._tracked_epoch:
                localizer.tracker.reset()
                self._tracked_epoch, self._last_ns = epoch, None
            near, said = self.prior.near(frame.stamp_ns)
            travelled_m = None
            if self._last_ns is not None:
                travelled_m = self.odometer.travelled_m(self._last_ns, frame.stamp_ns)
            answer = localizer.localize(frame, near, travelled_m, deadline_s)
            if answer.candidates:  # what the tracker has seen
                self._last_ns = max(frame.stamp_ns, self._last_ns or 0)
            if epoch == self._epoch:
                self.prior.learn(answer)
            fell_back = near is not None and answer.near is None
            self.prior_said = f"{said}, nothing convincing there: whole gallery" if fell_back else said
            return answer
