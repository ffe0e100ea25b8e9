"""From matches with aligned photographs to the camera's pose."""
