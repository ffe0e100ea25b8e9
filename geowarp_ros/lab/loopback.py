"""A ROS 2 graph that stays on this machine, for the demo and the tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from geowarp_ros.errors import SourceError

PROFILE = "fastdds_loopback.xml"


def loopback_environment(domain_id: int) -> dict[str, str]:
    """Return the environment variables that keep a process's traffic on loopback, in a domain of its own.

    They are read when a context is made, so they must be set before ``rclpy.init`` and in each process.

    Args:
        domain_id: 0 to 101 (above lie the ports that Linux hands out).
    """
    profile = str(profile_path())
    return {
        "FASTRTPS_DEFAULT_PROFILES_FILE": profile,
        "FASTDDS_DEFAULT_PROFILES_FILE": profile,
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",  # LOCALHOST would bind every interface
        "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
        "ROS_DOMAIN_ID": str(domain_id),
        "HOME": os.environ.get("HOME", "/tmp"),  # Fast DDS does not start without
    }


def own_domain_id() -> int:
    """Return a domain that another run on this machine is unlikely to have, 1 to 100."""
    return 1 + os.getpid() % 100


def profile_path() -> Path:
    """Return the Fast DDS profile: in the source tree, or where pip or colcon installed it.

    Raises:
        SourceError: It is in none of these places.
    """
    prefixes = [sys.prefix, *os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)]
    places = [Path(__file__).parents[2] / "config"]
    places += [Path(prefix, "share", "geowarp_ros", "config") for prefix in prefixes if prefix]
    for place in places:
        if (place / PROFILE).is_file():
            return place / PROFILE
    raise SourceError(f"{PROFILE}: expected in one of {', '.join(str(place) for place in places)}")
