from __future__ import annotations

import pytest
from rcl_interfaces.msg import ParameterType
from rclpy.parameter import Parameter

from geowarp_ros.config import NodeConfig, RetrievalConfig, flatten, nest
from geowarp_ros.errors import ConfigError
from geowarp_ros.ros.parameters import (
    descriptor,
    node_parameters,
    parse_parameters,
    refuse_change,
    whole_to_double,
)

BY_NAME = {parameter.name: parameter for parameter in node_parameters()}


def test_every_leaf_is_a_parameter_with_a_meaning() -> None:
    assert flatten(NodeConfig()) == {name: parameter.default for name, parameter in BY_NAME.items()}
    assert all(parameter.description for parameter in BY_NAME.values())
    kinds = {"bool": bool, "integer": int, "double": float, "string": str}
    assert all(type(parameter.default) is kinds[parameter.kind] for parameter in BY_NAME.values())


def test_numbers_have_finite_ranges() -> None:
    numbers = [parameter for parameter in BY_NAME.values() if parameter.kind in ("integer", "double")]
    assert numbers
    for parameter in numbers:
        assert parameter.lower is not None and parameter.upper is not None, parameter.name
        assert isinstance(parameter.default, int | float)
        assert parameter.lower <= parameter.default <= parameter.upper


def test_descriptor_carries_range_choices_and_when_it_changes() -> None:
    message = descriptor(BY_NAME["retrieval.candidates"])
    assert message.description == RetrievalConfig.model_fields["candidates"].description
    assert (message.integer_range[0].from_value, message.integer_range[0].to_value) == (1, 1000)
    message = descriptor(BY_NAME["position.cluster_radius_m"])
    assert message.floating_point_range[0].to_value == 1000.0
    assert message.additional_constraints == "Greater than 0. Can be set while running."
    message = descriptor(BY_NAME["image_transport"])
    assert message.additional_constraints == "One of: raw, compressed. Can be set before configure."
    assert descriptor(BY_NAME["autostart"]).read_only
    assert not message.read_only


def test_nest_and_flatten_are_inverse() -> None:
    flat = flatten(NodeConfig())
    assert nest({"a.b.c": 1, "a.d": 2, "e": 3}) == {"a": {"b": {"c": 1}, "d": 2}, "e": 3}
    assert flatten(NodeConfig.model_validate(nest(flat))) == flat


def test_given_values_are_taken_and_ros_own_names_pass() -> None:
    config = parse_parameters(
        {
            "rerank.candidates": 3,
            "position.cluster_radius_m": 30,  # an int for a double
            "use_sim_time": True,
            "start_type_description_service": False,
            "qos_overrides./image.subscription.depth": 1,
        },
        known_qos=["qos_overrides./image.subscription.depth"],
    )
    assert config.rerank.candidates == 3
    assert config.position.cluster_radius_m == 30.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"galery": "g"}, "unknown parameter 'galery' (did you mean 'gallery'?)"),
        ({"rerank.candidate": 3}, "unknown parameter 'rerank.candidate' (did you mean 'rerank.candidates'?)"),
        ({"position": 3}, "unknown parameter 'position'"),
        ({"rerank.candidates": "3"}, "rerank.candidates = '3': input should be a valid integer"),
        ({"rerank.candidates": 0}, "rerank.candidates = 0: input should be greater than or equal to 1"),
        ({"autostart": 1}, "autostart = 1: input should be a valid boolean"),
        ({"datum_latitude": 91.0}, "datum_latitude = 91.0: input should be less than or equal to 90"),
        ({"datum_latitude": float("nan")}, "datum_latitude = nan"),
        ({"position.vertical_std_m": float("inf")}, "position.vertical_std_m = inf"),
        ({"image_transport": "h264"}, "image_transport = 'h264': input should be 'raw' or 'compressed'"),
        ({"frame_id": "map"}, "frame_id = 'map': value error, expected a frame of the robot"),
        (
            {"qos_overrides./imge.subscription.depth": 1},
            "unknown QoS override 'qos_overrides./imge.subscription.depth' "
            "(did you mean 'qos_overrides./image.subscription.depth'?)",
        ),
    ],
)
def test_mistakes_are_refused_by_name(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_parameters(given, known_qos=["qos_overrides./image.subscription.depth"])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_all_mistakes_are_said_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        parse_parameters({"galery": "g", "autostart": 1, "frame_id": "odom"})
    assert str(error.value).count(";") == 2


def test_what_cannot_change_now_says_so() -> None:
    assert refuse_change(["retrieval.candidates", "gallery"], configured=True) == ""
    assert refuse_change(["model"], configured=True) == "model can be set before configure only"
    assert refuse_change(["model"], configured=False) == ""
    assert refuse_change(["autostart"], configured=False) == "autostart can be set at start only"


def test_ints_become_floats_for_doubles_only() -> None:
    given = {"datum_latitude": 30, "rerank.candidates": 30, "autostart": True, "datum_longitude": True}
    taken = whole_to_double([Parameter(name, value=value) for name, value in given.items()])
    types = [parameter.to_parameter_msg().value.type for parameter in taken]
    assert [parameter.value for parameter in taken] == list(given.values())
    assert types == [
        ParameterType.PARAMETER_DOUBLE,
        ParameterType.PARAMETER_INTEGER,
        ParameterType.PARAMETER_BOOL,
        ParameterType.PARAMETER_BOOL,  # left for the check to refuse
    ]
