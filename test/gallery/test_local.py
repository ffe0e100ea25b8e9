"""Compact local features: near what went in, by the formats' own formulas, and through a gallery's life."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from geowarp_ros.gallery.local import (
    CODEBOOK,
    CODES,
    SCALES,
    Form,
    compress_local_features,
    layout,
    read_local_features,
)
from geowarp_ros.gallery.making.build import add_to_gallery, build_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.readers import Source, read_source
from test.gallery.conftest import ColourDescriber, MakeSource


@pytest.fixture
def features(tmp_path: Path) -> NDArray[np.float16]:
    """Eight images of 16 channels, unit length at each cell."""
    values = np.random.default_rng(0).normal(size=(8, 16, 15, 15))
    features: NDArray[np.float16] = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)
    np.save(tmp_path / "local_features.npy", features)
    return features


def stored(folder: Path, form: Form, rows: int, channels: int) -> dict[str, NDArray[Any]]:
    return {name: np.load(folder / name) for name in layout(form, rows, channels)}


def test_int8_rounds_to_the_nearest_127th_of_each_cells_largest(
    features: NDArray[np.float16], tmp_path: Path
) -> None:
    compress_local_features(tmp_path, "int8")
    arrays = stored(tmp_path, "int8", 8, 16)
    largest = np.abs(features.astype(np.float32)).max(axis=1)
    np.testing.assert_allclose(arrays[SCALES], largest / 127, rtol=1e-3)
    back = np.stack([read_local_features("int8", arrays, row) for row in range(8)])
    assert np.abs(back - features.astype(np.float32)).max() < 0.006  # half a step of the largest, and rounding
    np.testing.assert_allclose(np.linalg.norm(back.astype(float), axis=1), 1, atol=1e-3)


def test_pq_takes_the_nearest_entry_of_each_part(features: NDArray[np.float16], tmp_path: Path) -> None:
    compress_local_features(tmp_path, "pq")
    arrays = stored(tmp_path, "pq", 8, 16)
    codebook, codes = arrays[CODEBOOK], arrays[CODES]
    assert codebook.shape == (2, 256, 8) and codes.shape == (8, 15, 15, 2)
    cells = features.astype(np.float32).transpose(0, 2, 3, 1).reshape(-1, 2, 8)
    nearest = ((cells[:, :, None] - codebook[None]) ** 2).sum(axis=3).argmin(axis=2)
    assert (nearest == codes.reshape(-1, 2)).mean() > 0.999  # ties by rounding
    expected = np.concatenate([codebook[0][codes[3, ..., 0]], codebook[1][codes[3, ..., 1]]], axis=-1)
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(read_local_features("pq", arrays, 3), expected.transpose(2, 0, 1), atol=1e-3)


@pytest.mark.parametrize("form", ["int8", "pq"])
def test_cells_of_zeros_stay(tmp_path: Path, form: Form) -> None:
    np.save(tmp_path / "local_features.npy", np.zeros((1, 8, 15, 15), np.float16))
    compress_local_features(tmp_path, form)
    back = read_local_features(form, stored(tmp_path, form, 1, 8), 0)
    assert back.dtype == np.float16 and not back.any()


@pytest.mark.parametrize("form", ["int8", "pq"])
def test_a_gallery_keeps_its_form(source: Source, make_source: MakeSource, tmp_path: Path, form: Form) -> None:
    path = build_gallery(source, ColourDescriber(), tmp_path / "g", local_features=form).gallery
    assert not (path / "segments/0001/local_features.npy").exists()
    add_to_gallery(read_source(make_source(2, "more", first=7)), ColourDescriber(), path)
    opened = Gallery.open(path)
    assert [segment.local_features for segment in opened.manifest.segments] == [form, form]
    if form == "pq":  # one codebook: two images would be too few for their own
        first, second = (np.load(path / f"segments/000{number}" / CODEBOOK) for number in (1, 2))
        np.testing.assert_array_equal(first, second)
    half = Gallery.open(build_gallery(source, ColourDescriber(), tmp_path / "half").gallery)
    raw = half.local_features(range(7)).astype(float)
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)  # the describer of these tests does not normalise
    np.testing.assert_allclose(opened.local_features(range(7)), unit, atol=0.02)
    assert opened.verify() == []


class Killed(BaseException):
    """Not an Exception, as a kill is none."""


def test_killed_while_compressing(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geowarp_ros.gallery.making import segment

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):  # after the compressed files, before the rest
        patch.setattr(segment, "table_of", killed)
        build_gallery(source, ColourDescriber(), tmp_path / "g", local_features="int8")
    second = ColourDescriber()
    assert build_gallery(source, second, tmp_path / "g", local_features="int8").resumed == 7
    assert second.batches == [] and Gallery.open(tmp_path / "g").verify() == []
