"""The procedural street world: demo, tests, training data."""
