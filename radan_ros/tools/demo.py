"""The whole chain once, for everybody to see: camera, node, recorder as three processes; then pictures of the result.

``python -m radan_ros.tools.demo --out out/demo`` starts the node, plays a source to it as a camera, records all topics
into a rosbag2, ends both, and draws from the recorded messages of one frame.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros import drawing
from radan_ros.camera import CameraModel
from radan_ros.face_models.making.pictures import region_colours
from radan_ros.fastdds import PROFILE_VARIABLES, use_profile
from radan_ros.model import open_face_model
from radan_ros.pose import FACING
from radan_ros.tools.play import positive_integer
from radan_ros.tools.record import BagRecorder, Topic, header_stamp
from radan_ros.tools.sources import ASTRONAUT, Pictures, Source, SourceError, open_source

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader

NODE_TOPICS = ("radan/faces", "radan/meshes", "radan/topology", "radan/depth", "radan/pncc", "/tf", "/diagnostics")
PICTURES = ("overlay.png", "depth.png", "pncc.png", "mesh.png")
LOGS = ("node.log", "play.log")

MOST_FRAMES = 300  # of a long clip or a webcam, unless --frames says otherwise
FEWEST_FRAMES = 90  # a picture, or a few of them, are shown again and again
START_TIMEOUT = 90.0  # seconds until the node is up; compiling the renderer for the first time is part of it
FIRST_FACE_TIMEOUT = 30.0  # seconds from the first image to the node's first answer
STOP_TIMEOUT = 5.0  # seconds from SIGINT to the end of a process


class DemoError(RuntimeError):
    """Why the demo cannot go on, for the user."""


class Interrupts:
    """SIGINT and SIGTERM as KeyboardInterrupt, for the length of a with block.

    Within `held` they wait for the next `check`: an exception between the start of a process and the place that ends
    it, or a second signal while processes are being ended, would leave some behind.
    """

    def __init__(self) -> None:
        self._held = self._pending = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        # SIGINT also where it is ignored, as in the background of a script: the processes would inherit that.
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self._pending = True
        if not self._held:
            self.check()

    def check(self) -> None:
        """KeyboardInterrupt when a signal has come."""
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No KeyboardInterrupt but from `check`, and at the end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self.check()


class Process:
    """A program of this package as its own process, with its output in a file.

    Used as a context manager it is ended in any case: SIGINT, and SIGKILL where that does not help.
    """

    def __init__(self, program: str, module: str, arguments: Sequence[str], log: Path) -> None:
        self.program, self.log = program, log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command_of(program, module), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.status: int | None = None

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        self.status = self._process.poll()
        return self.status is None

    def stop(self) -> float:
        """End it; seconds that it took."""
        started = time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if not self.running:
                break
            self._process.send_signal(number)
            try:
                self.status = self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                continue
        return time.monotonic() - started

    def cpu_seconds(self) -> float | None:
        """Processor time used so far, all threads; None where the system does not tell."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, IndexError, ValueError):
            return None

    def tail(self, lines: int = 15) -> str:
        """The last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def command_of(program: str, module: str) -> list[str]:
    """How to start a program of this package: its installed executable, or its module."""
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_prefix

        try:
            path = Path(get_package_prefix("radan_ros")) / "lib" / "radan_ros" / program
            if path.is_file():
                return [sys.executable, str(path)]
        except PackageNotFoundError:
            pass
    except ImportError:
        pass
    return [sys.executable, "-m", module]


def set_environment() -> None:
    """Keep DDS on this machine in a domain of its own, and images in shared memory, where the user has not chosen."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if os.environ.get("ROS_DISTRO") == "humble":  # which knows only the older name
        os.environ.setdefault("ROS_LOCALHOST_ONLY", "1")
    # Above 101 the ports of a domain reach into those that Linux hands out to others.
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 100)))
    use_profile()


# ------------------------------------------------------------------------------------------------ the recording


@dataclass
class Recording:
    """What happened while the node ran.

    Attributes
    ----------
    topics : dict
        Name to what the recorder counted.
    diagnostics : dict
        The node's last diagnostics, key to value.
    seconds : dict
        How long the parts took.
    cpu : float or None
        Processor time of the node over the time of playing; 1 is one core.
    """

    topics: dict[str, Topic] = field(default_factory=dict)
    diagnostics: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu: float | None = None


def record(out: Path, source: Source, options: argparse.Namespace, interrupts: Interrupts) -> Recording:
    """Start the node, play the source to it, record; ends all of it, whatever happens.

    Call it with the interrupts held.

    Raises
    ------
    DemoError
        When a process dies or does not answer.
    OSError
        When the bag cannot be written.
    """
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    frames = frame_count(source, options.frames)
    node_arguments = ["--ros-args"]
    if options.model:
        # Quoted: a folder may be named 2024, which is a number to the parser of parameters.
        node_arguments += ["-p", f"model:={json.dumps(str(Path(options.model).expanduser().resolve()))}"]
    if isinstance(source, Pictures) and len(source.files) > 1:
        # Pictures that have nothing to do with each other: nothing to follow from one to the next.
        node_arguments += ["-p", "detection_period:=0.0"]
    play_arguments = [options.source, "--frames", str(frames), "--wait-for-subscribers", "2", "--wait-timeout", "600"]
    if source.count is not None:
        play_arguments.append("--loop")
    result = Recording()
    started = time.monotonic()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    observer = rclpy.create_node("demo", start_parameter_services=False)
    executor = SingleThreadedExecutor()
    executor.add_node(observer)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            pass

    recorder = BagRecorder(observer, out / "bag", keep_times=True)
    result.topics = recorder.topics
    spinner = threading.Thread(target=spin, name="demo spin", daemon=True)
    spinner.start()
    try:
        with Process("radan_node", "radan_ros.ros.node", node_arguments, out / "node.log") as node:
            with Process("play", "radan_ros.tools.play", play_arguments, out / "play.log") as play:
                for topics in (NODE_TOPICS, ("camera_info",)):
                    _wait_for(recorder, topics, node, play, interrupts)
                result.seconds["start"] = time.monotonic() - started
                print(f"node up after {result.seconds['start']:.1f} s; playing {frames} images", flush=True)
                # Last, so that the player's second subscriber means that all the rest is being recorded.
                _wait_for(recorder, ("image",), node, play, interrupts)
                cpu, started = node.cpu_seconds(), time.monotonic()
                patience = 60 + 3 * frames / source.fps
                _watch(recorder, node, play, interrupts, frames, started + FIRST_FACE_TIMEOUT, started + patience)
                result.seconds["play"] = played = time.monotonic() - started
                after = node.cpu_seconds()
                result.cpu = (after - cpu) / played if cpu is not None and after is not None else None
                _wait_until_quiet(recorder, interrupts)
            result.seconds["stop"] = node.stop()
            if node.status not in (0, -signal.SIGINT):
                print(f"the node ended with status {node.status}; see {node.log}", file=sys.stderr)
    finally:
        try:
            executor.shutdown(timeout_sec=2)
            spinner.join(2)
            recorder.close()
        finally:
            rclpy.try_shutdown()
    if recorder.topics["/radan/faces"].count == 0:
        raise DemoError(f"the node answered no image; its last lines:\n{node.tail()}")
    return result


def frame_count(source: Source, wanted: int | None) -> int:
    """Images to play: as wanted, or the whole source within limits."""
    if wanted is not None:
        return wanted
    return min(max(source.count or MOST_FRAMES, FEWEST_FRAMES), MOST_FRAMES)


def _wait_for(
    recorder: BagRecorder, topics: Sequence[str], node: Process, play: Process, interrupts: Interrupts
) -> None:
    """Record topics once they are published; DemoError when that does not happen."""
    end = time.monotonic() + START_TIMEOUT
    missing: Sequence[str] = topics
    while missing:
        missing = recorder.wait_for(missing, 0.2)
        _check(recorder, (node, play), interrupts)
        if missing and time.monotonic() > end:
            what = f"nobody published {', '.join(missing)} within {START_TIMEOUT:.0f} s"
            raise DemoError(f"{what}; the node's last lines:\n{node.tail()}")


def _check(recorder: BagRecorder, processes: Sequence[Process], interrupts: Interrupts) -> None:
    """Whether to go on: KeyboardInterrupt or DemoError when not."""
    ended = [process for process in processes if not process.running]
    # First, since Ctrl-C ends the processes as well.
    interrupts.check()
    for process in ended:
        raise DemoError(_ended(process))
    if recorder.failed is not None:
        raise DemoError(f"the bag cannot be written: {recorder.failed}")


def _ended(process: Process) -> str:
    return f"{process.program} ended with status {process.status}; its last lines:\n{process.tail()}"


def _watch(
    recorder: BagRecorder,
    node: Process,
    play: Process,
    interrupts: Interrupts,
    frames: int,
    first: float,
    end: float,
) -> None:
    """Wait until everything was played; `first` and `end` are monotonic times of patience."""
    faces, images = recorder.topics["/radan/faces"], recorder.topics["/image"]
    with _bar(frames) as bar:
        while play.running:
            bar.update(images.count - bar.n)
            _check(recorder, (node,), interrupts)
            now = time.monotonic()
            if (now > first and not faces.count) or now > end:
                what = "answered no image" if not faces.count else "and the camera are too slow"
                raise DemoError(f"the node {what}; its last lines:\n{node.tail()}")
            time.sleep(0.05)
        bar.update(images.count - bar.n)
    interrupts.check()
    if play.status != 0:
        raise DemoError(_ended(play))


def _wait_until_quiet(recorder: BagRecorder, interrupts: Interrupts, timeout: float = 4.0) -> None:
    """Wait for the node's last answer, and for diagnostics that count it."""
    faces, diagnostics = recorder.topics["/radan/faces"], recorder.topics["/diagnostics"]
    end = time.monotonic() + timeout
    count, changed, reports = faces.count, time.monotonic(), diagnostics.count
    while time.monotonic() < end:
        time.sleep(0.05)
        interrupts.check()
        if faces.count != count:
            count, changed, reports = faces.count, time.monotonic(), diagnostics.count
        elif time.monotonic() - changed > 0.5 and diagnostics.count > reports:
            return


def _bar(total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit=" images", leave=False, disable=not sys.stderr.isatty())


# ------------------------------------------------------------------------------------------------ reading the bag


@dataclass
class Frame:
    """The recorded messages of one image, by topic; `stamp` is the header's in ns."""

    stamp: int
    messages: dict[str, Any]
    sharpness: float


PER_IMAGE = ("/image", "/radan/faces", "/radan/meshes", "/radan/depth", "/radan/pncc")


def read_bag(bag: Path) -> tuple[list[Any], Frame | None, dict[str, Any]]:
    """Read what the pictures need.

    Returns
    -------
    faces : list of radan_ros/FaceArray
        All, in order.
    frame : Frame or None
        All messages of the sharpest image near the middle of those with most faces.
    latched : dict
        The last message of the topics that do not follow the images.
    """
    from rosbags.highlevel import AnyReader

    with AnyReader([bag]) as reader:
        faces, times = [], []
        latched: dict[str, Any] = {}
        single = ("/radan/topology", "/camera_info", "/diagnostics")
        wanted = [c for c in reader.connections if c.topic in (*single, "/radan/faces")]
        for connection, time_ns, raw in reader.messages(wanted):
            message = reader.deserialize(raw, connection.msgtype)
            if connection.topic in single:
                latched[connection.topic] = message
            else:
                faces.append(message)
                times.append(time_ns)
        most = max((len(message.faces) for message in faces), default=0)
        best = [k for k, message in enumerate(faces) if len(message.faces) == most]
        frame = None
        if best:
            middle = min(best, key=lambda k: abs(k - len(faces) / 2))
            stamps = {_stamp(faces[k]) for k in best}
            for candidate in _complete_frames(reader, times[middle] - 500_000_000, times[middle] + 500_000_000, stamps):
                if frame is None or candidate.sharpness > frame.sharpness:
                    frame = candidate
    return faces, frame, latched


def _complete_frames(reader: AnyReader, start: int, stop: int, stamps: set[int]) -> Iterator[Frame]:
    """Frames of these stamps within a time of the bag of which every topic was recorded; one at a time in memory."""
    pending: dict[int, dict[str, tuple[str, bytes]]] = {}
    wanted = [c for c in reader.connections if c.topic in PER_IMAGE]
    for connection, _, raw in reader.messages(wanted, start=start, stop=stop):
        stamp = header_stamp(raw)
        if stamp not in stamps or stamp is None:
            continue
        parts = pending.setdefault(stamp, {})
        parts[connection.topic] = (connection.msgtype, raw)
        if len(parts) == len(PER_IMAGE):
            messages = {topic: reader.deserialize(data, kind) for topic, (kind, data) in pending.pop(stamp).items()}
            yield Frame(stamp, messages, _sharpness(messages["/image"], messages["/radan/faces"]))


def _stamp(message: Any) -> int:
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def _pixels(message: Any) -> NDArray[Any]:
    """An image message of 8-bit colour or 32FC1 as (H, W, 3) or (H, W), without what pads its rows."""
    kind, channels = (np.dtype(np.float32), 1) if message.encoding == "32FC1" else (np.dtype(np.uint8), 3)
    kind = kind.newbyteorder(">" if message.is_bigendian else "<")
    row = message.width * channels * kind.itemsize
    rows = np.asarray(message.data, np.uint8).reshape(message.height, message.step)[:, :row]
    pixels = np.ascontiguousarray(rows).view(kind).reshape(message.height, message.width, channels)
    return pixels[:, :, 0] if channels == 1 else pixels


def _sharpness(image: Any, faces: Any) -> float:
    """Variance of the Laplacian in the boxes of the faces, each at one size; the least of them."""
    grey = cv2.cvtColor(_pixels(image), cv2.COLOR_BGR2GRAY)
    values = []
    for face in faces.faces:
        left, top, right, bottom = np.clip(np.rint(face.box), 0, [*grey.shape[::-1], *grey.shape[::-1]]).astype(int)
        if right - left > 8 and bottom - top > 8:
            patch = cv2.resize(grey[top:bottom, left:right], (128, 128), interpolation=cv2.INTER_AREA)
            values.append(float(cv2.Laplacian(patch, cv2.CV_32F).var()))
    return min(values, default=0.0)


# ------------------------------------------------------------------------------------------------ pictures, summary


def draw(out: Path, frame: Frame, latched: dict[str, Any]) -> None:
    """Write the four pictures of one recorded frame."""
    image = _pixels(frame.messages["/image"])
    array = frame.messages["/radan/faces"]
    meshes = {mesh.id: mesh.vertices.reshape(-1, 3) for mesh in frame.messages["/radan/meshes"].meshes}
    camera = _camera(latched.get("/camera_info"), image.shape[:2])
    topology = latched.get("/radan/topology")
    triangles = None if topology is None else topology.triangles.reshape(-1, 3).astype(np.int32)
    faces = []
    for face in array.faces:
        position = face.pose.pose.position
        vertices = meshes.get(face.id)
        if vertices is not None:
            vertices = np.column_stack([camera.project(vertices), vertices[:, 2]])
        degrees = drawing.angles_text((face.yaw, face.pitch, face.roll))
        faces.append(
            drawing.DrawnFace(
                landmarks=face.landmarks_px.reshape(68, 2),
                label=f"face {face.id}   {position.z:.2f} m   {degrees}",
                number=int(face.id),
                rotation=_rotation(face.pose.pose.orientation),
                origin=(position.x, position.y, position.z),
                vertices=vertices,
            )
        )
    overlay = drawing.overlay(image, faces, camera, triangles)
    if not faces:
        overlay = drawing.draw_label(overlay, "no face", (8, 0))
    _write(out / "overlay.png", overlay)
    _write(out / "depth.png", drawing.colour_depth(_pixels(frame.messages["/radan/depth"])))
    _write(out / "pncc.png", np.ascontiguousarray(_pixels(frame.messages["/radan/pncc"])[:, :, ::-1]))
    poses = [(face.id, face.pose.pose) for face in array.faces if face.id in meshes]
    if poses and topology is not None and triangles is not None:
        nearest, pose = min(poses, key=lambda item: item[1].position.z)
        in_head = meshes[nearest] - [pose.position.x, pose.position.y, pose.position.z]
        in_head = in_head @ _rotation(pose.orientation)
        albedo = mesh_colours(topology.version)
        _write(out / "mesh.png", drawing.mesh_views(in_head @ FACING.T, triangles, albedo=albedo))


def mesh_colours(version: str) -> ArrayLike:
    """Colours of the mesh of a face model: lips, eyes and so on where it is the built-in one, else that of clay."""
    try:
        face_model = open_face_model("builtin")
    except (ValueError, OSError):
        return drawing.CLAY
    return region_colours(face_model) if face_model.version == version else drawing.CLAY


def _camera(info: Any, size: tuple[int, int]) -> CameraModel:
    if info is None or (info.height, info.width) != size:
        return CameraModel.from_field_of_view(size, np.radians(60))
    return CameraModel.from_calibration(size, info.k, info.d, info.distortion_model)


def _rotation(q: Any) -> NDArray[np.float64]:
    x, y, z, w = q.x, q.y, q.z, q.w
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _write(path: Path, picture: NDArray[np.uint8]) -> None:
    if not cv2.imwrite(str(path), picture):
        raise DemoError(f"{path} cannot be written")


def summarise(source: Source, recording: Recording, faces: list[Any], frame: Frame | None) -> dict[str, Any]:
    """The figures of summary.json."""
    from rclpy.utilities import get_rmw_implementation_identifier

    topics, diagnostics = recording.topics, recording.diagnostics
    counts = [len(message.faces) for message in faces]
    answered = topics["/radan/faces"]
    images = topics["/image"].count + topics["/image"].lost
    span = (answered.stamps[-1] - answered.stamps[0]) / 1e9 if len(answered.stamps) > 1 else 0.0
    height, width = source.size
    return {
        "source": source.name,
        "image": {"width": width, "height": height, "rate_hz": source.fps},
        "frames_in": images,
        "frames_processed": answered.count,
        "frames_dropped": max(0, images - answered.count),
        "images_with_faces": sum(count > 0 for count in counts),
        "faces": sum(counts),
        "most_faces_in_an_image": max(counts, default=0),
        "processed_per_second": round((answered.count - 1) / span, 2) if span > 0 else None,
        "latency_ms": percentiles(answered.latencies),
        "latency_ms_by_topic": {
            name: percentiles(topics[f"/radan/{name}"].latencies) for name in ("faces", "meshes", "depth", "pncc")
        },
        "latency_note": "From header stamp to publication; includes the way of the image to the node. All outputs were "
        "subscribed: mesh, depth and PNCC were computed for every image.",
        "node_cpu_cores": None if recording.cpu is None else round(recording.cpu, 2),
        "model": {
            "name": diagnostics.get("model", faces[0].model if faces else ""),
            "face_model": faces[0].model if faces else "",
            "version": faces[0].version if faces else "",
            "network": diagnostics.get("network", ""),
        },
        "device": diagnostics.get("device", ""),
        "metric": bool(faces[0].metric) if faces else None,
        "ros_distro": os.environ.get("ROS_DISTRO", ""),
        "rmw": get_rmw_implementation_identifier(),
        "fastdds_profile": next((os.environ[name] for name in PROFILE_VARIABLES if os.environ.get(name)), ""),
        "seconds": {name: round(value, 2) for name, value in recording.seconds.items()},
        "recorded": {name: topic.count for name, topic in sorted(topics.items())},
        "recorder_lost": {name: lost for name, topic in topics.items() if (lost := topic.lost + topic.dropped)},
        "pictures_of_stamp_ns": None if frame is None else frame.stamp,
    }


def percentiles(milliseconds: Sequence[float]) -> dict[str, float] | None:
    """Median, 99th percentile and largest, rounded to 0.01; None for no samples."""
    if not milliseconds:
        return None
    p50, p99 = np.percentile(milliseconds, (50, 99))
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2), "max": round(float(max(milliseconds)), 2)}


# ------------------------------------------------------------------------------------------------ the program


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``demo``; returns the exit status."""
    options = _parser().parse_args(argv)
    begun = time.monotonic()
    try:
        with Interrupts() as interrupts:
            return _demo(options, begun, interrupts)
    except (DemoError, SourceError, LookupError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"demo: {error}; is the package built and sourced? (make demo does both)", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130


def _demo(options: argparse.Namespace, begun: float, interrupts: Interrupts) -> int:
    out = Path(options.out)
    source = open_source(options.source)
    if options.model and not Path(options.model).expanduser().exists():
        raise DemoError(f"{options.model}: no such model folder")
    _clear(out)
    set_environment()
    height, width = source.size
    print(f"source: {source.name}, {width}x{height} at {source.fps:g} Hz", flush=True)
    with interrupts.held():
        recording = record(out, source, options, interrupts)
    started = time.monotonic()
    faces, frame, latched = read_bag(out / "bag")
    if "/diagnostics" in latched:
        recording.diagnostics = {v.key: v.value for s in latched["/diagnostics"].status for v in s.values}
    if frame is not None:
        draw(out, frame, latched)
    recording.seconds["pictures"] = time.monotonic() - started
    recording.seconds["total"] = time.monotonic() - begun
    summary = summarise(source, recording, faces, frame)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _tell(out, summary)
    return 0


def _tell(out: Path, summary: dict[str, Any]) -> None:
    latency = summary["latency_ms"] or {}
    print(
        f"{summary['frames_in']} images in, {summary['frames_processed']} processed, "
        f"{summary['frames_dropped']} dropped; a face in {summary['images_with_faces']}"
    )
    if latency:
        figures = f"{latency['p50']} ms median, {latency['p99']} ms p99"
        print(f"stamp to publication, all outputs on, device {summary['device']}: {figures}")
    if summary["recorder_lost"]:
        print(f"the bag lacks messages: {summary['recorder_lost']}", file=sys.stderr)
    written = [name for name in PICTURES if (out / name).exists()]
    print(f"look at {out}/: {', '.join(written)}, summary.json, bag/")


def _clear(out: Path) -> None:
    """Remove what an earlier demo wrote there, and nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / "bag").exists():
        if not any((out / "bag").glob("*.mcap")) and any((out / "bag").iterdir()):
            raise DemoError(f"{out / 'bag'} is not a bag of this demo: choose another --out")
        shutil.rmtree(out / "bag")
    for name in (*PICTURES, *LOGS, "summary.json"):
        (out / name).unlink(missing_ok=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo", description="Play a source to the node as a camera, record what it publishes, and draw it."
    )
    parser.add_argument("--out", default="out/demo", help="folder for bag, pictures and summary (default out/demo)")
    parser.add_argument(
        "--source",
        default=ASTRONAUT,
        help="video, gif, picture, folder of pictures or webcam number (default: built in)",
    )
    parser.add_argument("--model", help="model folder (default: the built-in model)")
    parser.add_argument(
        "--frames",
        type=positive_integer,
        metavar="N",
        help=f"images to play (default: all, {FEWEST_FRAMES} to {MOST_FRAMES})",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
