"""Making galleries: images described and stored, so that a run that is killed goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geowarp_ros.gallery.making.build import BuildReport
    from geowarp_ros.readers import Source


def build_gallery(
    source: Source | Path | str, output: Path | str, model: str = "default", **options: Any
) -> BuildReport:
    """Build a gallery: the public face of :func:`geowarp_ros.gallery.making.build.build_gallery`.

    Args:
        source: Folder, CSV or bag of geotagged images, or one that was read already.
        output: Folder of the gallery.
        model: Model file; default: the model that ships.
        options: Options of that function.

    Raises:
        SourceError: No image, or none that can be read.
        GalleryError: There is a gallery already, or the disk refuses.
        ModelError: No such model.
    """
    from geowarp_ros.config import LocalizerConfig
    from geowarp_ros.gallery.making import build
    from geowarp_ros.model.describer import open_describer
    from geowarp_ros.readers import read_source

    read = read_source(Path(source)) if isinstance(source, str | Path) else source
    return build.build_gallery(read, open_describer(LocalizerConfig(model=model)), Path(output), **options)
