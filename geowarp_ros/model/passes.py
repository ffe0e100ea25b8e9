"""Encoder passes of bounded size, and what happens when CUDA runs out of memory."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch

from geowarp_ros.errors import ModelError

PIXELS_PER_PASS = 5_000_000
"""Maximum number of pixels in an encoder pass (16 images of 640×480): bounds memory, not speed."""

PIXELS_PER_CPU_PASS = 640 * 480 * 2
"""The same on a CPU: more than two such images exceed the caches and take longer each."""

_log = logging.getLogger(__name__)


def pixels_per_pass(device: torch.device) -> int:
    """Return how many pixels to put through the encoder at once."""
    return PIXELS_PER_CPU_PASS if device.type == "cpu" else PIXELS_PER_PASS


class Passes:
    """Splits images into encoder passes: equal sizes together, at most ``pixels`` of them.

    A pass that runs out of CUDA memory is repeated in halves, and later ones are no larger than what fitted.

    Attributes:
        pixels: Maximum number of pixels in a pass; shrinks when memory runs out.
        shortages: Number of times that memory ran out.
    """

    def __init__(self, pixels: int = PIXELS_PER_PASS) -> None:
        self.pixels = pixels
        self.shortages = 0

    @property
    def caution(self) -> str:
        """Message about memory that ran out; empty if it did not."""
        if not self.shortages:
            return ""
        return f"out of CUDA memory {self.shortages} times, goes on with at most {self.pixels:,} px a pass"

    def run(
        self, shapes: Sequence[tuple[int, ...]], work: Callable[[list[int]], None], *, per_row: int = 1
    ) -> None:
        """Call ``work`` with the rows of each pass, until every row is done.

        Args:
            shapes: (H, W, …) of each row's image.
            work: Processes the given rows; called again with fewer of them if memory ran out.
            per_row: Number of images of that size that a row puts through the encoder.

        Raises:
            ModelError: There is no memory for a single row.
        """
        waiting = deque(self._split(shapes, per_row))
        while waiting:
            rows = waiting.popleft()
            if _fits(work, rows):
                continue
            # here, and not while the exception is handled: its traceback holds the pass's tensors
            torch.cuda.empty_cache()
            self.shortages += 1
            height, width, *_ = shapes[rows[0]]
            half = (len(rows) + 1) // 2
            self.pixels = min(self.pixels, half * height * width * per_row)
            _log.warning("a pass of %d×%d px, %d deep: %s", width, height, len(rows) * per_row, self.caution)
            if len(rows) > 1:
                waiting.extendleft([rows[half:], rows[:half]])
            elif not _fits(work, rows):  # what was cached is free now
                raise ModelError(
                    f"out of CUDA memory for a single image of {width}×{height} px: expected more free memory,"
                    " device = 'cpu', or a model that works at a lower resolution"
                )

    def _split(self, shapes: Sequence[tuple[int, ...]], per_row: int) -> Iterator[list[int]]:
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for row, shape in enumerate(shapes):
            by_shape.setdefault(shape, []).append(row)
        for (height, width, *_), rows in by_shape.items():
            step = max(1, self.pixels // (height * width * per_row))
            for start in range(0, len(rows), step):
                yield rows[start : start + step]


def _fits(work: Callable[[list[int]], None], rows: list[int]) -> bool:
    try:
        work(rows)
    except torch.cuda.OutOfMemoryError:
        return False
    return True
