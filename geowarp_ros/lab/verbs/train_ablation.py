"""Compare losses and warping coefficients on any data set (paper Table 3, Figure 6).

Every variant trains R from nothing for the same encoder, with the same seed and steps, on the training split, and
re-ranks the same candidates of the test split. Writes losses.md, losses.csv, coefficients.md, coefficients.csv and
coefficients.png. A variant that is done is not trained again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from geowarp_ros.cli.options import add_config_arguments, config_from_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; those of the training are train warp's."""
    from geowarp_ros.lab.training.ablation import K_SWEEP
    from geowarp_ros.lab.training.session import SessionConfig
    from geowarp_ros.lab.training.warping import WarpConfig

    parser.add_argument("source", type=Path, help="folder, CSV file or bag of geotagged images with splits")
    parser.add_argument("--model", required=True, help="whose encoder is kept: default, or a model file")
    parser.add_argument("--output", type=Path, required=True, help="folder for tables, plot and trainings")
    parser.add_argument("--queries", default="query", metavar="SPLIT", help="split to measure with")
    parser.add_argument("--gallery", default="gallery", metavar="SPLIT", help="split to search in")
    parser.add_argument(
        "--thresholds", nargs="+", type=float, default=[10, 25, 50], metavar="M", help="of the recall, m"
    )
    parser.add_argument("--candidates", type=int, default=5, help="how many places are re-ranked")
    parser.add_argument(
        "--sweep", nargs="*", type=float, default=list(K_SWEEP), metavar="K", help="none: no sweep"
    )
    parser.add_argument("--no-losses", action="store_true", help="leave Table 3 out")
    add_config_arguments(parser, WarpConfig)
    add_config_arguments(parser, SessionConfig)


def run(args: argparse.Namespace) -> int:
    """Train the variants, measure, write tables and plot."""
    from geowarp_ros import progress
    from geowarp_ros.lab.training.ablation import Ablation, markdown_table, plot_coefficients, write_csv
    from geowarp_ros.lab.training.session import SessionConfig, seeded
    from geowarp_ros.lab.training.warping import WarpConfig, read_sets
    from geowarp_ros.readers import read_source

    config = config_from_arguments(args, WarpConfig)
    session = config_from_arguments(args, SessionConfig)
    photographs, held_out = read_sets([args.source], config)
    ablation = Ablation(
        args.model,
        photographs,
        held_out,
        read_source(args.source, split=args.queries).images,
        read_source(args.source, split=args.gallery).images,
        config,
        session,
        args.thresholds,
        args.output,
        args.candidates,
    )
    args.output.mkdir(parents=True, exist_ok=True)
    with seeded(session.seed):
        if not args.no_losses:
            rows = ablation.losses(progress=progress.bar)
            write_csv(rows, args.thresholds, args.output / "losses.csv")
            (args.output / "losses.md").write_text(markdown_table(rows, args.thresholds))
            print(markdown_table(rows, args.thresholds))
        if args.sweep:
            rows = ablation.coefficients(args.sweep, progress.bar)
            write_csv(rows, args.thresholds, args.output / "coefficients.csv")
            (args.output / "coefficients.md").write_text(markdown_table(rows, args.thresholds))
            plot_coefficients(rows, args.thresholds, args.output / "coefficients.png")
            print(markdown_table(rows, args.thresholds))
    return 0
