"""Train encoder, score and warp together by a recipe, also where no ImageNet weights are at hand.

A recipe (YAML) names sets of photographs, what one place is in each, and how to train; those of the model that
ships are in docs/recipes. The teacher, if the recipe wants one, is torchvision's SqueezeNet 1.0. Leaves
best.safetensors (by retrieval among held-out places) and last.safetensors in the output folder, to go on from with
another recipe, 'geowarp train retrieval --init' or 'geowarp train warp', or to end with 'geowarp train finish'.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe holds the parameters; here are the files."""
    parser.add_argument("recipe", type=Path, help="YAML file of parameters")
    parser.add_argument("--data", type=Path, required=True, help="folder that the recipe's paths are relative to")
    parser.add_argument("--output", type=Path, required=True, help="new folder for checkpoints and scalars")
    parser.add_argument("--teacher", type=Path, help="SqueezeNet 1.0 state dict (.pt), where the recipe wants one")
    parser.add_argument("--init", default="scratch", help="scratch, or a model: default, file.safetensors")
    parser.add_argument("--encoder", choices=("resnet18", "resnet50"), default="resnet18", help="unless --init")
    parser.add_argument("--aggregation", choices=("gem", "netvlad"), default="gem", help="unless --init")
    parser.add_argument("--resume", action="store_true", help="go on from the output folder's last checkpoint")


def run(args: argparse.Namespace) -> int:
    """Train."""
    from geowarp_ros import progress
    from geowarp_ros.config import parse_config
    from geowarp_ros.lab.training.distillation import Distillation, distill
    from geowarp_ros.lab.training.grounds import read_recipe
    from geowarp_ros.lab.training.retrieval import starting_model
    from geowarp_ros.lab.training.session import BEST, LAST_MODEL, seeded
    from geowarp_ros.lab.training.teacher import load_teacher
    from geowarp_ros.model.geowarp import ModelConfig

    config = parse_config(Distillation, read_recipe(args.recipe))
    teacher = load_teacher(args.teacher) if args.teacher else None
    with seeded(config.seed):
        architecture = ModelConfig(
            encoder=args.encoder, aggregation=args.aggregation, resolution=config.resolution
        )
        model = starting_model(args.init, architecture)
        recall = distill(args.data, args.output, config, model, teacher, resume=args.resume, progress=progress.bar)
    print(f"best Recall@1 of the held-out places: {recall:.1f} %; models: {args.output / BEST}, {LAST_MODEL}")
    return 0
