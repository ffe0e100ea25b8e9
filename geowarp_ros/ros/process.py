"""The process of a node, or of several: from ``rclpy.init`` to an exit status; SIGINT and SIGTERM end it."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.signals import SignalHandlerOptions

from geowarp_ros.errors import GeowarpError
from geowarp_ros.ros.executor import PoolExecutor

THREADS = 4
"""For each node: one for each of the localizer's callback groups, so that none waits for another."""

GRACE_S = 0.5
"""How long an image in hand may take before the process ends without it."""

LAST_S = 1.5
"""How long the end may take, whatever is being loaded; a robot's supervisor kills after a few seconds."""

TIDY_S = 1.25
"""Of that, how long it may take in order; what is left is for a last resort that does not need the interpreter."""


class HaltableNode(Protocol):
    """A node that can stop its own thread."""

    def halt(self, timeout_s: float, /) -> None:
        """Stop; do not wait for longer."""

    def destroy_node(self) -> None:
        """Free its handles, whatever still uses them."""


class _Stop:
    """The request to end, and the exit status.

    A signal may reach any thread (DDS has a dozen that block none), and Python runs its handler in the main thread
    when that next does something, which it does not while it waits for a lock. What wakes it is a pipe, into which
    the interpreter writes from whichever thread the signal came to.
    """

    def __init__(self) -> None:
        self._pipe, self._signalled = os.pipe()
        os.set_blocking(self._signalled, False)
        self.asked = threading.Event()
        self.status = 0

    def listen(self, *numbers: signal.Signals) -> None:
        """Take these signals as requests; from the main thread."""
        for number in numbers:
            signal.signal(number, lambda *_: self.asked.set())
        signal.set_wakeup_fd(self._signalled, warn_on_full_buffer=False)

    def on_failure(self) -> None:
        self.status = 1
        self.asked.set()
        os.write(self._signalled, b"\0")

    def wait(self) -> None:
        """Return when someone has asked."""
        os.read(self._pipe, 1)
        self.asked.set()


class _RosLog(logging.Handler):
    """Hands on what the package's own rooms log, who do not know ROS."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._say = {logging.INFO: logger.info, logging.WARNING: logger.warning, logging.ERROR: logger.error}

    def emit(self, record: logging.LogRecord) -> None:
        self._say.get(record.levelno, self._say[logging.INFO])(self.format(record))


def run(make: Callable[..., Any], args: list[str] | None = None) -> int:
    """Spin a node, or several, until they are asked to end.

    The main thread does nothing but wait for signals, so that neither a model being loaded nor a long localisation
    holds them up.

    Args:
        make: Called with ``give_up=``, a function for a node to end the process with status 1; returns the node,
            or a list of them.
        args: Command line; None for ``sys.argv``.

    Returns:
        1 after a mistake at start, said in one line. What comes later ends the process from here: with 0 after
        SIGINT or SIGTERM, with 1 when autostart failed, after a surprise in a callback, or where DDS did not end.
    """
    stop = _Stop()
    stop.listen(signal.SIGINT, signal.SIGTERM)
    logger = rclpy.logging.get_logger("geowarp_localizer")
    rooms = logging.getLogger("geowarp_ros")
    rooms.setLevel(logging.INFO)
    rooms.addHandler(_RosLog(logger))
    try:
        # without rclpy's own handlers, which would end the context under the worker's feet
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # of several types, by release: a bad --ros-args, an absent parameter file
        logger.fatal(f"cannot start: {error}".splitlines()[0])
        return 1
    try:
        made = make(give_up=stop.on_failure)
    except GeowarpError as error:
        logger.fatal(f"cannot start: {error}")
        rclpy.try_shutdown()
        return 1
    nodes: list[HaltableNode] = made if isinstance(made, list) else [made]
    executor = PoolExecutor(THREADS * len(nodes))
    for node in nodes:
        executor.add_node(node)
    spinner = threading.Thread(target=_spin, args=(executor, stop, logger), name="spin", daemon=True)
    spinner.start()
    stop.wait()
    _end(nodes, executor, spinner, stop.status)


def _spin(executor: PoolExecutor, stop: _Stop, logger: Any) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    except BaseException:
        if not stop.asked.is_set():
            logger.fatal(f"surprise in a callback:\n{traceback.format_exc()}")
            stop.on_failure()


def _end(nodes: list[HaltableNode], executor: PoolExecutor, spinner: threading.Thread, status: int) -> NoReturn:
    """End in order where that is possible, within :data:`LAST_S` in any case.

    The nodes are destroyed even under an image in hand: shared memory of DDS outlives a process that does not
    destroy its participant. The interpreter is not taken down: it waits for threads, native code cannot be
    interrupted, and a thread that is in torch when Python goes away aborts the process.
    """
    # Where a peer was killed or frozen while it wrote to this participant, the participant's destruction waits for
    # the peer's lock and holds the interpreter's: no thread of Python ends that. Status 1, and where it hangs.
    faulthandler.dump_traceback_later(LAST_S, exit=True, file=2)
    last = threading.Timer(TIDY_S, _exit, (status,))
    last.daemon = True
    last.start()
    grace_ends = time.monotonic() + GRACE_S
    for node in nodes:  # each is told, whatever another
        node.halt(max(0.0, grace_ends - time.monotonic()))
    executor.shutdown(timeout_sec=GRACE_S)
    spinner.join(GRACE_S)
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()
    _exit(status)


def _exit(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
