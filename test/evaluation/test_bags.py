"""Drives, truth and recorded fixes out of small bags; what is wrong is said by name."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyproj import Geod

from geowarp_ros.cameras import Camera
from geowarp_ros.config import PriorConfig, SessionConfig
from geowarp_ros.errors import SourceError
from geowarp_ros.evaluation.bags import TruthOptions, read_drive, read_fixes
from geowarp_ros.evaluation.drive import NS, Drive, DriveImage, Position, Track, drive_from_source
from geowarp_ros.geodesy import LocalFrame
from geowarp_ros.motion.session import Session
from geowarp_ros.readers import Source, SourceImage, read_source
from geowarp_ros.readers.camera_files import write_camera
from geowarp_ros.types import Fix, Image, NoFix, Place
from test.gallery import bags

START = bags.START_NS


def pose(
    t_s: float,
    x: float,
    y: float,
    *,
    topic: str = "/pose",
    kind: str = "geometry_msgs/msg/PoseStamped",
    yaw_deg: float = 0.0,
    yaw_variance: float = 0.0,
) -> bags.Message:
    """A pose in a local frame."""
    spread = np.zeros(36)
    spread[35] = yaw_variance
    half = math.radians(yaw_deg) / 2
    types = bags.ROS2.types
    stamp_ns = START + round(t_s * NS)
    plain = types["geometry_msgs/msg/Pose"](
        types["geometry_msgs/msg/Point"](x, y, 0.0),
        types["geometry_msgs/msg/Quaternion"](0.0, 0.0, math.sin(half), math.cos(half)),
    )
    header = bags._header(bags.ROS2, stamp_ns)
    if kind == "geometry_msgs/msg/PoseStamped":
        message = types[kind](header, plain)
    else:
        with_covariance = types["geometry_msgs/msg/PoseWithCovariance"](plain, spread)
        if kind == "nav_msgs/msg/Odometry":
            still = types["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
            twist = types["geometry_msgs/msg/TwistWithCovariance"](
                types["geometry_msgs/msg/Twist"](still, still), np.zeros(36)
            )
            message = types[kind](header, "base_link", with_covariance, twist)
        else:
            message = types[kind](header, with_covariance)
    return topic, stamp_ns, message


@pytest.fixture(scope="module")
def plain_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bags.write_bag(tmp_path_factory.mktemp("bags") / "plain", bags.drive())


def truth_of(image: DriveImage) -> Position:
    assert image.truth is not None
    return image.truth


def at(track: Track, stamp_ns: int, max_gap_s: float) -> Position:
    position = track.at(stamp_ns, max_gap_s)
    assert position is not None
    return position


def test_truth_is_interpolated_to_image_stamps(plain_bag: Path) -> None:
    drive = read_drive(plain_bag, "/camera", TruthOptions("/fix"))
    assert [image.stamp_ns for image in drive.images] == [START + row * NS // 2 for row in range(8)]
    latitudes = [truth_of(image).latitude_deg for image in drive.images]
    assert latitudes == pytest.approx([bags.LATITUDE + row * 0.5e-3 for row in range(8)], abs=1e-9)
    assert drive.images[3].read()[0, 0, 0] == 30
    assert drive.images[3].frame_id == "camera"
    assert drive.notes == ()


@pytest.mark.parametrize("storage", ["sqlite3", "ros1"])
def test_other_kinds_of_bag(tmp_path: Path, storage: str) -> None:
    if storage == "ros1":
        messages = [bags.image(0.5, 10, store=bags.ROS1)]
        messages += [bags.fix(t, 45 + t * 1e-3, store=bags.ROS1) for t in range(2)]
        path = bags.write_bag1(tmp_path / "drive.bag", messages)
    else:
        path = bags.write_bag(tmp_path / "drive", bags.drive(2), "sqlite3")
    drive = read_drive(path)
    assert truth_of(drive.images[-1]).latitude_deg == pytest.approx(45.0005, abs=1e-9)
    assert drive.images[-1].read()[0, 0, 0] == 10


@pytest.mark.parametrize(
    "kind",
    ["geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/PoseWithCovarianceStamped", "nav_msgs/msg/Odometry"],
)
def test_truth_in_a_local_frame_needs_its_origin(tmp_path: Path, kind: str) -> None:
    path = bags.write_bag(
        tmp_path / "drive", [bags.image(0.5, 10), *(pose(t, 10.0 * t, 4.0, kind=kind) for t in range(2))]
    )
    with pytest.raises(SourceError, match="--truth-datum"):
        read_drive(path, truth=TruthOptions("/pose"))
    drive = read_drive(path, truth=TruthOptions("/pose", datum=(45.0, 9.0)))
    truth = truth_of(drive.images[0])
    east_north = LocalFrame(45.0, 9.0).to_enu(truth.latitude_deg, truth.longitude_deg)[:2]
    assert east_north == pytest.approx([5.0, 4.0], abs=1e-3)


POSE_KINDS = (
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "nav_msgs/msg/Odometry",
)


@pytest.mark.parametrize("kind", POSE_KINDS)
def test_truth_with_an_orientation_has_true_headings(tmp_path: Path, kind: str) -> None:
    # 10 km east at 60° the datum's north is 0.155° off; the azimuth of 10 m ahead by pyproj is the truth
    yaws = {0: 80.0, 1: 100.0}
    messages = [pose(t, 10_000.0, 0.0, kind=kind, yaw_deg=yaw) for t, yaw in yaws.items()]
    path = bags.write_bag(tmp_path / "drive", [bags.image(0.5, 10), *messages])
    drive = read_drive(path, truth=TruthOptions("/pose", datum=(60.0, 9.0)))
    frame = LocalFrame(60.0, 9.0)
    ends = [frame.to_geodetic([10_000.0, north, 0.0]) for north in (0.0, 10.0)]
    (here_lat, here_lon, _), (ahead_lat, ahead_lon, _) = ends
    azimuth = Geod(ellps="WGS84").inv(here_lon, here_lat, ahead_lon, ahead_lat)[0]
    assert 0.15 < azimuth < 0.16
    assert truth_of(drive.images[0]).heading_deg == pytest.approx(azimuth, abs=1e-4)  # 80° and 100°: along y
    assert drive.notes == ()


@pytest.mark.parametrize("kind", POSE_KINDS[1:])
def test_truth_whose_orientation_is_unknown_has_no_heading(tmp_path: Path, kind: str) -> None:
    for yaw_deg, variance in ((30.0, 1e6), (0.0, 0.0)):  # by its variance; never set
        messages = [pose(t, 1.0, 0.0, kind=kind, yaw_deg=yaw_deg, yaw_variance=variance) for t in range(2)]
        path = bags.write_bag(tmp_path / f"drive{yaw_deg:g}", [bags.image(0.5, 10), *messages])
        drive = read_drive(path, truth=TruthOptions("/pose", datum=(60.0, 9.0)))
        assert math.isnan(truth_of(drive.images[0]).heading_deg)
        assert any("/pose has no orientation" in note for note in drive.notes)


def test_recorded_poses_give_the_fixes_their_orientation(tmp_path: Path) -> None:
    topic, kind = "/front/geowarp_localizer/pose", "geometry_msgs/msg/PoseWithCovarianceStamped"
    messages = [
        bags.fix(0, 45.0, topic="/front/geowarp_localizer/fix"),
        bags.fix(1, 45.1, topic="/front/geowarp_localizer/fix"),
        bags.fix(2, 45.2, topic="/front/geowarp_localizer/fix"),
        pose(0, 0.0, 0.0, topic=topic, kind=kind, yaw_deg=60.0, yaw_variance=0.01),
        pose(1, 0.0, 0.0, topic=topic, kind=kind, yaw_variance=1e6),
    ]
    answers, _ = read_fixes(bags.write_bag(tmp_path / "live", messages), "/front/geowarp_localizer/fix")
    first, *others = [answer.fix for answer in answers]
    assert first is not None and first.heading_deg == pytest.approx(30.0)
    assert first.heading_std_deg == pytest.approx(math.degrees(0.1))
    assert first.orientation == pytest.approx((0.0, 0.0, 0.5, math.sqrt(0.75)))
    assert [fix.orientation for fix in others if fix] == [None, None]


def test_truth_from_another_bag(tmp_path: Path) -> None:
    images = bags.write_bag(tmp_path / "images", [bags.image(0.5, 10)])
    truth = bags.write_bag(tmp_path / "truth", [bags.fix(t, 45 + t * 1e-3) for t in range(2)])
    drive = read_drive(images, truth=TruthOptions(bag=truth))
    assert truth_of(drive.images[0]).latitude_deg == pytest.approx(45.0005, abs=1e-9)


def test_an_offset_moves_the_truth_in_time(tmp_path: Path) -> None:
    path = bags.write_bag(
        tmp_path / "drive", [bags.image(7200.5, 10), *(bags.fix(t, 45 + t * 1e-3) for t in range(2))]
    )
    drive = read_drive(path, truth=TruthOptions(offset_s=7200.0))
    assert truth_of(drive.images[0]).latitude_deg == pytest.approx(45.0005, abs=1e-9)


def test_an_absent_topic_lists_what_is_there_and_the_nearest(plain_bag: Path) -> None:
    with pytest.raises(
        SourceError, match=r"no topic '/camra'.*did you mean '/camera'.*/fix \(sensor_msgs/msg/NavSat"
    ):
        read_drive(plain_bag, "/camra")
    with pytest.raises(SourceError, match="did you mean '/fix'"):
        read_drive(plain_bag, "/camera", TruthOptions("/fixx"))


def test_clocks_hours_apart_suggest_the_offset_by_the_recorders_clock(tmp_path: Path) -> None:
    # the truth's receiver stamps two hours ahead; both are recorded at the same time
    ahead = [(topic, recorded - 7200 * NS, message) for topic, recorded, message in bags.drive()[8:]]
    ahead = [(topic, recorded, _shifted(message, 0)) for topic, recorded, message in ahead]
    images = [
        (topic, recorded - 7200 * NS, _shifted(message, -7200)) for topic, recorded, message in bags.drive()[:8]
    ]
    path = bags.write_bag(tmp_path / "drive", images + ahead)
    with pytest.raises(
        SourceError, match=r"do not overlap: images from 2023.* try --truth-offset -7200\.000$"
    ) as said:
        read_drive(path)
    offset = float(str(said.value).rsplit(" ", 1)[1])
    # images are recorded 30 ms, fixes 200 ms late: less than the two hours, which is the difference of two zones
    assert offset == -7200
    drive = read_drive(path, truth=TruthOptions(offset_s=offset))
    assert sum(image.truth is not None for image in drive.images) >= 7


def _shifted(message: Any, seconds: int) -> Any:
    message.header.stamp.sec += seconds
    return message


def test_two_bags_apart_suggest_as_if_they_had_begun_together(tmp_path: Path) -> None:
    images = bags.write_bag(tmp_path / "images", [bags.image(5000 + t, 10) for t in range(3)])
    truth = bags.write_bag(tmp_path / "truth", [bags.fix(t, 45.0) for t in range(3)])
    with pytest.raises(SourceError, match=r"4998\.000 s apart.*--truth-offset 5000\.000"):
        read_drive(images, truth=TruthOptions(bag=truth))


def test_truth_of_the_same_clock_that_ended_early_gets_no_suggestion(tmp_path: Path) -> None:
    path = bags.write_bag(tmp_path / "drive", [bags.image(60, 10), bags.fix(0, 45.0), bags.fix(1, 45.0)])
    with pytest.raises(SourceError, match="was not recorded while images came") as said:
        read_drive(path)
    assert "--truth-offset" not in str(said.value)


def test_a_gps_clock_18_s_ahead_is_noticed(tmp_path: Path) -> None:
    messages = [bags.image(20 + t, 10) for t in range(3)]
    messages += [
        (topic, recorded - 18 * NS, message)
        for topic, recorded, message in (bags.fix(t, 45.0) for t in range(18, 42))
    ]
    notes = read_drive(bags.write_bag(tmp_path / "drive", messages)).notes
    assert notes[0] == (
        "by the recorder's clock the truth's stamps run 17.830 s ahead of the images' (GPS time against UTC: 18"
        " s); if that is no delay of the driver, --truth-offset -18.000 mends it"
    )


def test_gaps_of_the_truth_are_counted(tmp_path: Path) -> None:
    path = bags.write_bag(
        tmp_path / "drive",
        [*(bags.image(t, 10) for t in (0.5, 5, 9.5)), *(bags.fix(t, 45.0) for t in (0, 1, 9, 10))],
    )
    drive = read_drive(path)
    assert [image.truth is not None for image in drive.images] == [True, False, True]
    assert "1 of 3 images have no true position within 1 s" in drive.notes[0]
    assert all(image.truth for image in read_drive(path, truth=TruthOptions(max_gap_s=4.0)).images)


def test_a_bag_without_images_or_without_usable_fixes(tmp_path: Path) -> None:
    void = bags.write_bag(
        tmp_path / "void", [bags.image(0, 10), bags.fix(0, math.nan), bags.fix(1, 45.0, status=-1)]
    )
    with pytest.raises(SourceError, match="no usable position among the 2 messages on /fix"):
        read_drive(void)
    with pytest.raises(SourceError, match="no topic with messages of type sensor_msgs/msg/Image"):
        read_drive(bags.write_bag(tmp_path / "blind", [bags.fix(0, 45.0)]))


def test_a_bag_cut_off_in_the_middle_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    messages = [_noisy(bags.image(t / 2, 10), rng) for t in range(240)] + [bags.fix(t, 45.0) for t in range(121)]
    whole = bags.write_bag(tmp_path / "drive", messages)
    file = next(whole.glob("*.mcap"))
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(file.read_bytes()[: int(file.stat().st_size * 0.8)])
    drive = read_drive(cut)
    assert 0 < len(drive.images) < 240
    assert "broken end and was used as far as it goes" in drive.notes[0]
    assert drive.images[0].read().shape == (96, 128, 3)


def _noisy(message: bags.Message, rng: np.random.Generator) -> bags.Message:
    topic, recorded, image = message
    image.height, image.width, image.step = 96, 128, 384
    image.data = rng.integers(0, 255, 96 * 384, np.uint8)
    return topic, recorded, image


def test_a_killed_recorder_leaves_no_metadata(tmp_path: Path, plain_bag: Path) -> None:
    folder = tmp_path / "killed"
    shutil.copytree(plain_bag, folder)
    (folder / "metadata.yaml").unlink()
    assert len(read_drive(folder).images) == 8


def test_recorded_fixes(tmp_path: Path) -> None:
    path = bags.write_bag(
        tmp_path / "live",
        [
            bags.fix(0, 45.0, topic="/geowarp_localizer/fix"),
            bags.fix(1, math.nan, status=-1, topic="/geowarp_localizer/fix"),
        ],
    )
    answers, notes = read_fixes(path)
    fix, no_fix = (answer.result for answer in answers)
    assert isinstance(fix, Fix) and isinstance(no_fix, NoFix)
    assert answers[0].header.stamp_ns == START and answers[1].header.stamp_ns == START + NS
    assert fix.latitude_deg == 45.0 and math.isnan(answers[0].confidence)
    assert no_fix.reason == "unknown" and math.isnan(answers[1].confidence)
    assert notes == ()
    with pytest.raises(SourceError, match="did you mean '/geowarp_localizer/fix'"):
        read_fixes(path, "/geowarp_localiser/fix")


def test_a_session_hears_the_drives_prior_fixes_and_odometry_in_the_order_of_their_stamps(tmp_path: Path) -> None:
    messages = [*bags.drive(4), bags.fix(0.3, 45.1, topic="/gnss"), bags.fix(0.9, 45.2, status=-1, topic="/gnss")]
    messages += [pose(t, 2.0 * t, 0.0, topic="/odom", kind="nav_msgs/msg/Odometry") for t in (0.6, 0.0)]
    path = bags.write_bag(tmp_path / "drive", messages)
    truth = TruthOptions("/fix")
    assert read_drive(path, truth=truth).events == ()
    drive = read_drive(path, truth=truth, prior_topic="/gnss", odometry_topic="/odom")
    assert [event.stamp_ns - START for event in drive.events] == [0, 300_000_000, 600_000_000, 900_000_000]

    session = Session(SessionConfig(prior=PriorConfig(source="fix")))
    for event in drive.events[:3]:
        event.tell(session)
    near, _ = session.prior.near(START + NS // 2)
    assert near is not None and (near.latitude_deg, near.radius_m) == (
        45.1,
        500.0,
    )  # its covariance is of type UNKNOWN
    assert session.odometer.travelled_m(START, START + 600_000_000) == pytest.approx(1.2)
    drive.events[3].tell(session)
    assert session.prior.near(START + NS) == (None, "status -1: no fix")
    assert drive.thinned(2).events == drive.events


def test_a_session_hears_the_drives_imu(tmp_path: Path) -> None:
    lean = math.radians(20)
    messages = [*bags.drive(4), *(bags.imu(t / 100, (0.0, math.sin(lean), math.cos(lean))) for t in range(100))]
    path = bags.write_bag(tmp_path / "drive", messages)
    drive = read_drive(path, truth=TruthOptions("/fix"), imu_topic="/imu")
    assert len(drive.events) == 100
    session = Session(SessionConfig(gravity="imu", base_frame="base_link"))
    for event in drive.events[:51]:
        event.tell(session)
    found = session.plumb.gravity(START + NS // 2, session.mounting)
    assert found is not None and found.up == pytest.approx([-math.sin(lean), -math.cos(lean), 0.0])
    with pytest.raises(SourceError, match="--imu-topic"):
        read_drive(path, truth=TruthOptions("/fix"), imu_topic="/fix")


def test_a_drives_images_have_the_camera_beside_them_or_that_of_a_file(tmp_path: Path, plain_bag: Path) -> None:
    def focals(drive: Drive) -> list[float | None]:
        cameras = [image.camera_at(32, 24) for image in drive.images]
        return [None if camera is None else camera.fx for camera in cameras]

    assert focals(read_drive(plain_bag)) == [None] * 8
    path = bags.write_bag(tmp_path / "drive", [*bags.drive(), bags.info(0.0, 40.0), bags.info(2.0, 50.0)])
    assert focals(read_drive(path)) == [40.0] * 4 + [50.0] * 4
    assert focals(read_drive(path).thinned(4)) == [40.0, 50.0]
    assert focals(drive_from_source(read_source(path))) == [40.0] * 4 + [50.0] * 4
    file = tmp_path / "camera.yaml"
    write_camera(file, Camera(64, 48, 60, 60, 31.5, 23.5))
    assert focals(read_drive(path, camera=file)) == [30.0] * 8
    assert focals(read_drive(plain_bag, camera=file)) == [30.0] * 8


def test_topics_of_another_type_are_no_prior_and_no_odometry(tmp_path: Path, plain_bag: Path) -> None:
    truth = TruthOptions("/fix")
    with pytest.raises(SourceError, match="no topic '/odom'"):
        read_drive(plain_bag, truth=truth, odometry_topic="/odom")
    with pytest.raises(SourceError, match=r"/camera.*sensor_msgs/msg/Image"):
        read_drive(plain_bag, truth=truth, prior_topic="/camera")
    with pytest.raises(SourceError, match=r"/fix.*sensor_msgs/msg/NavSatFix"):
        read_drive(plain_bag, truth=truth, odometry_topic="/fix")


# ---- what is no truth


def judged(drive: Drive) -> dict[int, float | None]:
    """Return the true latitude of each image, by its shade; None where it is not judged."""
    return {
        int(image.read()[0, 0, 0]): None if image.truth is None else image.truth.latitude_deg
        for image in drive.images
    }


def north(shade: int) -> float:
    return bags.LATITUDE + shade / 10 * 0.5e-3


def test_truth_at_null_island_is_no_truth(tmp_path: Path) -> None:
    messages = bags.drive()
    lost = [bags.fix(t, 0.0, 0.0) for t in (0.0, 1.0)]
    path = bags.write_bag(tmp_path / "drive", [*messages[:8], *lost, *messages[10:]])
    drive = read_drive(path)
    assert judged(drive) == {
        shade: None if shade < 40 else pytest.approx(north(shade), abs=1e-8) for shade in range(0, 80, 10)
    }
    assert "2 of the messages on /fix at 0°, 0°, which receivers report without a fix" in drive.notes[0]
    nowhere = bags.write_bag(tmp_path / "nowhere", [*messages[:8], *lost])
    with pytest.raises(SourceError, match=r"no usable position among the 2 messages on /fix.*found 2 at 0°, 0°"):
        read_drive(nowhere)
    assert judged(read_drive(nowhere, truth=TruthOptions(accept_null_island=True)))[10] == 0.0


def test_truth_that_is_uncertain_or_jumps_is_left_out_and_counted(tmp_path: Path) -> None:
    uncertain = bags.fix(1.5, bags.LATITUDE + 0.03)
    uncertain[2].position_covariance[[0, 4]] = 9e6
    jumping = bags.fix(2.1, bags.LATITUDE + 2.1e-3 + 0.0045)  # 500 m
    drive = read_drive(bags.write_bag(tmp_path / "drive", [*bags.drive(), uncertain, jumping]))
    assert judged(drive) == {shade: pytest.approx(north(shade), abs=1e-8) for shade in range(0, 80, 10)}
    assert drive.notes == (
        "1 of the messages on /fix with a standard deviation above 100 m: left out",
        "1 of the messages on /fix that jump away from the others: left out",
    )


def test_the_pose_of_a_truth_says_its_uncertainty_too(tmp_path: Path) -> None:
    kind = "geometry_msgs/msg/PoseWithCovarianceStamped"
    poses = [pose(t, 0.0, 10.0 * t, kind=kind) for t in range(3)]
    poses[1][2].pose.covariance[[0, 7]] = 9e6
    path = bags.write_bag(tmp_path / "drive", [bags.image(0.5, 10), bags.image(1.0, 20), *poses])
    drive = read_drive(path, truth=TruthOptions("/pose", datum=(60.0, 9.0)))
    assert "1 of the messages on /pose with a standard deviation above 100 m: left out" in drive.notes
    assert truth_of(drive.images[1]).latitude_deg == pytest.approx(
        LocalFrame(60.0, 9.0).to_geodetic([0, 10, 0])[0]
    )


@pytest.mark.parametrize(("topic", "ahead", "offset"), [("/camera", 37, "37.000"), ("/fix", 18, "-18.000")])
def test_two_clocks_are_said_as_a_gallery_says_them(tmp_path: Path, topic: str, ahead: int, offset: str) -> None:
    messages = [bags.image(t / 2, 2 * t) for t in range(100)] + [bags.fix(t, 45 + t * 1e-3) for t in range(51)]
    messages = [(name, at, _shifted(made, ahead if name == topic else 0)) for name, at, made in messages]
    path = bags.write_bag(tmp_path / "drive", messages)
    notes = read_drive(path).notes
    assert any(f"--truth-offset {offset} mends it" in note for note in notes)
    with pytest.raises(SourceError, match=f"--fix-offset {offset} mends it"):
        read_source(path)
    expected = {2 * t: pytest.approx(45 + t / 2 * 1e-3, abs=1e-8) for t in range(100)}
    assert judged(read_drive(path, truth=TruthOptions(offset_s=float(offset)))) == expected
    images = read_source(path, fix_offset_s=float(offset)).images
    found: dict[int, Any] = {int(image.read()[0, 0, 0]): image.place.latitude_deg for image in images}
    assert found == expected


def test_a_clock_that_steps_back_moves_neither_truth_nor_what_else_is_heard(tmp_path: Path) -> None:
    """By 2 s after 3 s, of all that is stamped; the recorder's clock goes on."""
    odometry = [pose(t / 4, 0.5 * t, 0.0, topic="/odom", kind="nav_msgs/msg/Odometry") for t in range(40)]
    messages = [bags.image(t / 4, 5 * t) for t in range(40)]
    messages += [bags.fix(t / 4, bags.LATITUDE + t * 0.25e-3) for t in range(41)]
    messages += [bags.fix(t, bags.LATITUDE, topic="/gnss") for t in range(10)] + odometry
    stepped = [
        (
            topic,
            at,
            _shifted(made, -2 if made.header.stamp.sec * NS + made.header.stamp.nanosec > START + 3 * NS else 0),
        )
        for topic, at, made in messages
    ]
    path = bags.write_bag(tmp_path / "drive", stepped)
    drive = read_drive(path, truth=TruthOptions("/fix"), prior_topic="/gnss", odometry_topic="/odom")
    assert judged(drive) == {5 * t: pytest.approx(bags.LATITUDE + t * 0.25e-3, abs=1e-8) for t in range(40)}
    assert [image.stamp_ns - START for image in drive.images] == [t * NS // 4 for t in range(40)]
    assert any("step back by 1.750 s" in note and "time of recording orders" in note for note in drive.notes)
    session = Session(SessionConfig(prior=PriorConfig(source="fix")))
    for event in drive.events:
        event.tell(session)
    assert session.odometer.travelled_m(START, START + 39 * NS // 4) == pytest.approx(19.5)
    near, _ = session.prior.near(START + 9 * NS)
    assert near is not None and near.latitude_deg == bags.LATITUDE


def test_a_clock_that_is_set_on_the_way_is_not_judged_before(tmp_path: Path) -> None:
    messages = [bags.image(t / 2, 5 * t) for t in range(40)] + [bags.fix(t, 45 + t * 1e-3) for t in range(60)]
    for topic, _, made in messages:
        if topic == "/camera" and made.header.stamp.sec * NS + made.header.stamp.nanosec > START + 15 * NS:
            _shifted(made, 37)
    drive = read_drive(bags.write_bag(tmp_path / "drive", messages))
    found = {shade: latitude for shade, latitude in judged(drive).items() if latitude is not None}
    assert len(found) >= 28
    assert found == {shade: pytest.approx(45 + shade / 10 * 1e-3, abs=1e-8) for shade in found}
    assert any("stamped by another clock than the truth around them" in note for note in drive.notes)


def test_a_missing_split_is_a_note(tmp_path: Path) -> None:
    path = bags.write_bag(tmp_path / "drive", bags.drive())
    file = path / "metadata.yaml"
    file.write_text(file.read_text().replace("- drive.mcap", "- drive.mcap\n  - drive_1.mcap", 1))
    drive = read_drive(path)
    assert len(drive.images) == 8
    assert drive.notes == ("drive_1.mcap is absent, though metadata.yaml names it",)


def test_a_track_has_no_truth_outside_itself() -> None:
    track = Track.of([(2 * NS, 45.0, 9.0, 1.0, 10.0), (0, 45.0, 9.0, 0.0, 350.0)])
    assert track.at(-1, 5.0) is None and track.at(2 * NS + 1, 5.0) is None
    assert at(track, NS, 1.0).altitude_m == pytest.approx(0.5)
    assert at(track, NS // 2, 1.0).heading_deg == pytest.approx(355.0)
    assert at(track, 3 * NS // 2, 1.0).heading_deg == pytest.approx(5.0)
    assert track.at(NS, 0.9) is None
    assert at(track, 2 * NS, 0.1).altitude_m == 1.0


def test_a_track_crosses_the_antimeridian() -> None:
    truth = at(Track.of([(0, 0.0, 179.999, 0.0, math.nan), (NS, 0.0, -179.999, 0.0, 1.0)]), NS // 2, 1.0)
    assert abs(truth.longitude_deg) == pytest.approx(180.0, abs=1e-6)
    assert math.isnan(truth.heading_deg)


def unread() -> Image:
    raise AssertionError("nothing is decoded before it is asked for")


def test_any_source_is_a_drive() -> None:
    images = tuple(
        SourceImage(Place(f"{row}.jpg", 45.0 + row, 9.0, stamp_ns=stamp), unread)
        for row, stamp in enumerate((5, 3))
    )
    drive = drive_from_source(Source(images))
    assert [image.name for image in drive.images] == ["1.jpg", "0.jpg"]
    unstamped = drive_from_source(Source((SourceImage(Place("a", 45.0, 9.0), unread), images[0])))
    assert [image.stamp_ns for image in unstamped.images] == [NS, 2 * NS]
    assert "no stamps" in unstamped.notes[0]
    headed = Place("b", 45.0, 9.0, 1.0, 77.0)
    (only,) = drive_from_source(Source((SourceImage(headed, unread),))).images
    assert truth_of(only) == Position(45.0, 9.0, 1.0, 77.0)
    with pytest.raises(SourceError, match="no images"):
        drive_from_source(Source(()))
    assert [image.name for image in drive.thinned(2).images] == ["1.jpg"]
    assert len(drive.thinned(1, 1).images) == 1
