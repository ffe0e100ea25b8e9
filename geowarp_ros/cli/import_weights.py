"""Read published weights into a model file: a method's network, GeoWarp's pairs, or an ImageNet classifier."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from geowarp_ros.cli.parser import NEW_FILE, Existing
from geowarp_ros.errors import ConfigError

if TYPE_CHECKING:
    from geowarp_ros.model.geowarp import GeoWarp

WEIGHTS = Existing("a state dict", file=True)

OF_METHOD = ("method", "checkpoint")
OF_PAIR = ("encoder", "aggregation", "features_extractor")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    method = parser.add_argument_group("a place-recognition network, as its authors publish it")
    method.add_argument(
        "--method", metavar="NAME", help="cosplace, eigenplaces, mixvpr, boq …; one that is unknown names all"
    )
    method.add_argument(
        "--checkpoint", type=WEIGHTS, metavar="FILE", help="its weights (.pth, .ckpt or .safetensors)"
    )
    pair = parser.add_argument_group("GeoWarp's checkpoints, or a classifier of ImageNet for the encoder")
    pair.add_argument("--encoder", choices=("alexnet", "vgg16", "resnet18", "resnet50", "mobilenet_v2"))
    pair.add_argument("--aggregation", choices=("gem", "netvlad"))
    pair.add_argument(
        "--features-extractor",
        type=WEIGHTS,
        metavar="FILE",
        help="state dict with keys encoder.* and pool.*, or torchvision's classifier (.pth or .safetensors)",
    )
    pair.add_argument(
        "--homography-regression",
        type=WEIGHTS,
        metavar="FILE",
        help="state dict with keys conv.* and linear.*; without it the model can retrieve but not warp",
    )
    parser.add_argument("--output", required=True, type=NEW_FILE, help="the model file to write (.safetensors)")
    parser.add_argument(
        "--resolution",
        type=int,
        help="shorter side in px that the model works at, 0: images as they are (default: the method's, or 0); the"
        " input of a network that takes squares keeps its size",
    )
    parser.add_argument(
        "--projection",
        type=int,
        help="channels that the stored local features are projected to, at random until trained, 0: the encoder's"
        " (default: at most 256 of a method's, or 0)",
    )
    parser.add_argument("--half", action="store_true", help="store float16: half the size, other last digits")


def run(args: argparse.Namespace) -> int:
    """Import the weights and say what was written."""
    from geowarp_ros.model.checkpoints import fingerprint, load_model, save_model
    from geowarp_ros.model.encoders import CHANNELS

    sources = args.checkpoint, args.features_extractor, args.homography_regression
    model, notes = _imported(args), {"imported_from": ", ".join(path.name for path in sources if path)}
    config = model.config
    save_model(model, args.output, half=args.half, notes=notes | ({"method": args.method} if args.method else {}))
    print(
        f"{args.output}: {config.encoder} + {config.aggregation}, {model.descriptor_dim} values a descriptor, "
        f"{'with' if model.regression is not None else 'without'} warping regression, "
        f"fingerprint {fingerprint(load_model(args.output))}"
    )
    if args.method and config.projection:
        print(
            f"local features: {config.projection} of {CHANNELS[config.encoder]} channels, by a random projection"
            " that wants training; --projection 0 keeps all"
        )
    return 0


def _imported(args: argparse.Namespace) -> GeoWarp:
    given = [name for name in (*OF_METHOD, *OF_PAIR, "homography_regression") if getattr(args, name)]
    of_method = any(name in OF_METHOD for name in given)
    lacking = [name for name in (OF_METHOD if of_method else OF_PAIR) if name not in given]
    needless = [name for name in given if of_method and name not in OF_METHOD]
    if lacking or needless:
        found = "without " + _options(lacking) if lacking else "with " + _options(needless)
        raise ConfigError(f"expected {_options(OF_METHOD)}, or instead {_options(OF_PAIR)}; found one {found}")
    entries = {name: getattr(args, name) for name in ("resolution", "projection")}
    entries = {name: value for name, value in entries.items() if value is not None}
    if args.method:
        from geowarp_ros.model.methods import import_method

        return import_method(args.method, args.checkpoint, **entries)
    from geowarp_ros.model.published import import_weights

    sources = args.features_extractor, args.homography_regression
    return import_weights(args.encoder, args.aggregation, *sources, **entries)


def _options(names: Sequence[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
