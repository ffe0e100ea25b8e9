"""Train the retrieval network or the warping regression from geotagged images.

``torchrun --nproc-per-node N --no-python geowarp train …`` distributes each batch over N processes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from geowarp_ros.cli import main
from geowarp_ros.cli.parser import NEW_FOLDER, ExistingModel
from geowarp_ros.cli.verbs import add_choice, run_verb

if TYPE_CHECKING:
    from geowarp_ros.model.geowarp import GeoWarp

TRAININGS: dict[str, str] = {
    "start": "make the initial model from ImageNet weights",
    "distill": "train encoder, score and warp jointly by a recipe",
    "retrieval": "train encoder and aggregation",
    "warp": "train the warping regression with frozen encoder",
    "finish": "choose the retrieval weight of re-ranking and write the final model",
    "preview": "plot generated training pairs of the warp",
    "ablation": "compare losses and warping coefficients (paper Table 3, Figure 6)",
}
"""Training -> help line; implemented in ``train_<name>.py``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the choice of training."""
    add_choice(parser, "training", TRAININGS)


def run(args: argparse.Namespace) -> int:
    """Run the chosen training with the remaining arguments."""
    return run_verb(f"geowarp train {args.chosen}", f"lab.verbs.train_{args.chosen}", args.words)


def retrieval() -> int:
    """Entry point of the executable ``train_retrieval``."""
    return main(["train", "retrieval", *sys.argv[1:]])


def warp() -> int:
    """Entry point of the executable ``train_warp``."""
    return main(["train", "warp", *sys.argv[1:]])


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare output folder and resumption."""
    parser.add_argument(
        "--output", type=NEW_FOLDER, required=True, help="output folder for checkpoints and event files"
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume from the last checkpoint in the output folder"
    )


def add_start_arguments(parser: argparse.ArgumentParser, encoders: Sequence[str]) -> None:
    """Declare the initial model."""
    init = "scratch; a model (default, file.safetensors); or ImageNet or published weights (.pth)"
    text = "architecture, unless --init is a model"
    parser.add_argument("--init", type=ExistingModel("scratch"), default="scratch", help=init)
    parser.add_argument("--encoder", choices=encoders, default="resnet18", help=text)
    projection = "channels that local features are projected to, unless --init is a model; 0: the encoder's"
    parser.add_argument("--projection", type=int, default=0, help=projection)
    parser.add_argument("--aggregation", choices=("gem", "netvlad"), default="gem", help=text)


def model_to_start_from(args: argparse.Namespace, resolution: int) -> GeoWarp:
    """Return the model that the options of :func:`add_start_arguments` mean.

    Args:
        args: The options.
        resolution: Working resolution of a new architecture, px.
    """
    from geowarp_ros.lab.training.retrieval import starting_model
    from geowarp_ros.model.geowarp import ModelConfig

    architecture = ModelConfig(
        encoder=args.encoder, aggregation=args.aggregation, resolution=resolution, projection=args.projection
    )
    return starting_model(args.init, architecture)
