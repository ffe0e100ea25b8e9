"""What configure loads: a localizer over a gallery, and the datum of the map frame."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from geowarp_ros.config import LocalizerConfig, NodeConfig
from geowarp_ros.errors import ConfigError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion import session as past
from geowarp_ros.types import Image

if TYPE_CHECKING:
    from geowarp_ros.model.describer import Describer


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


def open_localizer(config: NodeConfig, describer: Describer | None = None) -> LocalizerLike:
    """Load model and gallery and localise one image, so that the first real one does not wait.

    Args:
        config: What to load.
        describer: The model where it is loaded already.

    Raises:
        GeowarpError: No gallery is named, or model and gallery cannot be loaded.
    """
    if not config.gallery:
        raise ConfigError("gallery = '': expected the folder of a gallery (--ros-args -p gallery:=FOLDER)")
    from geowarp_ros.localizer import Localizer  # brings torch: an unconfigured node starts without it

    localizer = Localizer.open(Path(config.gallery).expanduser(), config, describer)
    localizer.warm_up()
    return localizer


class SharedModel:
    """Opens localizers that have their model in common, as long as one of them lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: WeakValueDictionary[tuple[str, ...], Describer] = WeakValueDictionary()

    def __call__(self, config: NodeConfig) -> LocalizerLike:
        """Open a localizer; its model is loaded where none of its file, device and precision is there.

        Raises:
            GeowarpError: As :func:`open_localizer`.
        """
        from geowarp_ros.localizer import open_describer

        key = config.model, config.device, config.precision
        with self._lock:  # two nodes that configure at once are to load one model
            describer = self._loaded.get(key) or open_describer(config)
            self._loaded[key] = describer
        return open_localizer(config, describer)


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
