"""Start the face node: ros2 launch radan_ros radan.launch.py image:=/camera/image_raw"""

import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription

CONFIG = os.path.join(get_package_share_directory("radan_ros"), "config", "radan.yaml")
BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def start_node(context: LaunchContext) -> list[Node]:
    """The node, with its topics and parameters as the arguments say."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    # image_transport's rule: the CameraInfo of an image lies beside it.
    image = value("image")
    folder, slash, _ = image.rpartition("/")
    camera_info = value("camera_info") or f"{folder}{slash}camera_info"
    if not os.path.isfile(value("config")):
        raise RuntimeError(f"config:={value('config')} is not a file")
    if value("use_sim_time").lower() not in BOOLEANS:
        raise RuntimeError(f"use_sim_time:={value('use_sim_time')} is neither true nor false")
    chosen: dict[str, object] = {"use_sim_time": BOOLEANS[value("use_sim_time").lower()]}
    chosen |= {name: value(name) for name in ("model", "device", "frame_prefix") if value(name)}
    if value("assumed_field_of_view"):
        try:
            chosen["assumed_field_of_view"] = float(value("assumed_field_of_view"))
        except ValueError:
            raise RuntimeError(f"assumed_field_of_view:={value('assumed_field_of_view')} is not a number") from None
    return [
        Node(
            package="radan_ros",
            executable="radan_node",
            name=value("name"),
            namespace=value("namespace"),
            parameters=[value("config"), chosen],
            remappings=[("image", image), ("camera_info", camera_info)],
            arguments=["--ros-args", "--log-level", value("log_level")],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments and the node."""

    def argument(name: str, default: str, description: str) -> DeclareLaunchArgument:
        return DeclareLaunchArgument(name, default_value=default, description=description)

    return LaunchDescription(
        [
            argument("image", "image", "Image topic (sensor_msgs/Image) of the camera."),
            argument("camera_info", "", "CameraInfo topic; empty: camera_info beside the image topic."),
            argument("namespace", "", "Namespace of the node and of its outputs."),
            argument("name", "radan", "Name of the node: its outputs are under it."),
            argument("model", "", "Model folder; empty: as the configuration says."),
            argument("device", "", "auto, cpu, cuda or cuda:<i>; empty: as the configuration says."),
            argument("assumed_field_of_view", "", "Degrees, without CameraInfo; empty: as the configuration says."),
            argument("frame_prefix", "", "Put before the TF frames face_<id>: two nodes in one TF tree need two."),
            argument("config", CONFIG, "Parameter file."),
            argument("use_sim_time", "false", "Clock of a simulation or a bag."),
            argument("log_level", "info", "debug, info, warn or error."),
            OpaqueFunction(function=start_node),
        ]
    )
