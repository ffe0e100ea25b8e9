"""From geotagged images to a model. No ROS in here."""
