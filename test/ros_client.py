"""The tests' side of the wire: starts real nodes as processes of their own, and talks to them over DDS."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from ament_index_python.packages import get_package_prefix
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from radan_ros.msg import FaceArray, FaceMeshArray, FaceTopology
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from radan_ros.fastdds import use_profile

OUTPUTS = {"faces": FaceArray, "meshes": FaceMeshArray, "depth": Image, "pncc": Image}
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# As in the demo and the launch file: without it a camera image takes the way of UDP fragments, and a best-effort
# subscriber may never see a whole one.
use_profile()
# For tests that ask one image at a time: the detector answers within it, and its faces are published as they are seen.
AT_ONCE = ("-p", "deterministic_ids:=true", "-p", "confirm_images:=1", "-p", "smoothing:=0.0")
PATIENCE = 30.0  # seconds: how long anything may take on a busy machine before it counts as not coming


class Process:
    """A running program of the package: radan_node, unless another one is named."""

    def __init__(
        self,
        *ros_args: str,
        environment: dict[str, str] | None = None,
        program: str = "radan_node",
        arguments: tuple[str, ...] = (),
    ) -> None:
        executable = Path(get_package_prefix("radan_ros")) / "lib" / "radan_ros" / program
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [str(executable), *arguments, "--ros-args", *ros_args],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
        )

    def status(self, name: str) -> int:
        """A number that the kernel knows of it: ``Threads``, or ``VmRSS`` in kB."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])

    def shared_memory(self) -> int:
        """Bytes of its largest segment of shared memory: what Fast DDS sends images through."""
        maps = Path(f"/proc/{self._process.pid}/maps").read_text()
        ranges = re.findall(r"^(\w+)-(\w+) .* /dev/shm/fast", maps, re.MULTILINE)
        return max((int(end, 16) - int(start, 16) for start, end in ranges), default=0)

    def hears(self) -> bool:
        """Whether it has handlers of its own for signals: Python has none for SIGTERM."""
        with contextlib.suppress(OSError):  # it has just ended
            known = Path(f"/proc/{self._process.pid}/status").read_text()
            caught = re.search(r"^SigCgt:\s*(\w+)", known, re.MULTILINE)
            return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)
        return False

    def log(self) -> str:
        """What it has said so far."""
        self._log.flush()
        self._log.seek(0)
        return self._log.read()

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for its end: the exit status."""
        return self._process.wait(PATIENCE)

    def interrupt(self, number: int = signal.SIGINT) -> tuple[int, float]:
        """Ctrl-C: the exit status, and the seconds it took to end."""
        started = time.monotonic()
        os.kill(self._process.pid, number)
        return self._process.wait(PATIENCE), time.monotonic() - started

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.wait()
        self._log.close()


@contextlib.contextmanager
def running_node(*ros_args: str, program: str = "radan_node", arguments: tuple[str, ...] = ()) -> Iterator[Process]:
    """A node for the length of a with block."""
    process = Process(*ros_args, program=program, arguments=arguments)
    try:
        yield process
    finally:
        process.kill()


def camera(image: str, *arguments: str) -> contextlib.AbstractContextManager[Process]:
    """The moving astronaut at 30 Hz, from a process of its own, for the length of a with block."""
    infos = f"{image.rpartition('/')[0]}/camera_info"
    remappings = ("-r", f"image:={image}", "-r", f"camera_info:={infos}", "-r", "__node:=camera")
    return running_node(*remappings, program="play", arguments=("--loop", "--rate", "30", *arguments))


class Client(Node):
    """Publishes images to a node and collects what it answers, by topic."""

    _starts = 1_000_000

    def __init__(
        self,
        prefix: str,
        image: str = "image",
        *,
        reliable: bool = True,
        outputs: tuple[str, ...] = tuple(OUTPUTS),
        active: bool = True,
    ) -> None:
        super().__init__(f"client_{time.monotonic_ns()}")
        self.prefix = prefix
        self.received: dict[str, list[Any]] = {name: [] for name in (*OUTPUTS, "tf", "diagnostics")}
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        self.images = self.create_publisher(Image, image, QoSProfile(depth=5, reliability=reliability))
        folder = image.rpartition("/")[0]
        self.infos = self.create_publisher(
            CameraInfo, f"{folder}/camera_info" if folder else "camera_info", QoSProfile(depth=5)
        )
        for name in outputs:
            self.listen(name, OUTPUTS[name], f"{prefix}/{name}")
        self.listen("tf", TFMessage, "/tf")
        self.listen("diagnostics", DiagnosticArray, "/diagnostics")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        # Every client begins before the last one: a stamp that goes back makes a node forget the faces it followed.
        Client._starts -= 1000
        self._stamp = Client._starts * 10**9 + 123_456_789
        self._callers: dict[str, Any] = {}
        if active:
            self.wait(
                lambda: self.images.get_subscription_count() > 0 and self.infos.get_subscription_count() > 0,
                "the node's subscriptions",
            )
            self.wait(
                lambda: all(self.count_publishers(f"{prefix}/{name}") for name in outputs), "the node's publishers"
            )

    def listen(self, name: str, kind: Any, topic: str) -> None:
        """Collect a topic."""
        self.create_subscription(kind, topic, self.received[name].append, QoSProfile(depth=50))

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.destroy_node()

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Spin until a condition holds: its value."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            value = condition()
            if value:
                return value
            self._executor.spin_once(timeout_sec=0.02)
        raise AssertionError(f"waited {seconds:g} s in vain for {what}")

    def image(self, pixels: np.ndarray, encoding: str = "bgr8", frame: str = "camera_optical_frame") -> Image:
        """An image message with a stamp of its own."""
        self._stamp += 33_333_333  # a camera at 30 Hz
        message = Image(
            height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=pixels.nbytes // pixels.shape[0]
        )
        message.header.frame_id = frame
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self._stamp, 10**9)
        message.data = np.ascontiguousarray(pixels).tobytes()
        return message

    def ask(self, message: Image, topics: tuple[str, ...] = ("faces",)) -> dict[str, Any]:
        """Publish an image until it is answered on all `topics`: the answers, which carry its header.

        A best-effort image may be lost on the way, so that it is sent again; the node answers a repeated stamp as well.
        """
        for _ in range(6):
            self.images.publish(message)
            with contextlib.suppress(AssertionError):
                return self.wait(lambda: self._answers(message, topics), "answers", seconds=PATIENCE / 6)
        raise AssertionError(f"no answers on {topics} to {message.header}")

    def _answers(self, message: Image, topics: tuple[str, ...]) -> dict[str, Any] | None:
        found = {}
        for name in topics:
            same = [m for m in self.received[name] if m.header.stamp == message.header.stamp]
            if not same:
                return None
            found[name] = same[-1]
        return found

    def topology(self) -> FaceTopology:
        """The latched topology, subscribed to now."""
        got: list[FaceTopology] = []
        subscription = self.create_subscription(FaceTopology, f"{self.prefix}/topology", got.append, LATCHED)
        try:
            return self.wait(lambda: got and got[0], "the latched topology")
        finally:
            self.destroy_subscription(subscription)

    def status(self) -> bytes:
        """Level of the node's newest diagnostics."""
        return self._statuses()[-1].level

    def summary(self, condition: Callable[[bytes, str], bool], what: str) -> str:
        """The summary of the node's diagnostics as soon as level and summary satisfy a condition."""

        def newest() -> str | None:
            found = self._statuses()
            return found[-1].message if found and condition(found[-1].level, found[-1].message) else None

        return self.wait(newest, f"diagnostics with {what}")

    def _statuses(self) -> list[DiagnosticStatus]:
        return [s for array in self.received["diagnostics"] for s in array.status if s.name == self.prefix]

    def call(self, kind: Any, name: str, *, tries: int = 3, **fields: Any) -> Any:
        """The answer of one of the node's services.

        A server that has not discovered a new client's reader yet answers into the void, which DDS leaves to the
        client to notice: it is asked again.
        """
        service = f"{self.prefix}/{name}"
        if service not in self._callers:
            self._callers[service] = self.create_client(kind, service)
        client = self._callers[service]
        self.wait(client.service_is_ready, f"the service {service}")
        for last in (*[False] * (tries - 1), True):
            future = client.call_async(kind.Request(**fields))
            try:
                return self.wait(future.done, f"an answer of {service}", PATIENCE / 2) and future.result()
            except AssertionError:
                if last:
                    raise
        raise AssertionError("not reached")

    def change(self, transition: str) -> bool:
        """Whether a transition of the lifecycle, by its name, succeeded: by its answer, or, without one, its effect."""
        before = self.state()
        try:
            return self.call(ChangeState, "change_state", tries=1, transition=Transition(label=transition)).success
        except AssertionError:
            return self.state() != before

    def state(self) -> str:
        """State of the lifecycle."""
        return self.call(GetState, "get_state").current_state.label

    def set(self, **values: Any) -> list[SetParametersResult]:
        """Set parameters, one after the other."""
        return self.call(SetParameters, "set_parameters", parameters=_messages(values)).results

    def set_atomically(self, **values: Any) -> SetParametersResult:
        """Set parameters, all or none."""
        return self.call(SetParametersAtomically, "set_parameters_atomically", parameters=_messages(values)).result

    def get(self, *names: str) -> list[Any]:
        """Values of parameters."""
        answer = self.call(GetParameters, "get_parameters", names=list(names))
        return [parameter_value_to_python(value) for value in answer.values]

    def diagnostics(self, condition: Callable[[dict[str, str]], bool], what: str) -> dict[str, str]:
        """The node's own diagnostics, as soon as they satisfy a condition."""

        def newest() -> dict[str, str] | None:
            for array in reversed(self.received["diagnostics"]):
                for status in array.status:
                    if status.name == self.prefix:
                        values = {v.key: v.value for v in status.values}
                        return values if condition(values) else None
            return None

        return self.wait(newest, f"diagnostics with {what}")


def _messages(values: dict[str, Any]) -> list[Any]:
    return [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]


@contextlib.contextmanager
def connected(prefix: str, image: str = "image", **options: Any) -> Iterator[Client]:
    """A client for the length of a with block, in an rclpy context of the test's; several may be open."""
    outermost = not rclpy.ok()
    if outermost:
        rclpy.init()
    client = None
    try:
        client = Client(prefix, image, **options)
        yield client
    finally:
        if client is not None:
            client.close()
        if outermost:
            rclpy.shutdown()


def pixels_of(message: Image) -> np.ndarray:
    """The array in one of the node's own pictures."""
    dtype, channels = {"32FC1": (np.float32, 1), "rgb8": (np.uint8, 3)}[message.encoding]
    assert message.step == message.width * channels * np.dtype(dtype).itemsize
    flat = np.frombuffer(message.data, dtype)
    return flat.reshape((message.height, message.width) if channels == 1 else (message.height, message.width, channels))
