"""Judge models, re-rankers and drives against the truth, with tables, intervals and a report."""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType

EVALUATIONS: dict[str, str] = {
    "dataset": "recall of models and re-rankers on galleries and queries of known position",
    "bag": "replay a drive and judge every fix: error, availability, calibration, latency; with a report",
    "compare": "lay two runs of 'evaluate bag' side by side",
}
"""What can be evaluated -> its line in the help. Each lives in ``cli/evaluate_<name>.py``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only the chosen evaluation's module is imported; the others are known by name."""
    parser.epilog = "evaluations:\n" + "\n".join(f"  {name:<10}{line}" for name, line in EVALUATIONS.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("evaluation", choices=EVALUATIONS, metavar="EVALUATION", help="see below")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="'geowarp evaluate EVALUATION --help' says more")


def run(args: argparse.Namespace) -> int:
    """Parse the rest with the chosen evaluation's parser and run it."""
    module: ModuleType = importlib.import_module(f"geowarp_ros.cli.evaluate_{args.evaluation}")
    parser = argparse.ArgumentParser(
        prog=f"geowarp evaluate {args.evaluation}",
        description=module.__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(args.options)) or 0)
