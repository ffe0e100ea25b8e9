"""Render the procedural street world: geotagged images of a seeded town and a bag of a drive through it."""

from __future__ import annotations

import argparse

from geowarp_ros.cli.parser import NEW_FOLDER
from geowarp_ros.lab.verbs.options import add_config_arguments, config_from_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options, one per world parameter."""
    from geowarp_ros.lab.world.config import WorldConfig

    parser.add_argument("--output", type=NEW_FOLDER, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing world")
    parser.add_argument("--size", metavar="WxH", help="image size (px); replaces --width-px and --height-px")
    add_config_arguments(parser, WorldConfig)


def run(args: argparse.Namespace) -> int:
    """Render the world."""
    import cv2

    from geowarp_ros.errors import ConfigError
    from geowarp_ros.lab.world.config import WorldConfig
    from geowarp_ros.lab.world.dataset import write_world
    from geowarp_ros.progress import bar

    if args.size is not None:
        args.width_px, cross, args.height_px = args.size.lower().partition("x")
        if not cross:
            raise ConfigError(f"--size {args.size!r}: expected WIDTHxHEIGHT, such as 320x240")
    config = config_from_arguments(args, WorldConfig)
    cv2.setNumThreads(1)  # surfaces are too small to benefit from threads
    write_world(config, args.output, overwrite=args.overwrite, progress=bar)
    print(f"{args.output}: a world of seed {config.seed}")
    return 0
