"""Replay a drive through the localizer, or take the fixes of a live run, and judge them against the truth.

DRIVE is a ROS bag (ROS 2 folder, .mcap or .db3, ROS 1 .bag) with camera images, or any source of geotagged images
(folder, CSV) whose own positions are then the truth. OUTPUT gets report.html (opens offline), results.json,
images.csv, run.json (configuration, commit, seed), the fixes as a bag (fixes/), GeoJSON and GPX, and TUM
trajectories of truth and estimate.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

OPTIONS = (
    ("model", "model"),
    ("device", "device"),
    ("rerank", "rerank", "method"),
    ("candidates", "rerank", "candidates"),
    ("min_confidence", "position", "min_confidence"),
)
"""Option, then the parameter that it sets."""

if TYPE_CHECKING:
    from geowarp_ros.evaluation.drive import Drive
    from geowarp_ros.evaluation.run import Run
    from geowarp_ros.localizer import Localizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "drive", type=Path, metavar="DRIVE", help="ROS bag, or a folder or CSV of geotagged images"
    )
    parser.add_argument(
        "--gallery", type=Path, help="folder made by 'geowarp gallery build'; not needed with --fixes"
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for the report and everything beside it"
    )
    parser.add_argument("--image-topic", default="", help="may be left out where the bag has only one")

    truth = parser.add_argument_group("truth")
    truth.add_argument(
        "--truth-topic", default="", help="NavSatFix, Odometry, PoseStamped or PoseWithCovarianceStamped"
    )
    truth.add_argument("--truth-bag", type=Path, help="another bag that has the truth")
    truth.add_argument(
        "--truth-offset", type=float, default=0.0, metavar="S", help="added to the truth's stamps, s"
    )
    truth.add_argument(
        "--truth-datum", type=float, nargs=2, metavar=("LAT", "LON"), help="origin of a truth in a local ENU frame"
    )
    truth.add_argument(
        "--max-gap",
        type=float,
        default=1.0,
        metavar="S",
        help="images farther from a true position are not judged",
    )
    truth.add_argument("--split", help="of a folder or CSV: only this split")
    truth.add_argument("--utm-zone", default="32N", help="zone of @utm…@ names")

    recorded = parser.add_argument_group("fixes of a live run")
    recorded.add_argument("--fixes", type=Path, metavar="BAG", help="judge these instead of localising")
    recorded.add_argument("--fix-topic", default="/geowarp_localizer/fix")

    localizer = parser.add_argument_group("localizer")
    localizer.add_argument(
        "--params-file",
        type=Path,
        metavar="YAML",
        help="the node's parameter file; the options below go before it",
    )
    for option, meaning in (
        ("--model", "the gallery's model file; left out: the one that ships"),
        ("--rerank", "re-ranking method: none, geowarp, sift, …; left out: geowarp"),
        ("--device", "auto, cpu or cuda; left out: auto"),
    ):
        localizer.add_argument(option, default=argparse.SUPPRESS, help=meaning)
    localizer.add_argument(
        "--candidates", type=int, default=argparse.SUPPRESS, help="how many candidates are re-ranked; left out: 5"
    )
    localizer.add_argument(
        "--min-confidence",
        type=float,
        default=argparse.SUPPRESS,
        help="below it the answer is no fix; left out: the gallery's calibration's",
    )

    counts = parser.add_argument_group("what counts")
    counts.add_argument("--correct-within", type=float, default=25.0, metavar="M", help="beyond it a fix is false")
    counts.add_argument("--thresholds", type=float, nargs="+", default=[2, 5, 10, 25, 50], metavar="M")
    counts.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th image")
    counts.add_argument("--limit", type=int, default=0, metavar="N", help="at most so many images; 0: all")


def run(args: argparse.Namespace) -> int:
    """Localise or read the fixes, judge, print the table and write everything."""
    from geowarp_ros.errors import SourceError
    from geowarp_ros.evaluation.judging import figures
    from geowarp_ros.evaluation.words import summary_rows

    _check(args)
    drive = read_drive(args).thinned(args.every, args.limit)
    if not drive.images:
        raise SourceError(
            f"{args.drive}: no image is left to evaluate (--every {args.every}, --limit {args.limit})"
        )
    localizer = _open_localizer(args) if args.gallery else None
    result = _judge(args, drive, localizer)
    found = figures(result)
    print(result.title)
    for name, value in summary_rows(found):
        print(f"  {name:<40}{value}")
    for note in result.notes:
        print(f"  note: {note}")
    _write(args.output, result, found, localizer)
    print(f"report: {args.output / 'report.html'}")
    return 0


def read_drive(args: argparse.Namespace) -> Drive:
    """Read DRIVE, whatever it is."""
    from geowarp_ros.errors import SourceError
    from geowarp_ros.evaluation.bags import TruthOptions, read_drive
    from geowarp_ros.evaluation.drive import drive_from_source
    from geowarp_ros.readers import read_source
    from geowarp_ros.readers.bag_files import is_bag

    if not args.drive.exists():
        raise SourceError(
            f"{args.drive}: does not exist, expected a ROS bag or a folder or CSV of geotagged images"
        )
    if not is_bag(args.drive):
        return drive_from_source(read_source(args.drive, split=args.split, utm_zone=args.utm_zone))
    truth = TruthOptions(
        topic=args.truth_topic,
        bag=args.truth_bag,
        offset_s=args.truth_offset,
        datum=tuple(args.truth_datum) if args.truth_datum else None,
        max_gap_s=args.max_gap,
    )
    return read_drive(args.drive, args.image_topic, truth)


def _check(args: argparse.Namespace) -> None:
    from geowarp_ros.errors import ConfigError

    if not args.gallery and not args.fixes:
        raise ConfigError("give --gallery to localise in, or --fixes with the fixes of a live run")
    for bag in (args.drive, args.fixes, args.truth_bag):
        if bag and bag.resolve() == (args.output / "fixes").resolve():
            raise ConfigError(f"--output {args.output} would overwrite {bag}: choose another folder")
    for name, least in (("every", 1), ("limit", 0)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name} {getattr(args, name)}: expected at least {least}")
    for metres in (args.correct_within, *args.thresholds):
        if not metres > 0:
            raise ConfigError(f"{metres:g} m as a distance that counts: expected more than 0")


def _open_localizer(args: argparse.Namespace) -> Localizer:
    from geowarp_ros.config import LocalizerConfig, parse_config
    from geowarp_ros.localizer import Localizer

    values = _parameters(args.params_file) if args.params_file else {}
    for option, *path, leaf in OPTIONS:
        if option in args:
            section = values
            for name in path:
                section = section.setdefault(name, {})
            section[leaf] = getattr(args, option)
    return Localizer.open(args.gallery, parse_config(LocalizerConfig, values))


def _parameters(path: Path) -> dict[str, Any]:
    """Read the localizer's parameters out of the node's file; those of its ROS edge are left aside."""
    import yaml

    from geowarp_ros.config import LocalizerConfig, NodeConfig
    from geowarp_ros.errors import ConfigError

    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
        flat = next(iter(read.values()))["ros__parameters"]
        found: dict[str, Any] = {}
        for name, value in flat.items():
            *sections, leaf = name.split(".")
            section = found
            for part in sections:
                section = section.setdefault(part, {})
            section[leaf] = {**section.get(leaf, {}), **value} if isinstance(value, dict) else value
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except (AttributeError, KeyError, StopIteration, TypeError):
        raise ConfigError(f"{path}: is no parameter file, expected NODE: ros__parameters: …") from None
    edge = set(NodeConfig.model_fields) - set(LocalizerConfig.model_fields) | {"use_sim_time", "qos_overrides"}
    return {name: value for name, value in found.items() if name not in edge}


def _judge(args: argparse.Namespace, drive: Drive, localizer: Localizer | None) -> Run:
    from dataclasses import replace

    from geowarp_ros.evaluation.bags import read_fixes
    from geowarp_ros.evaluation.run import Criteria, frame_of, join_recorded, run_drive
    from geowarp_ros.progress import bar, silent

    criteria = Criteria(args.correct_within, tuple(sorted(set(args.thresholds))))
    progress = bar if sys.stderr.isatty() or len(drive.images) > 20 else silent
    if args.fixes:
        recorded, notes = read_fixes(args.fixes, args.fix_topic)
        frame = localizer.gallery.frame if localizer else frame_of(drive)
        result = join_recorded(drive, recorded, frame, criteria, progress)
        result = replace(result, notes=(*result.notes, *notes))
    elif localizer:
        result = run_drive(localizer, drive, criteria, progress)
    return replace(result, settings=_settings(args, result.settings))


def _settings(args: argparse.Namespace, localizer: dict[str, Any]) -> dict[str, Any]:
    """What it takes to repeat the run; nothing in it is random, the seed says so."""
    from datetime import datetime, timezone

    from geowarp_ros import __version__
    from geowarp_ros.lab.training.session import commit

    return {
        "gallery": str(args.gallery) if args.gallery else "",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
        "commit": commit(),
        "seed": 0,
        "options": json.loads(json.dumps(vars(args), default=str)),
        "localizer": localizer,
    }


def _write(output: Path, result: Run, found: dict[str, Any], localizer: Localizer | None) -> None:
    from geowarp_ros.errors import SourceError
    from geowarp_ros.evaluation import exports
    from geowarp_ros.evaluation.report import write_report

    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "results.json").write_text(json.dumps({"title": result.title, **found}, indent=1) + "\n")
        (output / "run.json").write_text(json.dumps(result.settings, indent=1) + "\n")
        exports.write_csv(result, output / "images.csv")
        exports.write_bag(result, output / "fixes")
        exports.write_geojson(result, output / "fixes.geojson")
        exports.write_gpx(result, output / "fixes.gpx")
        exports.write_tum(result, output / "truth.tum", output / "estimate.tum")
        gallery = localizer.gallery if localizer else None
        write_report(
            result,
            found,
            output / "report.html",
            gallery.positions_enu[:, :2] if gallery else None,
            gallery.image if gallery else None,
        )
    except OSError as error:
        raise SourceError(f"{output}: the results cannot be written: {error}") from None
