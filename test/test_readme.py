"""README's tables are the code's."""

from __future__ import annotations

from pathlib import Path

from geowarp_ros.ros.parameters import node_parameters
from geowarp_ros.ros.reference import tables
from geowarp_ros.ros.topics import PUBLISHED, SUBSCRIBED

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- node tables -->\n", "<!-- /node tables -->"


def test_tables_of_topics_services_and_parameters_are_the_codes() -> None:
    text = README.read_text()
    assert text.count(BEGIN) == text.count(END) == 1, f"README.md needs the markers {BEGIN.strip()} and {END} once"
    shown = text.split(BEGIN)[1].split(END)[0]
    assert shown.strip() == tables().strip(), "paste the output of: python -m geowarp_ros.ros.reference tables"


def test_tables_name_everything_once() -> None:
    text = tables()
    for parameter in node_parameters():
        assert text.count(f"| `{parameter.name}` |") == 1
    for name in (*PUBLISHED, *SUBSCRIBED, "/diagnostics", "/tf"):
        assert text.count(f"| `{name}` |") == 1
    for service in ("~/localize", "~/pause", "~/reset", "~/reload_gallery"):
        assert text.count(f"| `{service}` |") == 1
    assert "| `~/fix` | sensor_msgs/msg/NavSatFix | published | reliable, volatile, 10 |" in text
