"""Say where images were taken: one line, or one JSON object, for each image; as pictures, GeoJSON, and a page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from geowarp_ros.cli.options import SHORTCUTS, add_camera, add_settings, localizer_config, settings
from geowarp_ros.cli.parser import GALLERY, NEW_FILE, NEW_PICTURES, image_files, refuse_overwriting
from geowarp_ros.errors import ConfigError
from geowarp_ros.files import quoted

if TYPE_CHECKING:
    from geowarp_ros.evaluation.answers import Localized


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="image file, folder of images, or glob"
    )
    parser.add_argument("--gallery", type=GALLERY, required=True, help="folder made by 'geowarp gallery build'")
    add_camera(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument(
        "--figure",
        type=NEW_PICTURES,
        metavar="PNG|FOLDER",
        help="draw each image beside the photograph it was matched with, and where it is; of several images a"
        " folder, in which each picture has its image's name",
    )
    parser.add_argument("--geojson", type=NEW_FILE, help="write fixes and their ellipses as GeoJSON")
    parser.add_argument("--html", type=NEW_FILE, help="write a page with a map and every match; it opens offline")
    add_settings(parser, *SHORTCUTS)


def run(args: argparse.Namespace) -> int:
    """Localise each image; a bad one is reported on stderr and the rest goes on (then the status is 1)."""
    config = localizer_config(settings(args), "localize")
    paths = image_files(args.images)
    figures = figure_files(args.figure, paths)
    refuse_overwriting([*figures.values(), args.geojson, args.html], paths)
    from geowarp_ros.errors import CameraError, ImageError
    from geowarp_ros.evaluation.words import ON_A_DRIVE
    from geowarp_ros.localizer import Localizer
    from geowarp_ros.output import coloured
    from geowarp_ros.pictures import FIGURE_PX, answer_picture, save_picture
    from geowarp_ros.progress import bar, silent
    from geowarp_ros.readers.camera_files import frame_of_file, read_camera

    if args.geojson or args.html:
        from geowarp_ros.evaluation.answers import Localized, write_answers_geojson, write_answers_page

    camera = args.camera and read_camera(args.camera)
    localizer = Localizer.open(args.gallery, config)
    guesses, unread = 0, list[str]()
    localized: list[Localized] = []
    show = bar if len(paths) > 8 else silent
    for path in show(paths, len(paths), "localizing images"):
        try:
            frame = frame_of_file(path, camera)
            answer = localizer.localize(frame)
        except (ImageError, CameraError) as error:
            print(f"geowarp localize: {error}", file=sys.stderr)
            unread.append(str(error))
            continue
        guesses += answer.fix is None and len(answer.candidates) > 0
        said = coloured(repr(answer), "green" if answer.fix else "amber")
        print(json.dumps(answer.to_dict(str(path))) if args.json else f"{path}: {said}", flush=True)
        if figures:
            figures[path].parent.mkdir(parents=True, exist_ok=True)
            save_picture(figures[path], answer_picture(answer, frame.image, width_px=FIGURE_PX, plan=True))
        if args.html:
            shown = Localized.shown(str(path), answer, frame.image, len(localized))
            localized.append(replace(shown, answer=replace(answer, pair=None)))
        elif args.geojson:
            localized.append(Localized(str(path), replace(answer, pair=None)))
    if args.geojson:
        write_answers_geojson(localized, args.geojson)
    if args.html and localized:
        write_answers_page(localized, unread, localizer.gallery, args.html)
    measured = localizer.calibration is not None and localizer.calibration.title == ON_A_DRIVE
    if guesses and not unread and not args.json and not measured:
        print(
            f"{guesses} of {len(paths)} images have a best guess and no fix; images of known position would tell"
            f" whether to trust such guesses here: geowarp calibrate DRIVE --gallery {quoted(args.gallery)}",
            file=sys.stderr,
        )
    return 1 if unread else 0


def figure_files(figure: Path | None, images: Sequence[Path]) -> dict[Path, Path]:
    """Return where the picture of each image goes: into the file that is named, or into that folder by its name.

    Raises:
        ConfigError: Several images and one file, or two images whose pictures would have the same name.
    """
    if figure is None:
        return {}
    if figure.suffix and not figure.is_dir():
        if len(images) > 1:
            raise ConfigError(
                f"--figure {figure}: is one picture, expected a folder for those of {len(images)} images"
            )
        return {images[0]: figure}
    found: dict[Path, Path] = {}
    for image in dict.fromkeys(images):
        other = next((each for each, file in found.items() if file.stem == image.stem), None)
        if other is not None:
            raise ConfigError(
                f"--figure {figure}: {other} and {image} would both be {image.stem}.jpg, expected one of them"
            )
        found[image] = figure / f"{image.stem}.jpg"
    return found
