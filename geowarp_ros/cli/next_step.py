"""What to do after a verb: its last line is the next command, with the paths that it was given, ready to be run.

The line goes to standard error, so that programs can read the results, and is left out with ``--json``.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TypeAlias

from geowarp_ros.errors import GeowarpError

Words: TypeAlias = "Sequence[str | Path]"
"""A command without ``geowarp``."""

LOOKED_AT = 3
"""Number of a folder's images in which a position is looked for."""

MADE = ("gallery.json", "results.json")
"""What a folder has in it that was made of photographs."""


def print_next_step(verb: str, args: argparse.Namespace) -> None:
    """Print the command that goes on from a verb that has done its work, if there is one.

    Args:
        verb: The module of the verb, such as ``evaluate_bag``.
        args: What it was given.
    """
    step = STEPS.get(verb)
    if verb == "gallery":
        step = STEPS.get(f"gallery_{args.action}", lambda args: _look(args.gallery))
    if step is None or getattr(args, "json", False) or os.environ.get("RANK", "0") != "0":
        return
    if words := step(args):
        sys.stdout.flush()
        print(f"next: {command_line(words)}", file=sys.stderr, flush=True)


def command_line(words: Words) -> str:
    """Return a command as a shell reads it, by the name under which ``geowarp`` is found here."""
    program = ["geowarp"]
    if shutil.which("geowarp") is None:
        called = sys.argv[0]
        program = [called] if Path(called).name == "geowarp" else [sys.executable, "-m", "geowarp_ros.cli"]
    # a path is no option, whatever its name
    safe = (f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in words)
    return shlex.join([*program, *safe])


# ---- what lies about


def find_drive(folders: Sequence[Path], other_than: Path | None = None) -> tuple[Path, list[str]] | None:
    """Return the first bag in some folders that has images and fixes, and the options that choose its topics.

    Where ``other_than`` is the folder of a bag, the files in it are of that bag.
    Bags that are compressed as a whole are left alone: a look at them would unpack them.
    """
    from geowarp_ros.readers.bag_files import BagFiles, is_bag
    from geowarp_ros.readers.topics import FIX_TYPES, IMAGE_TYPES

    for path in chain.from_iterable(_listed(folder) for folder in folders if folder != other_than):
        if path == other_than or path.suffix.lower() in (".zst", ".zstd") or not is_bag(path):
            continue
        try:
            with BagFiles(path).reader() as reader:
                kinds = {c.topic: c.msgtype for c in reader.connections if c.msgcount}
        except GeowarpError:
            continue
        options = {"--image-topic": IMAGE_TYPES, "--truth-topic": FIX_TYPES}
        topics = {option: [t for t in sorted(kinds) if kinds[t] in types] for option, types in options.items()}
        if all(topics.values()):
            return path, [word for option, of in topics.items() if len(of) > 1 for word in (option, of[0])]
    return None


def find_photographs(folder: Path) -> Path | None:
    """Return the first folder of photographs with positions: one in ``folder``, itself, or one of such folders."""
    below = [path for path in _listed(folder) if path.is_dir()]
    found = (path for path in (*below, folder) if _has_positions(path))
    return next(chain(found, (path for path in below if _has_folders_of_photographs(path))), None)


def _has_folders_of_photographs(folder: Path) -> bool:
    """Whether a build finds photographs in its folders, as in a phone's; a table there is not read from above."""
    folders = [folder, *(path for path in _listed(folder) if path.is_dir())]
    other = any((path / name).exists() for path in folders for name in (*MADE, "positions.csv"))
    return not other and any(_has_positions(path) for path in folders)


def _has_positions(folder: Path) -> bool:
    from geowarp_ros.images import SUFFIXES
    from geowarp_ros.readers.exif_positions import exif_place
    from geowarp_ros.readers.utm_names import parse_name
    from geowarp_ros.types import Place

    there = {path.name: path for path in _listed(folder)}
    if not there.keys().isdisjoint(MADE):
        return False
    images = [path for path in there.values() if path.suffix.lower() in SUFFIXES]
    some = images[:: max(len(images) // LOOKED_AT, 1)][:LOOKED_AT]
    placed = (parse_name(path.name) or isinstance(exif_place(path.name, path), Place) for path in some)
    return "positions.csv" in there or any(placed)


def _listed(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return


# ---- the steps


def _look(gallery: Path) -> Words:
    return ["view", gallery]


def _try_out(gallery: Path, source: Path | None = None) -> Words:
    """Replay a drive that lies here, beside the gallery, or beside or in its source; without one look at it.

    A replay that is here is looked at, unless the gallery or its calibration has changed since.
    """
    from geowarp_ros.gallery.manifest import CALIBRATION
    from geowarp_ros.readers.bag_files import is_bag

    around = dict.fromkeys([Path(), gallery.parent, *((source.parent, source) if source else ())])
    found = find_drive(tuple(around), other_than=source if source and is_bag(source) else None)
    if found is None:
        return _look(gallery)
    drive, topics = found
    run = Path("runs", drive.name if drive.is_dir() else drive.stem)
    results, of = run / "results.json", _options(run)
    if results.is_file() and of and (Path(of["drive"]), Path(of["gallery"])) == (drive, gallery):
        ours = [path for path in (gallery / "gallery.json", gallery / CALIBRATION) if path.exists()]
        if all(path.stat().st_mtime_ns < results.stat().st_mtime_ns for path in ours):
            return _look(run)
    return ["evaluate", "bag", drive, *topics, "--gallery", gallery, "--output", run]


def _build(photographs: Path | str | None, *options: str | Path) -> Words | None:
    if photographs is None:
        return None
    names = chain(["gallery"], (f"gallery-{number}" for number in count(2)))
    free = next(path for path in map(Path, names) if not path.exists())
    return ["gallery", "build", photographs, *options, "--output", free]


def _begin(args: argparse.Namespace) -> Words | None:
    here = (path for path in _listed(Path()) if (path / "gallery.json").is_file())
    gallery = args.gallery or next(here, None)
    return _try_out(gallery) if gallery else _build(find_photographs(Path()) or "PHOTOGRAPHS")


def _built(args: argparse.Namespace) -> Words | None:
    """After a build by several processes, once all have done their part, align."""
    if not (args.output / "gallery.json").is_file():
        return None
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    return _try_out(args.output, args.source) if alone else ["gallery", "align", args.output]


def _upgraded(args: argparse.Namespace) -> Words:
    from geowarp_ros.gallery.manifest import read_manifest

    aligned = read_manifest(args.gallery).alignment is not None
    return _look(args.gallery) if aligned else ["gallery", "align", args.gallery]


def _seen(args: argparse.Namespace) -> Words | None:
    """After a gallery replay a drive; after a drive calibrate on it, where the report says that it helps."""
    from geowarp_ros.evaluation.words import calibration_helps

    if args.what is None:
        return None
    if (args.what / "gallery.json").is_file():
        step = _try_out(args.what)
        return None if step[0] == "view" else step
    found, options = json.loads((args.what / "results.json").read_text("utf-8")), _options(args.what)
    if not options or not calibration_helps(found):
        return None
    drive, gallery = Path(options["drive"]), Path(options["gallery"])
    return ["calibrate", drive, "--gallery", gallery] if drive.exists() and gallery.is_dir() else None


def _options(run: Path) -> dict[str, str]:
    """Return the paths of the drive and the gallery that a run is of, where it notes them."""
    try:
        options = json.loads((run / "run.json").read_text("utf-8"))["options"]
        return {name: str(options[name]) for name in ("drive", "gallery")}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _trained(args: argparse.Namespace) -> Path:
    return Path(args.output, "best.safetensors")  # lab.training.session.BEST, which would bring torch


def _distilled(args: argparse.Namespace) -> Words | None:
    """Finish what a recipe trained; describe the images that a student was taught by."""
    source = args.source[0]
    if source.suffix not in (".yaml", ".yml"):
        return _build(source, "--model", _trained(args))
    words = ["train", "finish", source, "--data", args.data, "--model", _trained(args)]
    return [*words, "--output", "model.safetensors"]


STEPS: dict[str, Callable[[argparse.Namespace], Words | None]] = {
    "demo": lambda args: _look(args.output / f"gallery-{args.seed}-{args.streets}"),
    "doctor": _begin,
    "gallery_build": _built,
    "gallery_add": lambda args: _try_out(args.gallery, args.source),
    "gallery_upgrade": _upgraded,
    "localize": lambda args: _try_out(args.gallery),
    "calibrate": lambda args: _try_out(args.gallery, args.source),
    "match": lambda args: None if args.figure else ["match", args.image_q, args.image_p, "--figure", "match.png"],
    "evaluate_bag": lambda args: _look(args.output),
    "evaluate_compare": lambda args: _look(args.b),
    "view": _seen,
    "world": lambda args: _build(args.output, "--split", "gallery"),
    "import_weights": lambda args: _build(find_photographs(Path()), "--model", args.output),
    "train_preview": lambda args: ["train", "warp", *args.source, "--model", "default", "--output", "runs/warp"],
    "train_start": lambda args: [
        *("train", "distill", args.recipe, "--data", args.data, "--init", args.output, "--output", "runs/distill")
    ],
    "train_distill": _distilled,
    "train_retrieval": lambda args: [
        *("train", "warp", *args.source, "--model", _trained(args), "--output", "runs/warp"),
        *(("--hold-out", *map(str, held)) if (held := getattr(args, "hold_out", None)) else ()),
    ],
    "train_warp": lambda args: _build(args.source[0], "--model", _trained(args)),
    "train_finish": lambda args: _build(find_photographs(Path()), "--model", args.output),
}
"""Verb -> what goes on from it. What is absent ends with its own result (play, export, benchmark, the studies); an
action on a gallery, with a look at it."""
