from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from geowarp_ros.errors import ConfigError, GalleryError, ModelError
from geowarp_ros.files import expanded, quoted, write_whole


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    for data in (b"first", b"", b"last"):
        write_whole(tmp_path / "file", data, ModelError)
        assert (tmp_path / "file").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["gallery", "my gallery", "Öl", "a'b", 'a"b c', "$HOME `x`", "a!b", "a\\b", ""])
def test_a_path_in_a_message_is_one_word_of_a_shell(name: str) -> None:
    assert shlex.split(f"geowarp view {quoted(name)} --port 1") == ["geowarp", "view", name, "--port", "1"]
    assert quoted(Path("my gallery")) == '"my gallery"', "it stands in single quotes"


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


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        ("~", "/home/ada"), ("~/g", "/home/ada/g"), ("$HOME/g", "/home/ada/g"), ("${HOME}/g", "/home/ada/g"),
        ("~root", str(Path("~root").expanduser())), ("$DATA/$SET/g", "/data/lund/g"), ("$NOWHERE/g", "$NOWHERE/g"),
        ("$HOMELY", "$HOMELY"), ("a~/g", "a~/g"), ("~nobody-here/g", "~nobody-here/g"),
        ("~$lock.jpg", "~$lock.jpg"),
        ("5$ note.jpg", "5$ note.jpg"), ("/a/b", "/a/b"), ("", "."),
    ],
)  # fmt: skip
def test_a_path_is_read_as_a_shell_would(path: str, whole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOME": "/home/ada", "DATA": "/data", "SET": "lund"}.items():
        monkeypatch.setenv(name, value)
    assert expanded(path) == Path(whole)


def test_a_home_that_is_needed_and_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    for path in ("$HOME/g", "${HOME}"):
        with pytest.raises(ConfigError, match=r"HOME.*: HOME is not set, expected the whole path"):
            expanded(path)
    assert expanded("~/g") == Path("~/g").expanduser()  # the user's, from the password file
    assert expanded("/g") == Path("/g")

    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.setattr("pwd.getpwuid", unknown)  # a container's user without an entry
    with pytest.raises(ConfigError, match="~/g: HOME is not set"):
        expanded("~/g")
    monkeypatch.setenv("HOME", "")
    for path in ("~", "~/g", "$HOME/g"):
        with pytest.raises(ConfigError, match="HOME is not set"):
            expanded(path)
