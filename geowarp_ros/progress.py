"""How long work shows where it is: library functions take a ``progress`` of this form, silent unless asked.

The command line passes :func:`bar`; a test may pass a function that counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Wraps the items of a loop and passes them on."""

    def __call__(self, items: Iterable[T], total: int, label: str, /) -> Iterable[T]:
        """Return the items, unchanged and in order."""


def silent(items: Iterable[T], total: int, label: str, /) -> Iterable[T]:
    """Show nothing."""
    return items


def bar(items: Iterable[T], total: int, label: str, /) -> Iterator[T]:
    """Show a bar on stderr with the label, the rate and the time left."""
    from tqdm import tqdm

    yield from tqdm(items, total=total, desc=label, unit="", dynamic_ncols=True)
