"""Latency and processor use of the node at 30 images a second: with only the faces read, and with everything read.

From the header's stamp, taken just before the camera process publishes, to the publication of the faces (DDS source
timestamp). scripts/env --private python benchmark/node.py [MODEL] [--source clip.mp4] [--seconds 10]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from radan_ros.msg import FaceArray, FaceMeshArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from radan_ros.tools.demo import Process, set_environment
from radan_ros.tools.sources import open_source

SIZES = ((640, 480), (1280, 720))
RATE = 30.0
OUTPUTS = {
    "meshes": FaceMeshArray,
    "depth": Image,
    "pncc": Image,
    "points": PointCloud2,
    "overlay": Image,
    "markers": MarkerArray,
}


def clip(source: str, size: tuple[int, int], path: Path) -> None:
    """The source, resized, as a clip of a size: the motion is the same for all sizes."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE, size)
    for _, frame in zip(range(300), open_source(source), strict=False):
        writer.write(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))
    writer.release()


def measure(parameters: list[str], path: Path, everything: bool, seconds: float, folder: Path) -> dict[str, float]:
    """Play a clip to a fresh node and listen: images answered, latency in ms, cores in use."""
    node = rclpy.create_node("benchmark", start_parameter_services=False)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    latencies: list[float] = []

    def on_faces(message: FaceArray, info: dict[str, Any]) -> None:
        stamp = message.header.stamp
        latencies.append((info["source_timestamp"] - stamp.sec * 10**9 - stamp.nanosec) * 1e-6)

    node.create_subscription(FaceArray, "radan/faces", on_faces, QoSProfile(depth=100))
    if everything:
        for name, kind in OUTPUTS.items():
            # Raw: the reader shall not be what is measured.
            node.create_subscription(kind, f"radan/{name}", lambda _: None, QoSProfile(depth=1), raw=True)

    def spin(until: float) -> None:
        while time.monotonic() < until:
            executor.spin_once(timeout_sec=0.05)

    try:
        with Process("radan_node", "radan_ros.ros.node", ["--ros-args", *parameters], folder / "n.log") as radan:
            arguments = [
                str(path),
                "--loop",
                "--rate",
                str(RATE),
                "--wait-for-subscribers",
                "1",
                "--wait-timeout",
                "90",
            ]
            with Process("play", "radan_ros.tools.play", arguments, folder / "p.log"):
                deadline = time.monotonic() + 90
                while not latencies and time.monotonic() < deadline and radan.running:
                    spin(time.monotonic() + 0.1)
                if not latencies:
                    raise SystemExit(f"the node answers nothing; its last lines:\n{radan.tail()}")
                spin(time.monotonic() + 2)
                latencies.clear()
                before, started = radan.cpu_seconds() or 0.0, time.monotonic()
                spin(started + seconds)
                lasted = time.monotonic() - started
                cores = ((radan.cpu_seconds() or 0.0) - before) / lasted
    finally:
        executor.shutdown()
        node.destroy_node()
    p50, p99 = np.percentile(latencies, (50, 99))
    return {"rate": len(latencies) / lasted, "p50": float(p50), "p99": float(p99), "cores": cores}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="model folder (default: the built-in model)")
    parser.add_argument("--source", default="astronaut")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    if options.model and not Path(options.model).is_dir():
        print(f"node.py: there is no model folder {options.model}", file=sys.stderr)
        return 1
    parameters = ["-p", f"model:={Path(options.model).resolve()}"] if options.model else []
    set_environment()
    rclpy.init()
    print("| image | read | faces a second (of 30) | p50 ms | p99 ms | cores |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            path = Path(folder) / f"{size[0]}.avi"
            clip(options.source, size, path)
            for everything in (False, True):
                r = measure(parameters, path, everything, options.seconds, Path(folder))
                what = "all outputs" if everything else "faces and TF"
                figures = f"{r['rate']:.1f} | {r['p50']:.1f} | {r['p99']:.1f} | {r['cores']:.2f}"
                print(f"| {size[0]}x{size[1]} | {what} | {figures} |", flush=True)
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
