"""The only room that says ROS: node, conversions, parameters."""
