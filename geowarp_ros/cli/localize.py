"""Say where images were taken: one line, or one JSON object, for each image."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from geowarp_ros.cli.options import SHORTCUTS, add_camera, add_settings, localizer_config, settings
from geowarp_ros.cli.parser import GALLERY, image_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="image file, folder of images, or glob"
    )
    parser.add_argument("--gallery", type=GALLERY, required=True, help="folder made by 'geowarp gallery build'")
    add_camera(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    add_settings(parser, *SHORTCUTS)


def run(args: argparse.Namespace) -> int:
    """Localise each image; a bad one is reported on stderr and the rest goes on (then the status is 1)."""
    config = localizer_config(settings(args), "localize")
    paths = image_files(args.images)
    from geowarp_ros.errors import CameraError, ImageError
    from geowarp_ros.gallery.manifest import CALIBRATION
    from geowarp_ros.localizer import Localizer
    from geowarp_ros.progress import bar, silent
    from geowarp_ros.readers.camera_files import frame_of_file, read_camera

    camera = args.camera and read_camera(args.camera)
    localizer = Localizer.open(args.gallery, config)
    status, guesses = 0, 0
    show = bar if len(paths) > 8 else silent
    for path in show(paths, len(paths), "localizing images"):
        try:
            answer = localizer.localize(frame_of_file(path, camera))
        except (ImageError, CameraError) as error:
            print(f"geowarp localize: {error}", file=sys.stderr)
            status = 1
            continue
        guesses += answer.fix is None and len(answer.candidates) > 0
        print(json.dumps(answer.to_dict(str(path))) if args.json else f"{path}: {answer!r}", flush=True)
    if guesses and not status and not args.json and not (args.gallery / CALIBRATION).exists():
        print(
            f"{guesses} of {len(paths)} images have a best guess and no fix; images of known position would tell"
            f" whether to trust such guesses here: geowarp calibrate DRIVE --gallery {args.gallery}",
            file=sys.stderr,
        )
    return status
