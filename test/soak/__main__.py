"""``python -m test.soak NAME…``: load and faults for longer than a test suite may take; prints Markdown tables.

``--write`` puts them into docs/robustness.md. ``make soak`` runs everything.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from test.soak.table import Table


def main() -> int:
    """Run what is named, or all of it."""
    parser = argparse.ArgumentParser(prog="python -m test.soak", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(_SOAKS)}; default: all")
    parser.add_argument("--examples", type=int, default=10_000, help="mutations: of what is read quickly")
    parser.add_argument("--minutes", type=float, default=2.0, help="load, cameras: how long")
    parser.add_argument("--rate", type=float, default=60.0, help="load: images a second")
    parser.add_argument("--cycles", type=int, default=1000, help="cycles: how many")
    parser.add_argument("--startups", type=int, default=100, help="manager: how many")
    parser.add_argument("--kills", type=int, default=100, help="kills: of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/robustness.md")
    args = parser.parse_args()
    if unknown := set(args.names) - set(_SOAKS):
        parser.error(f"unknown {', '.join(sorted(unknown))}; expected of {', '.join(_SOAKS)}")
    for name in args.names or _SOAKS:
        table = _SOAKS[name](args)
        print(f"\n{name}\n\n{table.markdown()}\n", flush=True)
        if args.write:
            table.write()
    return 0


def _mutations(args: argparse.Namespace) -> Table:
    from test.soak.files import mutations

    return mutations(args.examples, args.seed)


def _absurd_sizes(args: argparse.Namespace) -> Table:
    from test.soak.files import absurd_sizes

    return absurd_sizes()


def _bad_input(args: argparse.Namespace) -> Table:
    from test.soak.files import bad_input

    return bad_input()


def _kills(args: argparse.Namespace) -> Table:
    from test.soak.node import kills

    return kills(args.kills, args.seed)


def _signals(args: argparse.Namespace) -> Table:
    from test.soak.node import signals

    return signals()


def _cycles(args: argparse.Namespace) -> Table:
    from test.soak.node import cycles

    return cycles(args.cycles)


def _manager(args: argparse.Namespace) -> Table:
    from test.soak.node import manager

    return manager(args.startups)


def _cameras(args: argparse.Namespace) -> Table:
    from test.soak.cameras import cameras

    return cameras(args.minutes)


def _load(args: argparse.Namespace) -> Table:
    from test.soak.node import load

    return load(args.minutes, args.rate)


_SOAKS: dict[str, Callable[[argparse.Namespace], Table]] = {
    "load": _load,
    "cameras": _cameras,
    "cycles": _cycles,
    "manager": _manager,
    "kills": _kills,
    "signals": _signals,
    "mutations": _mutations,
    "absurd-sizes": _absurd_sizes,
    "bad-input": _bad_input,
}

if __name__ == "__main__":
    sys.exit(main())
