"""Render the procedural street world: geotagged photographs of a seeded town and a drive through it as a bag."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options; every parameter of the world's configuration is one."""
    from geowarp_ros.lab.world.config import WorldConfig

    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace a world that is there already")
    parser.add_argument(
        "--size", default=None, metavar="WxH", help="image size, short for --width-px and --height-px"
    )
    for name, info in WorldConfig.model_fields.items():
        flag, text = f"--{name.replace('_', '-')}", (info.description or "").replace("%", "%%")
        if info.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=info.default, help=text)
        else:
            parser.add_argument(flag, default=info.default, metavar="X", help=text)


def run(args: argparse.Namespace) -> int:
    """Render the world; returns the exit status."""
    import cv2

    from geowarp_ros.config import parse_config
    from geowarp_ros.errors import ConfigError
    from geowarp_ros.lab.world.config import WorldConfig
    from geowarp_ros.lab.world.dataset import write_world
    from geowarp_ros.progress import bar

    values = {name: getattr(args, name) for name in WorldConfig.model_fields}
    if args.size is not None:
        parts = args.size.lower().split("x")
        if len(parts) != 2:
            raise ConfigError(f"--size {args.size!r}: expected WIDTHxHEIGHT, such as 320x240")
        values["width_px"], values["height_px"] = parts
    config = parse_config(WorldConfig, values)
    cv2.setNumThreads(1)  # the pieces are small: threads would cost more than they give
    write_world(config, args.output, overwrite=args.overwrite, progress=bar)
    print(f"{args.output}: a world of seed {config.seed}")
    return 0
