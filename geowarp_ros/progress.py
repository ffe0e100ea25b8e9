"""How long work shows where it is: library functions take a ``progress`` of this form, silent unless asked.

The command line passes :func:`bar`; a test may pass a function that counts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Wraps the items of a loop and passes them on."""

    def __call__(self, items: Iterable[T], total: int, label: str, /) -> Iterable[T]:
        """Return the items, unchanged and in order.

        The label says what is done; its last word is what the items are, in the plural.
        """


def silent(items: Iterable[T], total: int, label: str, /) -> Iterable[T]:
    """Show nothing."""
    return items


def bar(items: Iterable[T], total: int, label: str, /) -> Iterator[T]:
    """Show a bar on stderr with the label, the rate and the time left; nothing where stderr is no terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield from items
        return
    from tqdm import tqdm

    form = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
    unit = f" {label.split()[-1]}"
    yield from tqdm(items, total=total, desc=label, unit=unit, bar_format=form, dynamic_ncols=True)
