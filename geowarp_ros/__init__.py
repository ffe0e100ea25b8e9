"""Visual localisation for robots: camera image in, position with covariance out, or an honest "lost".

    import geowarp_ros as gw

    answer = gw.Localizer.open("gallery").localize("query.jpg")

Names are imported when they are first used: ``import geowarp_ros`` alone is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geowarp_ros.gallery.making import build_gallery
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.images import read_image
    from geowarp_ros.localizer import Localizer
    from geowarp_ros.types import Answer, Fix, Frame, NoFix

__version__ = "0.2.0"

__all__ = ["Answer", "Fix", "Frame", "Gallery", "Localizer", "NoFix", "build_gallery", "read_image"]

_ROOMS = {
    "Localizer": "localizer",
    "Gallery": "gallery.store",
    "build_gallery": "gallery.making",
    "read_image": "images",
    **dict.fromkeys(("Answer", "Fix", "Frame", "NoFix"), "types"),
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
