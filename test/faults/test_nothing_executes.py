"""Every file that this package reads, made to run something: it is refused, and nothing has run."""

from __future__ import annotations

import os
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from geowarp_ros.errors import GalleryError, GeowarpError, ModelError, SourceError
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.integrity.calibration import load_calibration
from geowarp_ros.lab.training.teacher import load_teacher
from geowarp_ros.model.checkpoints import load_model
from geowarp_ros.model.learned import load_matcher
from geowarp_ros.model.published import import_weights
from geowarp_ros.readers import read_source
from test.faults.mutations import write_source
from test.gallery import bags
from test.gallery.conftest import ColourDescriber


class Payload:
    """Makes the file ``path`` when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    return tmp_path / "it ran"


def test_the_payload_works(proof: Path) -> None:
    pickle.loads(pickle.dumps(Payload(proof)))
    assert proof.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_pickles_in_model_files(proof: Path, tmp_path: Path) -> None:
    files = {}
    for name, zipped in (("new.pth", True), ("old.pth", False)):
        files[name] = tmp_path / name
        torch.save({"conv1.weight": Payload(proof)}, files[name], _use_new_zipfile_serialization=zipped)
    files["bare.pth"] = tmp_path / "bare.pth"
    files["bare.pth"].write_bytes(pickle.dumps(Payload(proof)))
    for path in files.values():
        for read in (
            lambda path=path: import_weights("resnet18", "gem", path),
            lambda path=path: load_teacher(path),
            lambda path=path: load_matcher("loftr", path),
            lambda path=path: load_model(path),
        ):
            with pytest.raises(ModelError):
                read()
    assert not proof.exists()


@pytest.mark.parametrize("name", ["descriptors.npy", "local_features.npy"])
def test_pickles_in_a_gallery(name: str, proof: Path, tmp_path: Path) -> None:
    source = read_source(write_source(tmp_path / "source"))
    gallery = build_gallery(source, ColourDescriber(), tmp_path / "gallery").gallery
    path, manifest = gallery / "segments" / "0001" / name, gallery / "gallery.json"
    size = path.stat().st_size
    np.save(path, np.array([Payload(proof)], object), allow_pickle=True)
    sizes = f'"size": {size}', f'"size": {path.stat().st_size}'
    assert sizes[0] in manifest.read_text()
    manifest.write_text(manifest.read_text().replace(*sizes))
    with pytest.raises(GalleryError, match="no array: Array can't be memory-mapped: Python objects in dtype"):
        Gallery.open(gallery)
    path.write_bytes(pickle.dumps(Payload(proof)).ljust(path.stat().st_size, b"\0"))
    with pytest.raises(GalleryError, match="no array"):
        Gallery.open(gallery)
    (gallery / "calibration.json").write_bytes(pickle.dumps(Payload(proof)))
    with pytest.raises(GalleryError, match=r"calibration\.json: is no calibration"):
        load_calibration(gallery / "calibration.json")
    assert not proof.exists()


def test_commands_in_the_schema_of_a_damaged_sqlite_bag(proof: Path, tmp_path: Path) -> None:
    """One of its tables' definitions would open another file."""
    folder = bags.write_bag(tmp_path / "bag", bags.drive(), "sqlite3")
    path = folder / "bag.db3"
    with closing(sqlite3.connect(path)) as bag:
        bag.execute("CREATE TABLE aaa (x)")
        bag.execute("CREATE TABLE bbb (x)")
        bag.execute("PRAGMA writable_schema=ON")
        bag.execute("UPDATE sqlite_master SET sql=? WHERE name='aaa'", (f"ATTACH DATABASE '{proof}' AS other",))
        bag.execute("UPDATE sqlite_master SET sql='CREATE TABLE other.made (x)' WHERE name='bbb'")
        bag.commit()
    (folder / "metadata.yaml").unlink()
    with pytest.raises(SourceError, match="cannot be read as a ROS bag"):
        read_source(folder)
    assert not proof.exists()


def test_yaml_tags_and_formulas_are_text(proof: Path, tmp_path: Path) -> None:
    folder = bags.write_bag(tmp_path / "bag", bags.drive(), "mcap")
    metadata = folder / "metadata.yaml"
    metadata.write_text(f"rosbag2_bagfile_information: !!python/object/apply:os.mkdir ['{proof}']\n")
    read_source(folder)  # as if it had no metadata
    table = write_source(tmp_path / "source")
    table.write_text(table.read_text().replace("45.0,", f"__import__('os').mkdir('{proof}'),"))
    with pytest.raises(GeowarpError, match="expected a number from -90 to 90"):
        read_source(table)
    assert not proof.exists()
