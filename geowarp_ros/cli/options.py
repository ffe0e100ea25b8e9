"""Command-line options made from a parameter section, so that default, unit and meaning are written once."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic.fields import FieldInfo

from geowarp_ros.config import Section, parse_config

SectionT = TypeVar("SectionT", bound=Section)


def add_config_arguments(
    parser: argparse.ArgumentParser, kind: type[Section], *, leave_out: Collection[str] = ()
) -> None:
    """Add ``--dashed-name`` for every field of ``kind``, with its description and default.

    A true-or-false field becomes ``--name`` and ``--no-name``, a tuple takes any number of values.
    """
    for name, field in kind.model_fields.items():
        if name not in leave_out:
            _add(parser, name, field)


def config_from_arguments(
    args: argparse.Namespace, kind: type[SectionT], *, leave_out: Collection[str] = ()
) -> SectionT:
    """Build the section from what was typed.

    Raises:
        ConfigError: A value outside its range, by name.
    """
    return parse_config(kind, {name: getattr(args, name) for name in kind.model_fields if name not in leave_out})


def _add(parser: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    option = "--" + name.replace("_", "-")
    text = (field.description or "").replace("%", "%%")
    default: Any = field.default
    annotation: Any = field.annotation
    if annotation is bool:
        parser.add_argument(option, action=argparse.BooleanOptionalAction, default=default, help=text)
    elif get_origin(annotation) is Literal:
        parser.add_argument(option, choices=get_args(annotation), default=default, help=text)
    elif get_origin(annotation) is tuple:
        item = get_args(annotation)[0]
        parser.add_argument(
            option, nargs="*", type=item, default=default, metavar=item.__name__.upper(), help=text
        )
    elif annotation in (int, float, str):
        parser.add_argument(
            option, type=annotation, default=default, metavar=annotation.__name__.upper(), help=text
        )
    else:
        parser.add_argument(option, type=json.loads, default=default, metavar="JSON", help=text)
