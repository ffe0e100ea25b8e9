"""What this package reads, damaged: an image, a message, a file is taken or refused in one line, and nothing else.

Each :class:`Subject` makes damaged input by hypothesis and gives it to the code that reads it. The test suite
tries a few hundred of each kind, ``python -m test.soak mutations`` ten thousand.
"""

from __future__ import annotations

import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from geowarp_ros.cameras import Camera
from geowarp_ros.errors import CameraError, GalleryError, GeowarpError, ImageError, ModelError, SourceError
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.images import MAX_SIDE_PX, MIN_SIDE_PX, decode_image
from geowarp_ros.integrity.calibration import Calibration, load_calibration, save_calibration
from geowarp_ros.integrity.evidence import FEATURES, gather_evidence
from geowarp_ros.messages import _ENCODINGS, image_from_compressed, image_from_message
from geowarp_ros.model.checkpoints import load_model, save_model
from geowarp_ros.model.geowarp import GeoWarp, ModelConfig
from geowarp_ros.model.published import import_weights
from geowarp_ros.readers import read_source
from geowarp_ros.readers.camera_files import read_camera, write_camera
from geowarp_ros.types import Image
from test.gallery import bags
from test.gallery.conftest import ColourDescriber
from test.test_messages import Message

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
MEETING_PLACES = 4  # images of the sources below


@dataclass(frozen=True)
class Subject:
    """Something that is read.

    Attributes:
        name: For the table.
        inputs: Makes damaged input.
        read: Reads it; raises ``refusal``, or checks what came out.
        refusal: What it may raise.
        share: Of the examples asked for; files that take long to read get fewer.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    read: Callable[[Any], None]
    refusal: type[GeowarpError]
    share: float = 1.0


def examine(subject: Subject, examples: int, seed: int | None = None) -> Counter[str]:
    """Read so many damaged inputs; anything but taking or refusing them in one line raises.

    Args:
        subject: What is read.
        examples: Before the subject's share is taken.
        seed: None: the same inputs every time.

    Returns:
        How many were "taken" and "refused".
    """
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=max(5, round(examples * subject.share)),
        derandomize=seed is None,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(subject.inputs)
    def one(damaged: Any) -> None:
        try:
            subject.read(damaged)
        except subject.refusal as error:
            said = str(error)
            assert said and "\n" not in said and len(said) < 2000, said
            assert "Traceback" not in said
            outcomes["refused"] += 1
        else:
            outcomes["taken"] += 1

    (one if seed is None else seeded(seed)(one))()
    return outcomes


# ---- damage

_TELLING = (
    b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\xff" * 8, b"\0" * 8, b"\0", b"-1",
    b"nan", b"1e999", b"null", b"{}", b"[]", b'"', b",", b"\n", b"9" * 30, b"true", b"(", b"'", b"\\",
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, seeds: Mapping[str, bytes], whole: bytes = b"") -> tuple[str, bytes]:
    """One of ``seeds`` after one to three edits, half of them near its beginning, where headers are."""
    name = draw(st.sampled_from(sorted(seeds)))
    content = bytearray(seeds[name])
    for _ in range(draw(st.integers(1, 3))):
        end = len(content) if draw(st.booleans()) else min(len(content), 200)
        at = draw(st.integers(0, max(0, end - 1)))
        kind = draw(st.sampled_from(("byte", "bit", "over", "in", "out", "cut")))
        if kind == "byte" and content:
            content[at] = draw(st.integers(0, 255))
        elif kind == "bit" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "over":
            telling = draw(st.sampled_from(_TELLING))
            content[at : at + len(telling)] = telling
        elif kind == "in":
            content[at:at] = draw(st.sampled_from(_TELLING) | st.binary(min_size=1, max_size=8))
        elif kind == "out":
            del content[at : at + draw(st.integers(1, 20))]
        else:
            del content[at:]
    return name, bytes(content)


# ---- images


def _encoded(kind: str, mode: str | None = None, pixels: Any = NOISE, **options: Any) -> bytes:
    file = io.BytesIO()
    picture = Pillow.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(file, kind, **options)
    return file.getvalue()


def _exif() -> Pillow.Exif:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    gps = exif.get_ifd(0x8825)
    gps.update({1: "N", 2: (45.0, 1.0, 2.5), 3: "E", 4: (9.0, 1.0, 2.0), 5: b"\0", 6: 100.5, 7: (12.0, 3.0, 4.0)})
    gps.update({16: "T", 17: 33.0, 29: "2020:01:02"})
    camera = {0x920A: 4.25, 0xA002: 32, 0xA003: 24, 0xA20E: 7.5, 0xA20F: 7.5, 0xA210: 4}  # focal length and plane
    exif.get_ifd(0x8769).update(camera)
    return exif


def image_seeds() -> dict[str, bytes]:
    """What cameras write: JPEG and PNG of every sort."""
    deep = NOISE[..., 0].astype(np.uint16) * 257
    return {
        "jpeg": _encoded("JPEG"),
        "progressive": _encoded("JPEG", progressive=True),
        "cmyk": _encoded("JPEG", "CMYK"),
        "grey": _encoded("JPEG", "L"),
        "jpeg with exif": _encoded("JPEG", exif=_exif()),
        "png": _encoded("PNG"),
        "png with exif": _encoded("PNG", exif=_exif()),
        "palette": _encoded("PNG", "P"),
        "one bit": _encoded("PNG", "1"),
        "16 bits": _encoded("PNG", pixels=deep),
        "16 bits in colour": cv2.imencode(".png", NOISE.astype(np.uint16) * 257)[1].tobytes(),
    }


def other_image_seeds() -> dict[str, bytes]:
    """The rest of what is decoded."""
    return {
        "tiff": _encoded("TIFF"),
        "tiff lzw": _encoded("TIFF", compression="tiff_lzw"),
        "tiff deflate": _encoded("TIFF", compression="tiff_adobe_deflate"),
        "webp": _encoded("WEBP"),
        "bmp": _encoded("BMP"),
        "ppm": _encoded("PPM"),
        "jpeg 2000": _encoded("JPEG2000"),
    }


def _check_picture(image: Image) -> None:
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert min(image.shape[:2]) >= MIN_SIDE_PX and max(image.shape[:2]) <= MAX_SIDE_PX


def _images(name: str, seeds: Mapping[str, bytes]) -> Subject:
    return Subject(name, damaged(seeds), lambda item: _check_picture(decode_image(item[1], "i")), ImageError)


@st.composite
def _image_message(draw: st.DrawFn) -> Message:
    """A sensor_msgs/Image of which some fields contradict the others."""
    encoding = draw(st.sampled_from([*_ENCODINGS, "", "RGB8", "32FC1", "16UC3", "bayer_rggb32", "\0"]))
    bits, samples, _ = _ENCODINGS.get(encoding, (8, 3, 0))
    side = st.sampled_from((0, 1, 2, 15, 16, 17, 18, 20, 33, 64)) | st.sampled_from(
        (16385, 65536, 2**31, 2**32 - 1)
    )
    height, width = draw(side), draw(side)
    row = width * samples * bits // 8
    step = draw(st.sampled_from((row, row, row + 1, row + 8, max(0, row - 1), 0, 2**32 - 1)))
    size = height * step
    size = draw(st.sampled_from((size, size, max(0, size - 1), size + 1, 0)))
    data = bytes(min(size, 100_000))  # more is never there: nobody sends it
    big = draw(st.sampled_from((0, 1, 255)))
    return Message(height, width, encoding, is_bigendian=big, step=step, data=np.frombuffer(data, np.uint8))


def _compressed() -> Subject:
    seeds = image_seeds()
    formats = st.sampled_from(
        ("jpeg", "png", "rgb8; jpeg compressed bgr8", "", "h264", "16UC1; compressedDepth png")
    )

    def read(item: tuple[str, tuple[str, bytes]]) -> None:
        _check_picture(image_from_compressed(Message(format=item[0], data=item[1][1])))

    return Subject("compressed image messages", st.tuples(formats, damaged(seeds)), read, ImageError)


# ---- files


@contextmanager
def _put(path: Path, content: bytes) -> Iterator[None]:
    """Have other content in a file for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def _in_folder(
    name: str, folder: Path, files: list[Path], read: Callable[[], None], refusal: type[GeowarpError], share: float
) -> Subject:
    seeds = {str(path.relative_to(folder)): path.read_bytes() for path in files}

    def read_damaged(item: tuple[str, bytes]) -> None:
        with _put(folder / item[0], item[1]):
            read()

    return Subject(name, damaged(seeds), read_damaged, refusal, share)


def _use(path: Path) -> None:
    """Read a source and its images; one that is damaged costs itself alone."""
    for image in read_source(path).images[:8]:
        assert abs(image.place.latitude_deg) <= 90 and abs(image.place.longitude_deg) <= 180
        try:
            pixels = image.read()
            _check_picture(pixels)
            image.camera_at(pixels.shape[1], pixels.shape[0])
        except (ImageError, CameraError) as error:
            assert "\n" not in str(error)


def _use_camera(path: Path) -> None:
    """Read a calibration, and what a few pixels see by it."""
    camera = read_camera(path)
    rays = camera.normalised(np.array([[0.0, 0.0], [camera.cx, camera.cy]]))
    assert rays.shape == (2, 2) and camera.project(np.ones((3, 3))).shape == (3, 2)


def write_source(folder: Path, count: int = MEETING_PLACES) -> Path:
    """Write ``count`` images and a CSV; returns the CSV."""
    folder.mkdir()
    rows = ["filename,latitude,longitude,altitude,heading,split"]
    for index in range(count):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((24, 32, 3), (30 * index + 20) % 256, np.uint8))
        rows.append(f"{index}.png,{45 + index * 1e-4},9.0,100,10,gallery")
    (folder / "positions.csv").write_text("\n".join(rows) + "\n")
    return folder / "positions.csv"


def _exif_folder(folder: Path) -> list[Path]:
    folder.mkdir()
    for kind, suffix in (("JPEG", "jpg"), ("TIFF", "tif"), ("PNG", "png"), ("WEBP", "webp")):
        (folder / f"a.{suffix}").write_bytes(_encoded(kind, exif=_exif()))
    return sorted(folder.iterdir())


def a_calibration(**changes: Any) -> Calibration:
    """One that any gallery could have."""
    values: dict[str, Any] = {
        "features": FEATURES[:2], "mean": (0.0, 0.5), "scale": (1.0, 0.2), "weights": (1.0, -1.0),
        "intercept": 0.1, "min_confidence": 0.5, "position_std_m": 3.0, "scatter_gain": 1.0,
        "correct_within_m": 25.0, "measured_with": {"model": "0123456789abcdef"},
    }  # fmt: skip
    return Calibration(**{**values, **changes})


def use_gallery(folder: Path) -> None:
    """Open a gallery and do all that a localizer does with it, and verify it."""
    gallery, calibration = Gallery.open(folder), load_calibration(folder / "calibration.json")
    candidates = gallery.search(np.full(6, 0.3, np.float32))
    assert len(candidates) == len(gallery) and gallery.positions_enu.shape == (len(gallery), 3)
    if candidates:
        gallery.local_features([candidate.index for candidate in candidates])
        if calibration is not None:
            assert 0 <= calibration.confidence(gather_evidence(candidates, 10.0)) <= 1
    gallery.verify()


class Killed(BaseException):
    """Not an Exception, as a kill is none."""


class _Mortal(ColourDescriber):
    def describe_batch(self, images: Sequence[Image]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        if len(self.batches) == 1:
            raise Killed
        return super().describe_batch(images)


def _resumed(folder: Path) -> Subject:
    """A build that was killed, damaged: the second run ends with a gallery that is whole all the same."""
    source = read_source(write_source(folder / "source", 3))
    with suppress(Killed):
        build_gallery(source, _Mortal(), folder / "stopped", batch_size=2)
    files = [path for path in (folder / "stopped").rglob("*") if path.is_file()]
    seeds = {str(path.relative_to(folder / "stopped")): path.read_bytes() for path in files if path.suffix}

    def read(item: tuple[str, bytes]) -> None:
        shutil.rmtree(folder / "second", ignore_errors=True)
        shutil.copytree(folder / "stopped", folder / "second")
        (folder / "second" / item[0]).write_bytes(item[1])
        build_gallery(source, ColourDescriber(), folder / "second", batch_size=2)
        opened = Gallery.open(folder / "second")
        assert (len(opened), opened.verify()) == (3, [])

    return Subject("what a killed build left", damaged(seeds), read, GalleryError, 0.01)


def _model(folder: Path) -> Subject:
    """The header of a model file; its weights are behind it, whole."""
    torch.manual_seed(0)
    path = folder / "model.safetensors"
    save_model(GeoWarp(ModelConfig(encoder="resnet18", regression=False)), path)
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")

    def read(item: tuple[str, bytes]) -> None:
        path.write_bytes(item[1] + content[end:])
        load_model(path)

    return Subject("model headers", damaged({"header": content[:end]}), read, ModelError, 0.05)


def subjects(folder: Path) -> list[Subject]:
    """Everything that is read; files are made in ``folder``."""
    table = write_source(folder / "csv")
    exif = _exif_folder(folder / "exif")
    gallery = build_gallery(read_source(table), ColourDescriber(), folder / "gallery", batch_size=2).gallery
    save_calibration(gallery / "calibration.json", a_calibration())
    segment = gallery / "segments" / "0001"
    gallery_files = [path for path in segment.rglob("*") if path.is_file()]
    mcap = bags.write_bag(folder / "mcap", [*bags.drive(), bags.info(1, 40.0)], "mcap")
    sqlite = bags.write_bag(folder / "sqlite", [*bags.drive(), bags.info(1, 40.0)], "sqlite3")
    bag1 = bags.write_bag1(
        folder / "ros1.bag", [*bags.drive(store=bags.ROS1), bags.info(1, 40.0, store=bags.ROS1)]
    )
    camera = folder / "camera.yaml"
    write_camera(camera, Camera(64, 48, 50.0, 50.5, 31.5, 23.5, "equidistant", (0.1, 0.01, 0.001, 0.0)))
    weights = folder / "weights.pth"
    torch.save({"conv.0.weight": torch.zeros(3), "epoch": 3}, weights)

    def folder_of(name: str, path: Path, files: list[Path], share: float) -> Subject:
        return _in_folder(name, folder, files, lambda: _use(path), SourceError, share)

    def of_gallery(name: str, files: list[Path], share: float) -> Subject:
        return _in_folder(name, folder, files, lambda: use_gallery(gallery), GalleryError, share)

    return [
        _images("JPEG and PNG images", image_seeds()),
        _images("TIFF, WebP, BMP, PPM and JPEG 2000 images", other_image_seeds()),
        Subject("image messages", _image_message(), lambda m: _check_picture(image_from_message(m)), ImageError),
        _compressed(),
        folder_of("CSVs of positions", table, [table], 0.2),
        folder_of("images with EXIF GPS", exif[0].parent, exif, 0.1),
        folder_of("bags, MCAP", mcap, sorted(mcap.iterdir()), 0.05),
        folder_of("bags, SQLite", sqlite, sorted(sqlite.iterdir()), 0.05),
        folder_of("bags, ROS 1", bag1, [bag1], 0.05),
        _in_folder("camera calibrations", folder, [camera], lambda: _use_camera(camera), CameraError, 0.2),
        of_gallery("gallery manifests", [gallery / "gallery.json"], 0.1),
        of_gallery("gallery calibrations", [gallery / "calibration.json"], 0.1),
        of_gallery("galleries' arrays, tables and images", gallery_files, 0.1),
        _resumed(folder),
        _model(folder),
        _in_folder(
            "files of torch.save", folder, [weights],
            lambda: (import_weights("resnet18", "gem", weights), None)[1], ModelError, 0.05,
        ),
    ]  # fmt: skip
