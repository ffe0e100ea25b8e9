"""Two runs over the same drive side by side: what changed, and which images were gained and lost."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation import figures as draw
from geowarp_ros.evaluation import page, words
from geowarp_ros.evaluation.fixes import Judged


@dataclass(frozen=True, slots=True)
class Finished:
    """A run as it lies on disk.

    Attributes:
        name: Its folder's name.
        figures: results.json.
        images: Rows of images.csv whose true position is known, by image name.
        settings: run.json.
    """

    name: str
    figures: dict[str, Any]
    images: dict[str, dict[str, str]]
    settings: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Finished:
        """Read the folder that ``geowarp evaluate bag --output`` wrote.

        Raises:
            SourceError: A file is missing or is none of ours.
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
        column = {
            key: np.array([_number(row[key]) for row in rows], float)
            for key in ("error_east_m", "error_north_m", "confidence", "variance_east", "variance_north")
        }
        mixed = np.array([_number(row["covariance_east_north"]) for row in rows], float)
        covariance = np.stack([column["variance_east"], mixed, mixed, column["variance_north"]], axis=-1)
        return Judged(
            error_en_m=np.stack([column["error_east_m"], column["error_north_m"]], axis=-1).reshape(-1, 2),
            covariance_m2=covariance.reshape(-1, 2, 2),
            confidence=column["confidence"],
            fixed=np.array([row["status"] == "fix" for row in rows], bool),
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed from A to B over the images that both have.

    Attributes:
        images: Names of these images.
        gained: Right in B, not in A.
        lost: Right in A, not in B.
        newly_false: A false fix in B, none in A.
        no_longer_false: The other way round.
        median_change_m: Median change of the error where both have a fix; NaN of nothing.
        p_value: Of McNemar's exact test of gained against lost: how likely so uneven a split is by chance.
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
    """Compare two runs image by image, by A's distance that counts as right.

    Raises:
        SourceError: They have no image in common.
    """
    names = tuple(name for name in a.images if name in b.images)
    if not names:
        raise SourceError(f"{a.name} and {b.name} have no image in common: they are runs over different drives")
    correct = float(a.figures["correct_within_m"])
    first, second = a.judged(names), b.judged(names)
    right = [judged.fixed & (judged.error_m <= correct) for judged in (first, second)]
    false = [judged.fixed & (judged.error_m > correct) for judged in (first, second)]
    both = first.fixed & second.fixed
    change = (second.error_m - first.error_m)[both]
    gained, lost = _where(names, right[1] & ~right[0]), _where(names, right[0] & ~right[1])
    return Comparison(
        images=names,
        gained=gained,
        lost=lost,
        newly_false=_where(names, false[1] & ~false[0]),
        no_longer_false=_where(names, false[0] & ~false[1]),
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
    """Return (what, in A, in B) of the chief figures, with a dash where a run has none."""
    first, second = dict(words.summary_rows(a.figures)), dict(words.summary_rows(b.figures))
    return [(name, first.get(name, "–"), second.get(name, "–")) for name in dict.fromkeys([*first, *second])]


def change_rows(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (what, value) of what changed."""
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
    lists = [
        (title, names)
        for title, names in (
            ("Gained", comparison.gained),
            ("Lost", comparison.lost),
            ("Newly false", comparison.newly_false),
        )
        if names
    ]
    body = [
        f"<header><h1>{escape(a.name)} against {escape(b.name)}</h1><p>{escape(titles)}</p></header>",
        "<h2>What changed</h2><p>Over the images that both runs judged.</p>",
        page.table(["", ""], [list(row) for row in change_rows(comparison)]),
        "<h2>Figures</h2>" + page.table(["", "A", "B"], [list(row) for row in table_rows(a, b)]),
        '<div class="grid">'
        + page.panel("How wrong?", "Share of all images with a fix within a distance.", page.plot("cdf"))
        + page.panel(
            "Did it know?", "Precision and availability at every least confidence.", page.plot("tradeoff")
        )
        + "</div>",
        "<h2>Settings that differ</h2>" + page.table(["", "A", "B"], [list(row) for row in comparison.settings]),
        *(
            f"<details><summary>{title}: {len(names)}</summary><pre>{escape(chr(10).join(names))}</pre></details>"
            for title, names in lists
        ),
    ]
    drawn = {
        "cdf": draw.error_cdf(runs, [correct]),
        "tradeoff": draw.precision_availability(runs, correct),
    }
    page.write_page(path, f"{a.name} against {b.name} · geowarp", body, drawn)


def _different(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for key in dict.fromkeys([*a, *b]):
        first, second = a.get(key), b.get(key)
        if isinstance(first, dict) and isinstance(second, dict):
            found += _different(first, second, f"{prefix}{key}.")
        elif first != second:
            found.append((f"{prefix}{key}", _said(first), _said(second)))
    return found


def _said(value: Any) -> str:
    return "–" if value is None else str(value)


def _where(names: Sequence[str], chosen: np.ndarray) -> tuple[str, ...]:
    return tuple(name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen)


def _number(cell: str) -> float:
    return float(cell) if cell else math.nan
