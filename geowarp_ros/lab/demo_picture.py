"""The demo's picture: the map with gallery, true track and fixes, beside a few pairs as warped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from geowarp_ros.evaluation.drive import DriveImage
from geowarp_ros.evaluation.judging import error_en_m
from geowarp_ros.evaluation.run import Answered
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.lab.demo import Replay
from geowarp_ros.localizer import Localizer
from geowarp_ros.model.describer import Warper
from geowarp_ros.pictures import CANDIDATE, QUERY, warp_to_frame
from geowarp_ros.rerank import RetrievalOrder
from geowarp_ros.rerank.geowarp import GeoWarpReranker
from geowarp_ros.types import Answer, Candidate, FloatArray, Frame, Image, NoFix, confidence_text

PAIRS = 4
STRETCH_M = 20.0
"""Images farther apart are not joined by a line: the drive was interrupted."""
ARROW_M = 5.0
"""Length of an arrow."""
WORST_M = 10.0
"""Error at which a fix has the colour scale's last colour."""

_PAPER, _INK, _FAINT = "#f7f6f2", "#22252b", "#8c8f96"
_TRACK, _LOST, _GALLERY, _ALIGNED = "#2b6cb0", "#c0392b", "#b9bec4", "#4a4f57"
_DROPPED: dict[str, Any] = {
    **{"marker": "o", "linestyle": "", "markersize": 2.5, "markeredgewidth": 0.6},
    **{"markerfacecolor": "#ffffff", "markeredgecolor": _TRACK},
}
_COLOURS = "viridis_r"
"""Yellow is near, violet far: it reads on paper and to the colour-blind."""


def write_picture(replay: Replay, localizer: Localizer, world: Path, path: Path, title: str) -> None:
    """Draw the picture.

    Args:
        replay: Results of the drive.
        localizer: Localises the few images shown once more, for their quads; with the same gallery.
        world: Folder of the world; ``map.json`` has streets and buildings.
        path: PNG to write.
        title: One line.
    """
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 10, "text.color": _INK}):
        figure = Figure(figsize=(17.0, 9.6), dpi=110, facecolor=_PAPER)
        grid = figure.add_gridspec(
            1, 2, width_ratios=(1.0, 1.16), left=0.04, right=0.985, top=0.85, bottom=0.12, wspace=0.05
        )
        figure.text(0.04, 0.945, title, fontsize=17, fontweight="bold")
        figure.text(0.04, 0.905, "   ·   ".join(f"{label} {value}" for label, value in replay.rows()), fontsize=11)
        _draw_map(figure, grid[0, 0], replay, localizer.gallery, world)
        _draw_pairs(figure, grid[0, 1], _pairs(replay, localizer))
        figure.savefig(path, facecolor=_PAPER)


# ---- the map


def _draw_map(figure: Figure, place: Any, replay: Replay, gallery: Gallery, world: Path) -> None:
    axes = figure.add_subplot(place)
    described = json.loads((world / "map.json").read_text())
    datum = described["datum"]
    frame = LocalFrame(datum["latitude"], datum["longitude"], datum["altitude"])
    _draw_town(axes, described)
    places = _draw_gallery(axes, gallery, frame)
    _draw_answers(figure, axes, replay, frame)
    track = _truth(frame, replay.answered)
    shown = np.concatenate([places, track])
    middle, half = (shown.min(0) + shown.max(0)) / 2, np.ptp(shown, axis=0).max() / 2 * 1.08 + 8
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), aspect="equal")
    axes.set_xlabel("east (m)", loc="right")
    axes.set_ylabel("north (m)")
    axes.tick_params(colors=_FAINT, labelcolor=_INK)
    for spine in axes.spines.values():
        spine.set_color("#d8d6cf")
    axes.legend(
        handles=_legend(replay, aligned=gallery.alignment is not None),
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=6,
        frameon=False,
        fontsize=9.5,
        columnspacing=1.4,
        handletextpad=0.5,
    )


def _draw_town(axes: Any, described: dict[str, Any]) -> None:
    axes.set_facecolor("#eceae3")
    streets = [(street["start"], street["end"]) for street in described["streets"]]
    axes.add_collection(LineCollection(streets, colors="#ffffff", linewidths=9, capstyle="round", zorder=1))
    corners = [building["corners"] for building in described["buildings"]]
    roofs = np.array([building["colour"] for building in described["buildings"]]) / 255.0
    pale = 0.35 * roofs + 0.65 * np.array([0.87, 0.85, 0.81])
    axes.add_collection(PolyCollection(corners, facecolors=pale, edgecolors="#b9b3a4", linewidths=0.6, zorder=2))


def _draw_gallery(axes: Any, gallery: Gallery, frame: LocalFrame) -> FloatArray:
    """Draw where the tags say that the photographs were taken, and where they were by the alignment; the tags."""
    tags = _enu(frame, [(p.latitude_deg, p.longitude_deg) for p in gallery.places])
    axes.plot(*tags.T, ".", color=_GALLERY, markersize=4, zorder=3)
    if (alignment := gallery.alignment) is not None:
        rows = gallery.numbers.stored(np.arange(len(gallery)))
        rows, tied = rows[rows < len(alignment.tied)], tags[rows < len(alignment.tied)]
        tied, rows = tied[alignment.tied[rows]], rows[alignment.tied[rows]]
        aligned = _enu(
            frame, np.stack(LocalFrame(*alignment.datum).to_geodetic(alignment.position_m[rows])[:2], 1)
        )
        lines = LineCollection(list(np.stack([tied, aligned], axis=1)), colors=_GALLERY, linewidths=0.7, zorder=3)
        axes.add_collection(lines)
        axes.plot(*aligned.T, ".", color=_ALIGNED, markersize=4.5, zorder=3)
    return tags


def _draw_answers(figure: Figure, axes: Any, replay: Replay, frame: LocalFrame) -> None:
    """Draw the true track, each fix tied to its truth and coloured by its error, and where there was no fix."""
    track = _truth(frame, replay.drive.images)
    for piece in np.split(track, np.flatnonzero(np.hypot(*np.diff(track, axis=0).T) > STRETCH_M) + 1):
        axes.plot(*piece.T, "-", color=_TRACK, linewidth=2.2, zorder=4, solid_capstyle="round")
    seen = {item.stamp_ns for item in replay.answered}
    dropped = _truth(frame, [image for image in replay.drive.images if image.stamp_ns not in seen])
    axes.plot(*dropped.T, **_DROPPED, zorder=5)
    answered = [item for item in replay.answered if item.truth is not None]
    truth = _truth(frame, answered)
    fixed = np.array([item.answer.fix is not None for item in answered], bool)
    axes.plot(*truth[~fixed].T, "x", color=_LOST, markersize=6, markeredgewidth=1.6, zorder=6)
    if not fixed.any():
        return
    found = [fix for item in answered if (fix := item.answer.fix)]
    fixes = _enu(frame, [(fix.latitude_deg, fix.longitude_deg) for fix in found])
    errors = np.hypot(*(fixes - truth[fixed]).T)
    ties = np.stack([truth[fixed], fixes], axis=1)
    axes.add_collection(LineCollection(list(ties), colors="#3a3d44", linewidths=0.7, alpha=0.5, zorder=5))
    headed = np.array([fix.orientation is not None for fix in found])
    heading = np.radians([fix.heading_deg for fix in found])
    axes.quiver(
        *fixes[headed].T,
        *np.stack([np.sin(heading), np.cos(heading)])[:, headed],
        errors[headed],
        **{"cmap": _COLOURS, "clim": (0, WORST_M), "angles": "xy", "scale_units": "xy", "scale": 1 / ARROW_M},
        **{"width": 0.0022, "headwidth": 4.5, "headlength": 5, "zorder": 6},
    )
    dots = axes.scatter(
        *fixes.T, c=errors, cmap=_COLOURS, vmin=0, vmax=WORST_M, s=22, edgecolors=_INK, linewidths=0.5, zorder=7
    )
    beside = axes.inset_axes((0.0, -0.118, 0.42, 0.018))
    bar = figure.colorbar(dots, cax=beside, orientation="horizontal", extend="max")
    bar.set_label("error of the fix (m)", fontsize=9, labelpad=4)
    beside.xaxis.set_label_position("top")
    bar.ax.tick_params(labelsize=8)


def _legend(replay: Replay, aligned: bool) -> list[Line2D]:
    lost = len(replay.answered) - len(replay.errors_m)
    dropped = len(replay.drive.images) - len(replay.answered)
    entries: list[tuple[str, dict[str, Any]]] = [
        ("tag" if aligned else "gallery", {"marker": ".", "color": _GALLERY, "linestyle": "", "markersize": 7}),
        ("true track", {"color": _TRACK, "linewidth": 2.2}),
        (
            f"fix ({len(replay.errors_m)})",
            {"marker": "o", "color": "#5ec962", "linestyle": "", "markeredgecolor": _INK},
        ),
        (f"no fix ({lost})", {"marker": "x", "color": _LOST, "linestyle": "", "markeredgewidth": 1.6}),
        (f"dropped ({dropped})", _DROPPED),
    ]
    if aligned:
        entries.insert(1, ("aligned", {"marker": ".", "color": _ALIGNED, "linestyle": "", "markersize": 7}))
    return [Line2D([], [], label=label, **style) for label, style in entries]


def _enu(frame: LocalFrame, positions: Sequence[tuple[float, float]] | FloatArray) -> FloatArray:
    degrees = np.asarray(positions, float).reshape(-1, 2)
    return frame.to_enu(degrees[:, 0], degrees[:, 1])[:, :2]


def _truth(frame: LocalFrame, images: Sequence[Answered | DriveImage]) -> FloatArray:
    truths = [item.truth for item in images if item.truth is not None]
    return _enu(frame, [(truth.latitude_deg, truth.longitude_deg) for truth in truths])


# ---- the pairs


@dataclass(frozen=True, slots=True)
class Pair:
    """One image of the drive beside the place it was taken for."""

    query: Image
    candidate: Image
    match: Candidate
    caption: str
    fixed: bool


def _pairs(replay: Replay, localizer: Localizer) -> list[Pair]:
    """Localise images spread over the fixes once more, and one without a fix where there is one.

    GeoWarp warps each with its best candidate, which the mode of re-ranking may have spared.
    """
    describer, gallery = localizer.describer, localizer.gallery
    warped = GeoWarpReranker(gallery, Warper(describer)) if describer.model.regression else RetrievalOrder()
    fixed = [item for item in replay.answered if item.answer.fix is not None]
    lost = [item for item in replay.answered if item.answer.fix is None]
    chosen = _spread(fixed, PAIRS - bool(lost))
    chosen += _spread(lost, PAIRS - len(chosen))
    images = {image.stamp_ns: image for image in replay.drive.images}
    pairs = []
    for item in sorted(chosen, key=lambda item: item.stamp_ns):
        query = images[item.stamp_ns].read()
        camera = images[item.stamp_ns].camera_at(query.shape[1], query.shape[0])
        answer = localizer.localize(Frame(query, item.stamp_ns, camera=camera))
        if answer.candidates:
            (best,) = warped(describer(query, camera), answer.candidates[:1])
            caption = _caption(gallery.frame, item, answer, best)
            fix = item.answer.fix is not None
            pairs.append(Pair(query, gallery.image(best.index), best, caption, fix))
    return pairs


def _spread(items: list[Answered], count: int) -> list[Answered]:
    """Return at most ``count`` items, evenly from all of them."""
    middles = (np.arange(count) + 0.5) / max(count, 1) * len(items)
    return [items[index] for index in np.unique(middles.astype(int))] if items else []


def _caption(frame: LocalFrame, item: Answered, answer: Answer, best: Candidate) -> str:
    fix, result = item.answer.fix, answer.result
    if fix is not None and item.truth is not None:
        words = f"fix, {np.hypot(*error_en_m(frame, fix, item.truth)):.1f} m off"
    else:
        words = f"no fix: {result.reason if isinstance(result, NoFix) else 'unknown'}"
    words += f"  ·  confidence {confidence_text(answer.confidence)}"
    if best.score is not None and best.score_unwarped is not None:
        words += f"  ·  score {best.score:.3f}, unwarped {best.score_unwarped:.3f}"
    return words


def _draw_pairs(figure: Figure, place: Any, pairs: list[Pair]) -> None:
    grid = place.subgridspec(PAIRS, 4, wspace=0.03, hspace=0.2)
    heads = ("query", "best candidate", "query, warped", "candidate, warped")
    for row, pair in enumerate(pairs):
        quad_q, quad_p = pair.match.quad_q, pair.match.quad_p
        views: list[tuple[Image, FloatArray | None]] = [(pair.query, quad_q), (pair.candidate, quad_p)]
        if quad_q is not None and quad_p is not None:
            views += [(warp_to_frame(pair.query, quad_q), None), (warp_to_frame(pair.candidate, quad_p), None)]
        for column, (image, quad) in enumerate(views):
            axes = figure.add_subplot(grid[row, column])
            _draw_view(axes, image, quad, (QUERY, CANDIDATE)[column % 2])
            if row == 0:
                axes.set_title(heads[column], fontsize=11, color=_INK)
            if column == 0:
                colour = _INK if pair.fixed else _LOST
                axes.set_xlabel(pair.caption, fontsize=8.5, color=colour, loc="left", labelpad=3)


def _draw_view(axes: Any, image: Image, quad: FloatArray | None, colour: tuple[int, int, int]) -> None:
    height, width = image.shape[:2]
    axes.imshow(image, extent=(-1, 1, 1, -1), aspect=height / width)
    if quad is not None:
        axes.plot(*np.vstack([quad, quad[:1]]).T, color=np.array(colour) / 255, linewidth=1.8)
    axes.set(xlim=(-1, 1), ylim=(1, -1), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
