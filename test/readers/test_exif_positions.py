"""EXIF GPS in every spelling: the same position back, or a reason; the tags are written byte by byte."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags

from geowarp_ros.readers.exif_positions import exif_place
from geowarp_ros.readers.source import Skipped
from geowarp_ros.types import Place

GPS = ExifTags.GPS
BYTE, ASCII, SHORT, RATIONAL, UNDEFINED, SRATIONAL = 1, 2, 3, 5, 7, 10
PIXELS = (  # an 18×16 grey PNG's chunks would do; a JPEG needs only a header here: nothing is decoded
    b"\xff\xc0\x00\x0b\x08\x00\x10\x00\x12\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00\xff\xd9"
)


class Tag(NamedTuple):
    """A value as it stands in the file."""

    kind: int
    number: int
    data: bytes


def text(value: str, kind: int = ASCII, ending: bytes = b"\0") -> Tag:
    data = value.encode() + ending
    return Tag(kind, len(data), data)


def rationals(*values: float | Fraction, order: str = "<", kind: int = RATIONAL) -> Tag:
    fractions = [Fraction(value).limit_denominator(10_000_000) for value in values]
    layout = "ii" if kind == SRATIONAL else "II"
    data = b"".join(struct.pack(order + layout, each.numerator, each.denominator) for each in fractions)
    return Tag(kind, len(values), data)


def write(path: Path, tags: dict[int, Tag], order: str = "<") -> Path:
    """Write a JPEG whose APP1 holds a TIFF with an empty first directory and these GPS tags (TIFF 6.0, sec. 2)."""
    first, gps = 8, 8 + 2 + 12 + 4
    heap, entries = gps + 2 + 12 * len(tags) + 4, b""
    rest = b""
    for number, tag in sorted(tags.items()):
        value = tag.data.ljust(4, b"\0")
        if len(tag.data) > 4:
            value = struct.pack(order + "I", heap + len(rest))
            rest += tag.data + b"\0" * (len(tag.data) % 2)
        entries += struct.pack(order + "HHI", number, tag.kind, tag.number) + value
    tiff = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, first)
    tiff += struct.pack(order + "HHHIII", 1, ExifTags.IFD.GPSInfo, 4, 1, gps, 0)
    tiff += struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", 0) + rest
    exif = b"Exif\0\0" + tiff
    path.write_bytes(b"\xff\xd8\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + PIXELS)
    return path


def place_of(folder: Path, tags: dict[int, Tag], order: str = "<") -> Place:
    place = exif_place("a.jpg", write(folder / "a.jpg", tags, order))
    assert isinstance(place, Place), place
    return place


def reason_of(folder: Path, tags: dict[int, Tag]) -> str:
    skipped = exif_place("a.jpg", write(folder / "a.jpg", tags))
    assert isinstance(skipped, Skipped), skipped
    return skipped.reason


def sydney(**changed: Tag | None) -> dict[int, Tag]:
    """33.85° S, 151.2° E, with some tags replaced or left out."""
    tags: dict[str, Tag | None] = {
        "GPSLatitudeRef": text("S"), "GPSLatitude": rationals(33, 51, 0),
        "GPSLongitudeRef": text("E"), "GPSLongitude": rationals(151, 12, 0),
    }  # fmt: skip
    return {getattr(GPS, name): tag for name, tag in (tags | changed).items() if tag is not None}


def spellings(word: str) -> list[Tag]:
    """A reference in every spelling that has one meaning."""
    written = [
        word[0],
        word[0].lower(),
        word,
        word.lower(),
        word.upper(),
        f"{word[0]} ",
        f" {word[0]}",
        f"{word} ",
    ]
    endings = (b"\0", b"", b"\0\0", b" \0", b"\0junk")
    return [text(each, kind, end) for each in written for kind in (ASCII, BYTE, UNDEFINED) for end in endings]


@st.composite
def angles(draw: st.DrawFn, limit: int, order: str) -> tuple[float, Tag, bool]:
    """An angle, how it is written, and whether its sign is written with it."""
    degrees = draw(st.integers(0, limit - 1))
    style = draw(st.sampled_from(["seconds", "minutes", "degrees", "two", "one"]))
    fraction = Fraction(draw(st.integers(0, 9999)), 10_000)
    minutes, seconds = draw(st.integers(0, 59)), draw(st.integers(0, 59)) + fraction
    parts: list[Fraction] = {
        "seconds": [Fraction(degrees), Fraction(minutes), seconds],
        "minutes": [Fraction(degrees), minutes + fraction, Fraction(0)],
        "degrees": [degrees + fraction, Fraction(0), Fraction(0)],
        "two": [Fraction(degrees), minutes + fraction],
        "one": [degrees + fraction],
    }[style]
    angle = float(sum(part / 60**power for power, part in enumerate(parts)))
    signed = draw(st.booleans()) and angle > 0
    if signed:
        every = draw(st.booleans())
        first = next(row for row, part in enumerate(parts) if part)
        parts = [-part if every or row == first else part for row, part in enumerate(parts)]
        angle = -angle
    return angle, rationals(*parts, order=order, kind=SRATIONAL if signed else RATIONAL), signed


@st.composite
def positions(draw: st.DrawFn) -> tuple[float, float, dict[int, Tag], str]:
    order = draw(st.sampled_from("<>"))
    signed_position: list[float] = []
    tags: dict[int, Tag] = {}
    axes = (
        (90, GPS.GPSLatitude, GPS.GPSLatitudeRef, "North", "South"),
        (180, GPS.GPSLongitude, GPS.GPSLongitudeRef, "East", "West"),
    )
    for limit, number, reference, plus, minus in axes:
        angle, tags[number], signed = draw(angles(limit, order))
        word = minus if signed or draw(st.booleans()) else plus
        if not (signed and draw(st.booleans())):  # a sign tells by itself
            tags[reference] = draw(st.sampled_from(spellings(word)))
        signed_position.append(-abs(angle) if word == minus else angle)
    return signed_position[0], signed_position[1], tags, order


@given(written=positions())
@settings(deadline=None, max_examples=300)
def test_every_legal_spelling_reads_as_the_same_position(
    tmp_path_factory: pytest.TempPathFactory, written: tuple[float, float, dict[int, Tag], str]
) -> None:
    latitude, longitude, tags, order = written
    place = place_of(tmp_path_factory.getbasetemp(), tags, order)
    assert place.latitude_deg == pytest.approx(latitude, abs=1e-9)
    assert place.longitude_deg == pytest.approx(longitude, abs=1e-9)


@pytest.mark.parametrize(
    "reference", [None, text(""), text("", ending=b""), text(" "), text("E"), text("-"), text("?")]
)
def test_an_unknown_hemisphere_is_never_guessed(tmp_path: Path, reference: Tag | None) -> None:
    assert "does not tell north from south" in reason_of(tmp_path, sydney(GPSLatitudeRef=reference))
    if reference != text("E"):
        assert "does not tell east from west" in reason_of(tmp_path, sydney(GPSLongitudeRef=reference))
    equator = place_of(tmp_path, sydney(GPSLatitudeRef=reference, GPSLatitude=rationals(0, 0, 0)))
    assert equator.latitude_deg == 0  # which is on both


def test_ost_and_oeste_are_not_told_apart(tmp_path: Path) -> None:
    assert "east from west" in reason_of(tmp_path, sydney(GPSLongitudeRef=text("O")))


def test_a_sign_is_taken_once_and_contradictions_are_left_out(tmp_path: Path) -> None:
    minus = rationals(-33.85, 0, 0, kind=SRATIONAL)
    place = place_of(tmp_path, sydney(GPSLatitude=minus))
    assert place.latitude_deg == pytest.approx(-33.85, abs=1e-9) and place.stamp_ns == 0
    assert place_of(tmp_path, sydney(GPSLatitude=minus, GPSLatitudeRef=None)).latitude_deg < -33
    assert "north from south" in reason_of(tmp_path, sydney(GPSLatitude=minus, GPSLatitudeRef=text("N")))
    assert "north from south" in reason_of(tmp_path, sydney(GPSLatitude=minus, GPSLatitudeRef=text("x")))


@pytest.mark.parametrize(
    "parts",
    [
        (91, 0, 0), (33, 61, 0), (33, 0, 61), (33.85, 51, 0), (33, 51.5, 30), (33, -51, 0), (-33, 51, -1),
        (33, 51, 0, 0),
    ],
)  # fmt: skip
def test_what_is_no_angle_is_no_position(tmp_path: Path, parts: tuple[float, ...]) -> None:
    tag = rationals(*parts, kind=SRATIONAL)
    assert reason_of(tmp_path, sydney(GPSLatitude=tag)) == "without a GPS position in its EXIF"


def test_a_division_by_zero_is_no_position(tmp_path: Path) -> None:
    tag = Tag(RATIONAL, 3, struct.pack("<6I", 33, 1, 51, 0, 0, 0))
    assert reason_of(tmp_path, sydney(GPSLatitude=tag)) == "without a GPS position in its EXIF"


def byte(value: int, kind: int = BYTE) -> Tag:
    return Tag(kind, 1, bytes([value]))


@pytest.mark.parametrize(
    ("reference", "value", "altitude_m"),
    [
        (None, 12.5, 12.5), (byte(0), 12.5, 12.5), (byte(2), 12.5, 12.5), (byte(1), 12.5, -12.5),
        (byte(3), 12.5, -12.5), (byte(1, UNDEFINED), 12.5, -12.5), (text("1"), 12.5, -12.5),
        (text("0"), 12.5, 12.5), (text(""), 12.5, 12.5), (Tag(SHORT, 1, b"\3\0"), 12.5, -12.5),
        (byte(1), -12.5, -12.5), (byte(3), -12.5, -12.5), (byte(1), 0, 0),
        (byte(0), -12.5, math.nan), (byte(4), 12.5, math.nan), (byte(255), 12.5, math.nan),
        (text("below"), 12.5, math.nan), (byte(0), (2**32 - 12_500) / 1000, math.nan), (byte(1), 12_001, math.nan),
    ],
)  # fmt: skip
def test_altitudes_have_the_sign_of_their_reference(
    tmp_path: Path, reference: Tag | None, value: float, altitude_m: float
) -> None:
    tag = rationals(value, kind=SRATIONAL if value < 0 else RATIONAL)
    found = place_of(tmp_path, sydney(GPSAltitude=tag, GPSAltitudeRef=reference)).altitude_m
    assert found == pytest.approx(altitude_m, nan_ok=True)


@pytest.mark.parametrize(
    ("reference", "heading"),
    [(None, 45.5), (text("T"), 45.5), (text("t", UNDEFINED), 45.5), (text("M"), math.nan), (text("m "), math.nan),
     (text("M", BYTE, b""), math.nan), (text("Magnetic"), math.nan), (text("X"), math.nan)],
)  # fmt: skip
def test_only_directions_from_true_north_are_headings(
    tmp_path: Path, reference: Tag | None, heading: float
) -> None:
    found = place_of(tmp_path, sydney(GPSImgDirection=rationals(45.5), GPSImgDirectionRef=reference)).heading_deg
    assert found == pytest.approx(heading, nan_ok=True)


@pytest.mark.parametrize(
    "datum", ["WGS-84", "WGS84", "wgs 84", "WGS_84 ", "WGS-84 (G1762)", "ETRS89", "ITRF2014", "SIRGAS 2000", ""]
)
def test_the_datum_of_gps_is_read(tmp_path: Path, datum: str) -> None:
    for kind in (ASCII, UNDEFINED):
        assert place_of(tmp_path, sydney(GPSMapDatum=text(datum, kind))).latitude_deg == pytest.approx(-33.85)


@pytest.mark.parametrize("datum", ["TOKYO", "NAD27", "OSGB36", "GCJ-02", "WGS-72", "unknown"])
def test_another_datum_is_left_out(tmp_path: Path, datum: str) -> None:
    said = f"with a GPS position in the datum {datum.upper()}, not in WGS-84"
    assert reason_of(tmp_path, sydney(GPSMapDatum=text(datum))) == said


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"GPSStatus": text("V")}, "no fix"),
        ({"GPSStatus": text("v", UNDEFINED, b"")}, "no fix"),
        ({"GPSHPositioningError": rationals(3000)}, "may be off by more than 100 m"),
        ({"GPSHPositioningError": rationals(100.5), "GPSDOP": rationals(1)}, "may be off by more than 100 m"),
        ({"GPSDOP": rationals(99.99)}, "may be off by more than 100 m"),
        ({"GPSStatus": text("Void")}, "no fix"),
        ({"GPSProcessingMethod": text("ASCII\0\0\0CELLID", UNDEFINED)}, "radio cell"),
        ({"GPSProcessingMethod": text("CellId", UNDEFINED)}, "radio cell"),
        ({"GPSProcessingMethod": text("UNICODE\0C\0E\0L\0L\0I\0D\0", UNDEFINED)}, "radio cell"),
        ({"GPSProcessingMethod": text("UNICODE\0\0C\0E\0L\0L\0I\0D", UNDEFINED, b"")}, "radio cell"),
    ],
)
def test_a_position_that_its_exif_doubts_is_left_out(tmp_path: Path, tags: dict[str, Tag], said: str) -> None:
    assert said in reason_of(tmp_path, sydney(**tags))


@pytest.mark.parametrize(
    "tags",
    [
        {"GPSStatus": text("A")},
        {"GPSHPositioningError": rationals(65)},
        {"GPSHPositioningError": rationals(5), "GPSDOP": rationals(99)},
        {"GPSHPositioningError": rationals(0), "GPSDOP": rationals(1.2)},
        {"GPSProcessingMethod": text("ASCII\0\0\0GPS", UNDEFINED)},
    ],
)
def test_a_position_that_its_exif_trusts_is_read(tmp_path: Path, tags: dict[str, Any]) -> None:
    assert place_of(tmp_path, sydney(**tags)).longitude_deg == pytest.approx(151.2)
