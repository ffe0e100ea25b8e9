"""A node's process: from ``rclpy.init`` to an exit status, with SIGINT and SIGTERM ending it cleanly."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Protocol

import rclpy
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from geowarp_ros.errors import GeowarpError

GRACE_S = 0.5
"""How long an image in hand may take before the process ends without it."""

LAST_S = 1.5
"""How long the end may take, whatever is being loaded; a robot's supervisor kills after a few seconds."""


class HaltableNode(Protocol):
    """A node that can stop its own thread."""

    def halt(self, timeout_s: float, /) -> bool:
        """Stop; False where that took longer."""

    def destroy_node(self) -> None:
        """Free its handles."""


class _Stop:
    """The request to end, and the exit status."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.status = 0

    def on_signal(self, *_: Any) -> None:
        self.asked.set()

    def on_failure(self) -> None:
        self.status = 1
        self.asked.set()


class _RosLog(logging.Handler):
    """Hands on what the package's own rooms log, who do not know ROS."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._say = {logging.INFO: logger.info, logging.WARNING: logger.warning, logging.ERROR: logger.error}

    def emit(self, record: logging.LogRecord) -> None:
        self._say.get(record.levelno, self._say[logging.INFO])(self.format(record))


def run(make_node: Callable[..., Any], args: list[str] | None = None) -> int:
    """Spin a node until it is asked to end.

    The main thread does nothing but wait for signals – Python delivers them there only, and between two
    instructions – so that neither a model being loaded nor a long localisation holds them up.

    Args:
        make_node: Called with ``give_up=``, a function for the node to end the process with status 1.
        args: Command line; None for ``sys.argv``.

    Returns:
        0 after SIGINT or SIGTERM, 1 after a mistake (said in one line) or a surprise (with its traceback).
    """
    stop = _Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop.on_signal)
    logger = rclpy.logging.get_logger("geowarp_localizer")
    logging.basicConfig(level=logging.INFO, handlers=[_RosLog(logger)], force=True)
    try:
        # without rclpy's own handlers, which would end the context under the worker's feet
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # of several types, by release: a bad --ros-args, an absent parameter file
        logger.fatal(f"cannot start: {error}".splitlines()[0])
        return 1
    try:
        node = make_node(give_up=stop.on_failure)
    except GeowarpError as error:
        logger.fatal(f"cannot start: {error}")
        rclpy.try_shutdown()
        return 1
    executor = MultiThreadedExecutor(num_threads=3)  # one for each of the node's callback groups
    executor.add_node(node)
    spinner = threading.Thread(target=_spin, args=(executor, stop, logger), name="spin", daemon=True)
    spinner.start()
    stop.asked.wait()
    return _end(node, executor, spinner, stop.status)


def _spin(executor: MultiThreadedExecutor, stop: _Stop, logger: Any) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    except BaseException:
        if not stop.asked.is_set():
            logger.fatal(f"surprise in a callback:\n{traceback.format_exc()}")
            stop.on_failure()


def _end(node: HaltableNode, executor: MultiThreadedExecutor, spinner: threading.Thread, status: int) -> int:
    """End in order, within :data:`LAST_S`: native code cannot be interrupted, and Python waits for its threads."""
    last = threading.Timer(LAST_S, _exit_now, (status,))
    last.daemon = True
    last.start()
    if node.halt(GRACE_S):
        executor.shutdown(timeout_sec=GRACE_S)
        spinner.join(GRACE_S)
        node.destroy_node()
    rclpy.try_shutdown()
    return status


def _exit_now(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
