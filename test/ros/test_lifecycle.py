"""The lifecycle as managers use it: out of turn, while something is loaded, up and down and up again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters

from geowarp_ros.ros.node import LocalizerNode
from geowarp_ros.types import Image as Pixels
from test.ros.conftest import PATIENCE_S, Robot, image_message, until, values
from test.ros.test_node import Script, script, start  # noqa: F401  (fixtures)

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("graph")]

NAME = "/geowarp_localizer"


class Nav2Manager:
    """Brings one node up and down as nav2_lifecycle_manager does (navigation2, lifecycle_manager.cpp).

    For each transition it calls change_state, and get_state for what came of it; it asks for no state before.
    """

    GOALS: ClassVar = {
        Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
        Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
        Transition.TRANSITION_DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
        Transition.TRANSITION_CLEANUP: State.PRIMARY_STATE_UNCONFIGURED,
        Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: State.PRIMARY_STATE_FINALIZED,
    }

    def __init__(self, robot: Robot) -> None:
        self.robot = robot

    def change(self, transition: int, label: str = "") -> bool:
        request = ChangeState.Request(transition=Transition(id=transition, label=label))
        changed = self.robot.call(ChangeState, f"{NAME}/change_state", request).success
        state = self.robot.call(GetState, f"{NAME}/get_state", GetState.Request(), attempts=12).current_state.id
        return bool(changed) and state == self.GOALS[transition]

    def startup(self) -> bool:
        return self.change(Transition.TRANSITION_CONFIGURE) and self.change(Transition.TRANSITION_ACTIVATE)

    def reset(self) -> bool:
        return self.change(Transition.TRANSITION_DEACTIVATE) and self.change(Transition.TRANSITION_CLEANUP)

    def pause(self) -> bool:
        return self.change(Transition.TRANSITION_DEACTIVATE)

    def resume(self) -> bool:
        return self.change(Transition.TRANSITION_ACTIVATE)

    def shutdown(self) -> bool:
        return self.reset() and self.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)


def test_a_manager_brings_it_up_and_down_and_up_again(
    start: Callable[..., LocalizerNode],  # noqa: F811
    robot: Robot,
    pixels: Pixels,
) -> None:
    start({"autostart": False})
    manager = Nav2Manager(robot)
    for stamp_s in range(10):  # test.soak does it a hundred times, with a real model
        assert manager.startup()
        assert robot.answer(image_message(pixels, stamp_s=1.0 + stamp_s)).status.status == 0
        assert manager.pause() and manager.resume() and manager.reset()
    assert manager.startup() and manager.shutdown()
    assert robot.state() == "finalized"
    assert not manager.startup()  # for good
    assert robot.state() == "finalized"


def test_a_request_out_of_turn_is_refused_and_the_node_lives(
    start: Callable[..., LocalizerNode],  # noqa: F811
    robot: Robot,
    pixels: Pixels,
    capfd: pytest.CaptureFixture[str],
) -> None:
    start()  # which starts itself: nav2's manager finds it active
    manager = Nav2Manager(robot)
    until(lambda: robot.state() == "active", "activation")
    assert not manager.startup()
    assert not manager.resume()
    assert "transition 1 refused: the node is active, expected one of deactivate (4), shutdown (7)" in (
        capfd.readouterr().err
    )
    for transition, label in (
        (Transition.TRANSITION_CONFIGURE, "configure"),
        (Transition.TRANSITION_CLEANUP, "cleanup"),
        (Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, "no_such_transition"),
        (Transition.TRANSITION_CONFIGURE, "transition_success"),
        (Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, ""),
    ):
        assert not manager.change(transition, label)
    assert robot.state() == "active"
    assert robot.answer(image_message(pixels, stamp_s=2.0)).status.status == 0
    assert manager.change(Transition.TRANSITION_DEACTIVATE, "deactivate")  # in turn, by its label
    assert robot.change("activate")
    assert robot.answer(image_message(pixels, stamp_s=3.0)).status.status == 0


def test_autostart_leaves_a_node_to_a_manager_that_was_first(
    start: Callable[..., LocalizerNode],  # noqa: F811
    robot: Robot,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    held, gave_up = threading.Event(), threading.Event()
    begin = LocalizerNode._start
    monkeypatch.setattr(LocalizerNode, "_start", lambda node: held.wait(0) and begin(node))
    start(give_up=gave_up.set)
    assert robot.change("configure")
    held.set()
    until(lambda: "autostart: left to the lifecycle manager" in capfd.readouterr().err, "autostart")
    assert robot.state() == "inactive" and not gave_up.is_set()


class Gate:
    """Opens a script's galleries once it is open itself."""

    def __init__(self, script: Script) -> None:  # noqa: F811
        self.reached, self.open, self._script = threading.Event(), threading.Event(), script

    def __call__(self, config: Any) -> Any:
        self.reached.set()
        assert self.open.wait(PATIENCE_S)
        return self._script.open(config)


def test_questions_and_parameters_are_answered_while_it_configures(
    start: Callable[..., LocalizerNode],  # noqa: F811
    robot: Robot,
    script: Script,  # noqa: F811
    pixels: Pixels,
) -> None:
    gate = Gate(script)

    start(opener=gate)
    try:
        assert gate.reached.wait(PATIENCE_S)  # from here on it takes for ever
        assert robot.state() == "configuring"
        request = GetAvailableTransitions.Request()
        name = f"{NAME}/get_available_transitions"
        assert robot.call(GetAvailableTransitions, name, request).available_transitions
        assert robot.call(ListParameters, f"{NAME}/list_parameters", ListParameters.Request()).result.names
        assert robot.set(frame_id="base_link", rerank__candidates=3) == ""
        assert "model can be set before configure only" in robot.set(model="other")
        assert robot.set(rerank__method="none") == ""  # which this script refuses once it is asked
        assert robot.set(rerank__method="geowarp") == ""
        (value,) = robot.call(
            GetParameters, f"{NAME}/get_parameters", GetParameters.Request(names=["rerank.candidates"])
        ).values
        assert value.integer_value == 3
        said = robot.diagnosis(lambda parts: parts["localization"].message == "configuring")
        assert values(said["localization"])["state"] == "configuring"
        answer = robot.trigger("localize")
        assert not answer.success and "the node is configuring: expected active" in answer.message
        assert robot.state() == "configuring"
    finally:
        gate.open.set()
    until(lambda: robot.state() == "active", "activation")
    assert (script.configs[0].frame_id, script.configs[0].rerank.candidates) == ("", 5)
    assert (script.configs[-1].frame_id, script.configs[-1].rerank.candidates) == ("base_link", 3)
    assert robot.answer(image_message(pixels, stamp_s=2.0)).header.frame_id == "base_link"


def test_settings_that_do_not_fit_what_was_loaded_meanwhile_fail_the_configuration(
    start: Callable[..., LocalizerNode],  # noqa: F811
    robot: Robot,
    script: Script,  # noqa: F811
) -> None:
    gate = Gate(script)

    start({"autostart": False}, opener=gate)
    configured: list[bool] = []
    thread = threading.Thread(target=lambda: configured.append(robot.change("configure")))
    thread.start()
    try:
        assert gate.reached.wait(PATIENCE_S)
        assert robot.set(rerank__method="none") == ""
    finally:
        gate.open.set()
    thread.join(PATIENCE_S)
    assert configured == [False] and robot.state() == "unconfigured"
    robot.diagnosis(lambda parts: "rerank.method = 'none': not with this script" in parts["localization"].message)
    assert robot.set(rerank__method="geowarp") == ""
    assert robot.change("configure")


def test_images_are_answered_and_parameters_set_while_another_gallery_is_loaded(
    start: Callable[..., LocalizerNode],  # noqa: F811
    robot: Robot,
    script: Script,  # noqa: F811
    pixels: Pixels,
) -> None:
    gate = Gate(script)
    gate.open.set()

    start(opener=gate)
    robot.answer(image_message(pixels, stamp_s=1.0))
    gate.reached.clear()
    gate.open.clear()
    thread = threading.Thread(target=lambda: robot.trigger("reload_gallery"))
    thread.start()
    try:
        assert gate.reached.wait(PATIENCE_S)
        assert robot.state() == "active"
        assert robot.set(rerank__candidates=9, frame_id="head") == ""
        assert robot.answer(image_message(pixels, stamp_s=2.0)).header.frame_id == "head"
    finally:
        gate.open.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert [config.rerank.candidates for config in script.configs] == [5, 9, 5, 9]  # the new one, too
    assert robot.answer(image_message(pixels, stamp_s=3.0)).header.frame_id == "head"


def test_the_nodes_own_dump_can_be_loaded_while_it_runs(
    start: Callable[..., LocalizerNode],  # noqa: F811
    robot: Robot,
) -> None:
    node = start({"device": "cpu", "camera_offset.x_m": 1.0, "base_frame": "base_link"})
    until(lambda: robot.state() == "active", "activation")
    names = robot.call(ListParameters, f"{NAME}/list_parameters", ListParameters.Request()).result.names
    assert set(names) > {"autostart", "device", "use_sim_time", "qos_overrides./image.subscription.depth"}
    dump = robot.call(GetParameters, f"{NAME}/get_parameters", GetParameters.Request(names=names)).values
    request = SetParameters.Request(
        parameters=[ParameterMessage(name=name, value=value) for name, value in zip(names, dump, strict=True)]
    )
    results = robot.call(SetParameters, f"{NAME}/set_parameters", request).results
    assert [(name, r.reason) for name, r in zip(names, results, strict=True) if not r.successful] == []
    assert robot.set(autostart=True, device="cpu", datum_latitude=0, frame_id="") == ""
    for name, value in (("autostart", False), ("device", "auto"), ("base_frame", "base")):
        assert robot.set(**{name: value, "lost_after": 7}) != ""
    assert node.get_parameter("lost_after").value != 7  # nothing of a refused set was taken
    assert robot.set(autostart=True, lost_after=7) == ""
    assert node.get_parameter("lost_after").value == 7
