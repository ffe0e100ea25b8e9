"""Localise a replayed drive on a real ROS 2 graph, from nothing: world, gallery, node, bag, fixes, picture."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from geowarp_ros.cli.parser import MODEL, NEW_FOLDER, finite


def rate(text: str) -> float | None:
    """Parse a factor above 0; None for ``auto``."""
    factor = None if text == "auto" else finite(text)
    if factor is not None and factor <= 0:
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0, or auto")
    return factor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("--output", type=NEW_FOLDER, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--model", type=MODEL, default="default", help="model file; default: the model that ships")
    parser.add_argument("--seed", type=int, default=1, help="seed of the town")
    parser.add_argument("--streets", type=int, default=4, help="number of streets in gallery and drive")
    text = "factor on the recorded speed, or auto: measure first and replay as slowly as this machine needs"
    parser.add_argument("--rate", type=rate, default=1.0, help=text)


def run(args: argparse.Namespace) -> int:
    """Make world and gallery unless they exist, replay, print the table.

    Returns:
        0, or 1 if fewer than half of the images were answered.
    """
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        from geowarp_ros.errors import ConfigError

        raise ConfigError(
            f"the demo needs ROS 2 ({error}): source its setup.bash or pip install '.[ros]'"
        ) from None
    from geowarp_ros.config import LocalizerConfig, parse_config
    from geowarp_ros.lab.demo import images_per_second, kept_rate, make_gallery, make_world, read_demo, replay
    from geowarp_ros.lab.demo_picture import write_picture
    from geowarp_ros.lab.world.config import WorldConfig
    from geowarp_ros.localizer import Localizer
    from geowarp_ros.progress import bar

    begun = time.monotonic()
    output: Path = args.output
    output.mkdir(parents=True, exist_ok=True)
    config = parse_config(WorldConfig, {"seed": args.seed, "streets": args.streets})
    town = f"{args.seed}-{args.streets}"
    world = make_world(config, output / f"world-{town}", progress=bar)
    gallery = make_gallery(world, args.model, output / f"gallery-{town}", progress=bar)
    localizer = Localizer.open(gallery.path, LocalizerConfig(model=args.model))
    factor, drive = args.rate, world / "drive"
    if factor is None:
        recorded = read_demo(drive)
        factor = kept_rate(recorded, localizer)
        print(f"rate {factor:.3g}: {factor * images_per_second(recorded):.2g} images a second", flush=True)
    result = replay(drive, gallery, args.model, output, rate=factor, progress=bar)
    title = f"A drive localised against {len(gallery.places)} photographs of a street world, over ROS 2"
    write_picture(result, localizer, world, output / "demo.png", title)
    for label, value in result.rows():
        print(f"{label:<14}{value:>10}")
    print(f"\nfixes {output / 'fixes'}, picture {output / 'demo.png'}, {time.monotonic() - begun:.0f} s in all")
    if complaint := result.complaint():
        print(f"\ngeowarp demo: {complaint}", file=sys.stderr)
    return 0 if result.answered_share >= 0.5 else 1
