"""Positions in names: the zone's letter as band and as hemisphere, local frames, and what contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyproj import Proj

from geowarp_ros.errors import SourceError
from geowarp_ros.geodesy import distance_m
from geowarp_ros.readers import read_source
from geowarp_ros.readers.folders import LOCAL, NEITHER
from geowarp_ros.readers.utm_names import (
    BANDS,
    CONTRADICTION,
    NO_HEMISPHERE,
    NO_UTM,
    NO_ZONE,
    parse_name,
    place_names,
)
from test.readers.test_folders import NAPLES, save

RIO = "@0683466.00@7460687.00@23@{}@-22.95190@-043.21060@pano@00@090@@@@201901@@.jpg"


def where(name: str, utm_zone: str | None = None) -> tuple[float, float]:
    parsed = parse_name(name)
    assert parsed is not None
    degrees, (reason,) = place_names([parsed], utm_zone)
    assert not reason, reason
    return float(degrees[0, 0]), float(degrees[0, 1])


def reason_of(name: str, utm_zone: str | None = None) -> str:
    parsed = parse_name(name)
    assert parsed is not None
    return place_names([parsed], utm_zone)[1][0]


@pytest.mark.parametrize("letter", ["S", "s", "K", "k", "", "South"])
def test_rio_is_south_of_the_equator(letter: str) -> None:
    assert where(RIO.format(letter)) == pytest.approx((-22.9519, -43.2106), abs=2e-4)


@pytest.mark.parametrize("zone", ["23K", "23k", "23 S", "23.0", "61", "0"])
def test_a_zone_in_another_form(zone: str) -> None:
    """A letter behind it, a fraction, or none that there is: then the degrees tell."""
    name = RIO.format("").replace("@23@", f"@{zone}@")
    assert where(name) == pytest.approx((-22.9519, -43.2106), abs=2e-4)
    with pytest.raises(SourceError, match="contradicts utm_zone"):
        where(name, "23N")
    assert where("@683466@7460687@23K@@@@.jpg")[0] == pytest.approx(-22.9519, abs=1e-4)


@pytest.mark.parametrize("letter", ["N", "T", "X", "C"])
def test_a_letter_that_contradicts_the_degrees(letter: str) -> None:
    assert reason_of(RIO.format(letter)) == CONTRADICTION


@given(
    st.floats(-79.9, 83.9),
    st.floats(-180, 179.999),
    st.sampled_from(["band", "hemisphere", "none"]),
    st.booleans(),
)
@settings(deadline=None)
def test_a_name_with_degrees_is_where_they_say(latitude: float, longitude: float, style: str, lower: bool) -> None:
    """Bands and zones by their definition, metres by pyproj."""
    assume(abs(latitude) > 1e-5 or abs(longitude) > 1e-5)  # cut to zeros they say nothing
    zone, southern = int((longitude + 180) // 6) + 1, latitude < 0
    east, north = Proj(proj="utm", zone=zone, south=southern)(longitude, latitude)
    band = BANDS[min(int((latitude + 80) // 8), 19)]
    letter = {"band": band, "hemisphere": "S" if southern else "N", "none": ""}[style]
    letter = letter.lower() if lower else letter
    name = f"@{east:.2f}@{north:.2f}@{zone:02d}@{letter}@{latitude:.5f}@{longitude:.5f}@@@@@@@@@.jpg"
    assert distance_m(*where(name), latitude, longitude) < 0.02
    if style == "band" and band != "S":  # a band tells without them, but for S, which may be a hemisphere
        assert distance_m(*where(f"@{east:.2f}@{north:.2f}@{zone}@{letter}@@@.jpg"), latitude, longitude) < 0.02
    unzoned = f"@{east:.2f}@{north:.2f}@@@{latitude:.5f}@{longitude:.5f}@@@@@@@@@.jpg"
    assert distance_m(*where(unzoned), latitude, longitude) < 0.02


def test_s_without_degrees_is_a_hemisphere_only_where_the_northing_is_in_no_band_s() -> None:
    assert where("@683466@7460687@23@S@@@.jpg")[0] == pytest.approx(-22.9519, abs=1e-4)
    francisco = "@551730@4178000@10@S@@@.jpg"  # 37.7° N, or 52.5° S in the Pacific
    assert reason_of(francisco) == NO_HEMISPHERE
    assert where(francisco, "10N")[0] == pytest.approx(37.75, abs=0.01)
    assert where(francisco, "10S")[0] == pytest.approx(-52.5, abs=0.1)
    assert reason_of("@551730@4178000@10@@@@.jpg") == NO_HEMISPHERE
    assert where("@551730@4178000@10@@@@.jpg", "10N")[0] == pytest.approx(37.75, abs=0.01)


def test_contradictions_within_a_name() -> None:
    assert reason_of(RIO.format("S").replace("@23@", "@24@")) == CONTRADICTION
    assert reason_of(RIO.format("S").replace("-22.95190@-043.21060", "-43.21060@-022.95190")) == CONTRADICTION
    assert reason_of(RIO.format("S").replace("-22.95190@", "-122.95190@")) == CONTRADICTION
    assert reason_of("@500000@4982950@32@H@@@.jpg") == CONTRADICTION  # 45° S, and band H ends at 40° S
    assert reason_of("@5000@4982950@32@T@@@.jpg") == NO_UTM
    moved = RIO.format("S").replace("7460687", "7461687")
    assert reason_of(moved) == CONTRADICTION  # by a kilometre


@pytest.mark.parametrize("zone", ["32N", "23N", "24S"])
def test_a_given_zone_that_contradicts_the_name_is_refused(zone: str) -> None:
    for name in (
        RIO.format("S"),
        RIO.format(""),
        RIO.format("").replace("@23@", "@@"),
        "@683466@7460687@23@K@@@.jpg",
    ):
        with pytest.raises(SourceError, match=rf"contradicts utm_zone \(--utm-zone\) {zone}"):
            where(name, zone)
    assert where(RIO.format("K"), "23S")[0] < 0


def test_a_name_of_another_format_has_only_its_metres() -> None:
    for name in ("@500000@4982950@note@1@2@3@4@5@.jpg", "@500000@4982950@.jpg", "@500000@4982950@32@I@@@.jpg"):
        assert reason_of(name) == NO_ZONE
        assert where(name, "32N") == pytest.approx((45, 9), abs=1e-3)


def test_degrees_of_zero_are_none() -> None:
    rio = RIO.replace("-22.95190@-043.21060", "00.00000@000.00000")
    assert where(rio.format("K"))[0] == pytest.approx(-22.9519, abs=1e-4)
    assert reason_of(rio.format("")) == NO_HEMISPHERE


def test_nordland_is_a_local_frame(tmp_path: Path) -> None:
    for part in ("database", "queries"):
        for i in range(12):
            north = f"{i * 25 / 10.5:07.1f}"
            save(tmp_path / "images" / "test" / part / f"@0@{north}@@@@@{i}@@@@@@@@.jpg")
    source = read_source(tmp_path)
    assert source.local and len(source.images) == 24 and not source.skipped  # the first at 0 m, 0 m, too
    assert "metres of a local frame" in source.description
    first, second, *_ = (image.place for image in source.images[:12])  # by name: 0, 1, 10, …
    assert distance_m(first.latitude_deg, first.longitude_deg, second.latitude_deg, second.longitude_deg) == (
        pytest.approx(2.4, abs=1e-4)
    )
    assert read_source(tmp_path, split="test/queries").local


def test_sped_stays_metric_a_thousand_kilometres_out(tmp_path: Path) -> None:
    for number in (0, 606, 607, 1231):
        save(tmp_path / f"@0@{number * 1000}@@@@@{number:04d}@@@@@@@@.jpg")
    places = sorted((image.place for image in read_source(tmp_path).images), key=lambda p: p.latitude_deg)
    metres = [distance_m(0, 0, place.latitude_deg, place.longitude_deg) for place in places]
    assert metres == pytest.approx([0, 606_000, 607_000, 1_231_000], abs=1e-3)


def test_local_names_do_not_go_with_a_zone_or_among_photographs(tmp_path: Path) -> None:
    save(tmp_path / "@0@12.5@@@@@1@@.jpg")
    with pytest.raises(SourceError, match=f"no usable image: 1 {NO_UTM}"):
        read_source(tmp_path, utm_zone="32N")
    save(tmp_path / "naples.jpg", NAPLES)
    source = read_source(tmp_path)
    assert [image.place.name for image in source.images] == ["naples.jpg"]
    assert [skip.reason for skip in source.skipped] == [LOCAL]


def test_one_stray_name_turns_no_photograph_away(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / f"{name}.jpg", NAPLES)
    save(tmp_path / "@home.jpg", NAPLES)
    save(tmp_path / "@500000@4982950@.jpg")
    save(tmp_path / "plain.jpg")
    source = read_source(tmp_path)
    assert [image.place.name for image in source.images] == ["@home.jpg", "a.jpg", "b.jpg", "c.jpg"]
    assert {skip.name: skip.reason for skip in source.skipped} == {
        "@500000@4982950@.jpg": NO_ZONE, "plain.jpg": NEITHER,
    }  # fmt: skip


def test_no_zone_is_ever_assumed(tmp_path: Path) -> None:
    save(tmp_path / "@500000@4982950@.jpg")
    with pytest.raises(SourceError, match="gives no UTM zone; give it once as utm_zone"):
        read_source(tmp_path)
    with pytest.raises(SourceError, match="UTM zone '99X'"):
        read_source(tmp_path, utm_zone="99X")
    save(tmp_path / "naples.jpg", NAPLES)
    save(tmp_path / "@500001@4982950@.jpg")
    with pytest.raises(SourceError, match="gives no UTM zone"):  # most would be lost
        read_source(tmp_path)
