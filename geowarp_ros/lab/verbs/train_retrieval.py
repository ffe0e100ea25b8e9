"""Train encoder and aggregation on geotagged images.

Triplet loss with mining (NetVLAD protocol) or multi-similarity loss over batches of places; the checkpoint is
chosen by Recall@5 on the validation split. Writes best.safetensors and last.pt.
"""

from __future__ import annotations

import argparse

from geowarp_ros.cli.parser import IMAGES
from geowarp_ros.lab.verbs.options import add_config_arguments, config_from_arguments
from geowarp_ros.lab.verbs.train import add_output_arguments, add_start_arguments, model_to_start_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from geowarp_ros.lab.training.parameters import RetrievalTraining

    parser.add_argument("source", nargs="+", type=IMAGES, help="folders, CSV files or bags of geotagged images")
    add_output_arguments(parser)
    add_start_arguments(parser, ("alexnet", "mobilenet_v2", "resnet18", "resnet50", "vgg16"))
    add_config_arguments(parser, RetrievalTraining)


def run(args: argparse.Namespace) -> int:
    """Train."""
    from geowarp_ros import progress
    from geowarp_ros.lab.training.parameters import RetrievalTraining
    from geowarp_ros.lab.training.processes import process_index
    from geowarp_ros.lab.training.retrieval import train_retrieval
    from geowarp_ros.lab.training.session import BEST, seeded

    config = config_from_arguments(args, RetrievalTraining)
    with seeded(config.seed):
        model = model_to_start_from(args, args.resolution)
    recall = train_retrieval(args.source, args.output, config, model, resume=args.resume, progress=progress.bar)
    if process_index() == 0:
        print(f"best Recall@5 at {config.val_radius_m:g} m: {recall:.1f} %; model: {args.output / BEST}")
    return 0
