"""Row numbers of a gallery that consists of several segments.

A *stored row* counts the rows of all segments in the manifest's order; a *row* counts only those not removed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.int64]

NO_ROWS: IndexArray = np.empty(0, np.int64)


def among(rows: IndexArray, ascending: IndexArray) -> NDArray[np.bool_]:
    """Return whether each of ``rows`` (…) is one of the rows ``ascending`` (W,); quick for few among many."""
    if not len(ascending):
        return np.zeros(rows.shape, bool)
    found = np.minimum(np.searchsorted(ascending, rows), len(ascending) - 1)
    return np.asarray(ascending[found] == rows)


class RowNumbers:
    """Mapping between rows and stored rows; its memory grows with the removed rows only.

    Args:
        stored: Number of stored rows.
        removed: (R,) stored rows that were removed, in any order.
    """

    def __init__(self, stored: int, removed: IndexArray) -> None:
        self.removed = np.unique(removed)
        self._stored = stored
        self._kept_before = self.removed - np.arange(len(self.removed))  # rows before each removed one

    def __len__(self) -> int:
        return self._stored - len(self.removed)

    def stored(self, rows: IndexArray) -> IndexArray:
        """Return the stored rows of ``rows``."""
        return np.asarray(rows + np.searchsorted(self._kept_before, rows, side="right"), np.int64)

    def rows(self, stored: IndexArray) -> IndexArray:
        """Return the rows of stored rows, none of which is removed."""
        return np.asarray(stored - np.searchsorted(self.removed, stored), np.int64)


class Stacked:
    """Arrays of several segments, read as one without a copy.

    Args:
        arrays: One or more (N_i, D) arrays with the same D; may be memory maps.
    """

    def __init__(self, arrays: Sequence[FloatArray]) -> None:
        self.arrays = [np.asarray(array) for array in arrays]
        self.starts = np.cumsum([0, *(len(array) for array in arrays)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def width(self) -> int:
        """D."""
        return int(self.arrays[0].shape[1])

    def split(self, stored: int) -> tuple[Stacked, Stacked]:
        """Return the arrays before and after a boundary between segments, given as a stored row."""
        number = int(np.searchsorted(self.starts, stored))
        none = self.arrays[0][:0]
        return Stacked(self.arrays[:number] or [none]), Stacked(self.arrays[number:] or [none])

    def __getitem__(self, stored: IndexArray) -> FloatArray:
        """Return the descriptors (…, D) of stored rows (…)."""
        if len(self.arrays) == 1:
            return self.arrays[0][stored]
        of = np.searchsorted(self.starts, stored, side="right") - 1
        found = np.empty((*stored.shape, self.width), self.arrays[0].dtype)
        for number in np.unique(of):
            chosen = of == number
            found[chosen] = self.arrays[number][stored[chosen] - self.starts[number]]
        return found
