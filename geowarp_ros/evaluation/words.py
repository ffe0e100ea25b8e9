"""Figures of a run as text, for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def percent(share: Mapping[str, Any] | None, *, interval: bool = False) -> str:
    """Return ``"93.1 %"``, or ``"93.1 % (88.0–96.2)"``; a dash without a value."""
    if share is None or share["value"] is None:
        return "–"
    text = f"{100 * share['value']:.1f} %"
    return f"{text} ({100 * share['low']:.1f}–{100 * share['high']:.1f})" if interval else text


def metres(value: float | None) -> str:
    """Return metres with three digits; a dash without a value."""
    return "–" if value is None else f"{value:.3g} m" if abs(value) < 1000 else f"{value:.0f} m"


def number(value: float | None, digits: int = 2) -> str:
    """Return a plain number; a dash without a value."""
    return "–" if value is None else f"{value:.{digits}f}"


def degrees(value: float | None) -> str:
    """Return degrees with two digits after the point; a dash without a value."""
    return "–" if value is None else f"{value:.2f}°"


def milliseconds(value: float | None) -> str:
    """Return milliseconds with three digits; a dash without a value."""
    return "–" if value is None else f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.2f} s"


def summary_rows(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) of the main figures, most important first."""
    correct = f"{figures['correct_within_m']:g} m"
    error, calibration = figures["error_m"], figures["calibration"]
    rows = [
        ("images", _images(figures)),
        ("availability", percent(figures["availability"], interval=True)),
        *(
            (f"fix within {float(metres_):g} m", percent(share, interval=True))
            for metres_, share in figures["recall"].items()
        ),
        (f"false fixes (beyond {correct})", percent(figures["false_fix_rate"], interval=True)),
        ("error, median / 95 %", f"{metres(error['0.5'])} / {metres(error['0.95'])}"),
        ("area under precision–availability", number(figures["precision_availability_area"], 3)),
        ("truth inside 50 / 95 / 99 % ellipse", " / ".join(percent(s) for s in calibration["inside"].values())),
        ("the same, right fixes alone", " / ".join(percent(s) for s in calibration["inside_of_right"].values())),
        ("NEES, mean (2 is consistent)", number(calibration["nees_mean"])),
        ("hazardously misleading fixes", str(calibration["stanford"]["hazardous"])),
    ]
    heading = figures.get("heading", {})  # absent in results of older versions
    if heading.get("headings"):
        quantiles = f"{degrees(heading['median_deg'])} / {degrees(heading['p95_deg'])}"
        rows += [
            (f"heading error of {heading['headings']}, median / 95 %", quantiles),
            ("heading error, signed median", degrees(heading["bias_deg"])),
            ("true heading within 1.96 σ", percent(heading["inside_95"], interval=True)),
        ]
    if set(figures.get("methods", {})) - {"cluster", "best", "recorded"}:
        for method, *cells in method_rows(figures):
            rows.append((f"{method}: fixes, error, heading error", ", ".join(cells[:3])))
    if latency := figures["latency_ms"].get("total"):
        rows.append(("latency p50 / p95 / p99", " / ".join(milliseconds(value) for value in latency.values())))
    if late := figures["dropped_at_recorded_rate"]:
        rows.append(("would be dropped at the recorded rate", percent(late)))
    if reasons := figures["no_fix_reasons"]:
        rows.append(("no fix because of", ", ".join(f"{reason} {count}" for reason, count in reasons.items())))
    return rows


METHOD_HEADER = (
    *("method", "fixes", "error, median / 95 %", "heading error, median / 95 %", "inside 95 % ellipse", "NEES"),
    "within 1.96 σ of heading",
)


def method_rows(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return one row of METHOD_HEADER for each method."""
    rows: list[tuple[str, ...]] = []
    for method, found in figures.get("methods", {}).items():
        error, heading = found["error_m"], found["heading"]
        rows.append(
            (
                method,
                str(found["fixes"]),
                f"{metres(error['0.5'])} / {metres(error['0.95'])}",
                f"{degrees(heading['median_deg'])} / {degrees(heading['p95_deg'])}",
                percent(found["inside"]["0.95"]),
                number(found["nees_mean"]),
                percent(heading["inside_95"]),
            )
        )
    return rows


def _images(figures: Mapping[str, Any]) -> str:
    parts = [f"{figures['images']}, {figures['judged']} judged"]
    for key in ("without_truth", "unreadable", "dropped"):
        if figures[key]:
            parts.append(f"{figures[key]} {key.replace('_', ' ')}")
    return ", ".join(parts)
