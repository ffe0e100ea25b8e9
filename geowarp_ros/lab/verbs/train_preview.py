"""Plot generated training pairs of the warp as in Figure 4 of the paper: t_x, t_y, t_z, I_a, I_b."""

from __future__ import annotations

import argparse
from pathlib import Path

from geowarp_ros.cli.parser import IMAGES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", nargs="+", type=IMAGES, help="folders, CSV files or bags of geotagged images")
    parser.add_argument("--output", type=Path, default=Path("preview.png"), help="output image")
    parser.add_argument("--k", type=float, default=0.6, help="warping coefficient, 0..1")
    parser.add_argument("--count", type=int, default=4, help="number of images, evenly spread")
    parser.add_argument("--height", type=int, default=360, help="height of the crops (px)")
    parser.add_argument("--width", type=int, default=480, help="width of the crops (px)")
    parser.add_argument("--seed", type=int, default=0, help="random seed")


def run(args: argparse.Namespace) -> int:
    """Draw and save the plot."""
    import numpy as np

    from geowarp_ros.errors import TrainingError
    from geowarp_ros.lab.training.data import Photographs, common_frame, read_photographs
    from geowarp_ros.lab.training.preview import draw_quadruplets

    if min(args.count, args.height // 64, args.width // 64) < 1:
        raise TrainingError(
            f"{args.count} photographs of {args.width}×{args.height}: expected 1 of 64×64 at least"
        )
    images = read_photographs(args.source, None)
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, min(args.count, len(images))).astype(int)]
    photographs = Photographs(chosen, common_frame(chosen))
    pixels, _ = photographs.batch(range(len(chosen)), args.height, args.width)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    draw_quadruplets(pixels, args.k, args.seed).savefig(args.output, dpi=150)
    print(args.output)
    return 0
