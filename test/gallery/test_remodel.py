"""A gallery gets another model from its own images: as if built with it; whole at any moment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geowarp_ros.config import LocalizerConfig, parse_config
from geowarp_ros.errors import GalleryError, ModelError
from geowarp_ros.gallery.alignment.comparisons import ComparedPairs
from geowarp_ros.gallery.index.indexing import IndexOptions
from geowarp_ros.gallery.making import align as making
from geowarp_ros.gallery.making import upgrade
from geowarp_ros.gallery.making.align import align_gallery
from geowarp_ros.gallery.making.build import add_to_gallery, build_gallery, index_gallery, remove_from_gallery
from geowarp_ros.gallery.making.shards import Shard
from geowarp_ros.gallery.making.upgrade import UpgradeReport, upgrade_gallery
from geowarp_ros.gallery.manifest import writing
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.images import read_image
from geowarp_ros.localizer import Localizer
from geowarp_ros.model.checkpoints import load_model, save_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.regression import WarpRegression
from geowarp_ros.readers import Source
from geowarp_ros.types import Image
from test.gallery.alignment.fakes import FakeAlign, assert_same, opened_alignment
from test.gallery.conftest import ColourDescriber, Views
from test.gallery.test_build import Killed, content
from test.gallery.test_indexing import painted
from test.gallery.test_photographs import CONFIG, RESOLUTION, describer
from test.gallery.test_upgrade import of_format_2

T = TypeVar("T")

MODEL_FILES = {"descriptors.npy", "local_features.npy"}


class NewDescriber(ColourDescriber):
    """Another model: nine numbers, sixteen channels."""

    def __init__(self, fingerprint: str = "beef", resolution: int = RESOLUTION) -> None:
        super().__init__(fingerprint, resolution)
        self.model: Any = SimpleNamespace(
            config=ModelConfig(encoder="mobilenet_v2", resolution=resolution),
            descriptor_dim=9,
            channels=16,
            file=None,
        )

    def describe_batch(self, images: Sequence[Image]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        six, maps = super().describe_batch(images)
        spread = np.array([image.std(axis=(0, 1)) / 255 for image in images], np.float32)
        many = np.concatenate([np.roll(maps, step, axis=2) for step in range(8)], axis=1)
        return np.concatenate([spread, six], axis=1), many


def remodel(path: Path, **options: Any) -> UpgradeReport:
    return upgrade_gallery(path, CONFIG, describer=NewDescriber(), batch_size=2, **options)


def kept_images(gallery: Gallery) -> Source:
    """The images that a gallery keeps, as a source."""
    images = []
    for row, place in enumerate(gallery.places):
        segment, number = gallery.places.locate(row)
        path = segment.folder / segment.table[number].image
        images.append(replace(VIEW, place=place, path=path, read=partial(read_image, path)))
    return Source(tuple(images), description="kept")


VIEW = painted(1).images[0]


def assert_as_built_anew(path: Path, work: Path, form: Any = "half") -> None:
    """Row by row, the descriptions are those of the images that the gallery keeps, by the new model."""
    opened = Gallery.open(path)
    built = build_gallery(
        kept_images(opened), NewDescriber(), work, batch_size=5, keypoints=None,
        local_features="half" if form == "pq" else form,
    ).gallery  # fmt: skip
    anew = Gallery.open(built)
    opened.check_model("beef")
    assert opened.manifest.model == anew.manifest.model
    row_of = {place.name: row for row, place in enumerate(anew.places)}
    rows = [row_of[place.name] for place in opened.places]
    np.testing.assert_allclose(opened.descriptors, anew.descriptors[rows], rtol=1e-6)
    ours, theirs = opened.local_features(range(len(opened))), anew.local_features(rows)
    if form == "pq":
        theirs = np.stack([nearest_entries(opened, row, theirs[row]) for row in range(len(opened))])
        assert (abs(ours - theirs) < 1e-3).mean() > 0.999  # ties by rounding
    else:
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    for row in range(len(opened)):
        query = opened.descriptors[row] + np.float32(1e-3)
        found = [[(c.place.name, c.distance) for c in one.search(query)] for one in (opened, anew)]
        assert [name for name, _ in found[0]] == [name for name, _ in found[1]]
        assert [d for _, d in found[0]] == pytest.approx([d for _, d in found[1]], abs=1e-6)
    assert opened.verify() == []


def nearest_entries(gallery: Gallery, row: int, features: NDArray[np.float16]) -> NDArray[np.float32]:
    """What is read of local features (16, 15, 15) with the codebook of the row's segment, by brute force."""
    segment, _ = gallery.places.locate(row)
    codebook = segment.local_features["local_codebook.npy"]
    cells = features.astype(np.float32).reshape(2, 8, -1).transpose(2, 0, 1)
    nearest = ((cells[:, :, None] - codebook[None]) ** 2).sum(axis=3).argmin(axis=2)
    read = np.concatenate([codebook[0][nearest[:, 0]], codebook[1][nearest[:, 1]]], axis=1)
    return np.asarray((read / np.linalg.norm(read, axis=1, keepdims=True)).T.reshape(16, 15, 15), np.float32)


def unchanged(before: dict[str, bytes], after: dict[str, bytes]) -> bool:
    """Whether nothing differs but the manifest and what the model makes."""
    gone = {name for name in before if before[name] != after.get(name)}
    new = after.keys() - before.keys()
    return {Path(name).name for name in gone | new} == {"gallery.json", *MODEL_FILES}


@pytest.mark.parametrize("copy_images", [True, False])
def test_everything_but_the_descriptions_stays(
    views: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy_images: bool
) -> None:
    fake = FakeAlign([])
    monkeypatch.setattr(making, "align", fake)
    path = build_gallery(
        views(6), describer(), tmp_path / "g", keypoints=CONFIG, batch_size=3, copy_images=copy_images
    ).gallery
    add_to_gallery(views(3, "more", first=20), describer(), path, copy_images=copy_images)
    align_gallery(path)
    remove_from_gallery(path, ["001.png", "022.png"])
    old, before = Gallery.open(path), content(path)
    pairs = dict(ComparedPairs(path, old.manifest.segments))
    report = remodel(path, options={"model": "new"})
    assert (report.keypoints, report.cameras, report.described) == (0, 0, 9)  # removed ones, too
    opened, after = Gallery.open(path), content(path)
    assert unchanged(before, after)
    assert {str(Path(name).parent) for name in after if Path(name).name in MODEL_FILES} == {
        "segments/0001/beef", "segments/0002/beef",
    }  # fmt: skip
    assert_as_built_anew(path, tmp_path / "anew")
    assert repr(list(opened.places)) == repr(list(old.places))
    assert opened.manifest.alignment == old.manifest.alignment
    assert_same(opened_alignment(path), fake.alignment)
    for row in range(len(opened)):
        ours, theirs = opened.photograph(row), old.photograph(row)
        assert (ours is None) == (theirs is None)
        if ours and theirs:
            np.testing.assert_array_equal(ours.points_m, theirs.points_m)
    assert [segment.options["model"] for segment in opened.manifest.segments] == ["new", "new"]
    assert old.image(2).shape == opened.image(2).shape and len(old.search(old.descriptors[0])) == 7, "reads on"
    assert dict(ComparedPairs(path, opened.manifest.segments)).keys() == pairs.keys() != set()
    assert len(fake.compared) == len(pairs), "none is compared again"
    assert remodel(path).described == 0 and content(path).keys() == after.keys()
    with pytest.raises(GalleryError, match="made by model beef"):
        add_to_gallery(views(2, "later", first=40), describer(), path)
    add_to_gallery(views(2, "later", first=40), NewDescriber(), path, copy_images=False)
    assert_as_built_anew(path, tmp_path / "again")
    back = upgrade_gallery(path, describer=describer())
    assert back.described == 11 and not [name for name in content(path) if "beef" in name]
    np.testing.assert_allclose(Gallery.open(path).descriptors[: len(old)], old.descriptors, atol=0.02)  # JPEG
    assert Gallery.open(path).verify() == []


@pytest.mark.parametrize("form", ["int8", "pq"])
def test_compressed_local_features_and_segments_of_several_processes(
    views: Views, tmp_path: Path, form: Any
) -> None:
    path = tmp_path / "g"
    for index in range(2):
        build_gallery(
            views(8), describer(), path, batch_size=2, keypoints=CONFIG, local_features=form, shard=Shard(index, 2)
        )
    add_to_gallery(views(2, "more", first=20), describer(), path)
    assert remodel(path).described == 10
    assert_as_built_anew(path, tmp_path / "anew", form)
    own = {name for name in content(path) if Path(name).name.startswith("local_")}
    assert not [name for name in own if name.endswith("local_features.npy")] and len(own) == 6
    if form == "pq":
        one, two, three = ((path / f"segments/000{k}/beef/local_codebook.npy").read_bytes() for k in (1, 2, 3))
        assert one != two == three, "added images share the last one's, as before"
    add_to_gallery(views(2, "later", first=40), NewDescriber(), path, copy_images=False)
    assert_as_built_anew(path, tmp_path / "again", form)


@pytest.mark.parametrize("kind", ["exact", "ivf-sq", "hnsw"])
def test_the_index_is_made_again(tmp_path: Path, kind: Any) -> None:
    path = build_gallery(painted(300), ColourDescriber(), tmp_path / "g", keypoints=None).gallery
    index_gallery(path, IndexOptions(kind=kind, on_disk=kind == "ivf-sq"))
    add_to_gallery(painted(3, first=300), ColourDescriber(), path)
    remove_from_gallery(path, ["0007.png"])
    old = Gallery.open(path).manifest.index
    upgrade_gallery(path, CONFIG, describer=NewDescriber(resolution=0))
    opened = Gallery.open(path)
    index = opened.manifest.index
    if kind == "exact":
        assert old is index is None
    else:
        assert old is not None and index is not None
        assert (index.kind, index.on_disk, index.rows, old.rows) == (kind, kind == "ivf-sq", 303, 300)
        assert [p.name for p in (path / "index").iterdir()] == [index.name] != [old.name]
    for row in range(0, len(opened), 29):
        query = opened.descriptors[row]
        truth = np.argsort(((opened.descriptors - query) ** 2).sum(axis=1), kind="stable")[:3].tolist()
        assert [candidate.index for candidate in opened.search(query, 3)] == truth
    assert opened.verify() == []


def test_what_it_lacks_is_made_in_the_same_run(views: Views, tmp_path: Path) -> None:
    path = of_format_2(views(5), tmp_path / "g")
    report = remodel(path)
    assert (report.keypoints, report.described) == (5, 5)
    assert Gallery.open(path).keypoint_config == CONFIG
    assert_as_built_anew(path, tmp_path / "anew")


def test_a_removed_photograph_may_be_gone_and_another_is_named(views: Views, tmp_path: Path) -> None:
    path = build_gallery(views(4), describer(), tmp_path / "g", keypoints=None, copy_images=False).gallery
    remove_from_gallery(path, ["001.png"])
    (tmp_path / "views/001.png").unlink()
    shutil.move(tmp_path / "views/003.png", tmp_path / "003.png")
    before = (path / "gallery.json").read_bytes()
    with pytest.raises(GalleryError, match=r"image of 003\.png: .*; remove it first, or put it back"):
        remodel(path)
    assert (path / "gallery.json").read_bytes() == before
    shutil.move(tmp_path / "003.png", tmp_path / "views/003.png")
    remodel(path)
    assert_as_built_anew(path, tmp_path / "anew")


def test_refusals_leave_the_gallery_as_it_is(views: Views, tmp_path: Path) -> None:
    path = build_gallery(views(4), describer(), tmp_path / "g", keypoints=CONFIG).gallery
    before = content(path)
    with pytest.raises(GalleryError, match=r"resolution is 48 px, that of model beef is 32 px; .* build it again"):
        upgrade_gallery(path, describer=NewDescriber(resolution=32))
    with pytest.raises(GalleryError, match="is 48 px, that of model beef is that of the images"):
        upgrade_gallery(path, describer=NewDescriber(resolution=0))
    with writing(path), pytest.raises(GalleryError, match="another process is writing"):
        remodel(path)
    assert content(path) == before
    broken = NewDescriber()
    describe = broken.describe_batch

    def describe_batch(images: Sequence[Image]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        descriptors, maps = describe(images)
        descriptors[1] = np.nan
        return descriptors, maps

    vars(broken)["describe_batch"] = describe_batch
    with pytest.raises(ModelError, match=r"descriptor of 001\.png has NaN"):
        upgrade_gallery(path, describer=broken)
    assert Gallery.open(path).model_fingerprint == describer().fingerprint and Gallery.open(path).verify() == []


@pytest.mark.parametrize(("images", "described"), [(0, 0), (1, 0), (5, 4), (8, 8)])
def test_a_killed_run_goes_on(views: Views, tmp_path: Path, images: int, described: int) -> None:
    whole = build_gallery(views(8), describer(), tmp_path / "whole", keypoints=CONFIG).gallery
    path = tmp_path / "g"
    shutil.copytree(whole, path)
    remodel(whole)
    before = content(path)

    def killing(items: Iterable[T], total: int, label: str, /) -> Iterable[T]:
        for number, item in enumerate(items):
            if number == images:
                raise Killed
            yield item
        raise Killed

    with pytest.raises(Killed):
        remodel(path, progress=killing)
    assert before.items() <= content(path).items() and Gallery.open(path).verify() == []
    seen: list[int] = []

    def counting(items: Iterable[T], total: int, label: str, /) -> Iterable[T]:
        seen.append(total)
        return items

    assert remodel(path, progress=counting).described == 8
    assert seen == [8 - described]
    assert content(path / "segments") == content(whole / "segments")


@pytest.mark.parametrize(
    "damage", ["half a row", "rubbish behind", "half a line", "third model", "change", "pq", "index"]
)
def test_what_a_stopped_run_leaves(
    views: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    form: Any = "pq" if damage == "pq" else "half"
    path = build_gallery(
        views(6), describer(), tmp_path / "g", batch_size=3, keypoints=CONFIG, local_features=form
    ).gallery

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(upgrade, "commit", killed)
        remodel(path)
    folder = path / "segments/0001/beef"
    if damage == "half a row":
        os.truncate(folder / "local_features.npy", (folder / "local_features.npy").stat().st_size - 5)
    elif damage == "rubbish behind":
        with (folder / "descriptors.npy").open("ab") as file:
            file.write(b"\x07" * 1000)
    elif damage == "half a line":
        os.truncate(folder / "journal.jsonl", (folder / "journal.jsonl").stat().st_size - 9)
    elif damage == "third model":
        upgrade_gallery(path, describer=NewDescriber("cafe"))
        assert not folder.exists() and Gallery.open(path).verify() == []
    elif damage == "change":  # another change deletes what no manifest names
        remove_from_gallery(path, ["003.png"])
        assert not folder.exists() and Gallery.open(path).verify() == []
    elif damage == "index":
        (path / "index/0001").mkdir(parents=True)
    remodel(path)
    assert_as_built_anew(path, tmp_path / "anew", form)
    left = {file.name for file in path.rglob("*") if file.is_file()}
    assert not left & {"journal.jsonl", "plan.json"} and not (path / "index/0001").exists()


KILL_ITSELF = """
import os, signal, sys
from pathlib import Path
from geowarp_ros.gallery.making.upgrade import upgrade_gallery
from test.gallery.test_remodel import NewDescriber

def progress(items, total, label):
    for number, item in enumerate(items):
        if number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        yield item

upgrade_gallery(Path(sys.argv[1]), describer=NewDescriber(), batch_size=2, progress=progress)
"""


def test_sigkill(views: Views, tmp_path: Path) -> None:
    path = build_gallery(views(8), describer(), tmp_path / "g", keypoints=CONFIG).gallery
    command = [sys.executable, "-c", KILL_ITSELF, str(path)]
    root = Path(__file__).parents[2]
    assert subprocess.run(command, cwd=root, timeout=120).returncode == -signal.SIGKILL
    assert Gallery.open(path).verify() == [] and len(list(path.rglob("journal.jsonl"))) == 1
    Gallery.open(path).check_model(describer().fingerprint)
    remodel(path)  # the lock died with it
    assert_as_built_anew(path, tmp_path / "anew")


def test_an_upgraded_gallery_answers_as_one_that_the_new_model_built(views: Views, tmp_path: Path) -> None:
    torch.manual_seed(0)
    files = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    save_model(GeoWarp(ModelConfig(encoder="resnet18", resolution=RESOLUTION)), files[0])
    save_model(GeoWarp(ModelConfig(encoder="mobilenet_v2", projection=32, resolution=RESOLUTION)), files[1])
    old, new = (Describer(load_model(file), "cpu") for file in files)
    source = views(6)
    built = build_gallery(source, new, tmp_path / "built", keypoints=CONFIG, copy_images=False).gallery
    path = build_gallery(source, old, tmp_path / "g", keypoints=CONFIG, copy_images=False).gallery
    config = parse_config(LocalizerConfig, {"model": str(files[1])})
    command = rf"\(geowarp gallery upgrade {path} --model {files[1]}\)"
    with pytest.raises(GalleryError, match=command):
        Localizer.open(path, config, new)
    assert upgrade_gallery(path, describer=new).described == 6
    localizers = [Localizer.open(gallery, config, new) for gallery in (path, built)]
    first, second = (localizer.gallery for localizer in localizers)
    np.testing.assert_allclose(first.descriptors, second.descriptors, atol=1e-5)
    np.testing.assert_allclose(first.local_features(range(6)), second.local_features(range(6)), atol=1e-3)
    for image in source.images:
        mine, other = (localizer.localize(image.read()).to_dict() for localizer in localizers)
        assert mine["status"] == other["status"] and mine.get("latitude") == other.get("latitude")
        assert [c["path"] for c in mine["candidates"]] == [c["path"] for c in other["candidates"]]
        for key in ("distance", "score"):
            ours, theirs = (np.array([c[key] for c in one["candidates"]], float) for one in (mine, other))
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_warp_that_is_trained_on_top_describes_nothing_anew(views: Views, tmp_path: Path) -> None:
    """The gallery takes over its own model with a warp, in place; with other weights it is described again."""
    torch.manual_seed(0)
    own = GeoWarp(ModelConfig(encoder="resnet18", resolution=RESOLUTION, regression=False)).eval()
    path = build_gallery(views(4), Describer(own, "cpu"), tmp_path / "g", keypoints=CONFIG).gallery
    own.regression, own.config = WarpRegression(), own.config.model_copy(update={"regression": True})
    warped = Describer(own, "cpu")
    with pytest.raises(GalleryError, match=f"geowarp gallery upgrade {path}"):
        Gallery.open(path).check_model(warped.fingerprint, "warped")
    before = content(path)
    report = upgrade_gallery(path, CONFIG, describer=warped)
    assert report.adopted and report.described == 0
    after = content(path)
    assert {name for name in after if after[name] != before.get(name)} == {"gallery.json"}
    opened = Gallery.open(path)
    opened.check_model(warped.fingerprint)
    assert opened.manifest.model.config.model_dump()["regression"] and opened.verify() == []
    descriptors, local_features = warped.describe_batch([views(4).images[n].read() for n in range(4)])
    np.testing.assert_array_equal(opened.descriptors, descriptors)
    np.testing.assert_array_equal(opened.local_features(range(4)), local_features)
    assert not upgrade_gallery(path, CONFIG, describer=warped).adopted, "it has it already"
    with torch.no_grad():
        next(own.encoder.parameters()).mul_(1.5)
    report = upgrade_gallery(path, CONFIG, describer=Describer(own, "cpu"))
    assert not report.adopted and report.described == 4
