"""Evaluation of a localizer: asking, drives, judging, calibration, report and exports. No ROS in here."""
