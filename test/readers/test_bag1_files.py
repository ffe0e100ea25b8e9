"""ROS 1 bags whose recorder was killed: every message in a whole chunk comes back."""

import shutil

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_typestore

from geowarp_ros.errors import SourceError
from geowarp_ros.readers import read_source
from geowarp_ros.readers.bag1_files import MendedBag1
from geowarp_ros.readers.bag_files import BagFiles
from test.gallery import bags

COUNT = 24


@pytest.fixture(scope="module", params=[None, "LZ4", "BZ2"])
def whole(request, tmp_path_factory):
    """Images and fixes in chunks of a few messages each."""
    path = tmp_path_factory.mktemp("bag1") / "whole.bag"
    writer = Writer(path)
    rng = np.random.default_rng(0)
    writer.chunk_threshold = 12_000
    if request.param:
        writer.set_compression(Writer.CompressionFormat[request.param])
    with writer:
        connections = {}
        messages = bags.drive(COUNT, store=bags.ROS1)
        for topic, time_ns, message in sorted(messages, key=lambda item: item[1]):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=bags.ROS1)
            if topic == "/camera":  # noise, that compression cannot shrink, but for the pixel that is looked at
                message.data[3:] = rng.integers(0, 255, len(message.data) - 3, np.uint8)
            writer.write(connections[topic], time_ns, bags.ROS1.serialize_ros1(message, kind))
    return path


def contents(path):
    with AnyReader([path], default_typestore=get_typestore(Stores.LATEST)) as reader:
        return [(connection.topic, time_ns, bytes(raw)) for connection, time_ns, raw in reader.messages()]


def test_a_bag_that_was_never_indexed_is_read_whole(whole, tmp_path):
    killed = tmp_path / "killed.bag"
    data = bytearray(whole.read_bytes())
    at = data.index(b"index_pos=") + len(b"index_pos=")
    index = int.from_bytes(data[at : at + 8], "little")
    data[at : at + 8] = bytes(8)  # what a recorder writes first, and mends at the end
    killed.write_bytes(data[:index])
    assert contents(MendedBag1(killed)) == contents(whole)
    files = BagFiles(killed)
    assert "not indexed" in files.broken


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_bag_cut_off_gives_what_was_before(whole, tmp_path, share):
    cut = tmp_path / "cut.bag"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    expected, found = contents(whole), contents(MendedBag1(cut))
    assert found == expected[: len(found)]
    assert len(found) > (share - 0.3) * len(expected)
    source = read_source(cut)
    assert 0 < len(source.images) < COUNT
    assert any("broken end" in one.reason for one in source.skipped)
    assert source.images[2].read()[0, 0, 0] == 20


def test_what_is_no_bag_stays_refused(tmp_path, whole):
    for name, data in (("text.bag", b"no bag at all"), ("empty.bag", b""), ("head.bag", whole.read_bytes()[:40])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SourceError, match="cannot be read as a ROS bag"):
            BagFiles(tmp_path / name)
    shutil.copy(whole, tmp_path / "fine.bag")
    assert BagFiles(tmp_path / "fine.bag").broken == ""
