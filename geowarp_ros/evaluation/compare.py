"""Comparison of two runs over the same drive: figures, and the images that were gained and lost."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation import figures as draw
from geowarp_ros.evaluation import page, words
from geowarp_ros.evaluation.fixes import Judged


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run, read from its folder.

    Attributes:
        name: Name of the folder.
        figures: Content of results.json.
        images: Rows of images.csv whose true position is known, by image name.
        settings: Content of run.json.
    """

    name: str
    figures: dict[str, Any]
    images: dict[str, dict[str, str]]
    settings: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Finished:
        """Read the folder that ``geowarp evaluate bag --output`` wrote.

        Raises:
            SourceError: A file is missing, damaged or of another version.
        """
        try:
            figures = json.loads((folder / "results.json").read_text())
            settings = json.loads((folder / "run.json").read_text())
            with (folder / "images.csv").open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if row["true_latitude"]]
            words.summary_rows(figures)
        except OSError as error:
            raise SourceError(f"{folder}: is no finished run of 'geowarp evaluate bag': {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(f"{folder}: results are damaged or of another version: {error!r}") from None
        return cls(folder.resolve().name, figures, {row["image"]: row for row in rows}, settings)

    def judged(self, names: Sequence[str]) -> Judged:
        """Return the answers to these images."""
        rows = [self.images[name] for name in names]
        error = ("error_east_m", "error_north_m")
        covariance = ("variance_east", "covariance_east_north", "covariance_east_north", "variance_north")
        columns = (*error, *covariance, "confidence")
        values = np.array([[float(row[column] or "nan") for column in columns] for row in rows])
        fixed = np.array([row["status"] == "fix" for row in rows], bool)
        return Judged(values[:, :2], values[:, 2:6].reshape(-1, 2, 2), values[:, 6], fixed)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The changes from A to B over the images that both have.

    Attributes:
        images: Names of these images.
        gained: Right in B, not in A.
        lost: Right in A, not in B.
        newly_false: False fix in B, none in A.
        no_longer_false: False fix in A, none in B.
        median_change_m: Median change of the error (m) where both have a fix; NaN if there is none.
        p_value: p-value of McNemar's exact test: probability of so uneven a split of gained and lost by chance.
        settings: (name, in A, in B) of every setting that differs.
    """

    images: tuple[str, ...]
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    newly_false: tuple[str, ...]
    no_longer_false: tuple[str, ...]
    median_change_m: float
    p_value: float
    settings: tuple[tuple[str, str, str], ...]


def compare(a: Finished, b: Finished) -> Comparison:
    """Compare two runs image by image; what counts as right is A's ``correct_within_m``.

    Raises:
        SourceError: They have no image in common.
    """
    names = tuple(name for name in a.images if name in b.images)
    if not names:
        raise SourceError(f"{a.name} and {b.name} have no image in common: they are runs over different drives")
    correct = float(a.figures["correct_within_m"])
    first, second = a.judged(names), b.judged(names)
    right_a, right_b = (judged.fixed & (judged.error_m <= correct) for judged in (first, second))
    false_a, false_b = (judged.fixed & (judged.error_m > correct) for judged in (first, second))
    change = (second.error_m - first.error_m)[first.fixed & second.fixed]
    gained, lost = tuple(compress(names, right_b & ~right_a)), tuple(compress(names, right_a & ~right_b))
    return Comparison(
        images=names,
        gained=gained,
        lost=lost,
        newly_false=tuple(compress(names, false_b & ~false_a)),
        no_longer_false=tuple(compress(names, false_a & ~false_b)),
        median_change_m=float(np.median(change)) if len(change) else math.nan,
        p_value=mcnemar(len(gained), len(lost)),
        settings=tuple(_different(a.settings, b.settings)),
    )


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value that gains and losses are equally likely (McNemar 1947, by the binomial)."""
    total = gained + lost
    tail: int = sum(math.comb(total, k) for k in range(min(gained, lost) + 1))
    return min(1.0, float(2 * tail / 2**total))


def table_rows(a: Finished, b: Finished) -> list[tuple[str, str, str]]:
    """Return (name, in A, in B) of the main figures, with a dash if a run has none."""
    first, second = dict(words.summary_rows(a.figures)), dict(words.summary_rows(b.figures))
    return [(name, first.get(name, "–"), second.get(name, "–")) for name in dict.fromkeys([*first, *second])]


def change_rows(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (name, value) of the changes."""
    change = comparison.median_change_m
    return [
        ("images in both", str(len(comparison.images))),
        ("gained (right in B alone)", str(len(comparison.gained))),
        ("lost (right in A alone)", str(len(comparison.lost))),
        ("by chance (McNemar, two-sided)", f"p = {comparison.p_value:.3g}"),
        ("newly false fixes", str(len(comparison.newly_false))),
        ("no longer false fixes", str(len(comparison.no_longer_false))),
        ("median change of the error", "–" if math.isnan(change) else f"{change:+.2f} m"),
    ]


def write_comparison(a: Finished, b: Finished, comparison: Comparison, path: Path) -> None:
    """Write both runs side by side as one HTML file that opens offline."""
    correct = float(a.figures["correct_within_m"])
    runs = [(f"{letter}: {run.name}", run.judged(comparison.images)) for letter, run in (("A", a), ("B", b))]
    titles = " · ".join(dict.fromkeys(str(run.figures.get("title", "")) for run in (a, b)))
    errors, tradeoff = draw.error_cdf(runs, [correct]), draw.precision_availability(runs, correct)
    lead = "Precision and availability at every minimum confidence."
    panels = [
        page.Panel("cdf", "How wrong?", "Share of all images with a fix within a distance.", errors),
        page.Panel("tradeoff", "Did it know?", lead, tradeoff),
    ]
    lists = {"Gained": comparison.gained, "Lost": comparison.lost, "Newly false": comparison.newly_false}
    body = [
        f"<header><h1>{escape(a.name)} against {escape(b.name)}</h1><p>{escape(titles)}</p></header>",
        "<h2>What changed</h2><p>Over the images that both runs judged.</p>",
        page.table(["", ""], change_rows(comparison)),
        "<h2>Figures</h2>" + page.table(["", "A", "B"], table_rows(a, b)),
        page.grid(panels),
        "<h2>Settings that differ</h2>" + page.table(["", "A", "B"], comparison.settings),
        *(
            f"<details><summary>{title}: {len(names)}</summary><pre>{escape(chr(10).join(names))}</pre></details>"
            for title, names in lists.items()
            if names
        ),
    ]
    page.write_page(path, f"{a.name} against {b.name} · geowarp", body, {p.name: p.figure for p in panels})


def _different(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for key in dict.fromkeys([*a, *b]):
        first, second = a.get(key), b.get(key)
        if isinstance(first, dict) and isinstance(second, dict):
            found += _different(first, second, f"{prefix}{key}.")
        elif first != second:
            in_a, in_b = ("–" if value is None else str(value) for value in (first, second))
            found.append((f"{prefix}{key}", in_a, in_b))
    return found
