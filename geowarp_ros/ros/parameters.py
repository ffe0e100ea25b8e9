"""The parameter tree of :mod:`geowarp_ros.config` as ROS parameters: declared, read and validated only here.

rclpy silently ignores YAML keys that nobody declared and refuses ``30`` for a double. Therefore the node is
created with ``automatically_declare_parameters_from_overrides=True``, which declares whatever was given; then
:func:`declare_parameters` validates all of it in one place and declares the tree anew, with descriptors.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from geowarp_ros.config import NodeConfig, flatten, leaves, nest, parse_config
from geowarp_ros.errors import ConfigError, did_you_mean

Change = Literal["while running", "by ~/reload_gallery", "before configure", "at start"]

_CHANGES: dict[Change, tuple[str, ...]] = {
    "while running": (
        *("retrieval.", "rerank.", "position.", "tracking.", "prior.", "latency_budget_ms", "max_rate_hz"),
        *("frame_id", "altitude_nan", "input_timeout_s", "localize_max_age_s", "lost_after"),
    ),
    "by ~/reload_gallery": ("gallery",),
    "at start": ("autostart",),
}
"""When a change applies -> names, or prefixes of names; all others: before configure."""

_KINDS: dict[type, Any] = {bool: "bool", int: "integer", float: "double", str: "string"}

ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides.")
"""Parameters that rclpy declares itself, by prefix."""


@dataclass(frozen=True, slots=True)
class NodeParameter:
    """One leaf of the tree as a ROS parameter.

    Attributes:
        name: Dotted.
        kind: ROS's name of the type.
        default: Default value.
        lower: Lower bound of a number; None for other types.
        upper: Upper bound, likewise.
        open_below: Whether the lower bound itself is refused.
        open_above: Whether the upper bound itself is refused.
        choices: Allowed values of a string; empty: any.
        description: Meaning and unit.
        changes: When a change applies.
    """

    name: str
    kind: Literal["bool", "integer", "double", "string"]
    default: bool | int | float | str
    lower: float | None
    upper: float | None
    open_below: bool
    open_above: bool
    choices: tuple[str, ...]
    description: str
    changes: Change


@cache
def node_parameters() -> tuple[NodeParameter, ...]:
    """Return every parameter of the node, in the order of ``config.py``."""
    return tuple(_node_parameter(name, info) for name, info in leaves(NodeConfig))


def declare_parameters(node: Node, known_qos: Sequence[str] = ()) -> NodeConfig:
    """Validate what the node was given and declare the whole tree on it.

    Args:
        node: Created with ``automatically_declare_parameters_from_overrides=True``.
        known_qos: Names of the QoS overrides that the node's topics read.

    Raises:
        ConfigError: Unknown names (with a suggestion) and invalid values, all of them in one line.
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


def parse_parameters(given: Mapping[str, Any], known_qos: Sequence[str] = ()) -> NodeConfig:
    """Turn dotted names and values into a validated configuration; ROS's own parameters pass.

    Raises:
        ConfigError: As :func:`declare_parameters`.
    """
    known = [parameter.name for parameter in node_parameters()]
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
    """Say which of these parameters, all with new values, cannot change now; empty if all can."""
    too_late = {"at start", "before configure"} if configured else {"at start"}
    return "; ".join(
        f"{parameter.name} can be set {parameter.changes} only"
        for parameter in node_parameters()
        if parameter.name in names and parameter.changes in too_late
    )


def whole_to_double(given: list[Parameter]) -> list[Parameter]:
    """Return the parameters with whole numbers converted to floats where a double is declared."""
    doubles = [parameter.name for parameter in node_parameters() if parameter.kind == "double"]
    return [
        Parameter(p.name, value=float(p.value)) if p.name in doubles and type(p.value) is int else p for p in given
    ]


def descriptor(parameter: NodeParameter) -> ParameterDescriptor:
    """Return description, range and constraints in ROS's form (``ros2 param describe`` shows them)."""
    constraints = [f"One of: {', '.join(parameter.choices)}."] if parameter.choices else []
    if parameter.open_below:
        constraints.append(f"Greater than {parameter.lower:g}.")
    if parameter.open_above:
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


def _node_parameter(name: str, info: Any) -> NodeParameter:
    bounds = {
        key: float(getattr(item, key))
        for item in info.metadata
        for key in ("ge", "gt", "le", "lt")
        if hasattr(item, key)
    }
    return NodeParameter(
        name=name,
        kind=_KINDS[type(info.default)],
        default=info.default,
        lower=bounds.get("ge", bounds.get("gt")),
        upper=bounds.get("le", bounds.get("lt")),
        open_below="gt" in bounds,
        open_above="lt" in bounds,
        choices=get_args(info.annotation) if get_origin(info.annotation) is Literal else (),
        description=info.description or "",
        changes=next((when for when, names in _CHANGES.items() if name.startswith(names)), "before configure"),
    )


def _nearest_qos(name: str, known: Sequence[str]) -> str:
    """Suggest by the end of the name: the long common prefix makes all overrides look alike."""
    tails = {full.removeprefix("qos_overrides."): full for full in known}
    close = difflib.get_close_matches(name.removeprefix("qos_overrides."), tails, n=1)
    return f" (did you mean {tails[close[0]]!r}?)" if close else ""
