"""Play a bag to the face node: ros2 launch radan_ros bag.launch.py bag:=folder image:=/camera/image_raw rviz:=true

Plays with `ros2 bag play` where rosbag2 is installed, else with the player of this package, and ends with the bag. The
arguments of radan.launch.py hold here, too.
"""

import os
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction, Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from radan_ros.fastdds import use_profile

MAIN = os.path.join(get_package_share_directory("radan_ros"), "launch", "radan.launch.py")
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def has_rosbag2() -> bool:
    """Whether `ros2 bag play` is installed."""
    try:
        get_package_prefix("ros2bag")
        get_package_prefix("rosbag2_transport")
    except PackageNotFoundError:
        return False
    return True


def play(context: LaunchContext) -> list[Any]:
    """The player."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    bag, player = os.path.expanduser(value("bag")), value("player")
    if not os.path.exists(bag):
        raise RuntimeError(f"bag:={bag}: no such bag")
    if player not in ("auto", "ros2bag", "play"):
        raise RuntimeError(f"player:={player} is none of auto, ros2bag, play")
    loop = BOOLEANS.get(value("loop").lower())
    if loop is None:
        raise RuntimeError(f"loop:={value('loop')} is neither true nor false")
    use_profile()  # for the player, too: its images do not fit the shared memory that Fast DDS takes by default
    topics = value("topics").split()
    options = ["--rate", value("rate"), *(["--loop"] if loop else []), *(["--topics", *topics] if topics else [])]
    ended = Shutdown(reason="the bag has ended")
    if player == "ros2bag" or (player == "auto" and has_rosbag2()):
        clock = ["--clock", "100", "--delay", value("delay"), "--disable-keyboard-controls"]
        return [ExecuteProcess(cmd=["ros2", "bag", "play", bag, *clock, *options], output="screen", on_exit=ended)]
    return [
        Node(
            package="radan_ros",
            executable="play",
            name="bag",
            # Not before the node listens: it opens its model first.
            arguments=[bag, "--clock", "--wait-for-subscribers", "--wait-timeout", "120", *options],
            output="screen",
            on_exit=ended,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments, player and node."""

    def argument(name: str, default: Any, description: str) -> DeclareLaunchArgument:
        return DeclareLaunchArgument(name, default_value=default, description=description)

    return LaunchDescription(
        [
            argument("bag", None, "The bag: a rosbag2 folder; our player takes a single .mcap or .db3 file, too."),
            argument("rate", "1.0", "How many times as fast as it was recorded."),
            argument("loop", "false", "true: again and again."),
            argument(
                "topics",
                "",
                "Topics to play, with spaces between them; empty: all (our player: cameras and transforms). Where the "
                "bag holds outputs of this node, name the camera's.",
            ),
            argument(
                "player", "auto", "ros2bag (ros2 bag play), play (of this package), or auto: the first that is there."
            ),
            argument("delay", "8.0", "Seconds before `ros2 bag play` begins: the node opens its model first."),
            argument("use_sim_time", "true", "The player publishes the time of the bag on /clock."),
            OpaqueFunction(function=play),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(MAIN)),
        ]
    )
