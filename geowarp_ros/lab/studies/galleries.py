"""Galleries of a study: built in its output folder, opened again by the next run."""

from __future__ import annotations

from pathlib import Path

from geowarp_ros.gallery.alignment.options import AlignOptions
from geowarp_ros.gallery.making.align import align_gallery
from geowarp_ros.gallery.making.build import DEFAULT_KEYPOINTS, build_gallery
from geowarp_ros.gallery.making.filling import identity_of
from geowarp_ros.gallery.manifest import MANIFEST, read_manifest
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.keypoints.detector import KeypointConfig
from geowarp_ros.model.describer import Describer
from geowarp_ros.progress import Progress, silent
from geowarp_ros.readers import Source


def kept_gallery(
    source: Source,
    describer: Describer,
    folder: Path,
    progress: Progress = silent,
    align: AlignOptions | None = None,
    keypoints: KeypointConfig | None = None,
) -> Gallery:
    """Open the gallery that the model made of these images, or build it.

    Args:
        source: Images, by whose names, positions and cameras the gallery is found again.
        describer: The model.
        folder: Folder of all galleries of the study.
        progress: Shows the images described.
        align: How its photographs are aligned; None: not.
        keypoints: Keypoints to store; None: SIFT's if it is aligned, else none, and each method detects its own.

    Raises:
        SourceError: No image can be read.
        GalleryError: The gallery is truncated or cannot be written.
    """
    kind = "-aligned" if align else "-keypoints" if keypoints else ""
    if keypoints is not None and keypoints.kind != "sift":
        kind += f"-{keypoints.kind}-{keypoints.weights}"
    path = folder / f"{describer.fingerprint}-{identity_of(source)}{kind}"
    if not (path / MANIFEST).exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = keypoints or (DEFAULT_KEYPOINTS if align else None)
        build_gallery(source, describer, path, keypoints=stored, progress=progress)
    if align:
        aligned = read_manifest(path).alignment
        if aligned is None or aligned.options != align.model_dump():
            align_gallery(path, align, progress)
    gallery = Gallery.open(path, describer.device)
    gallery.check_model(describer.fingerprint)
    return gallery
