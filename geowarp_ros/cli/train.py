"""Train from geotagged images: the retrieval network, then the warping regression.

Under ``torchrun -m geowarp_ros.cli train …`` several processes share each batch.
"""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType

TRAININGS: dict[str, str] = {
    "distill": "start an encoder from a teacher's features",
    "retrieval": "train encoder and aggregation on geotagged images",
    "warp": "train the warping regression, encoder frozen",
    "preview": "show the pairs that the warp's training generates",
    "ablation": "compare losses and warping coefficients (paper Table 3, Figure 6)",
}
"""What can be trained -> its line in the help. Each lives in ``cli/train_<name>.py``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only the chosen training's module is imported; the others are known by name."""
    parser.epilog = "trainings:\n" + "\n".join(f"  {name:<12}{line}" for name, line in TRAININGS.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("training", choices=TRAININGS, metavar="TRAINING", help="see below")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="'geowarp train TRAINING --help' says more")


def run(args: argparse.Namespace) -> int:
    """Parse the rest with the chosen training's parser and run it."""
    module: ModuleType = importlib.import_module(f"geowarp_ros.cli.train_{args.training}")
    parser = argparse.ArgumentParser(
        prog=f"geowarp train {args.training}",
        description=module.__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(args.options)) or 0)
