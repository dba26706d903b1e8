"""Publish a clip, pictures, a webcam or the built-in moving picture as a camera: ``image``, ``camera_info``. Or a bag.

The images of a bag keep their stamps. With ``--wait-for`` none is sent before the last one was answered.
"""

from __future__ import annotations

import argparse
import array
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from radan_ros.camera import CameraModel
from radan_ros.errors import line
from radan_ros.tools.bags import Bag, BagStream, Step, is_bag
from radan_ros.tools.numbers import field_of_view, positive, positive_integer
from radan_ros.tools.progress import progress_bar
from radan_ros.tools.record import header_stamp, matching_qos, message_class, resolved, stamp_offset
from radan_ros.tools.sources import ASTRONAUT, ASTRONAUT_FOV, Frame, Source, SourceError, open_source
from radan_ros.tools.telling import tell

if TYPE_CHECKING:
    from rclpy.node import Node

    from radan_ros.ros.ending import Ending

FRAME_ID = "camera_optical_frame"
FOV = 60.0  # degrees over the width of a camera of which nothing is known
RESEND = 5.0  # seconds without an answer after which an image is sent again: best effort may have lost it
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
    """Waits until so many seconds after the first time, by the monotonic clock, so that nothing drifts.

    Parameters
    ----------
    tolerance : float
        Seconds. A time that is missed by more is counted in `late` and shifts the rest: publishing what was missed in a
        burst is not what a camera does.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.late = 0
        self._start: float | None = None

    def wait(self, seconds: float, wanted: Callable[[float], bool] = lambda _: True) -> None:
        """Sleep until `seconds` after the first time. `wanted` is asked on the way, with the seconds left."""
        now = time.monotonic()
        if self._start is None or now > self._start + seconds + self.tolerance:
            self.late += self._start is not None
            self._start = now - seconds
        while (left := self._start + seconds - time.monotonic()) > 0 and wanted(left):
            time.sleep(min(left, 0.02))


class CameraStream:
    """A source as a camera: the topics ``image`` and ``camera_info``, stamped when they are published."""

    def __init__(self, node: Node, source: Source, options: argparse.Namespace) -> None:
        from rclpy.qos import QoSProfile, ReliabilityPolicy

        reliability = ReliabilityPolicy.BEST_EFFORT if options.best_effort else ReliabilityPolicy.RELIABLE
        qos = QoSProfile(depth=5, reliability=reliability)
        self._node, self._source, self._options = node, source, options
        self._image = ImageMessage(source.size, options.encoding, options.frame_id)
        self.images = [node.create_publisher(type(self._image.message), "image", qos)]
        fov = options.fov or (ASTRONAUT_FOV if options.source == ASTRONAUT else FOV)
        info = None if options.no_camera_info else camera_info(source.size, math.radians(fov), options.frame_id)
        self._info = info
        self.others = [] if info is None else [node.create_publisher(type(info), "camera_info", qos)]
        self.rate = options.rate or source.fps
        self.tolerance = 1 / self.rate
        ends = None if options.loop else source.count
        self.steps = min((n for n in (ends, options.frames) if n is not None), default=None)
        height, width = source.size
        self.name, self.speed = f"{width}x{height}", f"{self.rate:g} Hz"

    def __iter__(self) -> Iterator[Step]:
        for k, frame in enumerate(frames(self._source, self._options.loop, self._options.frames)):
            self._image.set(encode(frame, self._options.encoding))
            yield k / self.rate, self._send

    def _send(self) -> int:
        now = self._node.get_clock().now()
        self._image.message.header.stamp = now.to_msg()
        if self._info is not None:
            self._info.header.stamp = self._image.message.header.stamp
            self.others[0].publish(self._info)
        self.images[0].publish(self._image.message)
        return int(now.nanoseconds)

    def tick(self, _left: float) -> None:
        """A camera has no clock of its own."""

    @property
    def skipped(self) -> int:
        """Files that could not be read."""
        return self._source.skipped


class Answers:
    """Waits for the messages in which a node answers images: those of a topic whose header has the image's stamp."""

    def __init__(self, node: Node, topic: str) -> None:
        from rclpy.executors import SingleThreadedExecutor

        self._node, self._topic = node, resolved(node, topic)
        self._stamp: int | None = None
        self._subscription: Any = None
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)

    def subscribe(self) -> bool:
        """Subscribe the topic, if it is published by now.

        Raises
        ------
        SourceError
            When its messages have no header, or their type is not installed here.
        """
        if self._subscription is not None:
            return True
        offers = self._node.get_publishers_info_by_topic(self._topic)
        if not offers:
            return False
        name = offers[0].topic_type
        try:
            kind, offset = message_class(name), stamp_offset(name)
        except (ImportError, AttributeError, LookupError) as error:
            raise SourceError(f"{self._topic}: type {name} is not installed here ({error})") from None
        if offset is None:
            raise SourceError(f"{self._topic}: {name} has no header, and answers no image")

        def take(raw: bytes) -> None:
            self._stamp = header_stamp(raw, offset)

        qos = matching_qos([offer.qos_profile for offer in offers])
        self._subscription = self._node.create_subscription(kind, self._topic, take, qos, raw=True)
        return True

    def wait(self, stamp: int, seconds: float, ending: Ending) -> bool:
        """Wait so long for the answer to the image of this stamp (ns), or for the program to be told to end."""
        end = time.monotonic() + seconds
        while self._stamp != stamp and not ending.asked() and (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, 0.2))
        return self._stamp == stamp


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``play``; returns the exit status."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import remove_ros_args

    from radan_ros.ros.ending import Ending

    ending = Ending()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser().parse_args(remove_ros_args(["play", *arguments])[1:])
        opened = Bag(options.source) if is_bag(options.source) else open_source(options.source)
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        # Discovery and clock are served by the middleware's threads; only waiting for answers needs an executor.
        node = rclpy.create_node("camera", start_parameter_services=False)
        stream = BagStream(node, opened, options) if isinstance(opened, Bag) else CameraStream(node, opened, options)
        answers = Answers(node, options.wait_for) if options.wait_for else None
    except (ValueError, RuntimeError) as error:
        print(f"play: {line(error)}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    try:
        return _play(node, stream, answers, options, ending)
    except SourceError as error:
        print(f"play: {line(error)}", file=sys.stderr)
        return 1
    finally:
        ending.finish()
        rclpy.try_shutdown()


def _play(
    node: Node,
    stream: CameraStream | BagStream,
    answers: Answers | None,
    options: argparse.Namespace,
    ending: Ending,
) -> int:
    from rclpy.duration import Duration

    if answers is not None and len(stream.images) != 1:
        raise SourceError(f"--wait-for goes with one topic of images, not {len(stream.images)}: choose with --topics")
    if not _wait_for_subscribers(node, stream, answers, options, ending):
        return 0 if ending.asked() else 1
    pace = Pace(stream.tolerance)
    count = others = again = 0
    started = time.monotonic()

    def going(left: float) -> bool:
        stream.tick(left)
        return not ending.asked()

    for due, send in _progress(stream):
        pace.wait(due, going)
        if ending.asked():
            break
        stamp = send()
        if stamp is None:
            others += isinstance(stream, BagStream)
            continue
        count += 1
        end = time.monotonic() + options.wait_timeout
        while answers is not None and not answers.wait(stamp, min(RESEND, options.wait_timeout), ending):
            if ending.asked():
                break
            if time.monotonic() > end:
                print(f"play: no answer on {options.wait_for} to image {count}, of {stamp} ns", file=sys.stderr)
                return 1
            again += 1
            stamp = send() or stamp
    seconds = time.monotonic() - started
    if not (ending.asked() or options.best_effort):
        # What nobody has taken yet is gone with this process: its shared memory, and who would send it again.
        until = time.monotonic() + 2
        for publisher in (*stream.images, *stream.others):
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, until - time.monotonic())))
    notes = {
        "other messages": others,
        "late": pace.late,
        "sent again": again,
        "unreadable files skipped": stream.skipped,
    }
    said = "".join(f", {number} {what}" for what, number in notes.items() if number)
    ending.finish()
    return 0 if tell("play", f"{count} images of {stream.name} in {seconds:.1f} s at {stream.speed}{said}") else 1


def _wait_for_subscribers(
    node: Node, stream: CameraStream | BagStream, answers: Answers | None, options: argparse.Namespace, ending: Ending
) -> bool:
    """Wait for as many subscribers as asked for, and for who answers; False when they do not come, which is said."""
    wanted = max(options.wait_for_subscribers, 1 if answers is not None else 0)
    end = time.monotonic() + options.wait_timeout
    while (answers is not None and not answers.subscribe()) or (
        # Of the cameras of a bag one will do.
        max((publisher.get_subscription_count() for publisher in stream.images), default=wanted) < wanted
    ):
        if ending.asked():
            return False
        if time.monotonic() > end:
            counts = ", ".join(f"{p.get_subscription_count()} on {p.topic_name}" for p in stream.images)
            nobody = f"; nobody publishes {options.wait_for}" if answers is not None and not answers.subscribe() else ""
            print(
                f"play: {wanted} subscribers wanted, {counts} after {options.wait_timeout:g} s{nobody}", file=sys.stderr
            )
            return False
        time.sleep(0.02)
    # Who subscribes several topics is matched on the others a moment later: those that the graph knows of get more of
    # it. Some never do (another reliability).
    soon, late = time.monotonic() + 1, time.monotonic() + min(10, options.wait_timeout)

    def comes(publisher: Any) -> bool:
        count, now = publisher.get_subscription_count(), time.monotonic()
        known = node.count_subscribers(publisher.topic_name)
        return bool(not ending.asked() and count < wanted and (now < soon or (count < known and now < late)))

    while any(comes(publisher) for publisher in stream.others):
        time.sleep(0.02)
    return True


def _progress(stream: CameraStream | BagStream) -> Iterator[Step]:
    """The steps of a stream, with a bar where a person looks on."""
    try:
        return iter(progress_bar(stream, total=stream.steps, unit=" messages", leave=False))
    except ImportError:  # of tqdm
        return iter(stream)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="play",
        description="Publish pictures as a camera (topics image and camera_info), or the cameras of a bag (its own "
        "topics). ROS arguments follow --ros-args.",
    )
    parser.add_argument(
        "source",
        nargs="?",
        default=ASTRONAUT,
        help="video, gif, picture, folder of pictures, webcam number, rosbag2 folder or file, "
        f"or '{ASTRONAUT}' (default)",
    )
    parser.add_argument(
        "--rate",
        type=positive,
        metavar="X",
        help="images a second (default: the source's); of a bag, how many times as fast as it was recorded (default 1)",
    )
    parser.add_argument("--loop", action="store_true", help="start again at the end; stamps of a bag go back, too")
    parser.add_argument("--frames", type=positive_integer, metavar="N", help="end after N images")
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
    parser.add_argument(
        "--wait-for",
        metavar="TOPIC",
        help="send an image only when the last one was answered on this topic, with its stamp: none is dropped",
    )
    parser.add_argument("--wait-timeout", type=positive, default=30.0, metavar="S", help="wait so long (default 30)")
    camera = parser.add_argument_group("all but bags")
    camera.add_argument("--encoding", choices=BYTES_PER_PIXEL, default="bgr8")
    camera.add_argument(
        "--fov",
        type=field_of_view,
        metavar="DEG",
        help=f"horizontal field of view (default {FOV:g}; of '{ASTRONAUT}' {ASTRONAUT_FOV:g})",
    )
    camera.add_argument("--no-camera-info", action="store_true", help="publish images only")
    camera.add_argument("--frame-id", default=FRAME_ID)
    bag = parser.add_argument_group("bags")
    bag.add_argument(
        "--topics",
        nargs="+",
        default=(),
        metavar="TOPIC",
        help="play these (default: every CameraInfo and the images beside it, or all images where there is none; TF)",
    )
    bag.add_argument("--clock", action="store_true", help="publish the time of the bag on /clock, for use_sim_time")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
