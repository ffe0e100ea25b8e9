"""A video and its track: pictures where they were taken, by their time; times that do not fit are refused."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest

from geowarp_ros.errors import SourceError
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.readers import read_source
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
    other = write_track(tmp_path / "b.gpx", shift=-5000)
    with pytest.raises(SourceError) as caught:
        read_source(video, track=other)
    assert "would fit" not in str(caught.value)


def test_pictures_off_the_track_and_points_at_null_island_are_left_out(tmp_path: Path) -> None:
    lost = '<trkpt lat="0" lon="0"><time>2026-11-23T16:30:03.5Z</time></trkpt><trkpt lat="48" lon="11"></trkpt>'
    track = write_track(tmp_path / "a.gpx", range(0, 4), extra=lost)
    source = read_source(write_video(tmp_path / "a.mp4"), track=track, every="0.1s")
    assert len(source.images) == 41  # 0 to 4 s: a second beyond the last point
    assert source.skipped[0].reason == "with 19 pictures farther than 1 s from a point of the track"
    assert min(image.place.latitude_deg for image in source.images) > 48.1369


@pytest.mark.parametrize("module", ["av", "gpxpy"])
def test_what_is_not_installed_is_named(tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    video, track = write_video(tmp_path / "a.mp4", 3), write_track(tmp_path / "a.gpx")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SourceError, match=r"pip install 'geowarp_ros\[video\]'"):
        read_source(video, track=track)


def test_what_is_no_video_and_no_track_is_said(tmp_path: Path) -> None:
    video, track = write_video(tmp_path / "a.mp4", 3), write_track(tmp_path / "a.gpx")
    with pytest.raises(SourceError, match=r"needs the track that was recorded beside it: track \(--track\)"):
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
    with pytest.raises(SourceError, match="does not tell when it was recorded"):
        read_source(write_video(tmp_path / "e.mp4", 3, created=None), track=track)
