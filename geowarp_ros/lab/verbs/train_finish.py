"""Choose the retrieval weight of re-ranking and write the final model in half precision.

Chooses the weight with the largest worst-case gain of re-ranking over the held-out image sets of a recipe
(hold_out, val_split); candidates include 0, the paper's order.
"""

from __future__ import annotations

import argparse

from geowarp_ros.cli.parser import DATA, MODEL, NEW_FILE, RECIPE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recipe", type=RECIPE, help="YAML file as for 'geowarp train distill'")
    parser.add_argument("--data", type=DATA, required=True, help="folder that the recipe's paths are relative to")
    parser.add_argument(
        "--model",
        type=MODEL,
        nargs="+",
        required=True,
        help="model file with trained regression; several are averaged",
    )
    parser.add_argument("--output", type=NEW_FILE, required=True, help="output model file")
    parser.add_argument("--resolution", type=int, default=240, help="working resolution, shorter side (px)")
    parser.add_argument("--candidates", type=int, default=5, help="re-ranked candidates")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="device; auto: CUDA if available"
    )
    parser.add_argument(
        "--most-queries", type=int, default=0, help="maximum queries per set, evenly spread; 0: all"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, choose the weight and write the model."""
    from geowarp_ros import progress
    from geowarp_ros.config import parse_config
    from geowarp_ros.lab.training.distillation import Distillation
    from geowarp_ros.lab.training.finishing import WEIGHTS, best_weight, mean_model, read_held_out, weigh_retrieval
    from geowarp_ros.lab.training.grounds import read_recipe
    from geowarp_ros.model.checkpoints import fingerprint, load_model, save_model
    from geowarp_ros.model.describer import choose_device
    from geowarp_ros.provenance import commit

    recipe = parse_config(Distillation, read_recipe(args.recipe))
    model = mean_model([load_model(name) for name in args.model])
    model.config = parse_config(type(model.config), {**model.config.model_dump(), "resolution": args.resolution})
    held_out = read_held_out(recipe.grounds, args.data)
    found = weigh_retrieval(
        model,
        list(held_out.values()),
        candidates=args.candidates,
        most_queries=args.most_queries,
        device=choose_device(args.device),
        progress=progress.bar,
    )
    weights = " | ".join(f"weight {w:g}" for w in WEIGHTS)
    print(f"| places | retrieval | {weights} | best of {args.candidates} |")
    print("|---|" + "---:|" * (len(WEIGHTS) + 2))
    for name, each in zip(held_out, found, strict=True):
        cells = " | ".join(f"{value:.1f}" for value in each.reranked)
        print(f"| {name} ({each.queries}) | {each.retrieval:.1f} | {cells} | {each.best_possible:.1f} |")
    weight = best_weight(found)
    model.config = model.config.model_copy(update={"retrieval_weight": weight})
    save_model(model, args.output, half=True, notes={"commit": commit(), "made_by": "geowarp train finish"})
    print(f"retrieval_weight {weight:g}; model {fingerprint(load_model(args.output))}: {args.output}")
    return 0
