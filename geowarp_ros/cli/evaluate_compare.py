"""Lay two runs of 'geowarp evaluate bag' over the same drive side by side: what was gained, lost and changed."""

from __future__ import annotations

import argparse

from geowarp_ros.cli.parser import NEW_FOLDER, Existing

FINISHED = Existing("the output folder of 'geowarp evaluate bag'")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("a", type=FINISHED, metavar="A", help="output folder of the first run")
    parser.add_argument("b", type=FINISHED, metavar="B", help="output folder of the second run")
    parser.add_argument(
        "--output", type=NEW_FOLDER, required=True, help="folder for compare.html and compare.json"
    )


def run(args: argparse.Namespace) -> int:
    """Print both runs' figures and what changed, and write the page."""
    import json
    from dataclasses import asdict

    from geowarp_ros.evaluation.compare import Finished, change_rows, compare, table_rows, write_comparison

    a, b = Finished.open(args.a), Finished.open(args.b)
    comparison = compare(a, b)
    rows = table_rows(a, b)
    width = max(len(first) for _, first, _ in rows)
    print(f"  {'':<40}{'A: ' + a.name:<{width + 3}}B: {b.name}")
    for name, first, second in rows:
        print(f"  {name:<40}{first:<{width + 3}}{second}")
    print()
    for name, value in change_rows(comparison):
        print(f"  {name:<40}{value}")
    args.output.mkdir(parents=True, exist_ok=True)
    found = asdict(comparison) | {"a": str(args.a), "b": str(args.b)}
    if found["median_change_m"] != found["median_change_m"]:
        found["median_change_m"] = None
    (args.output / "compare.json").write_text(json.dumps(found, indent=1) + "\n")
    write_comparison(a, b, comparison, args.output / "compare.html")
    print(f"comparison: {args.output / 'compare.html'}")
    return 0
