from __future__ import annotations

import os
from pathlib import Path

import pytest

from geowarp_ros.errors import GalleryError, ModelError
from geowarp_ros.files import write_whole


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    for data in (b"first", b"", b"last"):
        write_whole(tmp_path / "file", data, ModelError)
        assert (tmp_path / "file").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_was_there_stays_when_the_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "file", b"before", ModelError)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GalleryError, match="file: cannot be written: No space left on device; what was there"):
        write_whole(tmp_path / "file", b"after", GalleryError)
    assert (tmp_path / "file").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_its_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be written: No such file"):
        write_whole(tmp_path / "absent" / "file", b"", ModelError)
