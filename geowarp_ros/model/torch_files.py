"""Files of ``torch.save``: tensors and plain values come out, and take no more memory than the file is large."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from geowarp_ros.errors import ModelError


def load_torch(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read a file of ``torch.save``.

    Raises:
        ModelError: Its archive is compressed, which torch's never is: small files could hold gigabytes.
        Exception: Nearly any, where the file is damaged, foreign, or holds anything that could run code.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            packed = [member for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED]
        if packed:
            size = sum(member.file_size for member in packed)
            raise ModelError(
                f"{path}: holds {size:,} bytes compressed; expected a file of torch.save, which is not"
            )
    return torch.load(path, map_location=device, weights_only=True)
