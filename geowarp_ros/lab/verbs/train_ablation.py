"""Compare losses and warping coefficients on any data set (paper Table 3, Figure 6).

Each variant trains R from scratch with the same encoder, seed and number of steps, then re-ranks the same
candidates. Writes losses.md, losses.csv, coefficients.md, coefficients.csv and coefficients.png. Reuses finished
trainings.
"""

from __future__ import annotations

import argparse

from geowarp_ros.cli.parser import IMAGES, MODEL, NEW_FOLDER
from geowarp_ros.lab.verbs.options import add_config_arguments, config_from_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options, including those of train warp."""
    from geowarp_ros.lab.training.parameters import K_SWEEP, SessionConfig, WarpConfig

    parser.add_argument("source", type=IMAGES, help="folder, CSV file or bag of geotagged images with splits")
    parser.add_argument(
        "--model", type=MODEL, required=True, help="model whose encoder is used: default or a model file"
    )
    parser.add_argument(
        "--output", type=NEW_FOLDER, required=True, help="output folder for tables, plot and trainings"
    )
    parser.add_argument("--queries", default="query", metavar="SPLIT", help="query split")
    parser.add_argument("--gallery", default="gallery", metavar="SPLIT", help="gallery split")
    parser.add_argument(
        "--thresholds", nargs="+", type=float, default=[10, 25, 50], metavar="M", help="recall thresholds (m)"
    )
    parser.add_argument("--candidates", type=int, default=5, help="re-ranked candidates")
    parser.add_argument(
        "--sweep", nargs="*", type=float, default=list(K_SWEEP), metavar="K", help="values of k; none: no sweep"
    )
    parser.add_argument("--no-losses", action="store_true", help="skip Table 3")
    add_config_arguments(parser, WarpConfig)
    add_config_arguments(parser, SessionConfig)


def run(args: argparse.Namespace) -> int:
    """Train and evaluate the variants; write tables and plot."""
    from geowarp_ros import progress
    from geowarp_ros.lab.training.ablation import Ablation, plot_coefficients, write_tables
    from geowarp_ros.lab.training.data import read_as
    from geowarp_ros.lab.training.parameters import SessionConfig, WarpConfig
    from geowarp_ros.lab.training.session import seeded
    from geowarp_ros.lab.training.warping import read_sets
    from geowarp_ros.model.checkpoints import load_model

    config = config_from_arguments(args, WarpConfig)
    session = config_from_arguments(args, SessionConfig)
    config = config.sized_for(load_model(args.model).config.resolution)
    photographs, held_out = read_sets([args.source], config, session.seed)
    ablation = Ablation(
        args.model,
        photographs,
        held_out,
        read_as(args.source, config, args.queries).images,
        read_as(args.source, config, args.gallery).images,
        config,
        session,
        args.thresholds,
        args.output,
        args.candidates,
        progress.bar,
    )
    args.output.mkdir(parents=True, exist_ok=True)
    with seeded(session.seed):
        if not args.no_losses:
            print(write_tables(ablation.losses(), args.thresholds, args.output, "losses"))
        if args.sweep:
            rows = ablation.coefficients(args.sweep)
            print(write_tables(rows, args.thresholds, args.output, "coefficients"))
            plot_coefficients(rows, args.thresholds, args.output / "coefficients.png")
    return 0
