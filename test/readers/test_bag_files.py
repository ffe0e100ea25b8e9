"""Bags as other software leaves them: foreign channels, names, folders and whole-file compression."""

from __future__ import annotations

import gc
import io
import json
import shutil
import sqlite3
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import zstd

from geowarp_ros.errors import SourceError
from geowarp_ros.readers import read_source
from geowarp_ros.readers.bag_files import BagFiles, is_bag
from geowarp_ros.readers.recorded_images import RecordedImages
from test.gallery.bags import LATITUDE, ROS1, ROS2, START_NS, Message, drive, fix, image, write_bag, write_bag1
from test.readers.test_bag import shades
from test.readers.test_folders import NAPLES, save

SHADES = [10 * i for i in range(8)]


# ---- an MCAP file written record by record (mcap.dev/spec)


def _text(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<I", len(data)) + data


def _record(opcode: int, body: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(body)) + body


FOREIGN: tuple[tuple[str, str, str, bytes, str, bytes], ...] = (
    ("/state", "State", "jsonschema", b"{}", "json", json.dumps({"a": 1}).encode()),
    ("/pose", "foxglove.PoseInFrame", "protobuf", b"\x0a\xff\x00", "protobuf", b"\x08\x01"),
    ("/odd", "odd_msgs/msg/Odd", "ros2msg", b"uint8[ a", "cdr", b"\0\1\0\0"),
    ("/idl", "odd_msgs/msg/Idl", "ros2idl", b"module { struct", "cdr", b"\0\1\0\0"),
    ("/bare", "", "", b"", "", b"raw"),
)
"""Channels of other software: topic, type, encoding of the definition, definition, encoding, a message."""


def write_mcap(
    path: Path,
    messages: Sequence[Message],
    *,
    foreign: Sequence[tuple[str, str, str, bytes, str, bytes]] = (),
    profile: str = "ros2",
    store: Any = ROS2,
    chunked: bool = False,
    indexed: bool = False,
    counted: bool = True,
) -> Path:
    """Write messages in their order.

    ``indexed``: with an index of chunks that does not say what is in them; ``counted``: with a number of messages
    of each channel, without which the statistics are valid, too.
    """
    ros1 = store is ROS1
    data, about = io.BytesIO(), io.BytesIO()
    channels: dict[tuple[str, str], int] = {}

    def channel(topic: str, kind: str, form: str, definition: bytes, encoding: str) -> int:
        number = channels.setdefault((topic, encoding), len(channels) + 1)
        if number == len(channels):
            schema = struct.pack("<H", number) + _text(kind) + _text(form) + _text(definition)
            head = struct.pack("<HH", number, number if kind else 0)
            qos = _text(_text("offered_qos_profiles") + _text("{["))
            for each in (data, about):
                each.write(_record(3, schema) if kind else b"")
                each.write(_record(4, head + _text(topic) + _text(encoding) + qos))
        return number

    def write(number: int, time_ns: int, raw: bytes) -> None:
        data.write(_record(5, struct.pack("<HIQQ", number, 0, time_ns, time_ns) + raw))

    for topic, kind, form, definition, encoding, raw in foreign:
        write(channel(topic, kind, form, definition, encoding), messages[0][1], raw)
    for topic, time_ns, message in messages:
        kind = message.__msgtype__
        definition = store.generate_msgdef(kind, ros_version=1 if ros1 else 2)[0].encode()
        words = ("ros1msg", "ros1") if ros1 else ("ros2msg", "cdr")
        raw = bytes(store.serialize_ros1(message, kind) if ros1 else store.serialize_cdr(message, kind))
        name = kind.replace("/msg/", "/") if ros1 else kind
        write(channel(topic, name, words[0], definition, words[1]), time_ns, raw)
    content = data.getvalue()
    if chunked:
        times = [time for _, time, _ in messages]
        packed = zstd.compress(content)
        head = struct.pack("<QQQI", min(times), max(times), len(content), 0)
        content = _record(6, head + _text("zstd") + struct.pack("<Q", len(packed)) + packed)
    magic, summary = b"\x89MCAP0\r\n", b""
    start = magic + _record(1, _text(profile) + _text("a test"))
    whole = start + content + _record(0x0F, struct.pack("<I", 0))
    if indexed:
        where = struct.pack("<QQQQ", min(times), max(times), len(start), len(content))
        sizes = struct.pack("<QQ", len(packed), len(data.getvalue()))
        chunk = _record(8, where + _text(b"") + struct.pack("<Q", 0) + _text("zstd") + sizes)
        counts = b"".join(struct.pack("<HQ", number, 1) for number in channels.values() if counted)
        total = struct.pack("<QHIIIIQQ", len(messages), 0, len(channels), 0, 0, 1, min(times), max(times))
        summary = about.getvalue() + chunk + _record(11, total + _text(counts))
    footer = struct.pack("<QQI", len(whole) if indexed else 0, 0, 0)
    path.write_bytes(whole + summary + _record(2, footer) + magic)
    return path


@pytest.mark.parametrize(("chunked", "indexed"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("profile", ["ros2", "", "px4"])
def test_only_the_topics_asked_for_matter(tmp_path: Path, profile: str, chunked: bool, indexed: bool) -> None:
    path = tmp_path / "b.mcap"
    write_mcap(path, drive(), foreign=FOREIGN, profile=profile, chunked=chunked, indexed=indexed)
    source = read_source(path)
    assert shades(source) == SHADES
    assert source.images[3].place.latitude_deg == pytest.approx(LATITUDE + 1.5e-3, abs=1e-8)
    assert not source.skipped


def test_an_mcap_whose_statistics_do_not_count_by_channel(tmp_path: Path) -> None:
    """An empty map means that the writer did not count (mcap.dev/spec, Statistics), not that there is nothing."""
    path = write_mcap(tmp_path / "b.mcap", drive(), chunked=True, indexed=True, counted=False)
    assert shades(read_source(path)) == SHADES


def test_an_mcap_of_ros_1(tmp_path: Path) -> None:
    """As 'mcap convert' makes it of a .bag."""
    path = write_mcap(tmp_path / "b.mcap", drive(store=ROS1), profile="ros1", store=ROS1)
    assert shades(read_source(path)) == SHADES


def test_a_topic_asked_for_that_cannot_be_read_is_said_by_name(tmp_path: Path) -> None:
    camera = ("/camera", "sensor_msgs/msg/Image", "jsonschema", b"{}", "json", b"{}")
    foreign = write_mcap(tmp_path / "a.mcap", drive()[8:], foreign=[camera])
    with pytest.raises(SourceError, match=r"no topic with messages of type.*the bag has /camera"):
        read_source(foreign)
    with pytest.raises(SourceError, match="image_topic /camera is serialised as 'json', expected cdr or ros1"):
        read_source(foreign, image_topic="/camera")
    odd = ("/odd", "sensor_msgs/msg/Image", "ros2msg", b"uint8[ a", "cdr", b"\0\1\0\0")
    with pytest.raises(SourceError, match=r"^/odd: sensor_msgs/msg/Image has a definition that cannot be read: "):
        read_source(write_mcap(tmp_path / "b.mcap", drive(), foreign=[odd]), image_topic="/odd")


def test_a_topic_with_a_second_channel_of_other_software(tmp_path: Path) -> None:
    twins = [
        (topic, "foxglove.Any", "protobuf", b"\xff", "protobuf", b"\x08\x01") for topic in ("/camera", "/fix")
    ]
    path = write_mcap(tmp_path / "b.mcap", drive(), foreign=twins)
    assert shades(read_source(path)) == shades(read_source(path, image_topic="/camera", fix_topic="fix")) == SHADES


def test_a_definition_of_ros_1_that_is_no_text(tmp_path: Path) -> None:
    text = ROS1.types["std_msgs/msg/String"]("hello")
    path = write_bag1(tmp_path / "b.bag", [*drive(store=ROS1), ("/talk", drive()[0][1], text)])
    content = path.read_bytes()
    assert content.count(b"string data") >= 1
    path.write_bytes(content.replace(b"string data", b"string \xe9[ta"))
    assert shades(read_source(path)) == SHADES


def test_a_damaged_message_costs_itself(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "b.mcap", drive(), foreign=[])
    cut = drive()
    raw = bytes(ROS2.serialize_cdr(cut[3][2], cut[3][2].__msgtype__))
    content = path.read_bytes()
    place = content.index(raw)
    path.write_bytes(content[:place] + b"\xff\xff\xff\xff" + content[place + 4 :])  # no CDR any more
    source = read_source(path)
    assert shades(source) == [0, 10, 20, 40, 50, 60, 70]
    (skipped,) = source.skipped
    assert skipped.reason.startswith("of the messages that are not whole (")


def test_messages_written_out_of_order_without_an_index(tmp_path: Path) -> None:
    messages = drive()
    path = write_mcap(tmp_path / "b.mcap", [*messages[4:8], *messages[8:], *messages[:4]])
    source = read_source(path)
    assert shades(source) == SHADES and not source.skipped
    assert int(source.images[6].read()[0, 0, 0]) == 60


# ---- SQLite


def _edit(path: Path, *commands: str) -> None:
    with sqlite3.connect(path) as database:
        for command in commands:
            database.execute(command)
    database.close()


def test_definitions_that_a_sqlite_bag_does_not_have(tmp_path: Path) -> None:
    """rosbag2 writes the encoding 'unknown' for types that are not installed where it records."""
    folder = write_bag(tmp_path / "b", drive(), "sqlite3")
    _edit(
        folder / "b.db3",
        "UPDATE message_definitions SET encoding = 'unknown', encoded_message_definition = ''",
        "INSERT INTO topics VALUES (99, '/odd', 'odd_msgs/msg/Odd', 'protobuf', '', '')",
        "INSERT INTO messages VALUES (999, 99, 5, x'00')",
    )
    assert shades(read_source(folder)) == SHADES


def test_a_bag_read_in_part_closes_its_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement that still runs does not keep it, and nothing is raised where nobody can catch it."""
    said: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    for bag in (write_bag(tmp_path / "a", drive(), "sqlite3"), write_bag(tmp_path / "b", drive())):
        files = BagFiles(bag)
        recorded = RecordedImages(files, "/camera")
        source = read_source(bag)
        row = source.images[2]
        assert int(row.read()[0, 0, 0]) == 20
        stamp = row.place.stamp_ns
        recorded.read(stamp + 30_000_000, stamp, "an image")
        reader = files.reader()
        with reader:
            next(reader.messages(reader.connections))
        del source, recorded, row, reader
        gc.collect()
    assert said == []


# ---- names and folders


@pytest.mark.parametrize(
    "name", ["b.MCAP", "b.Mcap.zstd", "b.mcap.zstd", "b.mcap.zst", "b.DB3", "b.db3.zstd", "B.BAG"]
)
def test_files_of_any_spelling_and_compressed_as_a_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if "bag" in name.lower():
        write_bag1(tmp_path / "plain.bag", drive(store=ROS1)).rename(path)
    else:
        storage = "sqlite3" if ".db3" in name.lower() else "mcap"
        folder = write_bag(tmp_path / "b", drive(), storage)  # type: ignore[arg-type]
        content = next(file for file in folder.iterdir() if file.suffix != ".yaml").read_bytes()
        path.write_bytes(zstd.compress(content) if "zst" in name else content)
        shutil.rmtree(folder)
    assert is_bag(path)
    source = read_source(path)
    assert shades(source) == SHADES
    assert source.images[0].place.name == f"{name[0]}/camera/{START_NS}"
    assert source.images[3].place.latitude_deg == pytest.approx(LATITUDE + 1.5e-3, abs=1e-8)


def test_a_compressed_folder_with_and_without_metadata(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "b", drive())
    plain = folder / "b.mcap"
    (folder / "b.mcap.zstd").write_bytes(zstd.compress(plain.read_bytes()))
    assert shades(read_source(folder)) == SHADES  # once, not twice
    plain.unlink()
    assert shades(read_source(folder)) == SHADES
    (folder / "metadata.yaml").unlink()
    assert shades(read_source(folder)) == SHADES


@pytest.mark.parametrize("mode", list(CompressionMode)[1:], ids=lambda mode: mode.name)
def test_bags_compressed_by_message_by_file_and_by_chunk(tmp_path: Path, mode: CompressionMode) -> None:
    writer = Writer(tmp_path / "b", version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for topic, time_ns, message in sorted(drive(), key=lambda message: message[1]):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=ROS2)
            writer.write(connections[topic], time_ns, ROS2.serialize_cdr(message, kind))
    assert shades(read_source(tmp_path / "b")) == SHADES
    (tmp_path / "b" / "metadata.yaml").unlink()
    assert shades(read_source(tmp_path / "b")) == SHADES


def test_a_cut_off_compressed_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "b.mcap.zstd"
    content = (write_bag(tmp_path / "b", drive()) / "b.mcap").read_bytes()
    path.write_bytes(zstd.compress(content[: -len(content) // 8]))
    source = read_source(path)
    assert [skip.reason for skip in source.skipped] == [
        "with a broken end, used as far as it goes (its closing records are missing)"
    ]
    assert shades(source) == SHADES


def test_what_was_unpacked_goes_with_the_last_who_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "room"))
    (tmp_path / "room").mkdir()
    path = tmp_path / "b.mcap.zstd"
    path.write_bytes(zstd.compress((write_bag(tmp_path / "b", drive()) / "b.mcap").read_bytes()))
    source = read_source(path)
    assert len(list((tmp_path / "room").iterdir())) == 1
    assert shades(source) == SHADES
    del source
    gc.collect()
    assert not list((tmp_path / "room").iterdir())
    monkeypatch.setattr("geowarp_ros.readers.bag_files._SPARE_BYTES", 1 << 70)
    with pytest.raises(SourceError, match=r"does not fit into .*room; unpack it to where there is room: zstd -d "):
        read_source(path)
    gc.collect()
    assert not list((tmp_path / "room").iterdir())


def _metadata(folder: Path, **changes: Any) -> None:
    file = folder / "metadata.yaml"
    read = yaml.safe_load(file.read_text())
    read["rosbag2_bagfile_information"].update(changes)
    file.write_text(yaml.safe_dump(read))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_metadata_that_says_nothing_or_something_else(tmp_path: Path, storage: Any) -> None:
    folder = write_bag(tmp_path / "b", drive(), storage)
    changes: list[dict[str, Any]] = [
        {"storage_identifier": ""},
        {"storage_identifier": "rosbag_v2"},
        {"version": 99},
        {"topics_with_message_count": []},
        {"relative_file_paths": ["renamed.mcap"]},
        {"relative_file_paths": []},
        {"relative_file_paths": "b.mcap"},
    ]
    for change in changes:
        _metadata(folder, **change)
        assert shades(read_source(folder)) == SHADES, change
    (folder / "metadata.yaml").write_text("")
    assert shades(read_source(folder)) == SHADES
    (folder / "metadata.yaml").unlink()
    assert shades(read_source(folder)) == SHADES


def test_a_missing_split_is_said_and_the_others_are_read(tmp_path: Path) -> None:
    folder = write_bag(tmp_path / "b", drive())
    late = write_bag(
        tmp_path / "c", [image(4 + i / 2, 100 + i) for i in range(4)] + [fix(4, 45.004), fix(6, 45.006)]
    )
    (late / "c.mcap").rename(folder / "b_10.mcap")
    _metadata(folder, relative_file_paths=["b.mcap", "b_2.mcap", "b_10.mcap"])
    source = read_source(folder)
    assert shades(source) == [*SHADES, 100, 101, 102, 103]
    assert [(skip.name, skip.reason) for skip in source.skipped] == [
        ("b_2.mcap", "absent, though metadata.yaml names it")
    ]
    for file in folder.glob("*.mcap"):
        file.unlink()
    assert is_bag(folder)
    with pytest.raises(
        SourceError, match=r"has none of the bag's files; its metadata\.yaml names b\.mcap, b_2\.mcap"
    ):
        read_source(folder)


def test_folders_with_files_of_other_software_are_no_bags(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text("camera: front\n")
    assert not is_bag(tmp_path)
    (tmp_path / "._drive.mcap").write_bytes(b"\0\5\x16\7")  # as macOS leaves beside copied files
    with sqlite3.connect(tmp_path / "thumbnails.db3") as database:
        database.execute("CREATE TABLE thumbnails (name TEXT)")
    database.close()
    (tmp_path / "gps.csv").write_text("time,lat,lon\n1,2,3\n")
    save(tmp_path / "x.jpg", NAPLES)
    assert not is_bag(tmp_path) and [image.place.name for image in read_source(tmp_path).images] == ["x.jpg"]
    _edit(tmp_path / "thumbnails.db3", "CREATE TABLE topics (id)", "CREATE TABLE messages (id)")
    assert is_bag(tmp_path)
