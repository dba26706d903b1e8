"""How a Fast DDS profile gets into a process: by an environment variable whose name changed with Kilted. No ROS."""

from __future__ import annotations

import os

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def profile_variable() -> str:
    """The one environment variable by which the sourced ROS takes a Fast DDS profile.

    Jazzy does not know the new name; Kilted warns of the old one, and of all transports twice where both are set.
    """
    return PROFILE_VARIABLES[os.environ.get("ROS_DISTRO", "") not in ("humble", "iron", "jazzy")]


def user_has_profile() -> bool:
    """Whether the user has chosen a profile, under either name; it is left alone then. An empty variable is not set."""
    return any(os.environ.get(name) for name in PROFILE_VARIABLES)


def use_profile() -> None:
    """Give this process, and those it starts, the package's profile where the user has chosen none.

    To be called before rclpy.init. Without the installed package nothing is done.
    """
    if user_has_profile():
        return
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
    except ImportError:
        return
    try:
        profile = os.path.join(get_package_share_directory("radan_ros"), "config", "fastdds.xml")
    except (PackageNotFoundError, OSError):  # OSError: no workspace is sourced
        return
    if os.path.isfile(profile):
        os.environ[profile_variable()] = profile
