"""Everything this package raises on bad input derives from :class:`GeowarpError`.

The command line turns a ``GeowarpError`` into one line and exit status 1; the node logs it and returns
FAILURE from the transition. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GeowarpError(Exception):
    """A mistake that the caller can mend: the message names what, which value, and what was expected."""


class ConfigError(GeowarpError):
    """An unknown parameter, or a value outside what the parameter takes."""


class ImageError(GeowarpError):
    """An image that cannot be decoded or is no camera picture: truncated, empty, absurd size, wrong encoding."""


class PluginError(ImageError):
    """An image of a format whose reader is not installed; the second argument says which, without its name."""


class EncodingError(ImageError):
    """An image message whose encoding is not supported."""


class ModelError(GeowarpError):
    """A checkpoint that is not what it should be: foreign keys, wrong shapes, truncated, newer format."""


class DownloadError(GeowarpError):
    """A file that cannot be fetched: offline, a web page instead, another size or checksum, a full disk."""


class GalleryError(GeowarpError):
    """A gallery that cannot be read, written or searched: truncated, foreign model, newer format."""


class SourceError(GeowarpError):
    """A source of geotagged images that cannot be used: missing columns, no positions, absent files or topics."""


class CameraError(GeowarpError):
    """A camera calibration that cannot be used: of another camera, not finite, an unknown lens model."""


class TrainingError(GeowarpError):
    """A training that cannot start or go on: no positives, too few images, NaN loss, foreign checkpoint."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known name, or an empty string.

    The only name that begins like it (``lat`` for ``latitude``) is closer than one of as many letters.
    """
    names = list(known)
    begun = [each for each in names if name and each.startswith(name)]
    close = begun if len(begun) == 1 else difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
