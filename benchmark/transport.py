"""Latency of camera images between two processes, with and without config/fastdds.xml.

From the stamp, taken just before publishing, to the callback of a subscriber in another process (rclpy on both sides).
Run it with the package built:  scripts/env --private python benchmark/transport.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from radan_ros.fastdds import PROFILE_VARIABLES, profile_variable

PROFILE = Path(__file__).resolve().parent.parent / "config" / "fastdds.xml"
SIZES = ((480, 640), (720, 1280))
RELIABILITIES = ("best_effort", "reliable")
RATE = 30.0


def topics() -> list[tuple[str, tuple[int, int], str]]:
    """Name, size and reliability of every topic measured."""
    return [(f"image_{size[0]}_{kind}", size, kind) for size in SIZES for kind in RELIABILITIES]


def qos(kind: str) -> Any:
    """QoS with the depth of the node's input: newest frame wins."""
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    return QoSProfile(depth=1, reliability=getattr(ReliabilityPolicy, kind.upper()))


def publish(count: int) -> None:
    """Process one: `count` noise images on each topic, one topic after the other."""
    import rclpy

    from radan_ros.tools.play import ImageMessage, Pace

    rclpy.init()
    node = rclpy.create_node("transport_publisher")
    publishers = {}
    for name, size, kind in topics():
        image = ImageMessage(size, "bgr8", "camera")
        image.set(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
        publishers[name] = (image, node.create_publisher(type(image.message), name, qos(kind)))
    end = time.monotonic() + 20
    while any(publisher.get_subscription_count() < 1 for _, publisher in publishers.values()):
        if time.monotonic() > end:
            raise SystemExit("no subscriber after 20 s")
        time.sleep(0.02)
    for image, publisher in publishers.values():
        pace = Pace(1 / RATE)
        for number in range(count):
            pace.wait(number / RATE)
            image.message.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(image.message)
        time.sleep(0.3)
    rclpy.shutdown()


def receive(seconds: float) -> None:
    """Process two: prints the milliseconds of every image as JSON."""
    import rclpy
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("transport_subscriber")
    delays: dict[str, list[float]] = {name: [] for name, _, _ in topics()}
    last = time.monotonic()

    def subscribe(name: str, kind: str) -> None:
        def take(message: Image) -> None:
            nonlocal last
            now = time.time()
            last = time.monotonic()
            delays[name].append(1e3 * (now - message.header.stamp.sec - 1e-9 * message.header.stamp.nanosec))

        node.create_subscription(Image, name, take, qos(kind))

    for name, _, kind in topics():
        subscribe(name, kind)
    end = time.monotonic() + seconds
    started = False
    while time.monotonic() < end and not (started and time.monotonic() - last > 2):
        rclpy.spin_once(node, timeout_sec=0.1)
        started = started or any(delays.values())
    print(json.dumps(delays))
    rclpy.shutdown()


def measure(count: int, profile: Path | None) -> dict[str, list[float]]:
    """Run both processes; milliseconds of every image received, by topic."""
    environment = {key: value for key, value in os.environ.items() if key not in PROFILE_VARIABLES}
    if profile is not None:
        environment[profile_variable()] = str(profile)
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    environment.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    command = [sys.executable, __file__, "--images", str(count), "--role"]
    limit = 30 + len(topics()) * (count / RATE + 1)
    receiver = subprocess.Popen([*command, "receive"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        subprocess.run([*command, "publish"], env=environment, check=True, timeout=limit)
        output, _ = receiver.communicate(timeout=limit)
    finally:
        receiver.kill()
    result: dict[str, list[float]] = json.loads(output.splitlines()[-1])
    return result


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=150, help="images per row (default 150)")
    parser.add_argument("--role", choices=("publish", "receive"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "publish":
        return publish(options.images)
    if options.role == "receive":
        return receive(30 + len(topics()) * (options.images / RATE + 1))
    results = {name: measure(options.images, profile) for name, profile in (("default", None), ("profile", PROFILE))}
    print(f"{options.images} images at {RATE:g} Hz to another process, ms from stamp to callback")
    print(f"{'image':>10} {'reliability':>12} {'transport':>10} {'p50':>7} {'p99':>7} {'received':>9}")
    for topic, size, kind in topics():
        for name, delays in results.items():
            values = delays[topic] or [float("nan")]
            p50, p99 = np.percentile(values, (50, 99))
            received = f"{len(delays[topic])}/{options.images}"
            print(f"{size[1]:>5}x{size[0]:<4} {kind:>12} {name:>10} {p50:7.2f} {p99:7.2f} {received:>9}")


if __name__ == "__main__":
    main()
