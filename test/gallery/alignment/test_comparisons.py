"""Pairs compared so far: whole records survive a kill, those of photographs that changed do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from geowarp_ros.gallery.alignment import comparisons
from geowarp_ros.gallery.alignment.comparisons import ComparedPairs
from geowarp_ros.gallery.alignment.pairs import Pair
from geowarp_ros.gallery.manifest import Segment, StoredFile


def segment(name: str, images: int, keypoints: str = "k", camera: str | None = None) -> Segment:
    sums = {"keypoints.npy": keypoints, "keypoint_descriptors.npy": keypoints}
    sums |= {} if camera is None else {"cameras.json": camera, "camera_numbers.npy": camera}
    files = {file: StoredFile(size=1, blake2b=content) for file, content in sums.items()}
    return Segment(
        name=name, images=images, image_bytes=0, source="", copied=True, options={}, created="", files=files
    )


def pair(first: int, second: int, matches: int) -> Pair:
    rng = np.random.default_rng((first, second))
    numbers = rng.integers(0, 2000, (matches, 2)).astype(np.int32)
    return Pair(first, second, rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(), numbers, rng.uniform())


def assert_pair(found: Pair, expected: Pair, first: int, second: int) -> None:
    assert (found.first, found.second) == (first, second)
    for name in ("rotation", "direction", "matches"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert (found.parallax_rad, found.share) == (expected.parallax_rad, expected.share)
    assert found.matches.dtype == np.int32


TWO = (segment("0001", 2), segment("0002", 3))
PAIRS = [pair(0, 1, 3), pair(0, 2, 0), pair(3, 4, 2)]


def filled(folder: Path, segments: Sequence[Segment] = TWO) -> ComparedPairs:
    pairs = ComparedPairs(folder, segments)
    for one in PAIRS:
        pairs[one.first, one.second] = one
    return pairs


def test_round_trip(tmp_path: Path) -> None:
    filled(tmp_path)
    found = ComparedPairs(tmp_path, TWO)
    assert [*found] == [(0, 1), (0, 2), (3, 4)]
    for one in PAIRS:
        assert_pair(found[one.first, one.second], one, one.first, one.second)
    assert [len(one) for one in found.values()] == [3, 0, 2]


@pytest.mark.parametrize(
    ("focal_px", "kept"),
    [({(320, 240): 212.0}, 1), ({(320, 240): 220.0}, 0), ({(240, 240): 210.0}, 0), ({}, 0)],
    ids=["nearly the same", "another", "another size", "none"],
)
def test_pairs_compared_with_another_focal_length_are_forgotten(
    tmp_path: Path, focal_px: dict[tuple[int, int], float], kept: int
) -> None:
    ComparedPairs(tmp_path, TWO, {(320, 240): 210.0})[0, 1] = PAIRS[0]
    assert len(ComparedPairs(tmp_path, TWO, focal_px)) == kept
    if kept:  # many small changes are a great one
        assert len(ComparedPairs(tmp_path, TWO, {(320, 240): 214.2 + 2})) == 0


def test_a_kill_at_any_byte_keeps_the_whole_records(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / "alignment/pairs.bin"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    ends = [first]
    for one in PAIRS:
        ends.append(ends[-1] + 4 + 4 + 14 * 8 + 4 + 8 * len(one) + 4)
    assert ends[-1] == len(whole)
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        kept = sum(end <= length for end in ends[1:])
        found = ComparedPairs(tmp_path, TWO)
        assert len(found) == kept, length
        found[1, 2] = pair(1, 2, 1)  # what is appended comes after a whole record
        again = ComparedPairs(tmp_path, TWO)
        assert [*again] == [*[(0, 1), (0, 2), (3, 4)][:kept], (1, 2)]
        assert_pair(again[1, 2], pair(1, 2, 1), 1, 2)


def test_a_flipped_byte_ends_what_is_believed(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / "alignment/pairs.bin"
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for at in range(start, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        found = ComparedPairs(tmp_path, TWO)
        assert len(found) < 3
        for rows, one in found.items():
            assert_pair(one, {(p.first, p.second): p for p in PAIRS}[rows], *rows)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"rubbish", b"[]\n", b"null\n", b"5\nx", b'{"version": 1}\n', b'{"version": 1, "segments": 5}\n',
     b'{"version": 1, "segments": [[]]}\n', b'{"version": 1, "segments": [["a", "b"]]}\n', b"\xff\xfe\n",
     b"[" * 100_000 + b"\n", bytes(400)],
)  # fmt: skip
def test_a_foreign_file_is_forgotten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "alignment").mkdir()
    (tmp_path / "alignment/pairs.bin").write_bytes(content)
    assert len(ComparedPairs(tmp_path, TWO)) == 0
    filled(tmp_path)
    assert len(ComparedPairs(tmp_path, TWO)) == 3


def test_pairs_of_another_version_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    monkeypatch.setattr(comparisons, "VERSION", comparisons.VERSION + 1)
    assert len(ComparedPairs(tmp_path, TWO)) == 0
    monkeypatch.undo()
    assert len(ComparedPairs(tmp_path, TWO)) == 0


def test_pairs_of_segments_that_are_gone_or_changed_are_forgotten_and_others_renumbered(tmp_path: Path) -> None:
    filled(tmp_path)
    gone = ComparedPairs(tmp_path, TWO[1:])
    assert [*gone] == [(1, 2)]
    assert_pair(gone[1, 2], PAIRS[2], 1, 2)
    assert_pair(ComparedPairs(tmp_path, TWO[1:])[1, 2], PAIRS[2], 1, 2)
    assert [*ComparedPairs(tmp_path, TWO)] == [(3, 4)], "what was forgotten stays so"


@pytest.mark.parametrize("changed", [segment("0001", 2, "other"), segment("0001", 2, camera="c")])
def test_other_keypoints_or_a_camera_added(tmp_path: Path, changed: Segment) -> None:
    filled(tmp_path)
    found = ComparedPairs(tmp_path, (changed, TWO[1]))
    assert [*found] == [(3, 4)]


def test_what_is_added_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path)
    assert [*ComparedPairs(tmp_path, (*TWO, segment("0003", 4)))] == [(0, 1), (0, 2), (3, 4)]
    assert [*ComparedPairs(tmp_path, (segment("0000", 4), *TWO))] == [(4, 5), (4, 6), (7, 8)]
