"""A real ROS 2 graph on loopback, in a domain of this session's own, and the other end of the line."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from PIL import Image as Pillow
from rcl_interfaces.srv import DescribeParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image, Imu, NavSatFix
from std_srvs.srv import SetBool, Trigger

from geowarp_ros.ros.conversions import stamp_ns
from geowarp_ros.types import Image as Pixels

if TYPE_CHECKING:
    from geowarp_ros.ros.node import LocalizerNode

PATIENCE_S = 60.0
"""How long a test waits before it fails; nothing passes by waiting."""

LATITUDES = (50.000, 50.001, 50.002, 50.003)
"""Where :func:`colourful` photographs were taken, at 8° east."""

TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "cleanup": Transition.TRANSITION_CLEANUP,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
}


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition of the graph, for which rclpy has no event."""
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s for {what}"
        time.sleep(0.01)
    return result


class Robot:
    """What stands around the localizer on a robot: a camera, a consumer of fixes, an operator."""

    def __init__(self, name: str = "robot", namespace: str = "") -> None:
        self.node = Node(name, namespace=namespace or None)
        self.fixes: queue.Queue[NavSatFix] = queue.Queue()
        self.poses: queue.Queue[PoseWithCovarianceStamped] = queue.Queue()
        self.diagnostics: queue.Queue[DiagnosticArray] = queue.Queue()
        self.raw = self.node.create_publisher(Image, "image", qos_profile_sensor_data)
        self.compressed = self.node.create_publisher(CompressedImage, "image/compressed", qos_profile_sensor_data)
        self.prior = self.node.create_publisher(NavSatFix, "prior_fix", qos_profile_sensor_data)
        self.imu = self.node.create_publisher(Imu, "imu", qos_profile_sensor_data)
        self.odometry = self.node.create_publisher(Odometry, "odometry", qos_profile_sensor_data)
        self.node.create_subscription(NavSatFix, "geowarp_localizer/fix", self.fixes.put, 50)
        self.node.create_subscription(PoseWithCovarianceStamped, "geowarp_localizer/pose", self.poses.put, 50)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.put, 50)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(PATIENCE_S)
        self.node.destroy_node()

    def call(self, kind: type, name: str, request: Any, attempts: int = 1) -> Any:
        """Call a service. A first answer can be lost while discovery goes on: what only asks may ask again."""
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(timeout_sec=PATIENCE_S), f"no service {name}"
        try:
            for _ in range(attempts):
                future, done = client.call_async(request), threading.Event()
                future.add_done_callback(lambda _, done=done: done.set())
                if done.wait(PATIENCE_S / attempts):
                    return future.result()
            raise AssertionError(f"{name} does not answer")
        finally:
            self.node.destroy_client(client)

    def ask(self, message: Any) -> Any:
        """Ask the paused node where the robot is, and show an image until it answers."""
        self.pause(True)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.trigger, "localize")
            while not wait([answer], 0.1).done:
                self.show(message)
        self.pause(False)
        return answer.result()

    def drive(self, node: LocalizerNode, message: Odometry) -> None:
        """Publish odometry until the node has it: it is best effort, and discovery loses some."""

        def arrived() -> bool:
            if node._session.odometer.pose_at(stamp_ns(message.header.stamp)) is None:
                self.odometry.publish(message)
                return False
            return True

        until(arrived, "the odometry to arrive")

    def trigger(self, name: str) -> Any:
        return self.call(Trigger, f"/geowarp_localizer/{name}", Trigger.Request())

    def pause(self, paused: bool) -> Any:
        return self.call(SetBool, "/geowarp_localizer/pause", SetBool.Request(data=paused))

    def state(self) -> str:
        answer = self.call(GetState, "/geowarp_localizer/get_state", GetState.Request(), attempts=12)
        return str(answer.current_state.label)

    def change(self, transition: str) -> bool:
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[transition]))
        return bool(self.call(ChangeState, "/geowarp_localizer/change_state", request).success)

    def set(self, **parameters: Any) -> str:
        """Set parameters as one (``__`` for a dot); returns the reason of a refusal, empty when they are set."""
        values = [Parameter(name.replace("__", "."), value=value) for name, value in parameters.items()]
        request = SetParametersAtomically.Request(parameters=[value.to_parameter_msg() for value in values])
        name = "/geowarp_localizer/set_parameters_atomically"
        result = self.call(SetParametersAtomically, name, request).result
        assert result.successful == (not result.reason)
        return str(result.reason)

    def describe(self, *names: str) -> list[Any]:
        request = DescribeParameters.Request(names=list(names))
        name = "/geowarp_localizer/describe_parameters"
        return list(self.call(DescribeParameters, name, request).descriptors)

    def show(self, message: Any) -> None:
        """Publish a camera message, once the localizer listens."""
        publisher = self.raw if isinstance(message, Image) else self.compressed
        until(publisher.get_subscription_count, "the localizer to subscribe")
        publisher.publish(message)

    def fix(self) -> NavSatFix:
        return self.fixes.get(timeout=PATIENCE_S)

    def answer(self, message: Any) -> NavSatFix:
        """Show an image and return its answer; those to images before it, shown twice perhaps, are dropped."""
        self.show(message)
        while (fix := self.fix()).header.stamp != message.header.stamp:
            pass
        return fix

    def diagnosis(self, wanted: Callable[[dict[str, Any]], bool] = lambda parts: True) -> dict[str, Any]:
        """Return the first diagnostics from now on that are as wanted, by subcomponent."""
        while not self.diagnostics.empty():
            self.diagnostics.get()
        deadline, parts = time.monotonic() + PATIENCE_S, None
        while True:
            assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s for diagnostics, the last: {parts}"
            array = self.diagnostics.get(timeout=PATIENCE_S)
            parts = {status.name.split(": ")[1]: status for status in array.status}
            parts["stamp"] = array.header.stamp
            if wanted(parts):
                return parts


def values(status: Any) -> dict[str, str]:
    return {item.key: item.value for item in status.values}


def colourful(rows: int, columns: int, width: int, height: int) -> list[Pixels]:
    """One picture for each of :data:`LATITUDES`: coarse noise, enlarged."""
    generator = np.random.default_rng(7)
    coarse = [generator.integers(0, 255, (rows, columns, 3), np.uint8) for _ in LATITUDES]
    return [
        np.asarray(Pillow.fromarray(small).resize((width, height), Pillow.Resampling.BICUBIC)) for small in coarse
    ]


def image_message(
    pixels: NDArray[Any], stamp_s: float = 1.0, frame_id: str = "camera", encoding: str = "rgb8"
) -> Image:
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    message.step = pixels.strides[0]
    message.data = pixels.tobytes()
    message.header.frame_id = frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = int(stamp_s), round(stamp_s % 1 * 1e9)
    return message


def prior_message(
    latitude: float, longitude: float, stamp_s: float, std_m: float = 5.0, status: int = 0
) -> NavSatFix:
    message = NavSatFix(latitude=latitude, longitude=longitude)
    message.header = image_message(np.zeros((1, 1, 3), np.uint8), stamp_s).header
    message.status.status = status
    message.position_covariance = (np.eye(3) * std_m**2).reshape(9)
    message.position_covariance_type = NavSatFix.COVARIANCE_TYPE_KNOWN
    return message


def imu_message(up: tuple[float, float, float], stamp_s: float, frame_id: str = "imu") -> Imu:
    """One that knows its acceleration alone, as in a unit at rest."""
    message = Imu(header=image_message(np.zeros((1, 1, 3), np.uint8), stamp_s, frame_id=frame_id).header)
    message.orientation_covariance[0] = -1.0
    message.linear_acceleration.x, message.linear_acceleration.y, message.linear_acceleration.z = (
        9.81 * value for value in up
    )
    return message


def odometry_message(x: float, y: float, yaw: float, stamp_s: float) -> Odometry:
    message = Odometry(child_frame_id="base_link")
    message.header = image_message(np.zeros((1, 1, 3), np.uint8), stamp_s, frame_id="odom").header
    message.pose.pose.position.x, message.pose.pose.position.y = x, y
    message.pose.pose.orientation.z, message.pose.pose.orientation.w = (
        float(np.sin(yaw / 2)),
        float(np.cos(yaw / 2)),
    )
    return message


def seconds(stamp: Any) -> float:
    return float(stamp.sec + stamp.nanosec * 1e-9)


@pytest.fixture
def robot(graph: None) -> Iterator[Robot]:
    robot = Robot()
    yield robot
    robot.close()


@pytest.fixture
def pixels() -> Pixels:
    return np.random.default_rng(5).integers(0, 255, (48, 64, 3), np.uint8)
