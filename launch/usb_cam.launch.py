"""A USB camera and the face node: ros2 launch radan_ros usb_cam.launch.py rviz:=true

Drives the camera with usb_cam or v4l2_camera where one is installed, else with the player of this package. The
arguments of radan.launch.py hold here, too.
"""

import os
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, LogInfo, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from radan_ros.fastdds import use_profile

SHARE = get_package_share_directory("radan_ros")
DRIVERS = ("usb_cam", "v4l2_camera", "play")


def installed(package: str) -> bool:
    """Whether a package is installed."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def drive(context: LaunchContext) -> list[Node | LogInfo]:
    """The camera driver, which publishes image_raw and camera_info in the camera's namespace."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    def number(name: str, kind: Any) -> Any:
        try:
            return kind(value(name))
        except ValueError:
            raise RuntimeError(f"{name}:={value(name)} is not a number") from None

    driver = value("driver")
    if driver == "auto":
        driver = next(name for name in DRIVERS if name == "play" or installed(name))
    if driver not in DRIVERS:
        raise RuntimeError(f"driver:={driver} is none of auto, {', '.join(DRIVERS)}")
    use_profile()  # for the driver, too: its images do not fit the shared memory that Fast DDS takes by default
    width, height, rate = number("width", int), number("height", int), number("frame_rate", float)
    device, frame = value("video_device"), value("camera_frame")
    common: dict[str, Any] = {"video_device": device}
    if value("camera_info_url"):
        common["camera_info_url"] = value("camera_info_url")
    camera: dict[str, Any]
    if driver == "usb_cam":
        form = {"image_width": width, "image_height": height, "framerate": rate, "pixel_format": value("pixel_format")}
        camera = {"executable": "usb_cam_node_exe", "parameters": [common | form | {"frame_id": frame}]}
    elif driver == "v4l2_camera":
        sizes = {"image_size": [width, height], "camera_frame_id": frame}
        camera = {"executable": "v4l2_camera_node", "parameters": [common | sizes]}
    else:
        # It knows no calibration: without CameraInfo the node says that distances are a guess.
        options = ["--no-camera-info", "--best-effort", "--frame-id", frame]
        camera = {"executable": "play", "arguments": [device, *options], "remappings": [("image", "image_raw")]}
    node = Node(
        package="radan_ros" if driver == "play" else driver,
        name="driver",
        namespace=value("camera"),
        output="screen",
        **camera,
    )
    if driver == "play" and value("camera_info_url"):
        return [LogInfo(msg="camera_info_url is ignored: the driver is play, which reads no calibration"), node]
    return [node]


def generate_launch_description() -> LaunchDescription:
    """Arguments, camera driver and node."""

    def argument(name: str, default: str, description: str) -> DeclareLaunchArgument:
        return DeclareLaunchArgument(name, default_value=default, description=description)

    return LaunchDescription(
        [
            argument("video_device", "/dev/video0", "The camera."),
            argument(
                "driver", "auto", "usb_cam, v4l2_camera, play (of this package), or auto: the first that is there."
            ),
            argument("camera", "camera", "Namespace of the camera's topics."),
            argument("camera_frame", "camera_optical_frame", "frame_id of the images; RViz' fixed frame, too."),
            argument("width", "640", "Width of the images in pixels (play: as the camera likes)."),
            argument("height", "480", "Height of the images in pixels (play: as the camera likes)."),
            argument("frame_rate", "30.0", "Images a second, of usb_cam."),
            argument(
                "pixel_format",
                "yuyv",
                "Format of the camera, of usb_cam, by its names: yuyv, uyvy, mjpeg2rgb (many cameras need it for large "
                "images at full rate), ...",
            ),
            argument(
                "camera_info_url",
                "",
                "Calibration, as camera_calibration writes it: file:///path/camera.yaml; the driver play ignores it.",
            ),
            argument("fixed_frame", LaunchConfiguration("camera_frame"), "RViz' fixed frame."),
            argument("image", ["/", LaunchConfiguration("camera"), "/image_raw"], "Image topic of the camera."),
            OpaqueFunction(function=drive),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(os.path.join(SHARE, "launch", "radan.launch.py"))),
        ]
    )
