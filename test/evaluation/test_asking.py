"""The one engine: how often an image is described, what a way of asking leaves out, what a session hears when."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from geowarp_ros.cameras import Camera
from geowarp_ros.config import PositionConfig, SessionConfig, parse_config
from geowarp_ros.errors import GalleryError, ImageError
from geowarp_ros.evaluation.asking import (
    Question,
    ask,
    both,
    is_in_gallery,
    replay,
    said_of_themselves,
    sample_of,
    way,
    without_folder,
    without_itself,
    without_places_within,
)
from geowarp_ros.evaluation.drive import Drive, DriveImage, Event
from geowarp_ros.gallery.making.build import build_gallery
from geowarp_ros.gallery.store import Gallery
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.integrity.evidence import gather_evidence
from geowarp_ros.localizer import Ranked
from geowarp_ros.motion.odometry import Pose
from geowarp_ros.motion.prior import Hint
from geowarp_ros.motion.session import Session
from geowarp_ros.readers import Source, SourceImage
from geowarp_ros.types import Answer, Candidate, Fix, Frame, Header, Image, Near, Place
from test.gallery.conftest import ColourDescriber

TOWN = LocalFrame(45.0, 9.0)
SECOND = 1_000_000_000
FLAT = np.full((48, 64, 3), 90, np.uint8)


def textured(seed: int) -> Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(blocks, (64, 48), interpolation=cv2.INTER_NEAREST), np.uint8)


def place(name: str, east_m: float, north_m: float = 0.0) -> Place:
    latitude, longitude, _ = TOWN.to_geodetic(np.array([east_m, north_m, 0.0]))
    return Place(name, float(latitude), float(longitude))


def unreadable() -> Image:
    raise ImageError("x.png: is truncated")


class Counting:
    """A describer that notes the images it has seen; a query is the image itself."""

    def __init__(self) -> None:
        self.seen: list[Image] = []

    def __call__(self, image: Image, camera: Camera | None = None) -> Any:
        self.seen.append(image)
        return image


# ---- asking


def test_an_image_is_described_once_however_many_ways_there_are() -> None:
    images = [textured(0), textured(1)]
    truths = [place("0.png", 0.0), None]
    questions = [
        Question(f"{row}.png", partial(images.__getitem__, row), truth) for row, truth in enumerate(truths)
    ]
    describer: Any = Counting()
    heard: list[tuple[int, int, Place | None]] = []

    def noting(number: int, query: Any, truth: Place | None) -> Ranked:
        heard.append((number, next(row for row, image in enumerate(images) if image is query), truth))
        return Ranked((), None, number, {})

    ways = [partial(noting, number) for number in range(3)]
    asked = list(ask(describer, questions, ways))
    assert [image is expected for image, expected in zip(describer.seen, images, strict=True)] == [True, True]
    assert heard == [(number, row, truths[row]) for row in (0, 1) for number in (0, 1, 2)]
    assert [each.question for each in asked] == questions
    assert [[ranked.reranked for ranked in each.ranked] for each in asked] == [[0, 1, 2]] * 2
    assert all(each.refusal == "" and each.describe_ms > 0 for each in asked)


def test_what_cannot_be_read_or_has_no_texture_is_refused_before_it_is_described() -> None:
    questions = [
        Question("flat", lambda: FLAT),
        Question("broken", unreadable),
        Question("good", lambda: textured(0)),
    ]
    describer: Any = Counting()
    ways = [lambda query, truth: Ranked((), None, 0, {})] * 2
    asked = list(ask(describer, questions, ways, refuse=PositionConfig()))
    assert [(each.refusal, len(each.ranked)) for each in asked] == [("no_texture", 0), ("unreadable", 0), ("", 2)]
    assert len(describer.seen) == 1
    asked = list(ask(describer, questions, ways))
    assert [each.refusal for each in asked] == ["", "unreadable", ""], "without a demand all are asked about"


def test_questions_are_asked_one_by_one_and_their_progress_is_shown() -> None:
    shown: list[tuple[int, str]] = []

    def progress(items: Iterable[Any], total: int, label: str, /) -> Iterable[Any]:
        shown.append((total, label))
        return items

    describer: Any = Counting()
    questions = [Question(str(row), lambda: textured(0)) for row in range(4)]
    asked = ask(describer, questions, [], progress=progress, label="held out")
    next(asked)
    assert len(describer.seen) == 1 and shown == [(4, "held out")]


def test_a_source_image_is_a_question_about_its_own_place() -> None:
    image = SourceImage(place("a/1.png", 3.0), lambda: FLAT)
    assert Question.of(image) == Question("a/1.png", image.read, image.place, image.camera_at)


class RankNoting:
    """A localizer that notes how it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def rank(self, query: Any, near: Near | None = None, without: Any = ()) -> Ranked:
        self.asked.append((query, near, without))
        return Ranked((), None, 0, {})


def test_a_way_leaves_out_and_draws_its_circle_about_the_truth() -> None:
    noting, truth = RankNoting(), place("a", 10.0)

    def circle(truth: Place) -> Near:
        return Near(truth.latitude_deg, truth.longitude_deg, 7.0)

    localizer: Any = noting
    query: Any = "query"
    elsewhere: Any = "elsewhere"
    for each in (
        way(localizer),
        way(localizer, lambda place: frozenset({1, 2})),
        way(localizer, lambda place: frozenset({3}), circle),
    ):
        each(query, truth)
        each(elsewhere, None)
    assert noting.asked == [
        ("query", None, ()),
        ("elsewhere", None, ()),
        ("query", None, frozenset({1, 2})),
        ("elsewhere", None, ()),  # an image of elsewhere has no place of its own to leave out
        ("query", circle(truth), frozenset({3})),
        ("elsewhere", None, ()),
    ]


# ---- what is left out


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """Twelve places in three folders, scattered over 200 m."""
    noise = np.random.default_rng(0)
    images = tuple(
        SourceImage(place(f"{'abc'[row % 3]}/{row}.png", *noise.uniform(-100, 100, 2)), partial(textured, row))
        for row in range(12)
    )
    output = tmp_path_factory.mktemp("asking") / "gallery"
    return Gallery.open(build_gallery(Source(images), ColourDescriber(), output).gallery)


@pytest.mark.parametrize("radius_m", [0.001, 30.0, 80.0, 500.0])
def test_places_within_a_radius_are_those_that_are_near(gallery: Gallery, radius_m: float) -> None:
    truth = gallery.places[4]
    here = TOWN.to_enu(truth.latitude_deg, truth.longitude_deg)
    apart_m = [np.linalg.norm(TOWN.to_enu(p.latitude_deg, p.longitude_deg) - here) for p in gallery.places]
    expected = {row for row, metres in enumerate(apart_m) if metres <= radius_m}
    assert without_places_within(gallery, radius_m)(truth) == expected
    assert 4 in expected


def test_a_folder_is_left_out_as_one(gallery: Gallery) -> None:
    leave_out = without_folder(gallery)
    for folder in "abc":
        of_folder = {row for row, p in enumerate(gallery.places) if p.name.startswith(f"{folder}/")}
        assert leave_out(place(f"{folder}/new.png", 0.0)) == of_folder and len(of_folder) == 4
    assert leave_out(place("d/new.png", 0.0)) == leave_out(place("a.png", 0.0)) == frozenset()


def test_an_image_is_left_out_by_its_name(gallery: Gallery) -> None:
    leave_out = without_itself(gallery)
    assert [leave_out(p) for p in gallery.places] == [frozenset({row}) for row in range(12)]
    assert leave_out(place("a/new.png", 0.0)) == frozenset()


def test_both_is_the_union(gallery: Gallery) -> None:
    folder, itself = without_folder(gallery), without_itself(gallery)
    assert both(folder, itself)(gallery.places[0]) == folder(gallery.places[0])
    a, b = place("a/new.png", 0.0), {1: frozenset({1, 2}), 2: frozenset({2, 3})}
    assert both(lambda _: b[1], lambda _: b[2])(a) == {1, 2, 3}


# ---- samples for a calibration


def judged_localizer(estimate: str) -> Any:
    config = parse_config(SessionConfig, {"position": {"estimate": estimate}})
    return SimpleNamespace(gallery=SimpleNamespace(frame=TOWN, spacing_m=5.0), config=config)


def ranked_of(*east_and_distance: tuple[float, float]) -> Ranked:
    candidates = tuple(
        Candidate(row, place(str(row), east_m), distance)
        for row, (east_m, distance) in enumerate(east_and_distance)
    )
    return Ranked(candidates, gather_evidence(candidates, 10.0), 0, {})


def test_a_samples_error_is_the_estimate_minus_the_truth() -> None:
    # equal distances: the mean of 10 and 14 m east is 12 m; 80 m east does not agree
    ranked = ranked_of((10.0, 1.0), (14.0, 1.0), (80.0, 1.0))
    truth = place("truth", 9.0, 4.0)
    cluster = sample_of(judged_localizer("cluster"), ranked, truth, 25.0)
    assert cluster is not None
    assert cluster.error_en_m == pytest.approx([3.0, -4.0], abs=1e-3)
    assert cluster.error_m == pytest.approx(5.0, abs=1e-3)
    assert cluster.scatter == pytest.approx(np.array([[4.0, 0.0], [0.0, 0.0]]), abs=1e-3)
    assert (cluster.correct_within_m, cluster.spacing_m, cluster.right) == (25.0, 5.0, True)
    best = sample_of(judged_localizer("best"), ranked, truth, 4.0)
    assert best is not None
    assert best.error_en_m == pytest.approx([1.0, -4.0], abs=1e-3)
    assert not best.right


def test_an_answer_to_an_image_of_elsewhere_is_wrong_and_no_answer_is_no_sample() -> None:
    sample = sample_of(judged_localizer("cluster"), ranked_of((10.0, 1.0)), None, 25.0)
    assert sample is not None
    assert sample.error_m == math.inf and np.isnan(sample.error_en_m).all() and not sample.right
    assert sample_of(judged_localizer("cluster"), Ranked((), None, 0, {}), place("a", 0.0), 25.0) is None


# ---- replay


class Hearing:
    """A localizer that notes what reaches it."""

    def __init__(self) -> None:
        self.gallery = SimpleNamespace(positions_enu=np.zeros((1, 3)), frame=TOWN)
        self.heard: list[Any] = []
        self.refuses: set[int] = set()

    def warm_up(self) -> None:
        self.heard.append("warm up")

    def localize(
        self, frame: Frame, near: Near | None = None, deadline: Callable[[], Any] = lambda: None
    ) -> Answer:
        self.heard.append((frame.stamp_ns // SECOND, frame.frame_id))
        if frame.stamp_ns // SECOND in self.refuses:
            raise ImageError("frame: is 3 px wide")
        return Answer(Header(frame.stamp_ns, frame.frame_id, near), Fix(45.0, 9.0, 0.0, np.eye(3), 0.9))


def drive(seconds: Iterable[int], events: Iterable[Event] = (), read: Callable[[], Image] = lambda: FLAT) -> Drive:
    images = [DriveImage(f"{s}.png", s * SECOND, read, None, "camera") for s in seconds]
    return Drive("a drive", tuple(images), events=tuple(events))


def session(**sections: Any) -> Session:
    return Session(parse_config(SessionConfig, sections))


def test_the_network_is_warm_and_images_come_in_order_with_stamp_and_frame() -> None:
    localizer: Any = Hearing()
    replayed = list(replay(session(), localizer, drive((5, 6, 8))))
    assert localizer.heard == ["warm up", (5, "camera"), (6, "camera"), (8, "camera")]
    assert [each.item.name for each in replayed] == ["5.png", "6.png", "8.png"]
    assert all(each.image is FLAT and each.answer is not None and each.problem == "" for each in replayed)


def test_events_are_told_before_the_first_image_that_is_not_older() -> None:
    localizer: Any = Hearing()
    known = session()

    def event(stamp_s: float) -> Event:
        def tell(to: Session) -> None:
            assert to is known
            localizer.heard.append(stamp_s)

        return Event(round(stamp_s * SECOND), tell)

    events = [event(stamp_s) for stamp_s in (1.0, 5.0, 5.1, 5.9, 7.0, 9.0)]
    list(replay(known, localizer, drive((5, 6, 8), events)))
    camera = "camera"
    assert localizer.heard == ["warm up", 1.0, 5.0, (5, camera), 5.1, 5.9, (6, camera), 7.0, (8, camera)]


def test_a_session_uses_what_the_drive_told_it() -> None:
    localizer: Any = Hearing()
    known = session(prior={"source": "fix", "min_radius_m": 1.0})
    events = [Event(s * SECOND, partial(_move, second=s)) for s in (5, 6, 7)]
    events.insert(1, Event(5 * SECOND, _claim))
    circles = [
        each.answer.header.near for each in replay(known, localizer, drive((4, 5, 7), events)) if each.answer
    ]
    # 2 m of standard deviation, and two seconds of 1 m/s by odometry
    radius_m: Any = pytest.approx(8.0)
    assert circles == [None, Near(45.0, 9.0, 6.0), Near(45.0, 9.0, radius_m)]


def _move(known: Session, second: int) -> None:
    known.odometer.add(Pose(second * SECOND, np.array([float(second), 0.0, 0.0]), 0.0))


def _claim(known: Session) -> None:
    known.prior.offer(Hint(45.0, 9.0, 2.0, 5 * SECOND))


@pytest.mark.parametrize("where", ["file", "localizer"])
def test_an_image_that_cannot_be_used_is_named_and_the_rest_goes_on(where: str) -> None:
    localizer: Any = Hearing()
    whole = drive((5, 6, 7))
    if where == "file":
        broken = DriveImage("6.png", 6 * SECOND, unreadable)
        whole = Drive("a drive", (whole.images[0], broken, whole.images[2]))
    else:
        localizer.refuses = {6}
    replayed = list(replay(session(), localizer, whole))
    assert [each.answer is not None for each in replayed] == [True, False, True]
    assert replayed[1].problem == ("x.png: is truncated" if where == "file" else "frame: is 3 px wide")
    assert replayed[1].image is None


def test_an_unexpected_error_ends_the_replay() -> None:
    class Gone(Hearing):
        def localize(self, *_: Any, **__: Any) -> Answer:
            raise GalleryError("gallery: an image is gone")

    localizer: Any = Gone()
    with pytest.raises(GalleryError):
        list(replay(session(), localizer, drive((5,))))


def test_a_drive_whose_stamps_begin_anew_is_followed_from_there() -> None:
    localizer: Any = Hearing()
    known = session(prior={"source": "fix"})
    known.prior.offer(Hint(45.0, 9.0, 2.0, 5 * SECOND))
    list(replay(known, localizer, drive((5, 6, 1, 2))))
    assert known.epoch == 1 and known.prior_said == "no message yet"


def test_an_image_is_in_the_gallery_where_its_position_and_its_descriptor_are_there() -> None:
    def found(latitude_deg: float, distance: float) -> list[Candidate]:
        other = Candidate(1, Place("other.jpg", 48.1, 11.0), 1e-6)
        return [other, Candidate(0, Place("a.jpg", latitude_deg, 11.0), distance)]

    assert is_in_gallery(found(48.0, 1e-5), 48.0, 11.0)
    assert not is_in_gallery(found(48.0, 0.2), 48.0, 11.0), "another view from the same spot"
    assert not is_in_gallery(found(48.00001, 1e-5), 48.0, 11.0), "a metre away"
    assert not is_in_gallery([], 48.0, 11.0)
    assert said_of_themselves(0, 9) == ""
    assert said_of_themselves(2, 9).startswith("2 of 9 images are in the gallery themselves")
