"""A managed node: transitions out of turn are refused, and questions do not wait for those in progress."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from rclpy.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from geowarp_ros.errors import GeowarpError

NodeT = TypeVar("NodeT", bound="ManagedNode")


def transition(callback: Callable[[NodeT], None]) -> Callable[[NodeT, Any], Any]:
    """Make a lifecycle callback: a known error is FAILURE, an unexpected exception ERROR; both are logged.

    rclpy itself swallows exceptions in transitions without a log line.
    """

    @functools.wraps(callback)
    def guarded(node: NodeT, _: Any) -> Any:
        verb = callback.__name__.removeprefix("on_")
        if verb != "error":  # which only tidies up after the problem
            node.problem = ""
        try:
            callback(node)
        except GeowarpError as error:
            node.problem = str(error)
            node.get_logger().error(f"cannot {verb}: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            if node.halted:  # the handles were destroyed in the middle
                return TransitionCallbackReturn.FAILURE
            node.problem = f"{type(error).__name__}: {error}"
            node.get_logger().error(f"cannot {verb}:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        node.get_logger().info(f"{verb}: now {node.state}")
        return TransitionCallbackReturn.SUCCESS

    return guarded


class ManagedNode(LifecycleNode):
    """A lifecycle node with three callback groups: transitions, questions about the lifecycle, and the default.

    A transition that loads a model takes long. Only other transitions wait for it; the state, the transitions that
    are possible, and the parameters (default group) are answered meanwhile.

    Args:
        name: Name of the node.
        **options: Options of rclpy's Node.

    Attributes:
        transitions: Group of whatever takes long and must not happen during a transition.
        problem: Why the last transition failed; empty if it did not.
        halted: Whether the process is ending.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.problem, self.halted = "", False
        self.transitions, questions = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        for about in ("state", "available_states", "available_transitions", "transition_graph"):
            self._move(getattr(self, f"_service_get_{about}"), questions)
        change = self._service_change_state
        self._move(change, self.transitions)
        change.callback = functools.partial(self._in_turn, change.callback)

    @property
    def state(self) -> str:
        """State of the lifecycle, by rcl's state machine."""
        return str(self._state_machine.current_state[1])

    def destroy_node(self) -> None:
        """Destroy all handles, the state machine's too: rclpy forgets it, and it keeps the DDS participant."""
        super().destroy_node()
        # taken away first: a running callback finds none, where a destroyed one would crash the process
        machine = self.__dict__.pop("_state_machine", None)
        if machine is not None:
            machine.destroy_when_not_in_use()

    @staticmethod
    def _move(service: Any, group: CallbackGroup) -> None:
        service.callback_group = group
        group.add_entity(service)

    def _in_turn(self, change: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
        """Change the state if the present one allows it, as rclcpp does.

        rclpy 7.1 raises for any other transition, which ends the process (ros2/rclpy#1209).
        """
        asked, possible = request.transition, {t[1]: t[0] for t in self._state_machine.available_transitions}
        if asked.label in possible if asked.label else asked.id in possible.values():
            return change(request, response)
        self.get_logger().warning(
            f"transition {asked.label or asked.id} refused: the node is"
            f" {self._state_machine.current_state[1]}, expected one of"
            f" {', '.join(f'{label} ({number})' for label, number in possible.items())}"
        )
        response.success = False
        return response
