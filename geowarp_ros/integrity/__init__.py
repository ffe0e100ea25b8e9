"""Does the localizer know when it is lost? Evidence, geometric verification, calibration."""
