"""``published_descriptors.json``: what the authors' own code answers, by hand and beside ours.

``python -m test.model.authors FOLDER`` wants the public repositories CosPlace, EigenPlaces, MixVPR and
Bag-of-Queries below FOLDER, and torchvision's Python files in FOLDER/torchvision. None of them is here.

- Networks come from the authors' entry points (``hubconf.py``; of MixVPR ``main.VPRModel``), which load weights
  strictly; where these would be downloaded, :func:`torch.hub.load_state_dict_from_url` gives ours.
- ResNets and VGG are torchvision's own, without its compiled part, of which they use nothing: two of its
  operators are declared so that it can be imported. Its pretrained weights are not loaded: ours replace them all.
- EigenPlaces starts from CosPlace's weights by ``torch.hub.load``: an empty network stands in.
- MixVPR's ``main`` imports Lightning, timm, its losses and its data sets: empty modules stand in, and
  :class:`torch.nn.Module` for ``LightningModule``.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from test.model.published_layouts import CASES, FIXTURE, Case, abridged, inputs, seeded_checkpoint


def main(folder: Path) -> None:
    """Describe the images of every case and write the numbers."""
    _import_torchvision(folder)
    found = {}
    for case in CASES:
        state = seeded_checkpoint(case)
        torch.hub.load_state_dict_from_url = lambda *_, **__: state  # noqa: B023
        network = _OF_METHOD[case.method](folder, case, state).eval()
        with torch.inference_mode():
            answers = [network(image[None]) for image in inputs(case)]
        found[case.name] = abridged(torch.cat([a[0] if isinstance(a, tuple) else a for a in answers]))
    FIXTURE.write_text(json.dumps(found, indent=0) + "\n")


def _import_torchvision(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    models = importlib.import_module("torchvision.models")
    for name in ("resnet18", "resnet50", "resnet101", "resnet152", "vgg16"):
        setattr(models, name, partial(_without_weights, getattr(models, name)))


def _without_weights(build: Callable[[], nn.Module], **_: Any) -> nn.Module:
    return build()


def _fresh(folder: Path, module: str, *of_repository: str) -> Any:
    """Import a repository's module; those of the last one with the same names are forgotten."""
    for name in list(sys.modules):
        if name.partition(".")[0] in (module, *of_repository):
            del sys.modules[name]
    sys.path.insert(0, str(folder))
    return importlib.import_module(module)


def _cosplace(folder: Path, case: Case, _: dict[str, Tensor]) -> Any:
    return _fresh(folder / "CosPlace", "hubconf").get_trained_model(case.backbone, case.dimension)


def _eigenplaces(folder: Path, case: Case, _: dict[str, Tensor]) -> Any:
    torch.hub.load = lambda *_, **__: nn.Identity()
    return _fresh(folder / "EigenPlaces", "hubconf").get_trained_model(case.backbone, case.dimension)


def _mixvpr(folder: Path, case: Case, state: dict[str, Tensor]) -> Any:
    lightning = MagicMock()
    lightning.LightningModule = type("LightningModule", (nn.Module,), {"save_hyperparameters": lambda self: None})
    absent = ("pytorch_lightning.callbacks", "utils", "dataloaders", "dataloaders.GSVCitiesDataloader", "timm")
    sys.modules.update({"pytorch_lightning": lightning, **{name: MagicMock() for name in absent}})
    rows = {4096: 4, 512: 2, 128: 2}[case.dimension]
    options = {"in_channels": 1024, "in_h": 20, "in_w": 20, "mix_depth": 4, "mlp_ratio": 1, "out_rows": rows}
    network = _fresh(folder / "MixVPR", "main").VPRModel(
        backbone_arch="resnet50",
        layers_to_crop=[4],
        agg_arch="MixVPR",
        agg_config={**options, "out_channels": case.dimension // rows},
    )
    network.load_state_dict(state)
    return network


def _boq(folder: Path, case: Case, _: dict[str, Tensor]) -> Any:
    return _fresh(folder / "Bag-of-Queries", "hubconf", "boq", "backbones").get_trained_boq(
        "resnet50", case.dimension
    )


_OF_METHOD = {"cosplace": _cosplace, "eigenplaces": _eigenplaces, "mixvpr": _mixvpr, "boq": _boq}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
