"""One camera over time: each image is localised in the light of those before it.

NumPy only: the localizer comes ready-made.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from geowarp_ros.attitude import Mounting
from geowarp_ros.config import SessionConfig
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.consistency import Consistency
from geowarp_ros.motion.gravity import Plumb
from geowarp_ros.motion.odometry import Odometer
from geowarp_ros.motion.pace import Pace
from geowarp_ros.motion.prior import Prior
from geowarp_ros.motion.tracking import build_tracker
from geowarp_ros.types import Answer, Deadline, FloatArray, Frame, Near

BACK_IN_TIME_NS = 1_000_000_000
"""An image older than the one before it by more than this (ns) means that time jumped back, as in a looping bag;
by less, that it was overtaken."""

SETTLED_S, SETTLED_IMAGES = 5.0, 10
"""Time (s) or number of images since the last jump back after which the next is a new beginning: jumps that follow
one another faster are those of two clocks."""


def mounting_of(config: SessionConfig) -> Mounting | None:
    """Return where the camera sits on the robot; None without a base frame, or where only tf knows it."""
    offset = config.camera_offset
    if not config.base_frame or offset.from_tf:
        return None
    return Mounting.of((offset.x_m, offset.y_m, offset.z_m), (offset.roll_deg, offset.pitch_deg, offset.yaw_deg))


class GalleryLike(Protocol):
    """What a session asks of a :class:`geowarp_ros.gallery.store.Gallery`."""

    @property
    def positions_enu(self) -> FloatArray:
        """(N, 3) positions of the places, local ENU, m."""

    @property
    def frame(self) -> LocalFrame:
        """Local frame at the centre of the gallery."""


class LocalizerLike(Protocol):
    """What a session asks of a :class:`geowarp_ros.localizer.Localizer`."""

    @property
    def gallery(self) -> GalleryLike:
        """The gallery it searches."""

    def localize(self, frame: Frame, near: Near | None, deadline: Deadline) -> Answer:
        """Say where an image was taken."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """When an image came.

    Attributes:
        at_s: Time by the steady clock, s.
        epoch: Number of resets before it.
        alone: Stamps go back and forth: the image is localised without regard to those before it.
    """

    at_s: float
    epoch: int
    alone: bool = False


class Jumps:
    """Tells time that begins anew, as in a bag that loops, from two clocks that are heard in turn.

    The first jump back is a new beginning. Jumps that follow before things have settled are not. Nor are
    those within SETTLED_S of an item that went on from before a jump: time that began anew does not.

    Attributes:
        unsettled: Whether stamps go back and forth.
    """

    def __init__(self) -> None:
        self._at_s, self._items, self.unsettled = -np.inf, 0, False
        self._in_turn_s = -np.inf

    def __call__(self, back: bool, returned: bool = False) -> bool:
        """Return whether time begins anew with an item.

        Args:
            back: Whether its stamp jumped back.
            returned: Whether its stamp is beyond that from which the last jump led back.
        """
        now_s = time.monotonic()
        self._items += 1
        if returned and now_s - self._at_s <= SETTLED_S:  # later, a bag that loops has come to where it ended
            self._in_turn_s = now_s
        settled = self._items > SETTLED_IMAGES or now_s - self._at_s > SETTLED_S
        settled &= not (back and now_s - self._in_turn_s <= SETTLED_S)
        if back:
            self._at_s, self._items = now_s, 0
        self.unsettled = (back or self.unsettled) and not settled
        return back and settled


class Session:
    """Localises the images of one camera in their order; owns what is known besides the newest image.

    One image at a time, whichever thread asks. Odometry, priors and resets may come from other threads at any time
    and never wait for an image in hand.

    Args:
        config: Settings.
        turn: Held while an image is localised; sessions that share a model share it.

    Attributes:
        odometer: Takes odometry.
        prior: Takes positions from elsewhere.
        prior_said: Use of the prior for the last image, for people.
        plumb: Takes measurements of an IMU, by ``gravity``.
        mounting: Where the camera sits on the odometry's child frame; None if unknown.
    """

    def __init__(self, config: SessionConfig, turn: threading.Lock | None = None) -> None:
        self.odometer = Odometer(config.tracking.max_speed_mps)
        self.prior = Prior(config.prior, lambda from_ns, to_ns: self.odometer.reach_m(from_ns, to_ns))
        self.prior_said = self.prior.near(0)[1]
        self.plumb = Plumb(config.gravity_std_deg)
        self.mounting = mounting_of(config)
        self._config = config
        self._consistency = Consistency()
        self._turn = turn or threading.Lock()
        self._pace = Pace()
        self._tracked_with: object = None
        self._arrived_ns: int | None = None
        self._left_ns: int | None = None
        self._jumps = Jumps()
        self._tracked_ns: int | None = None
        self._epoch = self._tracked_epoch = 0

    @property
    def epoch(self) -> int:
        """Number of resets so far."""
        return self._epoch

    def configure(self, config: SessionConfig) -> None:
        """Change the settings.

        Odometry is forgotten if the maximum speed changes, the pace if re-ranking, verification or pose do, an
        IMU's measurements if their standard deviation does.
        """
        before, self._config = self._config, config
        if config.gravity_std_deg != before.gravity_std_deg:
            self.plumb = Plumb(config.gravity_std_deg)
        self.prior.configure(config.prior)
        if config.tracking.max_speed_mps != before.tracking.max_speed_mps:
            self.odometer = Odometer(config.tracking.max_speed_mps, self.odometer.restarts)
        if (config.rerank, config.position) != (before.rerank, before.position):
            self._pace.forget()

    def reset(self) -> None:
        """Forget everything; does not wait for an image in hand."""
        self._epoch += 1
        self._arrived_ns = None
        self.odometer.reset()
        self.plumb.reset()
        self.prior.reset()
        self.prior_said = self.prior.near(0)[1]

    def arrive(self, stamp_ns: int) -> tuple[Arrival, int]:
        """Take note of an image before it is localised; resets the session if time begins anew.

        Args:
            stamp_ns: Its stamp.

        Returns:
            The arrival, and by how much time jumped back (ns); 0 if it did not, or does so again and again.
        """
        before_ns = self._arrived_ns
        back_ns = 0 if before_ns is None else before_ns - stamp_ns
        anew = self._jumps(back_ns > BACK_IN_TIME_NS, self._left_ns is not None and stamp_ns > self._left_ns)
        if anew:
            self.reset()
        if back_ns > BACK_IN_TIME_NS:
            self._left_ns = before_ns
        self._arrived_ns = stamp_ns
        return Arrival(time.monotonic(), self._epoch, self._jumps.unsettled), back_ns if anew else 0

    def localize(self, localizer: LocalizerLike, frame: Frame, arrival: Arrival | None = None) -> Answer:
        """Localise an image with the prior, the track and the time there is.

        Args:
            localizer: May be another one than for the image before.
            frame: The image.
            arrival: Result of :meth:`arrive`; None: the image arrives now.

        Raises:
            GeowarpError: Raised by the localizer.
        """
        arrival = arrival or self.arrive(frame.stamp_ns)[0]
        with self._turn:
            if arrival.alone:
                self.prior_said = "off: stamps go back and forth"
                answer = localizer.localize(frame, None, self._pace.deadline(self._deadline_s(arrival)))
                self._pace.learn(answer)
                return answer
            self._follow(localizer, arrival.epoch)
            if self._config.gravity == "imu":
                frame = replace(frame, gravity=self.plumb.gravity(frame.stamp_ns, self.mounting))
            near, said = self.prior.near(frame.stamp_ns)
            travelled_m = None
            if self._tracked_ns is not None:
                travelled_m = self.odometer.travelled_m(self._tracked_ns, frame.stamp_ns)
            answer = localizer.localize(frame, near, self._pace.deadline(self._deadline_s(arrival)))
            self._pace.learn(answer)
            answer = self._tracker(answer, travelled_m)
            answer = self._consistency(answer, localizer.gallery.frame, self.odometer, self.mounting)
            if answer.candidates:  # what the tracker has seen
                self._tracked_ns = max(frame.stamp_ns, self._tracked_ns or 0)
            if arrival.epoch == self._epoch:
                self.prior.learn(answer)
            fell_back = near is not None and answer.header.near is None
            self.prior_said = f"{said}, nothing convincing there: whole gallery" if fell_back else said
            return answer

    def _deadline_s(self, arrival: Arrival) -> float | None:
        budget_ms = self._config.latency_budget_ms
        return arrival.at_s + budget_ms * 1e-3 if budget_ms else None

    def _follow(self, localizer: LocalizerLike, epoch: int) -> None:
        """Begin a new track with a new gallery, new settings of it, or a new epoch."""
        config = self._config
        tracked_with = (localizer.gallery, config.tracking, config.position.cluster_radius_m)
        if tracked_with != self._tracked_with:
            self._tracker = build_tracker(
                config.tracking, localizer.gallery.positions_enu, config.position.cluster_radius_m
            )
            self._tracked_with = tracked_with
        elif epoch != self._tracked_epoch:
            self._tracker.reset()
        else:
            return
        self._consistency.reset()
        self._tracked_epoch, self._tracked_ns = epoch, None
