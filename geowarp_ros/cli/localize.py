"""Say where images were taken: one line, or one JSON object, for each image."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--gallery", type=Path, required=True, help="folder made by 'geowarp gallery build'")
    parser.add_argument("--model", default="default", help="the gallery's model file; default: the one that ships")
    parser.add_argument("--rerank", default="geowarp", metavar="METHOD", help="none, geowarp, sift, …")
    parser.add_argument("--candidates", type=int, default=5, help="how many candidates are re-ranked")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--min-confidence", type=float, default=None, help="below it the answer is no_fix")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run(args: argparse.Namespace) -> int:
    """Localise each image; a bad one is said on stderr and the rest goes on (then the status is 1)."""
    from geowarp_ros.config import LocalizerConfig, parse_config
    from geowarp_ros.errors import ImageError
    from geowarp_ros.images import read_image
    from geowarp_ros.localizer import Localizer, answer_to_dict
    from geowarp_ros.progress import bar, silent
    from geowarp_ros.types import Fix, Frame

    position = {} if args.min_confidence is None else {"min_confidence": args.min_confidence}
    config = parse_config(
        LocalizerConfig,
        {
            "model": args.model,
            "device": args.device,
            "rerank": {"method": args.rerank, "candidates": args.candidates},
            "position": position,
        },
    )
    localizer = Localizer.open(args.gallery, config)
    status = 0
    show = bar if len(args.images) > 8 and sys.stderr.isatty() else silent
    for path in show(args.images, len(args.images), "localize"):
        try:
            answer = localizer.localize(Frame(read_image(path)))
        except ImageError as error:
            print(f"geowarp localize: {error}", file=sys.stderr)
            status = 1
            continue
        if args.json:
            print(json.dumps(answer_to_dict(answer, str(path))), flush=True)
        elif isinstance(answer, Fix):
            east, north = (math.sqrt(answer.covariance[axis, axis]) for axis in (0, 1))
            best = answer.candidates[0].place.name
            print(
                f"{path}: {answer.latitude_deg:.7f}, {answer.longitude_deg:.7f} "
                f"± {east:.1f} m east, {north:.1f} m north, confidence {answer.confidence:.2f}, like {best}",
                flush=True,
            )
        else:
            print(f"{path}: no fix, {answer.reason}: {answer.detail}", flush=True)
    return status
