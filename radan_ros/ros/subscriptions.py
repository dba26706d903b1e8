"""What the node hears: images, raw or compressed, and the camera's calibration."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from radan_ros.camera import CameraModel
from radan_ros.ros import compat, topics
from radan_ros.ros.diagnostics import Report
from radan_ros.ros.messages import camera_from_info
from radan_ros.ros.parameters import Settings

POLL = 0.005  # seconds between looks for an image while the executor is kept waiting
MANY_LOST = 3  # images lost on their way from one check to the next, from which on that is said

Result = TypeVar("Result")


def image_topic(node: Node, settings: Settings) -> str:
    """Where the images come from: compressed ones as image_transport names them, beside the topic as remapped."""
    topic = str(node.resolve_topic_name("image"))
    if settings.image_transport == "compressed":
        topic = str(node.resolve_topic_name(f"{topic}/compressed"))  # which may have been remapped by itself
    return topic


def seconds_of(header: Header) -> float:
    """The stamp of a header in seconds."""
    return float(header.stamp.sec + header.stamp.nanosec * 1e-9)


@dataclass(frozen=True)
class Arrival:
    """An image message, and when it came (seconds of the node's clock)."""

    message: Image | CompressedImage
    time: float


class RateLimit:
    """Says which images to leave out so that, by their stamps, no more than `rate` a second remain (0: all do)."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._due: float | None = None
        self._last: float | None = None

    def skips(self, stamp: float) -> bool:
        """Whether to leave out the image of a stamp, in seconds.

        A stamp that stands or goes back (a camera without a clock, a looped bag) is let through.
        """
        if self.rate <= 0:
            return False
        period, due, last = 1 / self.rate, self._due, self._last
        self._last = stamp
        if due is None or last is None or stamp <= last or stamp >= due + period:
            self._due = stamp + period
            return False
        # A tenth of a period early is in time: stamps jitter about multiples of a camera's period.
        if stamp < due - 0.1 * period:
            return True
        self._due = due + period  # not from when it came: a rate that does not divide the camera's is met on average
        return False


class Calibration:
    """The latest usable CameraInfo, and the camera that it makes of an image. Any stamp will do.

    It outlives the subscriptions: a CameraInfo that is published once does not come again with the next ones.
    """

    def __init__(self, topic: str, settings: Settings, report: Report) -> None:
        self.topic = topic
        self._settings = settings
        self._report = report
        self._heard: list[CameraInfo] = []  # the last usable one, and the last one refused since then
        self._usable: tuple[CameraModel, str] | None = None  # with the frame that it names
        self._refusal = "none yet"
        self._image: tuple[tuple[int, int], str] | None = None  # size and frame of the last one

    def take(self, message: CameraInfo) -> None:
        """A CameraInfo has come; one that cannot be used is told, and leaves the last one in place."""
        if any(_same_calibration(heard, message) for heard in self._heard):
            return  # also one that was refused: it comes with every image, and would hide other troubles
        try:
            camera = camera_from_info(message, self._settings.image_is_rectified)
        except ValueError as e:
            self._heard = [*(self._heard[:1] if self._usable else []), message]
            self._refusal = str(e)
            self._report.bad(f"{self.topic}: {e}")
            return
        self._heard, self._usable = [message], (camera, message.header.frame_id)
        if self._settings.image_is_rectified and (message.p[3] or message.p[7]):
            self._report.once(
                f"P on {self.topic} has Tx = {message.p[3]:g}, Ty = {message.p[7]:g}, as of the second camera of a "
                "stereo pair: they are left out, faces are placed as seen from this camera's own optical centre",
                warn=True,
            )
        self._report.once(
            "first camera_info",
            f"camera_info: {camera.size[1]}x{camera.size[0]}, focal length {camera.matrix[0, 0]:.1f} px",
        )

    @property
    def heard(self) -> list[CameraInfo]:
        """The last usable CameraInfo, and the last one that was refused since then: taken again, they do the same."""
        return list(self._heard)

    def change(self, settings: Settings) -> None:
        """Parameters have changed: look at the CameraInfo again."""
        again = settings.image_is_rectified != self._settings.image_is_rectified
        self._settings = settings
        if again:
            heard, self._heard, self._usable = self._heard, [], None
            for message in heard:
                self.take(message)

    def state(self) -> str:
        """For the diagnostics: of which images a camera is known, or why of none, and what is wrong with the last one.

        It begins with "ok" where the calibration is used.
        """
        if self._usable is None:
            return self._refusal
        height, width = self._usable[0].size
        unused, elsewhere = self._misfits(self._usable, self._image)
        return unused or f"ok {width}x{height}" + (f", but {elsewhere}" if elsewhere else "")

    def trouble(self) -> str:
        """Why the CameraInfo may not be that of the last image; empty where there is none, or all is well."""
        unused, elsewhere = self._misfits(self._usable, self._image)
        return unused or elsewhere

    def _misfits(
        self, usable: tuple[CameraModel, str] | None, image: tuple[tuple[int, int], str] | None
    ) -> tuple[str, str]:
        """Why a usable CameraInfo is not used for an image, and why it may be another camera's."""
        if usable is None or image is None:
            return "", ""
        (camera, said), (size, frame) = usable, image
        unused = elsewhere = ""
        if camera.size != size:
            unused = f"CameraInfo is for {camera.size[1]}x{camera.size[0]}, the image is {size[1]}x{size[0]}"
        if said != frame:
            elsewhere = f"CameraInfo on {self.topic} is in the frame {said!r}, the image in {frame!r}"
        return unused, elsewhere

    def camera(self, size: tuple[int, int], frame: str) -> CameraModel:
        """The camera of an image of `size` (height, width) in a frame: assumed where there is no CameraInfo for it."""
        self._image = size, frame
        usable = self._usable  # once: the executor's thread may take another
        reason, elsewhere = self._misfits(usable, self._image)
        if usable is None:
            reason = f"no usable CameraInfo on {self.topic} yet"
        elif not reason:
            if elsewhere:
                self._report.once(f"{elsewhere}: the calibration is used, and the frame of the image", warn=True)
            return usable[0]
        degrees = f"{self._settings.assumed_field_of_view:g}"
        self._report.once(f"{reason}: assuming a field of view of {degrees} degrees, distances are a guess", warn=True)
        return CameraModel.from_field_of_view(size, self._settings.field_of_view)


class Input:
    """The subscriptions of an active node. Its callbacks only count, and pass the image on.

    Parameters
    ----------
    node : Node
    settings : Settings
    report : Report
    calibration : Calibration
        Fed with what comes on ``camera_info``.
    put : callable
        Takes an `Arrival`; True when it replaced one that nobody has looked at.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        report: Report,
        calibration: Calibration,
        put: Callable[[Arrival], bool],
    ) -> None:
        self._node = node
        self._report = report
        self._put = put
        self._limit = RateLimit(settings.max_rate)
        self.paused = False
        self._last_number: int | None = None
        self._one_camera = True
        self._lost_before = report.statistics.counters["lost"]
        self._since = time.monotonic()  # activation, or the last image
        self._heard = False
        self._was_silent = self._said_silent = False
        self.topic = image_topic(node, settings)
        self._calibration = calibration
        self._kind = CompressedImage if settings.image_transport == "compressed" else Image
        self._excused = False  # opening a model loses images, too, which says nothing about the way from the camera
        self._subscriptions: list[Any] = []  # the one of the images is the last

    def open(self) -> None:
        """Subscribe."""
        for kind, topic, callback in (
            (CameraInfo, "camera_info", self._calibration.take),
            (self._kind, self.topic, compat.with_message_info(self._on_image)),
        ):
            self._subscriptions.append(topics.subscription(self._node, kind, topic, callback, topics.sensor()))

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def change(self, settings: Settings) -> None:
        """Parameters have changed."""
        if settings.max_rate != self._limit.rate:  # else the next image would wait for the old period to end
            self._limit = RateLimit(settings.max_rate)

    def meanwhile(self, work: Callable[[], Result]) -> Result:
        """Do something that takes long in a thread of its own, and go on taking images; what it returns or raises.

        To be called in a callback of the node: its executor waits for that.
        """
        self._excused = True
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(work)
            while not wait([done], timeout=POLL).done:
                subscription = self._subscriptions[-1]
                taken = subscription.handle.take_message(subscription.msg_type, False)
                if taken is not None:
                    self._on_image(*taken)
            return done.result()

    def _on_image(self, message: Image | CompressedImage, info: dict[str, Any]) -> None:
        statistics = self._report.statistics
        statistics.count("received")
        # Not every middleware tells the number; two cameras on one topic count each for itself.
        number = info.get("publication_sequence_number")
        if number is not None and self._last_number is not None and self._one_camera:
            statistics.count("lost", max(0, number - self._last_number - 1))
        self._last_number = number
        if not self._heard:
            raw = isinstance(message, Image)
            what = f"{message.width}x{message.height} {message.encoding}" if raw else message.format
            self._report.once("first image", f"first image: {what} in {message.header.frame_id!r} on {self.topic}")
        if not message.header.frame_id:
            self._report.once(f"the images on {self.topic} have no frame_id: no TF can be published", warn=True)
        self._heard, self._since = True, time.monotonic()
        if self.paused:
            statistics.count("paused")
        elif self._limit.skips(seconds_of(message.header)):
            statistics.count("skipped")
        elif self._put(Arrival(message, self._node.get_clock().now().nanoseconds * 1e-9)):
            statistics.count("dropped")

    def silence(self, timeout: float) -> str:
        """Why no image has come for `timeout` seconds (0: never mind); empty while images come."""
        lasted = time.monotonic() - self._since
        if not timeout or lasted < timeout or not self._subscriptions:
            if self._said_silent and timeout:
                self._report.logger.info(f"images come again on {self.topic}")
            self._was_silent = self._said_silent = False
            return ""
        if self._heard:
            reason = f"no image on {self.topic} for {lasted:.0f} s"
        elif not self._node.count_publishers(self.topic):
            reason = f"no image yet: nothing publishes {self.topic}"
        else:
            reason = (
                f"{self.topic} has a publisher, but no image has come from it: it is paused, its QoS does not match, "
                "or its shared memory is too small for images (see Troubleshooting in docs/robot.md)"
            )
        if not self._was_silent:
            self._said_silent = self._report.complain(reason)
        self._was_silent = True
        return reason

    def check(self) -> None:
        """Once a second: say so where many images get lost."""
        self._one_camera = self._node.count_publishers(self.topic) <= 1
        lost = self._report.statistics.counters["lost"]
        if lost - self._lost_before >= MANY_LOST and not self._excused:
            self._report.complain(
                f"{lost - self._lost_before} images got lost between the camera and this node: the "
                "machine is too busy, or the camera runs without the Fast DDS profile (see Troubleshooting in "
                "docs/robot.md)"
            )
        self._lost_before, self._excused = lost, False


def _same_calibration(a: CameraInfo, b: CameraInfo) -> bool:
    for name in ("height", "width", "distortion_model", "binning_x", "binning_y", "roi"):
        if getattr(a, name) != getattr(b, name):
            return False
    figures = ((a.d, b.d), (a.k, b.k), (a.p, b.p))
    return a.header.frame_id == b.header.frame_id and all(np.array_equal(x, y, equal_nan=True) for x, y in figures)
