"""How a command finds the module of its verb: only the chosen one is imported."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence

from geowarp_ros.cli.parser import Parser


def add_choice(parser: argparse.ArgumentParser, noun: str, choices: Mapping[str, str]) -> None:
    """Let ``parser`` take one of ``choices`` (name -> its line in the help) and, unparsed, what follows it."""
    lines = [f"  {name:<12}{line}" for name, line in choices.items()]
    parser.epilog = "\n".join([f"{noun}s:", *lines, "", f"'{parser.prog} {noun.upper()} --help' says more"])
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("chosen", choices=choices, metavar=noun.upper(), help="see below")
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def require(*libraries: str) -> None:
    """Import what an extra installs before the work, not after it."""
    for library in libraries:
        importlib.import_module(library)


def run_verb(prog: str, module: str, words: Sequence[str]) -> int:
    """Parse ``words`` with the parser of a verb's module (dotted, within the package) and run it.

    Returns the exit status. Without any words, a parser that waits for a choice prints its help.
    """
    verb = importlib.import_module(f"geowarp_ros.{module}")
    parser = Parser(prog=prog, description=verb.__doc__)
    verb.add_arguments(parser)
    waits = (action.required and action.choices and not action.option_strings for action in parser._actions)
    if not words and any(waits):
        parser.print_help()
        return 0
    return int(verb.run(parser.parse_args(words)) or 0)
