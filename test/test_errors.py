from __future__ import annotations

import pytest

from geowarp_ros.errors import did_you_mean


@pytest.mark.parametrize(
    ("given", "meant"),
    [("lat", "latitude"), ("lon", "longitude"), ("latitud", "latitude"), ("longtitude", "longitude")],
)
def test_a_name_cut_off_or_misspelt_is_recognised(given: str, meant: str) -> None:
    assert did_you_mean(given, ["filename", "latitude", "longitude"]) == f" (did you mean {meant!r}?)"


@pytest.mark.parametrize("given", ["", "xyz", "l"])
def test_nothing_is_made_up_where_nothing_or_too_much_is_alike(given: str) -> None:
    assert did_you_mean(given, ["filename", "latitude", "longitude"]) == ""
