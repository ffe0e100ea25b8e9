"""A video and its track: pictures where they were taken, by their time; times that do not fit are refused."""

from __future__ import annotations

import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from geowarp_ros.errors import SourceError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.readers import read_source
from geowarp_ros.readers.gpmf import gps_positions
from geowarp_ros.readers.positions import NULL_ISLAND
from geowarp_ros.types import Image

FRAME = LocalFrame(48.137, 11.575)
START = 1_795_451_400  # date -u -d "2026-11-23 16:30:00" +%s
SPEED_M_S = 10.0


def write_video(path: Path, pictures: int = 60, created: str | None = "2026-11-23T16:30:00Z") -> Path:
    """Ten pictures a second, each a shade lighter than the one before; keyframes are 12 apart."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 80, 64, "yuv420p", 12
        stream.bit_rate = 2_000_000
        if created:
            container.metadata["creation_time"] = created
        for number in range(pictures):
            shade = np.full((64, 80, 3), 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_track(path: Path, seconds: range = range(-2, 10), shift: int = 0, extra: str = "") -> Path:
    """Straight east with 10 m/s, a point each second; the video begins at 0 m."""
    points = []
    for second in seconds:
        latitude, longitude, _ = FRAME.to_geodetic([SPEED_M_S * second, 0.0, 0.0])
        stamp = np.datetime64(START + second + shift, "s")
        inside = f"<ele>{500 + second}</ele><time>{stamp}Z</time>"
        points.append(f'<trkpt lat="{latitude:.9f}" lon="{longitude:.9f}">{inside}</trkpt>')
    path.write_text(
        '<?xml version="1.0"?><gpx version="1.1" creator="x" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>'
        f"{''.join(points)}{extra}</trkseg></trk></gpx>"
    )
    return path


def shade(image: Image) -> float:
    return float(image.mean())


def test_pictures_are_where_the_track_was_at_their_time(tmp_path: Path) -> None:
    source = read_source(write_video(tmp_path / "drive.MP4"), track=write_track(tmp_path / "drive.gpx"))
    assert len(source.images) == 30 and not source.skipped  # 0 to 59 m, every 2 m
    for number, image in enumerate(source.images):
        east, north, _ = FRAME.to_enu(image.place.latitude_deg, image.place.longitude_deg, 0.0)
        assert (east, north) == pytest.approx((2 * number, 0), abs=1e-3)
        assert image.place.altitude_m == pytest.approx(500 + 0.2 * number)
        assert image.place.stamp_ns == START * 10**9 + number * 200_000_000
        assert image.place.name == f"drive/{200 * number:09d}"
        assert shade(image.read()) == pytest.approx(8 * number, abs=3)
    assert "2026-11-23 16:30:00 to 2026-11-23 16:30:06 UTC" in source.description


def test_pictures_come_in_any_order(tmp_path: Path) -> None:
    images = read_source(
        write_video(tmp_path / "a.mp4"), track=write_track(tmp_path / "a.gpx"), every="0.1s"
    ).images
    assert len(images) == 60
    for number in (59, 0, 30, 31, 12, 11, 58, 13, 12):
        assert shade(images[number].read()) == pytest.approx(4 * number, abs=3), number


@pytest.mark.parametrize(("every", "count"), [("5m", 12), ("1s", 6), ("0.5 s", 12), (".1s", 60), ("100m", 1)])
def test_distance_or_time_between_pictures(tmp_path: Path, every: str, count: int) -> None:
    video, track = write_video(tmp_path / "a.mp4"), write_track(tmp_path / "a.gpx")
    assert len(read_source(video, track=track, every=every).images) == count


@pytest.mark.parametrize("every", ["2", "0m", "-1s", "2km", "m", "nanm"])
def test_other_steps_are_refused(tmp_path: Path, every: str) -> None:
    with pytest.raises(SourceError, match=r"every \(--every\) = .*expected a distance or a time"):
        read_source(write_video(tmp_path / "a.mp4", 3), track=tmp_path / "a.gpx", every=every)


def test_a_clock_in_another_time_zone_is_refused_with_the_offset_that_fits(tmp_path: Path) -> None:
    video, track = write_video(tmp_path / "a.mp4"), write_track(tmp_path / "a.gpx", shift=-3600)
    said = r"none of its pictures, 2026-11-23 16:30:00 .*an offset of -3600 s would fit: track_offset_s"
    with pytest.raises(SourceError, match=said):
        read_source(video, track=track)
    place = read_source(video, track=track, track_offset_s=-3600).images[0].place
    assert (place.latitude_deg, place.longitude_deg) == pytest.approx((48.137, 11.575), abs=1e-7)
    for shift in (-5000, 900 * 10**6):  # no quarters of an hour, and a camera whose clock was never set
        with pytest.raises(SourceError) as caught:
            read_source(video, track=write_track(tmp_path / "b.gpx", shift=shift))
        assert "would fit" not in str(caught.value)


def test_pictures_off_the_track_and_points_at_null_island_are_left_out(tmp_path: Path) -> None:
    lost = '<trkpt lat="0" lon="0"><time>2026-11-23T16:30:03.5Z</time></trkpt><trkpt lat="48" lon="11"></trkpt>'
    track = write_track(tmp_path / "a.gpx", range(0, 4), extra=lost)
    source = read_source(write_video(tmp_path / "a.mp4"), track=track, every="0.1s")
    assert len(source.images) == 31  # 0 to 3 s, from when on the receiver had none
    assert [skipped.reason for skipped in source.skipped] == [
        "with 19 pictures farther than 1 s from a point of the track",
        "with 10 pictures beside points of the track without a position",
        f"with 1 points of the track {NULL_ISLAND}",
    ]
    assert min(image.place.latitude_deg for image in source.images) > 48.1369


def test_points_that_jump_away_place_no_picture(tmp_path: Path) -> None:
    astray = '<trkpt lat="48.2" lon="11.575"><time>2026-11-23T16:30:02.5Z</time></trkpt>'  # 7 km to the north
    source = read_source(write_video(tmp_path / "a.mp4"), track=write_track(tmp_path / "a.gpx", extra=astray))
    assert len(source.images) == 30
    assert [skipped.reason for skipped in source.skipped] == [
        "with 1 points of the track that jump away from the others"
    ]
    for number, image in enumerate(source.images):
        east, north, _ = FRAME.to_enu(image.place.latitude_deg, image.place.longitude_deg, 0.0)
        assert (east, north) == pytest.approx((2 * number, 0), abs=1e-3)


@pytest.mark.parametrize("doubt", ["<fix>none</fix>", "<hdop>99.9</hdop>"])
def test_points_that_the_receiver_doubts_place_no_picture(tmp_path: Path, doubt: str) -> None:
    video, track = write_video(tmp_path / "a.mp4"), write_track(tmp_path / "a.gpx")
    text = track.read_text()
    track.write_text(text.replace("</time>", "</time><fix>3d</fix><hdop>1.2</hdop>"))
    assert len(read_source(video, track=track).images) == 30
    moved = text.replace("16:30:03Z</time>", f"16:30:03Z</time>{doubt}").replace(
        'lat="48.1370000', 'lat="48.1370500', 1
    )
    track.write_text(moved)
    source = read_source(video, track=track)
    assert [skip.reason for skip in source.skipped] == ["with 1 points of the track without a position"]
    assert len(source.images) == 30  # a gap of two seconds is bridged
    track.write_text(text.replace("</time>", f"</time>{doubt}"))
    with pytest.raises(SourceError, match=r"has no point with a time and a position.*; 12 without a position"):
        read_source(video, track=track)


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "UTF-16", "utf-8"])
def test_a_track_tells_its_encoding(tmp_path: Path, encoding: str) -> None:
    video, track = write_video(tmp_path / "a.mp4"), write_track(tmp_path / "a.gpx")
    declared = f'<?xml version="1.0" encoding="{encoding}"?>'
    text = (
        track.read_text().replace('<?xml version="1.0"?>', declared).replace("<trk>", "<trk><name>Straße</name>")
    )
    track.write_bytes(text.encode(encoding))
    assert len(read_source(video, track=track).images) == 30


@pytest.mark.parametrize("module", ["av", "gpxpy"])
def test_what_is_not_installed_is_named(tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    video, track = write_video(tmp_path / "a.mp4", 3), write_track(tmp_path / "a.gpx")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SourceError, match=r"pip install 'geowarp_ros\[video\]'"):
        read_source(video, track=track)


def test_what_is_no_video_and_no_track_is_said(tmp_path: Path) -> None:
    video, track = write_video(tmp_path / "a.mp4", 3), write_track(tmp_path / "a.gpx")
    with pytest.raises(SourceError, match=r"has no positions of its own: give the GPX track .*\(--track\)"):
        read_source(video)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    with pytest.raises(SourceError, match=r"b\.mp4: cannot be read as a video"):
        read_source(tmp_path / "b.mp4", track=track)
    (tmp_path / "b.gpx").write_text("no track")
    with pytest.raises(SourceError, match=r"b\.gpx: is no GPX"):
        read_source(video, track=tmp_path / "b.gpx")
    with pytest.raises(SourceError, match=r"c\.gpx: cannot be read"):
        read_source(video, track=tmp_path / "c.gpx")
    with pytest.raises(SourceError, match="has no point with a time"):
        read_source(video, track=write_track(tmp_path / "d.gpx", range(0)))
    with pytest.raises(
        SourceError, match=r"has no creation_time; give it one: ffmpeg -i \S+e\.mp4 -c copy -metadata"
    ):
        read_source(write_video(tmp_path / "e.mp4", 3, created=None), track=track)
    (tmp_path / "positions.csv").write_text("filename,latitude,longitude\na.png,1,2\n")
    with pytest.raises(SourceError, match=r"track \(--track\) is for a video"):
        read_source(tmp_path, track=track)
    with pytest.raises(SourceError, match=r"fix_offset_s \(--fix-offset\) is for a bag"):
        read_source(video, track=track, fix_offset_s=0.0)


def entry(key: bytes, kind: bytes, size: int, data: bytes) -> bytes:
    count = len(data) // size if size else 0
    return key + kind + bytes([size]) + struct.pack(">H", count) + data + bytes(-len(data) % 4)


def nested(key: bytes, *inside: bytes) -> bytes:
    data = b"".join(inside)
    return key + b"\0\1" + struct.pack(">H", len(data)) + data


def payload(second: int, kind: bytes = b"GPS5", fix: int = 3, dop: float = 1.5, zero: bool = False) -> bytes:
    """Ten samples, from 10 m east for each second; scales as a HERO's."""
    rows = []
    for number in range(10):
        latitude, longitude, _ = FRAME.to_geodetic([SPEED_M_S * (second + number / 10), 0.0, 0.0])
        where = [0, 0] if zero else [round(float(latitude) * 1e7), round(float(longitude) * 1e7)]
        rows.append(struct.pack(">5i", *where, 500_000, 10_000, 1000))
        if kind == b"GPS9":
            rows[-1] += struct.pack(">2i2H", 9000, 1000, round(dop * 100), fix)
    name = entry(b"STNM", b"c", 1, b"GPS (Lat., Long., Alt., 2D speed, 3D speed)")
    scales = (10**7, 10**7, 1000, 1000, 100, *((1, 1000, 100, 1) if kind == b"GPS9" else ()))
    scale = entry(b"SCAL", b"l", 4, struct.pack(f">{len(scales)}i", *scales))
    state = entry(b"GPSF", b"L", 4, struct.pack(">I", fix)) + entry(
        b"GPSP", b"S", 2, struct.pack(">H", int(dop * 100))
    )
    values = entry(kind, b"l" if kind == b"GPS5" else b"?", len(rows[0]), b"".join(rows))
    other = nested(b"STRM", entry(b"SCAL", b"s", 2, b"\0\1"), entry(b"ACCL", b"s", 6, bytes(60)))
    return nested(b"DEVC", other, nested(b"STRM", name, *(() if kind == b"GPS9" else (state,)), scale, values))


def write_gopro(path: Path, *payloads: bytes) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        measured = container.add_data_stream("bin_data")
        for number in range(10 * len(payloads)):
            grey = np.full((64, 80, 3), 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
        for second, data in enumerate(payloads):
            packet = av.Packet(data)
            packet.stream, packet.time_base = measured, Fraction(1, 1000)
            packet.pts = packet.dts = 1000 * second
            packet.duration = 1000
            container.mux(packet)
    return path


@pytest.mark.parametrize("kind", [b"GPS5", b"GPS9"])
def test_a_gopro_has_its_own_track(tmp_path: Path, kind: bytes) -> None:
    source = read_source(
        write_gopro(tmp_path / "g.mp4", *(payload(second, kind) for second in range(3))), every="4.5m"
    )
    east = [FRAME.to_enu(i.place.latitude_deg, i.place.longitude_deg, 0.0)[0] for i in source.images]
    assert east == pytest.approx([0, 5, 10, 15, 20, 25], abs=0.02)  # 1e-7° are a centimetre
    assert {image.place.altitude_m for image in source.images} == {500}
    assert [shade(image.read()) for image in source.images] == pytest.approx([0, 20, 40, 60, 80, 100], abs=3)
    assert source.images[0].place.stamp_ns == 0  # it does not tell when


@pytest.mark.parametrize("bad", [{"fix": 0}, {"dop": 99.99}, {"zero": True}])
@pytest.mark.parametrize("kind", [b"GPS5", b"GPS9"])
def test_a_gopro_without_a_fix_has_no_position(tmp_path: Path, kind: bytes, bad: dict[str, Any]) -> None:
    lost = payload(0, kind, **bad)
    source = read_source(
        write_gopro(tmp_path / "a.mp4", lost, lost, payload(2, kind)), every="0.1s", max_gap_s=0.5
    )
    assert [shade(source.images[0].read()), len(source.images)] == pytest.approx([80, 10], abs=3)
    assert sum("points of the track" in skipped.reason for skipped in source.skipped) == 2
    with pytest.raises(SourceError, match="has no positions of its own"):
        read_source(write_gopro(tmp_path / "b.mp4", lost))


def test_damaged_measurements_are_no_positions() -> None:
    whole = payload(0)
    assert len(gps_positions(whole)) == 10
    for size in range(len(whole)):
        assert len(gps_positions(whole[:size])) == 0
    generator = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for place in generator.integers(0, len(whole), 4):
            data[place] = generator.integers(0, 256)
        assert gps_positions(bytes(data)).shape[1] == 3
