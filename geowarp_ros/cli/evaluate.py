"""Judge models, re-rankers and drives against the truth, with tables, intervals and a report."""

from __future__ import annotations

import argparse
import importlib

WHAT: dict[str, str] = {
    "dataset": "recall of models and re-rankers on geotagged galleries and queries",
    "bag": "replay a drive and judge every fix: error, availability, calibration, latency, report",
    "compare": "lay two runs of 'evaluate bag' side by side",
}
"""What -> its line in the help; ``x`` lives in ``cli/evaluate_x.py``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare each kind of evaluation with its own options."""
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, line in WHAT.items():
        module = importlib.import_module(f"geowarp_ros.cli.evaluate_{name}")
        kind = kinds.add_parser(
            name,
            help=line,
            description=module.__doc__,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        module.add_arguments(kind)
        kind.set_defaults(evaluate=module.run)


def run(args: argparse.Namespace) -> int:
    """Run the chosen kind."""
    return int(args.evaluate(args) or 0)
