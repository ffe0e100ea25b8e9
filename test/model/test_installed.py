"""Names of weights, and the folder where downloaded ones lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from geowarp_ros.errors import ModelError
from geowarp_ros.model.installed import (
    DEFAULT_MODEL,
    find_noted,
    find_weights,
    installed_weights,
    names,
    noted_file,
    weights_folder,
)


def test_the_folder_is_the_users_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEOWARP_WEIGHTS", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights_folder() == tmp_path / ".local/share/geowarp_ros/weights"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert weights_folder() == tmp_path / "data/geowarp_ros/weights"
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(tmp_path / "own"))
    assert weights_folder() == tmp_path / "own"


def test_a_name_is_a_file_here_or_one_that_was_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelError, match=r"salad: is no file, and no weights .*'geowarp models get salad' fetches"
    ):
        find_weights("salad")
    with pytest.raises(ModelError, match=r"salat: .*'geowarp models' lists .* \(did you mean 'salad'\?\)"):
        find_weights("salat")
    assert find_weights("cosplace.safetensors") == Path("cosplace.safetensors")  # a path, and absent
    assert find_weights("models/cosplace") == Path("models/cosplace")
    stored = installed_weights("cosplace")
    stored.parent.mkdir()
    stored.write_bytes(b"")
    Path("cosplace").mkdir()  # a gallery, perhaps
    assert find_weights("cosplace") == stored
    Path("cosplace").rmdir()
    assert {"cosplace", "salad"} <= set(names())
    Path("cosplace").write_bytes(b"")
    assert find_weights("cosplace") == Path("cosplace")


def test_a_gallery_notes_where_its_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gallery = Path("data/gallery")
    for file, noted in (
        (DEFAULT_MODEL, "default"),
        (None, ""),
        (Path("data/gallery/m"), "./m"),
        (Path("data/runs/m.safetensors"), "../runs/m.safetensors"),
        (Path("m.safetensors"), f"{tmp_path}/m.safetensors"),  # neither in the gallery nor beside it
    ):
        assert noted_file(file, gallery) == noted
        assert find_noted(noted, gallery) == (DEFAULT_MODEL if noted in ("", "default") else tmp_path / str(file))
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(tmp_path / "weights"))
    assert noted_file(installed_weights("cosplace"), gallery) == "cosplace"
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(tmp_path / "of the robot"))
    assert find_noted("cosplace", gallery) == tmp_path / "of the robot" / "cosplace.safetensors"
    assert find_weights("gallery") == DEFAULT_MODEL  # where there is no gallery
