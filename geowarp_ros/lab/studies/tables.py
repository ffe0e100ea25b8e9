"""The paper's tables from outcomes, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from geowarp_ros.geodesy import distance_m, wgs84_to_local
from geowarp_ros.lab.baselines import Method
from geowarp_ros.lab.studies.dataset import Outcome
from geowarp_ros.lab.studies.metrics import bootstrap_interval, first_within, recall_hits
from geowarp_ros.types import Fix, Place

TITLES: dict[Method, str] = {
    "none": "",
    "geowarp": "GeoWarp",
    "geowarp-unwarped": "GeoWarp without warp",
    "one-way": "one-way homography",
    "qe-dba": "QE + DBA",
    "diffusion": "diffusion",
    "dense-ransac": "dense features + RANSAC",
    "sift": "SIFT + RANSAC",
    "orb": "ORB + RANSAC",
    "xfeat": "XFeat + RANSAC",
    "aliked": "ALIKED + RANSAC",
    "disk": "DISK + RANSAC",
    "xfeat-lighterglue": "XFeat + LighterGlue + RANSAC",
    "aliked-lightglue": "ALIKED + LightGlue + RANSAC",
    "disk-lightglue": "DISK + LightGlue + RANSAC",
    "loftr": "LoFTR + RANSAC",
}
"""Methods as the tables call them; retrieval alone has no name of its own."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured share or difference, in percent, and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    signed: bool = False

    def __str__(self) -> str:
        form = "{:+.1f} [{:+.1f}, {:+.1f}]" if self.signed else "{:.1f} [{:.1f}, {:.1f}]"
        return form.format(self.value, self.low, self.high)


Cell: TypeAlias = str | int | float | Estimate
Rows: TypeAlias = tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table, to be written in any of three forms.

    Attributes:
        name: Name of its files.
        title: Sentence above it.
        header: Names of the columns.
        rows: Rows of as many cells.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: Rows

    def markdown(self) -> str:
        """Return the title and a pipe table; numbers to the right."""
        numeric = [
            all(not isinstance(row[column], str) for row in self.rows) for column in range(len(self.header))
        ]
        lines = [
            f"**{self.title}**",
            "",
            "| " + " | ".join(self.header) + " |",
            "|" + "|".join("---:" if right else "---" for right in numeric) + "|",
        ]
        lines += ["| " + " | ".join(_text(cell) for cell in row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Return one column per number: an estimate takes three, its own name and that with low and high."""
        out = io.StringIO()
        records = self.records()
        writer = csv.DictWriter(out, list(records[0]) if records else self.header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return out.getvalue()

    def records(self) -> list[dict[str, Any]]:
        """Return one dictionary per row, ready for JSON; what is not known is None."""
        return [
            {
                name: value
                for column, cell in zip(self.header, row, strict=True)
                for name, value in _plain(column, cell).items()
            }
            for row in self.rows
        ]


def recall_table(
    outcomes: Sequence[Outcome], recalls: Sequence[int], thresholds_m: Sequence[float], seed: int
) -> Table:
    """Tabulate Recall@N of each outcome at every threshold, in percent."""
    rows: Rows = tuple(
        (
            outcome.contender.label,
            _method(outcome),
            f"{threshold:g} m",
            *(_recall(outcome, first, threshold, seed) for first in recalls),
        )
        for outcome in outcomes
        for threshold in thresholds_m
    )
    header = ("Model", "Method", "Within", *(f"R@{first}" for first in recalls))
    return Table(
        "recall", f"Recall@N in percent of {_queries(outcomes)} queries, 95 % bootstrap intervals", header, rows
    )


def paper_table(
    name: str, title: str, outcomes: Sequence[Outcome], thresholds_m: Sequence[float], seed: int
) -> Table:
    """Tabulate Recall@1 in the layout of the paper's Tables 1 and 2: backbone, method, thresholds."""
    rows: Rows = tuple(
        (
            outcome.contender.backbone,
            _method(outcome),
            *(_recall(outcome, 1, threshold, seed) for threshold in thresholds_m),
        )
        for outcome in outcomes
    )
    return Table(name, title, ("Backbone", "Method", *(f"{t:g} m" for t in thresholds_m)), rows)


def gain_table(outcomes: Sequence[Outcome], thresholds_m: Sequence[float], seed: int) -> Table:
    """Tabulate Recall@1 of each re-ranker minus that of its retrieval, paired by query."""
    plain = {outcome.contender.label: outcome for outcome in outcomes if outcome.method == "none"}
    rows: list[tuple[Cell, ...]] = []
    for outcome in outcomes:
        before = plain.get(outcome.contender.label)
        if before is None or outcome is before:
            continue
        gains: list[Cell] = []
        for threshold in thresholds_m:
            hits, hits_before = (recall_hits(o.error_m, 1, threshold).astype(float) for o in (outcome, before))
            gains.append(_estimate(hits - hits_before, seed, signed=True))
        rows.append((outcome.contender.label, _method(outcome), *gains))
    title = "Change of Recall@1 against retrieval alone, in points, 95 % paired bootstrap intervals"
    return Table("gains", title, ("Model", "Method", *(f"{t:g} m" for t in thresholds_m)), tuple(rows))


def pose_table(outcomes: Sequence[Outcome]) -> Table:
    """Tabulate the poses of the outcomes that have any: share of the queries, and errors of the posed ones."""
    header = (
        *("Model", "Method", "posed %", "median m", "95 % m", "largest m"),
        *("headings", "heading median °", "heading 95 % °"),
    )
    rows: list[tuple[Cell, ...]] = []
    for outcome in outcomes:
        posed = [
            (fix, place)
            for fix, place in zip(outcome.fixes, outcome.queries, strict=bool(outcome.fixes))
            if isinstance(fix, Fix) and fix.orientation is not None
        ]
        if not posed:
            continue
        error_m = np.array([_distance_m(fix, place) for fix, place in posed])
        turns = np.array([fix.heading_deg - place.heading_deg for fix, place in posed])
        turns = np.abs((turns[np.isfinite(turns)] + 180.0) % 360.0 - 180.0)
        rows.append(
            (
                outcome.contender.label,
                _method(outcome),
                round(100 * len(posed) / len(outcome.queries), 1),
                *(_quantile(error_m, share) for share in (0.5, 0.95, 1.0)),
                len(turns),
                *(_quantile(turns, share) for share in (0.5, 0.95)),
            )
        )
    title = f"Poses of {_queries(outcomes)} queries, whatever their confidence, and their errors against the tags"
    return Table("poses", title, header, tuple(rows))


def cost_table(outcomes: Sequence[Outcome]) -> Table:
    """Tabulate latency and memory per query, and what a method reads of each gallery place."""
    header = (
        "Model",
        "Method",
        "describe ms",
        "search ms",
        "re-rank ms",
        "total ms",
        "p95 ms",
        "peak MiB",
        "KiB/place",
    )
    rows: Rows = tuple(
        (
            outcome.contender.label,
            _method(outcome),
            *(_median(values) for values in (outcome.describe_ms, outcome.search_ms, outcome.rerank_ms)),
            _median(outcome.total_ms),
            round(float(np.percentile(outcome.total_ms, 95)), 2),
            round(float(outcome.peak_mib.max()), 1),
            round(outcome.place_bytes / 1024, 1),
        )
        for outcome in outcomes
    )
    return Table(
        "costs",
        "Cost per query: medians, 95th percentile of the total, largest memory of search and re-ranking",
        header,
        rows,
    )


def query_table(outcomes: Sequence[Outcome], thresholds_m: Sequence[float], local: bool = False) -> Table:
    """Tabulate one row per model, method and query: the answer, its error, its durations; ``local``: in metres."""
    header = (
        "model", "method", "query",
        *(("east_m", "north_m") if local else ("latitude_deg", "longitude_deg")), "nearest_gallery_m",
        "first", "first_error_m", "first_distance", "first_score",
        *(f"rank_within_{t:g}m" for t in thresholds_m),
        "describe_ms", "search_ms", "rerank_ms", "peak_mib",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for outcome in outcomes:
        ranks = [first_within(outcome.error_m, threshold) for threshold in thresholds_m]
        spent = (outcome.describe_ms, outcome.search_ms, outcome.rerank_ms, outcome.peak_mib)
        for row, (place, ranked) in enumerate(zip(outcome.queries, outcome.ranked, strict=True)):
            best = ranked[0] if ranked else None
            where = [place.latitude_deg, place.longitude_deg]
            if local:
                where = [round(float(metres), 3) for metres in wgs84_to_local(*where)]
            rows.append(
                (
                    outcome.contender.label, outcome.method, place.name, *where,
                    float(outcome.nearest_m[row]),
                    best.place.name if best else "", float(outcome.error_m[row, 0]),
                    best.distance if best else math.nan,
                    math.nan if best is None or best.score is None else best.score,
                    *(int(rank[row]) for rank in ranks),
                    *(float(values[row]) for values in spent),
                )
            )  # fmt: skip
    return Table("queries", "Every query", header, tuple(rows))


def _method(outcome: Outcome) -> str:
    """Return ``GeM`` or ``GeM + GeoWarp``, as in the paper's tables."""
    return " + ".join(part for part in (outcome.contender.aggregation, TITLES[outcome.method]) if part)


def _queries(outcomes: Sequence[Outcome]) -> int:
    return max((len(outcome.queries) for outcome in outcomes), default=0)


def _recall(outcome: Outcome, first: int, threshold_m: float, seed: int) -> Estimate:
    return _estimate(recall_hits(outcome.error_m, first, threshold_m).astype(float), seed)


def _estimate(values: np.ndarray, seed: int, signed: bool = False) -> Estimate:
    low, high = bootstrap_interval(values, seed)
    mean = float(values.mean()) if len(values) else math.nan
    return Estimate(100 * mean, 100 * low, 100 * high, signed)


def _distance_m(fix: Fix, place: Place) -> float:
    here, there = (fix.latitude_deg, fix.longitude_deg), (place.latitude_deg, place.longitude_deg)
    return float(distance_m(*here, *there))


def _quantile(values: np.ndarray, share: float) -> float:
    return round(float(np.quantile(values, share)), 3) if len(values) else math.nan


def _median(values: np.ndarray) -> float:
    return round(float(np.median(values)), 2)


def _text(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:g}" if math.isfinite(cell) else "–"
    return str(cell)


def _plain(column: str, cell: Cell) -> dict[str, Any]:
    if isinstance(cell, Estimate):
        return {column: cell.value, f"{column} low": cell.low, f"{column} high": cell.high}
    return {column: None if isinstance(cell, float) and not math.isfinite(cell) else cell}
