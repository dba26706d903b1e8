"""Start the face node: ros2 launch radan_ros radan.launch.py image:=/camera/image_raw

Every parameter of the node is an argument of its own name, with the description that the node gives it.
"""

import os
from dataclasses import fields
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription
from radan_ros.ros.parameters import Settings

CONFIG = os.path.join(get_package_share_directory("radan_ros"), "config")
SHIPPED = os.path.join(CONFIG, "radan.yaml")
BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
# Of config/radan.rviz, under the node's name.
OUTPUTS = ("overlay", "depth", "markers", "points")
# Its topics have the same names for all nodes: of several, one may publish them.
SHARED = "humans"
PARAMETERS = {field.name: (field.default, field.metadata["description"]) for field in fields(Settings)}

BUT = {"publish": f"; in a namespace, with the package's own file, all but {SHARED}: name it for the one node that may"}


def boolean(name: str, text: str) -> bool:
    """The value of an argument that is true or false."""
    if text.lower() not in BOOLEANS:
        raise RuntimeError(f"{name}:={text} is neither true nor false")
    return BOOLEANS[text.lower()]


def parameter(name: str, text: str) -> Any:
    """The value of an argument as the node's parameter wants it."""
    default, _ = PARAMETERS[name]
    if isinstance(default, str):
        return ParameterValue(text, value_type=str)  # else a folder 2024 would be a number
    if isinstance(default, bool):
        return boolean(name, text)
    if isinstance(default, tuple):
        names = yaml.safe_load(text) if text.lstrip().startswith("[") else text.split(",")
        return [str(item).strip() for item in names]
    kind = type(default)
    try:
        return kind(text)
    except ValueError:
        raise RuntimeError(f"{name}:={text} is not {'a whole' if kind is int else 'a'} number") from None


def start(context: LaunchContext) -> list[Node]:
    """The node, and RViz where it is asked for, with topics and parameters as the arguments say."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    # image_transport's rule: the CameraInfo of an image lies beside it.
    image = value("image")
    folder, slash, _ = image.rpartition("/")
    camera_info = value("camera_info") or f"{folder}{slash}camera_info"
    files = {name: os.path.expanduser(value(name)) for name in ("config", "rviz_config")}  # no shell does, after :=
    for name, path in files.items():
        if not os.path.isfile(path):
            raise RuntimeError(f"{name}:={path} is not a file")
    clock: dict[str, Any] = {"use_sim_time": boolean("use_sim_time", value("use_sim_time"))}
    chosen = {name: parameter(name, value(name)) for name in PARAMETERS if value(name)}
    if value("namespace").strip("/") and files["config"] == SHIPPED and "publish" not in chosen:
        chosen["publish"] = [name for name in PARAMETERS["publish"][0] if name != SHARED]
    lifecycle = boolean("lifecycle", value("lifecycle"))
    place = [part for part in (value("namespace").strip("/"), value("name")) if part]
    nodes = [
        (LifecycleNode if lifecycle else Node)(
            package="radan_ros",
            executable="radan_lifecycle_node" if lifecycle else "radan_node",
            name=value("name"),
            namespace=value("namespace"),
            parameters=[files["config"], clock | chosen],
            remappings=[("image", image), ("camera_info", camera_info)],
            # Of its own logger: that of all would tell what the client library does, too.
            arguments=["--ros-args", "--log-level", f"{'.'.join(place).replace('/', '.')}:={value('log_level')}"],
            output="screen",
        )
    ]
    if boolean("rviz", value("rviz")):
        prefix = "/" + "/".join(place)
        nodes.append(
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=value("namespace"),
                parameters=[clock],
                arguments=["-d", files["rviz_config"], "-f", value("fixed_frame")],
                remappings=[("/image", image), *((f"/radan/{name}", f"{prefix}/{name}") for name in OUTPUTS)],
                output="log",
            )
        )
    return nodes


def generate_launch_description() -> LaunchDescription:
    """Arguments and the node."""

    def argument(name: str, default: str, description: str) -> DeclareLaunchArgument:
        return DeclareLaunchArgument(name, default_value=default, description=description)

    return LaunchDescription(
        [
            argument("image", "image", "Image topic of the camera; with image_transport:=compressed its base name."),
            argument("camera_info", "", "CameraInfo topic; empty: camera_info beside the image topic."),
            argument("namespace", "", "Namespace of the node and of its outputs."),
            argument("name", "radan", "Name of the node: its outputs are under it."),
            argument("config", SHIPPED, "Parameter file."),
            argument("lifecycle", "false", "true: the node waits unconfigured, for a manager or ros2 lifecycle set."),
            argument("rviz", "false", "true: start RViz, too."),
            argument("rviz_config", os.path.join(CONFIG, "radan.rviz"), "What RViz shows."),
            argument("fixed_frame", "camera_optical_frame", "RViz' fixed frame; the frame_id of the images will do."),
            argument("use_sim_time", "false", "Clock of a simulation or a bag."),
            argument("log_level", "info", "debug, info, warn or error."),
            *(
                argument(name, "", f"{description} Default: as the parameter file says{BUT.get(name, '')}.")
                for name, (_, description) in PARAMETERS.items()
            ),
            OpaqueFunction(function=start),
        ]
    )
