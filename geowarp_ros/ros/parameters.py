"""The parameter tree of :mod:`geowarp_ros.config` as ROS parameters: declared, read and checked here only.

rclpy ignores YAML keys that nobody declared and refuses ``30`` for a double. So the node is created with
``automatically_declare_parameters_from_overrides=True``, which declares whatever was given; then
:func:`declare_parameters` checks all of it in one place and declares the tree anew, with descriptors.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from geowarp_ros.config import NodeConfig, Section, leaves, parse_config
from geowarp_ros.errors import ConfigError, did_you_mean

Change = Literal["while running", "by ~/reload_gallery", "before configure", "at start"]

_CHANGES: dict[str, Change] = {
    "retrieval.": "while running",
    "rerank.": "while running",
    "position.": "while running",
    "tracking.": "while running",
    "prior.": "while running",
    "max_rate_hz": "while running",
    "latency_budget_ms": "while running",
    "lost_after": "while running",
    "frame_id": "while running",
    "altitude_nan": "while running",
    "input_timeout_s": "while running",
    "gallery": "by ~/reload_gallery",
    "autostart": "at start",
}
"""Prefix of a parameter's name -> when a change applies; whatever is not here: before configure."""

_EXCLUSIVE: dict[str, Literal["lower", "upper"]] = {"gt": "lower", "lt": "upper"}

ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides.")
"""Parameters that rclpy declares itself, by prefix."""


@dataclass(frozen=True, slots=True)
class NodeParameter:
    """One leaf of the tree as ROS sees it.

    Attributes:
        name: Dotted.
        kind: ROS's name of the type.
        default: Value where none is given.
        lower: Least value; None without a bound, or where the type has none.
        upper: Greatest value, likewise.
        exclusive: Which of the bounds are themselves refused.
        choices: What a string may be; empty: anything.
        description: Meaning and unit.
        changes: When a change applies.
    """

    name: str
    kind: Literal["bool", "integer", "double", "string"]
    default: bool | int | float | str
    lower: float | None
    upper: float | None
    exclusive: tuple[Literal["lower", "upper"], ...]
    choices: tuple[str, ...]
    description: str
    changes: Change


def node_parameters(kind: type[Section] = NodeConfig) -> tuple[NodeParameter, ...]:
    """Return every parameter of the node, in the order in which ``config.py`` writes them."""
    return tuple(_node_parameter(name, info) for name, info in leaves(kind))


def declare_parameters(node: Node, known_qos: Iterable[str] = ()) -> NodeConfig:
    """Check what the node was given and declare the whole tree on it.

    Args:
        node: Created with ``automatically_declare_parameters_from_overrides=True``.
        known_qos: The names of the QoS overrides that the node's topics read.

    Raises:
        ConfigError: Unknown names (with a suggestion) and bad values, all of them in one line.
    """
    given = {name: parameter.value for name, parameter in node.get_parameters_by_prefix("").items()}
    config = parse_parameters(given, known_qos)
    values = flatten(config)
    for parameter in node_parameters():
        if node.has_parameter(parameter.name):
            node.undeclare_parameter(parameter.name)
        value = values[parameter.name]
        node.declare_parameter(parameter.name, value, descriptor(parameter), ignore_override=True)
    return config


def parse_parameters(given: Mapping[str, Any], known_qos: Iterable[str] = ()) -> NodeConfig:
    """Turn dotted names and values into a checked configuration; names that are ROS's own pass.

    Raises:
        ConfigError: As :func:`declare_parameters`.
    """
    known = [parameter.name for parameter in node_parameters()]
    known_qos = list(known_qos)
    problems = []
    for name in given:
        if name.startswith("qos_overrides."):
            if name not in known_qos:
                problems.append(f"unknown QoS override {name!r}{_nearest_qos(name, known_qos)}")
        elif name not in known and not name.startswith(ROS_OWN):
            problems.append(f"unknown parameter {name!r}{did_you_mean(name, known)}")
    try:
        config = parse_config(NodeConfig, nest({k: v for k, v in given.items() if k in known}), strict=True)
    except ConfigError as error:
        problems.append(str(error))
    if problems:
        raise ConfigError("; ".join(problems))
    return config


def refuse_change(names: Iterable[str], *, configured: bool) -> str:
    """Say why these parameters cannot change now; an empty string where they can."""
    late = []
    for parameter in node_parameters():
        if parameter.name in names and (
            parameter.changes == "at start" or (parameter.changes == "before configure" and configured)
        ):
            late.append(f"{parameter.name} can be set {parameter.changes} only")
    return "; ".join(late)


def as_declared(name: str, value: Any) -> Any:
    """Return an int for a double as a float; anything else as it is."""
    doubles = [parameter.name for parameter in node_parameters() if parameter.kind == "double"]
    return float(value) if name in doubles and type(value) is int else value


def descriptor(parameter: NodeParameter) -> ParameterDescriptor:
    """Return description, range and constraints in ROS's form (``ros2 param describe`` shows them)."""
    constraints = [f"One of: {', '.join(parameter.choices)}."] if parameter.choices else []
    if "lower" in parameter.exclusive:
        constraints.append(f"Greater than {parameter.lower:g}.")
    if "upper" in parameter.exclusive:
        constraints.append(f"Less than {parameter.upper:g}.")
    constraints.append(f"Can be set {parameter.changes}.")
    message = ParameterDescriptor(
        description=parameter.description,
        additional_constraints=" ".join(constraints),
        read_only=parameter.changes == "at start",
    )
    if parameter.lower is not None and parameter.upper is not None:
        if parameter.kind == "integer":
            whole = IntegerRange(from_value=int(parameter.lower), to_value=int(parameter.upper), step=0)
            message.integer_range = [whole]
        else:
            real = FloatingPointRange(from_value=parameter.lower, to_value=parameter.upper, step=0.0)
            message.floating_point_range = [real]
    return message


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into nested dictionaries: {"a.b": 1} -> {"a": {"b": 1}}."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, leaf = name.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = value
    return nested


def flatten(config: Section) -> dict[str, Any]:
    """Turn a configuration into dotted names and values; the inverse of :func:`nest`."""
    flat: dict[str, Any] = {}
    for name, _ in leaves(type(config)):
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        flat[name] = value
    return flat


def _node_parameter(name: str, info: Any) -> NodeParameter:
    bounds = {
        key: float(getattr(item, key))
        for item in info.metadata
        for key in ("ge", "gt", "le", "lt")
        if hasattr(item, key)
    }
    choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    kinds: dict[type, Any] = {bool: "bool", int: "integer", float: "double", str: "string"}
    return NodeParameter(
        name=name,
        kind=kinds[type(info.default)],
        default=info.default,
        lower=bounds.get("ge", bounds.get("gt")),
        upper=bounds.get("le", bounds.get("lt")),
        exclusive=tuple(end for key, end in _EXCLUSIVE.items() if key in bounds),
        choices=choices,
        description=info.description or "",
        changes=next((when for prefix, when in _CHANGES.items() if name.startswith(prefix)), "before configure"),
    )


def _nearest_qos(name: str, known: list[str]) -> str:
    """Suggest by the end of the name: the long common beginning makes every override look alike."""
    tails = {full.removeprefix("qos_overrides."): full for full in known}
    close = difflib.get_close_matches(name.removeprefix("qos_overrides."), tails, n=1)
    return f" (did you mean {tails[close[0]]!r}?)" if close else ""
