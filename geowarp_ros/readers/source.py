"""What every reader returns: geotagged images that are decoded only when asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from geowarp_ros.images import read_image
from geowarp_ros.types import Image, Place

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One geotagged image that has not been decoded yet.

    Attributes:
        place: Its name and position.
        read: Decodes it; raises ImageError. May be called from several threads; a bag's images are
            quickest read in order.
        path: Its file; None in a bag.
        split: Such as ``gallery`` or ``test/queries``; empty where the source has none.
    """

    place: Place
    read: Callable[[], Image]
    path: Path | None = None
    split: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something left out while the rest is good.

    Attributes:
        name: The image, or the bag.
        reason: In words, without the name.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Source:
    """A readable collection of geotagged images.

    Attributes:
        images: In a stable order.
        skipped: What was left out, and why.
        description: One line for people.
    """

    images: tuple[SourceImage, ...]
    skipped: tuple[Skipped, ...] = ()
    description: str = ""

    @property
    def splits(self) -> dict[str, int]:
        """Number of images by split."""
        return dict(sorted(Counter(image.split for image in self.images).items()))


def image_file(place: Place, path: Path, split: str = "") -> SourceImage:
    """Return an image that is read from ``path``."""
    return SourceImage(place, partial(read_image, path), path, split)


def count_reasons(skipped: Sequence[Skipped]) -> str:
    """Return ``"12 without a GPS position, 1 absent"``, the commonest reason first, or an empty string."""
    return ", ".join(f"{count} {reason}" for reason, count in Counter(s.reason for s in skipped).most_common())
