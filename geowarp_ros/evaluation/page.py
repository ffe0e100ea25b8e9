"""One self-contained HTML page: style, script, Plotly and data inside; it opens offline, in light and in dark."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

ASSETS = Path(__file__).parent / "assets"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="figures">{figures}</script>
<script type="application/json" id="queries">{queries}</script>
<script>{plotly}</script>
<script>
{script}</script>
</body>
</html>
"""


def write_page(
    path: Path,
    title: str,
    body: Sequence[str],
    figures: Mapping[str, go.Figure],
    queries: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the page.

    Args:
        path: Of the HTML file.
        title: Of the window.
        body: HTML sections.
        figures: By the id of the element that shows each, see :func:`plot`.
        queries: What the map's panel shows of each image: name, facts, and images as data URIs.
    """
    drawn = {name: figure.to_plotly_json() for name, figure in figures.items()}
    page = _PAGE.format(
        title=escape(title),
        style=(ASSETS / "report.css").read_text(encoding="utf-8"),
        body="\n".join(body),
        figures=_json(drawn),
        queries=_json(list(queries)),
        plotly=get_plotlyjs(),
        script=(ASSETS / "report.js").read_text(encoding="utf-8"),
    )
    path.write_text(page, encoding="utf-8")


def plot(name: str) -> str:
    """Return the element that shows the figure of that name."""
    return f'<div class="plot" id="{name}"></div>'


def panel(title: str, lead: str, content: str) -> str:
    """Return a framed section with a title and a sentence on how to read it (HTML)."""
    return f'<section class="panel"><h3>{escape(title)}</h3><p>{lead}</p>{content}</section>'


def tile(value: str, name: str, more: str = "", mood: str = "") -> str:
    """Return one figure in large type; ``mood`` is good, doubt, bad or nothing."""
    large = f'<b class="{mood}">{escape(value)}</b>'
    return f'<div class="tile"><span>{escape(name)}</span>{large}<i>{escape(more)}</i></div>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers."""
    cells = "".join(_cell("th", text, column) for column, text in enumerate(header))
    lines = "".join(
        f"<tr>{''.join(_cell('td', text, column) for column, text in enumerate(row))}</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'


def notes(lines: Sequence[str]) -> str:
    """Return what the reader should know, or nothing."""
    return f'<ul class="notes">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>' if lines else ""


def data_uri(jpeg: bytes) -> str:
    """Return a JPEG as an image source; an empty string of nothing."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode() if jpeg else ""


def _cell(kind: str, text: str, column: int) -> str:
    return f"<{kind}{' class=n' if column else ''}>{escape(text)}</{kind}>"


def _json(value: Any) -> str:
    # "</script>" in a file name must not end the element
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
