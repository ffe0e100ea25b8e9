"""Figures of a run as text, for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geowarp_ros.integrity.calibration import Calibration


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


FEW = 30
"""Number of guesses below which it is said that they are few: of 30 without a wrong one, 11 % may yet be wrong."""


ON_A_DRIVE = str(Calibration.model_fields["title"].default)
"""Title of a calibration that a drive gave its gallery."""


def conclusion(figures: Mapping[str, Any]) -> str:
    """Return in a sentence what a run says of its gallery: how many guesses were wrong, and what would help.

    A guess is the answer to an image whatever its confidence; of a recorded run only the fixes are known.
    """
    wrong, fixes, false = figures.get("guesses"), figures["availability"]["count"], figures["false_fix_rate"]
    if wrong is None:  # results of an older version
        return ""
    if not wrong["of"]:
        return "no image had a guess that could be judged: the gallery may be of another place"
    guessed = figures["precision_availability_area"] is not None
    what, anyhow = ("guesses", " at any threshold") if guessed else ("fixes", "")
    few = f", for {wrong['of']} are few" if wrong["of"] < FEW else ""
    said = (
        f"{wrong['count']} of {wrong['of']} {what} {'was' if wrong['count'] == 1 else 'were'} wrong by more than"
        f" {figures['correct_within_m']:g} m{anyhow} ({interval(wrong)}{few})"
    )
    if not guessed:
        return said
    helps, calibrate = calibration_helps(figures), "; a calibration on a drive of this place would"
    if wrong["count"]:
        among = f"of the {fixes} answered {false['count']}" + (f" ({interval(false)})" if fixes else "")
        return f"{said}; {among}{f'{calibrate} tell them apart' if helps else ''}"
    if helps:
        return f"{said}{calibrate} answer more"
    return f"{said}; {f'its calibration let {fixes} of them be' if fixes < wrong['of'] else 'all were'} answered"


def calibration_helps(figures: Mapping[str, Any]) -> bool:
    """Whether a drive of the place could do better than what told fixes from guesses.

    That is, no drive did, and wrong guesses were answered, or right ones refused where none was wrong.
    """
    wrong, by = figures.get("guesses"), figures.get("calibrated_by")
    if not wrong or figures["precision_availability_area"] is None or by == ON_A_DRIVE:
        return False
    refused = figures["availability"]["count"] < wrong["of"]
    return bool(figures["false_fix_rate"]["count"] or (refused and not wrong["count"]))


def sentence(text: str) -> str:
    """Return a text as a sentence of its own; nothing stays nothing."""
    return f"{text[0].upper()}{text[1:]}." if text else ""


def interval(share: Mapping[str, Any]) -> str:
    """Return the 95 % interval of a share: ``"95 %: below 8.4 %"``, or ``"95 %: 2.5 to 19.1 %"``."""
    low, high = (f"{100 * share[end]:.2g}" if share[end] < 0.995 else "100" for end in ("low", "high"))
    if not share["count"]:
        return f"95 %: below {high} %"
    return f"95 %: above {low} %" if share["count"] == share["of"] else f"95 %: {low} to {high} %"


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
