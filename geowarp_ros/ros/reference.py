"""README's tables of topics, services and parameters and ``config/localizer.yaml``, rendered from the code.

``python -m geowarp_ros.ros.reference [tables|yaml]`` prints them; tests hold the files equal to it.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence

from geowarp_ros.ros.node import SERVICES
from geowarp_ros.ros.parameters import NodeParameter, node_parameters
from geowarp_ros.ros.topics import PUBLISHED, SUBSCRIBED

WIDTH = 115

YAML_HEAD = """\
# Every parameter of the localizer with its default; copy what you change. Unknown names are refused at start.
# Made by: python -m geowarp_ros.ros.reference yaml
/**:
  ros__parameters:
"""


def tables() -> str:
    """Return the three tables as Markdown."""
    return "\n".join(
        [
            "### Topics",
            "",
            _table(("topic", "type", "", "quality of service", "meaning"), _topics()),
            "### Services",
            "",
            _table(("service", "type", "meaning"), _services()),
            "The lifecycle's services (`~/change_state`, `~/get_state`, …) and the parameters' are rclpy's.",
            "",
            "### Parameters",
            "",
            _table(("parameter", "type", "default", "range", "can be set", "meaning"), _parameters()),
        ]
    )


def yaml_file() -> str:
    """Return a parameter file with every default, nested as the names are."""
    lines = []
    open_sections: list[str] = []
    for parameter in node_parameters():
        *sections, leaf = parameter.name.split(".")
        same = 0
        while same < min(len(sections), len(open_sections)) and sections[same] == open_sections[same]:
            same += 1
        for depth in range(same, len(sections)):
            lines.append(f"{_indent(depth)}{sections[depth]}:")
        open_sections = sections
        indent = _indent(len(sections))
        comment = f"{parameter.description}{_limits(parameter)} Can be set {parameter.changes}."
        start = f"{indent}# "
        lines += textwrap.wrap(
            comment, WIDTH, initial_indent=start, subsequent_indent=start, break_on_hyphens=False
        )
        lines.append(f"{indent}{leaf}: {json.dumps(parameter.default)}")
    return YAML_HEAD + "\n".join(lines) + "\n"


def _topics() -> list[tuple[str, ...]]:
    sensor, reliable = "sensor data (best effort, 5)", "reliable, volatile, 10"
    rows: list[tuple[str, ...]] = [
        (f"`{n}`", _type_name(k), "subscribed", sensor, m) for n, (k, m) in SUBSCRIBED.items()
    ]
    rows += [(f"`{n}`", _type_name(k), "published", reliable, m) for n, (k, m) in PUBLISHED.items()]
    rows += [
        (
            "`/diagnostics`",
            "diagnostic_msgs/msg/DiagnosticArray",
            "published",
            reliable,
            "Localization, input, gallery and memory at 1 Hz, in every state (REP 107).",
        ),
        (
            "`/tf`",
            "tf2_msgs/msg/TFMessage",
            "published",
            "reliable, volatile, 100",
            "`map_frame` → odometry's frame at 10 Hz, with `map_to_odom`; while fixes and odometry agree.",
        ),
    ]
    return rows


def _services() -> list[tuple[str, ...]]:
    return [(f"`{service.name}`", _type_name(service.kind), service.meaning) for service in SERVICES]


def _parameters() -> list[tuple[str, ...]]:
    return [
        (f"`{p.name}`", p.kind, f"`{json.dumps(p.default)}`", _range(p), p.changes, p.description)
        for p in node_parameters()
    ]


def _range(parameter: NodeParameter) -> str:
    if parameter.choices:
        return ", ".join(f"`{choice}`" for choice in parameter.choices)
    if parameter.lower is None or parameter.upper is None:
        return ""
    left = "(" if "lower" in parameter.exclusive else "["
    right = ")" if "upper" in parameter.exclusive else "]"
    return f"{left}{parameter.lower:g}, {parameter.upper:g}{right}"


def _limits(parameter: NodeParameter) -> str:
    if parameter.choices:
        return f" One of: {', '.join(parameter.choices)}."
    limits = _range(parameter)
    return f" {limits}." if limits else ""


def _type_name(kind: type) -> str:
    """``sensor_msgs.msg._image.Image`` -> ``sensor_msgs/msg/Image``."""
    package, interface, *_ = kind.__module__.split(".")
    return f"{package}/{interface}/{kind.__name__}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _indent(depth: int) -> str:
    return "  " * (depth + 2)


if __name__ == "__main__":
    sys.stdout.write(yaml_file() if sys.argv[1:] == ["yaml"] else tables())
