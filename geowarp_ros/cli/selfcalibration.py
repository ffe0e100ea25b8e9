"""Asking about a gallery's own photographs on the command line: the last step of a build, and what it says."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geowarp_ros.files import quoted
from geowarp_ros.types import confidence_text

if TYPE_CHECKING:
    from geowarp_ros.config import LocalizerConfig
    from geowarp_ros.model.describer import Describer

NAMED = 3
"""Number of look-alikes that are named."""


def add_no_calibrate(parser: Any) -> None:
    """Add ``--no-calibrate`` to a parser or a group."""
    parser.add_argument(
        "--no-calibrate",
        action="store_true",
        help="do not ask how many of the gallery's own photographs look like another place of it",
    )


def add_never_outside(parser: Any) -> None:
    """Add ``--never-outside`` to a parser or a group."""
    parser.add_argument(
        "--never-outside",
        action="store_true",
        help="the robot never leaves what the gallery shows: store the smaller minimum confidence that is enough",
    )


def calibrate_as_built(path: Path, args: argparse.Namespace, describer: Describer, *, store: bool) -> None:
    """Ask about the photographs of a gallery that was built or extended, with the default settings."""
    from geowarp_ros.config import LocalizerConfig, parse_config

    given = {"model": args.model, "device": args.device, "keypoint_weights": args.keypoint_weights or ""}
    config = parse_config(LocalizerConfig, {name: str(value) for name, value in given.items()})
    calibrate_by_itself(path, config, describer, store=store)


def calibrate_by_itself(
    path: Path,
    config: LocalizerConfig,
    describer: Describer | None = None,
    within_m: float | None = None,
    *,
    store: bool = False,
) -> bool:
    """Ask about a gallery's own photographs and say in words what was found.

    Args:
        path: Folder of the gallery.
        config: Settings to calibrate for.
        describer: The model if it is loaded already.
        within_m: Error limit of a right answer (m); None: the usual.
        store: Store the calibration with the gallery: the robot never leaves what it shows.

    Returns:
        Whether there is a calibration.

    Raises:
        GalleryError: A drive calibrated the gallery, or it cannot be read or written.
    """
    from geowarp_ros.evaluation.selfcalibration import WITHIN_M, self_calibrate
    from geowarp_ros.gallery.manifest import CALIBRATION
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.localizer import of_gallery
    from geowarp_ros.model.describer import open_describer
    from geowarp_ros.progress import bar

    describer = describer or open_describer(of_gallery(config, path))
    gallery = Gallery.open(path, describer.device)
    gallery.check_model(describer.fingerprint, config.model)
    found = self_calibrate(gallery, describer, config, bar, store=store, within_m=within_m or WITHIN_M)
    if found.calibration is None or found.calibration.own is None:
        print(f"  look-alikes not counted: {found.obstacle}")
        return False
    own, limits, wanted = found.calibration.own, found.share, found.calibration.min_confidence
    print(
        f"{path}: {own.alike} of {own.asked} photographs look like another place of this gallery"
        f" (95 %: {100 * limits.low:.1f} to {100 * limits.high:.1f} %)"
    )
    for one in found.look_alikes[:NAMED]:
        said = confidence_text(one.confidence)
        print(f"  {one.name} like {one.like}, {one.apart_m:,.0f} m apart, confidence {said}")
    if own.fixes:
        print(
            f"  {own.fixes} would have been a fix there, were their places not in the gallery: a robot that leaves"
            " what it shows wants a prior (prior.source)"
        )
    if store:
        print(f"  a fix from confidence {wanted:.3f} instead of {own.before:.3f}, for a robot that stays inside")
    elif wanted < own.before and not (path / CALIBRATION).exists():
        print(
            f"  an answer is a fix from confidence {own.before:.3f}; {wanted:.3f} is enough if the robot never"
            f" leaves what the gallery shows: geowarp gallery calibrate {quoted(path)} --never-outside"
        )
    return True


def calibration_summary(path: Path) -> dict[str, Any] | None:
    """Return what calibrates a gallery in plain values; None where nothing of its own does."""
    from geowarp_ros.errors import GalleryError
    from geowarp_ros.gallery.manifest import CALIBRATION

    if not (path / CALIBRATION).exists():
        return None
    from geowarp_ros.integrity.calibration import load_calibration, stale

    try:
        found = load_calibration(path / CALIBRATION)
        problem = stale(found, path) if found else ""
    except GalleryError as error:
        return {"by": "unknown", "problem": str(error)}
    if found is None:
        return None
    by: dict[str, Any] = {"by": "drive", "answers": found.samples}
    if found.own is not None:
        by = {"by": "own photographs", **found.own.model_dump(exclude={"photographs"})}
    mode = found.measured_with.get("rerank.mode", "")
    return {**by, "min_confidence": found.min_confidence, "mode": mode, "problem": problem}


def describe_calibration(summary: Mapping[str, Any]) -> str:
    """Return the calibration of a gallery's plain values as one line."""
    found, gallery = summary["calibration"], summary["gallery"]
    if found is None:
        return f"none of its own; 'geowarp calibrate DRIVE --gallery {quoted(gallery)}' measures one"
    if found["by"] == "unknown":
        return str(found["problem"])
    if found["problem"]:
        return f"by its {found['by']}, not used: {found['problem']}"
    wanted = f"a fix from confidence {found['min_confidence']:.3f}, with rerank.mode {found['mode']}"
    if found["by"] == "drive":
        return f"by a drive, {found['answers']:,} answers; {wanted}"
    return (
        f"by its own photographs, for a robot that stays inside: {found['alike']} of {found['asked']} look like"
        f" another place; {wanted}"
    )
