"""Bad input through the command line: status 1 and one line that names file, value and what was expected, or a
counted skip where the rest is good; and nothing is lost. ``python -m test.soak bad-input`` prints the lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from geowarp_ros.gallery.store import Gallery
from test.faults.bad_input import CASES, check, run_here


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, tmp_path: Path) -> None:
    case = CASES[name](tmp_path)
    check(case, run_here(case))


def test_a_build_that_found_the_disk_full_goes_on(tmp_path: Path) -> None:
    case = CASES["disk full during a build"](tmp_path)
    check(case, run_here(case))
    outcome = run_here(type(case)(case.words, (), 0))  # with room
    assert outcome.status == 0 and "3 images, 3 added" in outcome.out, outcome
    assert Gallery.open(tmp_path / "gallery").verify() == []
