"""The weights that ``geowarp models`` lists, one entry each.

Every URL, licence, checksum and figure was read where ``read_in`` says; what could not be read is left out.
Figures are their authors': nobody measured them here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from geowarp_ros.errors import ModelError, did_you_mean

Purpose: TypeAlias = Literal["retrieval", "keypoints", "matcher"]


@dataclass(frozen=True)
class Licence:
    """Terms of weights.

    Attributes:
        name: SPDX identifier, or ``none stated``.
        commercial_use: Whether the text of the licence allows it; None: nothing is said.
        meaning: In one line; no legal advice.
    """

    name: str
    commercial_use: bool | None
    meaning: str


MIT = Licence("MIT", True, "use, change and pass on, commercially too; the notice goes along")
BSD = Licence("BSD-3-Clause", True, "as MIT; the authors' names are no advertisement")
APACHE = Licence("Apache-2.0", True, "use, change and pass on, commercially too; notice and changes go along")
GPL = Licence(
    "GPL-3.0", True, "use, commercially too; who passes them on, or what is derived, does so under GPL-3.0"
)
UNSTATED = Licence("none stated", None, "the repository has no licence, so nothing is granted: ask its authors")


@dataclass(frozen=True)
class Recall:
    """A published accuracy: Recall@1, by the authors of the weights.

    Attributes:
        dataset: Its name.
        percent: The figure.
        source: Where its authors published it.
    """

    dataset: str
    percent: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Weights that can be had.

    Attributes:
        name: What the command line and parameters call them.
        purpose: What they are for.
        method: The method's name as its authors write it.
        importer: How a file is read: a key of :data:`geowarp_ros.model.methods.METHODS`, ``geowarp`` for the
            paper's pairs, or the network of keypoints or matches.
        venue: Where it was published.
        year: When.
        encoder: The network, in words.
        dimension: Values of a descriptor, of an image or a keypoint; None: it makes none.
        resolution: Size of the images that it gets, in px, in words; sides are rounded as the network needs.
        licence: Terms of the weights: those of the repository that publishes them.
        read_in: Where the entry's facts were read.
        url: Where a plain GET answers with the file; empty: nowhere.
        by_hand: How a person gets the files where ``url`` is empty.
        files: How many there are.
        size_bytes: Of the file at ``url``; None: it could not be read.
        parameters: Numbers that the network takes from the file, where its size could not be read.
        sha256: Of the file at ``url``; empty: it is recorded when it is first fetched.
        recall: Published accuracy; None: its authors' table could not be read.
        note: What else a user should know.
    """

    name: str
    purpose: Purpose = "retrieval"
    method: str
    importer: str
    venue: str
    year: int
    encoder: str
    dimension: int | None
    resolution: str
    licence: Licence
    read_in: str
    url: str = ""
    by_hand: str = ""
    files: int = 1
    size_bytes: int | None = None
    parameters: int | None = None
    sha256: str = ""
    recall: Recall | None = None
    note: str = ""


_OF_DINOV2 = "contains DINOv2 (Apache-2.0), trained on"
_XFEAT = "github.com/verlab/accelerated_features at e92685f: weights/, README.md, LICENSE"


def _entries() -> Iterator[Entry]:
    yield Entry(
        name="default",
        method="GeoWarp",
        importer="",
        venue="this package",
        year=2026,
        encoder="MobileNetV2",
        dimension=576,
        resolution="shorter side 240",
        licence=MIT,
        read_in="docs/model_card.md, NOTICE",
        size_bytes=6_116_306,
        note="ships with the package; contains MobileNetV2 (MIT), trained on",
    )
    for method, venue, year, read_in in (
        ("CosPlace", "CVPR", 2022, "github.com/gmberton/CosPlace at 33ce8d0: hubconf.py, parser.py, LICENSE"),
        ("EigenPlaces", "ICCV", 2023, "github.com/gmberton/EigenPlaces at a2969f7: hubconf.py, train.py, LICENSE"),
    ):
        for encoder, dimension, parameters in (
            ("ResNet18", 512, 11_448_789),
            ("ResNet50", 512, 24_610_294),
            ("ResNet50", 2048, 27_757_558),
            ("ResNet101", 2048, 46_801_961),
            ("VGG16", 512, 14_977_345),
        ):
            yield Entry(
                name=f"{method}-{encoder}-{dimension}".lower(),
                method=method,
                importer=method.lower(),
                venue=venue,
                year=year,
                encoder=f"{encoder}, GeM, linear",
                dimension=dimension,
                resolution="shorter side 512",
                licence=MIT,
                read_in=read_in,
                url=f"https://github.com/gmberton/{method}/releases/download/v1.0/"
                f"{encoder}_{dimension}_{method.lower()}.pth",
                parameters=parameters,
                note="its authors trained at 512 × 512 and tested on images as they are",
            )
    for dimension, parameters, percent, drive in (
        (4096, 10_911_535, 91.6, "1vuz3PvnR7vxnDDLQrdHJaOA04SQrtk5L"),
        (512, 10_123_533, 90.7, "1khiTUNzZhfV2UUupZoIsPIbsMRBYVDqj"),
        (128, 9_926_733, 87.8, "1DQnefjk1hVICOEYPwE4-CZAZOvi1NSJz"),
    ):
        yield Entry(
            name=f"mixvpr-resnet50-{dimension}",
            method="MixVPR",
            importer="mixvpr",
            venue="WACV",
            year=2023,
            encoder="ResNet50, feature mixing",
            dimension=dimension,
            resolution="320 × 320",
            licence=UNSTATED,
            read_in="github.com/amaralibey/MixVPR at 4043915: README.md; it has no licence file",
            by_hand=f"open https://drive.google.com/file/d/{drive}/view in a browser and download the .ckpt",
            parameters=parameters,
            recall=Recall("Pitts30k-test", percent, "README.md of github.com/amaralibey/MixVPR"),
        )
    for encoder, dimension, side, parameters, percent in (
        ("ResNet50", 16384, 384, 23_875_083, 92.4),
        ("DINOv2", 12288, 322, 95_206_560, 93.7),
    ):
        yield Entry(
            name=f"boq-{encoder}-{dimension}".lower(),
            method="BoQ",
            importer="boq",
            venue="CVPR",
            year=2024,
            encoder=f"{'DINOv2 ViT-B/14' if encoder == 'DINOv2' else encoder}, bag of queries",
            dimension=dimension,
            resolution=f"{side} × {side}",
            licence=MIT,
            read_in="github.com/amaralibey/Bag-of-Queries at 1a4965e: hubconf.py, README.md, LICENSE",
            url="https://github.com/amaralibey/Bag-of-Queries/releases/download/v1.0/"
            f"{encoder.lower()}_{dimension}.pth",
            parameters=parameters,
            recall=Recall("Pitts30k-test", percent, "README.md of github.com/amaralibey/Bag-of-Queries"),
            note=_OF_DINOV2 if encoder == "DINOv2" else "",
        )
    yield Entry(
        name="salad",
        method="DINOv2 SALAD",
        importer="salad",
        venue="CVPR",
        year=2024,
        encoder="DINOv2 ViT-B/14, optimal transport",
        dimension=8448,
        resolution="322 × 322",
        licence=GPL,
        read_in="github.com/serizba/salad at e593005: hubconf.py, README.md, LICENSE",
        url="https://github.com/serizba/salad/releases/download/v1.0.0/dino_salad.ckpt",
        parameters=87_991_489,
        recall=Recall("MSLS-val", 92.2, "README.md of github.com/serizba/salad"),
        note=_OF_DINOV2,
    )
    yield Entry(
        name="megaloc",
        method="MegaLoc",
        importer="megaloc",
        venue="CVPR workshops",
        year=2025,
        encoder="DINOv2 ViT-B/14, optimal transport",
        dimension=8448,
        resolution="shorter side 322",
        licence=MIT,
        read_in="github.com/gmberton/MegaLoc at 1af071c: hubconf.py, LICENSE; the model card it names",
        url="https://huggingface.co/gberton/MegaLoc/resolve/main/model.safetensors",
        parameters=228_639_553,
        note=_OF_DINOV2,
    )
    yield Entry(
        name="cricavpr",
        method="CricaVPR",
        importer="cricavpr",
        venue="CVPR",
        year=2024,
        encoder="DINOv2 ViT-B/14, cross-image encoder",
        dimension=10752,
        resolution="224 × 224",
        licence=MIT,
        read_in="github.com/Lu-Feng/CricaVPR at f53e941: hubconf.py, network.py, LICENSE; its paper, sec. 4",
        url="https://github.com/Lu-Feng/CricaVPR/releases/download/v1.0/CricaVPR.pth",
        parameters=106_772_093,
        recall=Recall("Pitts30k-test", 94.8, "CVPR 2024, table 4, eight queries described together"),
        note=f"{_OF_DINOV2}; published figures describe several images together, which a robot cannot",
    )
    for size, dimension, parameters in (("S", 384, 22_056_576), ("B", 768, 86_580_480)):
        yield Entry(
            name=f"dinov2-vit{size.lower()}14",
            method="DINOv2",
            importer="dinov2",
            venue="arXiv",
            year=2023,
            encoder=f"ViT-{size}/14, GeM",
            dimension=dimension,
            resolution="shorter side 224",
            licence=APACHE,
            read_in="github.com/facebookresearch/dinov2 at b8931f7: README.md, MODEL_CARD.md",
            url=f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{size.lower()}14/"
            f"dinov2_vit{size.lower()}14_pretrain.pth",
            parameters=parameters,
            note="not trained for places: to be trained on",
        )
    # encoder, channels; parameters, and Recall@1 on Pitts30k at 25 m with GeoWarp, by GeM and by NetVLAD
    for encoder, channels, gem, netvlad in (
        ("AlexNet", 256, (4_806_103, 74.7), (4_838_870, 80.8)),
        ("VGG16", 512, (17_051_095, 79.2), (17_116_630, 83.3)),
        ("ResNet50", 1024, (10_910_338, 82.7), (11_041_409, 84.8)),
    ):
        for pool, dimension, (parameters, percent) in (
            ("GeM", channels, gem),
            ("NetVLAD", 64 * channels, netvlad),
        ):
            name = f"{encoder}_{pool}.pth".lower()
            yield Entry(
                name=f"geowarp-{encoder}-{pool}".lower(),
                method="GeoWarp",
                importer="geowarp",
                venue="ICCV",
                year=2021,
                encoder=f"{encoder}, {pool}",
                dimension=dimension,
                resolution="as they are",
                licence=MIT,
                read_in="github.com/gmberton/geo_warp at e870018: README.md, download_*.py, LICENSE",
                by_hand="download and unpack https://drive.google.com/uc?id=1WjfQFS_13uvg_eyefNJWVIKbvy9tSPR- and"
                " https://drive.google.com/uc?id=14rEDzPYbLThfIHzT5wlP5le8ILQObqmf in a browser, and give"
                f" pretrained_baselines/{name} trained_homography_regressions/{name}",
                files=2,
                parameters=parameters,
                recall=Recall("Pitts30k", percent, "ICCV 2021, table 1, re-ranked by GeoWarp"),
            )
    yield Entry(
        name="xfeat",
        purpose="keypoints",
        method="XFeat",
        importer="xfeat",
        venue="CVPR",
        year=2024,
        encoder="XFeat",
        dimension=64,
        resolution="as they are",
        licence=APACHE,
        read_in=_XFEAT,
        url="https://github.com/verlab/accelerated_features/raw/main/weights/xfeat.pt",
        size_bytes=6_247_949,
        sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
    )
    yield Entry(
        name="xfeat-lighterglue",
        purpose="matcher",
        method="LighterGlue",
        importer="xfeat-lighterglue",
        venue="CVPR",
        year=2024,
        encoder="LightGlue, 6 layers, for XFeat",
        dimension=None,
        resolution="as they are",
        licence=APACHE,
        read_in=_XFEAT,
        url="https://github.com/verlab/accelerated_features/raw/main/weights/xfeat-lighterglue.pt",
        size_bytes=10_820_795,
        sha256="766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
    )
    for name, file, size_bytes, sha256 in (
        ("aliked", "aliked-n16", 2_738_091, "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2"),
        (
            "aliked-n16rot",
            "aliked-n16rot",
            2_738_325,
            "ddf3abbf38e86f6a74540d214e1a9712c54b2d8551abc864542199f2347d7332",
        ),
        (
            "aliked-n32",
            "aliked-n32",
            3_946_667,
            "055283fd1624d3ab46a05c3b617b1a79a3f28d1f551737eef2d653e8c8232890",
        ),
    ):
        yield Entry(
            name=name,
            purpose="keypoints",
            method="ALIKED",
            importer="aliked",
            venue="IEEE TIM",
            year=2023,
            encoder=file.upper(),
            dimension=128,
            resolution="as they are",
            licence=BSD,
            read_in="github.com/Shiaoming/ALIKED at 683d7c6: models/, LICENSE",
            url=f"https://github.com/Shiaoming/ALIKED/raw/main/models/{file}.pth",
            size_bytes=size_bytes,
            sha256=sha256,
            note="trained with rotations" if file.endswith("rot") else "",
        )
    yield Entry(
        name="disk",
        purpose="keypoints",
        method="DISK",
        importer="disk",
        venue="NeurIPS",
        year=2020,
        encoder="U-Net",
        dimension=128,
        resolution="as they are",
        licence=APACHE,
        read_in="github.com/cvlab-epfl/disk at 8dc6d4d: README.md, depth-save.pth, LICENSE.txt",
        url="https://raw.githubusercontent.com/cvlab-epfl/disk/master/depth-save.pth",
        size_bytes=4_375_832,
        sha256="9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
    )
    for features in ("aliked", "disk"):
        yield Entry(
            name=f"{features}-lightglue",
            purpose="matcher",
            method="LightGlue",
            importer=f"{features}-lightglue",
            venue="ICCV",
            year=2023,
            encoder=f"LightGlue, 9 layers, for {features.upper()}",
            dimension=None,
            resolution="as they are",
            licence=APACHE,
            read_in="github.com/cvg/LightGlue at 1fd587b: lightglue/lightglue.py, README.md, LICENSE",
            url=f"https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/{features}_lightglue.pth",
            parameters=11_884_634,
        )
    yield Entry(
        name="loftr",
        purpose="matcher",
        method="LoFTR",
        importer="loftr",
        venue="CVPR",
        year=2021,
        encoder="ResNet-FPN, transformer; outdoor",
        dimension=None,
        resolution="as they are",
        licence=APACHE,
        read_in="github.com/zju3dv/LoFTR at df7ca80: README.md, LICENSE; kornia 0.9: feature/loftr/loftr.py",
        url="https://huggingface.co/kornia/loftr/resolve/main/loftr_outdoor.ckpt",
        parameters=11_568_177,
        note="as kornia hosts it; its authors have it in a folder for browsers",
    )


CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in _entries()}
"""Name -> entry."""


def find_entry(name: str) -> Entry:
    """Return the entry called ``name``.

    Raises:
        ModelError: There is none; the nearest name is said.
    """
    if name not in CATALOGUE:
        raise ModelError(
            f"{name}: no weights are called so{did_you_mean(name, CATALOGUE)}; 'geowarp models' lists all"
        )
    return CATALOGUE[name]
