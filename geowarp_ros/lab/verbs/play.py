"""Replay a bag's camera images into the running node as recorded: same bytes, same stamps, same intervals.

Needs ROS 2 (rclpy). The CameraInfo beside the images is published beside them. Starts when all else that is
published has a subscriber. With --clock it publishes /clock too, for
a node with use_sim_time; with --loop the node sees time jump back, as from any looping player.
"""

from __future__ import annotations

import argparse

from geowarp_ros.cli.parser import Existing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument(
        "bag", type=Existing("a ROS bag"), metavar="BAG", help="ROS 2 (folder, .mcap, .db3) or ROS 1 (.bag)"
    )
    parser.add_argument("--image-topic", default="", help="image topic; not needed if the bag has a single one")
    parser.add_argument(
        "--to", default="", metavar="TOPIC", help="publish on this topic instead of the recorded one"
    )
    parser.add_argument(
        "--also",
        nargs="+",
        default=[],
        metavar="TOPIC[:=TO]",
        help="other recorded topics to publish: /gps/fix:=/prior_fix /odom:=/odometry",
    )
    parser.add_argument("--rate", type=float, default=1.0, help="speed relative to the recording")
    parser.add_argument("--loop", action="store_true", help="repeat until interrupted")
    parser.add_argument("--clock", action="store_true", help="publish /clock, for a node with use_sim_time")
    parser.add_argument("--compressed", action="store_true", help="publish raw images as JPEG CompressedImage")
    parser.add_argument(
        "--patience", type=float, default=30.0, metavar="S", help="maximum time to wait for a subscriber (s)"
    )


def run(args: argparse.Namespace) -> int:
    """Publish, and say how much."""
    from geowarp_ros.cameras import camera_info_topic
    from geowarp_ros.errors import ConfigError, GeowarpError
    from geowarp_ros.readers.bag_files import BagFiles
    from geowarp_ros.readers.topics import IMAGE_TYPES, INFO_TYPE, choose_topic

    if not args.rate > 0:
        raise ConfigError(f"--rate {args.rate:g}: expected more than 0")
    files = BagFiles(args.bag)
    with files.reader() as reader:
        topic = choose_topic(args.bag, reader, args.image_topic, IMAGE_TYPES, "--image-topic")
        infos = [connection.topic for connection in reader.connections if connection.msgtype == INFO_TYPE]
    try:
        import rclpy
    except ImportError:
        raise GeowarpError("play needs ROS 2: source its setup.bash, or pip install 'geowarp_ros[ros]'") from None
    from geowarp_ros.lab.play import play
    from geowarp_ros.progress import bar
    from geowarp_ros.ros.process import check_home

    if files.broken:
        print(f"geowarp play: {args.bag} has a broken end, used as far as it goes: {files.broken}")
    target = args.to or (f"{topic}/compressed" if args.compressed else topic)
    info = camera_info_topic(topic)
    also = {info: camera_info_topic(target)} if info in infos else {}
    for words in args.also:
        recorded, given, published_as = words.partition(":=")
        if not recorded.strip("/") or (given and not published_as.strip("/")):
            raise ConfigError(f"--also {words!r}: expected TOPIC, or TOPIC:=TO")
        also[recorded] = published_as or recorded
    check_home()
    rclpy.init()
    node = rclpy.create_node("geowarp_play")
    try:
        while True:
            published = play(
                node,
                args.bag,
                {**also, topic: target},
                rate=args.rate,
                clock=args.clock,
                compressed=args.compressed,
                patience_s=args.patience,
                progress=bar,
            )
            print(f"{len(published)} images of {topic} published on {target}", flush=True)
            if not args.loop:
                return 0
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
