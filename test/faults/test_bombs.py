"""Absurd sizes are refused by name, and before memory is taken."""

from __future__ import annotations

import pytest

from geowarp_ros.lab.studies.memory import keeps_peak
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
@pytest.mark.parametrize("mib", [0, LIMIT_MIB])
def test_the_measure_measures(mib: int) -> None:
    """What is taken and given back is seen, and no more: not what this process freed and its allocator kept."""
    blocks = [bytes(4096) for _ in range((2 * LIMIT_MIB << 20) // 4096)]
    last = blocks[-1]  # holds the end of the heap, so that nothing before it is given back of itself
    del blocks
    taken = read_apart(Bomb("bytes", 0, lambda: len(b"\1" * (mib << 20)), ""))
    assert len(last) == 4096
    assert taken.peak_mib == pytest.approx(mib, abs=0.1 * LIMIT_MIB)
