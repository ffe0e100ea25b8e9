"""From nothing to fixes: a world, its gallery, the node in its own process, a drive replayed to it, a picture."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from geowarp_ros.config import LocalizerConfig
from geowarp_ros.errors import GalleryError, SourceError
from geowarp_ros.evaluation.bags import TruthOptions, read_drive, read_fixes
from geowarp_ros.evaluation.drive import Drive
from geowarp_ros.evaluation.judging import judge
from geowarp_ros.evaluation.run import Answered, join_recorded
from geowarp_ros.gallery.making.align import align_gallery
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.lab.world.config import WorldConfig
from geowarp_ros.lab.world.dataset import is_world, write_world
from geowarp_ros.lab.world.tags import PHONE, retag
from geowarp_ros.localizer import Localizer
from geowarp_ros.model.checkpoints import load_model
from geowarp_ros.model.describer import Describer
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import read_source
from geowarp_ros.readers.bag_files import BagFiles
from geowarp_ros.types import FloatArray, Frame

IMAGE_TOPIC, INFO_TOPIC, TRUTH_TOPIC = "/camera/image_raw", "/camera/camera_info", "/gps/fix"
FIX_TOPIC = "/geowarp_localizer/fix"
START_PATIENCE_S = 120.0
ANSWER_PATIENCE_S = 30.0
"""Maximum wait for the answer to the last image, which is never dropped."""
KEPT_UP = 0.95
"""Share of the images that a machine answers if it keeps up."""
HEADROOM = 0.6
"""Share of the time that answering may take: the replay, DDS and decoding need the rest."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Results of a drive that was replayed to the node.

    Attributes:
        drive: The images, not decoded.
        answered: The images that the node answered, with truth and answer.
        errors_m: (F,) horizontal error of each fix, m.
        latencies_ms: (A,) time from the publication of an image to the arrival of its answer, ms.
        rate: Factor on the recorded speed.
    """

    drive: Drive
    answered: tuple[Answered, ...]
    errors_m: FloatArray
    latencies_ms: FloatArray
    rate: float = 1.0

    @property
    def answered_share(self) -> float:
        """Share of the images that the node answered, 0..1."""
        return len(self.answered) / len(self.drive.images)

    def complaint(self) -> str:
        """Return what to say if the node did not keep up: how many images were lost, and a rate for few."""
        images, share = len(self.drive.images), self.answered_share
        if share >= KEPT_UP:
            return ""
        shown_hz = self.rate * images_per_second(self.drive)
        return (
            f"DROPPED {images - len(self.answered)} OF {images} IMAGES: {shown_hz:.2g} a second were shown and"
            f" {share * shown_hz:.2g} answered; --rate {share * self.rate * HEADROOM:.2g} could be kept here, and"
            " --rate auto measures first, then replays as slowly as needed"
        )

    def rows(self) -> list[tuple[str, str]]:
        """Return the table: label and value."""
        images, answered, fixed = len(self.drive.images), len(self.answered), len(self.errors_m)
        return [
            ("images", f"{images}"),
            ("fixes", f"{fixed}"),
            ("no-fixes", f"{answered - fixed}"),
            ("dropped", f"{images - answered}"),
            ("median error", _quantile(self.errors_m, 0.5, "m", 2)),
            ("95 % error", _quantile(self.errors_m, 0.95, "m", 2)),
            ("latency p50", _quantile(self.latencies_ms, 0.5, "ms")),
            ("latency p95", _quantile(self.latencies_ms, 0.95, "ms")),
        ]


def make_world(config: WorldConfig, folder: Path, progress: Progress = silent) -> Path:
    """Render the world unless it exists already.

    Raises:
        SourceError: ``folder`` is something else, or cannot be written.
    """
    return folder if is_world(folder) else write_world(config, folder, progress=progress)


def read_demo(bag: Path) -> Drive:
    """Read a bag's images with the truth on /gps/fix."""
    return read_drive(bag, IMAGE_TOPIC, TruthOptions(topic=TRUTH_TOPIC))


def images_per_second(drive: Drive) -> float:
    """Return the rate at which the images were taken, Hz; interruptions do not count."""
    return 1e9 / float(np.median(np.diff([image.stamp_ns for image in drive.images])))


def kept_rate(drive: Drive, localizer: Localizer, images: int = 8) -> float:
    """Return the factor on the recorded speed, at most 1, with which this machine keeps up, by a few images.

    Args:
        drive: What will be replayed.
        localizer: With the node's gallery and settings.
        images: Number of images, spread over the drive.
    """
    localizer.warm_up()
    taken_s = []
    for item in drive.images[:: -(-len(drive.images) // images)]:
        pixels = item.read()
        frame = Frame(pixels, camera=item.camera_at(pixels.shape[1], pixels.shape[0]))
        begun_s = time.perf_counter()
        localizer.localize(frame)
        taken_s.append(time.perf_counter() - begun_s)
    return min(1.0, HEADROOM / (images_per_second(drive) * float(np.mean(taken_s))))


def make_gallery(world: Path, model: str, folder: Path, progress: Progress = silent) -> Gallery:
    """Build and align the gallery of the world's gallery split, with tags as phones give them, unless it is there.

    Raises:
        GeowarpError: No such model, or the gallery cannot be written.
    """
    describer = Describer(load_model(model), "cpu")
    try:
        gallery = Gallery.open(folder)
        gallery.check_model(describer.fingerprint)
        if gallery.keypoint_config is None:
            raise GalleryError(f"{folder}: is of an earlier version, without keypoints")
    except GalleryError:
        source = read_source(world, split="gallery")
        source = replace(source, images=retag(source.images, PHONE))
        build_gallery(source, describer, folder, replace_existing=folder.exists(), progress=progress)
        gallery = Gallery.open(folder)
    if gallery.manifest.alignment is None:
        align_gallery(folder, progress=progress)
    return Gallery.open(folder)


def replay(
    bag: Path, gallery: Gallery, model: str, output: Path, *, rate: float = 1.0, progress: Progress = silent
) -> Replay:
    """Start the node in its own process on loopback, replay a bag to it, record its fixes into ``output/fixes``.

    The node's log is ``output/node.log``.

    Args:
        bag: Images on /camera/image_raw, the truth on /gps/fix and, if recorded, /camera/camera_info.
        gallery: The node's gallery.
        model: The gallery's model.
        output: Folder.
        rate: Factor on the recorded speed.
        progress: Shows the progress of the replay.

    Raises:
        GeowarpError: The bag lacks a topic, or the node did not start (with its last line).
    """
    from geowarp_ros.lab.loopback import loopback_environment, own_domain_id

    os.environ.update(loopback_environment(own_domain_id()), ROS_LOG_DIR=str(output / "ros_log"))
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from geowarp_ros.lab.play import Recorder, play

    drive = read_demo(bag)
    fixes = output / "fixes"
    shutil.rmtree(fixes, ignore_errors=True)
    with _node_process(gallery.path, model, output / "node.log") as process:  # before rclpy.init: no fork after it
        context = rclpy.Context()
        rclpy.init(context=context)
        robot = rclpy.create_node("demo", context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(robot)
        thread = threading.Thread(target=executor.spin, daemon=True)
        thread.start()
        try:
            with Recorder(robot, FIX_TOPIC, fixes) as recorder:
                _await_node(robot, process, output / "node.log")
                with BagFiles(bag).reader() as reader:
                    recorded = {connection.topic for connection in reader.connections}
                topics = {topic: topic for topic in (IMAGE_TOPIC, *({INFO_TOPIC} & recorded))}

                def last_answer(published: Mapping[int, float]) -> bool:
                    return recorder.wait_for(max(published), ANSWER_PATIENCE_S)

                published = play(robot, bag, topics, rate=rate, progress=progress, linger=last_answer)
        finally:
            executor.shutdown()
            thread.join()
            robot.destroy_node()
            context.try_shutdown()
    latencies = [(at - published[stamp]) * 1e3 for stamp, at in recorder.arrived.items() if stamp in published]
    return _judge(drive, gallery, fixes, np.array(latencies), rate)


def _judge(drive: Drive, gallery: Gallery, fixes: Path, latencies_ms: FloatArray, rate: float) -> Replay:
    answers, _ = read_fixes(fixes, FIX_TOPIC)
    run = join_recorded(drive, answers, gallery.frame)
    judged = judge(run)
    missing = set(run.dropped)
    answered = tuple(item for item in run.answered if item.name not in missing)
    return Replay(drive, answered, judged.error_m[judged.fixed], latencies_ms, rate)


@contextmanager
def _node_process(gallery: Path, model: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``localizer`` while the context lasts, as ``ros2 run`` would."""
    words = [sys.executable, "-m", "geowarp_ros.ros.node", "--ros-args", "-r", f"image:={IMAGE_TOPIC}"]
    for name, value in (("gallery", gallery.resolve()), ("model", model), ("device", LocalizerConfig().device)):
        words += ["-p", f"{name}:={value}"]
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def _await_node(robot: object, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the node has subscribed to the camera; loading the model takes a few seconds."""
    deadline = time.monotonic() + START_PATIENCE_S
    while not robot.count_subscribers(IMAGE_TOPIC):  # type: ignore[attr-defined]
        if process.poll() is not None or time.monotonic() > deadline:
            last = (log.read_text().strip().splitlines() or ["it logged nothing"])[-1]
            raise SourceError(f"the node did not start: {last} ({log})")
        time.sleep(0.05)


def _quantile(values: FloatArray, probability: float, unit: str, decimals: int = 1) -> str:
    return f"{np.quantile(values, probability):.{decimals}f} {unit}" if len(values) else "–"
