"""The images of one topic of a bag, decoded on demand: pictures, or the packets of a video."""

from __future__ import annotations

import bisect
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from geowarp_ros.errors import ImageError, SourceError
from geowarp_ros.images import check_image
from geowarp_ros.messages import image_from_compressed, image_from_message
from geowarp_ros.readers.bag_files import BagFiles
from geowarp_ros.readers.clocks import NS
from geowarp_ros.readers.packets import PacketDecoder, is_keyframe
from geowarp_ros.readers.topics import IMAGE_TYPES, channels, header_stamp_ns
from geowarp_ros.types import Image

_DELAY = 16  # pictures that a video's decoder holds back at most, to put them in order
_JUMP_NS = 2 * NS  # a longer gap before the wanted image is jumped over by the bag's index


def recorded_images(files: BagFiles, topic: str, codec: str = "") -> RecordedImages:
    """Return the images of one topic, or of one whose messages are the packets of a video.

    Raises:
        SourceError: A codec that cannot be decoded.
    """
    try:
        return RecordedVideo(files, topic, codec) if codec else RecordedImages(files, topic)
    except SourceError as error:
        raise SourceError(f"{files.path}: {topic}: {error}") from None


class RecordedImages:
    """The images of one topic, read on demand: in order the bag is read once, with one image in memory.

    Out of order, each jump costs a look into the bag's index. The bag is opened by the first read.
    """

    def __init__(self, files: BagFiles, topic: str) -> None:
        self._files = files
        self._topic = topic
        self._lock = threading.Lock()
        self._messages: Iterator[tuple[int, Any]] | None = None
        self._position_ns = 0
        self._opened = ExitStack()
        weakref.finalize(self, self._opened.close)  # at exit, too, while rosbags can still close a bag

    def read(self, recorded_ns: int, stamp: int, name: str) -> Image:
        """Decode an image.

        Args:
            recorded_ns: Time at which it was recorded.
            stamp: Its header stamp, or the same time where it has none, ns.
            name: Name for errors.

        Raises:
            ImageError: Its encoding is not supported, its data is broken, or the bag has changed since.
        """
        try:
            with self._lock:
                message = self._find(recorded_ns, stamp) or self._find(recorded_ns, stamp)
        except Exception as error:  # rosbags has no exception of its own for every kind of damage
            self._messages = None
            raise ImageError(f"{name}: cannot be read from the bag: {error}") from None
        if message is None:
            raise ImageError(f"{name}: is no longer in the bag {self._files.path}")
        try:
            return image_from_compressed(message) if hasattr(message, "format") else image_from_message(message)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from None

    def _find(self, recorded_ns: int, stamp: int) -> Any:
        ahead_ns = recorded_ns - self._position_ns
        if self._messages is None or not 0 <= ahead_ns < _JUMP_NS:
            self._messages = self._stream(recorded_ns)
        for time_ns, message in self._messages:  # to the end: a file without an index need not be in order
            self._position_ns = time_ns
            if time_ns == recorded_ns and (header_stamp_ns(found := message()) or time_ns) == stamp:
                return found
        self._messages = None
        return None

    def _stream(self, start_ns: int) -> Iterator[tuple[int, Callable[[], Any]]]:
        self._opened.close()
        reader = self._opened.enter_context(self._files.reader())
        for connection, time_ns, raw in reader.messages(channels(reader, self._topic, IMAGE_TYPES), start_ns):
            yield time_ns, partial(reader.deserialize, raw, connection)


class RecordedVideo(RecordedImages):
    """The pictures of one topic of video packets: in order each packet is decoded once.

    Out of order the picture is decoded from the last keyframe before it.

    Raises:
        SourceError: The codec cannot be decoded.
    """

    def __init__(self, files: BagFiles, topic: str, codec: str) -> None:
        super().__init__(files, topic)
        self._codec = codec
        self._decoder = PacketDecoder(codec)
        self._keys: list[int] = []
        self._pictures: dict[int, Image] = {}
        self._last_ns = self._fed_ns = 0

    def read(self, recorded_ns: int, stamp: int, name: str) -> Image:
        """Decode a picture, as :meth:`RecordedImages.read`."""
        try:
            with self._lock:
                picture = self._decode(recorded_ns)
        except Exception as error:  # neither PyAV nor rosbags has an exception of its own for every kind of damage
            self._messages = None
            raise ImageError(f"{name}: cannot be decoded from the bag's video: {error}") from None
        if picture is None:
            raise ImageError(f"{name}: cannot be decoded: no keyframe before it, or its packet is damaged")
        return check_image(picture, name)

    def _decode(self, wanted_ns: int) -> Image | None:
        self._keys = self._keys or [time for time, packet in self._packets(0) if is_keyframe(packet, self._codec)]
        key = bisect.bisect(self._keys, wanted_ns) - 1
        if key < 0:
            return None
        if self._messages is None or not self._last_ns < wanted_ns or self._keys[key] > self._fed_ns + _JUMP_NS:
            self._messages, self._decoder = self._packets(self._keys[key]), PacketDecoder(self._codec)
            self._pictures = {}
        self._last_ns = wanted_ns
        for time_ns, packet in self._messages:
            self._fed_ns = time_ns
            if (picture := self._take(wanted_ns, self._decoder.pictures(time_ns, packet))) is not None:
                return picture
            if len(self._pictures) > _DELAY:  # it is damaged, and those behind it are whole
                return None
        self._messages = None
        return self._take(wanted_ns, self._decoder.pictures(0, None))

    def _take(self, wanted_ns: int, ready: Iterator[tuple[int, Callable[[], Image]]]) -> Image | None:
        """Keep what was decoded ahead of the wanted picture, and return that if it is there."""
        self._pictures |= {at_ns: picture() for at_ns, picture in ready if at_ns >= wanted_ns}
        self._pictures = {at_ns: picture for at_ns, picture in self._pictures.items() if at_ns >= wanted_ns}
        return self._pictures.pop(wanted_ns, None)

    def _packets(self, start_ns: int) -> Iterator[tuple[int, Any]]:
        """Yield packets and their times of recording; one that is not whole is none."""
        for time_ns, message in self._stream(start_ns):
            try:
                packet = message()
            except Exception:  # :class:`Messages` left it out, too
                continue
            yield time_ns, packet
