"""Several cameras, one model: a localizer node per namespace, all in one process.

    localizers front rear --ros-args -p gallery:=/data/gallery -r image:=image_raw

starts ``/front/geowarp_localizer`` on ``/front/image_raw`` and ``/rear/geowarp_localizer`` on ``/rear/image_raw``.
What follows ``--ros-args`` applies to all of them; a parameter file can set values per fully qualified node name.
Namespaces that begin without a slash lie below the process's own (``-r __ns:=/robot``, as launch files push it).
The model is loaded once, and images are localised one at a time, whichever camera they come from.
"""

from __future__ import annotations

import posixpath
import sys
import threading
from collections.abc import Callable

from rclpy.exceptions import InvalidNamespaceException
from rclpy.utilities import remove_ros_args
from rclpy.validate_namespace import validate_namespace

from geowarp_ros.errors import ConfigError
from geowarp_ros.ros.loading import SharedModel
from geowarp_ros.ros.node import LocalizerNode
from geowarp_ros.ros.process import run


def make_nodes(cameras: list[str], give_up: Callable[[], None], within: str = "") -> list[LocalizerNode]:
    """Make a node in each camera's namespace.

    Args:
        cameras: The namespaces.
        give_up: As for a node.
        within: Namespace of the process, below which relative ones lie.

    Raises:
        ConfigError: No camera, a duplicate, or an invalid namespace; or a bad parameter.
    """
    if not cameras:
        raise ConfigError("no camera: expected their namespaces, such as: localizers front rear --ros-args ...")
    namespaces = [posixpath.join("/", within, camera).rstrip("/") for camera in cameras]
    for camera, namespace in zip(cameras, namespaces, strict=True):
        if namespaces.count(namespace) > 1:
            raise ConfigError(f"camera {camera!r}: given twice")
        try:
            validate_namespace(namespace)
        except InvalidNamespaceException as error:
            raise ConfigError(f"camera {camera!r}: not a valid namespace: {error}".splitlines()[0]) from None
    opener, turn = SharedModel(), threading.Lock()
    # as a node's own argument: that of the process, -r __ns:=, would put all of them into one namespace
    own = [["--ros-args", "-r", f"__ns:={namespace}"] for namespace in namespaces]
    return [LocalizerNode(opener, give_up, turn, cli_args=arguments) for arguments in own]


def main(args: list[str] | None = None) -> int:
    """Run the nodes until SIGINT or SIGTERM; returns the exit status."""
    words = sys.argv if args is None else args
    cameras = remove_ros_args(words)[1:]
    within = next((word.removeprefix("__ns:=") for word in words if word.startswith("__ns:=")), "")
    return run(lambda give_up: make_nodes(cameras, give_up, within), args, "localizers CAMERA [CAMERA ...]")


if __name__ == "__main__":
    raise SystemExit(main())
