from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from geowarp_ros.errors import SourceError, TrainingError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.images import MEAN, STD, to_tensor
from geowarp_ros.lab.training.data import (
    Augmentation,
    Photographs,
    ahead,
    common_frame,
    cover,
    describe,
    read_photographs,
    share_of,
    split_by_area,
)
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.readers import SourceImage, read_source
from geowarp_ros.types import Place
from test.lab.training.street import SHOTS_APART_M, SPACING_M, shot, write_street


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return write_street(tmp_path / "few", places=2, shots=3)


def photographs(folder: Path, **options: int) -> Photographs:
    images = read_source(folder).images
    return Photographs(images, common_frame(images), **options)


def test_positions_are_metres_of_the_common_frame(few: Path) -> None:
    found = photographs(few)
    apart = np.linalg.norm(found.positions_m - found.positions_m[0], axis=1)
    expected = [
        0.0,
        SHOTS_APART_M,
        2 * SHOTS_APART_M,
        SPACING_M,
        SPACING_M + SHOTS_APART_M,
        SPACING_M + 2 * SHOTS_APART_M,
    ]
    np.testing.assert_allclose(apart, expected, atol=1e-3)
    assert found.queries.tolist() == [False, False, True] * 2


def test_images_are_decoded_once_within_the_memory(few: Path) -> None:
    kept, dropped = photographs(few), photographs(few, memory_mb=0)
    first = kept[0]
    np.testing.assert_array_equal(first, shot(0, 0))
    assert kept[0] is first
    assert dropped[0] is not dropped[0]
    np.testing.assert_array_equal(dropped[0], first)


def test_an_unreadable_image_is_counted_once_and_passed_over(few: Path, caplog: pytest.LogCaptureFixture) -> None:
    (few / "images" / "000_1.png").write_bytes(b"no picture")
    found = photographs(few)
    pixels, shown = found.batch([2, 0, 1, 4, 1], 64, 96)
    assert shown.tolist() == [2, 0, 4, 4, 2], "the other of its pair, or else of the nearest one"
    assert torch.equal(pixels[2], pixels[3])
    with pytest.raises(TrainingError, match="none of 1 images can be read: images/000_1"):
        found.batch([1], 64, 96)
    assert found.unreadable == {1}
    assert caplog.text.count("000_1.png") == 1


def test_a_batch_is_scaled_until_it_covers_and_cut_in_the_middle() -> None:
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 40:60] = 200  # the middle fifth
    cut = cover(image, 20, 10)  # half size: 20×50, of which columns 20..30 are kept
    assert cut.shape == (20, 10, 3)
    assert cut.min() >= 195
    assert cover(image, 80, 30).shape == (80, 30, 3)
    np.testing.assert_array_equal(cover(image, 40, 100), image)


def test_splits_and_patterns(street: Path) -> None:
    train = read_photographs([street], "train", hold_out=["*/000_*", "*/001_*"])
    held = read_photographs([street], None, only=["*/000_*", "*/001_*"])
    assert (len(train), len(held)) == (38 * 4, 2 * 4)
    with pytest.raises(SourceError, match="no image of split 'test'"):
        read_photographs([street], "test")
    with pytest.raises(TrainingError, match="is left after"):
        read_photographs([street], "train", hold_out=["*"])


def walk(count: int, apart_m: float, split: str = "") -> list[SourceImage]:
    """Images along a straight road east."""
    frame = LocalFrame(45.0, 9.0)
    images = []
    for number in range(count):
        latitude, longitude, _ = frame.to_geodetic([number * apart_m, 0.0, 0.0])
        place = Place(f"{number:04}", float(latitude), float(longitude))
        images.append(SourceImage(place, lambda: np.zeros((8, 8, 3), np.uint8), split=split))
    return images


def test_places_are_held_out_by_area_with_a_gap(caplog: pytest.LogCaptureFixture) -> None:
    """1 km, an image a metre, in squares of 100 m: two or three are held out, and 25 m on their sides unused."""
    images = walk(1000, 1.0)
    with caplog.at_level("INFO"):
        kept, held = split_by_area(images, 0.2, 25.0, seed=0)
    east = {image.place.name: float(row) for row, image in enumerate(images)}
    out = np.array([east[image.place.name] for image in held])
    trained = np.array([east[image.place.name] for image in kept])
    assert np.abs(out[:, None] - trained[None]).min() >= 25.0
    squares, sizes = np.unique(np.round(out / 100), return_counts=True)
    assert len(squares) in (2, 3) and 198 <= len(out) < 302
    assert all(
        size == pytest.approx(50 if square in (0, 10) else 100, abs=2)
        for square, size in zip(squares, sizes, strict=True)
    )
    unused = sum(e not in trained and e not in out for e in range(1000))
    sides = sum(side not in squares and 0 <= side <= 10 for s in squares for side in (s - 1, s + 1))
    assert unused == pytest.approx(25 * sides, abs=2)
    places = len(np.unique(np.round(trained / 10)))
    counted = re.search(
        r"hold_out 0\.2: (\d+) places \((\d+) images\) to train on and (\d+) \((\d+)\)", caplog.text
    )
    assert counted and [int(n) for n in counted.groups()[1::2]] == [len(kept), len(held)]
    assert int(counted[1]) == pytest.approx(places, abs=2) and int(counted[3]) == pytest.approx(
        len(out) / 10, abs=3
    )

    again = split_by_area(images, 0.2, 25.0, seed=0)
    assert [image.place.name for image in again[1]] == [image.place.name for image in held]
    others = {tuple(i.place.name for i in split_by_area(images, 0.2, 25.0, seed=s)[1]) for s in range(8)}
    assert len(others) > 1


def test_what_cannot_be_split_by_area_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"have the splits train, val/queries already"):
        split_by_area(walk(500, 1.0, "train") + walk(500, 1.0, "val/queries"), 0.2, 25.0, 0)
    kept, held = split_by_area(walk(500, 1.0, "gallery") + walk(500, 1.0, "queries"), 0.2, 25.0, 0)
    assert {image.split for image in held} == {image.split for image in kept} == {"gallery", "queries"}
    with pytest.raises(
        TrainingError, match=r"2 places \(14 images\) to train on .* expected at least 5 places of both"
    ):
        split_by_area(walk(90, 1.0), 0.2, 25.0, 0)  # two squares, of which the larger is drawn
    for patterns, share in ((["0.25"], 0.25), (["*video*"], None), ([], None), (["0.1", "0.2"], None)):
        assert share_of(patterns) == share
    for wrong in ("0", "1", "20", "-0.1", "nan"):
        with pytest.raises(TrainingError, match="expected a share between 0 and 1"):
            share_of([wrong])


def test_ahead_keeps_the_order() -> None:
    assert list(ahead(lambda n: n * n, range(50), depth=7)) == [n * n for n in range(50)]
    assert list(ahead(lambda n: n, [])) == []


def test_descriptions_equal_the_model_alone_whatever_the_batches(few: Path) -> None:
    (few / "images" / "001_0.png").write_bytes(b"")
    torch.manual_seed(0)
    model = GeoWarp(ModelConfig(regression=False)).train()
    found = describe(model, photographs(few), batch_size=4)
    assert model.training
    assert np.isnan(found[3]).all()
    with torch.no_grad():
        alone = model.eval().describe(to_tensor([shot(1, 2)], torch.device("cpu")))[0]
    np.testing.assert_allclose(found[5], alone[0].numpy(), atol=1e-5)


def test_augmentation_off_is_the_normalisation() -> None:
    pixels = torch.randint(0, 255, (2, 3, 16, 24), dtype=torch.uint8)
    views = Augmentation(tilt=0, zoom=0, colour=0, mirror=False)(pixels, torch.Generator())
    back = views * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    torch.testing.assert_close(back * 255, pixels.float(), atol=1e-3, rtol=0)


def test_augmentation_follows_its_generator_alone() -> None:
    pixels = torch.randint(0, 255, (4, 3, 32, 48), dtype=torch.uint8)
    views = [Augmentation()(pixels, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    assert torch.isfinite(views[2]).all()


def test_mirroring_flips_the_whole_batch() -> None:
    pixels = torch.randint(0, 255, (3, 3, 8, 8), dtype=torch.uint8)
    augment = Augmentation(tilt=0, zoom=0, colour=0)
    seen = set()
    for seed in range(10):
        views = augment.views(pixels, torch.Generator().manual_seed(seed))
        plain = Augmentation(tilt=0, zoom=0, colour=0, mirror=False)(pixels, torch.Generator())
        torch.testing.assert_close(views.images, plain.flip(3) if views.mirrored else plain)
        seen.add(views.mirrored)
    assert seen == {True, False}


def test_crops_show_parts_of_the_photograph() -> None:
    ramp = torch.linspace(0, 255, 64).to(torch.uint8).expand(1, 3, 64, 64)
    views = Augmentation(tilt=0, zoom=0.5, colour=0, mirror=False)(ramp, torch.Generator().manual_seed(1))
    row = views[0, 0, 32] * STD[0] + MEAN[0]
    assert (row.diff() >= -1e-6).all()  # left to right still
    assert 0.45 < float(row[-1] - row[0]) < 1.0  # and at least half of it


def test_quads_say_where_a_view_comes_from() -> None:
    """On a photograph that shows its own coordinates, a view's corners show the quad's."""
    grid = (torch.arange(128) * 2 + 1) / 128 - 1
    photograph = torch.stack([grid.expand(128, 128), grid[:, None].expand(128, 128), torch.zeros(128, 128)])
    pixels = ((photograph + 1) * 127.5).round().to(torch.uint8).expand(2, 3, 128, 128)
    for seed in (0, 1, 2):
        views = Augmentation(colour=0).views(pixels, torch.Generator().manual_seed(seed))
        seen = (views.images * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 2 - 1
        corners = torch.stack([seen[:, :2, y, x] for y, x in ((1, 1), (1, -2), (-2, -2), (-2, 1))], dim=1)
        assert float((corners - views.quads).abs().max()) < 0.08
