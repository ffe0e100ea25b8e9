"""The answers of a running node as they come: what a subscriber tells, and what a page asks for."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from geowarp_ros.evaluation import fixes
from geowarp_ros.evaluation.drive import NS
from geowarp_ros.evaluation.scene import Ground, positions, scene
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.types import FloatArray, Image
from geowarp_ros.view.galleries import ground_of, photograph, place_columns
from geowarp_ros.view.shown import NoPictureError

MOST_ANSWERS = 50_000
"""Number of answers after which the page begins anew."""

PICTURES_KEPT = 500
JUMP_S = 1.0
"""A stamp so far before the last one begins a new drive: a bag that loops, a simulation started again."""

FRESH_S = 3.0
"""Time without an answer after which the node is said to be silent."""

COLUMNS = (
    "t", "title", "name", "status", "reason", "candidate", "method", "confidence", "error", "radius",
    "ee", "en", "nn", "heading", "heading_std", "true_heading", "heading_error", "latency", "distance", "score",
    "x", "y", "tx", "ty", "place", "picture",
)  # fmt: skip
_TEXTS = ("name", "status", "reason", "candidate", "method")


class Live:
    """What a node has answered, joined by the stamps of its messages. Any thread may tell, any may ask.

    Args:
        node: Name of the node.
        gallery: Its gallery, for a map of its places; None: only answers are shown.
        now: Seconds of a clock that never stands still; the page says when the last answer was.
    """

    def __init__(
        self, node: str, gallery: Gallery | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._node, self._gallery, self._now = node, gallery, now
        self._lock = threading.Lock()
        self._ground = ground_of(gallery) if gallery else None
        self._datum = gallery.datum if gallery else None
        names = [place.name for place in gallery.places] if gallery else []
        self._row_of = {name: row for row, name in enumerate(names)}
        self._places = (
            place_columns(gallery, ground_of(gallery), named=False) | {"name": names} if gallery else None
        )
        self._run, self._version, self._words = 1, 0, ""
        self._begin()

    def _begin(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._changed: list[int] = []
        self._of_stamp: dict[int, int] = {}
        self._early: dict[int, dict[str, Any]] = {}
        self._pictures: dict[int, bytes] = {}
        self._first_ns = self._last_ns = 0
        self._heard_s: list[float] = []

    def answer(
        self, stamp_ns: int, latitude_deg: float, longitude_deg: float, covariance_m2: FloatArray, *, fix: bool
    ) -> None:
        """Tell a NavSatFix; one without a fix carries the origin of the map frame."""
        where = (latitude_deg, longitude_deg)
        with self._lock:
            if not fix and all(map(math.isfinite, where)):
                self._datum = LocalFrame(*where)  # the node's parameters may put it elsewhere than the gallery
            if self._ground is None and all(map(math.isfinite, where)):
                self._ground = Ground(*where)
                self._run += 1  # the page has been waiting for it
            if len(self._rows) >= MOST_ANSWERS or stamp_ns < self._last_ns - JUMP_S * NS:
                self._begin()
                self._run += 1
            if stamp_ns <= self._last_ns:  # a second publisher, or a repetition
                return
            self._first_ns = self._first_ns or stamp_ns
            self._last_ns = stamp_ns
            self._of_stamp[stamp_ns] = len(self._rows)
            values: dict[str, Any] = dict.fromkeys(_TEXTS, "")
            seconds = (stamp_ns - self._first_ns) / NS
            values |= {"t": round(seconds, 3), "title": f"{seconds:.1f} s", "status": "fix" if fix else "no_fix"}
            if fix and self._ground is not None:
                covariance = np.asarray(covariance_m2, float)[:2, :2]
                values |= _first(positions(self._ground(*where).reshape(1, 2)))
                values |= dict(zip(("ee", "en", "nn"), covariance[[0, 0, 1], [0, 1, 1]].tolist(), strict=True))
                values["radius"] = round(float(fixes.claimed_radius_m(covariance[None])[0]), 2)
            self._rows.append({name: None for name in COLUMNS} | values)
            self._changed.append(0)
            self._heard_s = [*self._heard_s[-20:], self._now()]
            self._change(len(self._rows) - 1, self._early.pop(stamp_ns, {}))

    def detail(self, stamp_ns: int, **values: Any) -> None:
        """Tell more of the answer of that stamp, which may come later: any of COLUMNS."""
        with self._lock:
            if stamp_ns in self._of_stamp:
                self._change(self._of_stamp[stamp_ns], values)
            else:
                self._early[stamp_ns] = self._early.get(stamp_ns, {}) | values
                while len(self._early) > PICTURES_KEPT:
                    del self._early[next(iter(self._early))]

    def candidate(self, stamp_ns: int, name: str, east_m: float, north_m: float) -> None:
        """Tell the best candidate, by its name and its place in the map frame."""
        with self._lock:
            place, datum, ground = self._row_of.get(name), self._datum, self._ground
        values: dict[str, Any] = {"candidate": name, "place": place}
        if place is not None and self._places is not None:  # it is known, whatever the map frame is
            values["guess"] = {axis: self._places[axis][place] for axis in "xy"}
        elif datum is not None and ground is not None:
            latitude, longitude, _ = datum.to_geodetic([east_m, north_m, 0.0])
            values["guess"] = _first(positions(ground(latitude, longitude).reshape(1, 2)))
        self.detail(stamp_ns, **values)

    def pictured(self, stamp_ns: int, jpeg: bytes) -> None:
        """Tell the picture of query and candidate."""
        with self._lock:
            self._pictures[stamp_ns] = jpeg
            while len(self._pictures) > PICTURES_KEPT:
                del self._pictures[next(iter(self._pictures))]
        self.detail(stamp_ns, picture=True)

    def says(self, words: str) -> None:
        """Tell what the node says of itself."""
        with self._lock:
            self._words = words

    def _change(self, row: int, values: dict[str, Any]) -> None:
        guess = values.pop("guess", None) if "guess" in values else None
        if guess and self._rows[row]["status"] != "fix":
            values = values | guess
        if values.get("picture") is True:  # a row's picture goes by its number
            values = values | {"picture": row}
        self._rows[row] |= values
        self._version += 1
        self._changed[row] = self._version

    def scene(self) -> dict[str, Any]:
        """Return the scene as it is now."""
        with self._lock:
            drive = {name: [row[name] for row in self._rows] for name in COLUMNS}
            shown = scene(
                "live",
                f"live: {self._node}",
                self._ground or Ground(0.0, 0.0),
                places=self._places,
                drive=drive,
                correct_within_m=25.0,
                first=max(len(self._rows) - 1, 0),
                no_images="waiting for the picture of the match",
            )
            pictures = ["live", *(["place"] if self._gallery else [])]
            return {**shown, "run": self._run, "version": self._version, "pictures": pictures}

    def news(self, after: int) -> dict[str, Any]:
        """Return the rows that changed after a version, and what the node says."""
        with self._lock:
            rows = [[row, self._rows[row]] for row, version in enumerate(self._changed) if version > after]
            silent_s = self._now() - self._heard_s[-1] if self._heard_s else math.inf
            fresh = silent_s < FRESH_S
            state = f"last answer {silent_s:.0f} s ago" if self._heard_s else f"no answer of {self._node} yet"
            if fresh and len(self._heard_s) > 1:
                rate_hz = (len(self._heard_s) - 1) / max(self._heard_s[-1] - self._heard_s[0], 1e-3)
                state = f"{rate_hz:.1f} answers a second"
            state = " · ".join(filter(None, (state, self._words)))
            return {"run": self._run, "version": self._version, "rows": rows, "state": state, "fresh": fresh}

    def picture(self, kind: str, row: int) -> Image | bytes:
        """Return the picture of an answer, or a place's photograph."""
        if kind == "place" and self._gallery is not None:
            return photograph(self._gallery, row)
        with self._lock:
            stamps = list(self._of_stamp)
            found = self._pictures.get(stamps[row]) if kind == "live" and 0 <= row < len(stamps) else None
        if found is None:
            raise NoPictureError(f"{kind} {row}: no such picture, or no longer kept")
        return found


def _first(columns: dict[str, list[Any]]) -> dict[str, Any]:
    return {name: values[0] for name, values in columns.items()}
