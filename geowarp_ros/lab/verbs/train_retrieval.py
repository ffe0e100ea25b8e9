"""Train encoder and aggregation on geotagged images.

The triplet loss by the NetVLAD protocol, or the multi-similarity loss over batches of places; Recall@5 of the
validation split chooses the checkpoint. Leaves best.safetensors and last.pt in the output folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from geowarp_ros.cli.options import add_config_arguments, config_from_arguments
from geowarp_ros.model.encoders import CHANNELS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the training, from its configuration."""
    from geowarp_ros.lab.training.retrieval import RetrievalTraining

    parser.add_argument("source", nargs="+", type=Path, help="folders, CSV files or bags of geotagged images")
    parser.add_argument("--output", type=Path, required=True, help="new folder for checkpoints and scalars")
    parser.add_argument("--resume", action="store_true", help="go on from the output folder's last checkpoint")
    parser.add_argument(
        "--init",
        default="scratch",
        help="scratch; a model (default, file.safetensors); or ImageNet or published weights (.pth)",
    )
    parser.add_argument("--encoder", choices=sorted(CHANNELS), default="resnet18", help="unless --init is a model")
    parser.add_argument(
        "--aggregation", choices=("gem", "netvlad"), default="gem", help="unless --init is a model"
    )
    add_config_arguments(parser, RetrievalTraining)


def run(args: argparse.Namespace) -> int:
    """Train."""
    from geowarp_ros import progress
    from geowarp_ros.lab.training.processes import process_index
    from geowarp_ros.lab.training.retrieval import RetrievalTraining, starting_model, train_retrieval
    from geowarp_ros.lab.training.session import BEST, seeded
    from geowarp_ros.model.geowarp import ModelConfig

    config = config_from_arguments(args, RetrievalTraining)
    architecture = ModelConfig(encoder=args.encoder, aggregation=args.aggregation, resolution=args.resolution)
    with seeded(config.seed):
        model = starting_model(args.init, architecture)
    recall = train_retrieval(args.source, args.output, config, model, resume=args.resume, progress=progress.bar)
    if process_index() == 0:
        print(f"best Recall@5 at {config.val_radius_m:g} m: {recall:.1f} %; model: {args.output / BEST}")
    return 0
