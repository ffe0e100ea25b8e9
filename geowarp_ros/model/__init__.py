"""The network: encoders, aggregation, matching, regression, checkpoints."""

GRID = 15
"""Local features are a GRID × GRID map, whatever the image's size (paper sec. 4.1). Here: it needs no torch."""
