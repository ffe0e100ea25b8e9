"""Bags: interpolation by hand, lazy reading, what is left out, and what is broken."""

from __future__ import annotations

import math
import shutil
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pytest

from geowarp_ros.cameras import Camera
from geowarp_ros.errors import CameraError, ImageError, SourceError
from geowarp_ros.readers import Source, read_source
from geowarp_ros.readers.bag_files import BagReader
from geowarp_ros.readers.camera_files import write_camera
from test.gallery.bags import (
    LATITUDE,
    LONGITUDE,
    ROS1,
    START_NS,
    Message,
    compressed,
    drive,
    fix,
    image,
    info,
    picture,
    write_bag,
    write_bag1,
)


def shades(source: Source) -> list[int]:
    return [int(item.read()[0, 0, 0]) for item in source.images]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_positions_are_interpolated_to_header_stamps(tmp_path: Path, storage: Literal["mcap", "sqlite3"]) -> None:
    source = read_source(write_bag(tmp_path / "drive", drive(), storage))
    assert [item.place.name for item in source.images][:2] == [
        f"drive/camera/{START_NS}",
        f"drive/camera/{START_NS + 500_000_000}",
    ]
    for i, item in enumerate(source.images):
        place = item.place
        assert place.latitude_deg == pytest.approx(LATITUDE + i * 0.5e-3, abs=1e-8)
        assert place.longitude_deg == pytest.approx(LONGITUDE, abs=1e-9)
        assert place.altitude_m == pytest.approx(50)
        assert place.stamp_ns == START_NS + i * 500_000_000
        assert math.isnan(place.heading_deg)
    assert (item.read() == picture(70)).all()
    assert shades(source) == [0, 10, 20, 30, 40, 50, 60, 70]
    assert not source.skipped


def test_images_in_any_order_and_from_several_threads(tmp_path: Path) -> None:
    images = read_source(write_bag(tmp_path / "drive", drive(24), "sqlite3")).images[:20]
    order = [3, 17, 2, 2, 9, 0, 19, 1]
    assert [int(images[i].read()[0, 0, 0]) for i in order] == [10 * i for i in order]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda item: int(item.read()[0, 0, 0]), images))
    assert found == [10 * i for i in range(20)]


def test_in_order_the_bag_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geowarp_ros.readers import bag_files

    source = read_source(write_bag(tmp_path / "drive", drive(24)))
    opened = []

    def counted(*args: Any) -> BagReader:
        opened.append(1)
        return BagReader(*args)

    monkeypatch.setattr(bag_files, "BagReader", counted)
    shades(source)
    assert len(opened) == 1


def test_images_without_stamps_go_by_the_time_of_recording(tmp_path: Path) -> None:
    messages = [image(t, 10 * t, stamped=False) for t in range(3)]
    source = read_source(write_bag(tmp_path / "b", messages + [fix(t, 45 + t * 1e-3) for t in range(4)]))
    assert shades(source) == [0, 10, 20]
    assert source.images[1].place.latitude_deg == pytest.approx(45 + 1.03e-3, abs=1e-8)  # 30 ms of latency


def test_a_gap_leaves_images_out_and_counts_them(tmp_path: Path) -> None:
    messages = [image(t / 2, 0) for t in range(20)]  # 0 … 9.5 s
    messages += [fix(0, 45), fix(1, 45.001), fix(8, 45.008), fix(9, 45.009)]
    source = read_source(write_bag(tmp_path / "b", messages), max_gap_s=0.6)
    times = [(item.place.stamp_ns - START_NS) / 1e9 for item in source.images]
    assert times == [0, 0.5, 1, 1.5, 7.5, 8, 8.5, 9, 9.5]
    assert len(source.skipped) == 11
    assert {skip.reason for skip in source.skipped} == {"farther than 0.6 s from a fix"}
    assert source.images[3].place.latitude_deg == pytest.approx(45.0015, abs=1e-8)  # between the far fixes
    assert source.images[-1].place.latitude_deg == pytest.approx(45.009, abs=1e-8)  # the last one holds


def test_spacing(tmp_path: Path) -> None:
    # one arc-millidegree of latitude at 45° is 111.13 m, so images are 55.6 m apart
    source = read_source(write_bag(tmp_path / "b", drive()), min_spacing_m=111)
    assert shades(source) == [0, 20, 40, 60]
    assert [skip.reason for skip in source.skipped] == ["closer than 111 m to the image before"] * 4


def test_unknown_altitude_stays_unknown(tmp_path: Path) -> None:
    messages = [image(0.5, 0), image(1.5, 0), fix(0, 45), fix(1, 45), fix(2, 45, altitude=math.nan)]
    source = read_source(write_bag(tmp_path / "b", messages))
    assert [math.isnan(item.place.altitude_m) for item in source.images] == [False, True]


def test_across_the_antimeridian(tmp_path: Path) -> None:
    messages = [image(0.5, 0), fix(0, 0.0, 179.9999), fix(1, 0.0, -179.9999)]
    source = read_source(write_bag(tmp_path / "b", messages))
    assert abs(source.images[0].place.longitude_deg) == pytest.approx(180, abs=1e-7)


def test_compressed_and_raw_are_chosen_by_topic(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "b", [*drive(), *(compressed(i / 2, 10 * i) for i in range(8))])
    with pytest.raises(SourceError, match=r"several topics.*as image_topic.*/camera \(sensor_msgs/msg/Image\)"):
        read_source(bag)
    assert shades(read_source(bag, image_topic="camera/compressed")) == [10 * i for i in range(8)]


def test_topics_that_are_not_there(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "b", drive())
    with pytest.raises(
        SourceError, match=r"no topic '/camara' \(did you mean '/camera'\?\); the bag has /camera \("
    ):
        read_source(bag, image_topic="/camara")
    with pytest.raises(
        SourceError, match="fix_topic /camera is of type sensor_msgs/msg/Image, expected sensor_msgs"
    ):
        read_source(bag, fix_topic="/camera")
    with pytest.raises(SourceError, match="no topic with messages of type sensor_msgs/msg/NavSatFix"):
        read_source(write_bag(tmp_path / "c", [image(0, 0)]))


def test_clocks_apart(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "b", [image(0, 0), fix(500, 45)])
    with pytest.raises(SourceError, match=r"none of the 1 images on /camera.*nearest is 500\.000 s away"):
        read_source(bag)


def test_two_images_with_one_stamp(tmp_path: Path) -> None:
    source = read_source(write_bag(tmp_path / "b", [image(0, 0), image(0, 10), fix(0, 45)]))
    assert len(source.images) == 1
    assert source.skipped[0].reason == "with the stamp of another image"


def test_an_encoding_not_supported_is_an_image_error_by_name(tmp_path: Path) -> None:
    topic, time_ns, message = image(0, 0)
    message.encoding = "32FC1"
    source = read_source(write_bag(tmp_path / "b", [(topic, time_ns, message), fix(0, 45)]))
    with pytest.raises(ImageError, match=f"^b/camera/{START_NS}: .*'32FC1' is not supported"):
        source.images[0].read()


def truncate(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def test_broken_end_of_mcap(tmp_path: Path) -> None:
    # rosbags closes a chunk at 1 MiB: messages large enough for several chunks
    folder = write_bag(tmp_path / "b", large_drive())
    truncate(folder / "b.mcap", 0.6)
    for source in (read_source(folder), read_source(folder / "b.mcap")):
        assert 8 <= len(source.images) < 40
        assert shades(source) == [3 * i for i in range(len(source.images))]
        assert "with a broken end, used as far as it goes" in source.skipped[0].reason
    (folder / "metadata.yaml").unlink()
    assert shades(read_source(folder)) == shades(source)
    assert int(source.images[5].read()[0, 0, 0]) == 15  # back again


def large_drive() -> list[Message]:
    messages = [fix(s, LATITUDE + s * 1e-3) for s in range(21)]
    for i in range(40):
        topic, time_ns, message = image(i / 2, 3 * i)
        message.height, message.data = 24 * 40, message.data.repeat(40)
        messages.append((topic, time_ns, message))
    return messages


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs the sqlite3 command")
def test_broken_end_of_sqlite_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "b", large_drive(), "sqlite3")
    truncate(folder / "b.db3", 0.6)
    for path in (folder, folder / "b.db3"):
        with pytest.raises(
            SourceError, match=r"b\.db3: cannot be read as a ROS bag: .* mend it first: "
        ) as raised:
            read_source(path)
    command = str(raised.value).partition("mend it first: ")[2]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    source = read_source(tmp_path / "mended.db3")
    assert 8 <= len(source.images) < 40
    assert shades(source) == [3 * i for i in range(len(source.images))]


@pytest.mark.parametrize("damage", ["cut off", "never indexed"])
def test_broken_end_of_ros_1_is_refused_with_the_command_that_mends_it(tmp_path: Path, damage: str) -> None:
    path = write_bag1(tmp_path / "old.bag", drive(store=ROS1))
    data = bytearray(path.read_bytes())
    index_pos = data.index(b"index_pos=") + len(b"index_pos=")
    if damage == "cut off":
        data = data[: len(data) * 9 // 10]
    else:
        data[index_pos : index_pos + 8] = bytes(8)  # as a recorder writes it first, and mends it at the end
    path.write_bytes(data)
    with pytest.raises(
        SourceError, match=r"old\.bag: cannot be read .* mend it first: rosbag reindex .*old\.bag$"
    ):
        read_source(path)


def test_a_broken_middle_of_an_mcap_with_an_index(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "b", large_drive())
    path = folder / "b.mcap"
    data = bytearray(path.read_bytes())
    middle = len(data) * 6 // 10
    data[middle : middle + 120_000] = b"\xff" * 120_000  # more than one image: records are hit
    path.write_bytes(data)
    source = read_source(folder)
    assert 8 <= len(source.images) < 40
    assert shades(source) == [3 * i for i in range(len(source.images))]
    assert "with a broken end" in source.skipped[0].reason


@pytest.mark.parametrize("name", ["b.mcap", "b.db3", "b.bag"])
@pytest.mark.parametrize("content", [b"", b"not a bag at all" * 10])
def test_no_bag_at_all(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match="cannot be read as a ROS bag") as raised:
        read_source(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_an_empty_bag(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no topic"):
        read_source(write_bag(tmp_path / "b", []))


def test_a_bag_without_message_definitions(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "b", drive(), "sqlite3")
    with sqlite3.connect(folder / "b.db3") as database:  # as Humble and older record
        database.execute("UPDATE schema SET schema_version = 3")
        database.execute("DROP TABLE message_definitions")
    assert shades(read_source(folder)) == [10 * i for i in range(8)]


# ---- cameras


def focals(source: Source) -> list[float | None]:
    cameras = [image.camera_at(32, 24) for image in source.images]
    return [None if camera is None else camera.fx for camera in cameras]


def test_images_have_the_camera_info_beside_them(tmp_path: Path) -> None:
    """Said once, it holds, for images before it too; then it changes, is lost, and comes back at another size."""
    infos = [info(1.2, 40.0), info(2.0, 50.0), info(2.6, 0.0), info(3.4, 120.0, size=(64, 48))]
    source = read_source(write_bag(tmp_path / "b", drive() + infos))
    assert focals(source) == [40.0, 40.0, 40.0, 40.0, 50.0, 50.0, None, 60.0]
    camera = source.images[4].camera
    assert camera is not None and (camera.source, camera.distortion[0]) == ("/camera_info", 0.1)
    assert focals(read_source(write_bag(tmp_path / "c", drive()))) == [None] * 8
    elsewhere = [info(0.0, 40.0, "/rear/camera_info"), fix(0.1, 45.0, topic="/other/camera_info")]
    assert focals(read_source(write_bag(tmp_path / "d", drive() + elsewhere), fix_topic="/fix")) == [None] * 8


def test_a_bag_of_ros_1_has_them_in_capitals(tmp_path: Path) -> None:
    messages = [*drive(store=ROS1), info(0.0, 40.0, store=ROS1)]
    assert focals(read_source(write_bag1(tmp_path / "old.bag", messages))) == [40.0] * 8


def test_compressed_and_rectified_images(tmp_path: Path) -> None:
    messages = [compressed(0.5, 10, "/front/image_raw/compressed"), info(0.5, 40.0, "/front/camera_info")]
    messages += [image(0.5, 20, "/front/image_rect"), fix(0, 45.0), fix(1, 45.001)]
    bag = write_bag(tmp_path / "b", messages)
    assert focals(read_source(bag, image_topic="/front/image_raw/compressed")) == [40.0]
    (rectified,) = read_source(bag, image_topic="/front/image_rect").images
    assert rectified.camera is not None
    assert (rectified.camera.fx, rectified.camera.distortion) == (80.0, ())


def test_a_file_replaces_the_recorded_one(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "b", [*drive(), info(0.0, 40.0)])
    file = tmp_path / "camera.yaml"
    write_camera(file, Camera(64, 48, 50, 50, 31.5, 23.5))
    assert focals(read_source(bag, camera=file)) == [25.0] * 8
    with pytest.raises(CameraError, match=r"absent\.yaml"):
        read_source(bag, camera=tmp_path / "absent.yaml")


def test_a_recorded_camera_that_is_none_is_said_once_and_one_of_another_size_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    infos = [info(t, 40.0, model="omnidirectional") for t in (0.0, 1.0)]
    source = read_source(write_bag(tmp_path / "b", drive() + infos))
    assert focals(source) == [None] * 8
    (said,) = [record.message for record in caplog.records]
    assert said.startswith("/camera_info: distortion model 'omnidirectional'")
    source = read_source(write_bag(tmp_path / "c", [*drive(), info(0.0, 40.0, size=(64, 36))]))
    with pytest.raises(CameraError, match="/camera_info: is of images of 64×36 px, the image has 32×24"):
        focals(source)
