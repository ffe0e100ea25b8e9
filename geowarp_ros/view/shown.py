"""What a page shows: a scene, and the pictures that it names by kind and row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from geowarp_ros.errors import GeowarpError
from geowarp_ros.types import Image


class NoPictureError(GeowarpError):
    """There is no such picture: another kind or row, or its file is absent, broken or elsewhere."""


class Shown(Protocol):
    """What the server needs to know."""

    def scene(self) -> dict[str, Any]:
        """Return the scene (:mod:`geowarp_ros.evaluation.scene`) as it is now."""

    def picture(self, kind: str, row: int) -> Image | bytes:
        """Return a picture, or its JPEG.

        Raises:
            GeowarpError: There is none.
        """

    def news(self, after: int) -> dict[str, Any]:
        """Return what has changed since; only of what runs."""


@dataclass(frozen=True, slots=True)
class Still:
    """What does not change while it is looked at.

    Attributes:
        content: The scene.
        pictures: Kind -> what reads the picture of a row.
    """

    content: dict[str, Any]
    pictures: Mapping[str, Callable[[int], Image]] = field(default_factory=dict)

    def scene(self) -> dict[str, Any]:
        """Return the scene, with the kinds of pictures that there are."""
        return {**self.content, "pictures": sorted(self.pictures)}

    def picture(self, kind: str, row: int) -> Image:
        """Return a picture."""
        if kind not in self.pictures:
            raise NoPictureError(
                f"{kind}: no such pictures here, expected one of {', '.join(sorted(self.pictures))}"
            )
        return self.pictures[kind](row)

    def news(self, after: int) -> dict[str, Any]:
        """Return nothing."""
        return {}
