"""Matching of keypoints: nearest neighbours with the ratio test (Lowe, IJCV 2004, sec. 7.1)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pairs = NDArray[np.int64]
"""(M, 2): number of the first set's keypoint, number of the second's."""

NO_PAIRS: Pairs = np.empty((0, 2), np.int64)

STRONGEST, REST = 0, 1
"""Halves of an image's keypoints: the strongest ones can be matched by themselves."""

Key: TypeAlias = tuple[int, int]
"""A half, and a part within it."""

SIFT_DIM = 128
"""Bytes of a SIFT descriptor."""
_AT_ONCE = 256
"""Rows whose distances are looked at while they are in the cache."""


def match(first: NDArray[np.uint8], second: NDArray[np.uint8], ratio: float) -> Pairs:
    """Match each descriptor of ``first`` with its nearest of ``second``, where that is clearly the nearest.

    Where several of ``first`` choose the same one, the nearest of them keeps it.

    Args:
        first: (N, D).
        second: (M, D).
        ratio: Maximum ratio of the distances to the nearest and the second-nearest, of SIFT; see :func:`ratio_of`.

    Returns:
        (K, 2), in the order of ``first``.
    """
    if len(first) == 0 or len(second) < 2:
        return NO_PAIRS
    return nearest(Prepared.of(first), Prepared.of(second)).pairs(ratio_of(ratio, first.shape[1]))


def ratio_of(ratio: float, dim: int) -> float:
    """Return the ratio of distances that is as strict as ``ratio`` is for SIFT's 128 bytes.

    XFeat's 64 differ less from one another: the ratio of its squared distances is taken.
    """
    return ratio if dim == SIFT_DIM else math.sqrt(ratio)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Descriptors as their distances are computed from.

    Attributes:
        numbers: (N,) which of the image's keypoints they are of.
        plain: (N, D) float32.
        squared: (N,) float32, their squared lengths.
    """

    numbers: NDArray[np.int64]
    plain: NDArray[np.float32]
    squared: NDArray[np.float32]

    @classmethod
    def of(cls, descriptors: NDArray[np.uint8], numbers: NDArray[np.int64] | None = None) -> Prepared:
        """Prepare those of these numbers; None: all."""
        chosen = descriptors if numbers is None else descriptors[numbers]
        plain = chosen.astype(np.float32)
        numbers = np.arange(len(plain)) if numbers is None else numbers
        return cls(numbers, plain, np.einsum("ij,ij->i", plain, plain))


def prepare(
    descriptors: NDArray[np.uint8], strongest: int, part: NDArray[np.int8] | None = None
) -> dict[Key, Prepared]:
    """Prepare an image's descriptors, strongest first, half by half and part by part; only such as have any.

    Args:
        descriptors: (N, D).
        strongest: Number of those in the first half.
        part: (N,) the part of each; None: all are of part 0.
    """
    part = np.zeros(len(descriptors), np.int8) if part is None else part
    half = np.where(np.arange(len(descriptors)) < strongest, STRONGEST, REST)
    keys = [(h, p) for h in (STRONGEST, REST) for p in np.unique(part[half == h]).tolist()]
    return {(h, p): Prepared.of(descriptors, np.flatnonzero((half == h) & (part == p))) for h, p in keys}


@dataclass(frozen=True, slots=True)
class Nearest:
    """The nearest of a second set to each descriptor of a first one.

    Attributes:
        number: (N,) which one it is.
        best: (N,) its squared distance.
        runner_up: (N,) squared distance of the second-nearest; infinite where there is none.
    """

    number: NDArray[np.int64]
    best: NDArray[np.float32]
    runner_up: NDArray[np.float32]

    def pairs(self, ratio: float, usable: NDArray[np.bool_] | None = None) -> Pairs:
        """Return the matches, see :func:`match`; ``usable``: (N,) which of the first set may match."""
        passes = (self.best < ratio**2 * self.runner_up) & np.isfinite(self.runner_up)
        good = np.flatnonzero(passes if usable is None else passes & usable)
        order = good[np.argsort(self.best[good], kind="stable")]
        _, firsts = np.unique(self.number[order], return_index=True)
        kept = np.sort(order[firsts])
        return np.stack([kept, self.number[kept]], axis=1)

    def or_of(self, other: Nearest) -> Nearest:
        """Return the nearest among two second sets."""
        behind = np.maximum(self.best, other.best)
        return Nearest(
            np.where(other.best < self.best, other.number, self.number),
            np.minimum(self.best, other.best),
            np.minimum(behind, np.minimum(self.runner_up, other.runner_up)),
        )


def nearest(first: Prepared, second: Prepared) -> Nearest:
    """Find the nearest of ``second``, at least one, to each of ``first``."""
    count = len(first.numbers)
    number, (best, runner_up) = np.empty(count, np.int64), np.empty((2, count), np.float32)
    # |a - b|² = |a|² + |b|² - 2 a·b, exact in float32: all terms are whole numbers below 2^24
    for start in range(0, count, _AT_ONCE):
        block = slice(start, start + _AT_ONCE)
        squared = (-2.0 * first.plain[block]) @ second.plain.T
        squared += second.squared
        rows = np.arange(len(squared))
        number[block] = squared.argmin(axis=1)
        best[block] = squared[rows, number[block]]
        squared[rows, number[block]] = np.inf
        runner_up[block] = squared.min(axis=1)
    return Nearest(second.numbers[number], best + first.squared, runner_up + first.squared)


class Compared(Protocol):
    """Keypoints of a query with those of a place, compared once for all who match parts of them."""

    def pairs(
        self,
        ratio: float,
        parts: Collection[int],
        halves: Collection[int],
        usable: NDArray[np.bool_] | None = None,
    ) -> Pairs:
        """Match with the place's keypoints of these parts.

        Args:
            ratio: As that of :func:`match`.
            parts: Parts of the place.
            halves: Halves of both.
            usable: (N,) which of the query's may match; None: all.
        """


@dataclass(frozen=True, slots=True)
class Matched:
    """Keypoints that a network matched, the strongest half of each: it needs no ratio.

    Attributes:
        found: The pairs.
        part: (M,) part of each of the place's keypoints.
    """

    found: Pairs
    part: NDArray[np.int8]

    def pairs(
        self,
        ratio: float,
        parts: Collection[int],
        halves: Collection[int],
        usable: NDArray[np.bool_] | None = None,
    ) -> Pairs:
        """See :meth:`Compared.pairs`."""
        wanted = np.isin(self.part[self.found[:, 1]], list(parts))
        return self.found[wanted if usable is None else wanted & usable[self.found[:, 0]]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Nearest neighbours of a query's keypoints among those of a place.

    Distances are what matching costs, and who asks for a part of what was asked for before needs no new ones.

    Attributes:
        query: Of the query, all of part 0.
        place: Of the place.
    """

    query: Mapping[Key, Prepared]
    place: Mapping[Key, Prepared]
    _found: dict[tuple[Key, Key], Nearest] = field(default_factory=dict)

    def pairs(
        self,
        ratio: float,
        parts: Collection[int],
        halves: Collection[int],
        usable: NDArray[np.bool_] | None = None,
    ) -> Pairs:
        """See :meth:`Compared.pairs`; as :func:`match` matches."""
        wanted = [key for key in self.place if key[0] in halves and key[1] in parts]
        own = [key for key in self.query if key[0] in halves]
        if not wanted or not own:
            return NO_PAIRS
        found = [reduce(Nearest.or_of, [self._nearest(key, other) for other in wanted]) for key in own]
        ratio = ratio_of(ratio, self.query[own[0]].plain.shape[1])
        return _one_after_the_other(found).pairs(ratio, usable)

    def _nearest(self, own: Key, other: Key) -> Nearest:
        if (own, other) not in self._found:
            self._found[own, other] = nearest(self.query[own], self.place[other])
        return self._found[own, other]


def _one_after_the_other(found: Sequence[Nearest]) -> Nearest:
    if len(found) == 1:
        return found[0]
    return Nearest(*(np.concatenate([getattr(f, n) for f in found]) for n in ("number", "best", "runner_up")))
