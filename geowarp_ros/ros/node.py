"""The node: camera images in, fixes out, under a lifecycle.

Executor threads receive; one worker thread localises the latest image and publishes the answer. What may load a
gallery – transitions, autostart, ~/reload_gallery – runs one at a time, in the callback group of the transitions.
Nothing else waits for it: parameters and quick services run in the default group, questions about the lifecycle,
~/localize, images, motion and diagnostics each in a group of their own.
"""

from __future__ import annotations

import functools
import json
import math
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import CompressedImage

from geowarp_ros.config import NodeConfig, flatten
from geowarp_ros.errors import GeowarpError, ImageError
from geowarp_ros.memory import give_back_memory
from geowarp_ros.motion.odometry import pose_from_message
from geowarp_ros.motion.pace import Throttle
from geowarp_ros.motion.prior import hint_from_message
from geowarp_ros.motion.session import Arrival, Jumps, Session
from geowarp_ros.ros import conversions, imu
from geowarp_ros.ros.camera import INFO, ImageCamera
from geowarp_ros.ros.diagnostics import Situation, Statistics, diagnostic_array
from geowarp_ros.ros.initial_pose import InitialPose
from geowarp_ros.ros.inquiries import Inquiries, telling, unanswered
from geowarp_ros.ros.lifecycle import ManagedNode, transition
from geowarp_ros.ros.loading import Loaded, Opener, load, open_localizer
from geowarp_ros.ros.mount import CameraOnBase
from geowarp_ros.ros.parameters import declare_parameters, parse_parameters, refuse_change, whole_to_double
from geowarp_ros.ros.process import NODE_NAME, run
from geowarp_ros.ros.topics import IMAGES, SERVICES, Outputs, image_topic, qos_override_names, subscribe
from geowarp_ros.ros.transform import MapToOdom
from geowarp_ros.ros.watch import ImageWatch, Reminder, clock_troubles, where_images_are
from geowarp_ros.ros.worker import LatestWorker
from geowarp_ros.types import Answer, Frame

LOG_PERIOD_S = 5.0
"""Minimum time between two log lines about images that could not be localised."""

STOP_PATIENCE_S = 30.0
"""Maximum duration of an image in progress when the node is deactivated."""


class LocalizerNode(ManagedNode):
    """``/geowarp_localizer``; its parameters are those of :class:`~geowarp_ros.config.NodeConfig`.

    Args:
        opener: Makes a localizer from the configuration; tests put theirs here.
        give_up: Called if autostart fails, from an executor thread.
        turn: Held while an image is localised; nodes that share a model share it.
        **options: Options of rclpy's Node.

    Raises:
        ConfigError: Unknown parameters or invalid values.
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
        self._session = Session(self._config, turn)
        self._throttle = Throttle()
        self._loaded: Loaded | None = None
        self._validated: tuple[NodeConfig, Loaded | None, Loaded | None] | None = None
        self._outputs: Outputs | None = None
        self._transform: MapToOdom | None = None
        self._initial_pose: InitialPose | None = None
        self._camera: ImageCamera | None = None
        self._mount: CameraOnBase | None = None
        self._worker: LatestWorker[tuple[Any, Arrival]] | None = None
        self._inputs: dict[str, Any] = {}
        self._unused: tuple[Any, Arrival] | None = None
        self._intake, self._exchange = threading.Lock(), threading.Lock()
        self._telling = threading.Lock()  # a reset comes before or after what an answer changes, never between
        self._inquiries = Inquiries()
        self._watch, self._remind = ImageWatch(), Reminder(lambda text: self.get_logger().warning(text))
        self._paused = self._found = self._configuring = self._finalized = False
        self.statistics = Statistics()

        self._image_group, self._motion_group = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        self._listen_to_parameters()
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._clock_jumps = Jumps()
        self._jumps = self.get_clock().create_jump_callback(threshold, post_callback=lambda _: self._jump_back())
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a paused /clock must not stop the diagnostics
        self.create_timer(1.0, self._publish_diagnostics, MutuallyExclusiveCallbackGroup(), steady)
        quick = self.default_callback_group
        answers = {
            "~/localize": (self._localize_next, MutuallyExclusiveCallbackGroup()),
            "~/pause": (self._pause, quick),
            "~/reset": (self._reset_by_request, quick),
            "~/reload_gallery": (self._reload_gallery, self.transitions),
        }
        for name, (kind, _) in SERVICES.items():
            answer, group = answers[name]
            self.create_service(kind, name, functools.partial(self._serve, answer), callback_group=group)
        if self._config.autostart:
            self._starter = self.create_timer(0.0, self._start, self.transitions, steady)

    # ---- from image to answer: the executor's threads receive, the worker's thread localises and publishes

    def _on_image(self, message: Any) -> None:
        stamp_ns = conversions.stamp_ns(message.header.stamp)
        self._watch.see(stamp_ns, self.get_clock().now().nanoseconds, message.data)
        arrival, back_ns = self._session.arrive(stamp_ns)
        if back_ns:
            self._forget_images(f"image stamps went back by {back_ns / 1e9:.1f} s")
        dropped, too_frequent = 1, False
        with self._intake:
            self._unused, worker = (message, arrival), self._worker
            wanted = worker is not None and (bool(self._inquiries) or not self._idle)
            if worker is not None and wanted:
                too_frequent = not (self._inquiries or self._throttle.passes(self._config.max_rate_hz))
                if not too_frequent:
                    dropped, self._unused = worker.put(self._unused), None
        encoding = message.format if isinstance(message, CompressedImage) else message.encoding
        self.statistics.count_image(encoding, dropped, too_frequent=too_frequent, wanted=wanted)

    def _localize(self, received: tuple[Any, Arrival]) -> None:
        """Localise an image and publish the answer; a bad image is counted and logged, and the node lives on."""
        callers = self._inquiries.take(received[1].at_s)
        try:
            with telling(callers):
                answer = self._answer(*received, unhurried=bool(callers))
                for caller in callers:
                    caller.set_result(answer or unanswered("the node was reset meanwhile"))
        except ImageError as error:
            self.statistics.count_bad(error)
            self.get_logger().warning(str(error), throttle_duration_sec=LOG_PERIOD_S)
        except GeowarpError as error:  # a gallery image that is gone, a GPU without memory
            self.statistics.count_bad(error)
            self.get_logger().error(str(error), throttle_duration_sec=LOG_PERIOD_S)
        except Exception as error:
            if not self.halted:  # the handles were destroyed in the middle
                self.statistics.count_bad(error)
                self.get_logger().error(traceback.format_exc(), throttle_duration_sec=LOG_PERIOD_S)

    def _answer(self, message: Any, arrival: Arrival, *, unhurried: bool) -> Answer | None:
        """Localise an image and publish the answer; None where a reset came between."""
        loaded, config, outputs, transform = self._loaded, self._config, self._outputs, self._transform
        initial_pose = self._initial_pose
        if loaded is None or outputs is None:
            return None
        frame = self._frame(message)
        mount = self._mount
        mounting = None if mount is None else mount(frame.frame_id, frame.stamp_ns)
        self._session.mounting = mounting
        due = replace(arrival, at_s=math.inf) if unhurried else arrival  # who asks wants the whole answer
        answer = self._session.localize(loaded.localizer, frame, due)
        with self._telling:
            if arrival.epoch != self._session.epoch:
                self.statistics.count_dropped(1)  # from before a reset: nobody waits for it any more
                return None
            if transform is not None and not arrival.alone:
                transform.learn(answer, loaded.datum, self._session.odometer, mounting)
            if initial_pose is not None and not arrival.alone:
                lost = self.statistics.lost_in_a_row >= config.lost_after
                initial_pose.learn(answer, loaded.datum, self._session.odometer, mounting, lost=lost)
            self._found |= answer.fix is not None and not (initial_pose is not None and initial_pose.waiting)
        outputs.publish(answer, frame, loaded, config, mounting)
        total_ms = (time.monotonic() - arrival.at_s) * 1e3
        self.statistics.count_answer(answer, total_ms, 0.0 if unhurried else config.latency_budget_ms)
        return answer

    def _frame(self, message: Any) -> Frame:
        """Decode an image, with its camera where that is known."""
        frame, camera = conversions.frame_from_message(message), self._camera
        height, width = frame.image.shape[:2]
        return frame if camera is None else replace(frame, camera=camera.at(width, height))

    def _on_camera_info(self, message: Any) -> None:
        camera = self._camera
        if camera is not None:
            camera.take(message)

    def _warn_of_camera(self, problem: str) -> None:
        self.get_logger().warning(problem, throttle_duration_sec=LOG_PERIOD_S)

    def _on_prior_fix(self, message: Any) -> None:
        self._session.prior.offer(hint_from_message(message))

    def _on_odometry(self, message: Any) -> None:
        pose, transform, odometer = pose_from_message(message), self._transform, self._session.odometer
        if odometer.add(pose) and transform is not None:
            transform.move(pose, message.header.frame_id, odometer.restarts)

    def _listen(self, config: NodeConfig) -> None:
        """Subscribe to the topics that the settings need, and to no others."""
        wanted: dict[str, tuple[Any, Any]] = {
            IMAGES[config.image_transport]: (self._on_image, self._image_group),
            "odometry": (self._on_odometry, self._motion_group),
        }
        if not config.camera_info_url:
            wanted[INFO] = self._on_camera_info, self._motion_group
        if config.prior.source == "fix":
            wanted["prior_fix"] = self._on_prior_fix, self._motion_group
        if config.gravity == "imu":
            wanted["imu"] = lambda message: imu.take(message, self._session, self._mount), self._motion_group
        for name in [name for name in wanted if name not in self._inputs]:
            self._inputs[name] = subscribe(self, name, *wanted[name])
        self._unsubscribe(self._inputs.keys() - wanted.keys())

    def _unsubscribe(self, names: set[str]) -> None:
        for name in names:
            self.destroy_subscription(self._inputs.pop(name))

    def _jump_back(self) -> None:
        if self._clock_jumps(back=True):  # not of two clocks in turn
            self._reset("the clock jumped back")

    def _reset(self, why: str) -> None:
        self._session.reset()
        self._forget_images(why)

    def _forget_images(self, why: str) -> None:
        """Forget what the node itself knows from before a reset of the session."""
        worker, self._unused = self._worker, None
        self._begin_anew()
        if worker is not None:
            self.statistics.count_dropped(worker.clear())
        self.statistics.count_reset(why)
        self.get_logger().info(f"reset: {why}")

    def _begin_anew(self) -> None:
        """Forget what was made of the answers so far."""
        with self._telling:
            self._found = False
            for follower in (self._transform, self._initial_pose):
                if follower is not None:
                    follower.reset()

    # ---- lifecycle

    @property
    def state(self) -> str:
        """State of the lifecycle; ``paused`` if the node is active but paused."""
        if self._finalized:
            return "finalized"
        if self._configuring:
            return "configuring"
        if self._worker is not None:
            return "paused" if self._paused else "active"
        return "unconfigured" if self._loaded is None else "inactive"

    @property
    def _idle(self) -> bool:
        """Whether images are localised on request alone."""
        mode = self._config.mode
        return self._paused or mode == "on_demand" or (mode == "until_fix" and self._found)

    @transition
    def on_configure(self) -> None:
        """Load model and gallery, warm up, make the publishers."""
        self._configuring = True
        try:
            self._load()
            self._camera = ImageCamera(self, self._config.camera_info_url, self._warn_of_camera)
            self._outputs = Outputs(self)
            self._announce_datum()
            if self._config.base_frame:
                self._mount = CameraOnBase(self, self._config)
            if self._config.map_to_odom:
                self._transform = MapToOdom(self, self._config, self._motion_group)
            if self._config.initial_pose != "none":
                self._initial_pose = InitialPose(self, self._config)
        except BaseException:
            self._release()
            raise
        finally:
            self._configuring = False

    @transition
    def on_activate(self) -> None:
        """Start to publish, work and receive, in this order."""
        try:
            super().on_activate(None)
            self.statistics.restart()
            self._watch.restart()
            self._begin_anew()  # nobody heard the odometry since it was active last
            self._announce_datum()
            self._worker = LatestWorker(self._localize)
            self._worker.start()
            with self._exchange:
                self._listen(self._config)
        except BaseException:
            self._rest()
            raise

    @transition
    def on_deactivate(self) -> None:
        """Stop receiving, finish the image in progress, stop publishing."""
        self._rest()

    @transition
    def on_cleanup(self) -> None:
        """Free everything that configure made."""
        self._release()

    @transition
    def on_shutdown(self) -> None:
        """Free everything, for good."""
        self._release()
        self._finalized = True

    @transition
    def on_error(self) -> None:
        """After an unexpected exception: free everything; the node is unconfigured and can be configured again."""
        self._release()

    def halt(self, timeout_s: float) -> None:
        """Stop working because the process ends; wait at most so long for an image in progress."""
        self.halted = True
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop(timeout_s)
        self._inquiries.refuse("the node ends")

    def _start(self) -> None:
        self._starter.cancel()
        if (state := super().state) != "unconfigured":
            self.get_logger().info(f"autostart: left to the lifecycle manager, for whom the node is {state}")
            return
        for trigger in (self.trigger_configure, self.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                self._give_up()
                return

    def _rest(self) -> None:
        """Stop receiving, finish the image in progress, stop publishing."""
        with self._exchange:
            self._unsubscribe(set(self._inputs))
        with self._intake:
            worker, self._worker = self._worker, None
        if worker is not None and not worker.stop(STOP_PATIENCE_S):
            raise RuntimeError(f"the image in progress took longer than {STOP_PATIENCE_S:g} s")
        self._inquiries.refuse(f"the node is {self.state}: expected active")
        super().on_deactivate(None)

    def _release(self) -> None:
        self._rest()
        for made in (self._outputs, self._transform, self._initial_pose, self._mount):
            if made is not None:
                made.destroy()
        self._loaded = self._outputs = self._transform = self._initial_pose = None
        self._camera = self._mount = self._unused = None
        give_back_memory()

    def _announce_datum(self) -> None:
        loaded, outputs = self._loaded, self._outputs
        if loaded is not None and outputs is not None:
            outputs.announce(loaded.datum, self._config.map_frame)

    def _load(self) -> Loaded:
        """Open the gallery; parameters may change meanwhile."""
        config = self._config
        loaded = load(self._opener, config)
        with self._exchange:
            self._loaded = loaded if self._config is config else loaded.reconfigured(self._config)
        self.get_logger().info(str(loaded))
        return loaded

    # ---- parameters

    def _listen_to_parameters(self) -> None:
        self.add_on_set_parameters_callback(self._validate)
        self._applies_afterwards = hasattr(self, "add_post_set_parameters_callback")  # Humble has none
        if self._applies_afterwards:
            self.add_post_set_parameters_callback(self._apply)
        if hasattr(self, "add_pre_set_parameters_callback"):  # nor this: there, 30 for a double is refused
            self.add_pre_set_parameters_callback(whole_to_double)

    def set_parameters_atomically(self, parameter_list: list[Any]) -> Any:
        """Set parameters; a read-only one may be "set" to its present value, as when the node's dump is loaded."""
        changes = [p for p in parameter_list if not self._is_unchanged_read_only(p)]
        if parameter_list and not changes:
            return SetParametersResult(successful=True)
        return super().set_parameters_atomically(changes)

    def _is_unchanged_read_only(self, parameter: Any) -> bool:
        """Whether a parameter is read-only and has this very value already."""
        name = parameter.name
        if not (self.has_parameter(name) and self.describe_parameter(name).read_only):
            return False
        present = self.get_parameter(name)
        return (present.type_, present.value) == (parameter.type_, parameter.value)

    def _validate(self, parameters: list[Any]) -> SetParametersResult:
        """Validate new values and build what they need; the node itself does not change yet."""
        self._validated, reason, loaded, current = None, "", self._loaded, flatten(self._config)
        given = {p.name: p.value for p in parameters if p.name in current}
        try:
            config = parse_parameters({**current, **given})
            changed = {name for name, value in flatten(config).items() if value != current[name]}
            reason = refuse_change(changed, configured=self._configuring or loaded is not None)
            if given and not reason:
                self._validated = config, loaded, None if loaded is None else loaded.reconfigured(config)
        except GeowarpError as error:
            reason = str(error)
        if not self._applies_afterwards:
            self._apply(parameters)
        return SetParametersResult(successful=not reason, reason=reason)

    def _apply(self, _: list[Any]) -> None:
        """Take what was validated, now that no other callback has rejected it."""
        if self._validated is None:
            return
        (config, before, loaded), self._validated = self._validated, None
        with self._exchange:
            try:
                if self._loaded is not before:  # another gallery was opened meanwhile
                    loaded = None if self._loaded is None else self._loaded.reconfigured(config)
                with self._telling:
                    self._found &= config.mode == self._config.mode
                self._config, self._loaded = config, loaded
                self._session.configure(config)
                if self._inputs:
                    self._listen(config)
            except GeowarpError as error:  # a QoS override, which is read only now
                self.get_logger().error(f"cannot apply parameters: {error}")

    # ---- services, diagnostics

    def _serve(self, answer: Callable[[Any], tuple[bool, str]], request: Any, response: Any) -> Any:
        """Answer a service call; an unexpected exception is logged and answered, and the node lives on."""
        try:
            response.success, response.message = answer(request)
        except Exception as error:
            self.get_logger().error(traceback.format_exc())
            response.success, response.message = False, f"{type(error).__name__}: {error}"
        return response

    def _localize_next(self, _: Any) -> tuple[bool, str]:
        config = self._config
        with self._intake:
            worker = self._worker
            if worker is None:
                return self._answered(unanswered(f"the node is {self.state}: expected active"))
            earliest_s, caller = self._inquiries.ask(config.localize_max_age_s)
            if self._unused is not None and self._unused[1].at_s >= earliest_s:  # it was counted as dropped
                self.statistics.count_dropped(worker.put(self._unused) - 1)
                self._unused = None
        wait([caller], config.input_timeout_s)
        if caller.cancel():  # no image is in progress for it
            none = f"no image younger than {config.localize_max_age_s:g} s, and none came within"
            return self._answered(unanswered(f"{none} {config.input_timeout_s:g} s"))
        try:
            return self._answered(caller.result())
        except GeowarpError as error:
            return self._answered(unanswered(str(error)))

    def _answered(self, answer: Answer) -> tuple[bool, str]:
        said = {"stamp_ns": answer.header.stamp_ns, "prior": self._session.prior_said, **answer.to_dict()}
        return answer.fix is not None, json.dumps(said)

    def _pause(self, request: Any) -> tuple[bool, str]:
        self._paused = bool(request.data)
        return True, self.state

    def _reset_by_request(self, _: Any) -> tuple[bool, str]:
        self._reset("requested")
        return True, "reset"

    def _reload_gallery(self, _: Any) -> tuple[bool, str]:
        old = self._loaded
        if old is None:
            return False, f"the node is {self.state}: configure it"
        try:
            new = self._load()
        except GeowarpError as error:
            message = f"the old gallery stays: {error}"
            self.get_logger().error(message)
            return False, message
        self._announce_datum()
        moved = new.datum_moved_from(old)
        if moved:  # what was learned of the map frame is of another one
            self.get_logger().warning(f"the datum moved by {moved}, and map_frame with it: {new.about['datum']}")
            self._reset("another datum")
        return True, json.dumps(new.about | ({"datum moved by": moved} if moved else {}))

    def _publish_diagnostics(self) -> None:
        loaded, transform, camera, mount = self._loaded, self._transform, self._camera, self._mount
        initial_pose = self._initial_pose
        state, patience_s, silence = self.state, self._config.input_timeout_s, ""
        troubles = dict(clock_troubles(self))
        if state in ("active", "paused"):
            troubles |= self._watch.troubles(patience_s)
        said = dict(troubles)
        if state == "active":
            said |= self.statistics.troubles(patience_s)
            if (age_s := self.statistics.clock() - self.statistics.arrived_s) > patience_s:
                silence = where_images_are(self, *image_topic(self, self._config))
                said["silence"] = f"no image for {age_s:.0f} s: {silence}"
        self._remind(said)
        situation = Situation(
            node=self.get_fully_qualified_name().lstrip("/"),
            state=state,
            problem=self.problem,
            about={} if loaded is None else loaded.about,
            caution="" if loaded is None else loaded.localizer.caution,
            prior=self._session.prior_said,
            transform="off" if transform is None else transform.said,
            initial_pose="off" if initial_pose is None else initial_pose.said,
            camera="none" if camera is None else camera.said,
            base="off" if mount is None else mount.said,
            troubles=tuple(troubles.values()),
            silence=silence,
        )
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostic_array(stamp, situation, self.statistics, self._config))


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; returns the exit status."""
    return run(LocalizerNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
