"""PCA-whitening of descriptors: directions in which all places differ count less, those that tell them apart more.

Jégou and Chum, "Negative evidences and co-occurences in image retrieval: the benefit of PCA and whitening",
ECCV 2012: a shift, a rotation and a scaling, and then one length for all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    Their length is such that two rows of the gallery are as far apart in the mean as they were before: a weight on
    the distance (``rerank.retrieval_weight``) keeps its order of magnitude.

    Attributes:
        mean: (D,).
        matrix: (D, K), whose columns are the directions over the standard deviations along them.
        length: Of every whitened descriptor.
    """

    mean: FloatArray
    matrix: FloatArray
    length: float

    def __call__(self, descriptors: FloatArray) -> FloatArray:
        """Return the whitened descriptors, float32."""
        whitened = (descriptors - self.mean) @ self.matrix
        norm = np.linalg.norm(whitened, axis=-1, keepdims=True)
        return np.asarray(whitened * (self.length / np.maximum(norm, np.finfo(np.float32).tiny)), np.float32)

    def to_array(self) -> FloatArray:
        """Return all of it as (1 + D, 1 + K): the length in the first row, then mean and matrix side by side."""
        array = np.zeros((1 + len(self.mean), 1 + self.matrix.shape[1]), np.float32)
        array[0, 0], array[1:, 0], array[1:, 1:] = self.length, self.mean, self.matrix
        return array

    @classmethod
    def from_array(cls, array: FloatArray) -> Whitening:
        """Read what :meth:`to_array` made."""
        return cls(np.array(array[1:, 0]), np.array(array[1:, 1:]), float(array[0, 0]))


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
    unit = Whitening(mean.astype(np.float32), matrix.astype(np.float32), 1.0)
    before, after = np.var(sample, axis=0).sum(), np.var(unit(np.asarray(sample, np.float32)), axis=0).sum()
    return replace(unit, length=float(np.float32(np.sqrt(before / after) if after > 0 else 1.0)))
