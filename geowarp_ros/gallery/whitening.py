"""PCA-whitening of descriptors: directions in which all places differ count less, those that tell them apart more.

Jégou and Chum, "Negative evidences and co-occurences in image retrieval: the benefit of PCA and whitening",
ECCV 2012, without the normalisation behind it: a shift, a rotation and a scaling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geowarp_ros.errors import GalleryError
from geowarp_ros.gallery.rows import Stacked

FloatArray = NDArray[np.float32]

_SAMPLE = 100_000
_LEAST_VARIANCE = 1e-6  # of the largest: what is smaller is rounding, not signal


@dataclass(frozen=True)
class Whitening:
    """Descriptors (…, D) to whitened ones (…, K).

    Scaled as a whole so that two rows of the gallery are as far apart in the mean as they were before: a weight on
    the distance (``rerank.retrieval_weight``) keeps its order of magnitude.

    Attributes:
        mean: (D,).
        matrix: (D, K).
    """

    mean: FloatArray
    matrix: FloatArray

    def __call__(self, descriptors: FloatArray) -> FloatArray:
        """Return the whitened descriptors, float32."""
        return np.asarray((descriptors - self.mean) @ self.matrix, np.float32)

    def to_array(self) -> FloatArray:
        """Return mean and matrix side by side, (D, 1 + K)."""
        return np.concatenate([self.mean[:, None], self.matrix], axis=1)

    @classmethod
    def from_array(cls, array: FloatArray) -> Whitening:
        """Read what :meth:`to_array` made."""
        return cls(np.ascontiguousarray(array[:, 0]), np.ascontiguousarray(array[:, 1:]))


def train_whitening(descriptors: Stacked, rows: NDArray[np.int64], dimensions: int) -> Whitening:
    """Learn the whitening of a gallery from (a sample of) its descriptors.

    Args:
        descriptors: (N, D).
        rows: Those that count.
        dimensions: K, at most D and fewer than the rows.

    Raises:
        GalleryError: More dimensions than the descriptors have or the images can determine.
    """
    length = descriptors.width
    if not 1 <= dimensions <= min(length, len(rows) - 1):
        raise GalleryError(
            f"whitening to {dimensions} dimensions: expected 1 to {min(length, len(rows) - 1)},"
            f" for {len(rows)} descriptors of {length} numbers"
        )
    chosen = np.sort(np.random.default_rng(0).choice(rows, min(len(rows), _SAMPLE), replace=False))
    sample = np.asarray(descriptors[chosen], np.float64)
    mean = sample.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov((sample - mean).T).reshape(length, length))
    variances, directions = variances[::-1][:dimensions], directions[:, ::-1][:, :dimensions]
    least = _LEAST_VARIANCE * max(float(variances[0]), np.finfo(float).tiny)
    matrix = directions / np.sqrt(np.maximum(variances, least))
    before, after = np.var(sample, axis=0).sum(), np.var((sample - mean) @ matrix, axis=0).sum()
    matrix *= np.sqrt(before / after) if after > 0 else 1.0
    return Whitening(mean.astype(np.float32), matrix.astype(np.float32))
