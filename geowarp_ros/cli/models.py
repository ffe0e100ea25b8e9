"""List the published models and matchers, fetch their weights, and remove them.

Stored weights are named like files: --model NAME, or the parameters model, keypoint_weights and matcher_weights.
Licences are those of the weights' authors; nothing here is legal advice.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geowarp_ros.cli.parser import Existing
from geowarp_ros.errors import ModelError

if TYPE_CHECKING:
    from geowarp_ros.catalogue.entries import Entry


class Source(Existing):
    """Type of an argument that names a file or an address."""

    def __call__(self, text: str) -> Any:
        """Parse the argument: an address stays."""
        return text if "://" in text else super().__call__(text)

    def check(self, path: Path | str) -> None:
        """Refuse a file that is not there."""
        if isinstance(path, Path):
            super().check(path)


SOURCE = Source("a file of weights", file=True)

_log = logging.getLogger(__name__)

_HEAD = (
    "name", "for", "published", "values", "image", "licence", "commercial", "MB", "its authors' Recall@1", "here"
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(act=_list)
    actions = parser.add_subparsers(metavar="ACTION", help="without one: list them")

    def action(name: str, act: Any, line: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=line, description=line, allow_abbrev=False)
        added.add_argument("name", metavar="NAME", help="as listed by 'geowarp models'")
        added.set_defaults(act=act)
        return added

    get = action("get", _get, "download weights from where their authors publish them, check and store them")
    get.add_argument(
        "--from", dest="sources", type=SOURCE, nargs="+", default=[], metavar="URL|FILE",
        help="from there instead; of the paper's pairs the features extractor, then the homography regression",
    )  # fmt: skip
    remove = action("remove", _remove, "delete stored weights; the checksum stays known")
    remove.add_argument("--forget", action="store_true", help="forget the checksum, too")


def run(args: argparse.Namespace) -> int:
    """Run the chosen action."""
    return int(args.act(args) or 0)


def _list(args: argparse.Namespace) -> None:
    from geowarp_ros.catalogue.entries import CATALOGUE

    rows = [_row(entry) for entry in CATALOGUE.values()]
    if args.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    lines = [_HEAD, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _row(entry: Entry) -> dict[str, Any]:
    from geowarp_ros.model.fetching import read_record
    from geowarp_ros.model.installed import DEFAULT_MODEL, installed_weights

    path = DEFAULT_MODEL if entry.name == "default" else installed_weights(entry.name)
    present = path.is_file()
    record = None
    try:
        record = read_record(entry.name) if present else None
    except ModelError as error:  # the others can be listed
        _log.warning("%s", error)
    recall = entry.recall
    return {
        "name": entry.name,
        "for": entry.purpose,
        "method": entry.method,
        "venue": entry.venue,
        "year": entry.year,
        "encoder": entry.encoder,
        "dimension": entry.dimension,
        "resolution": entry.resolution,
        "licence": entry.licence.name,
        "commercial_use": entry.licence.commercial_use,
        "licence_meaning": entry.licence.meaning,
        "size_bytes": entry.size_bytes,
        "parameters": entry.parameters,
        "sha256": entry.sha256 or None,
        "source": entry.url or None,
        "by_hand": entry.by_hand or None,
        "read_in": entry.read_in,
        "recall": recall and {"at_1_percent": recall.percent, "dataset": recall.dataset, "source": recall.source},
        "note": entry.note or None,
        "present": str(path) if present else None,
        "fingerprint": record.fingerprint if record else None,
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    recall, size = row["recall"], row["size_bytes"]
    return (
        row["name"],
        row["for"],
        f"{row['method']}, {row['venue']} {row['year']}",
        str(row["dimension"] or "–"),
        row["resolution"],
        row["licence"],
        "yes" if row["commercial_use"] else "ask",
        f"{size / 1e6:.1f}" if size else f">{4 * row['parameters'] // 1_000_000}",
        f"{recall['at_1_percent']:g} {recall['dataset']}" if recall else "–",
        "yes" if row["present"] else "–",
    )


def _get(args: argparse.Namespace) -> None:
    from geowarp_ros.catalogue.entries import find_entry
    from geowarp_ros.model.fetching import get, is_intact
    from geowarp_ros.model.installed import installed_weights
    from geowarp_ros.progress import bar

    entry = find_entry(args.name)
    path = installed_weights(entry.name)
    if not args.sources and is_intact(entry.name):
        print(f"{path}: is here, and unchanged")
        return
    record = get(entry.name, [str(source) for source in args.sources], bar)
    print(f"{path}: {entry.method}, {entry.encoder}, fingerprint {record.fingerprint}")
    print(f"licence {entry.licence.name}: {entry.licence.meaning}")


def _remove(args: argparse.Namespace) -> None:
    from geowarp_ros.model.fetching import remove
    from geowarp_ros.model.installed import installed_weights

    remove(args.name, forget=args.forget)
    print(f"{installed_weights(args.name)}: is removed")
