"""Train from geotagged images: the retrieval network, then the warping regression.

Under ``torchrun --nproc-per-node N --no-python geowarp train …`` several processes share each batch.
"""

from __future__ import annotations

import argparse
import sys

from geowarp_ros.cli import main
from geowarp_ros.cli.verbs import add_choice, run_verb

TRAININGS: dict[str, str] = {
    "distill": "start an encoder from a teacher's features",
    "retrieval": "train encoder and aggregation on geotagged images",
    "warp": "train the warping regression, encoder frozen",
    "finish": "choose how much retrieval counts in re-ranking, and write the model as it ships",
    "preview": "show the pairs that the warp's training generates",
    "ablation": "compare losses and warping coefficients (paper Table 3, Figure 6)",
}
"""What can be trained -> its line in the help. Each lives in ``cli/train_<name>.py``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only the chosen training's module is imported; the others are known by name."""
    add_choice(parser, "training", TRAININGS)


def run(args: argparse.Namespace) -> int:
    """Parse the rest with the chosen training's parser and run it."""
    return run_verb(f"geowarp train {args.chosen}", f"lab.verbs.train_{args.chosen}", args.words)


def retrieval() -> int:
    """The executable ``train_retrieval`` of ``ros2 run``."""
    return main(["train", "retrieval", *sys.argv[1:]])


def warp() -> int:
    """The executable ``train_warp`` of ``ros2 run``."""
    return main(["train", "warp", *sys.argv[1:]])
