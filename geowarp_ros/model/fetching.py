"""Published weights: fetched, checked, read, and stored under the name that verbs and parameters take."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from geowarp_ros.catalogue.download import UnreachableError, download
from geowarp_ros.catalogue.entries import Entry, find_entry
from geowarp_ros.config import Section
from geowarp_ros.errors import DownloadError, ModelError
from geowarp_ros.files import expanded, sha256_of, write_whole
from geowarp_ros.model.installed import installed_weights
from geowarp_ros.progress import Progress, silent


class Origin(Section):
    """A file as it was published.

    Attributes:
        source: Its URL, or the name of the file that the user brought.
        sha256: Of its content.
        size_bytes: Its size.
        etag: The server's entity tag; empty: none.
    """

    source: str
    sha256: str
    size_bytes: int
    etag: str = ""


class Record(Section):
    """What is known of stored weights; it lies beside them as ``NAME.json`` and outlives them.

    Attributes:
        name: Of the catalogue's entry.
        date: When they were fetched, UTC.
        licence: Of the weights.
        files: Of which they were made: what is fetched later under the name must be the same.
        stored_sha256: Of the file that was stored.
        fingerprint: 16 hex digits; a gallery names the model that made it by them.
    """

    name: str
    date: str
    licence: str
    files: tuple[Origin, ...]
    stored_sha256: str
    fingerprint: str


def get(name: str, given: Sequence[str] = (), progress: Progress = silent) -> Record:
    """Fetch weights, or take files that the user brought, and store them.

    Args:
        name: Of the catalogue's entry.
        given: Files or URLs in place of the entry's; of the paper's pairs the features extractor, then the
            homography regression.
        progress: Shows how far a download is.

    Returns:
        The record, which lies beside :func:`~geowarp_ros.model.installed.installed_weights` now.

    Raises:
        DownloadError: A file cannot be had, or it is not the one that is known by that name.
        ModelError: No such entry, nothing to fetch, or the files hold other weights.
    """
    entry = find_entry(name)
    if not entry.importer:
        raise ModelError(f"{name}: ships with the package, there is nothing to fetch")
    sources = list(given) or _published(entry)
    if len(sources) > entry.files:
        raise ModelError(
            f"{name}: is made of {entry.files} file{'s' * (entry.files > 1)}, {len(sources)} are given"
        )
    stored = installed_weights(name)
    stored.parent.mkdir(parents=True, exist_ok=True)
    fetched: list[tuple[Path, Origin]] = []
    try:
        for number, source in enumerate(sources):
            fetched.append(_fetch(entry, number, source, progress) if _is_url(source) else _bring(source))
        origins = tuple(origin for _, origin in fetched)
        _refuse_others(entry, origins)
        fingerprint = _store(entry, [path for path, _ in fetched], _notes(entry, origins))
    finally:
        for path, origin in fetched:
            if _is_url(origin.source):
                path.unlink(missing_ok=True)
    record = Record(
        name=name,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        licence=entry.licence.name,
        files=origins,
        stored_sha256=sha256_of(stored),
        fingerprint=fingerprint,
    )
    write_whole(_record_file(name), f"{record.model_dump_json(indent=2)}\n".encode(), ModelError)
    return record


def remove(name: str, *, forget: bool = False) -> None:
    """Delete stored weights, and with ``forget`` the record by which later downloads are checked.

    Raises:
        ModelError: There are none.
    """
    gone = [installed_weights(find_entry(name).name), *([_record_file(name)] if forget else [])]
    present = [path for path in gone if path.is_file()]
    if not present:
        raise ModelError(f"{name}: is not among the weights in {gone[0].parent}")
    for path in present:
        path.unlink()


def read_record(name: str) -> Record | None:
    """Return the record of weights; None: they were never fetched.

    Raises:
        ModelError: It is damaged.
    """
    path = _record_file(name)
    try:
        return Record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        said = str(error.errors()[0]["msg"])
        raise ModelError(
            f"{path}: is damaged: {said}; 'geowarp models remove {name} --forget' deletes it"
        ) from None


def is_intact(name: str) -> bool:
    """Return whether weights are stored, unchanged since."""
    record, stored = read_record(name), installed_weights(name)
    return record is not None and stored.is_file() and sha256_of(stored) == record.stored_sha256


def _record_file(name: str) -> Path:
    return installed_weights(name).with_suffix(".json")


def _published(entry: Entry) -> list[str]:
    if entry.url:
        return [entry.url]
    files = " ".join(["FILE"] * entry.files)
    raise ModelError(f"{entry.name}: {entry.by_hand}; then: geowarp models get {entry.name} --from {files}")


def _is_url(source: str) -> bool:
    return "://" in source


def _fetch(entry: Entry, number: int, url: str, progress: Progress) -> tuple[Path, Origin]:
    suffix = PurePosixPath(urlsplit(url).path).suffix
    target = installed_weights(entry.name).with_name(f".{entry.name}.{number}{suffix}")
    size_bytes = entry.size_bytes if url == entry.url else None
    try:
        version = download(url, target, size_bytes=size_bytes, copies=1, progress=progress)
    except UnreachableError as error:
        hint = f"geowarp models get {entry.name} --from FILE takes a file that was fetched elsewhere"
        raise DownloadError(f"{error}; {hint}") from None
    size = target.stat().st_size
    return target, Origin(source=url, sha256=sha256_of(target), size_bytes=size, etag=version.etag)


def _bring(file: str) -> tuple[Path, Origin]:
    path = expanded(file)
    try:
        return path, Origin(source=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}, expected a file of weights") from None


def _refuse_others(entry: Entry, origins: Sequence[Origin]) -> None:
    """Hold what came to what the authors published, or to what came before."""
    record = read_record(entry.name)
    known = [entry.sha256] if entry.sha256 else [origin.sha256 for origin in record.files] if record else []
    since = (
        "that its authors publish"
        if entry.sha256 or record is None
        else f"of {record.date[:10]} ('geowarp models remove {entry.name} --forget' forgets that)"
    )
    for origin, sha256 in zip(origins, known, strict=False):
        if origin.sha256 != sha256:
            raise DownloadError(
                f"{origin.source}: has the SHA-256 {origin.sha256}, expected {sha256}, the one {since}"
            )


def _notes(entry: Entry, origins: Sequence[Origin]) -> dict[str, str]:
    return {
        "name": entry.name,
        "method": f"{entry.method}, {entry.venue} {entry.year}",
        "licence": entry.licence.name,
        "licence_read_in": entry.read_in,
        "source": " ".join(origin.source for origin in origins),
        "sha256": " ".join(origin.sha256 for origin in origins),
    }


def _store(entry: Entry, paths: Sequence[Path], notes: Mapping[str, str]) -> str:
    """Read the files as the entry says, write what they hold, and return its fingerprint."""
    if entry.purpose != "retrieval":
        return _store_network(entry, paths[0], notes)
    from geowarp_ros.model.checkpoints import fingerprint, save_model
    from geowarp_ros.model.methods import import_method
    from geowarp_ros.model.published import import_weights

    if entry.importer == "geowarp":
        pair: Any = entry.name.split("-")[1:]  # encoder, aggregation
        model = import_weights(*pair, *paths)
    else:
        model = import_method(entry.importer, paths[0])
    config = model.config
    network = re.sub(r"\W", "", entry.encoder.partition(",")[0].split()[-1]).lower()  # resnet18, vitb14 …
    registers = config.encoder.endswith("_reg")  # no entry has them
    if network not in config.encoder or registers or config.depth:
        cut = f", cut short to {config.depth} blocks" if config.depth else ""
        raise ModelError(f"{paths[0]}: holds {config.encoder}{cut}, expected {entry.encoder} of {entry.name}")
    if model.descriptor_dim != entry.dimension:
        raise ModelError(
            f"{paths[0]}: makes descriptors of {model.descriptor_dim} values, expected the {entry.dimension}"
            f" of {entry.name}"
        )
    save_model(model, installed_weights(entry.name), notes=notes)
    return fingerprint(model)


def _store_network(entry: Entry, path: Path, notes: Mapping[str, str]) -> str:
    from safetensors.torch import save

    from geowarp_ros.model.learned import read_weights

    state, fingerprint = read_weights(entry.importer, path)
    tensors = {key: tensor.clone().contiguous() for key, tensor in state.items()}
    write_whole(installed_weights(entry.name), save(tensors, dict(notes)), ModelError)
    return fingerprint
