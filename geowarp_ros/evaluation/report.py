"""The report of a run: figures first, then the map, the curves, and the queries worth looking at."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from geowarp_ros.evaluation import cards, page, words
from geowarp_ros.evaluation import figures as draw
from geowarp_ros.evaluation.cards import CandidateImage
from geowarp_ros.evaluation.drive import NS, Position
from geowarp_ros.evaluation.fixes import Judged
from geowarp_ros.evaluation.judging import claims, judge
from geowarp_ros.evaluation.run import Run
from geowarp_ros.types import Fix, FloatArray


def write_report(
    run: Run,
    figures: Mapping[str, Any],
    path: Path,
    gallery_m: FloatArray | None = None,
    candidate_image: CandidateImage | None = None,
) -> None:
    """Write the report as one HTML file that opens offline.

    Args:
        run: What was answered.
        figures: Of :func:`geowarp_ros.evaluation.judging.figures`.
        path: Of the HTML file.
        gallery_m: (G, 2) east and north of the gallery's places in the run's frame.
        candidate_image: Reads a gallery image; None shows the queries alone.
    """
    judged = judge(run)
    queries = [cards.hover(item, error) for item, error in zip(run.judged, judged.error_m, strict=True)]
    if queries:
        worst = np.where(judged.fixed, judged.error_m, -1.0)
        queries[int(np.argmax(worst))]["first"] = True  # what the panel shows before anyone hovers
    cards.attach_images(queries, run.judged, candidate_image)
    body = [
        _header(run),
        _tiles(figures),
        page.notes(_all_notes(run, figures)),
        _map_section(run),
        _curves(figures),
        *cards.sections(run, judged, candidate_image),
        _tables(run, figures),
    ]
    drawn = _figures(run, judged, figures, np.zeros((0, 2)) if gallery_m is None else gallery_m)
    page.write_page(path, f"{run.title} · geowarp", body, drawn, queries)


def _figures(run: Run, judged: Judged, figures: Mapping[str, Any], gallery_m: FloatArray) -> dict[str, go.Figure]:
    items = run.judged
    correct = run.criteria.correct_within_m
    names = [cards.hover_text(item, error) for item, error in zip(items, judged.error_m, strict=True)]
    claimed = claims(judged)
    seconds = np.array([item.stamp_ns - items[0].stamp_ns for item in items], float) / NS
    drawn = {
        "map": draw.drive_map(
            gallery_m,
            _enu(run, [item.truth for item in items]),
            _enu(run, [item.position for item in items]),
            judged,
            names,
            correct,
        ),
        "cdf": draw.error_cdf([("", judged)], run.criteria.thresholds_m),
        "ellipses": draw.ellipse_calibration(claimed.nees, claimed.nees[claimed.error_m <= correct]),
        "stanford": draw.stanford(
            claimed.error_m, claimed.radius_m, [items[row].name for row in claimed.rows], correct
        ),
        "time": draw.error_over_time(seconds, judged, names, correct),
    }
    if np.isfinite(judged.confidence).any():
        drawn["tradeoff"] = draw.precision_availability([("", judged)], correct)
    if figures["latency_ms"]:
        stages = {
            stage: {float(p): value for p, value in row.items()} for stage, row in figures["latency_ms"].items()
        }
        drawn["latency"] = draw.latency(stages)
    return drawn


def _enu(run: Run, positions: Sequence[Position | Fix | None]) -> FloatArray:
    degrees = np.array([(p.latitude_deg, p.longitude_deg) if p else (math.nan, math.nan) for p in positions])
    enu = np.full((len(positions), 2), math.nan)
    known = np.isfinite(degrees).all(axis=1) if len(degrees) else np.zeros(0, bool)
    if known.any():
        enu[known] = run.frame.to_enu(degrees[known, 0], degrees[known, 1])[:, :2]
    return enu


def _header(run: Run) -> str:
    about = [str(run.settings[key]) for key in ("gallery", "date", "commit") if run.settings.get(key)]
    return f"<header><h1>{escape(run.title)}</h1><p>{escape(' · '.join(about))}</p></header>"


def _tiles(figures: Mapping[str, Any]) -> str:
    error, calibration = figures["error_m"], figures["calibration"]
    availability, false = figures["availability"], figures["false_fix_rate"]
    misled = calibration["stanford"]["hazardous"]
    tiles = [
        (
            words.percent(availability),
            "availability",
            f"{availability['count']} of {availability['of']} images",
            "",
        ),
        (
            words.percent(false),
            "false fixes",
            f"beyond {figures['correct_within_m']:g} m: {false['count']} of {false['of']}",
            _mood(false["value"]),
        ),
        (words.metres(error["0.5"]), "median error", f"95 % within {words.metres(error['0.95'])}", ""),
        (
            words.percent(calibration["inside"]["0.95"]),
            "inside the 95 % ellipse",
            f"mean NEES {words.number(calibration['nees_mean'])}, ideal 2",
            "",
        ),
        (str(misled), "misleading fixes", "said near and were far", "bad" if misled else "good"),
    ]
    if latency := figures["latency_ms"].get("total"):
        median = f"median {words.milliseconds(latency['50'])}"
        tiles.append((words.milliseconds(latency["95"]), "latency, 95 %", median, ""))
    return f'<div class="tiles">{"".join(page.tile(*tile) for tile in tiles)}</div>'


def _mood(false_share: float | None) -> str:
    if false_share is None:
        return ""
    return "good" if false_share <= 0.01 else "doubt" if false_share <= 0.05 else "bad"


def _all_notes(run: Run, figures: Mapping[str, Any]) -> list[str]:
    lines = list(run.notes)
    if run.unreadable:
        lines.append(f"{len(run.unreadable)} images could not be decoded, the first: {run.unreadable[0].reason}")
    if run.dropped:
        lines.append(f"{len(run.dropped)} images were never answered; the node dropped them or was not there yet")
    if figures["judged"] and not figures["availability"]["count"]:
        lines.append("there is no fix at all: every figure of error and calibration is empty")
    if without := figures["calibration"]["without_covariance"]:
        lines.append(f"{without} fixes carry no usable covariance and are left out of the calibration")
    return lines


def _map_section(run: Run) -> str:
    return (
        "<h2>Where</h2><p>Each fix with its error as a line to the true position; crosses stand at the true"
        " positions of images without a fix. Scroll to zoom, drag to move; hover to see the image; the worst"
        " fix stands there first.</p>"
        f'<div class="map"><div class="panel">{page.plot("map")}</div>'
        '<aside class="panel" id="shown"></aside></div>'
    )


def _curves(figures: Mapping[str, Any]) -> str:
    correct = f"{figures['correct_within_m']:g} m"
    stanford = figures["calibration"]["stanford"]
    area = words.number(figures["precision_availability_area"], 3)
    panels = [
        (
            "cdf",
            "How wrong?",
            "Share of all images with a fix within a distance; it ends at the availability.",
        ),
        (
            "time",
            "When?",
            f"Error along the drive; the dashed line is {correct}, ticks at the foot are images without a fix.",
        ),
        (
            "tradeoff",
            "Did it know?",
            "Precision and availability at every least confidence; the diamond is what was published."
            f" Area {area}, 1 is perfect.",
        ),
        (
            "ellipses",
            "Is the covariance true?",
            "Share of truths inside the error ellipse of each probability. Above the dotted line the claim is"
            " cautious, below it boasts.",
        ),
        (
            "stanford",
            "Was anyone misled?",
            f"Stanford plot. Tinted: claimed to be within {correct} and was not ({stanford['hazardous']} fixes)."
            f" Below the diagonal the error exceeds the claim ({stanford['misleading']} more).",
        ),
        ("latency", "How fast?", "Median, 95th and 99th percentile of each stage."),
    ]
    absent = {"tradeoff"} if figures["precision_availability_area"] is None else set()
    absent |= set() if figures["latency_ms"] else {"latency"}
    shown = "".join(page.panel(title, lead, page.plot(name)) for name, title, lead in panels if name not in absent)
    return f'<h2>How well</h2><div class="grid">{shown}</div>'


def _tables(run: Run, figures: Mapping[str, Any]) -> str:
    rows = [list(row) for row in words.summary_rows(figures)]
    latency = [
        [stage, *(words.milliseconds(value) for value in values.values())]
        for stage, values in figures["latency_ms"].items()
    ]
    parts = ["<h2>All figures</h2><p>Shares with their 95 % Wilson interval.</p>", page.table(["", ""], rows)]
    if latency:
        parts.append("<h2>Latency</h2>" + page.table(["stage", "p50", "p95", "p99"], latency))
    settings = json.dumps(run.settings, indent=2, default=str)
    parts.append(f"<details><summary>Settings of this run</summary><pre>{escape(settings)}</pre></details>")
    return "\n".join(parts)
