"""Keypoints: points that are found again in other images of the place, and how they are matched."""
