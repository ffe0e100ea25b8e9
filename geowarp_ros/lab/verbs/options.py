"""Command-line options generated from parameter sections, and image sizes given as ``WxH``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin

from geowarp_ros.config import Section, parse_config
from geowarp_ros.errors import ConfigError

SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True, slots=True)
class Size:
    """Image size (px)."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}×{self.height}"


def parse_size(text: str) -> Size:
    """Parse ``640x480`` (width first).

    Raises:
        ConfigError: Not a size, or a side below 32 px.
    """
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 32):
        raise ConfigError(f"size {text!r}: expected WIDTHxHEIGHT of at least 32 px a side, such as 640x480")
    return Size(int(height), int(width))


def add_config_arguments(parser: argparse.ArgumentParser, kind: type[Section]) -> None:
    """Add ``--dashed-name`` for every field of ``kind``, with its description and default.

    A true-or-false field becomes ``--name`` and ``--no-name``, a tuple takes any number of values. Values remain
    text: :func:`config_from_arguments` parses them and refuses a wrong one by its name.
    """
    for name, field in kind.model_fields.items():
        annotation: Any = field.annotation
        if type(None) in get_args(annotation):
            annotation = get_args(annotation)[0]
        how: dict[str, Any]
        if annotation is bool:
            how = {"action": argparse.BooleanOptionalAction}
        elif get_origin(annotation) is Literal:
            how = {"choices": get_args(annotation)}
        elif get_origin(annotation) is tuple:
            how = {"nargs": "*", "metavar": get_args(annotation)[0].__name__.upper()}
        else:
            how = {"metavar": annotation.__name__.upper()}
        text = (field.description or "").replace("%", "%%")
        parser.add_argument("--" + name.replace("_", "-"), default=field.default, help=text, **how)


def config_from_arguments(args: argparse.Namespace, kind: type[SectionT]) -> SectionT:
    """Build the section from the parsed options.

    Raises:
        ConfigError: A value outside its range, by name.
    """
    return parse_config(kind, {name: getattr(args, name) for name in kind.model_fields})
