"""Tables of what a soak saw, as Markdown, and their place in ``docs/robustness.md``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "robustness.md"


@dataclass(frozen=True)
class Table:
    """What one script prints.

    Attributes:
        name: Of the script; marks its place in the document.
        header: Column names.
        rows: Cells.
    """

    name: str
    header: tuple[str, ...]
    rows: list[tuple[object, ...]]

    def markdown(self) -> str:
        """Return the table; what would break a cell is escaped."""
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)

    def write(self, document: Path = DOCUMENT) -> None:
        """Put the table between its marks."""
        start, end = f"<!-- {self.name} -->", f"<!-- /{self.name} -->"
        text = document.read_text(encoding="utf-8")
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{document}: has no marks {start} and {end}")
        document.write_text(pattern.sub(lambda _: f"{start}\n{self.markdown()}\n{end}", text), encoding="utf-8")


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
