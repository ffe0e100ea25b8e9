"""A self-contained HTML page with style, script, Plotly and data; opens offline, in light and in dark."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geowarp_ros.evaluation.scene import ASSETS, SCRIPTS, STYLES
from geowarp_ros.pictures import encode_jpeg
from geowarp_ros.types import Image

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, slots=True)
class Panel:
    """A framed figure.

    Attributes:
        name: Id of the element that shows it, unique in the page.
        title: Title above it.
        lead: A sentence on how to read it (HTML).
        figure: The figure.
    """

    name: str
    title: str
    lead: str
    figure: go.Figure


def write_page(
    path: Path,
    title: str,
    body: Sequence[str],
    figures: Mapping[str, go.Figure],
    scene: Mapping[str, Any] | None = None,
) -> None:
    """Write the page.

    Args:
        path: Path of the HTML file.
        title: Title of the window.
        body: HTML sections.
        figures: Figures by the id of the element that shows them, see :func:`plot`.
        scene: What the map shows, with its ``pictures`` as data URIs by kind and row; None: there is no map.
    """
    page, *parts = (
        "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in names)
        for names in (("report.html",), STYLES, (*SCRIPTS, "report.js"))
    )
    style, script = parts
    plotly = ""
    if figures:  # of which a map alone has none
        from plotly.offline import get_plotlyjs

        plotly = get_plotlyjs()
    page = page.format(
        title=escape(title),
        style=style,
        body="\n".join(body),
        figures=_json({name: figure.to_plotly_json() for name, figure in figures.items()}),
        scene=_json(scene),
        plotly=plotly,
        script=script,
    )
    path.write_text(page, encoding="utf-8")


def plot(name: str) -> str:
    """Return the element that shows the figure of that name."""
    return f'<div class="plot" id="{name}"></div>'


def grid(panels: Sequence[Panel]) -> str:
    """Return the panels side by side."""
    shown = (f'<section class="panel"><h3>{p.title}</h3><p>{p.lead}</p>{plot(p.name)}</section>' for p in panels)
    return f'<div class="grid">{"".join(shown)}</div>'


def tile(value: str, name: str, more: str = "", mood: str = "") -> str:
    """Return one value in large type; ``mood`` is good, doubt, bad or empty."""
    large = f'<b class="{mood}">{escape(value)}</b>'
    return f'<div class="tile"><span>{escape(name)}</span>{large}<i>{escape(more)}</i></div>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers."""
    lines = "".join(_row("td", row) for row in rows)
    head = _row("th", header)
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{lines}</tbody></table></div>'


def notes(lines: Sequence[str]) -> str:
    """Return remarks for the reader as a list; empty without any."""
    return f'<ul class="notes">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>' if lines else ""


def image_source(image: Image, quality: int, width_px: int) -> str:
    """Return an image as a JPEG within the page, at most ``width_px`` wide."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image, quality, width_px)).decode()


def _row(kind: str, texts: Sequence[str]) -> str:
    cells = (f"<{kind}{' class=n' if column else ''}>{escape(text)}</{kind}>" for column, text in enumerate(texts))
    return f"<tr>{''.join(cells)}</tr>"


def _json(value: Any) -> str:
    # "</script>" in a file name must not end the element
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
