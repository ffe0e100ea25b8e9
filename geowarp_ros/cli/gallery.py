"""Build and keep a gallery of geotagged images.

A source is a folder of images named @utm_east@utm_north@...@.jpg or with GPS in their EXIF, a CSV (filename,
latitude, longitude and, if known, altitude, heading, split; or a folder with positions.csv), a ROS bag with
camera images and NavSatFix, or a video with its GPX track. A stopped build goes on when it is started again.
torchrun builds with several processes, which may run on several machines that share the gallery's folder.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geowarp_ros.cli.alignment import (
    add_align_options,
    align_and_report,
    align_if_possible,
    align_options,
    alignment_summary,
    camera_summary,
    describe_alignment,
    estimated_cameras,
    obstacle,
    unaligned,
)
from geowarp_ros.cli.options import CAMERA, add_settings, localizer_config, settings
from geowarp_ros.cli.parser import GALLERY, IMAGES, MODEL, NEW_FILE, NEW_FOLDER, OWN_MODEL, WEIGHTS
from geowarp_ros.cli.selfcalibration import (
    add_never_outside,
    add_no_calibrate,
    calibrate_as_built,
    calibrate_by_itself,
    calibration_summary,
    describe_calibration,
)
from geowarp_ros.cli.sources import add_reading, count, reading
from geowarp_ros.cli.verbs import require
from geowarp_ros.files import quoted

if TYPE_CHECKING:
    from geowarp_ros.gallery.index.indexing import IndexOptions
    from geowarp_ros.gallery.making.build import BuildReport
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.keypoints.detector import KeypointConfig
    from geowarp_ros.model.describer import Describer
    from geowarp_ros.readers import Source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    gallery, source = argparse.ArgumentParser(add_help=False), argparse.ArgumentParser(add_help=False)
    gallery.add_argument("gallery", type=GALLERY, metavar="GALLERY", help="folder of the gallery")
    _add_source_options(source)

    def action(name: str, act: Any, line: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=line, description=line, parents=parents, allow_abbrev=False)
        added.set_defaults(act=act)
        return added

    build = action("build", _build, "describe the images of a source and store them as a new gallery", source)
    build.add_argument("--model", type=MODEL, default="default", help="model file (default: the model that ships)")
    build.add_argument(
        "--output", type=NEW_FOLDER, required=True, metavar="GALLERY", help="folder of the new gallery"
    )
    build.add_argument("--replace", action="store_true", help="replace the gallery in that folder, once complete")
    build.add_argument(
        "--local-features",
        choices=("half", "int8", "pq"),
        default="half",
        help="storage of local features: half precision, or 2 or 16 times smaller (default: half)",
    )
    build.add_argument(
        "--no-keypoints",
        action="store_true",
        help="store no keypoints: smaller, without poses; the calibration that ships does not apply then",
    )
    _add_keypoint_options(build)
    _add_index_options(build, "--index")
    _add_no_align(build)
    add_align_options(build, "position-std", "heading-std", "free-tilt")
    either = build.add_mutually_exclusive_group()
    add_no_calibrate(either)
    add_never_outside(either)

    add = action("add", _add, "add the images of a source to a gallery", gallery, source)
    add.add_argument(
        "--model",
        type=OWN_MODEL,
        default="gallery",
        help="model file (default: the gallery's own)",
    )
    add.add_argument("--prefix", default="", help="put before each name, for sources that use the same names")
    _add_keypoint_options(add)
    _add_no_align(add)
    add_no_calibrate(add)

    remove = action("remove", _remove, "remove images from a gallery", gallery)
    remove.add_argument("names", nargs="+", metavar="NAME", help="name as shown by 'geowarp localize'")

    datum = action("datum", _datum, "show or move the origin of the map frame", gallery)
    datum.add_argument(
        "to", nargs="*", type=float, metavar="LATITUDE LONGITUDE [ALTITUDE]",
        help="put it there (deg, deg, m above the ellipsoid; without an altitude the old one stays)",
    )  # fmt: skip
    datum.add_argument("--centre", action="store_true", help="put it at the middle of the gallery's extent")

    _add_index_options(
        action("index", _index, "make the index of a gallery again, with later images", gallery), "--kind"
    )

    align = action(
        "align",
        _align,
        "find where photographs were taken and looked, from what they see and their tags",
        gallery,
    )
    add_align_options(align)
    align.add_argument(
        "--anew",
        action="store_true",
        help="align all photographs, not only those added since, what they touch, and what lost photographs",
    )
    align.add_argument(
        "--picture",
        type=NEW_FILE,
        metavar="FILE",
        help="PNG of the map (default: beside what is stored)",
    )

    calibrate = action(
        "calibrate",
        _calibrate,
        "count the photographs that look like another place, and demand less for a robot that stays inside",
        gallery,
    )
    calibrate.add_argument(
        "--correct-within",
        type=float,
        metavar="M",
        help="error limit of a right answer (m); what lies within twice this is one place (default: 25)",
    )
    add_never_outside(calibrate)
    own = ("model", "keypoint_weights", "matcher_weights", "rerank", "candidates", "device", "runtime", "threads")
    add_settings(calibrate, *own)

    info = action("info", _info, "show the content of a gallery", gallery)
    info.add_argument("--json", action="store_true", help="print one JSON object")

    places = action("list", _list, "show the places of a gallery, one a line", gallery)
    places.add_argument("--json", action="store_true", help="print one JSON object a line")

    export = action("export", _export, "write the places of a gallery as a table, for QGIS and others", gallery)
    export.add_argument(
        "file", type=NEW_FILE, metavar="FILE", help="table to write: .csv, .geojson, or .parquet (needs the extra)"
    )

    upgrade = action(
        "upgrade",
        _upgrade,
        "make the keypoints and cameras that a gallery lacks, or describe it anew with another model",
        gallery,
    )
    upgrade.add_argument(
        "--model",
        type=MODEL,
        metavar="FILE",
        help="describe its photographs anew with this model; default: the one that ships (without: its own stays)",
    )
    _add_describing_options(upgrade)
    upgrade.add_argument(
        "--camera",
        type=CAMERA,
        metavar="FILE",
        help="ROS calibration file of all its images (default: camera.yaml or EXIF of images that are referenced)",
    )

    _add_keypoint_options(upgrade)

    action("verify", _verify, "compare every file with its checksum, and decode every image", gallery)


def run(args: argparse.Namespace) -> int:
    """Run one action; returns the exit status."""
    return int(args.act(args))


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=IMAGES, metavar="SOURCE", help="folder, CSV, ROS bag, or video")
    parser.add_argument("--split", help="split of a CSV or folder tree to read, such as gallery or test/gallery")
    add_reading(parser)
    _add_describing_options(parser)
    parser.add_argument(
        "--reference-images", action="store_true", help="use the source's image files instead of storing copies"
    )


def _add_describing_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA if available (default: auto)"
    )
    parser.add_argument(
        "--batch-size",
        type=count,
        default=16,
        metavar="N",
        help="images described at once (default: %(default)s)",
    )


def _add_keypoint_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keypoints",
        choices=("sift", "xfeat", "aliked", "disk"),
        help="kind of keypoints; all but sift need weights (default: the gallery's; of a new one sift)",
    )
    parser.add_argument(
        "--keypoint-weights",
        type=WEIGHTS,
        metavar="FILE",
        help="weights of their network (default: those that 'geowarp models get' stored under the kind's name)",
    )


def _keypoints(args: argparse.Namespace, stored: KeypointConfig | None = None) -> KeypointConfig:
    """Return the keypoints asked for, or the gallery's, with their network's weights loaded.

    Raises:
        ConfigError: Weights are given for SIFT.
        ModelError: There are no weights, or they are another network's.
    """
    from geowarp_ros.errors import ConfigError
    from geowarp_ros.gallery.making.build import DEFAULT_KEYPOINTS

    kind = args.keypoints or (stored.kind if stored else "sift")
    if kind == "sift":
        if args.keypoint_weights:
            raise ConfigError(f"keypoints sift: take no {args.keypoint_weights}")
        return DEFAULT_KEYPOINTS
    from geowarp_ros.model.describer import choose_device
    from geowarp_ros.model.learned import keypoints_of

    return keypoints_of(kind, args.keypoint_weights or "", choose_device(args.device))


def _add_no_align(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-align", action="store_true", help="do not align the photographs, or not the new ones"
    )


def _add_index_options(parser: argparse.ArgumentParser, kind: str) -> None:
    parser.add_argument(
        kind,
        dest="kind",
        choices=("auto", "exact", "ivf-sq", "ivf-pq", "hnsw"),
        default="auto",
        help="kind of search; auto: exact up to 200 MB of descriptors, else ivf-sq (default: auto)",
    )
    parser.add_argument(
        "--on-disk",
        action=argparse.BooleanOptionalAction,
        help="leave inverted lists on the disk (default: above 20 million images)",
    )


def _build(args: argparse.Namespace) -> int:
    from geowarp_ros.gallery.making.build import build_gallery, check_output
    from geowarp_ros.gallery.making.shards import Shard
    from geowarp_ros.progress import bar, silent

    check_output(args.output, replace_existing=args.replace)
    shard = Shard.of_environment()
    how = align_options(args)
    keypoints = None if args.no_keypoints else _keypoints(args)
    source = _read_source(args)
    describer = _load_describer(args)
    report = build_gallery(
        source,
        describer,
        args.output,
        copy_images=not args.reference_images,
        batch_size=args.batch_size,
        local_features=args.local_features,
        keypoints=keypoints,
        index=_index_options(args),
        replace_existing=args.replace,
        shard=shard,
        options=_options(args),
        progress=silent if shard.index else bar,
    )
    if report.missing:
        _keep_left_out(report, source, f"-{shard.index}", anew=True)
        print(f"{args.output}: part {shard} is there, {report.added} images; {report.missing} are still missing")
        return 0
    _print_report(report, source, "" if shard.count == 1 else f"-{shard.index}", anew=True)
    _print_centre(source)
    if shard.count > 1:  # several may be the last, and the others may not have let go of the gallery yet
        print(f"  not aligned, for several processes built it: 'geowarp gallery align {quoted(args.output)}' does")
        print(f"  nor calibrated: 'geowarp gallery calibrate {quoted(args.output)}' does")
    elif not args.no_align:
        align_if_possible(args.output, how)
    if shard.count == 1 and not args.no_calibrate:
        calibrate_as_built(args.output, args, describer, store=args.never_outside)
    return 0


def _add(args: argparse.Namespace) -> int:
    from geowarp_ros.config import parse_config
    from geowarp_ros.gallery.alignment.options import AlignOptions
    from geowarp_ros.gallery.making.build import add_to_gallery
    from geowarp_ros.gallery.manifest import read_manifest
    from geowarp_ros.progress import bar

    gallery = unaligned(args.gallery)
    keypoints = _keypoints(args, gallery.keypoint_config)
    gallery.check_keypoints(keypoints.kind, keypoints.weights)
    source = _read_source(args)
    describer = _load_describer(args)
    report = add_to_gallery(
        source,
        describer,
        args.gallery,
        prefix=args.prefix,
        copy_images=not args.reference_images,
        batch_size=args.batch_size,
        options=_options(args),
        progress=bar,
    )
    _print_report(report, source)
    _print_centre(source)
    before = read_manifest(args.gallery).alignment
    if before is not None and not args.no_align:
        align_if_possible(args.gallery, parse_config(AlignOptions, before.options))
    if report.added:
        _calibrate_again(args, describer)
    return 0


def _calibrate_again(args: argparse.Namespace, describer: Describer) -> None:
    """Calibrate anew a gallery that its own photographs calibrated: those added may look like its places."""
    before = calibration_summary(args.gallery)
    if before is None or before["by"] != "own photographs":
        return
    if args.no_calibrate:
        print(f"  its calibration is not used: {before['problem']}")
    else:
        calibrate_as_built(args.gallery, args, describer, store=True)


def _calibrate(args: argparse.Namespace) -> int:
    config = localizer_config(settings(args), "gallery calibrate")
    found = calibrate_by_itself(args.gallery, config, within_m=args.correct_within, store=args.never_outside)
    return 0 if found else 1


def _align(args: argparse.Namespace) -> int:
    from geowarp_ros.errors import GalleryError

    how = align_options(args)
    if why := obstacle(unaligned(args.gallery)):
        raise GalleryError(f"{args.gallery}: cannot be aligned: {why}")
    require("poselib")
    align_and_report(args.gallery, how, args.picture, anew=args.anew)
    return 0


def _remove(args: argparse.Namespace) -> int:
    from geowarp_ros.gallery.making.build import remove_from_gallery
    from geowarp_ros.gallery.manifest import read_manifest

    left = remove_from_gallery(args.gallery, args.names)
    print(f"{args.gallery}: {len(set(args.names))} removed, {left} images left")
    if read_manifest(args.gallery).alignment is not None:
        print(
            f"  the others keep their poses; 'geowarp gallery align {quoted(args.gallery)}' adjusts their groups"
        )
    if (calibration := calibration_summary(args.gallery)) and calibration["problem"]:
        print(f"  its calibration is not used: {calibration['problem']}")
    return 0


def _datum(args: argparse.Namespace) -> int:
    from geowarp_ros.errors import GalleryError
    from geowarp_ros.gallery.making.build import set_datum
    from geowarp_ros.gallery.store import Gallery

    gallery, to = Gallery.open(args.gallery), args.to
    if len(to) not in (0, 2, 3) or (to and args.centre):
        raise GalleryError("datum: expected LATITUDE LONGITUDE [ALTITUDE], or --centre, or nothing")
    if not to and not args.centre:
        print(f"{args.gallery}: datum {_describe_datum(_summary(gallery))}")
        return 0
    old = gallery.datum
    latitude, longitude, altitude = set_datum(args.gallery, (*to, old.datum_altitude_m)[:3] if to else None).datum
    east, north, up = old.to_enu(latitude, longitude, altitude)
    print(
        f"{args.gallery}: datum {latitude:.7f}, {longitude:.7f}, {altitude:.1f} m: moved by {east:.1f} m east,"
        f" {north:.1f} m north, {up:.1f} m up; a running node takes it with ~/reload_gallery"
    )
    return 0


def _index(args: argparse.Namespace) -> int:
    from geowarp_ros.gallery.making.build import index_gallery
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.progress import bar

    index_gallery(args.gallery, _index_options(args), bar)
    print(f"{args.gallery}: {_describe_index(_index_summary(Gallery.open(args.gallery)))}")
    return 0


def _index_options(args: argparse.Namespace) -> IndexOptions:
    from geowarp_ros.gallery.index.indexing import IndexOptions

    return IndexOptions(kind=None if args.kind == "auto" else args.kind, on_disk=args.on_disk)


def _info(args: argparse.Namespace) -> int:
    from geowarp_ros.gallery.store import Gallery

    summary = _summary(Gallery.open(args.gallery))
    if args.json:
        print(json.dumps(summary))
    else:
        _print_summary(summary)
    return 0


def _list(args: argparse.Namespace) -> int:
    from geowarp_ros.cli.gallery_table import place_rows
    from geowarp_ros.gallery.store import Gallery

    for row in place_rows(Gallery.open(args.gallery)):
        known = {"altitude": "{:.1f} m", "heading": "{:.1f}°", "split": "{}"}
        more = [f"{key} {form.format(row[key])}" for key, form in known.items() if row[key] is not None]
        where = f"{row['latitude']:.7f}, {row['longitude']:.7f}"
        print(json.dumps(row) if args.json else f"{row['name']}: {', '.join([where, *more])}")
    return 0


def _export(args: argparse.Namespace) -> int:
    from geowarp_ros.cli.gallery_table import export
    from geowarp_ros.gallery.store import Gallery

    print(f"{args.file}: {export(Gallery.open(args.gallery), args.file):,} places")
    return 0


def _upgrade(args: argparse.Namespace) -> int:
    from geowarp_ros.gallery.making.build import DEFAULT_KEYPOINTS
    from geowarp_ros.gallery.making.upgrade import upgrade_gallery
    from geowarp_ros.gallery.manifest import CALIBRATION, read_manifest
    from geowarp_ros.progress import bar
    from geowarp_ros.readers.camera_files import read_camera

    camera = read_camera(args.camera) if args.camera else None
    old = read_manifest(args.gallery).model
    describer = _load_describer(args) if args.model else None
    keypoints = DEFAULT_KEYPOINTS
    if args.keypoints or args.keypoint_weights:
        gallery = unaligned(args.gallery)
        keypoints = _keypoints(args, gallery.keypoint_config)
        gallery.check_keypoints(keypoints.kind, keypoints.weights)
    report = upgrade_gallery(
        args.gallery,
        keypoints,
        camera=camera,
        progress=bar,
        describer=describer,
        batch_size=args.batch_size,
        options=_options(args),
    )
    made = []
    if report.keypoints or report.cameras:
        made.append(f"keypoints of {report.keypoints} and cameras of {report.cameras} photographs")
    if describer and report.described:
        new = describer.fingerprint
        made.append(f"{report.described} photographs described by model {new} instead of {old.fingerprint}")
    elif describer and report.adopted:
        new = describer.fingerprint
        made.append(f"model {new}, which describes as {old.fingerprint} and has a warp: none described anew")
    elif (now := read_manifest(args.gallery).model.file) != old.file:
        made.append(f"its model {old.fingerprint} noted as {now}")
    print(f"{args.gallery}: {', '.join(made) + f' in {report.seconds:.1f} s' if made else 'nothing to add'}")
    if (report.described or report.adopted) and (args.gallery / CALIBRATION).exists():
        print(
            f"  its {CALIBRATION} was measured with the old model and is not used: run 'geowarp calibrate' again"
        )
    if report.keypoints:  # its own calibration as well as the one that ships
        print("  calibrations measured without keypoints no longer apply: run 'geowarp calibrate' again")
    if report.keypoints or report.cameras:
        print(
            f"  'geowarp gallery align {quoted(args.gallery)}' finds where its photographs were taken and looked"
        )
    return 0


def _verify(args: argparse.Namespace) -> int:
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.progress import bar

    gallery = Gallery.open(args.gallery)
    problems = gallery.verify(bar)
    for problem in problems:
        print(problem, file=sys.stderr)
    verdict = f"{len(problems)} problems" if problems else "all as written"
    print(f"{args.gallery}: {len(gallery)} images, {verdict}")
    return 1 if problems else 0


def _read_source(args: argparse.Namespace) -> Source:
    from geowarp_ros.readers import read_source

    source = read_source(args.source, **reading(args))
    print(f"{source.description}: {len(source.images)} images")
    if args.split is None and len(source.splits) > 1:
        there = ", ".join(f"{name or 'none'} ({count})" for name, count in source.splits.items())
        print(f"  of splits {there}; --split takes only one")
    return source


def _load_describer(args: argparse.Namespace) -> Describer:
    import torch

    from geowarp_ros.gallery.store import own_model
    from geowarp_ros.model.checkpoints import load_model
    from geowarp_ros.model.describer import Describer, choose_device
    from geowarp_ros.model.installed import OWN

    device = choose_device(args.device)
    if device.type == "cuda" and (local := os.environ.get("LOCAL_RANK")):  # torchrun: a GPU for each process
        device = torch.device("cuda", int(local) % torch.cuda.device_count())
    model = own_model(args.gallery) if args.model == OWN else args.model
    return Describer(load_model(model, device), device)


def _options(args: argparse.Namespace) -> Mapping[str, str]:
    """Return the options that the gallery stores for people."""
    names = (
        "split",
        "utm_zone",
        "image_topic",
        "fix_topic",
        "max_gap",
        "min_spacing",
        "fix_offset",
        "track",
        "track_offset",
        "every_picture",
        "panorama",
        "camera",
        "model",
        "device",
    )
    return {name: str(value) for name in names if (value := getattr(args, name, None)) not in (None, "")}


def _keep_left_out(report: BuildReport, source: Source, part: str = "", *, anew: bool = False) -> Path:
    """Write the photographs that were left out beside the gallery; without ``anew`` add them to earlier ones."""
    from geowarp_ros.errors import GalleryError
    from geowarp_ros.files import write_whole

    path = report.gallery / f"left_out{part}.csv"
    if anew:
        path.unlink(missing_ok=True)
    if report.skipped:
        table = io.StringIO(newline="")
        rows = csv.writer(table, lineterminator="\n")
        if not path.exists():
            rows.writerow(["name", "reason", "source"])
        rows.writerows([left.name, left.reason, source.description] for left in report.skipped)
        before = path.read_bytes() if path.exists() else b""
        write_whole(path, before + table.getvalue().encode(), GalleryError)
    return path


def _print_report(report: BuildReport, source: Source, part: str = "", *, anew: bool = False) -> None:
    from geowarp_ros.readers import count_reasons

    described = report.added - report.resumed
    rate = f", {described / report.seconds:.1f} images/s" if described and report.seconds > 0.1 else ""
    resumed = f" ({report.resumed} of them by an earlier run)" if report.resumed else ""
    print(
        f"{report.gallery}: {report.images} images, {report.added} added{resumed} in {report.seconds:.1f} s{rate}"
    )
    left_out = _keep_left_out(report, source, part, anew=anew)
    if report.skipped:
        print(f"  {len(report.skipped)} left out: {count_reasons(report.skipped)}; named in {left_out}")


def _print_centre(source: Source) -> None:
    """Show on a map where the images are: a wrong zone or hemisphere is seen at once."""
    from geowarp_ros.readers import centre_of

    if source.local:
        print("  positions are metres of the source's own frame, nowhere on the earth")
        return
    latitude, longitude = (round(degrees, 5) for degrees in centre_of(source.images))
    there = f"?mlat={latitude}&mlon={longitude}#map=15/{latitude}/{longitude}"
    print(f"  centre {latitude:.5f}, {longitude:.5f}: https://www.openstreetmap.org/{there}")


def _summary(gallery: Gallery) -> dict[str, Any]:
    """Return the content of a gallery in plain values."""
    manifest = gallery.manifest
    size = sum(path.stat().st_size for path in gallery.path.rglob("*") if path.is_file())
    altitudes = [float(altitude) for altitude in gallery.geodetic[:, 2] if math.isfinite(altitude)]
    enu = gallery.positions_enu
    extent = (enu.max(axis=0) - enu.min(axis=0)) if len(enu) else (0.0, 0.0)
    model = manifest.model
    return {
        "gallery": str(gallery.path),
        "images": len(gallery),
        "removed": sum(len(segment.removed) for segment in manifest.segments),
        "left_out": _left_out(gallery.path),
        "splits": dict(sorted(Counter(split for split in gallery.splits if split).items())),
        "model": {
            "fingerprint": model.fingerprint,
            "file": model.file,
            **model.config.model_dump(),
            "descriptor_dim": model.descriptor_dim,
        },
        "size_bytes": size,
        "bytes_per_image": round(size / len(gallery)) if len(gallery) else 0,
        "images_bytes": sum(segment.image_bytes for segment in manifest.segments if segment.copied),
        "centre": [gallery.frame.datum_latitude_deg, gallery.frame.datum_longitude_deg] if len(gallery) else None,
        "datum": manifest.datum,
        "extent_m": [round(float(extent[0]), 1), round(float(extent[1]), 1)],
        "altitude_m": [min(altitudes), max(altitudes)] if altitudes else None,
        "index": _index_summary(gallery),
        "local_features": sorted({segment.local_features for segment in manifest.segments}),
        "keypoints": _keypoint_summary(gallery),
        "cameras": {**camera_summary(gallery), "estimated": estimated_cameras(gallery)},
        "alignment": alignment_summary(gallery),
        "calibration": calibration_summary(gallery.path),
        **manifest.model_dump(include={"format_version", "created", "modified", "tool"}),
        "segments": [
            {
                **segment.model_dump(include={"name", "images", "source", "created", "options"}),
                "removed": len(segment.removed),
                "images_stored": segment.copied,
            }
            for segment in manifest.segments
        ],
    }


def _left_out(gallery: Path) -> dict[str, int]:
    """Return how many photographs were left out for each reason, the commonest first."""
    found: set[tuple[str, str]] = set()  # one that is absent from a source of two additions is one
    for path in gallery.glob("left_out*.csv"):
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            found |= {(row.get("name") or "", row.get("reason") or "unknown") for row in csv.DictReader(file)}
    return dict(Counter(reason for _, reason in sorted(found)).most_common())


def _keypoint_summary(gallery: Gallery) -> dict[str, Any] | None:
    from geowarp_ros.gallery.photographs import KEYPOINT_FILES

    if gallery.keypoint_config is None:
        return None
    files = [segment.info.files[name].size for segment in gallery.segments for name in KEYPOINT_FILES]
    stored = sum(int(segment.keypoints.starts[-1]) for segment in gallery.segments if segment.keypoints)
    return {**gallery.keypoint_config.model_dump(), "stored": stored, "bytes": sum(files)}


def _index_summary(gallery: Gallery) -> dict[str, Any]:
    index = gallery.manifest.index
    whitened = {"whitened": 0}  # kept for readers of the JSON
    if index is None:
        return {"kind": "exact", **whitened, "images": len(gallery.stored), "bytes": 0, "recall": 1.0}
    return {
        **index.model_dump(include={"kind", "on_disk", "effort", "shortlist", "recall", "created"}),
        **whitened,
        "images": index.rows,
        "later": len(gallery.stored) - index.rows,
        "bytes": sum(file.size for file in index.files.values()),
    }


def _describe_datum(summary: Mapping[str, Any]) -> str:
    if summary["datum"] is None:
        gallery = quoted(summary["gallery"])
        return f"the centre, wherever it moves; 'geowarp gallery datum {gallery} --centre' stores it"
    return "{:.7f}, {:.7f}, {:.1f} m".format(*summary["datum"])


def _describe_index(index: Mapping[str, Any]) -> str:
    if index["kind"] == "exact":
        return "exact search"
    later = f", {index['later']:,} added later searched exactly" if index["later"] else ""
    return (
        f"{index['kind']}{' on the disk' if index['on_disk'] else ''} of {index['images']:,} images,"
        f" {_size(index['bytes'])}, finds {100 * index['recall']:.1f} % of the 20 nearest{later}"
    )


def _describe_keypoints(summary: Mapping[str, Any]) -> str:
    stored = summary["keypoints"]
    if stored is None:
        return f"none; 'geowarp gallery upgrade {quoted(summary['gallery'])}' makes them"
    rows = max(summary["images"] + summary["removed"], 1)
    return (
        f"{stored['kind']}, up to {stored['count']:,} at {stored['scale']:g}x the working resolution;"
        f" {stored['stored'] / rows:,.0f} and {_size(stored['bytes'] / rows)} per image"
    )


def _print_summary(summary: Mapping[str, Any]) -> None:
    model, local = summary["model"], summary["local_features"]
    encoder = (model.get("retrieval") or model)["encoder"]  # that of the descriptor
    resolution = f"shorter side {model['resolution']} px" if model["resolution"] else "images as they are"
    lines = {
        "gallery": summary["gallery"],
        "images": f"{summary['images']:,}" + (f" ({summary['removed']:,} removed)" if summary["removed"] else ""),
        "left out": ", ".join(f"{count:,} {reason}" for reason, count in summary["left_out"].items()) or "none",
        "splits": ", ".join(f"{name} {count:,}" for name, count in summary["splits"].items()) or "none",
        "model": f"{encoder} + {model['aggregation']}, {resolution}, {model['fingerprint']}"
        + (f", {model['file']}" if model["file"] else ""),
        "descriptors": f"{model['descriptor_dim']} numbers each, local features {' and '.join(local) or 'none'}",
        "keypoints": _describe_keypoints(summary),
        "cameras": "known of {photographs:,} images, {different:,} different".format(**summary["cameras"])
        + "".join(f"; of others {camera}" for camera in summary["cameras"]["estimated"]),
        "alignment": describe_alignment(summary),
        "calibration": describe_calibration(summary),
        "search": _describe_index(summary["index"]),
        "size": f"{_size(summary['size_bytes'])}, {_size(summary['bytes_per_image'])} per image,"
        f" images {_size(summary['images_bytes'])}",
        "extent": f"{summary['extent_m'][0]:,.1f} m east-west, {summary['extent_m'][1]:,.1f} m north-south",
        "centre": "{:.7f}, {:.7f}".format(*summary["centre"]) if summary["centre"] else "none",
        "datum": _describe_datum(summary),
        "altitude": "{:.1f} to {:.1f} m".format(*summary["altitude_m"]) if summary["altitude_m"] else "unknown",
        "created": f"{summary['created']}, changed {summary['modified']}",
        "format": f"{summary['format_version']}, by {summary['tool']}",
    }
    for name, value in lines.items():
        print(f"{name:<12}{value}")
    for segment in summary["segments"]:
        how = "" if segment["images_stored"] else ", images referenced"
        print(f"segment {segment['name']}{segment['images']:>8,} images from {segment['source']}{how}")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
