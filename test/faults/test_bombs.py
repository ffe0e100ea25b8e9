"""Absurd sizes are refused by name, and before memory is taken."""

from __future__ import annotations

import pytest

from geowarp_ros.evaluation.memory import keeps_peak
from test.faults.bombs import Bomb, bombs, read_apart

LIMIT_MIB = 80
"""What any of them may take: the least of them would be 120 MB."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Bomb]:
    return bombs(tmp_path_factory.mktemp("bombs"))


@pytest.mark.skipif(not keeps_peak(), reason="this system keeps no peak of resident memory")
def test_absurd_sizes_are_refused_before_memory_is_taken(files: list[Bomb]) -> None:
    for bomb in files:
        refusal = read_apart(bomb)
        assert bomb.said in refusal.message, f"{bomb.name}: {refusal}"
        assert refusal.message.split(":")[0].endswith("Error") and "\n" not in refusal.message, refusal
        assert refusal.peak_mib < LIMIT_MIB, f"{bomb.name}: {refusal}"


@pytest.mark.skipif(not keeps_peak(), reason="this system keeps no peak of resident memory")
def test_the_measure_measures() -> None:
    """Memory that is taken and given back is seen."""
    taken = read_apart(Bomb("bytes", 0, lambda: len(b"\1" * (LIMIT_MIB << 20)), ""))
    assert taken.peak_mib > 0.9 * LIMIT_MIB
