"""The node: camera images in, fixes out, under a lifecycle.

The executor receives, one worker thread localises the newest image and publishes. All that changes the node –
transitions, parameters, services – runs in the default callback group, one at a time; images, motion and
diagnostics have groups of their own, so that none waits while a gallery loads.
"""

from __future__ import annotations

import functools
import json
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from geowarp_ros.config import NodeConfig
from geowarp_ros.errors import GeowarpError, ImageError
from geowarp_ros.memory import give_back_memory
from geowarp_ros.motion.pace import Throttle
from geowarp_ros.motion.session import Past
from geowarp_ros.motion.tracking import BACK_IN_TIME_NS
from geowarp_ros.ros import conversions
from geowarp_ros.ros.diagnostics import Situation, Statistics, diagnostic_array
from geowarp_ros.ros.loading import Loaded, Opener, load, open_localizer
from geowarp_ros.ros.parameters import as_declared, declare_parameters, flatten, parse_parameters, refuse_change
from geowarp_ros.ros.topics import Outputs, qos_override_names, subscribe
from geowarp_ros.ros.transform import PERIOD_S, MapToOdom
from geowarp_ros.ros.worker import LatestWorker
from geowarp_ros.types import Fix, NoFix

NODE_NAME = "geowarp_localizer"

BAD_FRAME_LOG_PERIOD_S = 5.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """An image message, when it came by the steady clock, and in which epoch (they are counted by resets)."""

    message: Any
    at_s: float
    epoch: int


def transition(callback: Callable[[LocalizerNode], None]) -> Callable[[LocalizerNode, Any], Any]:
    """Make a lifecycle callback of a method: a known error is FAILURE, a surprise ERROR, and both are logged.

    rclpy itself swallows exceptions of transitions without a line.
    """

    @functools.wraps(callback)
    def guarded(node: LocalizerNode, _: Any) -> Any:
        verb = callback.__name__.removeprefix("on_")
        try:
            callback(node)
        except GeowarpError as error:
            node.problem = str(error)
            node.get_logger().error(f"cannot {verb}: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            if node.halted:  # the handles went away in the middle
                return TransitionCallbackReturn.FAILURE
            node.problem = f"{type(error).__name__}: {error}"
            node.get_logger().error(f"cannot {verb}:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        if verb != "error":  # which only tidies up after the problem
            node.problem = ""
        node.get_logger().info(f"{verb}: now {node.state}")
        return TransitionCallbackReturn.SUCCESS

    return guarded


class LocalizerNode(LifecycleNode):
    """``/geowarp_localizer``. Its parameters are :class:`~geowarp_ros.config.NodeConfig`'s.

    Args:
        opener: Makes a localizer from the configuration; tests put theirs here.
        give_up: Called when ``autostart`` failed, from the executor's thread.
        turn: Held while an image is localised; nodes that share a model share it, too.
        **options: Of rclpy's Node.

    Raises:
        ConfigError: Unknown parameters, or bad values.
    """

    def __init__(
        self,
        opener: Opener = open_localizer,
        give_up: Callable[[], None] = lambda: None,
        turn: threading.Lock | None = None,
        **options: Any,
    ) -> None:
        super().__init__(NODE_NAME, automatically_declare_parameters_from_overrides=True, **options)
        self._opener, self._give_up = opener, give_up
        self._config = declare_parameters(self, qos_override_names(self))
        self._loaded: Loaded | None = None
        self._worker: LatestWorker[Arrival] | None = None
        self._outputs: Outputs | None = None
        self._transform: MapToOdom | None = None
        self._past = Past(self._config, turn or threading.Lock())
        self._throttle = Throttle()
        self._inputs: dict[str, Any] = {}
        self._beat: Any = None
        self._newest: Any = None
        self._paused = self._finalized = False
        self.statistics = Statistics()
        self.problem, self.halted = "", False

        self.add_on_set_parameters_callback(self._on_set_parameters)
        if hasattr(self, "add_pre_set_parameters_callback"):  # not in Humble: there, 30 for a double is refused
            self.add_pre_set_parameters_callback(
                lambda given: [Parameter(p.name, value=as_declared(p.name, p.value)) for p in given]
            )
        back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jumps = self.get_clock().create_jump_callback(
            back, post_callback=lambda _: self._begin_anew("the clock jumped back")
        )
        self._image_group, self._motion_group = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a paused /clock must not stop the diagnostics
        self.create_timer(1.0, self._publish_diagnostics, MutuallyExclusiveCallbackGroup(), steady)
        for service in SERVICES:
            callback = functools.partial(self._answer, service.callback)
            self.create_service(service.kind, service.name, callback)
        if self._config.autostart:
            self._starter = self.create_timer(0.0, self._start, clock=steady)

    @property
    def state(self) -> str:
        """The lifecycle's state, or ``paused`` for an active node that was told so."""
        if self._finalized:
            return "finalized"
        if self._worker is not None:
            return "paused" if self._paused else "active"
        return "unconfigured" if self._loaded is None else "inactive"

    # ---- lifecycle

    @transition
    def on_configure(self) -> None:
        """Load model and gallery, warm up, make the publishers."""
        try:
            self._loaded = load(self._opener, self._config)
            self._outputs = Outputs(self)
            if self._config.map_to_odom:
                self._transform = MapToOdom(self, self._config.map_frame)
        except BaseException:
            self._release()
            raise

    @transition
    def on_activate(self) -> None:
        """Begin to publish, work and receive, in this order."""
        if self._outputs is None:
            raise RuntimeError("activated before it was configured")
        try:
            self._outputs.enable()
            if self._transform is not None:
                self._transform.publisher.on_activate(None)
                self._beat = self.create_timer(PERIOD_S, self._publish_transform, self._motion_group)
            self.statistics.restart()
            self._worker = LatestWorker(self._localize)
            self._worker.start()
            self._listen(self._config)
        except BaseException:
            self._rest()
            raise

    @transition
    def on_deactivate(self) -> None:
        """Stop receiving, finish the image in hand, stop publishing."""
        self._rest()

    @transition
    def on_cleanup(self) -> None:
        """Free all that configure made."""
        self._release()

    @transition
    def on_shutdown(self) -> None:
        """Free everything, for good."""
        self._release()
        self._finalized = True

    @transition
    def on_error(self) -> None:
        """After a surprise: free everything; the node is unconfigured and can be configured again."""
        self._release()

    def halt(self, timeout_s: float) -> None:
        """Stop working because the process ends; an image in hand may take so long."""
        self.halted = True
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop(timeout_s)

    def destroy_node(self) -> None:
        """Free all handles: the state machine's, too, which rclpy forgets and which keeps the DDS participant."""
        super().destroy_node()
        # taken away first: a callback under way finds none, where a destroyed one would crash the process
        machine = self.__dict__.pop("_state_machine", None)
        if machine is not None:
            machine.destroy_when_not_in_use()

    def _start(self) -> None:
        self._starter.cancel()
        for trigger in (self.trigger_configure, self.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                self._give_up()
                return

    def _rest(self) -> None:
        """Stop receiving, finish the image in hand, stop publishing."""
        for name in list(self._inputs):
            self.destroy_subscription(self._inputs.pop(name))
        worker, self._worker = self._worker, None
        if worker is not None and not worker.stop(timeout_s=30.0):
            raise RuntimeError("the image in hand took longer than 30 s")
        if self._beat is not None:
            self.destroy_timer(self._beat)
            self._beat = None
        if self._transform is not None:
            self._transform.publisher.on_deactivate(None)
        if self._outputs is not None:
            self._outputs.disable()

    def _release(self) -> None:
        self._rest()
        if self._outputs is not None:
            self._outputs.destroy()
        if self._transform is not None:
            self.destroy_lifecycle_publisher(self._transform.publisher)
        self._loaded = self._outputs = self._transform = self._newest = None
        give_back_memory()

    # ---- images and motion

    def _listen(self, config: NodeConfig) -> None:
        """Subscribe to what the settings need, and to no more."""
        moves = config.tracking.method != "none" or config.prior.source != "none" or config.map_to_odom
        wanted = {
            "image" if config.image_transport == "raw" else "image/compressed": (
                self._on_image,
                self._image_group,
            ),
            **({"prior_fix": (self._on_prior_fix, self._motion_group)} if config.prior.source == "fix" else {}),
            **({"odometry": (self._on_odometry, self._motion_group)} if moves else {}),
        }
        for name in set(wanted) - set(self._inputs):
            self._inputs[name] = subscribe(self, name, *wanted[name])
        for name in set(self._inputs) - set(wanted):
            self.destroy_subscription(self._inputs.pop(name))

    def _on_prior_fix(self, message: Any) -> None:
        hint = conversions.hint_from_navsatfix(message)
        if isinstance(hint, str):
            self._past.prior.refuse(hint)
        else:
            self._past.prior.offer(hint)

    def _on_odometry(self, message: Any) -> None:
        self._past.odometer.add(conversions.pose_from_odometry(message))
        transform = self._transform
        if transform is not None:
            transform.odom_frame = message.header.frame_id

    def _publish_transform(self) -> None:
        transform = self._transform
        if transform is not None:
            transform.publish(self.get_clock().now().to_msg())

    def _on_image(self, message: Any) -> None:
        newest, worker = self._newest, self._worker
        if newest is not None:
            back_ns = conversions.stamp_ns(newest.header.stamp) - conversions.stamp_ns(message.header.stamp)
            if back_ns > BACK_IN_TIME_NS:
                self._begin_anew(f"image stamps went back by {back_ns / 1e9:.1f} s")
        self._newest = message
        dropped, too_frequent = 1, False
        if worker is not None and not self._paused:
            too_frequent = not self._throttle.passes(self._config.max_rate_hz)
            if not too_frequent:
                dropped = worker.put(Arrival(message, time.monotonic(), self._past.epoch))
        encoding = getattr(message, "encoding", "") or getattr(message, "format", "")
        self.statistics.received(encoding, dropped, too_frequent=too_frequent)

    # ---- the worker's thread

    def _localize(self, arrival: Arrival) -> None:
        loaded, config, outputs, transform = self._loaded, self._config, self._outputs, self._transform
        if loaded is None or outputs is None:
            return
        try:
            frame = conversions.frame_from_message(arrival.message)
            budget_ms = config.latency_budget_ms
            deadline_s = arrival.at_s + budget_ms * 1e-3 if budget_ms else None
            answer = self._past.localize(loaded.localizer, frame, arrival.epoch, deadline_s)
            if arrival.epoch != self._past.epoch:
                self.statistics.dropped(1)  # from before the jump: nobody waits for it any more
                return
            if transform is not None:
                transform.learn(answer, loaded.datum, self._past.odometer)
            outputs.publish(answer, frame, loaded, config)
        except ImageError as error:
            self.statistics.bad("encoding" if conversions.is_unsupported(error) else "data", str(error))
            self.get_logger().warning(str(error), throttle_duration_sec=BAD_FRAME_LOG_PERIOD_S)
        except GeowarpError as error:  # a gallery's image that is gone, a GPU without memory
            self.statistics.bad(type(error).__name__.removesuffix("Error").lower(), str(error))
            self.get_logger().error(str(error), throttle_duration_sec=BAD_FRAME_LOG_PERIOD_S)
        except Exception as error:
            if self.halted:  # the handles went away in the middle
                return
            self.statistics.bad("internal error", f"{type(error).__name__}: {error}")
            self.get_logger().error(traceback.format_exc(), throttle_duration_sec=BAD_FRAME_LOG_PERIOD_S)
        else:
            self.statistics.answered(answer, (time.monotonic() - arrival.at_s) * 1e3, budget_ms)

    # ---- parameters, services, time, diagnostics

    def _on_set_parameters(self, parameters: list[Any]) -> Any:
        current = flatten(self._config)
        given = {p.name: p.value for p in parameters if p.name in current}
        reason = refuse_change(given, configured=self._loaded is not None)
        try:
            config = parse_parameters({**current, **given})
            if given and not reason and self._loaded is not None:
                localizer = self._loaded.localizer.reconfigured(config)
                if self._inputs:
                    self._listen(config)
                self._loaded = Loaded(localizer, self._loaded.datum, self._loaded.about)
        except GeowarpError as error:
            reason = reason or str(error)
        if not reason:
            self._config = config
            self._past.configure(config)
        return SetParametersResult(successful=not reason, reason=reason)

    def _answer(self, callback: Callable[..., Any], request: Any, response: Any) -> Any:
        """Run a service; a surprise is its answer, and logged – it must not end the node."""
        try:
            callback(self, request, response)
        except Exception as error:
            self.get_logger().error(traceback.format_exc())
            response.success, response.message = False, f"{type(error).__name__}: {error}"
        return response

    def _on_localize(self, _: Any, response: Any) -> None:
        from geowarp_ros.localizer import answer_to_dict

        loaded, newest = self._loaded, self._newest
        if loaded is None or newest is None:
            answer: Fix | NoFix = NoFix("no_image", f"the node is {self.state} and has seen no image")
        else:
            try:
                frame = conversions.frame_from_message(newest)
                answer = self._past.localize(loaded.localizer, frame, self._past.epoch)
            except ImageError as error:
                answer = NoFix("no_image", str(error))
        response.success = isinstance(answer, Fix)
        said = {"stamp_ns": answer.stamp_ns, "prior": self._past.prior_said, **answer_to_dict(answer)}
        response.message = json.dumps(said)

    def _on_pause(self, request: Any, response: Any) -> None:
        self._paused = bool(request.data)
        response.success, response.message = True, self.state

    def _on_reset(self, _: Any, response: Any) -> None:
        self._begin_anew("asked to")
        response.success, response.message = True, "reset"

    def _on_reload_gallery(self, _: Any, response: Any) -> None:
        if self._loaded is None:
            response.message = f"the node is {self.state}: configure it"
            return
        try:
            self._loaded = load(self._opener, self._config)
        except GeowarpError as error:
            response.message = f"the old gallery stays: {error}"
            self.get_logger().error(response.message)
        else:
            response.success, response.message = True, json.dumps(self._loaded.about)

    def _begin_anew(self, why: str) -> None:
        self._past.reset()
        transform = self._transform
        if transform is not None:
            transform.reset()
        self._newest = None
        worker = self._worker
        if worker is not None:
            self.statistics.dropped(worker.clear())
        self.statistics.reset()
        self.get_logger().info(f"reset: {why}")

    def _publish_diagnostics(self) -> None:
        loaded, transform = self._loaded, self._transform
        situation = Situation(
            node=self.get_fully_qualified_name().lstrip("/"),
            state=self.state,
            problem=self.problem,
            about={} if loaded is None else loaded.about,
            caution="" if loaded is None else loaded.localizer.caution,
            prior=self._past.prior_said,
            transform="off" if transform is None else transform.said,
        )
        stamp = self.get_clock().now().to_msg()
        message = diagnostic_array(stamp, situation, self.statistics.snapshot(), self._config)
        self._diagnostics.publish(message)


class OfferedService(NamedTuple):
    """One of the node's own services; the lifecycle's and the parameters' come with rclpy."""

    name: str
    kind: type
    callback: Callable[[LocalizerNode, Any, Any], None]
    meaning: str


SERVICES = (
    OfferedService(
        "~/localize",
        Trigger,
        LocalizerNode._on_localize,
        "Localises the newest image now; `message` is the answer as JSON, `success` whether it is a fix.",
    ),
    OfferedService(
        "~/pause", SetBool, LocalizerNode._on_pause, "true: images are received and let go; false: go on."
    ),
    OfferedService(
        "~/reset", Trigger, LocalizerNode._on_reset, "Forgets what it knows of the past, as a jump of time does."
    ),
    OfferedService(
        "~/reload_gallery",
        Trigger,
        LocalizerNode._on_reload_gallery,
        "Loads the folder in `gallery` and swaps it in without a gap; on failure the old one stays.",
    ),
)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status."""
    from geowarp_ros.ros.process import run

    return run(LocalizerNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
