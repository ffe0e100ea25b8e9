"""What is read: damaged ten thousand times, absurdly large, bad in any way; files and the command line."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from test.faults.bad_input import CASES, Case, check, run_apart
from test.faults.bombs import bombs, read_apart
from test.faults.mutations import examine, subjects
from test.soak.table import Table


def mutations(examples: int, seed: int) -> Table:
    """Damage everything that is read."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for subject in tqdm(subjects(Path(folder)), desc="damaging"):
            begun = time.monotonic()
            outcomes = examine(subject, examples, seed)
            per_second = outcomes.total() / (time.monotonic() - begun)
            rows.append(
                (subject.name, f"{outcomes.total():,}", f"{outcomes['taken']:,}", f"{outcomes['refused']:,}", 0,
                 f"{per_second:,.0f}")
            )  # fmt: skip
    total = sum(int(str(row[1]).replace(",", "")) for row in rows)
    rows.append(("all", f"{total:,}", "", "", 0, ""))
    return Table(
        "mutations", ("damaged", "inputs", "taken", "refused in one line", "anything else", "a second"), rows
    )


def absurd_sizes() -> Table:
    """Read what claims to be enormous, each in a process of its own."""
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory(prefix="bombs-") as folder:
        for bomb in tqdm(bombs(Path(folder)), desc="absurd sizes"):
            refusal = read_apart(bomb)
            if bomb.said not in refusal.message:
                raise RuntimeError(f"{bomb.name}: {refusal.message}")
            message = refusal.message.replace(f"{folder}/", "")
            rows.append((bomb.name, f"{bomb.size:,}", f"{refusal.peak_mib:.1f}", f"`{message}`"))
    return Table("absurd-sizes", ("file", "bytes", "peak memory (MiB)", "said"), rows)


def bad_input() -> Table:
    """Run every case of bad input as a user would."""
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory(prefix="bad-") as folder:
        for number, (name, make) in enumerate(tqdm(CASES.items(), desc="bad input")):
            place = Path(folder) / str(number)
            place.mkdir()
            rows.append(_bad_row(name, make(place), place))
        with _small_disk(Path(folder) / "disk", kib=300) as disk:
            if disk is not None:
                case = CASES["disk full during a build"](disk)
                case = replace(case, prefix=(), said=("cannot be written: No space left on device",))
                rows.append(_bad_row("the same on a full tmpfs", case, disk))
    return Table("bad-input", ("given", "status", "said"), rows)


def _bad_row(name: str, case: Case, place: Path) -> tuple[object, ...]:
    outcome = run_apart(case)
    check(case, outcome)
    line = outcome.line.replace(f"{place}/", "").replace(str(place), ".")
    line = re.sub(r" in \d+\.\d s.*", "", line)
    return name, outcome.status, f"`{line}`"


@contextmanager
def _small_disk(place: Path, kib: int) -> Iterator[Path | None]:
    """Mount a small file system; None where that is not allowed."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        sys.stderr.write("no tmpfs can be mounted here: the full disk is a limit on the size of files only\n")
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
