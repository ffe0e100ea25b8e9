"""Measure search by size of the gallery and kind of index, on synthetic descriptors and one core."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], metavar="N", help="photographs")
    parser.add_argument("--dim", type=int, default=512, help="numbers of a descriptor")
    parser.add_argument(
        "--kinds",
        nargs="+",
        default=["exact", "ivf-sq", "ivf-sq-disk", "ivf-pq", "hnsw"],
        metavar="KIND",
        help="as 'geowarp gallery index --kind' takes them; -disk leaves inverted lists on the disk",
    )
    parser.add_argument("--queries", type=int, default=200, metavar="N", help="searches timed")
    parser.add_argument("--seed", type=int, default=0, help="of descriptors and queries")
    parser.add_argument("--prior", action="store_true", help="search within circles instead, in the first size")
    parser.add_argument("--folder", type=Path, help="keep galleries there; a second run only searches")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")


def run(args: argparse.Namespace) -> int:
    """Measure and print a Markdown table."""
    from geowarp_ros.benchmark.search import measure_prior, measure_search
    from geowarp_ros.progress import bar

    if args.prior:
        rows = measure_prior(args.sizes[0], args.dim, seed=args.seed)
    else:
        rows = measure_search(args.sizes, args.dim, args.kinds, args.queries, args.seed, bar, args.folder)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(_table(rows))
    return 0


def _table(rows: Sequence[dict[str, Any]]) -> str:
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([_text(row[column]) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
