"""Every parser of the command, so that a test of one kind of argument finds all of that kind."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from geowarp_ros.cli import LABORATORY, VERBS
from geowarp_ros.cli import evaluate as evaluating
from geowarp_ros.cli.parser import Existing, ExistingModel, Parser
from geowarp_ros.lab.verbs.train import TRAININGS


def every_parser() -> Iterator[tuple[list[str], Parser]]:
    """Yield the words that lead to each verb, evaluation, training and action, and its parser."""
    for verb in VERBS:
        room = "lab.verbs" if verb in LABORATORY else "cli"
        modules: dict[tuple[str, ...], str] = {(verb,): f"{room}.{verb.replace('-', '_')}"}
        if verb == "evaluate":
            rooms = {n: "lab.verbs" if n in evaluating.LABORATORY else "cli" for n in evaluating.EVALUATIONS}
            modules = {(verb, name): f"{room}.evaluate_{name}" for name, room in rooms.items()}
        elif verb == "train":
            modules = {(verb, name): f"lab.verbs.train_{name}" for name in TRAININGS}
        for words, module in modules.items():
            parser = Parser(prog=" ".join(("geowarp", *words)))
            importlib.import_module(f"geowarp_ros.{module}").add_arguments(parser)
            actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
            yield from (([*words, name], sub) for action in actions for name, sub in action.choices.items())
            if not actions:
                yield list(words), parser


def is_path(action: argparse.Action) -> bool:
    """Whether an argument is declared as a path."""
    return action.type is Path or isinstance(action.type, Existing)


def complete(parser: Parser, given: Mapping[str, str], folder: Path, file: Path) -> list[str]:
    """Return the words for a parser: what is ``given`` by dest, and for all else that is required something valid.

    Args:
        parser: The parser.
        given: Values by dest.
        folder: A folder that is taken for a gallery.
        file: A file that exists.
    """
    options: list[str] = []
    positional: list[str] = []
    for action in parser._actions:
        if action.dest not in given and not action.required:
            continue
        if isinstance(action.type, ExistingModel):
            value = "default"
        elif isinstance(action.type, Existing):
            value = str(file if action.type.file else folder)
        else:
            value = str(next(iter(action.choices or "1")))
        value = given.get(action.dest, value)
        options += [f"{action.option_strings[0]}={value}"] if action.option_strings else []
        positional += [] if action.option_strings else [value]
    return [*positional, *options]
