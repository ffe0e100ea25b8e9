"""Measure on geotagged images that are not in the gallery when an answer can be trusted, and store it there.

Each image is asked as it is and with its true place left out of the gallery. Afterwards a fix's confidence is a
probability, its covariance holds the share of true positions that it claims, and answers below the confidence that
kept the wanted false-fix rate are no fixes.
"""

from __future__ import annotations

import argparse

from geowarp_ros.cli.options import add_settings, localizer_config, settings
from geowarp_ros.cli.parser import GALLERY, IMAGES
from geowarp_ros.cli.sources import add_reading, reading
from geowarp_ros.cli.verbs import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("source", type=IMAGES, help="geotagged images of a held-out drive")
    parser.add_argument("--gallery", type=GALLERY, required=True, help="folder; the calibration is stored in it")
    parser.add_argument("--split", help="one split of the source")
    add_reading(parser)
    parser.add_argument(
        "--correct-within", type=float, default=25.0, metavar="M", help="error limit of a right answer (m)"
    )
    parser.add_argument("--false-fix-rate", type=float, default=0.01, help="wanted share of wrong fixes")
    own = ("model", "keypoint_weights", "matcher_weights", "rerank", "candidates", "device", "runtime", "threads")
    add_settings(parser, *own)


def run(args: argparse.Namespace) -> int:
    """Calibrate, store, and print what the cross-validation showed."""
    config = localizer_config(settings(args), "calibrate")
    from geowarp_ros.evaluation.asking import said_of_themselves
    from geowarp_ros.evaluation.calibration import calibrate_gallery
    from geowarp_ros.gallery.manifest import CALIBRATION
    from geowarp_ros.localizer import Localizer
    from geowarp_ros.progress import bar
    from geowarp_ros.readers import read_source

    require("sklearn")
    localizer = Localizer.open(args.gallery, config, calibrated=False)
    source = read_source(args.source, **reading(args))
    calibration, summary, collected = calibrate_gallery(
        localizer, source.images, args.correct_within, args.false_fix_rate, bar
    )
    skipped = len(collected.unreadable)
    textureless = collected.textureless
    print(
        f"{len(collected.samples)} answers, 5-fold cross-validated: to the images, to them with their places"
        " left out, and to drawn walls and skies"
    )
    print(f"  left out: {skipped} unreadable images, {textureless} without texture, such as the drawn ones")
    print(f"  right against wrong, AUC            {summary['auc']:.3f}")
    print(f"  Brier score                         {summary['brier']:.3f}")
    print(f"  minimum confidence                  {calibration.min_confidence:.3f}")
    print(f"  right answers published             {_share(summary['availability'], summary['right'])}")
    print(f"  wrong among published               {_share(summary['false_fix_rate'], summary['kept'])}")
    print(f"  inside the claimed 95 % ellipse     {_share(summary['inside_95'], summary['ellipses'])}")
    print(f"  mean NEES (2 is consistent)         {summary['mean_nees']:.2f}")
    print(f"stored, from now on in use: {args.gallery / CALIBRATION}")
    if said := said_of_themselves(collected.themselves, len(source.images)):
        print(f"warning: {said}; until then better delete that file")
    return 0


def _share(value: float, of: float) -> str:
    """Return a share as counted, with its 95 % interval: none of few is not none."""
    import numpy as np

    from geowarp_ros.evaluation.fixes import share

    found = share(np.arange(round(of)) < round(value * of))
    return f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}], {found.count} of {found.of}"
