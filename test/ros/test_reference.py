"""docs/node.md is the code's."""

from __future__ import annotations

from geowarp_ros.ros.parameters import node_parameters
from geowarp_ros.ros.topics import PUBLISHED, SERVICES, SUBSCRIBED
from test.reference import NODE, page


def test_the_page_is_the_codes() -> None:
    assert NODE.read_text() == page(), "run: python -m test.reference"


def test_tables_name_everything_once() -> None:
    text = page()
    for parameter in node_parameters():
        assert text.count(f"| `{parameter.name}` |") == 1
    for name in (*PUBLISHED, *SUBSCRIBED, *SERVICES, "/diagnostics", "/tf"):
        assert text.count(f"| `{name}` |") == 1
    assert set(SERVICES) == {"~/localize", "~/pause", "~/reset", "~/reload_gallery"}
    assert "| `~/fix` | sensor_msgs/msg/NavSatFix | published | reliable, volatile, 10 |" in text
    assert "1e+14 on the diagonal" in text
