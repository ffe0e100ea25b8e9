"""What configure loads: a localizer over a gallery, and the datum of the map frame."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakValueDictionary

from geowarp_ros.config import NodeConfig
from geowarp_ros.errors import ConfigError
from geowarp_ros.files import expanded
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.model.installed import OWN, find_weights

if TYPE_CHECKING:  # they bring torch: an unconfigured node starts without it
    from geowarp_ros.localizer import Localizer
    from geowarp_ros.model.describer import Describer

_log = logging.getLogger(__name__)

Opener: TypeAlias = "Callable[[NodeConfig], Localizer]"


def open_localizer(config: NodeConfig, describer: Describer | None = None) -> Localizer:
    """Load model and gallery and localise an image twice: the first camera image does not have to wait.

    Args:
        config: Model, gallery and settings.
        describer: The model if it is loaded already.

    Raises:
        GeowarpError: No gallery is named, or model and gallery cannot be loaded.
    """
    if not config.gallery:
        raise ConfigError("gallery = '': expected the folder of a gallery (--ros-args -p gallery:=FOLDER)")
    from geowarp_ros.localizer import Localizer

    localizer = Localizer.open(expanded(config.gallery), config, describer)
    _log.info("about %.0f ms an image", localizer.warm_up())
    return localizer


class SharedModel:
    """Opens localizers that share one model, for as long as one of them lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: WeakValueDictionary[tuple[str, ...], Describer] = WeakValueDictionary()

    def __call__(self, config: NodeConfig) -> Localizer:
        """Open a localizer; its model is loaded unless one of the same file and the same settings is in use.

        Raises:
            GeowarpError: As :func:`open_localizer`.
        """
        from geowarp_ros.localizer import of_gallery
        from geowarp_ros.model.describer import open_describer

        named = of_gallery(config, expanded(config.gallery)) if config.gallery else config
        file = find_weights(named.model)
        stamp = file.stat().st_mtime_ns if file.is_file() else 0  # tells it from one that took its place
        key = str(file), str(stamp), config.device, config.precision, config.runtime, str(config.threads)
        with self._lock:  # two nodes that configure at once load one model
            describer = self._loaded.get(key) or open_describer(named)
            self._loaded[key] = describer
        return open_localizer(config, describer)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an image is localised with, as one value: an image in progress is finished with what it began with.

    Attributes:
        localizer: Images in, answers out.
        datum: Origin of the map frame.
        about: Model and gallery, for people.
    """

    localizer: Localizer
    datum: LocalFrame
    about: dict[str, str]

    def __str__(self) -> str:
        """Say what was loaded in one line."""
        about = self.about
        return (
            f"gallery {about['gallery']}: {about['places']} places, datum {about['datum']}; model {about['model']}"
            f" ({about['model fingerprint']}), {about['runtime']} on {about['device']}"
        )

    def datum_moved_from(self, other: Loaded) -> str:
        """Return how far the map frame's origin is from another's, for people; empty where they are one."""
        if self.datum.datum == other.datum.datum:
            return ""
        return f"{math.hypot(*other.datum.to_enu(*self.datum.datum)):.1f} m"

    def reconfigured(self, config: NodeConfig) -> Loaded:
        """Return the same with other settings.

        Raises:
            GeowarpError: The settings do not fit the model, or a calibration cannot be read.
        """
        return replace(self, localizer=self.localizer.reconfigured(config))


def load(opener: Opener, config: NodeConfig) -> Loaded:
    """Open the model and the gallery that the configuration names.

    Raises:
        GeowarpError: As ``opener``.
    """
    localizer = opener(config)
    gallery = localizer.gallery
    given = config.datum_latitude or config.datum_longitude
    origin = (config.datum_latitude, config.datum_longitude, 0.0) if given else gallery.datum.datum
    datum = LocalFrame(*origin, config.datum_yaw_deg)
    about = {
        "gallery": config.gallery,
        "places": str(len(gallery.places)),
        "model": "its own" if config.model == OWN else config.model,
        "model fingerprint": gallery.model_fingerprint,
        "device": localizer.device
        if config.device == localizer.device
        else f"{localizer.device} ({config.device})",
        "runtime": localizer.runtime,
        "datum": f"{datum.datum_latitude_deg:.7f}, {datum.datum_longitude_deg:.7f}",
    }
    return Loaded(localizer, datum, about)
