"""What a benchmark leaves: a JSON file, tables and a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geowarp_ros.lab.benchmark.timing import Row, Times


def write_report(
    folder: Path,
    machine: Mapping[str, str],
    settings: Mapping[str, Any],
    parts: Mapping[str, Sequence[Times]],
    tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> str:
    """Write ``benchmark.json``, ``benchmark.md`` and ``benchmark.png``; returns the tables.

    Args:
        folder: Made where it is not there.
        machine: Of :func:`geowarp_ros.lab.benchmark.machine.describe_machine`.
        settings: As resolved.
        parts: Comparisons by part.
        tables: Other parts' rows, column -> value.
    """
    others = {part: [dict(row) for row in found] for part, found in (tables or {}).items()}
    folder.mkdir(parents=True, exist_ok=True)
    rows = {part: [row for times in found for row in times.rows()] for part, found in parts.items()}
    values = {
        "machine": dict(machine),
        "settings": dict(settings),
        "parts": {part: [asdict(row) for row in found] for part, found in rows.items()} | others,
        "rounds_ms": {
            part: {times.title: {name: ms.tolist() for name, ms in times.ms.items()} for times in found}
            for part, found in parts.items()
        },
    }
    text = json.dumps(values, indent=1, ensure_ascii=False)
    (folder / "benchmark.json").write_text(text + "\n", encoding="utf-8")
    text = markdown(machine, rows) + "".join(f"\n{part}:\n\n{table(found)}" for part, found in others.items())
    (folder / "benchmark.md").write_text(text, encoding="utf-8")
    _plot(folder / "benchmark.png", [times for found in parts.values() for times in found])
    return text


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of the same columns as a Markdown table; NaN is a dash."""
    columns = list(rows[0])
    lines = [columns, ["---:"] * len(columns), *([_text(row[column]) for column in columns] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def markdown(machine: Mapping[str, str], parts: Mapping[str, Sequence[Row]]) -> str:
    """Return a table for each part, and the machine above."""
    lines = [", ".join(f"{name} {value}" for name, value in machine.items()), ""]
    for part, rows in parts.items():
        title = ""
        for row in rows:
            if row.title != title:
                title = row.title
                lines += ["", f"{part}: {title}; {row.rounds} rounds, ratio over: {row.baseline}", ""]
                lines += ["| | median ms | p95 ms | ratio | quartiles |", "|---|---:|---:|---:|---:|"]
            spread = f"{row.ratio_low:.3g}–{row.ratio_high:.3g}"
            lines.append(f"| {row.name} | {row.p50_ms:.4g} | {row.p95_ms:.4g} | {row.ratio:.3g} | {spread} |")
    return "\n".join(lines) + "\n"


def _plot(path: Path, comparisons: Sequence[Times]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not comparisons:
        return
    heights = [len(times.ms) + 1.5 for times in comparisons]
    figure = Figure(figsize=(9, max(2.0, 0.3 * sum(heights))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(max(1, len(comparisons)), 1, squeeze=False, height_ratios=heights or None)[:, 0]
    for axis, times in zip(axes, comparisons, strict=False):
        names = list(times.ms)[::-1]
        rows = [times.row(name) for name in names]
        spread = [[r.ratio - r.ratio_low for r in rows], [r.ratio_high - r.ratio for r in rows]]
        axis.barh(names, [row.ratio for row in rows], xerr=spread, color="#4477aa", ecolor="#222222")
        for place, row in enumerate(rows):
            axis.annotate(
                f" {row.p50_ms:.3g} ms", (row.ratio_high, place), va="center", fontsize=7, annotation_clip=False
            )
        axis.axvline(1.0, color="#cc3311", linewidth=0.8)
        axis.set_title(f"{times.title}; over: {times.baseline}", fontsize=8, loc="left")
        axis.tick_params(labelsize=7)
        axis.margins(x=0.12)
    figure.savefig(path, dpi=110)
