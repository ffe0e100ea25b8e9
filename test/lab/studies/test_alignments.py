"""The table of alignments against errors made by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.lab.studies.alignments import alignment_row, alignment_table
from geowarp_ros.lab.world.tags import Tags
from geowarp_ros.types import Place

DATUM = (48.0, 11.0, 0.0)
NAMES = [f"{k}.jpg" for k in range(11)]


def places(east_m: Any, north_m: Any) -> list[Place]:
    latitude, longitude, _ = LocalFrame(*DATUM).to_geodetic(
        np.column_stack([east_m, north_m, np.zeros(len(east_m))])
    )
    return [Place(name, lat, lon) for lat, lon, name in zip(latitude, longitude, NAMES, strict=True)]


class Aligned(SimpleNamespace):
    """What of a gallery is asked for."""

    def __len__(self) -> int:
        return len(self.places)


def gallery(told: list[Place], own: Any, tied: Any, suspects: tuple[str, ...] = ()) -> Any:
    summary = SimpleNamespace(suspicious=[SimpleNamespace(name=name) for name in suspects])
    alignment = SimpleNamespace(datum=DATUM, tied=tied, position_m=own, component=np.where(tied, 0, -1))
    return Aligned(
        alignment=alignment,
        manifest=SimpleNamespace(alignment=SimpleNamespace(summary=summary)),
        numbers=SimpleNamespace(stored=lambda rows: rows),
        places=told,
    )


def test_errors_by_hand() -> None:
    along = np.arange(11) * 10.0
    truth = places(along, np.zeros(11))
    # every tag 3 m east, one of them 15 m north, too; the alignment is 0.5 m north of the truth
    north = np.zeros(11)
    north[4] = 15.0
    told = places(along + 3.0, north)
    own = np.column_stack([along, np.full(11, 0.5), np.zeros(11)])
    tied = np.ones(11, bool)
    tied[10] = False
    made = gallery(told, own, tied, ("4.jpg", "7.jpg"))
    row = alignment_row("street", made, truth, Tags(outliers=0.1))
    assert row is not None
    name, share, groups, off_tags, off, exact, over, named = row
    assert (name, share, groups) == ("street", "10 of 11", 1)
    assert off_tags == f"3.00 / {np.quantile([3.0] * 9 + [math.hypot(3, 15)], 0.95):.2f} m"
    assert off == "0.50 / 0.50 m"
    # tags differ where the outlier is one of two; all are off alike, so that most differences are exact
    assert over == "0.00, 0.00 m"
    assert named == "1 of 1, 1"
    # the tied ten's tags are 3 m east and 1.5 m north in the mean, and turned a little by the outlier
    assert float(str(exact).split()[0]) == pytest.approx(math.hypot(3.0, 1.5), abs=0.2)
    assert "street" in alignment_table([row]).markdown()


def test_without_an_alignment_there_is_no_row() -> None:
    truth = places(np.arange(11) * 10.0, np.zeros(11))
    loose = gallery(truth, np.zeros((11, 3)), np.zeros(11, bool))
    assert alignment_row("street", loose, truth, Tags()) is None
    loose.alignment = None
    assert alignment_row("street", loose, truth, Tags()) is None
