"""Start the face node: ros2 launch radan_ros radan.launch.py image:=/camera/image_raw"""

import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
SHARE = get_package_share_directory("radan_ros")


def start_node(context: LaunchContext) -> list[Node]:
    """The node, with its topics and parameters as the arguments say."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    image = value("image")
    # image_transport's rule: the CameraInfo of an image lies beside it.
    camera_info = value("camera_info") or image.rpartition("/")[0] + ("/" if "/" in image else "") + "camera_info"
    parameters: list[str | dict[str, object]] = [value("config")]
    chosen: dict[str, object] = {name: value(name) for name in ("model", "device") if value(name)}
    if value("assumed_field_of_view"):
        chosen["assumed_field_of_view"] = float(value("assumed_field_of_view"))
    parameters.append(chosen | {"use_sim_time": value("use_sim_time").lower() in ("true", "1")})
    # A profile that the user has set is the user's choice. Kilted renamed the variable, and warns of the old name.
    profile = {}
    if value("fastdds_profile") and not any(name in os.environ for name in PROFILE_VARIABLES):
        before_kilted = os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy")
        profile = {PROFILE_VARIABLES[0 if before_kilted else 1]: value("fastdds_profile")}
    return [
        Node(
            package="radan_ros",
            executable="radan_node",
            name=value("name"),
            namespace=value("namespace"),
            parameters=parameters,
            remappings=[("image", image), ("camera_info", camera_info)],
            arguments=["--ros-args", "--log-level", value("log_level")],
            additional_env=profile,
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
            argument(
                "assumed_field_of_view", "", "Degrees, used without CameraInfo; empty: as the configuration says."
            ),
            argument("config", os.path.join(SHARE, "config", "radan.yaml"), "Parameter file."),
            argument(
                "fastdds_profile",
                os.path.join(SHARE, "config", "fastdds.xml"),
                "Fast DDS profile for images in shared memory; empty: none. One set in the environment wins.",
            ),  # fmt: skip
            argument("use_sim_time", "false", "Clock of a simulation or a bag."),
            argument("log_level", "info", "debug, info, warn or error."),
            OpaqueFunction(function=start_node),
        ]
    )
