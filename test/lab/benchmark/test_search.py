"""The measurement of search: its generator is what it says, its rows are true of a small gallery."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from geowarp_ros.cli import main
from geowarp_ros.gallery.index.indexing import IndexOptions
from geowarp_ros.gallery.making.build import index_gallery
from geowarp_ros.gallery.manifest import PLACES, POSITIONS_FILE, SEGMENTS, read_manifest
from geowarp_ros.gallery.places import PlaceTable
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.lab.benchmark import search, synthetic
from geowarp_ros.lab.benchmark.report import table
from geowarp_ros.lab.benchmark.search import measure_prior, measure_search, nearest_by_blocks
from geowarp_ros.lab.benchmark.synthetic import PER_PLACE, descriptor_blocks, queries_of, write_gallery


def test_descriptors_are_of_places_and_reproducible() -> None:
    rows = np.concatenate(list(descriptor_blocks(25_000, 48, seed=3)))
    assert rows.shape == (25_000, 48) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(np.concatenate(list(descriptor_blocks(20_100, 48, seed=3))), rows[:20_100])
    assert not np.array_equal(next(descriptor_blocks(100, 48, seed=4)), rows[:100])
    first = rows[:PER_PLACE]
    within = ((first[:, None] - first) ** 2).sum(axis=2).max()
    between = ((first[:, None] - rows[PER_PLACE:1000]) ** 2).sum(axis=2)
    assert within < np.median(between)
    # 32 directions hold nearly everything
    variances = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    assert variances[:32].sum() > 0.99 * variances.sum()


def test_queries_are_near_a_photograph_and_not_it() -> None:
    rows = np.concatenate(list(descriptor_blocks(25_000, 48, seed=3)))
    asked = queries_of(25_000, 48, 30, seed=3)
    nearest = np.sqrt(((asked[:, None] - rows) ** 2).sum(axis=2).min(axis=1))
    assert asked.shape == (30, 48) and (nearest > 0.1).all() and (nearest < 0.45).all()


def test_the_gallery_is_one(tmp_path: Path) -> None:
    write_gallery(tmp_path / "g", 1000, 16, seed=0)
    opened = Gallery.open(tmp_path / "g")
    np.testing.assert_array_equal(opened.descriptors, next(descriptor_blocks(1000, 16, seed=0)))
    extent = np.ptp(opened.positions_enu[:, :2], axis=0)
    assert extent == pytest.approx([90, 90], rel=5e-3)  # a hundred places, ten by ten, 10 m apart
    index = index_gallery(tmp_path / "g", IndexOptions(kind="ivf-sq", on_disk=True))
    assert index is not None and index.on_disk
    assert Gallery.open(tmp_path / "g").search(opened.descriptors[417])[0].place.name == "00000417.jpg"


def test_places_are_written_in_blocks_as_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gallery(tmp_path / "whole", 1000, 8, seed=0)
    monkeypatch.setattr(synthetic, "_BLOCK", 130)
    write_gallery(tmp_path / "blocks", 1000, 8, seed=0)
    for name in (PLACES, POSITIONS_FILE):
        whole, blocks = ((tmp_path / g / SEGMENTS / "0001" / name).read_bytes() for g in ("whole", "blocks"))
        assert blocks == whole
    assert PlaceTable(tmp_path / "blocks" / SEGMENTS / "0001" / PLACES)[999].place.name == "00000999.jpg"


def test_the_nearest_by_blocks_are_the_nearest(tmp_path: Path) -> None:
    write_gallery(tmp_path, 1000, 16, seed=0)
    rows, asked = next(descriptor_blocks(1000, 16, seed=0)), queries_of(1000, 16, 25, seed=0)
    distances = ((asked[:, None].astype(float) - rows) ** 2).sum(axis=2)
    for block in (30, 333, 1000):
        found = nearest_by_blocks(tmp_path, asked, block)
        np.testing.assert_array_equal(found, distances.argsort(axis=1)[:, :20])


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Works in this process: starting others takes longer than what is tested."""
    monkeypatch.setattr(search, "_in_own_process", lambda work, *arguments: work(*arguments))


@pytest.mark.usefixtures("here")
def test_rows(tmp_path: Path) -> None:
    exact, compressed = measure_search([1000], 16, ["exact", "ivf-sq"], queries=15, folder=tmp_path)
    assert (exact["images"], exact["kind"], exact["recall"], exact["index_bytes"]) == (1000, "exact", 1, 0)
    assert math.isnan(exact["cold_p50_ms"]) and compressed["cold_p50_ms"] > 0
    assert 0.9 < compressed["recall"] <= 1 and 0.9 < compressed["promised_recall"] <= 1
    index_file = tmp_path / "1000-16-0-ivf-sq/index/0001/index.faiss"
    assert compressed["index_bytes"] == index_file.stat().st_size / 1000
    assert 0 < compressed["search_p50_ms"] <= compressed["search_p99_ms"]
    assert compressed["search_cpu_ms"] > 0 and compressed["search_cpu_p99_ms"] > 0
    again, on_disk = measure_search([1000], 16, ["ivf-sq", "ivf-sq-disk"], queries=15, folder=tmp_path)
    assert (again["build_s"], again["recall"]) == (compressed["build_s"], compressed["recall"])
    assert (on_disk["build_s"], on_disk["recall"]) == (compressed["build_s"], compressed["recall"])  # made once
    in_memory, mapped = (read_manifest(tmp_path / f"1000-16-0-{k}").index for k in ("ivf-sq", "ivf-sq-disk"))
    assert in_memory is not None and mapped is not None
    assert (in_memory.on_disk, mapped.on_disk) == (False, True) and in_memory.files == mapped.files


@pytest.mark.usefixtures("here")
def test_circles() -> None:
    small, all_ = measure_prior(1000, 16, radii_m=[11], queries=5)
    assert 30 <= small["inside"] <= 50  # a corner's three places to five, of ten photographs each
    assert (all_["radius_m"], all_["inside"]) == (math.inf, 1000)


def test_the_verb_writes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--parts", "search", "--galleries", "300", "--dim", "8", "--kinds", "exact", "--queries", "3"]
    assert main(["benchmark", "--output", str(tmp_path), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("| images | kind | build_s |") for line in lines)
    assert any(line.startswith("| 300 | exact | ") for line in lines)
    (row,) = json.loads((tmp_path / "benchmark.json").read_text())["parts"]["search"]
    assert (row["images"], row["kind"], row["recall"]) == (300, "exact", 1.0)
    assert lines[-3] in (tmp_path / "benchmark.md").read_text()


def test_a_table_of_numbers() -> None:
    assert table([{"a": 1000, "b": float("nan")}, {"a": 2, "b": 1234.5}, {"a": "x", "b": 0.01234}]) == (
        "| a | b |\n| ---: | ---: |\n| 1,000 | – |\n| 2 | 1,234 |\n| x | 0.0123 |\n"
    )
