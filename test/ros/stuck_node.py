"""The node's process, hanging for good: while the localizer is loaded, with its first image, or in the end."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from typing import Any, NoReturn

import numpy as np

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.ros import conversions
from geowarp_ros.ros.node import LocalizerNode
from geowarp_ros.ros.process import run
from geowarp_ros.types import Answer, Frame


class StuckLocalizer:
    frame = LocalFrame(50.0, 8.0)
    places = ()
    positions_enu = np.zeros((0, 3))
    model_fingerprint = caution = runtime = device = ""

    def __init__(self) -> None:
        self.gallery = self

    def localize(self, *_: object) -> Answer:
        hang()


class StuckInTheEnd(LocalizerNode):
    """As when DDS waits for a lock that a killed peer holds."""

    def destroy_node(self) -> None:
        ctypes.PyDLL(None).pause()  # keeps the interpreter's lock


def hang() -> NoReturn:
    sys.stdout.write("stuck\n")
    sys.stdout.flush()
    while True:
        threading.Event().wait()


def open_stuck(config: Any) -> Any:
    if config.model == "loading":
        hang()
    if config.model == "signalled":  # not the main thread: the kernel may choose any
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        hang()
    return StuckLocalizer()


if __name__ == "__main__":
    # decoding would bring torch, seconds of it
    conversions.frame_from_message = lambda message: Frame(np.zeros((48, 64, 3), np.uint8), 1)
    kind = StuckInTheEnd if "ending" in sys.argv else LocalizerNode
    raise SystemExit(run(lambda give_up: kind(open_stuck, give_up)))
