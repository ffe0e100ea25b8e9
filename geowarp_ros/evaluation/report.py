"""The report of a run: figures first, then the map, the curves, and the queries worth looking at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from geowarp_ros.evaluation import cards, fixes, page, words
from geowarp_ros.evaluation import figures as draw
from geowarp_ros.evaluation.cards import CandidateImage
from geowarp_ros.evaluation.drive import NS
from geowarp_ros.evaluation.fixes import Judged
from geowarp_ros.evaluation.judging import judge
from geowarp_ros.evaluation.run import Run
from geowarp_ros.types import FloatArray


def write_report(
    run: Run,
    figures: Mapping[str, Any],
    path: Path,
    gallery_m: FloatArray | None = None,
    candidate_image: CandidateImage | None = None,
) -> None:
    """Write the report as one HTML file that opens offline.

    Args:
        run: The run.
        figures: Result of :func:`geowarp_ros.evaluation.judging.figures`.
        path: Path of the HTML file.
        gallery_m: (G, 2) east and north (m) of the gallery's places in the run's frame.
        candidate_image: Reads a gallery image; None: only the queries are shown.
    """
    judged = judge(run)
    panels = _panels(run, judged, figures)
    body = [
        _header(run),
        _tiles(figures),
        f'<p class="conclusion">{escape(words.sentence(words.conclusion(figures)))}</p>',
        page.notes(_all_notes(run, figures)),
        "<h2>Where</h2><p>Each fix with its error as a line to the true position; crosses stand at the true"
        " positions of images without a fix. Scroll to zoom, drag to move; click an image or the time to see it;"
        ' the worst fix stands there first.</p><div id="map"></div>',
        f"<h2>How well</h2>{page.grid(panels)}",
        *cards.sections(run, judged, candidate_image),
        _tables(run, figures),
    ]
    worst = int(np.argmax(np.where(judged.fixed, judged.error_m, -1.0))) if run.judged else 0
    first = [item.name for item in run.answered].index(run.judged[worst].name) if run.judged else 0
    shown = cards.map_scene(run, first, gallery_m, candidate_image) if run.answered else None
    page.write_page(path, f"{run.title} · geowarp", body, {p.name: p.figure for p in panels}, shown)


def _panels(run: Run, judged: Judged, figures: Mapping[str, Any]) -> list[page.Panel]:
    """Return the curves; precision over availability needs confidences, latency needs times."""
    items, correct_m = run.judged, run.criteria.correct_within_m
    correct, fields = f"{correct_m:g} m", figures["calibration"]["stanford"]
    seconds = np.array([item.stamp_ns - items[0].stamp_ns for item in items], float) / NS
    claimed = judged.only(judged.claiming)
    claimants = [items[row].name for row in np.flatnonzero(judged.claiming)]
    nees = fixes.nees(claimed.error_en_m, claimed.covariance_m2)
    radius_m = fixes.claimed_radius_m(claimed.covariance_m2)
    panels = [
        page.Panel(
            "cdf",
            "How wrong?",
            "Share of all images with a fix within a distance; it ends at the availability.",
            draw.error_cdf([("", judged)], run.criteria.thresholds_m),
        ),
        page.Panel(
            "time",
            "When?",
            f"Error along the drive; the dashed line is {correct}, ticks at the foot are images without a fix.",
            draw.error_over_time(seconds, judged, cards.hover_texts(run, judged), correct_m),
        ),
        page.Panel(
            "ellipses",
            "Is the covariance true?",
            "Share of truths inside the error ellipse of each probability. Above the dotted line the claim is"
            " cautious, below it boasts.",
            draw.ellipse_calibration(nees, nees[claimed.error_m <= correct_m]),
        ),
        page.Panel(
            "stanford",
            "Was anyone misled?",
            f"Stanford plot. Tinted: claimed to be within {correct} and was not ({fields['hazardous']} fixes)."
            f" Below the diagonal the error exceeds the claim ({fields['misleading']} more).",
            draw.stanford(claimed.error_m, radius_m, claimants, correct_m),
        ),
    ]
    if (area := figures["precision_availability_area"]) is not None:
        lead = (
            "Precision and availability at every minimum confidence; the diamond marks this run."
            f" Area {words.number(area, 3)}, 1 is perfect."
        )
        curve = draw.precision_availability([("", judged)], correct_m)
        panels.insert(2, page.Panel("tradeoff", "Did it know?", lead, curve))
    if stages := figures["latency_ms"]:
        lead = "Median, 95th and 99th percentile of each stage."
        panels.append(page.Panel("latency", "How fast?", lead, draw.latency(stages)))
    return panels


def _header(run: Run) -> str:
    about = [str(run.settings[key]) for key in ("gallery", "date", "commit") if run.settings.get(key)]
    return f"<header><h1>{escape(run.title)}</h1><p>{escape(' · '.join(about))}</p></header>"


def _tiles(figures: Mapping[str, Any]) -> str:
    error, calibration = figures["error_m"], figures["calibration"]
    availability, false = figures["availability"], figures["false_fix_rate"]
    misled = calibration["stanford"]["hazardous"]
    counts = f"{availability['count']} of {availability['of']} images"
    beyond = f"beyond {figures['correct_within_m']:g} m: {false['count']} of {false['of']}"
    beyond += f", {words.interval(false)}" if false["of"] else ""
    nees = f"mean NEES {words.number(calibration['nees_mean'])}, ideal 2"
    tiles = [
        page.tile(words.percent(availability), "availability", counts),
        page.tile(words.percent(false), "false fixes", beyond, _mood(false["value"])),
        page.tile(words.metres(error["0.5"]), "median error", f"95 % within {words.metres(error['0.95'])}"),
        page.tile(words.percent(calibration["inside"]["0.95"]), "inside the 95 % ellipse", nees),
        page.tile(str(misled), "misleading fixes", "said near and were far", "bad" if misled else "good"),
    ]
    if (heading := figures["heading"])["headings"]:
        covered = f"{words.percent(heading['inside_95'])} within 1.96 σ"
        tiles.append(page.tile(words.degrees(heading["median_deg"]), "median heading error", covered))
    if latency := figures["latency_ms"].get("total"):
        median = f"median {words.milliseconds(latency['50'])}"
        tiles.append(page.tile(words.milliseconds(latency["95"]), "latency, 95 %", median))
    return f'<div class="tiles">{"".join(tiles)}</div>'


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


def _tables(run: Run, figures: Mapping[str, Any]) -> str:
    rows = words.summary_rows(figures)
    parts = ["<h2>All figures</h2><p>Shares with their 95 % Wilson interval.</p>", page.table(["", ""], rows)]
    if methods := words.method_rows(figures):
        parts.append("<h2>By method</h2>" + page.table(words.METHOD_HEADER, methods))
    if stages := figures["latency_ms"]:
        latency = [[stage, *map(words.milliseconds, values.values())] for stage, values in stages.items()]
        parts.append("<h2>Latency</h2>" + page.table(["stage", "p50", "p95", "p99"], latency))
    settings = json.dumps(run.settings, indent=2, default=str)
    parts.append(f"<details><summary>Settings of this run</summary><pre>{escape(settings)}</pre></details>")
    return "\n".join(parts)
