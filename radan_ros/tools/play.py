"""Publish a clip, pictures, a webcam or the built-in moving picture as a camera: ``image`` and ``camera_info``."""

from __future__ import annotations

import argparse
import array
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from radan_ros.camera import CameraModel
from radan_ros.tools.sources import ASTRONAUT, ASTRONAUT_FOV, Frame, Source, SourceError, open_source

FRAME_ID = "camera_optical_frame"
FOV = 60.0  # degrees over the width of a camera of which nothing is known
BYTES_PER_PIXEL = {"bgr8": 3, "rgb8": 3, "mono8": 1, "bgra8": 4, "rgba8": 4, "mono16": 2, "bayer_rggb8": 1}


def encode(frame: Frame, encoding: str) -> NDArray[Any]:
    """A BGR frame as the pixels of a ROS image.

    Parameters
    ----------
    frame : (H, W, 3) uint8
        BGR.
    encoding : str
        One of `BYTES_PER_PIXEL`.

    Returns
    -------
    (H, W) or (H, W, C) uint8 or uint16
    """
    if encoding == "bgr8":
        return frame
    if encoding == "bayer_rggb8":
        mosaic = frame[:, :, 1].copy()
        mosaic[0::2, 0::2] = frame[0::2, 0::2, 2]
        mosaic[1::2, 1::2] = frame[1::2, 1::2, 0]
        return mosaic
    if encoding == "mono16":
        return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.uint16) * 257
    codes = {
        "rgb8": cv2.COLOR_BGR2RGB,
        "mono8": cv2.COLOR_BGR2GRAY,
        "bgra8": cv2.COLOR_BGR2BGRA,
        "rgba8": cv2.COLOR_BGR2RGBA,
    }
    if encoding not in codes:
        raise ValueError(f"encoding '{encoding}' is not one of {', '.join(BYTES_PER_PIXEL)}")
    return cv2.cvtColor(frame, codes[encoding])


class ImageMessage:
    """One sensor_msgs/Image whose pixels are overwritten in place.

    A new message for each frame would be checked and copied once more on assignment; here the pixels are written
    where the middleware reads them.
    """

    def __init__(self, size: tuple[int, int], encoding: str, frame_id: str) -> None:
        from sensor_msgs.msg import Image

        height, width = size
        self.message = Image(height=height, width=width, encoding=encoding, is_bigendian=int(sys.byteorder == "big"))
        self.message.header.frame_id = frame_id
        self.message.step = width * BYTES_PER_PIXEL[encoding]
        self.message.data = array.array("B", bytes(height * self.message.step))
        # Without its checks the generated message keeps a copy of what it is given: ask it for its own.
        self._pixels = np.frombuffer(self.message.data, np.uint8)

    def set(self, pixels: NDArray[Any]) -> None:
        """Write the pixels of a frame, as `encode` gives them."""
        self._pixels[:] = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)


def camera_info(size: tuple[int, int], fov: float, frame_id: str) -> Any:
    """sensor_msgs/CameraInfo of a pinhole camera without distortion.

    Parameters
    ----------
    size : (int, int)
        Height and width in pixels.
    fov : float
        Field of view over the image's width, radians.
    """
    from sensor_msgs.msg import CameraInfo

    matrix = CameraModel.from_field_of_view(size, fov).matrix
    message = CameraInfo(height=size[0], width=size[1], distortion_model="plumb_bob", d=[0.0] * 5)
    message.header.frame_id = frame_id
    message.k = matrix.ravel()
    message.r = np.eye(3).ravel()
    message.p = np.column_stack([matrix, np.zeros(3)]).ravel()
    return message


def frames(source: Source, loop: bool, limit: int | None) -> Iterator[Frame]:
    """Frames of a source, again and again with `loop`, at most `limit`.

    Raises
    ------
    SourceError
        When a pass gives no frame: a folder was emptied, a webcam unplugged.
    """

    def once_or_more() -> Iterator[Frame]:
        again = True
        while again:
            frame = None
            for frame in source:
                yield frame
            if frame is None:
                raise SourceError(f"{source.name}: no frame")
            again = loop

    return itertools.islice(once_or_more(), limit)


class Pace:
    """Waits for the times start, start + 1/rate, start + 2/rate ... by the monotonic clock, so that nothing drifts."""

    def __init__(self, rate: float) -> None:
        self.period = 1.0 / rate
        self.late = 0
        self._next: float | None = None

    def wait(self, wanted: Callable[[], bool] = lambda: True) -> None:
        """Sleep until the next time. One that was missed by more than a period is counted and shifts the rest.

        A long sleep ends early once `wanted` says no.
        """
        now = time.monotonic()
        if self._next is None:
            self._next = now
        elif now - self._next > self.period:
            # Publishing the missed ones in a burst is not what a camera does.
            self.late += 1
            self._next = now
        else:
            while (left := self._next - time.monotonic()) > 0 and wanted():
                time.sleep(min(left, 0.2))
        self._next += self.period


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``play``; returns the exit status."""
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.utilities import remove_ros_args

    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(remove_ros_args(["play", *arguments])[1:])
    try:
        source = open_source(options.source)
        rclpy.init(args=arguments)
        return _play(source, options)
    except SourceError as error:
        print(f"play: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except RuntimeError:
        # SIGTERM ends the context in another thread, also in the middle of a call that needs it.
        if rclpy.ok():
            raise
        return 0
    finally:
        rclpy.try_shutdown()


def _play(source: Source, options: argparse.Namespace) -> int:
    import rclpy
    from rclpy.duration import Duration
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    # Discovery and clock are served by the middleware's threads; nothing here needs an executor.
    node = rclpy.create_node("camera", start_parameter_services=False)
    reliability = ReliabilityPolicy.BEST_EFFORT if options.best_effort else ReliabilityPolicy.RELIABLE
    qos = QoSProfile(depth=5, reliability=reliability)
    image = ImageMessage(source.size, options.encoding, options.frame_id)
    images = node.create_publisher(type(image.message), "image", qos)
    fov = options.fov or (ASTRONAUT_FOV if options.source == ASTRONAUT else FOV)
    info = None if options.no_camera_info else camera_info(source.size, math.radians(fov), options.frame_id)
    infos = None if info is None else node.create_publisher(type(info), "camera_info", qos)

    end = time.monotonic() + options.wait_timeout
    while images.get_subscription_count() < options.wait_for_subscribers:
        if not rclpy.ok():
            return 0
        if time.monotonic() > end:
            print(
                f"play: {images.get_subscription_count()} of {options.wait_for_subscribers} subscribers on"
                f" {images.topic_name} after {options.wait_timeout:g} s",
                file=sys.stderr,
            )
            return 1
        time.sleep(0.02)
    # Who subscribes both topics is matched on the second a moment later. Some never do.
    end = time.monotonic() + 0.5
    while infos is not None and infos.get_subscription_count() < options.wait_for_subscribers:
        if time.monotonic() > end:
            break
        time.sleep(0.02)

    rate = options.rate or source.fps
    pace = Pace(rate)
    count, started = 0, time.monotonic()
    for frame in _progress(frames(source, options.loop, options.frames), source, options):
        image.set(encode(frame, options.encoding))
        pace.wait(rclpy.ok)
        if not rclpy.ok():
            break
        image.message.header.stamp = node.get_clock().now().to_msg()
        if infos is not None and info is not None:
            info.header.stamp = image.message.header.stamp
            infos.publish(info)
        images.publish(image.message)
        count += 1
    seconds = time.monotonic() - started
    if rclpy.ok() and not options.best_effort:
        images.wait_for_all_acked(Duration(seconds=2))
    height, width = source.size
    skipped = f", {source.skipped} unreadable files skipped" if source.skipped else ""
    late = f", {pace.late} late" if pace.late else ""
    print(f"{count} images of {width}x{height} in {seconds:.1f} s at {rate:g} Hz{late}{skipped}", flush=True)
    return 0


def _progress(items: Iterator[Frame], source: Source, options: argparse.Namespace) -> Iterator[Frame]:
    """The same frames, with a bar where a person looks on."""
    if not sys.stderr.isatty():
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    total = options.frames if options.loop or source.count is None else min(source.count, options.frames or 1 << 60)
    return iter(tqdm(items, total=total, unit=" images", leave=False))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="play",
        description="Publish pictures as a camera (topics image and camera_info). ROS arguments follow --ros-args.",
    )
    parser.add_argument(
        "source",
        nargs="?",
        default=ASTRONAUT,
        help=f"video, gif, picture, folder of pictures, webcam number, or '{ASTRONAUT}' (default)",
    )
    parser.add_argument("--rate", type=_positive, metavar="HZ", help="images a second (default: the source's)")
    parser.add_argument("--loop", action="store_true", help="start again at the end")
    parser.add_argument("--frames", type=positive_integer, metavar="N", help="end after N images")
    parser.add_argument("--encoding", choices=BYTES_PER_PIXEL, default="bgr8")
    parser.add_argument(
        "--fov",
        type=_angle,
        metavar="DEG",
        help=f"horizontal field of view (default {FOV:g}; of '{ASTRONAUT}' {ASTRONAUT_FOV:g})",
    )
    parser.add_argument("--no-camera-info", action="store_true", help="publish images only")
    parser.add_argument("--frame-id", default=FRAME_ID)
    parser.add_argument("--best-effort", action="store_true", help="best effort, not reliable")
    parser.add_argument(
        "--wait-for-subscribers",
        type=int,
        nargs="?",
        const=1,
        default=0,
        metavar="N",
        help="begin when N (default 1) have subscribed the images",
    )
    parser.add_argument("--wait-timeout", type=float, default=30.0, metavar="S", help="wait so long (default 30)")
    return parser


def positive_integer(text: str) -> int:
    """A number of images, for argparse."""
    if not (text.isdecimal() and 0 < int(text) <= sys.maxsize):
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a number") from None


def _positive(text: str) -> float:
    value = _number(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _angle(text: str) -> float:
    value = _number(text)
    if not 0 < value < 180:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 180 degrees")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
