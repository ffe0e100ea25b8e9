"""The layouts name topics that the node publishes, in displays that can show their types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from geowarp_ros.config import NodeConfig
from geowarp_ros.ros.candidates import NAMES, SPHERES
from geowarp_ros.ros.process import NODE_NAME
from geowarp_ros.ros.topics import CANDIDATES, FIX, MATCH_IMAGE, POSE, PUBLISHED

LAYOUTS = Path(__file__).parents[2] / "docs" / "layouts"
SHOWS = {
    "rviz_default_plugins/PoseWithCovariance": "PoseWithCovarianceStamped",
    "rviz_default_plugins/MarkerArray": "MarkerArray",
    "rviz_default_plugins/Image": "CompressedImage",
}
PUBLISHED_NAMES = {name.replace("~", f"/{NODE_NAME}"): kind.__name__ for name, (kind, _) in PUBLISHED.items()}


def full(name: str) -> str:
    return name.replace("~", f"/{NODE_NAME}")


def strings(value: Any) -> Iterator[str]:
    """Every text in a tree of JSON, its keys too."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def test_rviz_shows_pose_candidates_and_match_image() -> None:
    manager = yaml.safe_load((LAYOUTS / "geowarp.rviz").read_text())["Visualization Manager"]
    displays = [display for display in manager["Displays"] if "Topic" in display]
    shown = {display["Topic"]["Value"]: display for display in displays}
    assert set(shown) == {full(name) for name in (POSE, CANDIDATES, MATCH_IMAGE)}
    for topic, display in shown.items():
        assert SHOWS[display["Class"]] == PUBLISHED_NAMES[topic]
        assert display["Enabled"] is True
        assert display["Topic"]["Reliability Policy"] == "Reliable"
        assert display["Topic"]["Durability Policy"] == "Volatile"
    assert set(shown[full(CANDIDATES)]["Namespaces"]) == {SPHERES, NAMES}
    assert manager["Global Options"]["Fixed Frame"] == NodeConfig().map_frame


def test_foxglove_shows_all_of_it_and_the_diagnostics() -> None:
    layout = json.loads((LAYOUTS / "geowarp.foxglove.json").read_text())
    panels = layout["configById"]
    assert sorted(text for text in strings(layout["layout"]) if "!" in text) == sorted(panels)
    named = {text.split(".")[0] for text in strings(panels) if text.startswith("/")}
    assert named == {full(name) for name in (FIX, POSE, CANDIDATES, MATCH_IMAGE)} | {"/diagnostics"}
    assert PUBLISHED_NAMES[panels["map!geowarp"]["followTopic"]] == "NavSatFix"
    assert set(panels["3D!geowarp"]["topics"]) == {full(POSE), full(CANDIDATES)}
    assert panels["Image!geowarp"]["imageMode"]["imageTopic"] == full(MATCH_IMAGE)
    assert panels["3D!geowarp"]["followTf"] == NodeConfig().map_frame
