"""Read the published GeoWarp checkpoints, or ImageNet weights for the encoder alone, into a model file."""

from __future__ import annotations

import argparse

from geowarp_ros.cli.parser import NEW_FILE, Existing

WEIGHTS = Existing("a state dict", file=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "--encoder", required=True, choices=("alexnet", "vgg16", "resnet18", "resnet50", "mobilenet_v2")
    )
    parser.add_argument("--aggregation", required=True, choices=("gem", "netvlad"))
    parser.add_argument(
        "--features-extractor",
        required=True,
        type=WEIGHTS,
        help="state dict with keys encoder.* and pool.*, or torchvision's classifier (.pth or .safetensors)",
    )
    parser.add_argument(
        "--homography-regression",
        type=WEIGHTS,
        help="state dict with keys conv.* and linear.*; without it the model can retrieve but not warp",
    )
    parser.add_argument("--output", required=True, type=NEW_FILE, help="the model file to write (.safetensors)")
    parser.add_argument(
        "--resolution",
        type=int,
        default=0,
        help="shorter side in px that the model works at; 0: images as they are",
    )
    parser.add_argument(
        "--projection",
        type=int,
        default=0,
        help="channels that the stored local features are projected to, to be trained; 0: the encoder's",
    )
    parser.add_argument("--half", action="store_true", help="store float16: half the size, other last digits")


def run(args: argparse.Namespace) -> int:
    """Import the weights and say what was written."""
    from geowarp_ros.model.checkpoints import fingerprint, load_model, save_model
    from geowarp_ros.model.published import import_weights

    sources = args.features_extractor, args.homography_regression
    model = import_weights(args.encoder, args.aggregation, *sources, args.resolution, args.projection)
    notes = {"imported_from": ", ".join(path.name for path in sources if path)}
    save_model(model, args.output, half=args.half, notes=notes)
    print(
        f"{args.output}: {args.encoder} + {args.aggregation}, {model.descriptor_dim} values a descriptor, "
        f"{'with' if model.regression is not None else 'without'} warping regression, "
        f"fingerprint {fingerprint(load_model(args.output))}"
    )
    return 0
