"""Look at a gallery, at a finished run of 'geowarp evaluate bag', or at the running node, in a browser.

The page is served on this machine and needs no network; with --tiles a map of OpenStreetMap lies below. End it
with Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geowarp_ros.cli.parser import GALLERY, Existing
from geowarp_ros.cli.verbs import require

if TYPE_CHECKING:
    from geowarp_ros.evaluation.drive import DriveImage
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.view.shown import Shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    what = "a gallery, or the folder of a run of 'geowarp evaluate bag'"
    parser.add_argument(
        "what",
        nargs="?",
        type=Existing(what),
        metavar="GALLERY|RUN",
        help=f"{what}; with --live the node's gallery, if it is here",
    )
    parser.add_argument("--live", action="store_true", help="look at the running node (needs ROS 2)")
    parser.add_argument(
        "--node", default="/geowarp_localizer", metavar="NAME", help="name of the node, with its namespace"
    )
    parser.add_argument(
        "--drive", type=Existing("the drive"), help="drive of a run, if it is not where it was evaluated"
    )
    parser.add_argument("--gallery", type=GALLERY, help="gallery of a run, likewise")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; another one shows it to others")
    parser.add_argument("--port", type=int, metavar="N", help="port (default: 8460, or any free one)")
    parser.add_argument(
        "--tiles", action="store_true", help="lay the map on OpenStreetMap's tiles, from the network"
    )
    parser.add_argument(
        "--tile-url", default="", metavar="URL", help="other tiles: an address with {z}, {x} and {y}"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from geowarp_ros.errors import ConfigError

    if args.what is None and not args.live:
        raise ConfigError("nothing to look at: expected a gallery, a run of 'geowarp evaluate bag', or --live")
    require("starlette", "uvicorn")
    from geowarp_ros.view import server

    shown, watching = _live(args) if args.live else (_still(args), nullcontext())
    tiles = args.tile_url or (server.OPEN_STREET_MAP if args.tiles else "")
    app = server.application(shown, server.hosts_of(args.host), tiles)
    listening = server.listen(args.host, args.port)
    with watching:
        print(f"{server.address_of(listening, args.host)}  (Ctrl-C ends it)", flush=True)
        server.serve(app, listening)
    return 0


def _live(args: argparse.Namespace) -> tuple[Shown, AbstractContextManager[Any]]:
    require("rclpy")
    from geowarp_ros.ros.watching import watching
    from geowarp_ros.view.live import Live

    live = Live(args.node, _open(args.what) if args.what else None)
    return live, watching(live, args.node)


def _still(args: argparse.Namespace) -> Shown:
    from geowarp_ros.errors import ConfigError

    if (args.what / "gallery.json").is_file():
        from geowarp_ros.view.galleries import show_gallery

        return show_gallery(_open(args.what))
    if (args.what / "results.json").is_file():
        return _run(args)
    raise ConfigError(
        f"{args.what}: is neither a gallery (gallery.json) nor a run of 'geowarp evaluate bag' (results.json)"
    )


def _open(path: Path) -> Gallery:
    from geowarp_ros.gallery.store import Gallery

    return Gallery.open(path)


def _run(args: argparse.Namespace) -> Shown:
    """Show a run with what it was made of, as far as that is still there."""
    from geowarp_ros.errors import GalleryError
    from geowarp_ros.view.runs import read_run, show_run

    options = _options(read_run(args.what)[1])
    notes = []
    drive = args.drive or _found(options.get("drive"), args.what)
    if drive is None:
        notes.append(f"No pictures of the drive: {options.get('drive')} is not there; --drive says where it is.")
    gallery, where = None, args.gallery or _found(options.get("gallery"), args.what)
    try:
        gallery = _open(where) if where else None
    except GalleryError as error:
        notes.append(f"No gallery: {error}.")
    if where is None and options.get("gallery"):
        notes.append(f"No gallery: {options['gallery']} is not there; --gallery says where it is.")
    images = None if drive is None else partial(_images, drive, options)
    return show_run(args.what, images, gallery, notes)


def _options(settings: Any) -> dict[str, Any]:
    options = settings.get("options") if isinstance(settings, dict) else None
    return options if isinstance(options, dict) else {}


def _found(path: Any, run: Path) -> Path | None:
    """Return where a path of a run's options is: as it was given, or from a folder above the run's."""
    if not isinstance(path, str) or not path:
        return None
    places = [Path(path), *(folder / path for folder in run.resolve().parents)]
    return next((place for place in places if place.exists()), None)


def _images(drive: Path, options: dict[str, Any]) -> Sequence[DriveImage]:
    """Read the images of a drive as they were evaluated."""
    from geowarp_ros.cli import evaluate_bag
    from geowarp_ros.cli.parser import Parser
    from geowarp_ros.errors import SourceError

    parser = Parser()
    evaluate_bag.add_arguments(parser)
    words = ["--output=."]
    for action in parser._actions:
        value = options.get(action.dest)
        if action.dest not in _READING or value in (None, "", False):
            continue
        option = action.option_strings[0]
        if isinstance(value, list):  # --truth-datum
            words += [option, *map(str, value)]
        else:
            words.append(option if value is True else f"{option}={value}")
    try:
        given = parser.parse_args([*words, "--", str(drive)])
    except SystemExit:
        raise SourceError(f"{drive}: cannot be read as it was evaluated: {' '.join(words)}") from None
    return evaluate_bag.read_drive(given).images


_READING = (
    "image_topic", "camera", "truth_topic", "truth_bag", "truth_offset", "truth_datum", "max_gap",
    "accept_null_island", "split", "utm_zone",
)  # fmt: skip
"""Options of 'geowarp evaluate bag' that say how a drive is read."""
