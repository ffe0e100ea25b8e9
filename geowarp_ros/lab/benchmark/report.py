"""Benchmark report: JSON file, Markdown tables and plot."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geowarp_ros.lab.benchmark.timing import Times


def write_report(
    folder: Path,
    machine: Mapping[str, str],
    settings: Mapping[str, Any],
    parts: Mapping[str, Sequence[Times]],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
) -> str:
    """Write ``benchmark.json``, ``benchmark.md`` and ``benchmark.png``; return the Markdown text.

    Args:
        folder: Output folder, created if absent.
        machine: From :func:`geowarp_ros.lab.benchmark.machine.describe_machine`.
        settings: Resolved options.
        parts: Comparisons by part.
        tables: Rows (column -> value) of the other parts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = {part: [row for times in found for row in times.rows()] for part, found in parts.items()}
    values = {
        "machine": dict(machine),
        "settings": dict(settings),
        "parts": rows | dict(tables),
        "rounds_ms": {
            part: {times.title: {name: ms.tolist() for name, ms in times.ms.items()} for times in found}
            for part, found in parts.items()
        },
    }
    text = json.dumps(values, indent=1, ensure_ascii=False)
    (folder / "benchmark.json").write_text(text + "\n", encoding="utf-8")
    text = markdown(machine, parts) + "".join(f"\n{part}:\n\n{table(found)}" for part, found in tables.items())
    (folder / "benchmark.md").write_text(text, encoding="utf-8")
    _plot(folder / "benchmark.png", [times for found in parts.values() for times in found])
    return text


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows with equal columns as a Markdown table; NaN is printed as a dash."""
    columns = list(rows[0])
    lines = [columns, ["---:"] * len(columns), *([_text(row[column]) for column in columns] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def markdown(machine: Mapping[str, str], parts: Mapping[str, Sequence[Times]]) -> str:
    """Return the machine and one table per comparison."""
    lines = [", ".join(f"{name} {value}" for name, value in machine.items()), ""]
    for part, found in parts.items():
        for times in found:
            rounds = len(times.ms[times.baseline])
            lines += ["", f"{part}: {times.title}; {rounds} rounds, ratio over: {times.baseline}", ""]
            lines += ["| | median ms | p95 ms | ratio | quartiles |", "|---|---:|---:|---:|---:|"]
            cells = "| {name} | {p50_ms:.4g} | {p95_ms:.4g} | {ratio:.3g} | {ratio_low:.3g}–{ratio_high:.3g} |"
            lines += [cells.format(**row) for row in times.rows()]
    return "\n".join(lines) + "\n"


def _plot(path: Path, comparisons: Sequence[Times]) -> None:
    from matplotlib.figure import Figure

    if not comparisons:
        return
    heights = [len(times.ms) + 1.5 for times in comparisons]
    figure = Figure(figsize=(9, max(2.0, 0.3 * sum(heights))), layout="constrained")
    axes = figure.subplots(len(comparisons), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, times in zip(axes, comparisons, strict=True):
        rows = times.rows()[::-1]
        spread = [[r["ratio"] - r["ratio_low"] for r in rows], [r["ratio_high"] - r["ratio"] for r in rows]]
        names, ratios = [row["name"] for row in rows], [row["ratio"] for row in rows]
        axis.barh(names, ratios, xerr=spread, color="#4477aa", ecolor="#222222")
        for place, row in enumerate(rows):
            text = f" {row['p50_ms']:.3g} ms"
            axis.annotate(text, (row["ratio_high"], place), va="center", fontsize=7, annotation_clip=False)
        axis.axvline(1.0, color="#cc3311", linewidth=0.8)
        axis.set_title(f"{times.title}; over: {times.baseline}", fontsize=8, loc="left")
        axis.tick_params(labelsize=7)
        axis.margins(x=0.12)
    figure.savefig(path, dpi=110)
