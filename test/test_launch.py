"""Launch files: real `ros2 launch` where it is installed, which it is not where ROS comes from PyPI."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("launch_ros", reason="needs launch_ros, which is not on PyPI")
if shutil.which("ros2") is None:
    pytest.skip("needs the command ros2", allow_module_level=True)

from launch.actions import DeclareLaunchArgument
from launch.launch_description_sources import PythonLaunchDescriptionSource

from radan_ros.ros.parameters import Settings

FILES = ("radan", "bag", "usb_cam")
FOLDER = Path(__file__).parents[1] / "launch"
PATIENCE = 90.0


class Launch:
    """A `ros2 launch` of this package, in the background."""

    def __init__(self, log: Path, file: str, *arguments: str) -> None:
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                ["ros2", "launch", "radan_ros", f"{file}.launch.py", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )

    def said(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until it has said something."""
        until = time.monotonic() + PATIENCE
        while True:
            ended = self._process.poll() is not None  # before it is read: no last word is missed
            if text in self.said():
                return
            assert time.monotonic() < until and not ended, self.said()
            time.sleep(0.1)

    def end(self) -> int:
        """Wait for its own end: the exit status."""
        return self._process.wait(PATIENCE)

    def interrupt(self) -> int:
        """Ctrl-C: the exit status."""
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def close(self) -> None:
        """End it whatever it does."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Any]:
    """Starts launch files; what is left of them is ended after the test."""
    running: list[Launch] = []

    def start(file: str, *arguments: str) -> Launch:
        running.append(Launch(tmp_path / f"{len(running)}.log", file, *arguments))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.mark.parametrize("file", FILES)
def test_the_arguments_are_told_with_what_they_do(file: str) -> None:
    command = ["ros2", "launch", "radan_ros", f"{file}.launch.py", "--show-args"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    names = re.findall(r"^ {4}'(\w+)':$", shown, re.MULTILINE)
    assert {field.name for field in fields(Settings)} | {"rviz", "lifecycle", "image", "config"} <= set(names)
    assert len(names) == len(set(names))
    described = re.findall(r"^ {4}'\w+':\n {8}\S.{3,}", shown, re.MULTILINE)
    assert len(described) == len(names)


@pytest.mark.parametrize("file", FILES)
def test_no_argument_of_a_launch_file_is_a_parameter_of_the_node_by_accident(file: str) -> None:
    # An included file takes over the arguments of the same name.
    description = PythonLaunchDescriptionSource(
        str(FOLDER / f"{file}.launch.py")
    ).try_get_launch_description_without_context()
    own = [action.name for action in description.entities if isinstance(action, DeclareLaunchArgument)]
    parameters = {field.name for field in fields(Settings)}
    assert len(own) == len(set(own)) and (file == "radan" or not parameters & set(own))


def test_arguments_reach_the_node(launch: Any) -> None:
    names = ("namespace:=robot", "name:=eyes", "image:=/camera/image_raw", "log_level:=debug")
    node = launch(
        "radan", *names, "max_faces:=3", "smoothing:=0", "publish:=[meshes, overlay]", "device:=cpu", "model:=7"
    )
    node.wait_for("[robot.eyes]: cannot start: model folder 7")  # no number, but a folder that is not there
    assert node.end() == 0
    node = launch("radan", *names, "max_faces:=3", "publish:=meshes,nothing")
    node.wait_for("publish names 'nothing', which is unknown")
    node = launch(
        "radan", *names, "smoothing:=0", "publish:=meshes,overlay", "image_transport:=compressed", "threads:=1"
    )
    node.wait_for("[robot.eyes]: waiting for images on /camera/image_raw/compressed")
    assert node.interrupt() in (0, 1) and "Traceback" not in node.said()


@pytest.mark.parametrize(
    ("file", "argument", "reason"),
    [
        ("radan", "max_faces:=many", "max_faces:=many is not a whole number"),
        ("radan", "smoothing:=much", "smoothing:=much is not a number"),
        ("radan", "lifecycle:=maybe", "lifecycle:=maybe is neither true nor false"),
        ("radan", "config:=nowhere.yaml", "config:=nowhere.yaml is not a file"),
        ("radan", "rviz_config:=nowhere", "rviz_config:=nowhere is not a file"),
        ("bag", "bag:=nowhere", "bag:=nowhere: no such bag"),
        ("usb_cam", "driver:=none", "driver:=none is none of auto, usb_cam, v4l2_camera, play"),
        ("usb_cam", "width:=wide", "width:=wide is not a number"),
    ],
)
def test_a_wrong_argument_is_named(file: str, argument: str, reason: str, launch: Any) -> None:
    wrong = launch(file, argument)
    assert wrong.end() == 1 and reason in wrong.said() and "Traceback" not in wrong.said(), wrong.said()


def called(kind: Any, service: str, **request: Any) -> Any:
    """The answer of a service of a launched node."""
    rclpy = pytest.importorskip("rclpy")
    rclpy.init()
    node = rclpy.create_node("launch_test")
    try:
        client = node.create_client(kind, service)
        assert client.wait_for_service(PATIENCE)
        future = client.call_async(kind.Request(**request))
        rclpy.spin_until_future_complete(node, future, timeout_sec=PATIENCE)
        return future.result()
    finally:
        node.destroy_node()
        rclpy.shutdown()


def test_with_lifecycle_the_node_waits_unconfigured(launch: Any) -> None:
    from lifecycle_msgs.srv import GetState

    launch("radan", "lifecycle:=true", "namespace:=launched")
    assert called(GetState, "/launched/radan/get_state").current_state.label == "unconfigured"


@pytest.mark.parametrize(
    ("number", "arguments", "has"),
    [
        (0, ("namespace:=space{}",), False),
        (1, ("namespace:=space{}", "publish:=humans,depth"), True),
        (2, ("namespace:=space{}", "config:={folder}/own.yaml"), True),
        (3, ("name:=space{}",), True),
    ],
)
def test_nodes_in_namespaces_do_not_share_the_topics_of_people(
    number: int, arguments: tuple[str, ...], has: bool, launch: Any, tmp_path: Path
) -> None:
    from rcl_interfaces.srv import GetParameters

    (tmp_path / "own.yaml").write_text("/**: {ros__parameters: {publish: [meshes, humans]}}")
    launch("radan", "lifecycle:=true", *(text.format(number, folder=tmp_path) for text in arguments))
    node = f"/space{number}" if arguments[0].startswith("name:") else f"/space{number}/radan"
    [value] = called(GetParameters, f"{node}/get_parameters", names=["publish"]).values
    assert value.string_array_value and ("humans" in value.string_array_value) == has


def test_a_bag_is_played_to_the_node_and_all_ends_with_it(launch: Any, tmp_path: Path) -> None:
    pytest.importorskip("rosbags", reason="the bag is made with rosbags")
    pytest.importorskip("skimage", reason="the built-in picture comes with scikit-image")
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    from radan_ros.tools.sources import Astronaut

    store = get_typestore(Stores.ROS2_JAZZY)
    kind = "sensor_msgs/msg/Image"
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/eye/image_raw", kind, typestore=store)
        source = Astronaut()
        for k in range(20):
            ns = 1_700_000_000_000_000_000 + k * 50_000_000
            stamp = store.types["builtin_interfaces/msg/Time"](*divmod(ns, 10**9))
            header = store.types["std_msgs/msg/Header"](stamp, "eye")
            image = store.types[kind](header, 480, 640, "bgr8", 0, 1920, source.frame(k).reshape(-1))
            writer.write(connection, ns, store.serialize_cdr(image, kind))
    arguments = (f"bag:={tmp_path / 'bag'}", "image:=/eye/image_raw", "player:=play", "rate:=0.5", "device:=cpu")
    played = launch("bag", *arguments)
    assert played.end() == 0, played.said()
    said = played.said()
    assert "first image: 640x480 bgr8 in 'eye'" in said and "first face" in said, said
    assert re.search(r"20 images of \S+/bag", said) and "Traceback" not in said, said


def test_a_calibration_that_the_driver_does_not_read_is_said(launch: Any) -> None:
    camera = launch(
        "usb_cam", "driver:=play", "video_device:=/dev/none", "camera_info_url:=file:///x", "lifecycle:=true"
    )
    camera.wait_for("camera_info_url is ignored: the driver is play")
    camera = launch("usb_cam", "driver:=play", "video_device:=/dev/none", "lifecycle:=true")
    camera.wait_for("/dev/none: no such file")
    assert "camera_info_url" not in camera.said()


@pytest.mark.parametrize("form", ["yuyv", "mjpeg2rgb"])
def test_usb_cam_is_told_a_format_that_the_node_reads(
    form: str, launch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a package of its name that says what it was told."""
    marker = tmp_path / "share" / "ament_index" / "resource_index" / "packages" / "usb_cam"
    program = tmp_path / "lib" / "usb_cam" / "usb_cam_node_exe"
    for path in (marker, program):
        path.parent.mkdir(parents=True)
    marker.touch()
    program.write_text('#!/bin/sh\nfor word in "$@"; do if [ -f "$word" ]; then cat "$word"; fi; done\n')
    program.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path}{os.pathsep}{os.environ['AMENT_PREFIX_PATH']}")
    chosen = () if form == "yuyv" else (f"pixel_format:={form}",)
    driver = launch("usb_cam", "camera_info_url:=file:///x", "lifecycle:=true", *chosen)
    driver.wait_for(f"pixel_format: {form}")
    driver.wait_for("camera_info_url: file:///x")
    assert "is ignored" not in driver.said()
