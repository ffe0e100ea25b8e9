"""Small files that claim to be enormous."""

from __future__ import annotations

import bz2
import io
import json
import os
import signal
import struct
import sys
import traceback
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import torch
from PIL import Image as Pillow

from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.images import decode_image
from geowarp_ros.lab.studies.memory import PeakMemory
from geowarp_ros.messages import image_from_message
from geowarp_ros.model.checkpoints import load_model
from geowarp_ros.model.published import import_weights
from geowarp_ros.readers import read_source
from test.faults.mutations import write_source
from test.gallery import bags
from test.gallery.conftest import ColourDescriber
from test.test_messages import Message

SIDE = 60_000
CLAIMED = 10**12
HIDDEN = 120_000_000  # bytes that compress to little


@dataclass(frozen=True)
class Bomb:
    """What claims to be large, and what is said of it."""

    name: str
    size: int
    read: Callable[[], Any]
    said: str


@dataclass(frozen=True)
class Refusal:
    """What came of reading it in a process of its own: the message, and the memory beyond what was held before."""

    message: str
    peak_mib: float


def png(width: int, height: int, bits: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    """A PNG's header and whatever data."""
    content = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    for chunk in (b"IHDR" + header, b"IDAT" + data, b"IEND"):
        content += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return content


def jpeg(width: int, height: int, mode: str = "RGB") -> bytes:
    """A JPEG of 64×64 pixels whose header says otherwise."""
    content = bytearray(_saved("JPEG", mode))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def tiff(width: int, height: int) -> bytes:
    """A TIFF of 64×64 pixels whose directory says otherwise."""
    content = bytearray(_saved("TIFF"))
    (directory,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, directory)
    for at in range(directory + 2, directory + 2 + 12 * entries, 12):
        (tag,) = struct.unpack_from("<H", content, at)
        if tag in (256, 257):
            struct.pack_into("<HII", content, at + 2, 4, 1, width if tag == 256 else height)
    return bytes(content)


def _saved(kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Pillow.new(mode, (64, 64)).save(file, kind)
    return file.getvalue()


def _images() -> list[Bomb]:
    size = f"{SIDE}×{SIDE}"
    rows = zlib.compress(bytes(1_000_000), 9)
    found = {
        f"PNG, {size}": png(SIDE, SIDE, data=rows),
        f"PNG of 16 bits, {size}": png(SIDE, SIDE, 16, data=rows),
        "PNG, 12000×12000": png(12_000, 12_000, data=rows),
        f"JPEG, {size}": jpeg(SIDE, SIDE),
        f"CMYK JPEG, {size}": jpeg(SIDE, SIDE, "CMYK"),
        f"TIFF, {size}": tiff(SIDE, SIDE),
        f"PPM, {size}": b"P6 %d %d 255\n" % (SIDE, SIDE) + bytes(100),
        "PNG, 20000 px wide": png(20_000, 32),
    }
    text = b"zTXt" + b"a\0\0" + zlib.compress(bytes(HIDDEN), 9)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    hidden = png(64, 64)
    found["PNG whose text is 120 MB"] = hidden[:33] + chunk + hidden[33:]
    said = {"PNG, 12000×12000": "expected at most", "PNG, 20000 px wide": "expected at most 16384 px a side"}
    said["PNG whose text is 120 MB"] = "Decompressed data too large"
    return [
        Bomb(name, len(data), partial(decode_image, data, "image"), said.get(name, "far more pixels"))
        for name, data in found.items()
    ]


def _bags(folder: Path) -> list[Bomb]:
    whole = bags.write_bag(folder / "mcap", bags.drive(), "mcap")
    content = next(whole.glob("*.mcap")).read_bytes()
    magic, head = content[:8], 8 + 9 + struct.unpack_from("<Q", content, 9)[0]
    end = struct.pack("<BQI", 0x0F, 4, 0) + struct.pack("<BQQQI", 2, 20, 0, 0, 0) + magic
    from rosbags.rosbag2.storage_mcap import zstd

    def chunk(kind: bytes, claimed: int, packed: bytes) -> bytes:
        body = struct.pack("<QQQI", 0, 2**62, claimed, 0) + struct.pack("<I", len(kind)) + kind
        body += struct.pack("<Q", len(packed)) + packed
        return struct.pack("<BQ", 6, len(body)) + body

    zeros = bytes(HIDDEN)
    record = bytearray(content)
    struct.pack_into("<Q", record, 9, 2**40)
    files = {
        "MCAP, a record of 2⁴⁰ bytes": ("record.mcap", bytes(record), "its header claims more bytes than it has"),
        "MCAP, a chunk that claims 2⁴⁰ bytes": (
            "claims.mcap", content[:head] + chunk(b"zstd", 2**40, zstd.compress(zeros)) + end,
            "a chunk claims 1,099,511,627,776 bytes",
        ),
        "MCAP, 120 MB in a zstd chunk of 1 MB": (
            "zstd.mcap", content[:head] + chunk(b"zstd", 1_000_000, zstd.compress(zeros)) + end,
            "has more than 1,000,000 in it",
        ),
        "MCAP, 120 MB in an lz4 chunk of 1 MB": (
            "lz4.mcap", content[:head] + chunk(b"lz4", 1_000_000, lz4.frame.compress(zeros)) + end,
            "has more than 1,000,000 in it",
        ),
        "MCAP, 120 MB in a zstd file": ("whole.mcap.zstd", zstd.compress(zeros), "cannot be read as a ROS bag"),
        "ROS 1, a header of 4 GB": ("head.bag", b"#ROSBAG V2.0\n" + b"\xff" * 100, "cannot be read as a ROS bag"),
        "ROS 1, 120 MB in a bz2 chunk": ("bz2.bag", _bag1(bz2.compress(zeros)), "cannot be read as a ROS bag"),
    }  # fmt: skip
    found = []
    for name, (file, data, said) in files.items():
        path = folder / file
        path.write_bytes(data)
        found.append(Bomb(name, len(data), partial(read_source, path), said))
    return found


def _bag1(packed: bytes) -> bytes:
    def record(fields: dict[bytes, bytes], data: bytes) -> bytes:
        head = b"".join(struct.pack("<I", len(k) + 1 + len(v)) + k + b"=" + v for k, v in fields.items())
        return struct.pack("<I", len(head)) + head + struct.pack("<I", len(data)) + data

    number = struct.pack("<I", 0)
    first = {b"op": b"\x03", b"index_pos": bytes(8), b"conn_count": number, b"chunk_count": number}
    chunk = {b"op": b"\x05", b"compression": b"bz2", b"size": struct.pack("<I", 1_000_000)}
    return b"#ROSBAG V2.0\n" + record(first, b" " * 4000) + record(chunk, packed)


def _models(folder: Path) -> list[Bomb]:
    note = {"format": "geowarp", "format_version": "1", "config": "{}"}
    tensor = {"dtype": "F32", "shape": [CLAIMED], "data_offsets": [0, 4 * CLAIMED]}
    absurd = folder / "absurd.safetensors"
    header = json.dumps({"__metadata__": note, "encoder.0.weight": tensor}).encode()
    absurd.write_bytes(struct.pack("<Q", len(header)) + header)
    long = folder / "long.safetensors"
    long.write_bytes(struct.pack("<Q", 2**40) + b"{}")
    stored, packed = io.BytesIO(), folder / "packed.pth"
    torch.save({"conv1.weight": torch.zeros(HIDDEN // 4)}, stored)
    with zipfile.ZipFile(stored) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as smaller:
        for name in archive.namelist():
            smaller.writestr(name, archive.read(name))
    return [
        Bomb(f"safetensors, a tensor of {CLAIMED:.0e} values", absurd.stat().st_size, lambda: load_model(absurd),
             "is truncated or no safetensors file"),
        Bomb("safetensors, a header of 2⁴⁰ bytes", long.stat().st_size, lambda: load_model(long),
             "header too large"),
        Bomb("torch.save, 120 MB compressed", packed.stat().st_size,
             lambda: import_weights("resnet18", "gem", packed), "compressed; expected a file of torch.save"),
    ]  # fmt: skip


def _galleries(folder: Path) -> list[Bomb]:
    source = read_source(write_source(folder / "source"))
    gallery = build_gallery(source, ColourDescriber(), folder / "gallery").gallery
    path = gallery / "segments" / "0001" / "descriptors.npy"
    size = path.stat().st_size
    head = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (CLAIMED, 6)}
    np.lib.format.write_array_header_1_0(head, shape)
    path.write_bytes(head.getvalue().ljust(size, b"\0"))
    return [Bomb(f".npy, {CLAIMED:.0e} rows", size, lambda: Gallery.open(gallery), "descriptors.npy: is no array")]


def _messages() -> list[Bomb]:
    wide = Message(2**31, 2**31, "rgb8", step=3 * 2**31, data=bytes(100))
    return [Bomb("image message, 2³¹×2³¹", 100, lambda: image_from_message(wide), "expected at most")]


def bombs(folder: Path) -> list[Bomb]:
    """All of them; their files are made in ``folder``."""
    return [*_images(), *_messages(), *_bags(folder), *_models(folder), *_galleries(folder)]


def read_apart(bomb: Bomb) -> Refusal:
    """Read a bomb in a fork of this process, where it has its own peak of memory (Linux)."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        signal.alarm(120)  # a fork of a process with threads may hang: then this one ends, and the test fails
        status = 1
        try:
            peak = PeakMemory(torch.device("cpu"))
            peak.start()
            try:
                message = f"taken: {type(bomb.read())}"
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
            os.write(writer, json.dumps([message, peak.peak_mib()]).encode())
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"{bomb.name}: the process ended with {status}")
    return Refusal(*json.loads(content))
