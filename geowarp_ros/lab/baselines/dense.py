"""InLoc's dense matching (Taira et al., CVPR 2018) on the 15×15 local features of encoder E."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from geowarp_ros.gallery.store import Gallery
from geowarp_ros.model import GRID
from geowarp_ros.model.describer import Query
from geowarp_ros.rerank.verification import Points
from geowarp_ros.types import FloatArray


class DenseMatcher:
    """Mutual nearest neighbours among the 15×15 local features of encoder E; points in cells."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery

    def __call__(self, query: Query, indices: Sequence[int], /) -> Iterator[tuple[Points, Points]]:
        """Yield the centres of matched cells, 0.5 to 14.5."""
        if not indices:
            return
        f_q = query.local_features[0].flatten(1).float()
        # torch converts half precision ten times faster than NumPy, and multiplies all in one go
        stored = torch.from_numpy(self._gallery.local_features(list(indices)))
        f_p = stored.to(f_q.device).float().flatten(2)
        rows, columns = np.divmod(np.arange(GRID * GRID), GRID)
        centres = np.stack([columns, rows], axis=1).astype(np.float32) + 0.5
        for products in (f_q.T @ f_p).cpu().numpy():
            cells_q, cells_p = mutual_nearest(products)
            yield centres[cells_q], centres[cells_p]


def mutual_nearest(products: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pairs (row, column) of a matrix of inner products that are largest in both row and column."""
    best_column, best_row = products.argmax(axis=1), products.argmax(axis=0)
    rows = np.flatnonzero(best_row[best_column] == np.arange(len(products)))
    return rows, best_column[rows]
