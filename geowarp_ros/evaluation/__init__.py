"""Metrics, data sets, bags, reports. No ROS in here."""
