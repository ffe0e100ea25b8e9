"""The pose of the robot's base on ``initialpose``: AMCL, slam_toolbox and RTAB-Map start from it."""

from __future__ import annotations

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from geowarp_ros.attitude import Mounting
from geowarp_ros.config import NodeConfig
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.odometry import Odometer
from geowarp_ros.motion.seeding import Seeding, carried_on
from geowarp_ros.ros.conversions import pose_from_fix
from geowarp_ros.types import Answer

TOPIC = "initialpose"
MEANING = (
    "With `initial_pose`: pose of `base_frame` in `map_frame` by a fix just made, carried on by the odometry since"
    " its image; while someone subscribes."
)


class InitialPose:
    """Publishes a pose to start from, once or whenever the robot is found again.

    It is that of the answer in hand, never an earlier one, and volatile: a subscriber that comes later gets a
    later one. slam_toolbox and RTAB-Map do not look at its stamp, so it is carried on to the newest odometry; AMCL
    goes on from its stamp by itself. Until someone subscribes nothing is published; if all have gone, whoever
    comes next is started anew.

    Args:
        node: Publishes.
        config: ``initial_pose``, which is not ``none`` here, and the name of the map frame.

    Attributes:
        said: What became of it, for people.
    """

    def __init__(self, node: LifecycleNode, config: NodeConfig) -> None:
        assert config.initial_pose != "none"
        self._node, self._config = node, config
        self._seeding, self._count = Seeding(config.initial_pose), 0
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)
        self._publisher = node.create_lifecycle_publisher(PoseWithCovarianceStamped, TOPIC, qos)
        self.said = "no fix yet"

    @property
    def waiting(self) -> bool:
        """Whether a pose is still to be published."""
        return self._seeding.wanted

    def reset(self) -> None:
        """Forget the fixes so far: the next one is published again."""
        self._seeding.reset()

    def destroy(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_lifecycle_publisher(self._publisher)

    def learn(
        self, answer: Answer, datum: LocalFrame, odometer: Odometer, mounting: Mounting | None, *, lost: bool
    ) -> None:
        """Publish the pose of the latest answer if it is one to start from."""
        listened_to = self._publisher.get_subscription_count() > 0
        if not listened_to:
            self._seeding.wanted = True
        right = self._seeding(answer, LocalFrame(*datum.datum), odometer, mounting, lost=lost)
        if not right or not listened_to or mounting is None or answer.fix is None:
            if self.waiting:
                self.said = (
                    "waits for a fix with an orientation" if listened_to else f"nobody subscribes to {TOPIC}"
                )
            return
        fix, stamp_ns, newest_ns = mounting.base_of(answer.fix), answer.header.stamp_ns, odometer.newest_ns
        if newest_ns is not None and newest_ns > stamp_ns:
            motion = odometer.motion(stamp_ns, newest_ns)
            if motion is not None:
                fix, stamp_ns = carried_on(fix, motion), newest_ns
        self._publisher.publish(pose_from_fix(fix, stamp_ns, datum, self._config))
        self._seeding.wanted = False
        self._count += 1
        self.said = f"{self._count} published, the last at {stamp_ns * 1e-9:.1f} s"
        self._node.get_logger().info(f"{TOPIC}: {fix.latitude_deg:.7f}, {fix.longitude_deg:.7f}, by {fix.method}")
