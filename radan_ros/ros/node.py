"""The node: images in, faces out. No algorithm here: it takes the newest image, asks the pipeline, and publishes."""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from types import FrameType
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from radan_ros.camera import CameraModel
from radan_ros.detectors import open_detector
from radan_ros.metric import MetricFace, mesh_in_image, metric_face, vertices_in_camera
from radan_ros.model import open_model
from radan_ros.msg import FaceArray, FaceMeshArray, FaceTopology
from radan_ros.pipeline import Pipeline
from radan_ros.rendering import Renderer
from radan_ros.ros import messages
from radan_ros.ros.diagnostics import Complaints, Statistics, diagnostic_array
from radan_ros.ros.images import image_message, image_to_bgr
from radan_ros.ros.parameters import Settings, declare
from radan_ros.tracking import Follower, Track

# Newest frame wins: a queue would only make the answer older.
SENSOR = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)
TF = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
DIAGNOSTIC_PERIOD = 1.0  # seconds
# What a wrong parameter, model or device ends in; anything else is a fault of ours and keeps its traceback.
START_ERRORS = (ValueError, ImportError, OSError, RuntimeError, MemoryError, ParameterException)
MANY_LOST = 3  # images lost on their way in one period, from which on that is said
SILENT_REPORTS = 5  # diagnostics with a publisher but without an image from it, until that is said


class LatestBox:
    """Holds one item: putting replaces what nobody has taken yet."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: Any = None

    def put(self, item: Any) -> bool:
        """Leave an item; True when one that nobody took was replaced."""
        with self._condition:
            replaced = self._item is not None
            self._item = item
            self._condition.notify()
            return replaced

    def take(self, timeout: float) -> Any:
        """Wait for an item up to `timeout` seconds; None when there was none."""
        with self._condition:
            self._condition.wait_for(lambda: self._item is not None, timeout)
            item, self._item = self._item, None
            return item


class RadanNode(Node):
    """Faces of a camera on topics. See the README for topics and parameters.

    Raises
    ------
    ValueError, ImportError
        When model, device or detector cannot be opened; says why.
    """

    def __init__(self) -> None:
        super().__init__("radan")
        self.settings: Settings = declare(self)
        settings = self.settings
        started = time.perf_counter()
        model = open_model(settings.model or None, device=settings.device, threads=settings.threads or None)
        self.model = model
        detector = open_detector(
            settings.detector, min_face=settings.detector_min_face or None, threshold=settings.detector_threshold
        )
        self.pipeline = Pipeline(model, detector)
        self.follower = Follower(
            self.pipeline,
            detection_period=settings.detection_period,
            search_period=settings.search_period,
            max_faces=settings.max_faces,
        )
        face_model = model.face_model
        self.renderer = self._open_renderer()
        self._warm_up()
        self.get_logger().info(
            f"model {model.name} ({model.network.name} on {model.network.device}), face model {face_model.name} "
            f"with {len(face_model.mean)} vertices, ready in {time.perf_counter() - started:.1f} s"
        )
        self.statistics = Statistics()
        self._milestones: set[str] = set()
        self._assumed: set[str] = set()
        self._complaints = Complaints()
        self._silent_reports = 0
        self._lost_before = 0
        self._last_number: int | None = None
        self._one_camera = True
        self._info: CameraInfo | None = None
        self._camera: CameraModel | None = None
        self._box = LatestBox()
        self._stop = threading.Event()

        def publisher(kind: Any, topic: str, qos: QoSProfile) -> Any:
            return self.create_publisher(
                kind, topic, qos, qos_overriding_options=QoSOverridingOptions.with_default_policies()
            )

        self._topology = publisher(FaceTopology, "~/topology", LATCHED)
        self._faces = publisher(FaceArray, "~/faces", RELIABLE)
        self._meshes = publisher(FaceMeshArray, "~/meshes", RELIABLE)
        self._depth = publisher(Image, "~/depth", RELIABLE)
        self._pncc = publisher(Image, "~/pncc", RELIABLE)
        self._tf = self.create_publisher(TFMessage, "/tf", TF)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._topology.publish(messages.topology(face_model))

        overridable = QoSOverridingOptions.with_default_policies()
        self.create_subscription(
            CameraInfo, "camera_info", self._on_camera_info, SENSOR, qos_overriding_options=overridable
        )
        self.create_subscription(Image, "image", self._on_image, SENSOR, qos_overriding_options=overridable)
        self._worker = threading.Thread(target=self._work, name="radan_worker", daemon=True)
        self._worker.start()
        self.get_logger().info(f"waiting for images on {self.resolve_topic_name('image')}")

    def working(self) -> bool:
        """Whether the worker runs; without it the node would only look alive."""
        return self._worker.is_alive()

    def close(self) -> None:
        """Let the worker finish its image, and stop it."""
        self._stop.set()
        self._worker.join(timeout=1.5)

    def _open_renderer(self) -> Renderer:
        face_model, device = self.model.face_model, self.model.network.device
        try:
            return Renderer(face_model.triangles, face_model.codes, device=device)
        except (ImportError, RuntimeError) as e:
            if self.settings.device != "auto" or device == "cpu":
                raise ValueError(f"renderer on {device}: {e}") from None
            self.get_logger().warning(f"rendering on the CPU: {e}")
            return Renderer(face_model.triangles, face_model.codes)

    def _warm_up(self) -> None:
        """Pay for compiling and first use now, not on the first image."""
        self.pipeline.regress(np.zeros((120, 120, 3), np.uint8), [np.array([0, 0, 120, 120], np.float32)])
        vertices = self.model.face_model.mean[None] * np.float32(self.model.face_model.unit)
        self.renderer.render(vertices, (32, 32))

    # Executor thread: take messages in, nothing else.

    def _on_image(self, message: Image, info: dict[str, Any]) -> None:
        self.statistics.count("received")
        # Not every middleware tells the number; two cameras on one topic count each for itself.
        number = info.get("publication_sequence_number")
        if number is not None and self._last_number is not None and self._one_camera:
            self.statistics.count("lost", max(0, number - self._last_number - 1))
        self._last_number = number
        self._once(
            "first image",
            f"first image: {message.width}x{message.height} {message.encoding} in {message.header.frame_id!r}",
        )
        if self._box.put((message, self._now())):
            self.statistics.count("dropped")

    def _on_camera_info(self, message: CameraInfo) -> None:
        if self._info is not None and _same_calibration(self._info, message):
            return
        try:
            camera = messages.camera_from_info(message, self.settings.image_is_rectified)
        except ValueError as e:
            self._bad(f"{self.resolve_topic_name('camera_info')}: {e}")
            return
        self._once(
            "first camera_info",
            f"camera_info: {message.width}x{message.height}, focal length {camera.matrix[0, 0]:.1f} px",
        )
        self._info, self._camera = message, camera

    # Worker thread: all work, all publishing.

    def _work(self) -> None:
        next_report = time.monotonic() + DIAGNOSTIC_PERIOD
        while not self._stop.is_set():
            item = self._box.take(timeout=min(0.1, max(0.0, next_report - time.monotonic())))
            try:
                if item is not None:
                    self._process(*item)
                if time.monotonic() >= next_report:
                    next_report = time.monotonic() + DIAGNOSTIC_PERIOD
                    self._report()
            except Exception as e:  # the node outlives whatever one image does to it
                self._bad(f"{self.resolve_topic_name('image')}: {type(e).__name__}: {e}")
                self.get_logger().debug(traceback.format_exc())

    def _process(self, message: Image, arrived: float) -> None:
        header, taken = message.header, self._now()
        sent = header.stamp.sec + header.stamp.nanosec * 1e-9
        clock = [time.perf_counter()]
        try:
            image = image_to_bgr(message)
        except ValueError as e:
            self._bad(f"{self.resolve_topic_name('image')}: {e}")
            return
        size = image.shape[:2]
        tracks = self.follower(image, sent)
        clock.append(time.perf_counter())
        camera = self._camera_for(size)
        faces = self._in_metres(tracks, camera)
        clock.append(time.perf_counter())
        face_model = self.model.face_model
        # What a robot steers by goes out first; pictures and meshes of the same image follow.
        self._faces.publish(messages.face_array(header, size, face_model, camera.calibrated, faces))
        if faces:
            self._tf.publish(messages.transforms(header, self.settings.frame_prefix, faces))
        published = self._now()
        clock.append(time.perf_counter())
        meshes = self._meshes.get_subscription_count() > 0
        depth, pncc = (p.get_subscription_count() > 0 for p in (self._depth, self._pncc))
        if meshes or depth or pncc:
            vertices = vertices_in_camera([track.face for track, _ in faces], [m for _, m in faces], face_model)
        if depth or pncc:
            self.statistics.count("rendered")
            rendering = self.renderer.render(mesh_in_image(vertices, camera), size, colour=pncc)
        clock.append(time.perf_counter())
        if meshes:
            self._meshes.publish(messages.mesh_array(header, face_model, [track.id for track, _ in faces], vertices))
        if depth:
            self._depth.publish(image_message(header, rendering.depth, "32FC1"))
        if pncc:
            self._pncc.publish(image_message(header, rendering.colour, "rgb8"))
        clock.append(time.perf_counter())
        if faces:
            self._once("first face", f"first face: {faces[0][1].pose.translation[2]:.2f} m away")
        waited = taken - arrived
        self._count(len(faces), (arrived - sent, waited, *np.diff(clock), published - sent))

    def _count(self, faces: int, seconds: tuple[float, ...]) -> None:
        with self.statistics.lock:
            self.statistics.processed += 1
            self.statistics.faces = faces
            for samples, value in zip(self.statistics.seconds.values(), seconds, strict=True):
                samples.append(value)
        self.get_logger().debug(
            f"{faces} faces; ms: "
            + " ".join(f"{n} {1e3 * s:.1f}" for n, s in zip(self.statistics.seconds, seconds, strict=True))
        )

    def _in_metres(self, tracks: list[Track], camera: CameraModel) -> list[tuple[Track, MetricFace]]:
        out = []
        for track in tracks:
            try:
                out.append((track, metric_face(track.face, self.model.face_model, camera)))
            except ValueError as e:
                self.statistics.count("failed_fits")
                self._complain(f"face {track.id}: {e}")
        return out

    def _camera_for(self, size: tuple[int, int]) -> CameraModel:
        camera = self._camera
        if camera is not None and camera.size == size:
            return camera
        if camera is None:
            reason = f"no usable CameraInfo on {self.resolve_topic_name('camera_info')} yet"
        else:
            reason = f"CameraInfo is for {camera.size[1]}x{camera.size[0]}, the image is {size[1]}x{size[0]}"
        degrees = f"{self.settings.assumed_field_of_view:g}"
        if reason not in self._assumed and len(self._assumed) < 100:
            self._assumed.add(reason)
            self.get_logger().warning(f"{reason}: assuming a field of view of {degrees} degrees, distances are a guess")
        return CameraModel.from_field_of_view(size, self.settings.field_of_view)

    def _report(self) -> None:
        topic = self.resolve_topic_name("image")
        self._one_camera = self.count_publishers(topic) <= 1
        if self.statistics.received == 0 and self.count_publishers(topic):
            self._silent_reports += 1
            if self._silent_reports == SILENT_REPORTS:
                self.get_logger().warning(
                    f"{topic} has a publisher, but no image has come from it: it is paused, its QoS does not match, or "
                    "its shared memory is too small for images (see Troubleshooting in the README)"
                )
        lost = self.statistics.lost
        if lost - self._lost_before >= MANY_LOST:
            self._complain(
                f"{lost - self._lost_before} images a second get lost between the camera and this node: start the "
                "camera with the Fast DDS profile, too (see Troubleshooting in the README)"
            )
        self._lost_before = lost
        values = self.statistics.values()
        values |= {
            "model": self.model.name,
            "face_model": self.model.face_model.name,
            "version": self.model.face_model.version,
            "network": self.model.network.name,
            "device": self.model.network.device,
        }
        warn = self.statistics.bad_lately(time.monotonic())
        level = DiagnosticStatus.WARN if warn else DiagnosticStatus.OK
        summary = f"bad messages: {values['last_bad_message']}" if warn else f"{values['faces']} faces"
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(
            diagnostic_array(stamp, self.get_fully_qualified_name(), self.model.network.device, level, summary, values)
        )

    def _bad(self, reason: str) -> None:
        self.statistics.bad_message(reason)
        self._complain(reason)

    def _complain(self, text: str) -> None:
        line = self._complaints.line(text, time.monotonic())
        if line is not None:
            self.get_logger().warning(line)

    def _once(self, milestone: str, text: str) -> None:
        """Log a line the first time that a milestone is reached."""
        if milestone not in self._milestones:
            self._milestones.add(milestone)
            self.get_logger().info(text)

    def _now(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9


def _same_calibration(a: CameraInfo, b: CameraInfo) -> bool:
    names = ("height", "width", "distortion_model", "d", "k", "p")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Returns the exit status: 1 when it could not start."""
    stop = threading.Event()
    ready = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        if not ready:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    try:
        # rclpy's own handlers invalidate the context under the worker's feet: it would fail in mid-publication.
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = RadanNode()
        ready = True
    except BaseException as e:
        if stop.is_set():  # the interrupt surfaces as whatever it broke: KeyboardInterrupt, ImportError, ...
            rclpy.try_shutdown()
            return 0
        if not isinstance(e, START_ERRORS):
            raise
        rclpy.logging.get_logger("radan").fatal(f"cannot start: {' '.join(str(e).split()) or type(e).__name__}")
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop.is_set() and node.working():
            executor.spin_once(timeout_sec=0.2)
        status = 0 if stop.is_set() else 1
    finally:
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return status


if __name__ == "__main__":
    sys.exit(main())
