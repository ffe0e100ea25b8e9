"""Make the model that a training starts from: ImageNet weights, a projection and, if wanted, another model's warp.

The projection starts with the principal components of what the encoder sees in the training images of a recipe.
The correlation that the regression reads (eq. 6) has one shape whatever the encoder: a trained regression is a
start for another encoder, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from geowarp_ros.cli.parser import DATA, MODEL, NEW_FILE, RECIPE
from geowarp_ros.lab.verbs.train import add_start_arguments, model_to_start_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recipe", type=RECIPE, help="YAML file as for 'geowarp train distill'")
    parser.add_argument("--data", type=DATA, required=True, help="folder that the recipe's paths are relative to")
    parser.add_argument("--output", type=NEW_FILE, required=True, help="output model file")
    parser.add_argument(
        "--warp", type=MODEL, help="model whose warping regression is copied (default, file.safetensors)"
    )
    add_start_arguments(parser, ("mobilenet_v2", "resnet18", "resnet50"))


def run(args: argparse.Namespace) -> int:
    """Build, project and write the model."""
    from geowarp_ros.config import parse_config
    from geowarp_ros.lab.training.data import Photographs, common_frame, read_photographs
    from geowarp_ros.lab.training.distillation import Distillation
    from geowarp_ros.lab.training.grounds import read_recipe
    from geowarp_ros.lab.training.objective import regression_of
    from geowarp_ros.lab.training.projection import start_projection
    from geowarp_ros.lab.training.session import seeded
    from geowarp_ros.model.checkpoints import fingerprint, load_model, save_model
    from geowarp_ros.provenance import commit

    recipe = parse_config(Distillation, read_recipe(args.recipe))
    with seeded(recipe.seed):
        model = model_to_start_from(args, recipe.resolution).eval()
    if args.warp:
        regression_of(model).load_state_dict(regression_of(load_model(args.warp)).state_dict())
    if args.projection:
        images = [
            image
            for ground in recipe.grounds
            for image in read_photographs(
                [args.data / ground.path], ground.split or None, hold_out=ground.hold_out
            )
        ]
        start_projection(
            model, Photographs(images, common_frame(images), resolution=recipe.resolution), recipe.seed
        )
    notes = {"commit": commit(), "made_by": "geowarp train start", "started_from": Path(args.init).name}
    save_model(model, args.output, notes=notes)
    print(f"model {fingerprint(model)}: {args.output}")
    return 0
