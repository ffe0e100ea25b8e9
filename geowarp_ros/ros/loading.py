"""What configure loads: a localizer over a gallery, and the datum of the map frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from geowarp_ros import past
from geowarp_ros.config import LocalizerConfig, NodeConfig
from geowarp_ros.errors import ConfigError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.types import Image


class GalleryLike(Protocol):
    """What the node asks of a :class:`geowarp_ros.gallery.store.Gallery`."""

    @property
    def frame(self) -> LocalFrame:
        """Local frame about the gallery's centre."""

    @property
    def places(self) -> Any:
        """Geotagged photographs."""

    @property
    def model_fingerprint(self) -> str:
        """Of the model that made it."""

    def image(self, index: int, /) -> Image:
        """Return a place's image."""


class LocalizerLike(past.LocalizerLike, Protocol):
    """What the node asks of a :class:`geowarp_ros.localizer.Localizer`."""

    @property
    def gallery(self) -> GalleryLike:
        """Where it localises."""

    @property
    def caution(self) -> str:
        """What slows it down, for people; empty if nothing."""

    def reconfigured(self, config: LocalizerConfig) -> LocalizerLike:
        """Return the same with other settings."""


Opener = Callable[[NodeConfig], LocalizerLike]


def open_localizer(config: NodeConfig) -> LocalizerLike:
    """Load model and gallery and localise one image, so that the first real one does not wait.

    Raises:
        GeowarpError: No gallery is named, or model and gallery cannot be loaded.
    """
    if not config.gallery:
        raise ConfigError("gallery = '': expected the folder of a gallery (--ros-args -p gallery:=FOLDER)")
    from geowarp_ros.localizer import Localizer  # brings torch: an unconfigured node starts without it

    localizer = Localizer.open(Path(config.gallery).expanduser(), config)
    localizer.warm_up()
    return localizer


@dataclass(frozen=True, slots=True)
class Loaded:
    """One value, so that a frame in hand is finished with what it began with.

    Attributes:
        localizer: Images in, answers out.
        datum: Origin of the map frame.
        about: Model and gallery, for people.
    """

    localizer: LocalizerLike
    datum: LocalFrame
    about: dict[str, str]


def load(opener: Opener, config: NodeConfig) -> Loaded:
    """Open what the configuration names.

    Raises:
        GeowarpError: As ``opener``.
    """
    localizer = opener(config)
    gallery = localizer.gallery
    given = config.datum_latitude or config.datum_longitude
    datum = LocalFrame(config.datum_latitude, config.datum_longitude) if given else gallery.frame
    about = {
        "gallery": config.gallery,
        "places": str(len(gallery.places)),
        "model": config.model,
        "model fingerprint": gallery.model_fingerprint,
        "device": config.device,
        "datum": f"{datum.datum_latitude_deg:.7f}, {datum.datum_longitude_deg:.7f}",
    }
    return Loaded(localizer, datum, about)
