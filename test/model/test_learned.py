"""Weights of others: every published layout loads strictly; what is foreign, absent or too new is refused."""

from __future__ import annotations

from pathlib import Path

import kornia.feature
import pytest
import torch
from safetensors.torch import save_file

from geowarp_ros.errors import ModelError
from geowarp_ros.keypoints.detector import KeypointConfig
from geowarp_ros.model.learned import keypoints_of, load_keypoints, load_matcher
from test.untrained import NAMES, published, state_of, store

SHARED = Path(__file__).parents[3] / "shared" / "weights" / "xfeat"


def load(name: str, weights: Path | str = "") -> str:
    if name in ("xfeat", "aliked", "disk"):
        return load_keypoints(name, weights)  # type: ignore[arg-type]
    return load_matcher(name, weights).weights  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_a_published_file_and_a_stored_one_are_the_same_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(published(name), tmp_path / "as_published.pth")
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(store(tmp_path, name)))
    found = load(name, tmp_path / "as_published.pth")
    assert found == load(name) == load(name, name) and len(found) == 16
    torch.save(published(name, 1), tmp_path / "as_published.pth")
    assert load(name, tmp_path / "as_published.pth") != found, "a file that took another's place is read anew"


def test_a_network_has_the_numbers_of_its_file(tmp_path: Path) -> None:
    torch.save(published("disk-lightglue"), tmp_path / "glue.pth")
    network = load_matcher("disk-lightglue", tmp_path / "glue.pth").network
    loaded = network.state_dict()
    for key, value in state_of("disk-lightglue").items():
        assert torch.equal(loaded[key], value), key
    assert not network.training and loaded["confidence_thresholds"][0] == pytest.approx(0.9)


def test_each_network_is_built_as_its_file_needs_it(tmp_path: Path) -> None:
    """ALIKED describes a keypoint by 16 points or by 32; LighterGlue is smaller than LightGlue."""
    torch.manual_seed(0)
    torch.save(kornia.feature.ALIKED("aliked-n32").state_dict(), tmp_path / "n32.pth")
    assert load("aliked", tmp_path / "n32.pth") != load("aliked", _saved("aliked", tmp_path))
    torch.save(kornia.feature.ALIKED("aliked-t16").state_dict(), tmp_path / "t16.pth")
    with pytest.raises(ModelError, match=r"t16\.pth: aliked: not the weights of this network: .*wrong shape"):
        load("aliked", tmp_path / "t16.pth")
    with pytest.raises(ModelError, match=r"xfeat-lighterglue: not the weights of this network"):
        load("xfeat-lighterglue", _saved("aliked-lightglue", tmp_path))


def _saved(name: str, folder: Path) -> Path:
    torch.save(published(name), folder / f"{name}.pth")
    return folder / f"{name}.pth"


def test_weights_are_found_by_their_own_name_or_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOWARP_WEIGHTS", str(tmp_path))
    said = r"keypoint_weights = '': aliked needs .*'geowarp models get aliked' fetches"
    with pytest.raises(ModelError, match=said):
        load_keypoints("aliked")
    with pytest.raises(ModelError, match=r"matcher_weights = '': loftr needs .*'geowarp models get loftr'"):
        load_matcher("loftr")
    store(tmp_path, "aliked")
    assert keypoints_of("aliked").weights == load_keypoints("aliked") and keypoints_of("aliked").kind == "aliked"
    assert keypoints_of("sift") == KeypointConfig()


@pytest.mark.parametrize("name", ["xfeat", "disk-lightglue", "loftr"])
def test_files_that_are_no_such_weights(name: str, tmp_path: Path) -> None:
    def refused(file: str, said: str) -> None:
        with pytest.raises(ModelError, match=said):
            load(name, tmp_path / file)

    refused("absent.pt", r"absent\.pt: does not exist, expected a state dict")
    refused(".", "is a folder, expected a state dict")
    (tmp_path / "text.pt").write_text("no weights")
    refused("text.pt", r"text\.pt: is no state dict of plain tensors")
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pt")
    refused("other.pt", rf"other\.pt: {name}: not the weights of this network: \d+ missing.*1 unexpected")
    torch.save([1, 2], tmp_path / "list.pt")
    refused("list.pt", r"list\.pt: holds list, expected a state dict of named tensors")
    state = {key: value.clone() for key, value in state_of(name).items()}
    key = next(key for key in state if key.endswith("weight"))
    state[key].view(-1)[0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    refused("nan.safetensors", rf"nan\.safetensors: {name}: 1 with NaN or infinite values: {key}")
    (tmp_path / "nan.safetensors").unlink()


@pytest.mark.parametrize(("name", "lacks"), [("xfeat", "XFeat"), ("aliked", "ALIKED"), ("loftr", "LoFTR")])
def test_an_older_kornia_is_refused_for_what_it_lacks(
    name: str, lacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _saved(name, tmp_path)
    monkeypatch.delattr(kornia.feature, lacks)
    with pytest.raises(
        ModelError, match=rf"{name} needs {lacks} of kornia, and kornia .* here has none: pip install"
    ):
        load(name, file)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the project's shared data: XFeat's published weights")
def test_the_published_files_of_xfeat_load() -> None:
    assert load("xfeat", SHARED / "xfeat.pt") == "53a091a2b17cc445", "what galleries of version 0.2 have noted"
    assert load("xfeat-lighterglue", SHARED / "xfeat-lighterglue.pt") == "b15cabf35b49c668"
