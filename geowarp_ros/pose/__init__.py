"""From matches with aligned photographs to the camera's pose."""

from geowarp_ros.pose.estimation import estimate_pose as estimate_pose
