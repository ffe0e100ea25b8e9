"""Localise a recorded drive, or read the fixes of a live run, and judge them against the truth.

DRIVE is a ROS bag (ROS 2 folder, .mcap or .db3, ROS 1 .bag) with camera images, or any source of geotagged images
(folder, CSV) whose own positions are then the truth. Written to OUTPUT: report.html (opens offline),
results.json, images.csv, run.json (configuration, commit, seed), the fixes as a bag (fixes/), GeoJSON and GPX, and
TUM trajectories of truth and estimate.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geowarp_ros.cli.options import SHORTCUTS, add_camera, add_settings, session_config, settings
from geowarp_ros.cli.parser import GALLERY, NEW_FOLDER, Existing
from geowarp_ros.cli.verbs import require

if TYPE_CHECKING:
    from geowarp_ros.config import SessionConfig
    from geowarp_ros.evaluation.drive import Drive
    from geowarp_ros.evaluation.run import Run
    from geowarp_ros.localizer import Localizer

BAG = Existing("a ROS bag")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "drive",
        type=Existing("a ROS bag, or a folder or CSV of geotagged images"),
        metavar="DRIVE",
        help="ROS bag, or a folder or CSV of geotagged images",
    )
    parser.add_argument(
        "--gallery", type=GALLERY, help="folder made by 'geowarp gallery build'; not needed with --fixes"
    )
    parser.add_argument(
        "--output", type=NEW_FOLDER, required=True, help="folder for the report and everything beside it"
    )
    parser.add_argument("--image-topic", default="", help="image topic; not needed if the bag has a single one")
    add_camera(parser)

    truth = parser.add_argument_group("truth")
    truth.add_argument(
        "--truth-topic",
        default="",
        help="topic of true positions: NavSatFix, Odometry, PoseStamped or PoseWithCovarianceStamped",
    )
    truth.add_argument("--truth-bag", type=BAG, help="bag with the truth, if it is another one")
    truth.add_argument(
        "--truth-offset", type=float, default=0.0, metavar="S", help="offset added to the stamps of the truth (s)"
    )
    truth.add_argument(
        "--truth-datum",
        type=float,
        nargs=2,
        metavar=("LAT", "LON"),
        help="origin of a truth in a local ENU frame (deg)",
    )
    truth.add_argument(
        "--max-gap",
        type=float,
        default=1.0,
        metavar="S",
        help="maximum time from an image to a true position (s); images beyond it are not judged",
    )
    truth.add_argument("--accept-null-island", action="store_true", help="believe fixes at exactly 0°, 0°")
    truth.add_argument("--split", help="split of a folder or CSV")
    truth.add_argument("--utm-zone", metavar="32N", help="UTM zone and hemisphere of file names that give none")

    recorded = parser.add_argument_group("fixes of a live run")
    recorded.add_argument(
        "--fixes", type=BAG, metavar="BAG", help="bag with the fixes to judge, instead of localising"
    )
    recorded.add_argument("--fix-topic", default="/geowarp_localizer/fix", help="topic of the fixes")

    add_settings(parser, *SHORTCUTS)
    motion = parser.add_argument_group("what the node receives besides images, from the bag of the drive")
    motion.add_argument(
        "--prior-topic", default="", help="topic of the prior, NavSatFix; requires prior.source=fix"
    )
    motion.add_argument(
        "--odometry-topic",
        default="",
        help="topic of the odometry, Odometry: what contradicts it is held back",
    )
    motion.add_argument("--imu-topic", default="", help="topic of the IMU, Imu; requires gravity=imu")

    counts = parser.add_argument_group("criteria")
    counts.add_argument(
        "--correct-within", type=float, default=25.0, metavar="M", help="maximum error of a right fix (m)"
    )
    counts.add_argument(
        "--thresholds",
        type=float,
        nargs="+",
        default=[2, 5, 10, 25, 50],
        metavar="M",
        help="distances of recall (m)",
    )
    counts.add_argument("--every", type=int, default=1, metavar="N", help="use every N-th image")
    counts.add_argument("--limit", type=int, default=0, metavar="N", help="maximum number of images; 0: all")


def run(args: argparse.Namespace) -> int:
    """Localise or read the fixes, judge, print the table and write everything."""
    from geowarp_ros.errors import ConfigError, SourceError
    from geowarp_ros.evaluation.judging import figures
    from geowarp_ros.evaluation.words import conclusion, sentence, summary_rows

    _check(args)
    given = settings(args)
    config = session_config(given)
    if not args.fixes:
        _check_motion(args, config)
    elif given:
        raise ConfigError(f"{', '.join(given)}: --fixes judges what was localised already, without settings")
    require("plotly")
    from geowarp_ros.localizer import Localizer

    drive = read_drive(args).thinned(args.every, args.limit)
    if not drive.images:
        raise SourceError(
            f"{args.drive}: no image is left to evaluate (--every {args.every}, --limit {args.limit})"
        )
    localizer = Localizer.open(args.gallery, config) if args.gallery else None
    result = _judge(args, drive, localizer, config)
    found = figures(result)
    print(result.title)
    for name, value in summary_rows(found):
        print(f"  {name:<40}{value}")
    for note in result.notes:
        print(f"  note: {note}")
    print(sentence(conclusion(found)))
    _write(args.output, result, found, localizer)
    print(f"report: {args.output / 'report.html'}")
    return 0


def read_drive(args: argparse.Namespace) -> Drive:
    """Read DRIVE, whatever it is."""
    from geowarp_ros.evaluation.bags import TruthOptions, read_drive
    from geowarp_ros.evaluation.drive import drive_from_source
    from geowarp_ros.readers import read_source
    from geowarp_ros.readers.bag_files import is_bag

    if not is_bag(args.drive):
        source = read_source(
            args.drive,
            split=args.split,
            utm_zone=args.utm_zone,
            camera=args.camera,
            accept_null_island=args.accept_null_island,
        )
        return drive_from_source(source)
    truth = TruthOptions(
        topic=args.truth_topic,
        bag=args.truth_bag,
        offset_s=args.truth_offset,
        datum=tuple(args.truth_datum) if args.truth_datum else None,
        max_gap_s=args.max_gap,
        accept_null_island=args.accept_null_island,
    )
    return read_drive(
        args.drive, args.image_topic, truth, args.prior_topic, args.odometry_topic, args.camera, args.imu_topic
    )


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


def _check_motion(args: argparse.Namespace, config: SessionConfig) -> None:
    """Refuse settings that this drive cannot honour, and topics that they do not use."""
    from geowarp_ros.errors import ConfigError
    from geowarp_ros.readers.bag_files import is_bag

    topics = {
        "--prior-topic": args.prior_topic,
        "--odometry-topic": args.odometry_topic,
        "--imu-topic": args.imu_topic,
    }
    for option, topic in topics.items():
        if topic and not is_bag(args.drive):
            raise ConfigError(f"{option} {topic}: {args.drive} is no bag and has no topics")
    if config.camera_offset.from_tf:
        raise ConfigError("camera_offset.from_tf = true: no tf is read here; give the offset itself")
    if (config.gravity == "imu") != bool(args.imu_topic):
        raise ConfigError("gravity = 'imu' and --imu-topic, the topic of Imu in the bag: expected both or neither")
    source = config.prior.source
    if source == "fix" and not args.prior_topic:
        raise ConfigError("prior.source = 'fix': needs --prior-topic with the prior's NavSatFix in the bag")
    if args.prior_topic and source != "fix":
        raise ConfigError(
            f"--prior-topic {args.prior_topic}: prior.source = {source!r} does not use it; --set prior.source=fix"
        )


def _judge(args: argparse.Namespace, drive: Drive, localizer: Localizer | None, config: SessionConfig) -> Run:
    from dataclasses import replace

    from geowarp_ros.evaluation.bags import read_fixes
    from geowarp_ros.evaluation.run import Criteria, frame_of, join_recorded, run_drive
    from geowarp_ros.progress import bar

    criteria = Criteria(args.correct_within, tuple(sorted(set(args.thresholds))))
    if args.fixes:
        recorded, notes = read_fixes(args.fixes, args.fix_topic)
        frame = localizer.gallery.frame if localizer else frame_of(drive)
        result = join_recorded(drive, recorded, frame, criteria, bar)
        result = replace(result, notes=(*result.notes, *notes))
    elif localizer:
        result = run_drive(localizer, config, drive, criteria, bar)
    return replace(result, settings=_settings(args, result.settings))


def _settings(args: argparse.Namespace, localizer: dict[str, Any]) -> dict[str, Any]:
    """What it takes to repeat the run; nothing in it is random, the seed says so."""
    from datetime import datetime, timezone

    from geowarp_ros import __version__
    from geowarp_ros.provenance import commit

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
    from dataclasses import replace

    from geowarp_ros.evaluation import exports
    from geowarp_ros.evaluation.report import write_report

    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps({"title": result.title, **found}, indent=1) + "\n")
    (output / "run.json").write_text(json.dumps(result.settings, indent=1) + "\n")
    exports.write_csv(result, output / "images.csv")
    in_map = replace(result, frame=localizer.gallery.datum) if localizer else result  # as the node's poses are
    exports.write_bag(in_map, output / "fixes")
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
