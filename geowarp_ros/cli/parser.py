"""The parser of every verb: whole paths that exist, the nearest name of what is misspelt, defaults said once."""

from __future__ import annotations

import argparse
import errno
import glob
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from geowarp_ros.errors import ConfigError, did_you_mean
from geowarp_ros.files import expanded


class Existing:
    """Type of an argument that names what is read: absence is said before the verb imports anything.

    Args:
        what: What is expected, for people.
        file: Whether a folder is none.
    """

    def __init__(self, what: str, *, file: bool = False) -> None:
        self.what = what
        self.file = file

    def __call__(self, text: str) -> Path:
        """Parse the argument; an empty one, of a variable that is not set, is not the folder that one is in."""
        if not text:
            raise argparse.ArgumentTypeError(f"an empty path, expected {self.what}")
        return expanded(text)

    def check(self, path: Path) -> None:
        """Refuse what is not there.

        Raises:
            ConfigError: With the path and what was expected.
        """
        try:
            path.stat()
            problem = errno.EISDIR if self.file and path.is_dir() else 0
        except OSError as error:
            problem = error.errno or errno.EIO
        if problem:
            absent = problem == errno.ENOENT and not self.file
            said = "does not exist" if absent else f"cannot be read: {os.strerror(problem)}"
            raise ConfigError(f"{path}: {said}, expected {self.what}")


class ExistingGallery(Existing):
    """Type of an argument that names a gallery."""

    def check(self, path: Path) -> None:
        """Refuse a folder without a manifest, in the words of who reads it."""
        if not (path / "gallery.json").is_file():
            from geowarp_ros.gallery.manifest import read_manifest

            read_manifest(path)


class ExistingModel(Existing):
    """Type of an argument that names weights: a file, what ``geowarp models get`` stored, or a word for some.

    Args:
        words: What else can be given; an empty one leaves the choice to who reads it.
        what: What the file is.
    """

    def __init__(self, *words: str, what: str = "a model file") -> None:
        super().__init__(what)
        self.words = {"default", *words}

    def __call__(self, text: str) -> Any:
        """Parse the argument: a text, for it goes where a parameter of the node goes."""
        return text if text in self.words else str(expanded(text))

    def check(self, path: Path | str) -> None:
        """Refuse a file that is not there, and a name of nothing."""
        if path not in self.words:
            from geowarp_ros.model.installed import find_weights

            super().check(find_weights(path))


class NewFile(Existing):
    """Type of an argument that names a file to write: a folder that is not there is said before the work."""

    def check(self, path: Path) -> None:
        """Refuse a folder, and a file in what is none."""
        parent = path.parent
        problem = errno.EISDIR if path.is_dir() else errno.ENOTDIR if parent.is_file() else errno.ENOENT
        if path.is_dir() or not parent.is_dir():
            self.refuse(path, problem)

    def refuse(self, path: Path, problem: int) -> NoReturn:
        """Say why nothing can be written there."""
        raise ConfigError(f"{path}: cannot be written: {os.strerror(problem)}, expected {self.what}")


class NewFolder(NewFile):
    """Type of an argument that names a folder to write into: one that cannot be made is said before the work."""

    def check(self, path: Path) -> None:
        """Refuse a file, and what lies in one or where nobody may write."""
        there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
        if not there.is_dir():
            self.refuse(path, errno.ENOTDIR)
        if not os.access(there, os.W_OK | os.X_OK):
            self.refuse(path, errno.EACCES)


class NewPicture(NewFile):
    """Type of an argument that names a picture to write: another ending is said before the work."""

    def check(self, path: Path) -> None:
        """Refuse what :class:`NewFile` does, and another ending."""
        super().check(path)
        if path.suffix.lower() not in PICTURES:
            raise ConfigError(f"{path}: cannot be written: expected a name that ends in {', '.join(PICTURES)}")


class NewPictures(NewFolder):
    """Type of an argument that names a picture to write, or a folder of such."""

    def check(self, path: Path) -> None:
        """Refuse what no picture can be written to, and no folder be."""
        if path.suffix and not path.is_dir():
            NEW_PICTURE.check(path)
        else:
            super().check(path)


def refuse_overwriting(written: Iterable[Path | None], read: Iterable[Path]) -> None:
    """Refuse to write a file over another that is read, or written, too.

    Raises:
        ConfigError: With the path.
    """
    taken = {path.resolve() for path in read}
    for path in filter(None, written):
        if path.resolve() in taken:
            raise ConfigError(f"{path}: would overwrite an image or another output, expected another name")
        taken.add(path.resolve())


PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
"""Endings of pictures that are written."""

GALLERY = ExistingGallery("a gallery")
IMAGES = Existing("a folder of images, a CSV, a ROS bag or a video")
MODEL = ExistingModel()
OWN_MODEL = ExistingModel("gallery")
WEIGHTS = ExistingModel("", what="a file of weights")
RECIPE = Existing("a recipe (YAML)", file=True)
DATA = Existing("a folder")
NEW_FILE = NewFile("a file in a folder that exists", file=True)
NEW_FOLDER = NewFolder("a folder that can be made")
NEW_PICTURE = NewPicture("a picture in a folder that exists", file=True)
NEW_PICTURES = NewPictures("a picture, or a folder that can be made")


def finite(text: str) -> float:
    """Parse a number; neither ``nan`` nor ``inf`` is one."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text}: expected a finite number")
    return value


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Return the image files that are meant: each file, those in a folder and below it, those of a glob.

    A file that is absent stays, for the one who reads it to name.

    Raises:
        ConfigError: A folder without images, a glob that matches none, or not one file exists.
    """
    from geowarp_ros.images import SUFFIXES
    from geowarp_ros.readers.folders import photographs_below

    found: list[Path] = []
    for given in paths:
        matches: Iterable[Path] = [given]
        if glob.has_magic(str(given)) and not given.exists():
            matches = map(Path, sorted(glob.glob(str(given), recursive=True)))  # noqa: PTH207 - it finds hidden files
        meant = [file for path in matches for file in (photographs_below(path) if path.is_dir() else [path])]
        if not meant:
            raise ConfigError(f"{given}: no images in it, expected {', '.join(SUFFIXES)}")
        found += meant
    if not any(path.exists() for path in found):
        Existing("an image file", file=True).check(found[0])
    return found


class HelpWithDefaults(argparse.HelpFormatter):
    """Tells the default of an option whose help does not, as it would be typed."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        silent = default is None or default is False or default in ("", "default", argparse.SUPPRESS)
        if silent or "default" in text or not action.option_strings:
            return text
        values = default if isinstance(default, list | tuple) else [default]
        shown = " ".join(str(value) for value in values).replace("%", "%%")
        return f"{text} (default: {shown})" if shown else text


class Parser(argparse.ArgumentParser):
    """Never takes an abbreviation (``--mode`` must not mean ``--model``).

    ``type=Path`` is :func:`expanded` and ``type=float`` is :func:`finite`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": HelpWithDefaults, "allow_abbrev": False, **options})
        self.register("type", Path, expanded)
        self.register("type", float, finite)
        self._words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, refuse what is unknown, and check that what is read exists.

        Raises:
            ConfigError: An argument of type :class:`Existing` does not.
        """
        self._words = list(args or ())
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        for action in self._actions:
            value = getattr(found, action.dest, None)
            if isinstance(action.type, Existing) and value not in (None, argparse.SUPPRESS):
                for path in value if isinstance(value, list) else [value]:
                    action.type.check(path)
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Exit with status 2, the usage and the message, with the nearest option of each that is misspelt."""
        known = self._option_string_actions
        given = (word.partition("=")[0] for word in self._words)
        names = {word: "--" + word.lstrip("-–—") for word in given if word[:1] in ("-", "–", "—")}
        unknown = {word: did_you_mean(name, known) for word, name in names.items() if word not in known}
        hints = [f"{word}{hint}" for word, hint in unknown.items() if hint]
        super().error("; ".join([message, *hints]))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            said = (
                f"invalid choice: {value!r}{did_you_mean(str(value), choices)}; choose from {', '.join(choices)}"
            )
            raise argparse.ArgumentError(action, said)
