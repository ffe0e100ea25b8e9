"""CSVs of positions: what is read, and each way in which one can be wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from geowarp_ros.errors import ImageError, SourceError
from geowarp_ros.readers import read_source

HEADER = "filename,latitude,longitude\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    (tmp_path / "images").mkdir()
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), np.full((20, 30, 3), ord(name), np.uint8))

    def write(text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "positions.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_every_column(write: Callable[..., Path]) -> None:
    path = write(
        "longitude, video,split,filename,latitude,altitude,heading\n"
        "9.5,x,gallery,images/a.png,45.25,123.5,270\n"
        "-9.5,y,query,images/b.png,-45.25,,\n"
    )
    for source in (read_source(path), read_source(path.parent)):
        a, b = (image.place for image in source.images)
        assert (a.name, a.latitude_deg, a.longitude_deg, a.altitude_m, a.heading_deg) == (
            "images/a.png", 45.25, 9.5, 123.5, 270,
        )  # fmt: skip
        assert (b.latitude_deg, b.longitude_deg) == (-45.25, -9.5)
        assert math.isnan(b.altitude_m) and math.isnan(b.heading_deg)
        assert source.splits == {"gallery": 1, "query": 1}
        assert (source.images[0].read() == ord("a")).all()
        assert source.images[0].path == path.parent / "images/a.png"


def test_splits(write: Callable[..., Path]) -> None:
    path = write(
        "filename,latitude,longitude,split\nimages/a.png,1,2,gallery\nimages/b.png,1,2,query\nimages/c.png,1,2,\n"
    )
    for split, name in {"gallery": "a", "database": "a", "query": "b", "queries": "b"}.items():
        assert [i.place.name for i in read_source(path, split=split).images] == [f"images/{name}.png"]
    with pytest.raises(
        SourceError,
        match=r"no image of split 'galery' \(did you mean 'gallery'\?\); it has gallery \(1 images\), query \(1",
    ):
        read_source(path, split="galery")
    with pytest.raises(SourceError, match="it has no split"):
        read_source(write(HEADER + "images/a.png,1,2\n"), split="gallery")


def test_byte_order_mark_quotes_and_empty_lines(write: Callable[..., Path]) -> None:
    source = read_source(write('\ufefffilename,latitude,longitude\r\n"images/a.png", 1 ,2\r\n\r\n'))
    assert source.images[0].place.latitude_deg == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "header",
    [
        "filename,latitude,longitude,altitude", "Image,LAT,Lon,alt", "name,lat,lng,alt",
        '"file","lat","long","alt"', "path,latitude_deg,longitude_deg,altitude_m",
    ],
)  # fmt: skip
def test_every_table_with_one_meaning_is_read(
    write: Callable[..., Path], header: str, separator: str, mark: str, end: str
) -> None:
    lines = [header, "images/a.png,48.137,11.575,520.5", "images/b.png,-48.5,-11,", ""]
    text = mark + end.join(line.replace(",", separator) for line in lines)
    texts = [text, text.replace(".", ",").replace(",png", ".png")] if separator != "," else [text]
    for written in texts:  # with decimal points and with decimal commas
        a, b = (image.place for image in read_source(write(written)).images)
        assert (a.name, a.latitude_deg, a.longitude_deg, a.altitude_m) == ("images/a.png", 48.137, 11.575, 520.5)
        assert (b.latitude_deg, b.longitude_deg) == (-48.5, -11) and math.isnan(b.altitude_m)


@pytest.mark.parametrize(("ns", "ew"), [("latitude_ref", "longitude_ref"), ("LatRef", "LonRef"), ("N/S", "E/W")])
def test_a_column_may_tell_the_hemisphere(write: Callable[..., Path], ns: str, ew: str) -> None:
    header = f"filename,lat,{ns},lon,{ew}\n"
    source = read_source(write(f"{header}images/a.png,33.85,S,151.2,East\nimages/b.png,-33.5,s,70.5,W\n"))
    assert [(i.place.latitude_deg, i.place.longitude_deg) for i in source.images] == [
        (-33.85, 151.2),
        (-33.5, -70.5),
    ]
    assert read_source(write(f"{header}images/a.png,33.5,,1.5,\n")).images[0].place.latitude_deg == 33.5
    for row in ("-33.85,N,151.2,E", "33.85,S,151.2,O"):
        with pytest.raises(SourceError, match=r"row 2: .*_ref = '[NO]' do not tell the hemisphere"):
            read_source(write(f"{header}images/a.png,{row}\n"))


@pytest.mark.parametrize("rows", [("33.85,S,151.2,E", "33.86,,151.3,E"), ("33.86,S,151.3,", "33.85,S,151.2,E")])
def test_a_row_that_lacks_the_hemisphere_is_not_taken_for_the_north_or_east(
    write: Callable[..., Path], rows: tuple[str, str]
) -> None:
    header, (a, b) = "filename,lat,lat_ref,lon,lon_ref\n", rows
    with pytest.raises(SourceError, match=r"row [23]: l.*_ref is empty, expected it in every row or in none"):
        read_source(write(f"{header}images/a.png,{a}\nimages/b.png,{b}\n"))
    signed = f"{header}images/a.png,33.85,S,151.2,E\nimages/b.png,-33.86,,-151.3,\n"  # the sign tells
    assert [i.place.latitude_deg for i in read_source(write(signed)).images] == [-33.85, -33.86]


def test_a_column_may_tell_the_datum(write: Callable[..., Path]) -> None:
    for datum in ("WGS84", "EPSG:4326", "4326", ""):
        assert read_source(write(f"filename,lat,lon,crs\nimages/a.png,1,2,{datum}\n")).images
    with pytest.raises(SourceError, match="row 2: datum = 'EPSG:31468', expected WGS-84"):
        read_source(write("filename,lat,lon,crs\nimages/a.png,1,2,EPSG:31468\n"))


@pytest.mark.parametrize("above", ["sep=;\n", "SEP=;\r\n", "\n \n", "\ufeffsep=;\n"])
def test_lines_above_the_header_that_say_nothing(write: Callable[..., Path], above: str) -> None:
    text = f'{above}filename; "latitude"; "longitude"\nimages/a.png; "48,5"; "11"\n'
    assert read_source(write(text)).images[0].place.latitude_deg == 48.5
    with pytest.raises(SourceError, match=rf"row {above.count(chr(10)) + 2}: latitude = 'x'"):
        read_source(write(text.replace("48,5", "x")))


def test_a_column_has_its_own_name_first(write: Callable[..., Path]) -> None:
    source = read_source(write("name,filename,latitude,longitude\nStreet,images/a.png,1,2\n"))
    assert source.images[0].place.name == "images/a.png"


def test_decimal_commas_among_commas_are_refused_with_a_hint(write: Callable[..., Path]) -> None:
    said = "row 2: has 5 values, expected 3; decimal commas need values separated by ';'"
    with pytest.raises(SourceError, match=said):
        read_source(write(HEADER + "images/a.png,48,5,11,25\n"))
    quoted = read_source(write(HEADER + 'images/a.png,"48,5","11,25"\n')).images[0].place
    assert (quoted.latitude_deg, quoted.longitude_deg) == (48.5, 11.25)
    empty = read_source(write(HEADER + "images/a.png,48,5,,\n")).images[0].place  # as spreadsheets export
    assert (empty.latitude_deg, empty.longitude_deg) == (48, 5)


@pytest.mark.parametrize(
    "spelling",
    [
        *("./images/a.png", "images//a.png", "images/../images/a.png", "images\\a.png", "{folder}/images/a.png"),
        *("linked.png", "link/a.png"),
    ],
)
def test_a_file_in_two_spellings_is_refused(write: Callable[..., Path], tmp_path: Path, spelling: str) -> None:
    (tmp_path / "linked.png").symlink_to("images/a.png")
    (tmp_path / "link").symlink_to("images")
    rows = f"images/a.png,1,2\n{spelling.format(folder=tmp_path)},3,4\n"
    with pytest.raises(
        SourceError, match=r"row 3: filename .* stands in row 2 already, as 'images/a\.png'|already, expected"
    ):
        read_source(write(HEADER + rows))


def test_a_file_in_two_normal_forms_of_unicode_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(SourceError, match="stands in row 2 already"):
        read_source(write(HEADER + "stra\u00dfe\u00e9.png,1,2\nstra\u00dfee\u0301.png,1,2\n"))


def test_backslashes_of_windows_are_read(write: Callable[..., Path]) -> None:
    assert read_source(write(HEADER + "images\\a.png,1,2\n")).images[0].place.name == "images/a.png"


def test_an_absent_image_costs_only_itself(write: Callable[..., Path]) -> None:
    source = read_source(write(HEADER + "images/a.png,1,2\nimages/gone.png,1,2\n"))
    assert [image.place.name for image in source.images] == ["images/a.png"]
    assert [(skip.name, skip.reason) for skip in source.skipped] == [("images/gone.png", "absent")]
    with pytest.raises(SourceError, match="no usable image: 1 absent"):
        read_source(write(HEADER + "images/gone.png,1,2\n"))


def test_an_unreadable_image_is_named_when_it_is_read(write: Callable[..., Path]) -> None:
    path = write(HEADER + "images/bad.png,1,2\n")
    (path.parent / "images/bad.png").write_bytes(b"no png")
    with pytest.raises(ImageError, match=r"bad\.png"):
        read_source(path).images[0].read()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"no column 'filename'; the header is empty, expected filename, latitude, longitude"),
        ("filename,lattitude,longitude\n", r"no column 'latitude' \(did you mean 'lattitude'\?\)"),
        ("filename,latitude,longitude,latitude\n", "column 'latitude' stands there 2 times"),
        (HEADER, "has a header and no rows"),
        (
            HEADER + "images/a.png,1,2\nimages/b.png,91,2\n",
            r"row 3: latitude = '91', expected a number from -90 to 90",
        ),
        (HEADER + "images/a.png,1,180.5\n", r"row 2: longitude = '180\.5', expected a number from -180 to 180"),
        (HEADER + "images/a.png,nan,2\n", "row 2: latitude = 'nan'"),
        (HEADER + "images/a.png,,2\n", "row 2: latitude = ''"),
        (HEADER + "images/a.png,45°N,2\n", "row 2: latitude = '45°N'"),
        (HEADER + "images/a.png,inf,2\n", "row 2: latitude = 'inf'"),
        (HEADER + "images/a.png,1\n", "row 2: has 2 values, expected 3"),
        (HEADER + ",1,2\n", "row 2: filename is empty"),
        (HEADER + "a\0.png,1,2\n", r"row 2: filename is 'a\\x00\.png'"),
        (HEADER + "images/a.png,1,2,3\n", "row 2: has 4 values, expected 3"),
        (HEADER + "images/a.png,4_8,2\n", "row 2: latitude = '4_8'"),
        (HEADER + 'images/a.png,"1.048,5",2\n', r"row 2: latitude = '1\.048,5'"),
        (
            HEADER.replace(",", ";") + "images/a.png;48,1;11.5\n",
            "row 2: the file has decimal commas and decimal points, expected one of them",
        ),
        (
            "filename\tlat\tlon\talt\nimages/a.png\t48.1\t11.5\t1,234\n",
            "row 2: the file has decimal commas and decimal points",
        ),
        ("filename,lat,Lat,longitude\n", "column 'latitude' stands there 2 times"),
        ("filename,latitude,lat,longitude\n", "column 'latitude' stands there 2 times"),
        (
            HEADER + "images/a.png,1,2\nimages/a.png,1,2\n",
            r"row 3: filename 'images/a\.png' stands in row 2 already",
        ),
        (
            "filename,latitude,longitude,heading\nimages/a.png,1,2,361\n",
            "heading = '361', expected a number from 0 to 360",
        ),
        ("filename,latitude,longitude,altitude\nimages/a.png,1,2,high\n", "altitude = 'high'"),
        (HEADER + 'images/a.png,1,"2\n', "is no CSV in UTF-8"),
    ],
)
def test_what_is_wrong_is_named_by_file_row_and_value(write: Callable[..., Path], text: str, said: str) -> None:
    path = write(text)
    with pytest.raises(SourceError, match=said) as raised:
        read_source(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_other_encodings(write: Callable[..., Path]) -> None:
    for encoding in ("utf-16", "utf-8-sig"):  # marked
        assert read_source(write(HEADER.replace(",", "\t") + "images/a.png\t1,5\t2\n", encoding)).images
    for encoding in ("utf-16-le", "latin-1"):
        with pytest.raises(SourceError, match=r"is no CSV in UTF-8|no column 'filename'"):
            read_source(write(HEADER + "straße.png,1,2\n", encoding))
