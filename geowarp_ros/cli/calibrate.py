"""Measure on geotagged images that are not in the gallery when an answer can be trusted, and store it there.

Each image is asked as it is and with its true place left out of the gallery. Afterwards a fix's confidence is a
probability, its covariance holds the share of true positions that it claims, and answers below the confidence that
kept the wanted false-fix rate are no fixes.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("source", type=Path, help="geotagged images of a held-out drive: folder, CSV or bag")
    parser.add_argument("--gallery", type=Path, required=True)
    parser.add_argument("--split", help="one split of the source")
    parser.add_argument("--utm-zone", default="32N", help="zone of @utm…@ names")
    parser.add_argument("--model", default="default", help="the gallery's model file")
    parser.add_argument("--rerank", default="geowarp", help="the re-ranker that will be used")
    parser.add_argument("--candidates", type=int, default=5, help="how many candidates are re-ranked")
    parser.add_argument("--verify", default="sift", choices=("none", "orb", "sift"), help="position.verify")
    parser.add_argument(
        "--verify-candidates", type=int, default=10, metavar="N", help="position.verify_candidates"
    )
    parser.add_argument("--correct-within", type=float, default=25.0, metavar="M", help="what counts as right, m")
    parser.add_argument("--false-fix-rate", type=float, default=0.01, help="wanted share of wrong fixes")
    parser.add_argument(
        "--cluster-radius", type=float, default=10.0, metavar="M", help="position.cluster_radius_m"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def run(args: argparse.Namespace) -> int:
    """Calibrate, store, and print what the cross-validation showed."""
    from geowarp_ros.config import LocalizerConfig, parse_config
    from geowarp_ros.evaluation.calibration import calibrate_gallery
    from geowarp_ros.localizer import Localizer
    from geowarp_ros.progress import bar
    from geowarp_ros.readers import read_source

    config = parse_config(
        LocalizerConfig,
        {
            "model": args.model,
            "device": args.device,
            "rerank": {"method": args.rerank, "candidates": args.candidates},
            "position": {
                "cluster_radius_m": args.cluster_radius,
                "verify": args.verify,
                "verify_candidates": args.verify_candidates,
            },
        },
    )
    localizer = Localizer.open(args.gallery, config)
    source = read_source(args.source, split=args.split, utm_zone=args.utm_zone)
    calibration, summary, collected = calibrate_gallery(
        localizer, source.images, args.correct_within, args.false_fix_rate, bar
    )
    skipped = len(collected.unreadable)
    textureless = collected.textureless
    print(f"{len(collected.samples)} answers, 5-fold cross-validated")
    print(f"  left out: {skipped} unreadable images, {textureless} without texture")
    print(f"  right against wrong, AUC            {summary['auc']:.3f}")
    print(f"  Brier score                         {summary['brier']:.3f}")
    print(f"  least confidence                    {calibration.min_confidence:.3f}")
    print(f"  right answers published             {summary['availability']:.1%}")
    print(f"  wrong among published               {summary['false_fix_rate']:.2%}")
    print(f"  inside the claimed 95 % ellipse     {summary['inside_95']:.1%}")
    print(f"  mean NEES (2 is consistent)         {summary['mean_nees']:.2f}")
    return 0
