"""Does the localizer know when it is lost? A recipe of galleries, drives through them, and images taken elsewhere.

Some drives calibrate; the others judge what the calibration promises: false fixes, availability, ellipses, and how
often images taken elsewhere are refused.
"""

from __future__ import annotations

import fnmatch
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field

from geowarp_ros.attitude import enu_from_body_of, heading_std
from geowarp_ros.config import PositionConfig, Section, parse_config
from geowarp_ros.errors import ConfigError, SourceError
from geowarp_ros.evaluation import fixes
from geowarp_ros.evaluation.asking import (
    Question,
    both,
    way,
    without_folder,
    without_itself,
    without_places_within,
)
from geowarp_ros.evaluation.calibration import Collected, collect, plain_questions
from geowarp_ros.evaluation.fixes import Judged, Share
from geowarp_ros.evaluation.sets import Neighbours
from geowarp_ros.gallery.alignment.options import AlignOptions
from geowarp_ros.integrity.calibration import Calibration, Sample, covariance_of, fit_calibration
from geowarp_ros.integrity.trust import POSE_CORRECT_WITHIN_M
from geowarp_ros.lab.benchmark.machine import describe_machine
from geowarp_ros.lab.studies.priors import Within, ask_within, circle_elsewhere, circle_of_prior
from geowarp_ros.lab.studies.tables import Cell, Table
from geowarp_ros.lab.world.tags import Tags, retag
from geowarp_ros.localizer import Localizer
from geowarp_ros.position import around_pose, decide
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import SourceImage, read_source
from geowarp_ros.types import FloatArray

POSED = ("points", "anchors")
"""Methods that estimate a pose."""


class Town(Section):
    """A town of the street world, rendered where it is absent."""

    seed: int = Field(ge=0, description="Seed of the town.")
    streets: int = Field(8, ge=1, description="Number of test streets.")
    query_passes: int = Field(1, ge=1, description="Number of query passes per street, each in its own weather.")


class Images(Section):
    """Geotagged images: a source, or a part of it."""

    path: str = Field(description="Town of the recipe, or source relative to the data folder.")
    split: str = Field("", description="Split of the source; empty: all images.")
    only: tuple[str, ...] = Field((), description="Name patterns of the images to take; empty: all images.")
    leave_out: tuple[str, ...] = Field((), description="Name patterns of images to leave out.")
    every: int = Field(1, ge=1, description="Take every N-th image; 1: all.")
    first: int = Field(0, ge=0, description="Number of the first image taken, from 0.")
    camera: str = Field("", description="Calibration file, relative to the recipe; empty: what the source says.")
    tags: Tags | None = Field(None, description="Errors to give to the tags; null: as they are.")

    @property
    def name(self) -> str:
        """Name of the source."""
        return Path(self.path).name


class Drive(Section):
    """Images of known position, asked about in a gallery as they are and with their place left out."""

    name: str = Field(description="Name in the tables.")
    gallery: Images
    queries: Images
    align: AlignOptions | None = Field(AlignOptions(), description="How the gallery is aligned; null: it is not.")
    correct_within_m: float = Field(
        25.0, gt=0.0, description="Distance from the truth up to which a fix is right (m)."
    )
    truth_std_m: float = Field(
        0.0,
        ge=0.0,
        description="Standard deviation of the queries' own positions per axis (m), for the ellipses; "
        "0: exact, as in rendered towns.",
    )
    without: Literal["place", "folder"] = Field(
        "place",
        description="Places that are left out. place: all within twice correct_within_m; folder: those of the "
        "query's folder.",
    )
    apart: int = Field(
        0, ge=0, description="Leave out the places within this number of a query in its sequence, always; 0: none."
    )
    without_every: int = Field(1, ge=1, description="Ask about every N-th query without its place; 1: about all.")
    prior_std_m: float = Field(
        0.0, ge=0.0, description="Standard deviation of a prior with which queries are asked again (m); 0: none."
    )
    prior_every: int = Field(1, ge=1, description="Ask about every N-th query with a prior; 1: about all.")
    calibrates: bool = Field(False, description="Fit the calibration on this drive; false: judge by it.")
    foreign: tuple[Images, ...] = Field((), description="Images taken elsewhere to ask about in this gallery.")


class IntegrityRecipe(Section):
    """Towns to render, drives to ask about."""

    towns: dict[str, Town] = Field(default_factory=dict, description="Towns by name.")
    drives: tuple[Drive, ...] = Field(
        min_length=2, description="Drives, at least one that calibrates and one that judges."
    )
    plain_seeds: int = Field(4, ge=1, description="Number of sets of 15 plain pictures to ask about.")
    false_fix_rate: float = Field(
        0.01, gt=0.0, lt=1.0, description="Share of wrong fixes for which the threshold is chosen."
    )


def read_recipe(path: Path) -> IntegrityRecipe:
    """Read a recipe file.

    Raises:
        ConfigError: It cannot be read, has unknown or wrong values, or lacks a drive of either kind.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: is no recipe: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: is no recipe: expected a mapping, found {type(values).__name__}")
    recipe = parse_config(IntegrityRecipe, values)
    if len({drive.calibrates for drive in recipe.drives}) < 2:
        raise ConfigError(f"{path}: expected drives that calibrate and drives that judge")
    return recipe


def select(images: Images, root: Path, recipes: Path = Path()) -> tuple[SourceImage, ...]:
    """Return the images meant, in their source's order.

    Args:
        images: What is meant.
        root: Folder of the sources.
        recipes: Folder of the recipe.

    Raises:
        SourceError: There are none.
        CameraError: The calibration file is none.
    """
    camera = recipes / images.camera if images.camera else None
    found = read_source(root / images.path, split=images.split or None, camera=camera).images

    def matches(item: SourceImage, patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatch(item.place.name, pattern) for pattern in patterns)

    kept = [i for i in found if (not images.only or matches(i, images.only)) and not matches(i, images.leave_out)]
    chosen = tuple(kept[images.first :: images.every])
    if not chosen:
        raise SourceError(f"{root / images.path}: none of {len(found)} images is left by {images}")
    return retag(chosen, images.tags) if images.tags else chosen


@dataclass(frozen=True, slots=True)
class Asked:
    """All answers of one drive.

    Attributes:
        drive: The drive.
        as_it_is: Answers to its queries.
        without: Answers with their place left out.
        elsewhere: Kind of foreign or plain image -> answers.
        priors: What the prior says -> answers to some of the queries.
    """

    drive: Drive
    as_it_is: Collected
    without: Collected
    elsewhere: dict[str, Collected]
    priors: dict[str, list[Within]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the drive in the tables."""
        return self.drive.name + (" (calibrates)" if self.drive.calibrates else "")


def ask_drive(
    localizer: Localizer,
    drive: Drive,
    find: Callable[[Images], Sequence[SourceImage]],
    plain_seeds: int,
    progress: Progress = silent,
) -> Asked:
    """Ask about the queries in both ways, with priors where the drive has them, and about images taken elsewhere.

    Args:
        localizer: Localizer over the drive's gallery.
        drive: The drive.
        find: Returns the images that a recipe means.
        plain_seeds: Number of seeds of plain pictures.
        progress: Shows the questions.
    """
    gallery, correct = localizer.gallery, drive.correct_within_m
    itself = both(without_itself(gallery), Neighbours(list(gallery.places), drive.apart))
    far = without_folder(gallery) if drive.without == "folder" else without_places_within(gallery, 2 * correct)
    as_it_is_way, without_way = way(localizer, itself), way(localizer, both(itself, far))
    queries = [Question.of(image) for image in find(drive.queries)]
    twice = queries[:: drive.without_every]
    once = [query for row, query in enumerate(queries) if row % drive.without_every]
    as_it_is, without = collect(localizer, twice, (as_it_is_way, without_way), correct, progress)
    as_it_is += collect(localizer, once, (as_it_is_way,), correct, progress)[0]
    kinds: dict[str, list[Question]] = defaultdict(list)
    for images in drive.foreign:
        kinds[images.name] += [Question(item.place.name, item.read) for item in find(images)]
    for seed in range(plain_seeds):
        for question in plain_questions(seed + 1000 * drive.calibrates):
            kinds[question.name].append(question)
    elsewhere = {
        kind: collect(localizer, questions, (way(localizer),), correct, progress)[0]
        for kind, questions in kinds.items()
    }
    return Asked(drive, as_it_is, without, elsewhere, _ask_with_priors(localizer, drive, queries, progress))


def _ask_with_priors(
    localizer: Localizer, drive: Drive, queries: Sequence[Question], progress: Progress
) -> dict[str, list[Within]]:
    if not drive.prior_std_m:
        return {}
    circles = {
        "right": circle_of_prior(drive.prior_std_m),
        "wrong: about a place elsewhere": circle_elsewhere(localizer.gallery, drive.prior_std_m),
    }
    itself = both(without_itself(localizer.gallery), Neighbours(list(localizer.gallery.places), drive.apart))
    asked = queries[:: drive.prior_every]
    answers = ask_within(localizer, asked, itself, list(circles.values()), drive.correct_within_m, progress)
    return dict(zip(circles, answers, strict=True))


def fit_asked(
    asked: Sequence[Asked], false_fix_rate: float, measured_with: dict[str, str]
) -> tuple[Calibration, dict[str, float]]:
    """Fit one calibration on all answers of the drives that calibrate.

    Args:
        asked: Answers of all drives.
        false_fix_rate: Share of wrong fixes for which the threshold is chosen.
        measured_with: The settings, :func:`geowarp_ros.integrity.calibration.settings_of`.

    Returns:
        The calibration, and the results of its cross-validation.

    Raises:
        SourceError: Too few right or wrong answers.
    """
    calibrating = [item for item in asked if item.drive.calibrates]
    found = [
        (sample, drive)
        for drive, item in enumerate(calibrating)
        for collected in (item.as_it_is, item.without, *item.elsewhere.values())
        for sample in collected.samples
    ]
    samples, drives = [sample for sample, _ in found], [drive for _, drive in found]
    try:
        calibration, summary = fit_calibration(samples, false_fix_rate, drives=drives)
    except ValueError as error:
        raise SourceError(f"these drives cannot calibrate: {error}") from None
    named = {"title": "the calibration beside the model", "measured_with": measured_with}
    return calibration.model_copy(update=named), summary


def judge(collected: Collected, calibration: Calibration) -> Judged:
    """Return the answers as they would be published, one row per image; refused images have no error."""
    rows = [_published(sample, calibration) for sample in collected.samples]
    nothing = _Published(np.full(2, math.nan), np.full((2, 2), math.nan), 0.0, False)
    rows += [nothing] * collected.textureless
    return Judged(
        error_en_m=np.array([row.error_en_m for row in rows]).reshape(-1, 2),
        covariance_m2=np.array([row.covariance_m2 for row in rows]).reshape(-1, 2, 2),
        confidence=np.array([row.confidence for row in rows]),
        fixed=np.array([row.fixed for row in rows], bool),
        heading_error_deg=np.array([row.heading_error_deg for row in rows]),
        heading_std_deg=np.array([row.heading_std_deg for row in rows]),
        method=np.array([row.method for row in rows], np.str_),
    )


@dataclass(frozen=True, slots=True)
class _Published:
    """A row of :class:`geowarp_ros.evaluation.fixes.Judged`; errors are infinite where any answer is wrong."""

    error_en_m: FloatArray
    covariance_m2: FloatArray
    confidence: float
    fixed: bool
    method: str = ""
    heading_error_deg: float = math.nan
    heading_std_deg: float = math.nan


def _published(sample: Sample, calibration: Calibration) -> _Published:
    posed = sample.posed
    decision = decide(sample.evidence, posed.pose if posed else None, PositionConfig(), calibration)
    if posed is not None and decision.pose is not None and decision.covariance is not None:
        return _Published(
            posed.error_en_m,
            decision.covariance[:2, :2],
            decision.confidence,
            decision.fix,
            decision.pose.method,
            posed.heading_error_deg,
            heading_std(enu_from_body_of(decision.pose), decision.covariance),
        )
    std_m = calibration.std_m(sample.spacing_m)
    error = sample.error_en_m if math.isfinite(sample.error_m) else np.full(2, math.inf)
    covariance = covariance_of(sample.scatter, std_m, calibration.scatter_gain)
    apart = np.full(2, np.nan) if posed is None else posed.apart_en_m
    found = around_pose(decision, apart, covariance)
    return _Published(error + found.offset_m, found.covariance, found.confidence, found.fix, "cluster")


def pose_table(asked: Sequence[Asked], calibration: Calibration) -> Table:
    """Tabulate one row per drive with poses and method: share, wrong ones, errors, headings, and what they claim.

    The last columns: of the answers with the true place left out, the share that got a pose all the same; and how
    many poses were right, whether trusted or not.
    """
    rows: list[tuple[Cell, ...]] = []
    for item in asked:
        judged, lost = judge(item.as_it_is, calibration), judge(item.without, calibration)
        posed = np.isin(lost.method, POSED) & lost.fixed
        if not np.isin(judged.method, POSED).any():
            continue
        for method in ("all", *POSED, "cluster"):
            chosen = judged.fixed & ((judged.method == method) | (method == "all"))
            if chosen.any():
                nowhere = _text(fixes.share(posed)) if method == "all" else ""
                found = _text(_found(item)) if method == "all" else ""
                truth_std_m = item.drive.truth_std_m
                rows.append((item.name, method, *_pose_cells(judged, chosen, truth_std_m), nowhere, found))
    header = (
        *("drive", "method", "fixes", f"beyond {POSE_CORRECT_WITHIN_M:g} m", "error, median / 95 %"),
        *("heading, median / 95 %", "inside 95 % ellipse", "heading inside 95 %", "posed without its place"),
        f"poses within {POSE_CORRECT_WITHIN_M:g} m, trusted or not",
    )
    return Table("poses", "Poses, with 95 % Wilson intervals", header, tuple(rows))


def stage_table(asked: Sequence[Asked]) -> Table:
    """Tabulate one row per drive with poses: how long the pose stage took on this processor, matching included."""
    rows: list[tuple[Cell, ...]] = []
    for item in asked:
        stages = [stage for stage in item.as_it_is.stages_ms if "pose" in stage]
        if not stages or not any(sample.posed for sample in item.as_it_is.samples):
            continue
        points = np.array([stage["pose"] for stage in stages])
        both = points + [stage.get("anchors", 0.0) for stage in stages]
        rows.append((item.name, len(stages), *(_milliseconds(each) for each in (points, both))))
    machine = describe_machine()
    about = f"{machine['processor']}, {machine['torch']}, {machine['cores']} cores, load {machine['load']}"
    header = ("drive", "images", "by points, median / 95 %", "with anchors, median / 95 %")
    return Table("stages", f"The pose stage, matching included ({about})", header, tuple(rows))


def _milliseconds(each: FloatArray) -> str:
    return f"{np.median(each):.1f} / {np.quantile(each, 0.95):.1f} ms"


def _found(item: Asked) -> Share:
    samples = item.as_it_is.samples
    right = [sample.posed is not None and sample.posed.right for sample in samples]
    return fixes.share(np.array([*right, *[False] * item.as_it_is.textureless], bool))


def _truth_m2(std_m: float) -> FloatArray:
    """What the truth's own error adds (2, 2) to what an answer claims."""
    return np.asarray(std_m**2 * np.eye(2))


def _pose_cells(judged: Judged, chosen: NDArray[np.bool_], truth_std_m: float) -> tuple[Cell, ...]:
    of = judged.only(chosen)
    metres = fixes.error_quantiles(of.error_m)
    turned = np.abs(of.heading_error_deg[np.isfinite(of.heading_error_deg)])
    degrees = fixes.error_quantiles(turned)
    claimed = of.only(np.isfinite(of.heading_error_deg))
    inside = np.abs(claimed.heading_error_deg) <= 1.959964 * claimed.heading_std_deg
    return (
        _text(fixes.share(chosen)),
        _text(fixes.share(of.error_m > POSE_CORRECT_WITHIN_M)),
        f"{metres[0.5]:.2f} / {metres[0.95]:.2f} m",
        f"{degrees[0.5]:.2f} / {degrees[0.95]:.2f}°" if len(turned) else "–",
        _text(fixes.inside_ellipses(fixes.nees(of.error_en_m, of.covariance_m2 + _truth_m2(truth_std_m)))[0.95]),
        _text(fixes.share(inside)),
    )


def fix_table(asked: Sequence[Asked], calibration: Calibration) -> Table:
    """Tabulate one row per drive: availability, false fixes, errors, ellipses."""
    rows: list[tuple[Cell, ...]] = []
    for item in asked:
        judged = judge(item.as_it_is, calibration)
        errors = judged.error_m[judged.fixed]
        right = judged.fixed & (judged.error_m <= item.drive.correct_within_m)
        values = fixes.nees(
            judged.error_en_m[right], judged.covariance_m2[right] + _truth_m2(item.drive.truth_std_m)
        )
        quantiles = fixes.error_quantiles(errors)
        rows.append(
            (
                item.name,
                _text(fixes.share(judged.fixed)),
                _text(fixes.false_fix_rate(judged, item.drive.correct_within_m)),
                f"{quantiles[0.5]:.1f} / {quantiles[0.95]:.1f} m",
                _text(fixes.inside_ellipses(values)[0.95]),
                f"{values.mean():.2f}" if len(values) else "–",
            )
        )
    header = ("drive", "fixes", "false fixes", "error, median / 95 %", "right ones inside 95 %", "mean NEES")
    return Table("fixes", "Published fixes, with 95 % Wilson intervals", header, tuple(rows))


def prior_table(asked: Sequence[Asked], calibration: Calibration) -> Table:
    """Tabulate three rows per drive with priors: the same images without, with a right and with a wrong one."""
    rows: list[tuple[Cell, ...]] = []
    for item in asked:
        answers = {kind: [w.published(calibration) for w in found] for kind, found in item.priors.items()}
        if answers:
            answers = {"none": [w.whole for w in next(iter(item.priors.values()))], **answers}
        for kind, samples in answers.items():
            judged = judge(Collected(tuple(samples)), calibration)
            rows.append(
                (
                    item.drive.name,
                    kind,
                    f"{item.drive.prior_std_m:g} m",
                    _text(fixes.share(judged.fixed)),
                    _text(fixes.false_fix_rate(judged, item.drive.correct_within_m)),
                )
            )
    header = ("drive", "prior", "its standard deviation", "fixes", "false fixes")
    return Table("priors", "Some of the images, asked about with and without a prior", header, tuple(rows))


def elsewhere_table(asked: Sequence[Asked], calibration: Calibration) -> Table:
    """Tabulate one row per gallery and kind of image that is not in it: how often it is refused."""
    rows: list[tuple[Cell, ...]] = []
    for item in asked:
        left_out = "its own images without their " + item.drive.without
        for kind, collected in {left_out: item.without, **item.elsewhere}.items():
            refused = fixes.share(~judge(collected, calibration).fixed)
            rows.append((item.drive.name, kind, _text(refused), collected.textureless))
    header = ("gallery of", "asked about", "NO_FIX", "of them no_texture")
    return Table("elsewhere", "Images that are not in the gallery", header, tuple(rows))


def _text(share: Share) -> str:
    if not share.of:
        return "–"
    percents = f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]".replace("%", " %")
    return f"{percents}, {share.count} of {share.of}"
