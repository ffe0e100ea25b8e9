"""Show the pairs that the warp's training generates, as Figure 4 of the paper: t_x, t_y, t_z, I_a, I_b."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", nargs="+", type=Path, help="folders, CSV files or bags of geotagged images")
    parser.add_argument("--output", type=Path, default=Path("preview.png"), help="picture to write")
    parser.add_argument("--k", type=float, default=0.6, help="warping coefficient, 0..1")
    parser.add_argument("--count", type=int, default=4, help="photographs, evenly spread over the sources")
    parser.add_argument("--height", type=int, default=360, help="that photographs are cut to, px")
    parser.add_argument("--width", type=int, default=480, help="that photographs are cut to, px")
    parser.add_argument("--seed", type=int, default=0, help="of the trapezoids")


def run(args: argparse.Namespace) -> int:
    """Draw and write the picture."""
    import numpy as np

    from geowarp_ros.errors import TrainingError
    from geowarp_ros.lab.training.data import Photographs, common_frame, read_photographs
    from geowarp_ros.lab.training.preview import save_preview

    if min(args.count, args.height // 64, args.width // 64) < 1:
        raise TrainingError(
            f"{args.count} photographs of {args.width}×{args.height}: expected 1 of 64×64 at least"
        )
    images = read_photographs(args.source, None)
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, min(args.count, len(images))).astype(int)]
    photographs = Photographs(chosen, common_frame(chosen))
    pixels, readable = photographs.batch(range(len(chosen)), args.height, args.width)
    if not readable.any():
        raise TrainingError(f"{chosen[0].place.name} and the others cannot be read")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save_preview(pixels[np.flatnonzero(readable)], args.output, args.k, args.seed)
    print(args.output)
    return 0
