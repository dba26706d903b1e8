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
from typing import Any

import numpy as np

from radan_ros.fastdds import PROFILE_VARIABLES, use_profile
from radan_ros.tools.demo_pictures import PICTURES, Frame, draw, read_bag
from radan_ros.tools.numbers import positive_integer
from radan_ros.tools.progress import progress_bar
from radan_ros.tools.record import BagRecorder, Topic
from radan_ros.tools.sources import ASTRONAUT, Pictures, Source, SourceError, open_source

NODE_TOPICS = ("radan/faces", "radan/meshes", "radan/topology", "radan/depth", "radan/pncc", "/tf", "/diagnostics")
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
    return progress_bar(total=total, unit=" images", leave=False)


# ------------------------------------------------------------------------------------------------ the summary


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
