"""Where weights lie: files that the user names, the model that ships, and what ``geowarp models get`` stored."""

from __future__ import annotations

import os
from pathlib import Path

from geowarp_ros.catalogue.entries import CATALOGUE
from geowarp_ros.errors import ModelError, did_you_mean
from geowarp_ros.files import expanded

DEFAULT_MODEL = Path(__file__).with_name("default.safetensors")
"""The model that ships; ``default`` on the command line and in parameters."""

OWN = "gallery"
"""The model that made a gallery; on the command line and in parameters that name a gallery, too."""


def weights_folder() -> Path:
    """Return the folder of downloaded weights; it need not exist.

    ``$GEOWARP_WEIGHTS``, or ``geowarp_ros/weights`` in the user's data folder
    (https://specifications.freedesktop.org/basedir-spec/latest/).
    """
    own = os.environ.get("GEOWARP_WEIGHTS") or "${XDG_DATA_HOME}/geowarp_ros/weights"
    if os.environ.get("XDG_DATA_HOME", "") == "":
        own = own.replace("${XDG_DATA_HOME}", "~/.local/share")
    return expanded(own)


def installed_weights(name: str) -> Path:
    """Return the file of the weights called ``name`` in :func:`weights_folder`; it need not exist."""
    return weights_folder() / f"{name}.safetensors"


def names() -> list[str]:
    """Return the names that :func:`find_weights` may know: those that can be had, and those stored."""
    return sorted({*CATALOGUE, *(path.stem for path in weights_folder().glob("*.safetensors"))})


def find_weights(name: Path | str) -> Path:
    """Return a file of weights.

    Args:
        name: ``default``, a path, or the name of weights that ``geowarp models get`` stored. A file of that name
            in the working directory comes first. :data:`OWN` without a gallery is ``default``.

    Raises:
        ModelError: It is a plain name and neither a file nor stored, or the model that ships is missing.
    """
    text = str(name)
    if text in ("default", OWN):
        if not DEFAULT_MODEL.is_file():
            raise ModelError(
                f"{DEFAULT_MODEL}: the model that ships is missing; train one or import published weights"
            )
        return DEFAULT_MODEL
    path = expanded(text)
    if path.is_file() or len(path.parts) != 1 or path.suffix:
        return path
    return find_stored(text)


def find_stored(name: str) -> Path:
    """Return the file of weights that ``geowarp models get`` stored, whatever lies in the working directory.

    Raises:
        ModelError: There is none.
    """
    stored = installed_weights(name)
    if not stored.is_file():
        known = f"'geowarp models get {name}' fetches them"
        if name not in CATALOGUE:
            known = f"'geowarp models' lists what can be had{did_you_mean(name, names())}"
        raise ModelError(f"{name}: is no file, and no weights of that name lie in {weights_folder()}; {known}")
    return stored


def noted_file(file: Path | None, gallery: Path) -> str:
    """Return what a gallery notes of the file of its model, so that :func:`find_noted` finds it again.

    ``default`` or the name of stored weights, a path relative to the gallery where the file is in it or beside it,
    so that both can be moved together, or an absolute one; empty where the model is from no file.
    """
    if file is None or file == DEFAULT_MODEL:
        return "default" if file else ""
    if file == installed_weights(file.stem):
        return file.stem
    path, folder = file.resolve(), gallery.resolve()
    if not path.is_relative_to(folder.parent):
        return str(path)
    relative = os.path.relpath(path, folder)
    return relative if "/" in relative else f"./{relative}"  # a file, not a name


def find_noted(noted: str, gallery: Path) -> Path:
    """Return the file that a gallery notes, which need not exist; where nothing is noted, the model that ships."""
    if noted in ("", "default"):
        return DEFAULT_MODEL
    return Path(os.path.normpath(gallery.resolve() / noted)) if "/" in noted else installed_weights(noted)
