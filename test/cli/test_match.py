from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from geowarp_ros.cli import main
from geowarp_ros.cli.match import VERDICTS, match_images, verdict_of
from geowarp_ros.images import read_image, resize_shorter
from geowarp_ros.model.aggregation import AggregationName
from geowarp_ros.model.checkpoints import load_model, save_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.encoders import EncoderName
from geowarp_ros.pictures import FIGURE_PX
from test.model import naive
from test.model.conftest import picture
from test.model.weights import PAIRS, make_model, published

torch.set_num_threads(1)

KEYS = [
    "verdict",
    "inliers",
    "matches",
    "chance_inliers",
    "distance",
    "descriptor_dim",
    "descriptor_norm",
    "score_unwarped",
    "score",
    "quad_q",
    "quad_p",
]


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two image files of different size, lossless."""
    folder = tmp_path_factory.mktemp("street")
    for name, size, seed in (("a.png", (48, 64), 1), ("b.png", (56, 50), 2)):
        Pillow.fromarray(picture(*size, seed=seed)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    save_model(make_model(), path)
    return path


def match(capsys: pytest.CaptureFixture[str], street: Path, model: Path, *options: str) -> str:
    assert main(["match", str(street / "a.png"), str(street / "b.png"), "--model", str(model), *options]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("encoder", "aggregation"), PAIRS)
def test_imported_weights_match_as_the_method_says(
    encoder: EncoderName,
    aggregation: AggregationName,
    street: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From published state dicts to the printed numbers, against loops in float64: the whole promise at once."""
    features, regression = published(make_model(encoder, aggregation))
    torch.save({f"module.{key}": t for key, t in features.items()}, tmp_path / "fe.pth")
    torch.save(regression, tmp_path / "hr.pth")
    words = ["import-weights", "--encoder", encoder, "--aggregation", aggregation]
    words += [
        "--features-extractor",
        str(tmp_path / "fe.pth"),
        "--homography-regression",
        str(tmp_path / "hr.pth"),
    ]
    assert main([*words, "--output", str(tmp_path / "m.safetensors")]) == 0
    assert f"{encoder} + {aggregation}" in capsys.readouterr().out

    ours = json.loads(match(capsys, street, tmp_path / "m.safetensors", "--json"))
    images = picture(48, 64, seed=1), picture(56, 50, seed=2)
    expected = naive.match(encoder, aggregation, features, regression, *images)
    assert list(ours) == KEYS
    assert ours["descriptor_dim"] == expected["descriptor_dim"]
    for name in ("quad_q", "quad_p"):
        np.testing.assert_allclose(ours[name], expected[name], atol=1e-4)
    for name in ("distance", "descriptor_norm", "score_unwarped", "score"):
        assert ours[name] == pytest.approx(expected[name], rel=1e-4), name
    # the oracle would notice: the warp moves corners and changes the score by far more than is allowed
    assert np.abs(expected["quad_q"] - [(-1, -1), (1, -1), (1, 1), (-1, 1)]).max() > 0.05
    assert abs(expected["score"] / expected["score_unwarped"] - 1) > 1e-4


def test_an_image_with_itself_has_distance_zero(
    street: Path, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(street / "a.png")
    assert main(["match", image, image, "--model", str(model_file), "--json"]) == 0
    ours = json.loads(capsys.readouterr().out)
    assert ours["distance"] == 0
    assert ours["score_unwarped"] == pytest.approx(225, rel=1e-4)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wall, the same wall from aside, and another wall."""
    folder = tmp_path_factory.mktemp("views")
    for name, seed in (("wall.png", 0), ("other.png", 1)):
        noise = np.random.default_rng(seed).integers(0, 256, (45, 60, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / name), cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC))
    wall = cv2.imread(str(folder / "wall.png"))
    assert wall is not None
    corners = np.array([[0, 0], [640, 0], [640, 480], [0, 480]], np.float32)
    seen = np.array([[60, 20], [600, 80], [560, 420], [20, 470]], np.float32)
    aside = cv2.warpPerspective(wall, cv2.getPerspectiveTransform(corners, seen), (640, 480))
    cv2.imwrite(str(folder / "aside.png"), aside)
    return folder


def test_the_same_wall_is_told_from_another_by_what_agrees(
    views: Path, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for name in ("aside.png", "other.png"):
        words = ["match", str(views / "wall.png"), str(views / name), "--model", str(model_file)]
        assert main([*words, "--json"]) == 0
        found[name] = json.loads(capsys.readouterr().out)
        assert main(words) == 0
        first = capsys.readouterr().out.splitlines()[0]
        numbers = "{inliers} of {matches} matched keypoints agree on one view (chance: up to 9)".format(
            **found[name]
        )
        assert first.endswith(f"the same place: {numbers}" if name == "other.png" else f"same place: {numbers}")
    same, other = found["aside.png"], found["other.png"]
    assert (same["verdict"], other["verdict"]) == ("same_place", "no_sign")
    assert same["inliers"] > 100 > 9 == same["chance_inliers"] >= other["inliers"]
    assert same["matches"] >= same["inliers"]


def test_up_to_chance_is_no_sign_and_up_to_twice_that_a_doubt() -> None:
    verdicts = [verdict_of(inliers, 9) for inliers in (0, 9, 10, 18, 19)]
    assert verdicts == ["no_sign", "no_sign", "perhaps", "perhaps", "same_place"]
    assert set(verdicts) == set(VERDICTS)


def test_the_figure_joins_the_points_of_the_wall_that_are_the_same(views: Path, model_file: Path) -> None:
    """Each keypoint that agrees lies where the wall was warped to."""
    describer = Describer(load_model(model_file), "cpu")
    wall, aside = (read_image(views / name) for name in ("wall.png", "aside.png"))
    _, pair = match_images(describer, wall, aside)
    corners = np.array([[0, 0], [640, 0], [640, 480], [0, 480]], np.float32)
    seen = np.array([[60, 20], [600, 80], [560, 420], [20, 470]], np.float32)
    points = ((pair.points_q + 1) * (320, 240) - 0.5).astype(np.float32)
    expected = cv2.perspectiveTransform(points[None], cv2.getPerspectiveTransform(corners, seen))[0]
    off = np.hypot(*((pair.points_p + 1) * (320, 240) - 0.5 - expected).T)
    assert len(off) > 100 and np.median(off) < 1.5 and off.max() < 10


def test_a_verdict_has_its_colour(
    views: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    for name, code in (("aside.png", 32), ("other.png", 31)):
        assert main(["match", str(views / "wall.png"), str(views / name), "--model", str(model_file)]) == 0
        verdict, *rest = capsys.readouterr().out.splitlines()
        assert verdict.startswith(f"\x1b[{code}m") and verdict.endswith("\x1b[0m") and "\x1b" not in "".join(rest)


def test_the_model_says_the_resolution(street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(make_model(resolution=32), tmp_path / "small")
    save_model(make_model(), tmp_path / "full")
    for name, size, seed in (("a.png", (48, 64), 1), ("b.png", (56, 50), 2)):
        Pillow.fromarray(resize_shorter(picture(*size, seed=seed), 32)).save(tmp_path / name)
    shrunk = json.loads(match(capsys, street, tmp_path / "small", "--json"))
    assert shrunk == json.loads(match(capsys, tmp_path, tmp_path / "full", "--json"))


def test_words_and_figure(
    street: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = match(capsys, street, model_file, "--figure", str(tmp_path / "figure.png"))
    assert [line.split()[0] for line in out.splitlines()] == [
        "no", "distance", "descriptor", "score", "score", "quad_q", "quad_p",
    ]  # fmt: skip
    with Pillow.open(tmp_path / "figure.png") as figure:
        assert figure.width == FIGURE_PX


def test_a_model_without_regression_gives_null(
    street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(make_model(regression=False), tmp_path / "m")
    out = match(capsys, street, tmp_path / "m", "--json", "--figure", str(tmp_path / "figure.png"))
    ours = json.loads(out)
    assert (ours["score"], ours["quad_q"], ours["quad_p"]) == (None, None, None)
    assert ours["score_unwarped"] > 0
    assert "no warping regression" in match(capsys, street, tmp_path / "m")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.png", "absent.png"], "absent.png: cannot be read: No such file"),
        (["a.png", "b.png", "--model", "absent"], "absent: is no file, and no weights of that name lie in"),
        (["a.png", "b.png", "--figure", "absent/figure.png"], "figure.png: cannot be written: No such file"),
        (["a.png", "b.png", "--figure", "figure.xyz"], "figure.xyz: cannot be written: expected a name that ends"),
        (["a.png", "b.png", "--figure", "a.png"], "a.png: would overwrite an image"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    street: Path,
    model_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(street)
    model = [] if "--model" in words else ["--model", str(model_file)]
    assert main(["match", *words, *model]) == 1
    error = capsys.readouterr().err
    assert error.startswith("geowarp match: ")
    assert message in error
    assert error.count("\n") == 1


def test_import_says_what_it_wrote_and_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, _ = published(make_model())
    torch.save(features, tmp_path / "fe.pth")
    words = ["import-weights", "--encoder", "resnet18", "--features-extractor", str(tmp_path / "fe.pth")]
    words += ["--output", str(tmp_path / "m"), "--half", "--resolution", "240"]
    assert main([*words, "--aggregation", "gem"]) == 0
    assert "256 values a descriptor, without warping regression" in capsys.readouterr().out
    assert load_model(tmp_path / "m").config.resolution == 240
    assert main([*words, "--aggregation", "netvlad"]) == 1
    error = capsys.readouterr().err
    assert "2 missing: pool.centroids, pool.conv.weight; 1 unexpected: pool.1.p" in error
    assert error.count("\n") == 1
