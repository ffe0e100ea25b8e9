"""How a command finds the module of its verb: only the chosen one is imported; and what a shell may complete."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Mapping, Sequence

from geowarp_ros.cli.next_step import print_next_step
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

    What to do next is said where it succeeds. Returns the exit status. Without any words, a parser that waits for
    a choice prints its help.
    """
    verb = importlib.import_module(f"geowarp_ros.{module}")
    parser = Parser(prog=prog, description=verb.__doc__)
    verb.add_arguments(parser)
    complete(parser, words)
    waits = (action.required and action.choices and not action.option_strings for action in parser._actions)
    if not words and any(waits):
        parser.print_help()
        return 0
    args = parser.parse_args(words)
    status = int(verb.run(args) or 0)
    if status == 0:
        print_next_step(module.rpartition(".")[2], args)
    return status


def asked_words() -> list[str] | None:
    """Return the words before the one that a shell wants completed, the command aside; None where none asks.

    A shell asks through argcomplete's variables: ``eval "$(register-python-argcomplete geowarp)"``.
    """
    if "_ARGCOMPLETE" not in os.environ:
        return None
    import argcomplete

    split = argcomplete.split_line  # type: ignore[attr-defined] # exported since 1.0, declared by none
    return list(split(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))[3][1:])


def complete(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Where a shell asks what may come next, tell it and exit; but for a verb that is chosen already.

    Args:
        parser: Parser of what comes next.
        words: Its words, before the one to be completed.
    """
    if (asked := asked_words()) is None or (words and any(action.dest in _CHOICES for action in parser._actions)):
        return
    from argcomplete import autocomplete

    os.environ["_ARGCOMPLETE"] = str(1 + len(asked) - len(words))  # whence the line is this parser's
    autocomplete(parser, always_complete_options=False)


_CHOICES = ("verb", "chosen")
"""Arguments that name another parser."""
