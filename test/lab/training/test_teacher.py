from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from geowarp_ros.cli import main
from geowarp_ros.errors import ModelError, SourceError, TrainingError
from geowarp_ros.images import read_image
from geowarp_ros.lab.training.data import Photographs, common_frame, describe, positions_in
from geowarp_ros.lab.training.distillation import Distillation, distill, label_free
from geowarp_ros.lab.training.grounds import Ground, Lesson, read_unlabelled, read_validation
from geowarp_ros.lab.training.parameters import Reading
from geowarp_ros.lab.training.session import seeded
from geowarp_ros.lab.training.teacher import (
    Network,
    SqueezeNet,
    agreement,
    described_by,
    load_teacher,
    relation_loss,
)
from geowarp_ros.model.checkpoints import fingerprint, load_model, save_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.types import Image
from test.lab.training.street import HEIGHT, WIDTH, killed_at, shot, stripes, write_street

QUICK = Distillation(
    height=HEIGHT // 2, width=WIDTH // 2, batch_size=6, iterations=4, mine_every=2, relation_weight=1.0,
    place_weight=0.0, same_photograph=0.5, tensorboard=False, save_every=1,
)  # fmt: skip


def network(encoder: str = "resnet18", aggregation: str = "gem", seed: int = 1, **entries: object) -> GeoWarp:
    with seeded(seed):
        config = {"encoder": encoder, "aggregation": aggregation, "regression": False, **entries}
        return GeoWarp(ModelConfig.model_validate(config)).eval()


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 images that nothing tells the positions of."""
    folder = tmp_path_factory.mktemp("album")
    for number in range(20):
        cv2.imwrite(str(folder / f"{number:02d}.png"), shot(number // 2, number, stripes)[:, :, ::-1])
    return folder


def ground(path: Path, **changes: object) -> Ground:
    return Ground.model_validate({"path": str(path), "labels": False, **changes})


def test_a_student_that_is_the_teacher_turned_and_scaled_has_learned_it_all() -> None:
    teacher = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    assert float(relation_loss(teacher, teacher)) == 0
    assert float(relation_loss(7 * teacher @ turn + 3, teacher)) == pytest.approx(0, abs=1e-12)
    wider = torch.cat([teacher, torch.zeros(8, 3, dtype=torch.float64)], dim=1)
    assert float(relation_loss(wider, teacher)) == pytest.approx(0, abs=1e-12), "a teacher of another dimension"
    assert float(relation_loss(teacher.flip(0), teacher)) > 0.01


def test_relations_by_hand() -> None:
    """Distances 1, 2, 3 of mean 2 and 1, 1, 1: Huber's (½)²/2, 0 and (½)²/2; a far outlier counts linearly."""
    line, triangle = torch.tensor([[0.0], [1.0], [3.0]]), torch.eye(3)
    assert float(relation_loss(triangle, line)) == pytest.approx(1 / 12)
    unknown = torch.tensor([[0.0], [1.0], [3.0], [torch.nan]])
    assert float(relation_loss(torch.cat([triangle, torch.ones(1, 3)]), unknown)) == pytest.approx(1 / 12)
    assert float(relation_loss(triangle[:1], line[:1])) == 0
    # one of ten points far off: 9 of 45 distances are 1, the others 0, of mean 1/5
    far, even = torch.zeros(10, 1), torch.eye(10)
    far[0] = 1
    expected = (9 * (5 - 1 - 0.5) + 36 * 0.5) / 45
    assert float(relation_loss(even, far)) == pytest.approx(expected, abs=1e-4)


def test_its_gradient_is_the_students_alone() -> None:
    student = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(5, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda rows: relation_loss(rows, teacher), (student,))
    twice = (
        torch.randn(1, 3).repeat(4, 1).requires_grad_()
    )  # images seen twice, to a student that tells none apart
    relation_loss(twice, torch.eye(4)).backward()
    assert twice.grad is not None and twice.grad.isfinite().all()


def test_agreement_is_the_share_of_nearest_in_common() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(30, 6)).astype(np.float32)
    shares = []
    for row in range(30):
        near = [
            set(sorted(set(range(30)) - {row}, key=lambda other: float(((d[row] - d[other]) ** 2).sum()))[:10])
            for d in (student, teacher)
        ]
        shares.append(len(near[0] & near[1]) / 10)
    assert agreement(student, teacher) == pytest.approx(100 * float(np.mean(shares)))
    assert agreement(student, student * 3) == 100
    student[3], teacher[5] = np.nan, np.nan
    assert agreement(student, teacher) == pytest.approx(
        agreement(np.delete(student, [3, 5], 0), np.delete(teacher, [3, 5], 0))
    )
    line = np.arange(4, dtype=np.float32)[:, None] ** 2  # 0, 1, 4, 9: of three others one is compared
    assert agreement(line, -line[::-1]) == 50, "0-1, 1-0, 4-1, 9-4 and, backwards, 0-1, 1-4, 4-9, 9-4"


class Counting:
    """A teacher that tells the mean colour, counts what it is asked, and can be killed."""

    channels = (1,)

    def __init__(self, fingerprint: str = "one", most: int = 1000) -> None:
        self.fingerprint, self.most, self.asked = fingerprint, most, 0

    def prepare(self, image: Image) -> Image:
        return image[:32]

    def describe(self, images: Sequence[Image]) -> NDArray[np.float32]:
        self.asked += len(images)
        if self.asked > self.most:
            raise KeyboardInterrupt
        return np.stack([image.mean(axis=(0, 1)) for image in images]).astype(np.float32)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        return (images[:, :1],)


def photographs_of(folder: Path) -> Photographs:
    images = read_unlabelled(folder, "", Reading())
    return Photographs(images, common_frame(images))


def test_what_the_teacher_said_is_kept(album: Path, tmp_path: Path) -> None:
    shutil.copytree(album, tmp_path / "album")
    (tmp_path / "album" / "07.png").write_bytes(b"no image")
    photographs, kept = photographs_of(tmp_path / "album"), tmp_path / "teacher.npy"
    killed = Counting(most=17)  # one to learn the dimension, 16 of a first batch
    with pytest.raises(KeyboardInterrupt):
        described_by(killed, photographs, kept)
    resumed = Counting()
    found = described_by(resumed, photographs, kept)
    assert resumed.asked == 3, "of 20, 16 were described and one cannot be read"
    wanted = [read_image(file)[:32].mean(axis=(0, 1)) for file in sorted(album.glob("*.png"))]
    np.testing.assert_allclose(np.delete(found, 7, 0), np.delete(wanted, 7, 0), rtol=1e-6)
    assert np.isnan(found[7]).all()
    np.load(kept, mmap_mode="r+")[4, 1:] = np.nan  # torn within a row
    again = Counting()
    described_by(again, photographs, kept)
    assert again.asked == 1
    other = Counting("another")
    described_by(other, photographs, kept)
    assert other.asked == 20, "one to learn the dimension, 19 to describe"
    os.utime(tmp_path / "album" / "03.png", ns=(1, 1))
    changed = Counting("another")
    described_by(changed, photographs, kept)
    assert changed.asked == 20
    kept.write_bytes(kept.read_bytes()[:100])
    broken = Counting("another")
    described_by(broken, photographs, kept)
    assert broken.asked == 20


def test_a_model_teaches_as_it_describes(album: Path, tmp_path: Path) -> None:
    model = network("mobilenet_v2", "netvlad", resolution=48)
    save_model(model, tmp_path / "teacher.safetensors")
    teacher, photographs = load_teacher(tmp_path / "teacher.safetensors"), photographs_of(album)
    assert isinstance(teacher, Network)
    assert teacher.fingerprint == fingerprint(model)
    found = described_by(teacher, photographs, tmp_path / "teacher.npy")
    wanted = Describer(model, "cpu").describe_batch([image.read() for image in photographs.images])[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    images = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(teacher.maps(images)[0], model.feature_map(images), atol=1e-4, rtol=1e-4)
    assert teacher.maps(images)[0].shape[1:2] == teacher.channels


def test_squeezenet_describes_by_gem_of_its_last_map(album: Path) -> None:
    with seeded(0):
        teacher = SqueezeNet().eval()
    image = np.asarray(cv2.resize(photographs_of(album).images[0].read(), (384, 256)), np.uint8)
    tall = np.ascontiguousarray(image.transpose(1, 0, 2))
    found = teacher.describe([teacher.prepare(image), teacher.prepare(tall)])
    assert teacher.prepare(image).shape[:2] == (240, 360)
    pixels = torch.from_numpy(teacher.prepare(image)).permute(2, 0, 1)[None] / 255
    normalised = (pixels - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    cells = torch.nn.functional.normalize(teacher.maps(normalised)[1], dim=1).detach()
    np.testing.assert_allclose(found[0], (cells**3).mean(dim=(2, 3))[0] ** (1 / 3), atol=1e-3)
    assert found.shape == (2, 512) and not np.allclose(found[0], found[1])
    with seeded(1):
        assert SqueezeNet().fingerprint != teacher.fingerprint


def test_files_that_cannot_teach_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(network().state_dict(), tmp_path / "published.pth")
    with pytest.raises(ModelError, match=r"published\.pth: .*only SqueezeNet 1\.0's can teach.*import-weights"):
        load_teacher(tmp_path / "published.pth")
    (tmp_path / "page.safetensors").write_text("<html>")
    with pytest.raises(ModelError, match=r"page\.safetensors: is truncated or no safetensors file"):
        load_teacher(tmp_path / "page.safetensors")
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(tmp_path))
    with pytest.raises(ModelError, match=r"megaloc: is no file.*geowarp models get megaloc"):
        load_teacher("megaloc")
    save_model(network(), tmp_path / "megaloc.safetensors")
    assert load_teacher("megaloc").fingerprint == fingerprint(network())


def test_images_without_positions_are_read(album: Path, tmp_path: Path) -> None:
    images = read_unlabelled(album, "", Reading())
    assert [image.place.name for image in images] == [f"{n:02d}.png" for n in range(20)]
    assert all(np.isnan(image.place.latitude_deg) for image in images)
    assert images[3].read().shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(TrainingError, match="images without positions cannot be split by area"):
        read_validation([ground(album, hold_out=("0.2",))], Path(), resolution=0, memory_mb=10)
    with pytest.raises(SourceError, match="no images in it"):
        read_unlabelled(tmp_path, "", Reading())
    (held_out,) = read_validation([ground(album)], Path(), resolution=0, memory_mb=10)
    assert held_out.photographs.names == ("18.png", "19.png"), "every tenth run of two"
    assert not held_out.placed
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name in ("@0500000@05000000@32@N@.png", "indoors.png"):
        shutil.copy(album / "00.png", mixed / name)
    placed, unplaced = read_unlabelled(mixed, "", Reading())
    assert placed.place.latitude_deg == pytest.approx(45.15, abs=0.1)
    assert np.isnan(unplaced.place.latitude_deg)


def test_places_of_a_source_are_known_where_it_tells_them(tmp_path: Path) -> None:
    street = write_street(tmp_path / "street", places=10, shots=2)
    (held_out,) = read_validation([ground(street, val_radius_m=5)], Path(), resolution=0, memory_mb=10)
    assert held_out.placed
    (few,) = read_validation([ground(street, val_radius_m=1)], Path(), resolution=0, memory_mb=10)
    assert not few.placed, "none has another within 1 m"
    lesson = Lesson([ground(street, hold_out=("*/00[0-4]_*",))], Path(), resolution=0, memory_mb=10)
    assert [name[7:10] for name in lesson.photographs.names[::2]] == ["005", "006", "007", "008", "009"]
    area = ground(
        write_street(tmp_path / "road", places=30, shots=1, split=""), hold_out=("0.3",), negative_radius_m=10
    )
    kept = Lesson([area], Path(), resolution=0, memory_mb=10)
    held = read_validation([area], Path(), resolution=0, memory_mb=10)
    frame = common_frame(kept.photographs.images)
    trained, validated = (positions_in(frame, each.images) for each in (kept.photographs, held[0].photographs))
    distances = trained[:, None] - validated[None]
    assert np.linalg.norm(distances, axis=2).min() >= 10, "a share of the places, by area"
    (there,) = read_validation(
        [ground(street, split="train/gallery", val_split="train/queries")], Path(), resolution=0, memory_mb=10
    )
    assert len(there.photographs) == 10


def test_a_lesson_takes_near_and_far_from_the_teacher(album: Path) -> None:
    lesson = Lesson([ground(album)], Path(), resolution=0, memory_mb=10)
    assert len(lesson.photographs) == 18
    told = np.random.default_rng(0).normal(size=(18, 3)).astype(np.float32)
    told[5] = np.nan
    lesson.learn(told)
    distances = np.linalg.norm(told[:, None] - told[None], axis=2)
    distances[5], distances[:, 5] = np.inf, np.inf
    np.fill_diagonal(distances, np.inf)
    for row in set(range(18)) - {5}:
        assert lesson.neighbours[row].tolist() == np.argsort(distances[row])[:4].tolist()
    assert lesson.neighbours[5].tolist() == []
    middle = np.sort(distances, axis=1)[:, 8]  # the lower median of 18, as torch's
    far = np.isfinite(distances) & (distances > middle[:, None]) & (distances > middle[None])
    assert (lesson.different.numpy() == far).all() and far.any()
    assert not lesson.same.any()
    drawn = lesson.draw(np.random.default_rng(0), 3, None, same_photograph=0.0).reshape(-1, 2)
    assert all(second in (lesson.neighbours[first] if first != 5 else [5]) for first, second in drawn)


def test_the_student_learns_the_teachers_distances_and_the_teacher_stays(album: Path, tmp_path: Path) -> None:
    model, taught = network("resnet18", seed=2), network("resnet18", "netvlad", resolution=48)
    before = {key: tensor.clone() for key, tensor in taught.state_dict().items()}
    teacher = Network(taught)
    config = QUICK.model_copy(
        update={"grounds": (ground(album),), "iterations": 30, "mine_every": 30, "batch_size": 12, "tilt": 0.0,
                "zoom": 0.0, "colour": 0.0, "mirror": False, "cell_weight": 0.0, "sparse_start": True}
    )  # fmt: skip
    photographs = Lesson(config.grounds, Path(), resolution=0, memory_mb=10).photographs
    wanted = torch.from_numpy(described_by(teacher, photographs, tmp_path / "told.npy"))
    start = float(relation_loss(torch.from_numpy(describe(model, photographs)), wanted))
    distill(Path(), tmp_path / "out", config, model, teacher)
    learned = load_model(tmp_path / "out" / "last.safetensors")
    end = float(relation_loss(torch.from_numpy(describe(learned, photographs)), wanted))
    assert end < 0.7 * start
    assert learned.descriptor_dim == 256 != wanted.shape[1]
    assert all(torch.equal(before[key], tensor) for key, tensor in taught.state_dict().items())
    assert all(parameter.grad is None for parameter in taught.parameters())


def test_a_killed_training_without_labels_goes_on_bit_for_bit(album: Path, tmp_path: Path) -> None:
    """With distances and a map, of an encoder whose first layers stay."""
    changes = {"grounds": (ground(album),), "teacher_weight": 0.5, "batch_norm": "frozen", "frozen_layers": 6}
    config, teacher = QUICK.model_copy(update=changes), Network(network("mobilenet_v2"))
    distill(Path(), tmp_path / "whole", config, network(), teacher)
    with killed_at(save=3):
        distill(Path(), tmp_path / "parts", config, network(), teacher)
    distill(Path(), tmp_path / "parts", config, network(), teacher, resume=True)
    whole, parts = (torch.load(tmp_path / n / "last.pt", weights_only=True) for n in ("whole", "parts"))
    for key, value in (whole["model"] | whole["extra"] | whole["memory"]).items():
        assert torch.equal(value, (parts["model"] | parts["extra"] | parts["memory"])[key]), key
    assert whole["extra"]["teaching.projections.0.weight"].shape == (576, 256, 1, 1)


def test_a_student_that_learns_nothing_stays_as_it_is(album: Path, tmp_path: Path) -> None:
    """Its own teacher: it agrees with itself before any step, and no step does better."""
    config = QUICK.model_copy(update={"grounds": (ground(album, hold_out=("0*",)),), "learning_rate": 0.1})
    model = network()
    start = fingerprint(model)
    assert distill(Path(), tmp_path / "out", config, model, Network(network())) == 100
    assert fingerprint(load_model(tmp_path / "out" / "best.safetensors")) == start
    assert fingerprint(load_model(tmp_path / "out" / "last.safetensors")) != start


def test_what_has_no_teacher_is_refused(album: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="relation_weight = 1 needs a teacher"):
        distill(Path(), tmp_path, QUICK.model_copy(update={"grounds": (ground(album),)}), network(), None)
    config = QUICK.model_copy(update={"grounds": (ground(album),), "relation_weight": 0.0})
    with pytest.raises(TrainingError, match="labels = false needs a teacher"):
        distill(Path(), tmp_path, config, network(), None)
    with pytest.raises(TrainingError, match="encoder 'alexnet': expected one of"):
        label_free(network("alexnet"), trained=True)
    with pytest.raises(TrainingError, match="expected one with one encoder"):
        label_free(network(retrieval={"encoder": "alexnet"}), trained=True)


def test_a_folder_of_images_is_enough(album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command: a student with a warp, a teacher by its name in a file, no positions, no recipe."""
    save_model(network(seed=3, resolution=64, regression=True), tmp_path / "student.safetensors")
    save_model(network("mobilenet_v2"), tmp_path / "teacher.safetensors")
    command = ["train", "distill", str(album), "--output", str(tmp_path / "out"), "--iterations", "1"]
    command += ["--init", str(tmp_path / "student.safetensors"), "--batch-size", "6", "--device", "cpu"]
    assert main(command) == 1
    assert "images without labels need a teacher" in capsys.readouterr().err
    command += ["--teacher", str(tmp_path / "teacher.safetensors")]
    (tmp_path / "recipe.yaml").write_text("grounds: []")
    assert main([*command[:2], str(tmp_path / "recipe.yaml"), *command[2:]]) == 1
    assert "expected images, or one recipe" in capsys.readouterr().err
    assert main(command) == 0
    assert "best agreement with the teacher on held-out images" in capsys.readouterr().out
    best = load_model(tmp_path / "out" / "best.safetensors")
    assert best.regression is not None and best.config.resolution == 64
    assert main(command) == 1, "the folder is in use"
