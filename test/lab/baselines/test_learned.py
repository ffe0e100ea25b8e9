"""The learned matchers with random weights: files load strictly, points come out; nothing on how good they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from geowarp_ros.config import LocalizerConfig
from geowarp_ros.errors import ModelError
from geowarp_ros.lab.baselines import BaselinesConfig, Method, build_method
from geowarp_ros.lab.baselines.learned import DiskLightGlueMatcher, LoFTRMatcher
from geowarp_ros.model.describer import Describer
from geowarp_ros.model.torch_files import load_torch
from test.rerank.conftest import MemoryGallery, query_of, textured

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layouts that the authors publish: wrapped, prefixed, with LightGlue's old keys."""
    from kornia.feature import DISK, LightGlue, LoFTR

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    loftr = {f"matcher.{key}": value for key, value in LoFTR(pretrained=None).state_dict().items()}
    torch.save({"state_dict": loftr}, folder / "loftr.ckpt")
    torch.save({"extractor": DISK().state_dict()}, folder / "disk.pth")
    glue = LightGlue(None, input_dim=128).state_dict()  # type: ignore[arg-type]  # kornia means str | None
    del glue["confidence_thresholds"]
    old = {}
    for key, value in glue.items():
        parts = key.split(".")
        if parts[0] == "transformers":
            parts = [parts[2], parts[1], *parts[3:]]
        old[".".join(parts)] = value.clone()
    safetensors.torch.save_file(old, folder / "lightglue.safetensors")
    return folder


@pytest.fixture(scope="module")
def small_gallery() -> MemoryGallery:
    return MemoryGallery(np.zeros((2, 1)), [textured(0), textured(1, 100, 90)])


def test_loftr_loads_a_published_layout_and_yields_points_in_the_image(
    weights: Path, small_gallery: MemoryGallery
) -> None:
    matcher = LoFTRMatcher(small_gallery, str(weights / "loftr.ckpt"), CPU)
    pairs = list(matcher(query_of(pixels=textured(0)), [0, 1]))
    assert len(pairs) == 2
    for points_q, points_p in pairs:
        assert points_q.shape == points_p.shape and points_q.shape[1] == 2


def test_disk_and_lightglue_load_published_layouts(weights: Path, small_gallery: MemoryGallery) -> None:
    matcher = DiskLightGlueMatcher(
        small_gallery, str(weights / "lightglue.safetensors"), str(weights / "disk.pth"), 64, CPU
    )
    pairs = list(matcher(query_of(pixels=textured(0)), [0, 1]))
    assert len(pairs) == 2
    for points_q, points_p in pairs:
        assert points_q.shape == points_p.shape and points_q.shape[1] == 2
        assert (points_q >= 0).all() and (points_q < [128, 96]).all()


@pytest.mark.parametrize("method", ["loftr", "disk-lightglue"])
def test_without_weights_the_parameter_is_named(
    method: Method, describer: Describer, small_gallery: MemoryGallery
) -> None:
    with pytest.raises(ModelError, match=r"baselines\.(keypoint_)?weights = ''.*needs a file of weights"):
        build_method(method, LocalizerConfig(), BaselinesConfig(), small_gallery, describer)


def test_foreign_weights_are_refused(weights: Path, small_gallery: MemoryGallery, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"baselines\.weights.*missing"):
        LoFTRMatcher(small_gallery, str(weights / "disk.pth"), CPU)
    with pytest.raises(ModelError, match="does not exist"):
        LoFTRMatcher(small_gallery, str(tmp_path / "absent.ckpt"), CPU)
    more = load_torch(weights / "loftr.ckpt")["state_dict"] | {"matcher.head.weight": torch.zeros(1)}
    torch.save({"state_dict": more}, tmp_path / "more.ckpt")
    with pytest.raises(ModelError, match=r"1 unexpected: head\.weight"):
        LoFTRMatcher(small_gallery, str(tmp_path / "more.ckpt"), CPU)
    (tmp_path / "text.ckpt").write_text("no weights")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        LoFTRMatcher(small_gallery, str(tmp_path / "text.ckpt"), CPU)
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ModelError, match="holds no state dict"):
        LoFTRMatcher(small_gallery, str(tmp_path / "list.ckpt"), CPU)
