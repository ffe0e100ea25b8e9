"""The settings of every verb that localises: from a node's file, from the command line, and what is refused."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from geowarp_ros.cli import main
from geowarp_ros.cli.options import (
    add_settings,
    localizer_config,
    read_parameters,
    session_config,
    settings,
)
from geowarp_ros.config import LocalizerConfig, NodeConfig, SessionConfig, flatten
from geowarp_ros.errors import ConfigError

CONFIG = Path(__file__).parents[2] / "config" / "localizer.yaml"


def written(folder: Path, text: str) -> Path:
    path = folder / "node.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def given(*words: str) -> dict[str, Any]:
    """What a verb with all the shortcuts makes of its words."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_settings(parser, "model", "device", "rerank", "candidates", "min_confidence")
    return settings(parser.parse_args(words))


# ---- parameter files


def test_nested_and_dotted_names_come_out_dotted(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "geowarp_localizer:\n  ros__parameters:\n    rerank.candidates: 3\n    rerank:\n      method: none\n"
        "    position:\n      verification.ratio: 0.7\n      verification:\n        keypoints: 500\n",
    )
    assert read_parameters(path) == {
        "rerank.candidates": 3,
        "rerank.method": "none",
        "position.verification.ratio": 0.7,
        "position.verification.keypoints": 500,
    }
    config = session_config(given("--params-file", str(path)))
    assert (config.rerank.candidates, config.rerank.method) == (3, "none")
    assert (config.position.verification.ratio, config.position.verification.keypoints) == (0.7, 500)


@pytest.mark.parametrize("name", ["/**", "/geowarp_localizer", "geowarp_localizer"])
def test_the_nodes_name_does_not_matter_and_names_of_ros_itself_pass(tmp_path: Path, name: str) -> None:
    path = written(
        tmp_path,
        f"{name}:\n  ros__parameters:\n    use_sim_time: true\n    qos_overrides:\n      /fix: {{depth: 3}}\n"
        "    gallery: street\n    latency_budget_ms: 50.0\n",
    )
    assert session_config(given("--params-file", str(path))).latency_budget_ms == 50.0


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a:\n  ros__parameters: {}\nb:\n  ros__parameters: {}\n", id="two nodes"),
        pytest.param("a:\n  rerank:\n    method: none\n", id="no ros__parameters"),
        pytest.param("a:\n  ros__parameters: [1, 2]\n", id="a list"),
        pytest.param("a: 5\n", id="a number"),
        pytest.param("- a\n- b\n", id="no mapping"),
        pytest.param("", id="empty"),
    ],
)
def test_what_is_no_parameter_file_of_one_node_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"node\.yaml: is no parameter file of one node, expected NODE: ros__par"
    ):
        read_parameters(written(tmp_path, text))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a: [1,\n", "is not YAML: "), (b"\xff\xfe\0", "is not UTF-8: "), (None, "cannot be read: No such file")],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "node.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_parameters(path)
    assert str(refused.value).startswith(f"{path}: {said}") and "\n" not in str(refused.value)


def test_the_file_that_ships_is_the_defaults() -> None:
    config = session_config(given("--params-file", str(CONFIG)))
    assert config == SessionConfig()
    assert set(read_parameters(CONFIG)) == set(flatten(NodeConfig()))


# ---- options


def test_without_any_setting_the_defaults_hold() -> None:
    assert given() == {}
    assert localizer_config(given(), "localize") == LocalizerConfig()


def test_an_option_overrides_the_file_and_set_overrides_both(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "n:\n  ros__parameters:\n    rerank: {method: orb, candidates: 3}\n    position: {min_confidence: 0.4}\n",
    )
    words = ["--params-file", str(path)]
    config = session_config(given(*words))
    assert (config.rerank.method, config.rerank.candidates, config.position.min_confidence) == ("orb", 3, 0.4)
    words += ["--rerank", "sift", "--min-confidence", "0.6"]
    config = session_config(given(*words))
    assert (config.rerank.method, config.rerank.candidates, config.position.min_confidence) == ("sift", 3, 0.6)
    words += ["--set", "rerank.method=geowarp", "rerank.candidates=7", "--set", "rerank.candidates=8"]
    config = session_config(given(*words))
    assert (config.rerank.method, config.rerank.candidates, config.position.min_confidence) == ("geowarp", 8, 0.6)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("rerank.mode", "--set rerank.mode: expected NAME=VALUE"),
        ("rerank.mode=fastest", "rerank.mode = 'fastest': input should be 'exact', 'fast' or 'gated'"),
        ("rerank.mod=fast", "unknown parameter 'rerank.mod' (did you mean 'rerank.mode'?)"),
        ("rerank.candidates=0", "rerank.candidates = 0: input should be greater than or equal to 1"),
        ("rerank=fast", "rerank = 'fast': expected a section, with parameters such as rerank.method"),
        ("rerank.method.fast=1", "unknown parameter 'rerank.method.fast' (did you mean 'rerank.method'?)"),
        ("rerank.mode=[", "--set rerank.mode=[: is not YAML: "),
        ("alpha=3", "unknown parameter 'alpha'"),
        ("alpha.beta=3", "unknown parameter 'alpha'"),
    ],
)
def test_a_setting_that_is_wrong_is_refused_by_its_name(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        session_config(given("--set", "rerank.candidates=3", "rerank.method=none", setting))
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_section_may_be_set_as_one() -> None:
    config = session_config(given("--set", "rerank={method: none, candidates: 3}", "rerank.candidates=4"))
    assert (config.rerank.method, config.rerank.candidates) == ("none", 4)


def test_an_empty_section_of_a_file_is_refused_by_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, "n:\n  ros__parameters:\n    rerank:\n    #  method: none\n")
    for words in ((), ("--set", "rerank.candidates=3")):
        with pytest.raises(ConfigError, match="rerank = None: expected a section, with parameters such as rerank"):
            session_config(given("--params-file", str(path), *words))


# ---- verbs that answer each image on its own


@pytest.mark.parametrize("verb", ["localize", "calibrate"])
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("tracking.method=hmm", "tracking.method = 'hmm': {verb} answers each image on its own"),
        ("prior.source=track", "prior.source = 'track': {verb} answers each image on its own"),
        ("prior.source=fix", "prior.source = 'fix': {verb} answers each image on its own"),
        ("latency_budget_ms=80", "latency_budget_ms = 80.0: {verb} answers each image on its own"),
    ],
)
def test_what_needs_the_images_before_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, setting: str, said: str
) -> None:
    words = [verb, str(tmp_path / "a.png"), "--gallery", str(tmp_path / "gallery")]
    (tmp_path / "a.png").touch()
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "gallery.json").touch()
    name, _, value = setting.partition("=")
    path = written(tmp_path, f"n:\n  ros__parameters:\n    {name}: {value}\n")
    for more in (["--set", setting], ["--params-file", str(path)]):
        assert main([*words, *more]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"geowarp {verb}: {said.format(verb=verb)}") and error.count("\n") == 1
        assert "'geowarp evaluate bag' honours it" in error
    # what the line suggests is taken: the next mistake is the gallery's
    suggested = error.partition("(--set ")[2].partition(")")[0]
    assert main([*words, "--params-file", str(path), "--set", suggested]) == 1
    assert "gallery.json: is truncated" in capsys.readouterr().err


def test_the_rest_of_a_nodes_file_is_checked_and_left_aside(tmp_path: Path) -> None:
    text = "n:\n  ros__parameters:\n    map_frame: world\n    tracking: {{max_speed_mps: {speed}}}\n"
    config = localizer_config(given("--params-file", str(written(tmp_path, text.format(speed=2.0)))), "localize")
    assert config == LocalizerConfig() and type(config) is LocalizerConfig
    with pytest.raises(ConfigError, match=r"tracking\.max_speed_mps = -2\.0"):
        localizer_config(given("--params-file", str(written(tmp_path, text.format(speed=-2.0)))), "localize")


# ---- usage


@pytest.mark.parametrize(
    "words",
    [
        ["localize", "a.png", "--gallery", "g"],
        ["calibrate", "a", "--gallery", "g"],
        ["evaluate", "bag", "a", "--gallery", "g", "--output", "o"],
        ["match", "a.png", "b.png"],
    ],
    ids=" ".join,
)
def test_an_abbreviated_option_is_an_error_of_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--mode", "--mod", "--models"):
        with pytest.raises(SystemExit) as ended:
            main([*words, option, "fast"])
        assert ended.value.code == 2
        assert f"unrecognized arguments: {option} fast" in capsys.readouterr().err


# ---- nothing is taken that the node would refuse, or that changes nothing


@pytest.mark.parametrize(
    "setting",
    [
        "rerank.candidates=true",
        "rerank.candidates=5.0",
        "rerank.candidates='7'",
        "position.min_confidence=yes",
        "position.min_confidence='1e-1'",
    ],
)
def test_a_type_that_the_node_refuses_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        session_config(given("--set", setting))


@pytest.mark.parametrize(("text", "value"), [("1e-1", 0.1), ("5E-1", 0.5), ("1", 1.0), ("0.25", 0.25)])
def test_numbers_are_read_as_ros_reads_them(text: str, value: float) -> None:
    assert session_config(given("--set", f"position.min_confidence={text}")).position.min_confidence == value


@pytest.mark.parametrize(
    "name", ["gallery", "max_rate_hz", "map_to_odom", "use_sim_time", "qos_overrides./fix.depth"]
)
def test_what_only_the_node_uses_is_refused_as_an_option_and_passes_in_a_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"--set {name}=1: only the node uses {name}"):
        given("--set", f"{name}=1")
    session_config(given("--params-file", str(CONFIG)))


def test_a_day_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, "node: {ros__parameters: {frame_id: 2026-99-99}}")
    for words in (["--set", "model=2026-13-45"], ["--params-file", str(path)]):
        with pytest.raises(ConfigError, match="is not YAML: month must be in"):
            given(*words)
