"""Independent random generators per object: adding a street leaves the appearance of all others unchanged."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def generator(seed: int, *key: int | str) -> np.random.Generator:
    """Return the generator of the object identified by ``key`` in the world of ``seed``; platform-independent."""
    words = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in key]
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Draw one option uniformly."""
    return options[int(rng.integers(len(options)))]


def draw_seed(rng: np.random.Generator) -> int:
    """Draw a seed for another generator."""
    return int(rng.integers(2**31))
