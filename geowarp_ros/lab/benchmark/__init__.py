"""Measurements of the package itself: what each part costs, side by side in one run."""
