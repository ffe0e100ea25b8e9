"""The process of one or several nodes: from ``rclpy.init`` to an exit status; SIGINT and SIGTERM end it."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NoReturn

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.signals import SignalHandlerOptions

from geowarp_ros.config import NodeConfig, leaves
from geowarp_ros.errors import ConfigError, GeowarpError
from geowarp_ros.output import OutputError, guarded_output
from geowarp_ros.ros.executor import PoolExecutor
from geowarp_ros.ros.logs import RosLogHandler

if TYPE_CHECKING:
    from geowarp_ros.ros.node import LocalizerNode

NODE_NAME = "geowarp_localizer"

THREADS = 7
"""Threads per node: one for each of the localizer's callback groups (parameters, transitions, questions about the
lifecycle, ~/localize, images, motion, diagnostics), so that none waits for another."""

GRACE_S = 0.5
"""Time that the image in progress gets before the process ends without it, s."""

LAST_S = 1.5
"""Maximum duration of the shutdown, whatever is being loaded, s; supervisors kill after a few seconds."""

TIDY_S = 1.25
"""Part of :data:`LAST_S` for an orderly shutdown, s; the rest is for a last resort without the interpreter."""


class _Stop:
    """The request to end, by one of some signals or by a node that fails, and the exit status.

    A signal may reach any thread (DDS has a dozen that block none). Python runs its handler in the main thread,
    but not while that waits for a lock. So the main thread waits on a pipe, to which the interpreter writes from
    whichever thread received the signal.
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self._pipe, self._signalled = os.pipe()
        os.set_blocking(self._signalled, False)
        self.asked = threading.Event()
        self.status = 0
        for number in numbers:
            signal.signal(number, lambda *_: self.asked.set())
        signal.set_wakeup_fd(self._signalled, warn_on_full_buffer=False)

    def on_failure(self) -> None:
        self.status = 1
        self.asked.set()
        os.write(self._signalled, b"\0")

    def wait(self) -> None:
        """Return once the process is asked to end."""
        os.read(self._pipe, 1)
        self.asked.set()


def check_home() -> None:
    """Refuse an environment in which ROS finds no folder for its logs: rclpy's own message does not say why.

    Raises:
        ConfigError: With the variables that would name one.
    """
    if not any(os.environ.get(name) for name in ("HOME", "ROS_HOME", "ROS_LOG_DIR")):
        raise ConfigError("HOME is not set, and ROS keeps its logs there: set HOME, or ROS_LOG_DIR to a folder")


def _help(usage: str) -> str:
    """Return the usage and every parameter with its default."""
    lines = [f"usage: {usage} --ros-args -p gallery:=FOLDER [-p NAME:=VALUE ...] [--params-file YAML]", ""]
    lines += ["Camera images in, fixes out: geowarp_ros, docs/node.md.", "", "parameters:"]
    for name, info in leaves(NodeConfig):
        text = f"{info.description} (default: {json.dumps(info.default)})"
        lines += [f"  {name}", *textwrap.wrap(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join([*lines, ""])


def run(
    make: Callable[..., LocalizerNode | list[LocalizerNode]],
    args: list[str] | None = None,
    usage: str = "localizer",
) -> int:
    """Spin one or several nodes until they are asked to end.

    The main thread only waits for signals: neither the loading of a model nor a long localisation delays them.

    Args:
        make: Called with ``give_up=``, a function with which a node ends the process with status 1; returns the
            node or a list of nodes.
        args: Command line; None for ``sys.argv``.
        usage: How its help begins.

    Returns:
        0 after ``--help``, 1 after an error at start, which is logged as one line. Later the process ends from
        here: with 0 after SIGINT or SIGTERM, with 1 if autostart failed, after an unhandled exception in a
        callback, or if DDS hangs.
    """
    own = takewhile("--ros-args".__ne__, sys.argv if args is None else args)
    if {"-h", "--help"} & set(own):
        try:
            with guarded_output():
                sys.stdout.write(_help(usage))
            return 0
        except OutputError as error:
            sys.stderr.write(f"{usage.split()[0]}: {error}\n")
            return error.status
    stop = _Stop(signal.SIGINT, signal.SIGTERM)
    logger = rclpy.logging.get_logger(NODE_NAME)
    core = logging.getLogger("geowarp_ros")
    core.setLevel(logging.INFO)
    core.addHandler(RosLogHandler(logger))
    try:
        check_home()
        # without rclpy's own handlers, which would shut the context down while the worker uses it
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
    nodes = made if isinstance(made, list) else [made]
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
            logger.fatal(f"unhandled exception in a callback:\n{traceback.format_exc()}")
            stop.on_failure()


def _end(nodes: list[LocalizerNode], executor: PoolExecutor, spinner: threading.Thread, status: int) -> NoReturn:
    """Shut down in order if possible, within :data:`LAST_S` in any case.

    The nodes are destroyed even while an image is in progress: the shared memory of DDS outlives a process that
    does not destroy its participant. The interpreter is not finalised: it would wait for threads, native code
    cannot be interrupted, and a thread that is in torch when Python goes away aborts the process.
    """
    # If a peer was killed or frozen while it wrote to this participant, destroying the participant waits for the
    # peer's lock and holds the interpreter's: no Python thread can end that. Exits with 1 and says where it hangs.
    faulthandler.dump_traceback_later(LAST_S, exit=True, file=2)
    last = threading.Timer(TIDY_S, _exit, (status,))
    last.daemon = True
    last.start()
    grace_ends = time.monotonic() + GRACE_S
    for node in nodes:  # each is halted, however long the others take
        node.halt(max(0.0, grace_ends - time.monotonic()))
    executor.shutdown(timeout_sec=max(0.0, grace_ends - time.monotonic()))
    spinner.join(GRACE_S)
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()
    _exit(status)


def _exit(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
