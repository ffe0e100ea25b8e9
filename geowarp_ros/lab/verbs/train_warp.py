"""Train the warping regression of any model, with frozen encoder (paper sec. 3.4); defaults as in the paper.

The encoder may be a published place-recognition network's. Retrieval stays as it is, bit for bit: a gallery of the
model takes the result over without describing anything anew (geowarp gallery upgrade).

Pairs for the features-wise and consistency loss are mined between queries and gallery, or among all images without
such splits; --lambda-fw 0 --lambda-cons 0 needs no pairs and no positions. Writes best.safetensors (lowest corner
error on held-out images) and last.pt.
"""

from __future__ import annotations

import argparse

from geowarp_ros.cli.parser import IMAGES, MODEL
from geowarp_ros.lab.verbs.options import add_config_arguments, config_from_arguments
from geowarp_ros.lab.verbs.train import add_output_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from geowarp_ros.lab.training.parameters import SessionConfig, WarpConfig

    parser.add_argument("source", nargs="+", type=IMAGES, help="folders, CSV files or bags of geotagged images")
    add_output_arguments(parser)
    parser.add_argument(
        "--model", type=MODEL, required=True, help="model whose encoder is used: default, NAME or a model file"
    )
    parser.add_argument("--from-scratch", action="store_true", help="reinitialise a trained regression")
    add_config_arguments(parser, WarpConfig)
    add_config_arguments(parser, SessionConfig)


def run(args: argparse.Namespace) -> int:
    """Train."""
    from geowarp_ros.lab.training.parameters import SessionConfig, WarpConfig
    from geowarp_ros.lab.training.processes import process_index, processes
    from geowarp_ros.lab.training.session import BEST, seeded, training_device
    from geowarp_ros.lab.training.warping import read_sets, train_warp, with_regression
    from geowarp_ros.model.checkpoints import load_model

    config = config_from_arguments(args, WarpConfig)
    session = config_from_arguments(args, SessionConfig)
    device = training_device(session)
    with processes(device), seeded(session.seed):
        model = with_regression(load_model(args.model), fresh=args.from_scratch).to(device)
        config = config.sized_for(model.config.resolution)
        photographs, held_out = read_sets(args.source, config, session.seed)
        error = train_warp(
            model, photographs, held_out, config, session, args.output, resume=args.resume, sources=args.source
        )
    if process_index() == 0:
        print(
            f"least corner error on held-out photographs: {error:.4f} half image sides; "
            f"model: {args.output / BEST}"
        )
    return 0
