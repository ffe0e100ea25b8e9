"""Train encoder, score and warp jointly by a recipe, optionally from scratch with a teacher.

A recipe (YAML) names image sets and training parameters; those of the shipped model are in docs/recipes. The
teacher is torchvision's SqueezeNet 1.0. Writes best.safetensors (best retrieval of held-out places) and
last.safetensors, to continue with another recipe, 'geowarp train retrieval --init', 'geowarp train warp' or
'geowarp train finish'.
"""

from __future__ import annotations

import argparse

from geowarp_ros.cli.parser import DATA, RECIPE, Existing
from geowarp_ros.lab.verbs.train import add_output_arguments, add_start_arguments, model_to_start_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recipe", type=RECIPE, help="YAML file of parameters")
    parser.add_argument("--data", type=DATA, required=True, help="folder that the recipe's paths are relative to")
    parser.add_argument(
        "--teacher",
        type=Existing("a state dict", file=True),
        help="SqueezeNet 1.0 state dict (.pt), if the recipe has a teacher",
    )
    add_output_arguments(parser)
    add_start_arguments(parser, ("resnet18", "resnet50", "mobilenet_v2"))


def run(args: argparse.Namespace) -> int:
    """Train."""
    from geowarp_ros import progress
    from geowarp_ros.config import parse_config
    from geowarp_ros.lab.training.distillation import Distillation, distill
    from geowarp_ros.lab.training.grounds import read_recipe
    from geowarp_ros.lab.training.session import BEST, LAST_MODEL, seeded
    from geowarp_ros.lab.training.teacher import load_teacher

    config = parse_config(Distillation, read_recipe(args.recipe))
    teacher = load_teacher(args.teacher) if args.teacher else None
    with seeded(config.seed):
        model = model_to_start_from(args, config.resolution)
        recall = distill(args.data, args.output, config, model, teacher, resume=args.resume, progress=progress.bar)
    print(f"best Recall@1 of the held-out places: {recall:.1f} %; models: {args.output / BEST}, {LAST_MODEL}")
    return 0
