"""Settings of the localizer as command-line options, for every verb that localises: the node's own parameters."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geowarp_ros.cli.parser import OWN_MODEL, WEIGHTS, Existing
from geowarp_ros.config import LocalizerConfig, NodeConfig, SessionConfig, leaves, nest, parse_config
from geowarp_ros.errors import ConfigError, did_you_mean

CAMERA = Existing("a ROS calibration file", file=True)

SHORTCUTS: dict[str, tuple[str, str]] = {
    "model": ("model", "model file (default: the one that made the gallery)"),
    "keypoint_weights": ("keypoint_weights", "weights of a network's keypoints (default: by their name)"),
    "matcher_weights": ("matcher_weights", "weights of a network that matches (default: by its name)"),
    "device": ("device", "auto, cpu or cuda"),
    "runtime": ("runtime", "auto, torch or onnxruntime"),
    "threads": ("threads", "threads of all libraries; 0: one for each physical core"),
    "rerank": ("rerank.method", "re-ranking method, such as none, geowarp, sift or xfeat-lighterglue"),
    "candidates": ("rerank.candidates", "number of candidates to re-rank"),
    "min_confidence": ("position.min_confidence", "minimum confidence of a fix; -1: as calibrated, or 0.5"),
}
"""Option -> the parameter that it sets, and its line in the help."""

_PATHS: dict[str, Any] = {"model": OWN_MODEL, "keypoint_weights": WEIGHTS, "matcher_weights": WEIGHTS}

ROS_OWN = ("use_sim_time", "qos_overrides", "start_type_description_service")
"""Names in a parameter file that belong to ROS itself."""

NODE_ONLY = {*ROS_OWN, *NodeConfig.model_fields} - {*SessionConfig.model_fields}
"""Names that a parameter file may have and no verb uses."""


def add_camera(parser: argparse.ArgumentParser) -> None:
    """Add ``--camera``."""
    parser.add_argument(
        "--camera", type=CAMERA, metavar="FILE",
        help="ROS calibration file of all images (default: CameraInfo of a bag, camera.yaml beside them, or EXIF)",
    )  # fmt: skip


def add_settings(parser: argparse.ArgumentParser, *shortcuts: str) -> None:
    """Add ``--params-file``, ``--set`` and some of :data:`SHORTCUTS`; what is left out keeps its default."""
    group = parser.add_argument_group(
        "settings", "the node's parameters; an option overrides the file, and --set overrides both"
    )
    hidden = argparse.SUPPRESS  # so that no default overrides the file
    group.add_argument(
        "--params-file", type=Existing("a parameter file of the node", file=True), default=hidden, metavar="YAML",
        help="parameter file of the node",
    )  # fmt: skip
    setting = group.add_argument(
        "--set", nargs="+", action="extend", default=hidden, metavar="NAME=VALUE",
        help="any parameter, such as rerank.mode=fast or position.verify=none",
    )  # fmt: skip
    setting.completer = lambda **_: [f"{name}=" for name, _ in leaves(SessionConfig)]  # type: ignore[attr-defined]
    for option in shortcuts:
        name, meaning = SHORTCUTS[option]
        value: Any = LocalizerConfig()
        for part in name.split("."):
            value = getattr(value, part)
        group.add_argument(
            f"--{option.replace('_', '-')}", type=_PATHS.get(option, type(value)), default=hidden,
            metavar=type(value).__name__.upper(),
            help=meaning if "default" in meaning else f"{meaning} (default: {value})",
        )  # fmt: skip


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the given settings, nested; names and values are not checked yet.

    Raises:
        ConfigError: A file that is no parameter file, a setting that is not NAME=VALUE, or a value for a section.
    """
    given = vars(args)
    flat = read_parameters(given["params_file"]) if "params_file" in given else {}
    flat |= {SHORTCUTS[option][0]: given[option] for option in SHORTCUTS if option in given}
    for setting in given.get("set", ()):
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: expected NAME=VALUE, such as rerank.mode=fast")
        if name.strip().split(".")[0] in NODE_ONLY:
            raise ConfigError(f"--set {setting}: only the node uses {name.strip()}, it changes nothing here")
        flat |= _dotted({name.strip(): _read_yaml(text, f"--set {setting}")})
    _refuse_sections(flat)
    return nest(flat)


def localizer_config(values: Mapping[str, Any], verb: str) -> LocalizerConfig:
    """Return the settings of a verb that answers each image on its own.

    Raises:
        ConfigError: Unknown names, bad values, or settings that need the images before.
    """
    config = session_config(values)
    needless = {
        "tracking.method": (config.tracking.method, "none"),
        "prior.source": (config.prior.source, "none"),
        "latency_budget_ms": (config.latency_budget_ms, 0.0),
        "base_frame": (config.base_frame, ""),
    }
    for name, (value, expected) in needless.items():
        if value != expected:
            raise ConfigError(
                f"{name} = {value!r}: {verb} answers each image on its own and cannot honour it;"
                f" expected {expected!r} (--set {name}={expected}); 'geowarp evaluate bag' honours it"
            )
    return LocalizerConfig(**{name: getattr(config, name) for name in LocalizerConfig.model_fields})


def session_config(values: Mapping[str, Any]) -> SessionConfig:
    """Return the settings of a verb that shows a session its images in order; the node's own are checked, too.

    Raises:
        ConfigError: Unknown names, bad values, or a model that is not there.
    """
    node = parse_config(
        NodeConfig, {name: value for name, value in values.items() if name not in ROS_OWN}, strict=True
    )
    OWN_MODEL.check(OWN_MODEL(node.model))
    return SessionConfig(**{name: getattr(node, name) for name in SessionConfig.model_fields})


def read_parameters(path: Path) -> dict[str, Any]:
    """Return the parameters of a node's YAML file by their dotted names.

    Raises:
        ConfigError: It cannot be read, or is no parameter file of one node.
    """
    try:
        read = _read_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8: {error}") from None
    nodes = list(read.values()) if isinstance(read, dict) else []
    if len(nodes) != 1 or not isinstance(nodes[0], dict) or not isinstance(nodes[0].get("ros__parameters"), dict):
        raise ConfigError(f"{path}: is no parameter file of one node, expected NODE: ros__parameters: …")
    return _dotted(nodes[0]["ros__parameters"])


def _read_yaml(text: str, where: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads 1e3 as a number, as ROS does (YAML 1.2); PyYAML reads a text."""

    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a day such as 2026-02-30
        raise ConfigError(f"{where}: is not YAML: {' '.join(str(error).split())}") from None


def _dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _refuse_sections(flat: Mapping[str, Any]) -> None:
    """Refuse a value for a section, such as ``rerank: none``, or ``rerank:`` with nothing below it."""
    known = [name for name, _ in leaves(NodeConfig)]
    for section, value in flat.items():
        inside = next((name for name in (*known, *flat) if name.startswith(f"{section}.")), None)
        if inside is not None and section in known:
            raise ConfigError(f"unknown parameter {inside!r}{did_you_mean(inside, known)}")
        if inside is not None:
            raise ConfigError(f"{section} = {value!r}: expected a section, with parameters such as {inside}")
