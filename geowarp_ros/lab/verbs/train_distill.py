"""Train a small network by a teacher's distances between images, without labels, or jointly by a recipe.

Given images of any source, with positions or without, a student (--init, by default the model that ships) learns
what is near and what is far to the teacher: a published network that was imported, or any other model. The best
checkpoint is the one whose nearest held-out images agree most with the teacher's.

Given a recipe (YAML) of image sets and parameters (those of the shipped model are in docs/recipes), encoder, score
and warp are trained jointly: by labels, by a teacher, or by both. torchvision's SqueezeNet 1.0 can also teach two
feature maps of an encoder that starts from nothing.

Writes best.safetensors (best on held-out images) and last.safetensors, to continue with another recipe, 'geowarp
train retrieval --init', 'geowarp train warp' or 'geowarp train finish'. What the teacher says of the images stays
in the output folder, where a killed run finds it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from geowarp_ros.cli.parser import DATA, Existing, ExistingModel
from geowarp_ros.errors import ConfigError
from geowarp_ros.lab.training.parameters import Reading
from geowarp_ros.lab.verbs.options import add_config_arguments, config_from_arguments
from geowarp_ros.lab.verbs.train import add_output_arguments, add_start_arguments, model_to_start_from

SOURCE = Existing("a recipe (YAML), or a folder of images, a CSV, a ROS bag or a video")

OF_RECIPES = {
    "iterations": "INT",
    "batch_size": "INT",
    "learning_rate": "FLOAT",
    "seed": "INT",
    "device": "STR",
    "precision": "STR",
}
"""Parameters of a recipe that are options, too, and what they are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", nargs="+", type=SOURCE, help="images without labels, or one recipe (.yaml)")
    text = "network to learn from: a model (default, NAME, file.safetensors) or SqueezeNet 1.0's state dict (.pt)"
    parser.add_argument("--teacher", type=ExistingModel(what="a model or a state dict"), help=text)
    add_output_arguments(parser)
    add_start_arguments(parser, ("resnet18", "resnet50", "mobilenet_v2"))
    parser.set_defaults(init=None)
    text = "folder that a recipe's paths are relative to (default: the working folder)"
    parser.add_argument("--data", type=DATA, default=Path(), help=text)
    parser.add_argument("--split", default="", help="split of the images to train on, such as gallery")
    text = "name patterns of validation images (*name*; default: every tenth run of up to ten)"
    parser.add_argument("--hold-out", nargs="*", default=(), help=text)
    for name, kind in OF_RECIPES.items():
        parser.add_argument("--" + name.replace("_", "-"), metavar=kind, help=f"in place of the recipe's {name}")
    add_config_arguments(parser, Reading)


def run(args: argparse.Namespace) -> int:
    """Train."""
    from geowarp_ros import progress
    from geowarp_ros.config import parse_config
    from geowarp_ros.lab.training.distillation import Distillation, distill, label_free
    from geowarp_ros.lab.training.grounds import read_recipe
    from geowarp_ros.lab.training.session import BEST, LAST_MODEL, seeded, training_device
    from geowarp_ros.lab.training.teacher import load_teacher

    given = {name: value for name in OF_RECIPES if (value := getattr(args, name)) is not None}
    recipe = any(path.suffix in (".yaml", ".yml") for path in args.source)
    if recipe and len(args.source) > 1:
        raise ConfigError(f"{len(args.source)} sources with a recipe among them: expected images, or one recipe")
    if not recipe and not args.teacher:
        raise ConfigError("images without labels need a teacher: --teacher NAME or FILE")
    args.init = args.init or ("scratch" if recipe else "default")
    values: dict[str, Any] = read_recipe(args.source[0]) if recipe else {"grounds": _grounds(args)}
    config = parse_config(Distillation, {**values, **given})
    with seeded(config.seed):
        model = model_to_start_from(args, config.resolution if recipe else 240)
        if not recipe:
            start = label_free(model, trained=args.init != "scratch")
            config = parse_config(Distillation, {**start, **values, **given})
        teacher = load_teacher(args.teacher, training_device(config)) if args.teacher else None
        best = distill(args.data, args.output, config, model, teacher, resume=args.resume, progress=progress.bar)
    labels = any(ground.labels for ground in config.grounds)
    what = "Recall@1 of the held-out places" if labels else "agreement with the teacher on held-out images"
    print(f"best {what}: {best:.1f} %; models: {args.output / BEST}, {LAST_MODEL}")
    return 0


def _grounds(args: argparse.Namespace) -> list[dict[str, Any]]:
    how = config_from_arguments(args, Reading).model_dump()
    shared = {"labels": False, "split": args.split, "hold_out": tuple(args.hold_out), **how}
    return [{"path": str(path.absolute()), **shared} for path in args.source]
