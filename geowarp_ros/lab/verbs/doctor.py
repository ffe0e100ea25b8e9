"""Say on one page what is here, what is not, and how long an image takes on this machine.

A line is ok, warn (it works, with less or more slowly) or missing (it does not work: the exit status is 1), and
says what to do. With --json one object is printed: healthy, and findings, each with name, state, found, advice and
numbers.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geowarp_ros import __version__
from geowarp_ros.cli.parser import GALLERY, OWN_MODEL
from geowarp_ros.errors import GeowarpError
from geowarp_ros.files import quoted

if TYPE_CHECKING:
    from geowarp_ros.config import LocalizerConfig
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.model.describer import Describer

NEEDED = (
    *("argcomplete", "cv2", "faiss", "kornia", "lz4", "numpy", "PIL", "pydantic", "pyproj", "rosbags"),
    *("safetensors", "scipy", "torch", "tqdm", "yaml"),
)
"""Libraries without which nothing works, by the names of their modules."""

EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fast": ("the encoder in less time, on most CPUs", ("onnxruntime", "onnx")),
    "pose": ("sharper poses", ("poselib",)),
    "map": ("gallery align", ("poselib", "networkx")),
    "photos": ("HEIC, JPEG XL and DNG", ("pillow-heif", "pillow-jxl-plugin", "rawpy")),
    "video": ("videos, with GPX tracks or in bags", ("av", "gpxpy")),
    "report": ("evaluate and calibrate", ("plotly", "scikit-learn")),
    "view": ("view, in a browser", ("starlette", "uvicorn")),
    "parquet": ("gallery export to GeoParquet", ("pyarrow",)),
    "train": ("train, demo and benchmark", ("tensorboard", "matplotlib", "scikit-learn")),
    "export": ("export", ("onnx", "onnxscript")),
}
"""Extra -> what it is for, and the distributions that it installs."""

IMAGES, PLACES = 5, 10
"""Number of images that are timed; places of the gallery that is made where none is given, all verified."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the page.

    Attributes:
        name: What was looked at.
        state: Whether it is there.
        found: What there is.
        advice: What to do; empty: nothing.
        numbers: What programs want of it.
    """

    name: str
    state: Literal["ok", "warn", "missing"]
    found: str
    advice: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.state:<8} {self.name:<15} {self.found}" + (f" - {self.advice}" if self.advice else "")


def here(name: str, found: str, advice: str = "", /, **numbers: Any) -> Finding:
    """Return what is here; where there is advice, it works with less."""
    return Finding(name, "warn" if advice else "ok", found, advice, numbers)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--gallery", type=GALLERY, help="gallery to look at and to measure with")
    text = "model file (default: the one that made the gallery)"
    parser.add_argument("--model", type=OWN_MODEL, default="gallery", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print each finding as it is made."""
    findings = []
    for finding in examine(args.gallery, args.model):
        findings.append(finding)
        if not args.json:
            print(finding, flush=True)
    healthy = all(finding.state != "missing" for finding in findings)
    if args.json:
        print(json.dumps({"healthy": healthy, "findings": [asdict(finding) for finding in findings]}))
    return 0 if healthy else 1


def examine(path: Path | None, model: str) -> Iterator[Finding]:
    """Yield every finding, those first that need no library.

    Args:
        path: Folder of a gallery; None: times are those of a small synthetic one.
        model: Model file, default, or gallery: the one that made it.
    """
    yield here("Python", f"{platform.python_version()}, geowarp_ros {__version__}")
    yield (libraries := _libraries())
    yield from (_extra(name, *of) for name, of in EXTRAS.items())
    yield _shared_memory()
    yield from _ros()
    if libraries.state == "missing":
        return
    from geowarp_ros.config import LocalizerConfig
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.localizer import of_gallery
    from geowarp_ros.model.describer import open_describer

    config, describer, gallery = LocalizerConfig(model=model), None, None
    try:
        describer = open_describer(of_gallery(config, path) if path else config)
        kind = f"{describer.model.config.encoder}, {describer.fingerprint}, by {describer.runtime}"
        found = here("model", f"{kind} on {describer.device}")
    except GeowarpError as error:
        found = Finding("model", "missing", str(error))
    yield from _machine()
    yield found
    looked_at = "gallery"
    try:
        if path is not None:
            gallery = Gallery.open(path, describer.device if describer else "cpu")
            yield _of_gallery(gallery)
            if not len(gallery):
                return
            if describer is not None:
                looked_at = "gallery's model"
                gallery.check_model(describer.fingerprint, model)
                looked_at = "calibration"
                yield _calibration(config, describer, gallery)
    except GeowarpError as error:
        yield Finding(looked_at, "missing", str(error))
        return
    if describer is not None:
        yield _speed(config, describer, gallery)


def _libraries() -> Finding:
    broken = []
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: a library of the system that it loads
            broken.append(f"{name}: {' '.join(str(error).split())}")
    if broken:
        return Finding("libraries", "missing", "; ".join(broken), "pip install geowarp_ros installs them")
    return here("libraries", f"all {len(NEEDED)} that are needed can be imported")


def _extra(name: str, purpose: str, distributions: tuple[str, ...]) -> Finding:
    found, absent = [], []
    for each in distributions:
        try:
            found.append(f"{each} {metadata.version(each)}")
        except metadata.PackageNotFoundError:
            absent.append(each)
    if absent:
        return here(
            f"extra {name}", f"no {', '.join(absent)}", f"for {purpose}: pip install 'geowarp_ros[{name}]'"
        )
    return here(f"extra {name}", f"{', '.join(found)}: {purpose}")


def _shared_memory() -> Finding:
    free = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0
    short = free < 128 << 20  # a DDS participant takes 35 MB, each image its size
    advice = "images may be lost between nodes: docker run --shm-size=1g gives more" if short else ""
    return here("/dev/shm", f"{free / 2**30:.1f} GiB free", advice, free_bytes=free)


def _ros() -> Iterator[Finding]:
    try:
        from geowarp_ros.ros.discovery import image_topics, middleware

        yield here("ROS 2", middleware())
        topics = image_topics()
    except ModuleNotFoundError as error:
        advice = "for the node: source its setup.bash, or pip install 'geowarp_ros[ros]'"
        yield here("ROS 2", f"no {error.name}", advice)
        return
    except (ImportError, RuntimeError, OSError, GeowarpError) as error:  # RuntimeError: all of rclpy's own
        yield here("ROS 2 graph", " ".join(str(error).split()), "the node would not start either")
        return
    if not topics:
        yield here("image topics", "none on the graph", "start the camera, with the same ROS_DOMAIN_ID")
    for topic in topics:
        rate = f"{topic.rate_hz:.1f} images a second" if topic.rate_hz else "silent"
        said = f"{topic.kind}, publishers: {topic.publishers} ({topic.qos}), {rate}"
        yield here(topic.name, said, "" if topic.rate_hz else "no image comes: is it running?", **asdict(topic))


def _machine() -> Iterator[Finding]:
    import cv2
    import torch

    from geowarp_ros.lab.benchmark.machine import describe_machine

    about = describe_machine()
    yield here("processor", ", ".join(about.get(key, "") for key in ("processor", "instructions")))
    yield here("cores", f"{about['cores']}, load {about['load']}")
    meminfo = Path("/proc/meminfo")
    available = re.search(r"MemAvailable:\s+(\d+)", meminfo.read_text("utf-8") if meminfo.exists() else "")
    gib = int(available[1]) / 2**20 if available else math.nan
    advice = "stop what else runs, or swapping will slow it down" if gib < 1 else ""
    yield here("memory", f"{about['memory']}, {gib:.1f} available", advice)
    slow = platform.machine() == "x86_64" and torch.backends.cpu.get_cpu_capability() == "DEFAULT"
    advice = "several times slower than with AVX2, which this machine does not show" if slow else ""
    yield here("torch", f"{about['torch']}, threads: {about['threads']}", advice)
    unused = Path("/dev/nvidia0").exists() and not about.get("gpu")
    advice = "there is a GPU that this torch does not use: install one for CUDA" if unused else ""
    yield here("CUDA", about.get("gpu", "none: the processor computes"), advice)
    yield here("OpenCV", f"{cv2.__version__}, threads: {cv2.getNumThreads()}")


def _of_gallery(gallery: Gallery) -> Finding:
    from geowarp_ros.gallery.manifest import FORMAT_VERSION

    manifest, advice, aligned = gallery.manifest, [], "not aligned"
    if manifest.format_version < FORMAT_VERSION or gallery.keypoint_config is None:
        advice.append(f"geowarp gallery upgrade {quoted(gallery.path)}")
    if manifest.alignment is None:
        advice.append(f"geowarp gallery align {quoted(gallery.path)} gives poses")
    else:
        aligned = f"{gallery.tied:,} aligned"
    version, fingerprint = manifest.format_version, gallery.model_fingerprint
    found = f"{len(gallery):,} places, {aligned}, format {version}, model {fingerprint}"
    if not len(gallery):
        return Finding("gallery", "missing", found, f"geowarp gallery add {quoted(gallery.path)} SOURCE")
    numbers = {"places": len(gallery), "format": version, "fingerprint": fingerprint}
    return here("gallery", found, "; ".join(advice), **numbers)


def _calibration(config: LocalizerConfig, describer: Describer, gallery: Gallery) -> Finding:
    from geowarp_ros.evaluation.words import ON_A_DRIVE
    from geowarp_ros.integrity.calibration import find_calibration
    from geowarp_ros.model.installed import find_weights

    file, stored = describer.model.file or find_weights(config.model), gallery.keypoint_config
    used, refused = find_calibration(config, describer.fingerprint, stored, file, gallery.path, gallery.spacing_m)
    found = "none: a rule of thumb decides"
    if used is not None:
        found = f"{used.title}, of {used.samples:,} answers: a fix from confidence {used.min_confidence:.3f}"
    measured = used is not None and used.title == ON_A_DRIVE
    advice = "" if measured else f"geowarp calibrate DRIVE --gallery {quoted(gallery.path)} measures it here"
    return here("calibration", "; ".join([found, *refused]), advice)


def _speed(config: LocalizerConfig, describer: Describer, given: Gallery | None) -> Finding:
    """Time images of the gallery, each left out of it, or of one that is made of blobs."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            ms = _time(config, describer, given or _synthetic(Path(folder), describer), left_out=given is not None)
        except GeowarpError as error:
            return Finding("speed", "missing", str(error))
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    found = ", ".join(f"{mode} ≈ {taken:.0f} ms" for mode, taken in ms.items()) + " an image here"
    if given is None:
        found += " (a synthetic gallery, without poses: --gallery G measures with yours)"
    advice = f"the machine is busy: load {load:.1f} on {cores} cores" if load > cores else ""
    return here("speed", found, advice, **{f"{mode}_ms": taken for mode, taken in ms.items()})


def _time(config: LocalizerConfig, describer: Describer, gallery: Gallery, *, left_out: bool) -> dict[str, float]:
    from geowarp_ros.localizer import Localizer

    ms = {}
    for mode in ("exact", "gated") if describer.model.regression else ("gated",):
        mode_config = config.model_copy(update={"rerank": config.rerank.model_copy(update={"mode": mode})})
        localizer = Localizer.of(describer, gallery, mode_config, calibrated=False)
        localizer.warm_up()
        taken = []
        for row in range(0, len(gallery), max(len(gallery) // IMAGES, 1))[:IMAGES]:
            image, camera, without = gallery.image(row), gallery.camera(row), {row} if left_out else ()
            begun = time.perf_counter()
            localizer.judge(localizer.rank(describer(image, camera), without=without))
            taken.append((time.perf_counter() - begun) * 1e3)
        ms[mode] = statistics.median(taken)
    return ms


def _synthetic(folder: Path, describer: Describer) -> Gallery:
    from geowarp_ros.gallery.making.build import build_gallery
    from geowarp_ros.gallery.store import Gallery
    from geowarp_ros.lab.benchmark.scene import write_pictures
    from geowarp_ros.lab.verbs.options import Size

    source = write_pictures(folder / "pictures", Size(480, 640), PLACES)
    return Gallery.open(build_gallery(source, describer, folder / "gallery").gallery, describer.device)
