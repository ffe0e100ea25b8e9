"""A change of a gallery killed at random moments. ``python -m test.soak kills`` does it some hundred times."""

from __future__ import annotations

from pathlib import Path

from test.soak.kills import kill_changes


def test_a_killed_change_leaves_the_gallery_whole_and_can_be_ended(tmp_path: Path) -> None:
    seen = kill_changes(tmp_path, trials=4, seed=1)
    assert set(seen) == {"build", "build --replace", "add", "remove", "upgrade", "upgrade --model"}
    for name, counts in seen.items():
        assert counts.killed + counts.ended == 4, name
        assert counts.wholes == 4 + counts.resumed, name
    assert sum(counts.killed for counts in seen.values()) > 0
