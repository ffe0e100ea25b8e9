"""``geowarp models``: what can be had, what is here, and ``--model NAME`` wherever a model file is taken."""

from __future__ import annotations

import dataclasses
import json
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import geowarp_ros as gw
from geowarp_ros.catalogue.entries import CATALOGUE
from geowarp_ros.cli import main
from geowarp_ros.cli.options import session_config
from geowarp_ros.cli.parser import MODEL, ExistingModel
from geowarp_ros.config import LocalizerConfig
from geowarp_ros.errors import ModelError
from geowarp_ros.model.checkpoints import fingerprint
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.methods import METHODS, Method
from test.catalogue.serving import Site
from test.cli.walking import every_parser


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights, empty."""
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def tiny(site: Site, monkeypatch: pytest.MonkeyPatch) -> GeoWarp:
    """The model that the catalogue calls ``tiny`` and a server on loopback has."""
    torch.manual_seed(0)
    model = GeoWarp(ModelConfig(encoder="resnet18", regression=False, resolution=96))
    file = BytesIO()
    torch.save(model.state_dict(), file)
    method = Method(lambda _: {"encoder": "resnet18", "resolution": 96}, dict, source="here")
    entry = dataclasses.replace(
        CATALOGUE["salad"], name="tiny", importer="tiny", encoder="ResNet18", dimension=256,
        url=site.put("t.pth", file.getvalue()),
    )  # fmt: skip
    monkeypatch.setitem(METHODS, "tiny", method)
    monkeypatch.setitem(CATALOGUE, "tiny", entry)
    return model.eval()


def printed(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words.split()) == 0
    return capsys.readouterr().out


def refusal(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words.split()) == 1
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert said.out == ""
    return line


def test_alone_it_lists_everything_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    head, *lines = printed("models", capsys).splitlines()
    assert [line.split()[0] for line in lines] == list(CATALOGUE)
    assert head.split()[:3] == ["name", "for", "published"]
    by_name = {line.split()[0]: line for line in lines}
    assert "GPL-3.0" in by_name["salad"] and "92.2 MSLS-val" in by_name["salad"]
    assert by_name["default"].endswith("yes") and by_name["salad"].endswith("–")
    assert " ask " in by_name["mixvpr-resnet50-512"] and " 6.2 " in by_name["xfeat"]


def test_json_is_an_object_a_line(
    tiny: GeoWarp, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, weights: Path
) -> None:
    main(["models", "get", "tiny"])
    capsys.readouterr()
    rows = {row["name"]: row for row in map(json.loads, printed("models --json", capsys).splitlines())}
    assert list(rows) == list(CATALOGUE)
    assert len({frozenset(row) for row in rows.values()}) == 1, "every row has every key"
    assert rows["tiny"]["present"] == str(weights / "tiny.safetensors")
    assert rows["tiny"]["fingerprint"] == fingerprint(tiny)
    assert rows["salad"]["present"] is None and rows["salad"]["fingerprint"] is None
    assert (rows["salad"]["commercial_use"], rows["mixvpr-resnet50-512"]["commercial_use"]) == (True, None)
    expected = {"at_1_percent": 93.7, "dataset": "Pitts30k-test", "source": "README.md of github.com/amaralibey/"}
    recall = rows["boq-dinov2-12288"]["recall"]
    assert {**recall, "source": recall["source"][: len(expected["source"])]} == expected  # type: ignore[arg-type]
    assert rows["xfeat"]["size_bytes"] == 6_247_949 and rows["xfeat"]["for"] == "keypoints"
    (weights / "tiny.json").write_text("{")  # the others are listed all the same
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert list(rows) == list(CATALOGUE) and rows["tiny"]["fingerprint"] is None
    assert "tiny.json: is damaged" in caplog.text


def test_get_shows_how_far_it_is_and_says_the_licence(
    tiny: GeoWarp, terminal: None, capsys: pytest.CaptureFixture[str], weights: Path
) -> None:
    assert main(["models", "get", "tiny"]) == 0
    said = capsys.readouterr()
    first, second = said.out.splitlines()
    assert first.startswith(f"{weights / 'tiny.safetensors'}: ") and fingerprint(tiny) in first
    assert second.startswith("licence GPL-3.0: use, commercially too; who passes them on")
    assert "t.pth, megabytes: 100%" in said.err
    assert "is here, and unchanged" in printed("models get tiny", capsys)
    assert printed("models remove tiny", capsys) == f"{weights / 'tiny.safetensors'}: is removed\n"
    assert "tiny: is not among the weights" in refusal("models remove tiny", capsys)


def test_from_takes_a_file_or_an_address(
    tiny: GeoWarp, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.pth").write_bytes(site.pages["/t.pth"].body)
    printed(f"models get tiny --from {tmp_path / 't.pth'}", capsys)
    assert site.asked == []
    printed(f"models get tiny --from {site.url('t.pth')}", capsys)
    assert len(site.asked) == 1
    site.put("t.pth", b"<html>", headers={"Content-Type": "text/html"})
    said = refusal(f"models get tiny --from {site.url('t.pth')}", capsys)
    assert said.startswith("geowarp models: http://127.0.0.1") and "is a web page" in said


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "(did you mean 'megaloc'?)" in refusal("models get megalock", capsys)
    assert "--from FILE FILE" in refusal("models get geowarp-vgg16-gem", capsys)
    with pytest.raises(SystemExit):
        main(["models", "fetch", "salad"])
    assert "did you mean" not in capsys.readouterr().out


def test_a_stored_name_is_a_model_wherever_a_file_is(
    tiny: GeoWarp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the command line, of parameters, and of Python."""
    main(["models", "get", "tiny"])
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = ["filename,latitude,longitude"]
    for number in range(3):
        blocks = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        cv2.imwrite(f"{number}.png", cv2.resize(blocks, (128, 96), interpolation=cv2.INTER_CUBIC))
        rows.append(f"{number}.png,{45.00001 + number * 1e-3:.5f},7.00001")
    Path("positions.csv").write_text("\n".join(rows) + "\n")
    built = "gallery build positions.csv --output g --model tiny --no-keypoints --no-align"
    assert main(built.split()) == 0
    capsys.readouterr()
    info = printed("gallery info g", capsys)
    assert fingerprint(tiny) in info
    words = "localize 1.png --gallery g --model tiny --rerank none --set position.verify=none --json"
    (answer,) = map(json.loads, printed(words, capsys).splitlines())
    assert answer["candidates"][0]["path"] == "1.png"
    config = LocalizerConfig.model_validate({"model": "tiny", "rerank": {"method": "none"}})
    assert gw.Localizer.open("g", config).localize("1.png").candidates[0].place.name == "1.png"


def test_what_is_not_stored_is_said_before_anything_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal("match a b --model megalok".replace("a b", f"{__file__} {__file__}"), capsys)
    assert "megalok: is no file" in line and "(did you mean 'megaloc'?)" in line
    with pytest.raises(ModelError, match="'geowarp models get megaloc' fetches them"):
        session_config({"model": "megaloc"})  # the node's parameter
    with pytest.raises(ModelError, match="megalok"):
        MODEL.check("megalok")


def test_every_model_of_every_verb_takes_a_stored_name(tiny: GeoWarp) -> None:
    """Whatever names a model on the command line is checked by the one type that knows names."""
    main(["models", "get", "tiny"])
    found = set()
    for words, parser in every_parser():
        for option in parser._actions:
            if {"--model", "--warp", "--init"} & set(option.option_strings):
                assert isinstance(option.type, ExistingModel), words
                option.type.check(option.type("tiny"))
                found.add(" ".join(words))
    assert {"match", "gallery build", "localize", "evaluate bag", "train retrieval", "export", "demo"} <= found
