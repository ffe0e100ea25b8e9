"""One generator per thing, keyed by what it is: adding a street changes no other street's looks."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, *key: int | str) -> np.random.Generator:
    """Return the generator of the thing named by ``key`` in the world of ``seed``; the same on every machine."""
    words = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in key]
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))
