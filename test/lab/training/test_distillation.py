from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geowarp_ros.cli import main
from geowarp_ros.config import parse_config
from geowarp_ros.errors import ConfigError, ModelError, TrainingError
from geowarp_ros.lab.training.distillation import (
    Distillation,
    Link,
    Teaching,
    cell_loss,
    direction_loss,
    distill,
    links_of,
    start_sparse,
    student_maps,
    with_first_layers,
)
from geowarp_ros.lab.training.grounds import Ground, Lesson, read_recipe
from geowarp_ros.lab.training.matches import Points
from geowarp_ros.lab.training.session import seeded
from geowarp_ros.lab.training.teacher import SqueezeNet, Teacher, load_teacher
from geowarp_ros.lab.training.warping import with_regression
from geowarp_ros.model.checkpoints import load_model
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.inference import Precision, cpu_has_bfloat16
from test.lab.training.street import HEIGHT, WIDTH, killed_at, write_lane
from test.model.weights import regression_of

TEACHER = Path(__file__).parents[4] / "shared" / "weights" / "squeezenet1_0_imagenet.pt"

GROUND = Ground(path="street", split="train", val_split="val", surroundings_m=90.0)
QUICK = Distillation(
    grounds=(GROUND,), height=HEIGHT // 2, width=WIDTH // 2, batch_size=6, iterations=4, mine_every=2,
    tensorboard=False,
    save_every=1, teacher_weight=0.5, sparse_start=True, same_photograph=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lane(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in torchvision's layout, with the classifier that is not read."""
    with seeded(5):
        state = SqueezeNet().state_dict()
    path = tmp_path_factory.mktemp("teacher") / "squeezenet.pt"
    torch.save({**state, "classifier.1.weight": torch.zeros(1000, 512, 1, 1)}, path)
    return path


def scratch() -> GeoWarp:
    with seeded(0):
        return GeoWarp(ModelConfig(regression=False))


def test_the_teacher_is_frozen_and_has_the_students_strides(teacher_file: Path) -> None:
    teacher = load_teacher(teacher_file)
    assert isinstance(teacher, SqueezeNet)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    middle, last = teacher(torch.rand(1, 3, 96, 128))
    assert (middle.shape[1], last.shape[1]) == SqueezeNet.channels
    student = student_maps(scratch(), torch.rand(1, 3, 96, 128))
    for mine, its in zip(student, (middle, last), strict=True):
        assert abs(mine.shape[2] - its.shape[2]) <= 1
        assert abs(mine.shape[3] - its.shape[3]) <= 1


def test_a_foreign_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_teacher(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ModelError, match="is no state dict"):
        load_teacher(tmp_path / "text.pt")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"features\.0\.weight expected"):
        load_teacher(tmp_path / "other.pt")


@pytest.mark.real_images
@pytest.mark.skipif(not TEACHER.exists(), reason=f"the teacher's weights are not at {TEACHER}")
def test_the_teacher_at_hand_is_read() -> None:
    teacher = load_teacher(TEACHER)
    assert isinstance(teacher, SqueezeNet)
    first = teacher.features[0]
    assert isinstance(first, torch.nn.Conv2d) and first.weight.abs().max() > 0.1


def test_direction_by_hand() -> None:
    found = torch.tensor([[3.0, 0.0], [4.0, 2.0]]).view(1, 2, 1, 2)  # cells (3, 4) and (0, 2)
    wanted = torch.tensor([[1.0, 0.0], [0.0, -1.0]]).view(1, 2, 1, 2)  # cells (1, 0) and (0, -1)
    assert float(direction_loss(found, wanted)) == pytest.approx(((1 - 0.6) + (1 + 1)) / 2)
    assert float(direction_loss(found, 7 * found)) == pytest.approx(0.0, abs=1e-6)
    double = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    fixed = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: direction_loss(f, fixed), (double,))


def test_a_perfect_student_has_learned_it_all() -> None:
    """With identity projections and nothing to centre, the teacher's own maps cost nothing."""
    teaching = Teaching((4, 4), (4, 4))
    for projection in teaching.projections:
        assert isinstance(projection, torch.nn.Conv2d) and projection.bias is not None
        torch.nn.init.dirac_(projection.weight)
        torch.nn.init.zeros_(projection.bias)
    maps = [torch.rand(2, 4, 6, 8), torch.rand(2, 4, 6, 8)]
    nothing = [torch.zeros(4), torch.zeros(4)]
    assert float(teaching(maps, maps, nothing).detach()) == pytest.approx(0.0, abs=1e-5)
    assert float(teaching(maps, maps[::-1], nothing).detach()) > 0.05


def lesson(data: Path, **changes: object) -> Lesson:
    return Lesson([GROUND.model_copy(update=changes)], data, resolution=0, memory_mb=100)


def places_of(found: Lesson) -> NDArray[Any]:
    return np.array([int(name.split("/")[1][:3]) for name in found.photographs.names])


def test_look_alikes_are_of_other_places(lane: Path) -> None:
    found = lesson(lane)
    descriptors = np.random.default_rng(0).normal(size=(18, 4)).astype(np.float32)
    descriptors[7] = np.nan
    alike, places = found.look_alikes(descriptors, count=3), places_of(found)
    for row in set(range(18)) - {7}:
        distances = {
            other: float(((descriptors[other] - descriptors[row]) ** 2).sum())
            for other in range(18)
            if places[other] != places[row] and other != 7
        }
        assert alike[row].tolist() == sorted(distances, key=lambda other: distances[other])[:3]
    assert (alike[7] == -1).all()


def test_a_batch_is_groups_of_rivals(lane: Path) -> None:
    found = lesson(lane)
    places = places_of(found)
    indices = found.draw(np.random.default_rng(0), 4, None, same_photograph=0.0)
    assert indices.shape == (24,)
    for first, second in indices.reshape(-1, 2):
        assert first != second
        assert places[first] == places[second]
    for anchor, _, rival, _, other, _ in indices.reshape(-1, 6):
        for one in (rival, other):
            assert 0 < abs(places[one] - places[anchor]) <= 2  # 40 m apart, surroundings of 90 m
    twice = found.draw(np.random.default_rng(0), 4, None, same_photograph=1.0)
    assert (twice[::2] == twice[1::2]).all()
    known = np.full((18, 2), -1)
    known[:, 0] = (np.arange(18) + 9) % 18
    again = found.draw(np.random.default_rng(0), 4, known, same_photograph=0.0).reshape(-1, 6)
    assert (again[:, 2] == (again[:, 0] + 9) % 18).all()


def test_grounds_are_never_one_place(lane: Path) -> None:
    found = Lesson([GROUND, GROUND.model_copy(update={"share": 3.0})], lane, resolution=0, memory_mb=100)
    assert found.different[:18, 18:].all()  # the same positions, but another set
    assert not found.same[:18, 18:].any()
    assert found.weights[:18].sum() == pytest.approx(0.25)
    same, different = found.pairs(np.array([0, 1, 1, 19]))
    assert same.int().tolist() == [[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert different.int().tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 1, 0]]


def test_headings_part_places(tmp_path: Path) -> None:
    (tmp_path / "crossing").mkdir()
    rows = [
        "filename,latitude,longitude,heading",
        *(f"{n}.png,50.0,8.0,{h}" for n, h in enumerate((350, 10, 180))),
    ]
    (tmp_path / "crossing" / "positions.csv").write_text("\n".join(rows))
    for n in range(3):
        cv2.imwrite(str(tmp_path / "crossing" / f"{n}.png"), np.zeros((32, 32, 3), np.uint8))
    found = Lesson([Ground(path="crossing", heading_deg=40.0)], tmp_path, resolution=0, memory_mb=1)
    assert found.same.int().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert found.anchors.tolist() == [0, 1]


def test_recipes(tmp_path: Path) -> None:
    for text, problem in (("- a list", "expected a mapping"), ("{", "is no recipe"), (None, "is no recipe")):
        path = tmp_path / "recipe.yaml"
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        with pytest.raises(TrainingError, match=problem):
            read_recipe(path)
    with pytest.raises(ConfigError, match=r"grounds\.0\.positive_radius"):
        parse_config(Distillation, {"grounds": [{"path": "x", "positive_radius": 3}]})


def test_a_recipe_extends_another(tmp_path: Path) -> None:
    (tmp_path / "shared.yaml").write_text("{height: 64, width: 96}")
    (tmp_path / "stage.yaml").write_text("{extends: shared.yaml, width: 128}")
    (tmp_path / "again.yaml").write_text("{extends: stage.yaml, tilt: 0.1}")
    assert read_recipe(tmp_path / "again.yaml") == {"height": 64, "width": 128, "tilt": 0.1}
    (tmp_path / "loop.yaml").write_text("{extends: loop.yaml}")
    with pytest.raises(TrainingError, match=r"loop\.yaml: extends itself"):
        read_recipe(tmp_path / "loop.yaml")
    (tmp_path / "shared.yaml").unlink()
    with pytest.raises(TrainingError, match=r"shared\.yaml: is no recipe"):
        read_recipe(tmp_path / "stage.yaml")


RECIPES = Path(__file__).parents[3] / "docs" / "recipes"


@pytest.mark.parametrize(
    "recipe",
    sorted(set(RECIPES.glob("*.yaml")) - {RECIPES / "integrity.yaml"}),
    ids=lambda path: path.stem,
)
def test_the_recipes_that_ship_are_valid(recipe: Path) -> None:
    assert parse_config(Distillation, read_recipe(recipe)).grounds


def whole_and_resumed(
    data: Path, output: Path, config: Distillation, teacher: Teacher | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last checkpoints of a training from end to end, and of the same one killed and resumed."""
    distill(data, output / "whole", config, scratch(), teacher)
    with killed_at(save=3):
        distill(data, output / "parts", config, scratch(), teacher)
    distill(data, output / "parts", config, scratch(), teacher, resume=True)
    whole, parts = (torch.load(output / name / "last.pt", weights_only=True) for name in ("whole", "parts"))
    return whole, parts


def test_a_killed_distillation_goes_on_bit_for_bit(lane: Path, teacher_file: Path, tmp_path: Path) -> None:
    whole, parts = whole_and_resumed(lane, tmp_path, QUICK, load_teacher(teacher_file))
    for part in ("model", "extra", "memory"):
        assert whole[part].keys() == parts[part].keys()
        for key, value in whole[part].items():
            assert torch.equal(value, parts[part][key]), f"{part} {key}"


def test_the_warp_is_trained_along_and_its_pairs_are_ranked(lane: Path, tmp_path: Path) -> None:
    """All of it at once goes on bit for bit; the regression is a running average, too, and has moved."""
    config = QUICK.model_copy(
        update={"teacher_weight": 0.0, "score_weight": 1.0, "warp_weight": 1.0, "views": 2, "batch_generated": 2}
    )
    whole, parts = whole_and_resumed(lane, tmp_path, config, None)
    for key, value in (whole["model"] | whole["extra"]).items():
        assert torch.equal(value, (parts["model"] | parts["extra"])[key]), key
    own, averaged = (whole[part][name] for part, name in (
        ("model", "regression.linear.bias"), ("extra", "averaged.regression.linear.bias")
    ))  # fmt: skip
    frame = regression_of(with_regression(scratch())).linear.bias
    assert not torch.equal(own, frame)
    assert not torch.equal(own, averaged)
    assert load_model(tmp_path / "whole" / "best.safetensors").regression is not None
    last = load_model(tmp_path / "whole" / "last.safetensors").state_dict()
    assert torch.equal(last["regression.linear.bias"], averaged)


def test_mobilenet_is_trained_with_its_projection_and_frozen_statistics(lane: Path, tmp_path: Path) -> None:
    changes = {"teacher_weight": 0.0, "sparse_start": False, "warp_weight": 1.0, "score_weight": 1.0}
    config = QUICK.model_copy(update={**changes, "batch_norm": "frozen", "iterations": 2})
    with seeded(0):
        model = GeoWarp(ModelConfig(encoder="mobilenet_v2", projection=24))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(TrainingError, match="sparse_start: for a resnet's last block"):
        distill(lane, tmp_path, QUICK, model, SqueezeNet())
    distill(lane, tmp_path, config, model, None)
    after = model.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert {"projection.weight", "encoder.0.0.weight", "encoder.14.conv.0.1.bias"} <= changed
    assert not [key for key in changed if key.startswith("encoder.") and ("running" in key or "tracked" in key)]
    assert load_model(tmp_path / "last.safetensors").channels == 24


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_frozen_layers_keep_their_weights(lane: Path, tmp_path: Path, precision: Precision) -> None:
    """All of an encoder frozen and no loss of places: retrieval stays bit for bit, projection and warp learn."""
    if precision == "bfloat16" and not cpu_has_bfloat16():
        pytest.skip("this CPU has no bfloat16 instructions")
    changes = {
        "teacher_weight": 0.0,
        "sparse_start": False,
        "warp_weight": 1.0,
        "score_weight": 1.0,
        "iterations": 2,
    }
    config = QUICK.model_copy(update={**changes, "batch_norm": "frozen", "precision": precision, "views": 2})
    for layers, place_weight, prefixes in (
        (15, 0.0, ("projection.", "regression.")),
        (14, 1.0, ("projection.", "regression.", "encoder.14.", "pool.")),
    ):
        with seeded(0):
            model = GeoWarp(ModelConfig(encoder="mobilenet_v2", projection=24))
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        change = {"frozen_layers": layers, "place_weight": place_weight}
        distill(lane, tmp_path / f"{layers}", config.model_copy(update=change), model, None)
        after = load_model(tmp_path / f"{layers}" / "last.safetensors").state_dict()
        changed = {key for key in before if not torch.equal(before[key], after[key])}
        assert all(key.startswith(prefixes) for key in changed)
        assert {key.partition(".")[0] for key in changed} == {prefix.partition(".")[0] for prefix in prefixes}
    with pytest.raises(TrainingError, match="frozen_layers: expected batch_norm: frozen, and no teacher"):
        distill(
            lane, tmp_path, config.model_copy(update={"frozen_layers": 3, "batch_norm": "trained"}), model, None
        )


def test_exchanged_layers_compute_the_same() -> None:
    with seeded(0):
        model = GeoWarp(ModelConfig(encoder="mobilenet_v2", projection=8)).eval()
    other = with_first_layers(model, model.encoder[:5], 5)
    images = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(other.local_features(images), model.local_features(images))
    assert other.projection is model.projection
    assert len(model.encoder) == 15


def test_mobilenets_maps_have_the_teachers_strides() -> None:
    images = torch.rand(1, 3, 96, 128)
    maps = student_maps(GeoWarp(ModelConfig(encoder="mobilenet_v2", regression=False)).eval(), images)
    assert [tuple(found.shape) for found in maps] == [(1, 32, 12, 16), (1, 576, 6, 8)]


def test_the_score_needs_a_warp(lane: Path, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"teacher_weight": 0.0, "score_weight": 1.0})
    with pytest.raises(TrainingError, match=r"score_weight = 1 needs a model with a warp, or warp_weight"):
        distill(lane, tmp_path, config, scratch(), None)


def test_what_cannot_be_distilled_is_refused(lane: Path, teacher_file: Path, tmp_path: Path) -> None:
    teacher = load_teacher(teacher_file)
    with pytest.raises(TrainingError, match="encoder 'alexnet': expected one of resnet18, resnet50"):
        distill(lane, tmp_path, QUICK, GeoWarp(ModelConfig(encoder="alexnet", regression=False)), teacher)
    with pytest.raises(TrainingError, match=r"teacher_weight = 0\.5 needs a teacher"):
        distill(lane, tmp_path, QUICK, scratch(), None)
    with pytest.raises(TrainingError, match="names no photographs"):
        distill(lane, tmp_path, QUICK.model_copy(update={"grounds": ()}), scratch(), teacher)
    for change, problem in (
        ({"val_split": ""}, "nothing to choose the checkpoint by"),
        ({"positive_radius_m": 0.5}, "none of 18 images has another within 0.5 m"),
        ({"negative_radius_m": 1.0}, "positive and negative at once"),
    ):
        grounds = (GROUND.model_copy(update=change),)
        with pytest.raises(TrainingError, match=problem):
            distill(lane, tmp_path, QUICK.model_copy(update={"grounds": grounds}), scratch(), teacher)


def test_the_command_line_distills(
    lane: Path, teacher_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "{grounds: [{path: street, split: train, val_split: val}], height: 64, width: 96, batch_size: 6, "
        "iterations: 1, tensorboard: false, teacher_weight: 1.0}"
    )
    files = f"--data {lane} --teacher {teacher_file} --output {tmp_path / 'out'}"
    words = f"train distill {tmp_path / 'recipe.yaml'} {files}"
    assert main(words.split()) == 0
    assert "best Recall@1" in capsys.readouterr().out
    assert load_model(tmp_path / "out" / "best.safetensors").config.encoder == "resnet18"


FULL = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])


def apart(batch: int = 4) -> torch.Tensor:
    """Which rows show different places: rows 0 and 1 share one."""
    places = torch.tensor([0, 0, *range(1, batch - 1)])
    return places[:, None] != places[None]


def test_cells_that_match_cost_little_and_cells_that_do_not_cost_much() -> None:
    """A view that is the right half of the other: its cells are where the quad says, and nowhere else."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(1, 16, 8, 8, generator=generator)
    half = torch.tensor([[0.0, -1], [1, -1], [1, 1], [0, 1]])
    noise = torch.randn(2, 16, 8, 8, generator=generator)
    maps = torch.cat([whole, torch.nn.functional.interpolate(whole[..., 4:], (8, 8)), noise])
    told = cell_loss(maps, torch.stack([FULL, half, FULL, FULL]), [Link(0, 1)], apart(), 0.05)
    mistold = cell_loss(maps, torch.stack([FULL, half.flip(0), FULL, FULL]), [Link(0, 1)], apart(), 0.05)
    assert float(told) < 0.5 < 3.0 < float(mistold)
    assert float(cell_loss(maps, FULL.expand(4, 4, 2), [], apart(), 0.05)) == 0.0
    identical = cell_loss(maps[[0, 0, 2, 3]], FULL.expand(4, 4, 2), [Link(0, 1)], apart(), 0.01)
    assert float(identical) == pytest.approx(0.0, abs=1e-4)


def test_cells_are_told_from_those_of_other_places_only() -> None:
    """By hand: unit cells e_k; each has its counterpart and the 8 others of its partner, and one more rival."""
    maps = torch.eye(9).view(1, 9, 3, 3).repeat(3, 1, 1, 1)  # row 2 looks the same as rows 0 and 1
    quads, links = FULL.expand(3, 4, 2), [Link(0, 1)]
    alone = cell_loss(maps, quads, links, torch.zeros(3, 3, dtype=torch.bool), 1.0)
    assert float(alone) == pytest.approx(float(torch.log(torch.tensor(torch.e + 8)) - 1))
    rivalled = cell_loss(maps, quads, links, apart(batch=3), 1.0)
    assert float(rivalled) == pytest.approx(float(torch.log(torch.tensor(2 * torch.e + 16)) - 1))


def test_matched_points_of_two_photographs_are_looked_up_where_the_views_show_them() -> None:
    """The second photograph shows the first's content one cell further right; only the matches know."""
    maps = torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    maps[1] = maps[0].roll(1, dims=2)
    x, y = np.meshgrid((np.arange(6) + 0.5) / 4 - 1, (np.arange(8) + 0.5) / 4 - 1)
    first = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    second = first + np.array([0.25, 0.0], np.float32)
    none = torch.zeros(2, 2, dtype=torch.bool)
    told = cell_loss(maps, FULL.expand(2, 4, 2), [Link(0, 1, first, second)], none, 0.05)
    mistold = cell_loss(maps, FULL.expand(2, 4, 2), [Link(0, 1, first, first)], none, 0.05)
    assert float(told) < 0.05 < 3.0 < float(mistold)
    # a view of the second photograph's right half shows them elsewhere, and the quad says where
    half = torch.tensor([[0.0, -1], [1, -1], [1, 1], [0, 1]])
    seen = torch.stack([maps[0], torch.nn.functional.interpolate(maps[1:, :, :, 4:], (8, 8), mode="bilinear")[0]])
    cropped = cell_loss(seen, torch.stack([FULL, half]), [Link(0, 1, first, second)], none, 0.05)
    assert float(cropped) < 0.5


def test_links_of_a_batch() -> None:
    links = links_of(np.array([3, 3, 4, 5, 5, 5, 7, 8]), None)
    assert [(link.first, link.second) for link in links] == [(0, 1), (4, 5)]

    def points_of(first: int, second: int) -> tuple[Points, Points]:
        points = np.full((int(first == 4), 2), second / 10, np.float32)  # 4 and 5 match, 7 and 8 do not
        return points, points

    matches: Any = points_of
    links = links_of(np.array([3, 3, 4, 5, 5, 5, 7, 8]), matches)
    assert [(link.first, link.second) for link in links] == [(0, 1), (2, 3), (4, 5)]
    assert links[1].points_second is not None


def test_a_sparse_start_spreads_the_descriptors(lane: Path) -> None:
    photographs = lesson(lane).photographs
    model = scratch().eval()
    pixels = torch.stack([torch.from_numpy(photographs[i]).permute(2, 0, 1) / 255 for i in range(18)])
    before = model.encoder(pixels) > 0
    start_sparse(model, photographs, np.random.default_rng(0))
    active = (model.encoder((pixels - 0.45) / 0.225) > 0).float().mean(dim=(0, 2, 3))
    assert before.float().mean() > 0.45
    assert 0.1 < float(active.mean()) < 0.4
    assert float(active.quantile(0.9)) < 0.5
