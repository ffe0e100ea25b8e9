"""Judge models, re-rankers and drives against the truth, with tables, intervals and a report."""

from __future__ import annotations

import argparse

from geowarp_ros.cli.verbs import add_choice, run_verb

EVALUATIONS: dict[str, str] = {
    "dataset": "recall of models and re-rankers on galleries and queries of known position",
    "bag": "replay a drive and judge every fix: error, availability, calibration, latency; with a report",
    "integrity": "calibrate, and count false fixes, refusals of images taken elsewhere, truths inside ellipses",
    "compare": "lay two runs of 'evaluate bag' side by side",
}
"""What can be evaluated -> its line in the help. Each lives in ``cli/evaluate_<name>.py`` …"""

LABORATORY = ("dataset", "integrity")
"""… but for these, which live in ``lab/verbs/``: they compare baselines and render towns."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only the chosen evaluation's module is imported; the others are known by name."""
    add_choice(parser, "evaluation", EVALUATIONS)


def run(args: argparse.Namespace) -> int:
    """Parse the rest with the chosen evaluation's parser and run it."""
    room = "lab.verbs" if args.chosen in LABORATORY else "cli"
    return run_verb(f"geowarp evaluate {args.chosen}", f"{room}.evaluate_{args.chosen}", args.words)
