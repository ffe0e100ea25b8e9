"""The rows of a gallery: what lies in several segments is numbered through, without what was removed.

A *stored* row counts every row of every segment, in the manifest's order; a *row* counts those not removed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IndexArray = NDArray[np.int64]


class RowNumbers:
    """Rows of a gallery and the stored rows they are; needs memory for the removed ones only.

    Args:
        stored: How many rows are stored.
        removed: Which of them are removed, any order.
    """

    def __init__(self, stored: int, removed: IndexArray) -> None:
        self.removed = np.unique(removed)
        self._stored = stored
        self._kept_before = self.removed - np.arange(len(self.removed))  # each removed one

    def __len__(self) -> int:
        return self._stored - len(self.removed)

    def stored(self, rows: IndexArray) -> IndexArray:
        """Return the stored rows of rows."""
        return np.asarray(rows + np.searchsorted(self._kept_before, rows, side="right"), np.int64)

    def rows(self, stored: IndexArray) -> IndexArray:
        """Return the rows of stored rows, none of which is removed."""
        return np.asarray(stored - np.searchsorted(self.removed, stored), np.int64)


class Stacked:
    """Arrays of several segments read as one, without copying them.

    Args:
        arrays: At least one; each (N_i, D) with the same D; may be memory maps.
    """

    def __init__(self, arrays: Sequence[NDArray[np.float32]]) -> None:
        self.arrays = [np.asarray(array) for array in arrays]
        self.starts = np.cumsum([0, *(len(array) for array in arrays)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return int(self.arrays[0].shape[1])

    def split(self, stored: int) -> tuple[Stacked, Stacked]:
        """Return the arrays before and from a stored row, at which one of them begins or the last one ends."""
        number = int(np.searchsorted(self.starts, stored))
        none = self.arrays[0][:0]
        return Stacked(self.arrays[:number] or [none]), Stacked(self.arrays[number:] or [none])

    def __getitem__(self, stored: IndexArray) -> NDArray[np.float32]:
        """Return the rows of the given numbers, an array of any shape."""
        if len(self.arrays) == 1:
            return self.arrays[0][stored]
        of = np.searchsorted(self.starts, stored, side="right") - 1
        found = np.empty((*stored.shape, *self.arrays[0].shape[1:]), self.arrays[0].dtype)
        for number in np.unique(of):
            chosen = of == number
            found[chosen] = self.arrays[number][stored[chosen] - self.starts[number]]
        return found
