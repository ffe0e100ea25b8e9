"""Train the warping regression, encoder frozen (paper sec. 3.4). The defaults are the paper's.

Pairs for the features-wise and the consistency loss are mined between the sources' queries and galleries, or among
all images where they have no such splits; with --lambda-fw 0 --lambda-cons 0 single photographs are enough. Leaves
best.safetensors (the least corner error on held-out photographs) and last.pt in the output folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from geowarp_ros.cli.options import add_config_arguments, config_from_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the training, from its configuration."""
    from geowarp_ros.lab.training.session import SessionConfig
    from geowarp_ros.lab.training.warping import WarpConfig

    parser.add_argument("source", nargs="+", type=Path, help="folders, CSV files or bags of geotagged images")
    parser.add_argument("--model", required=True, help="whose encoder it is trained for: default, or a model file")
    parser.add_argument("--output", type=Path, required=True, help="new folder for checkpoints and scalars")
    parser.add_argument("--resume", action="store_true", help="go on from the output folder's last checkpoint")
    parser.add_argument(
        "--from-scratch", action="store_true", help="start R anew even if the model has a trained one"
    )
    add_config_arguments(parser, WarpConfig)
    add_config_arguments(parser, SessionConfig)


def run(args: argparse.Namespace) -> int:
    """Train."""
    from geowarp_ros.lab.training.processes import process_index, processes
    from geowarp_ros.lab.training.session import BEST, SessionConfig, seeded, training_device
    from geowarp_ros.lab.training.warping import WarpConfig, read_sets, train_warp, with_regression
    from geowarp_ros.model.checkpoints import load_model

    config = config_from_arguments(args, WarpConfig)
    session_config = config_from_arguments(args, SessionConfig)
    device = training_device(session_config)
    with processes(device), seeded(session_config.seed):
        model = with_regression(load_model(args.model), fresh=args.from_scratch).to(device)
        photographs, held_out = read_sets(args.source, config)
        error = train_warp(
            model,
            photographs,
            held_out,
            config,
            session_config,
            args.output,
            resume=args.resume,
            sources=[str(source) for source in args.source],
        )
    if process_index() == 0:
        print(
            f"least corner error on held-out photographs: {error:.4f} half image sides; "
            f"model: {args.output / BEST}"
        )
    return 0
