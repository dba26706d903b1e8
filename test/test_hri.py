"""ROS4HRI: what tools written for REP-155 get to see, over DDS, with messages as REP-155 defines them."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("radan_ros.msg", reason="needs ROS and the built package: make test")
import rclpy
from ament_index_python.packages import get_package_prefix
from conftest import ASTRONAUT_BOX, ASTRONAUT_MARKS
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.validate_full_topic_name import validate_full_topic_name
from ros_client import AT_ONCE, PATIENCE, Client, Process, connected
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from radan_ros import Model, Pipeline
from radan_ros.camera import CameraModel
from radan_ros.face import Face
from radan_ros.metric import metric_face
from radan_ros.ros.answer import Answer
from radan_ros.ros.compat import has_hri_msgs
from radan_ros.ros.parameters import Settings
from radan_ros.tracking import Track

REPOSITORY = Path(__file__).resolve().parents[1]
TOPICS = ("roi", "landmarks", "cropped", "aligned")


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[dict[str, str]]:
    """hri_msgs for this process, and the environment that brings it to another one.

    Where the real one is not installed, our definitions are built: half a minute the first time, then seconds.
    """
    if has_hri_msgs():
        yield dict(os.environ)
        return
    folder = REPOSITORY / "build" / f"test-{Path(get_package_prefix('radan_ros')).name}"
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        *("colcon", "--log-base", folder / "log", "build", "--paths", REPOSITORY / "test" / "interfaces" / "hri_msgs"),
        *("--build-base", folder / "build", "--install-base", folder / "install", "--merge-install"),
        *("--event-handlers", "console_cohesion+", "console_stderr-", "desktop_notification-"),
        *("--cmake-args", "-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release"),
    ]
    built = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert built.returncode == 0, built.stdout
    install = folder / "install"
    modules = next(install.glob("lib/python*/site-packages"))
    _load(list(install.glob("lib/*.so")))
    sys.path.append(str(modules))
    importlib.invalidate_caches()
    added = {"AMENT_PREFIX_PATH": install, "LD_LIBRARY_PATH": install / "lib", "PYTHONPATH": modules}
    yield os.environ | {k: os.pathsep.join(filter(None, [str(v), os.environ.get(k)])) for k, v in added.items()}
    # Other tests are about a machine without it.
    sys.path.remove(str(modules))
    for name in [name for name in sys.modules if name.partition(".")[0] == "hri_msgs"]:
        del sys.modules[name]


def _load(libraries: list[Path]) -> None:
    """Load libraries that need each other: the linker's own search path is that of when the process started."""
    while libraries:
        failed = []
        for library in libraries:
            try:
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            except OSError as e:
                failed.append(library)
                reason = e
        assert len(failed) < len(libraries), reason
        libraries = failed


# The functions.


@pytest.mark.parametrize("prefix", ["", "left_", "robot1/", "1st camera ", "_"])
def test_ids_name_topics(prefix: str) -> None:
    from radan_ros.ros.hri import face_id

    ids = [face_id(number, prefix) for number in (0, 7, 9999, 10000, 2**31)]
    assert len(set(ids)) == len(ids)
    for name in ids:
        validate_full_topic_name(f"/humans/faces/{name}/roi")  # raises where ROS does not take it


def test_ids_have_five_characters() -> None:
    """hri_rviz takes a frame's last five characters for the id."""
    from radan_ros.ros.hri import face_id

    assert [face_id(number) for number in (0, 42, 9999)] == ["f0000", "f0042", "f9999"]


def square_face(left: float, top: float, width: float, height: float) -> np.ndarray:
    """Landmarks (68, 2) whose window is a given box: its upper third has none."""
    x = np.linspace(left, left + width - 1, 68)
    y = np.full(68, top + height / 2)
    y[17:27] = top + (height - 1) / 3
    y[8] = top + height - 1
    x[36:42], x[42:48] = left + width / 3, left + 2 * width / 3
    return np.stack([x, y], axis=1)


def test_the_window_reaches_from_the_hairline_to_the_chin() -> None:
    from radan_ros.ros.hri import face_window

    assert np.allclose(face_window(square_face(10, 20, 100, 160)), [10, 20, 110, 180])


def test_the_window_turns_with_the_face(astronaut_face: Face) -> None:
    from radan_ros.ros.hri import face_window

    points = astronaut_face.landmarks[:, :2]
    turned = np.stack([points[:, 1], -points[:, 0]], axis=1)  # a quarter turn: boxes stay boxes
    left, top, right, bottom = face_window(points)
    assert np.allclose(face_window(turned), [top, 1 - right, bottom, 1 - left], atol=1e-3)


def test_a_picture_shows_the_window_and_black_beside_it() -> None:
    from radan_ros.ros.hri import face_picture

    image = np.random.default_rng(0).integers(1, 255, (300, 400, 3), np.uint8)
    picture = face_picture(image, square_face(30, 40, 64, 128))
    assert picture.shape == (128, 128, 3)
    assert (picture[:, 32:96] == image[40:168, 30:94]).all(), "unscaled: the very pixels"
    assert not picture[:, :32].any() and not picture[:, 96:].any()


def test_a_large_face_is_averaged_not_skipped() -> None:
    from radan_ros.ros.hri import face_picture

    image = np.random.default_rng(0).integers(0, 255, (600, 600, 3), np.uint8)
    blocks = image[:512, :512].reshape(128, 4, 128, 4, 3).mean(axis=(1, 3))
    assert np.abs(face_picture(image, square_face(0, 0, 512, 512)) - blocks).max() <= 0.51


def test_a_small_face_is_enlarged_about_pixel_centres() -> None:
    from radan_ros.ros.hri import face_picture

    ramp = np.empty((41, 41, 3), np.uint8)
    ramp[:] = 6 * np.arange(41)[None, :, None]
    picture = face_picture(ramp, square_face(5, 5, 32, 32))
    assert np.abs(picture[:, :, 0] - 6 * (5 + (np.arange(128) + 0.5) / 4 - 0.5)).max() < 1


def test_beyond_the_image_a_picture_is_black() -> None:
    from radan_ros.ros.hri import face_picture

    image = np.full((100, 100, 3), 200, np.uint8)
    picture = face_picture(image, square_face(-64, 0, 128, 128))
    assert not picture[:, :63].any() and (picture[:99, 65:] == 200).all()
    assert not face_picture(image, square_face(-500, 0, 128, 128)).any()


@pytest.mark.parametrize("degrees", [-150, -30, 25, 90])
def test_aligned_faces_do_not_turn_with_the_picture(
    degrees: float, astronaut: np.ndarray, astronaut_face: Face
) -> None:
    from radan_ros.ros.hri import face_picture

    points = astronaut_face.landmarks[:, :2]
    matrix = cv2.getRotationMatrix2D((223, 127), degrees, 1.0)
    turned = cv2.warpAffine(astronaut, matrix, astronaut.shape[1::-1])
    upright = face_picture(astronaut, points, aligned=True).astype(float)
    again = face_picture(turned, points @ matrix[:, :2].T + matrix[:, 2], aligned=True).astype(float)
    assert np.abs(again - upright).mean() < 4  # two times resampled
    assert np.abs(upright - face_picture(turned, points @ matrix[:, :2].T + matrix[:, 2])).mean() > 15


def test_a_profile_whose_eyes_lie_behind_each_other_stays_upright(astronaut: np.ndarray, astronaut_face: Face) -> None:
    from radan_ros.ros.hri import face_picture

    points = astronaut_face.landmarks[:, :2].astype(np.float64)
    aligned = face_picture(astronaut, points, aligned=True).astype(float)
    points[42:48] = points[36:42] + [0, 3]  # their line would ask for a quarter turn
    assert np.abs(face_picture(astronaut, points, aligned=True) - aligned).mean() < 25


def test_landmarks_are_normalized() -> None:
    from radan_ros.ros.hri import tracked_landmarks

    points = np.full((68, 2), 100.0)
    points[0], points[1] = (-0.5, -0.5), (399.5, 299.5)  # the image's corners
    points[2], points[3] = (-1, 50), (50, 300)  # just outside
    points[36:42, 0], points[42:48, 0] = 50, 150
    out = tracked_landmarks(points, (300, 400), 0.75)
    assert out.shape == (70, 3)
    assert np.allclose(out[:2], [[0, 0, 0.75], [1, 1, 0.75]])
    assert (out[2:4] == 0).all(), "outside the image: not known"
    assert np.allclose(out[4], [100.5 / 400, 100.5 / 300, 0.75])
    assert np.allclose(out[68:], [[50.5 / 400, 100.5 / 300, 0], [150.5 / 400, 100.5 / 300, 0]]), "right, left pupil"


# The output, in a node of this process: exact faces at exact times.


class Listener:
    """A node with a publisher's and a listener's side, and what was heard by topic."""

    def __init__(self) -> None:
        self.node = Node(f"hri_{os.getpid()}")
        self.heard: dict[str, list[Any]] = {}
        self._ears = Node(f"ears_{os.getpid()}")
        self._executor = SingleThreadedExecutor()
        for node in (self.node, self._ears):
            self._executor.add_node(node)

    def listen(self, topic: str, kind: Any) -> list[Any]:
        """Hear a topic from now on: the list that its messages go to."""
        self.heard[topic] = []
        self._ears.create_subscription(kind, topic, self.heard[topic].append, QoSProfile(depth=100))
        return self.heard[topic]

    def publishers(self, topic: str) -> int:
        return self._ears.count_publishers(topic)

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Spin until a condition holds: its value."""
        return wait(self._executor, condition, what)

    def close(self) -> None:
        self._executor.shutdown()
        for node in (self.node, self._ears):
            node.destroy_node()


def wait(executor: SingleThreadedExecutor, condition: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        value = condition()
        if value:
            return value
        executor.spin_once(timeout_sec=0.02)
    raise AssertionError(f"waited in vain for {what}")


@pytest.fixture
def listener() -> Iterator[Listener]:
    rclpy.init()
    found = Listener()
    yield found
    found.close()
    rclpy.shutdown()


@pytest.fixture(scope="module")
def astronaut_face(builtin: Model, astronaut: np.ndarray) -> Face:
    return Pipeline(builtin)(astronaut, [ASTRONAUT_BOX], two_step=True)[0]


class Scene:
    """Answers with the astronaut's face, under any numbers and at any time."""

    def __init__(self, model: Model, image: np.ndarray, face: Face) -> None:
        self._image, self._face, self._face_model = image, face, model.face_model
        self._camera = CameraModel.from_field_of_view(image.shape[:2], 1.0)
        self.metric = metric_face(face, model.face_model, self._camera)

    def answer(self, seconds: float, *numbers: int) -> Answer:
        header = Header(frame_id="camera")
        header.stamp.sec, header.stamp.nanosec = divmod(round(seconds * 1e9), 10**9)
        tracks = [Track(number, self._face, self._face) for number in numbers]
        return Answer.of(header, self._image, self._camera, self._face_model, tracks, [self.metric] * len(tracks))


@pytest.fixture(scope="module")
def scene(builtin: Model, astronaut: np.ndarray, astronaut_face: Face) -> Scene:
    return Scene(builtin, astronaut, astronaut_face)


@pytest.fixture
def tracked(listener: Listener) -> list[Any]:
    """What is heard of the list of faces."""
    from hri_msgs.msg import IdsList

    return listener.listen("/humans/faces/tracked", IdsList)


@pytest.fixture
def output(listener: Listener, tracked: list[Any]) -> Iterator[Any]:
    from radan_ros.ros.hri import HumansOutput

    made = HumansOutput(listener.node, Settings(retain=0.5))
    listener.wait(lambda: made._tracked.get_subscription_count(), "the subscription")
    yield made
    made.destroy()


def publish(listener: Listener, output: Any, tracked: list[Any], answer: Answer) -> list[str]:
    """Publish an answer: the ids that its list shows."""
    tracked.clear()
    output.publish(answer)
    same = listener.wait(lambda: [m for m in tracked if m.header == answer.header], "the list")
    return list(same[-1].ids)


def test_a_lost_face_stays_on_the_list_while_it_may_come_back(
    listener: Listener, output: Any, tracked: list[Any], scene: Scene
) -> None:
    def ids(seconds: float, *numbers: int) -> list[str]:
        return publish(listener, output, tracked, scene.answer(seconds, *numbers))

    assert ids(100.0) == []
    assert ids(100.1, 7, 8) == ["f0007", "f0008"]
    assert ids(100.5, 8) == ["f0007", "f0008"]
    assert listener.publishers("/humans/faces/f0007/roi") == 1
    assert ids(100.7, 8) == ["f0008"], "0.6 s unseen"
    for topic in TOPICS:
        listener.wait(lambda t=topic: not listener.publishers(f"/humans/faces/f0007/{t}"), "the end of f0007's topics")
        assert listener.publishers(f"/humans/faces/f0008/{topic}") == 1
    assert ids(100.8, 7) == ["f0008", "f0007"]
    assert ids(90.0, 9) == ["f0009"], "a bag that begins again"
    assert ids(90.0) == [], "a camera without a clock"


def test_another_time_to_come_back_holds_for_the_faces_on_the_list(
    listener: Listener, output: Any, tracked: list[Any], scene: Scene
) -> None:
    assert publish(listener, output, tracked, scene.answer(100.0, 7)) == ["f0007"]
    output.change(Settings(retain=2.0))
    assert publish(listener, output, tracked, scene.answer(101.5)) == ["f0007"]
    output.change(Settings(retain=1.0))
    assert publish(listener, output, tracked, scene.answer(101.6)) == []


def test_images_without_a_frame_give_faces_but_no_frames(
    listener: Listener, output: Any, tracked: list[Any], scene: Scene
) -> None:
    frames = listener.listen("/tf", TFMessage)
    listener.wait(lambda: output._tf.get_subscription_count(), "the subscription")
    answer = scene.answer(100.0, 7)
    answer.header.frame_id = ""
    assert publish(listener, output, tracked, answer) == ["f0007"]
    publish(listener, output, tracked, scene.answer(100.1, 7))
    listener.wait(lambda: frames, "the next image's frames")
    assert all(t.header.frame_id for m in frames for t in m.transforms) and len(frames) == 1


def test_nothing_is_left_on_the_list_when_the_node_stops(
    listener: Listener, output: Any, tracked: list[Any], scene: Scene
) -> None:
    before = len(list(listener.node.publishers))
    publish(listener, output, tracked, scene.answer(100.0, 3))
    assert len(list(listener.node.publishers)) == before + 4
    output.clear()
    last = listener.wait(lambda: [m for m in tracked if m.header.stamp.sec != 100], "the last list")[-1]
    assert last.ids == [] and last.header.frame_id == "camera"
    assert len(list(listener.node.publishers)) == before


def test_destroying_it_takes_faces_from_the_list_and_all_publishers_away(
    listener: Listener, tracked: list[Any], scene: Scene
) -> None:
    from radan_ros.ros.hri import HumansOutput

    before = len(list(listener.node.publishers))
    output = HumansOutput(listener.node, Settings(retain=0.5))
    listener.wait(lambda: output._tracked.get_subscription_count(), "the subscription")
    publish(listener, output, tracked, scene.answer(100.0, 3))
    output.destroy()
    listener.wait(lambda: tracked[-1].ids == [], "an empty list")
    assert len(list(listener.node.publishers)) == before


def test_faces_that_came_and_went_leave_nothing_behind(listener: Listener, output: Any, scene: Scene) -> None:
    node = listener.node
    entities = node.default_callback_group.entities

    def state() -> tuple[int, int, int, int]:
        parameters = node.get_parameters_by_prefix("qos_overrides")
        return len(list(node.publishers)), len(list(node.waitables)), len(parameters), len(entities)

    before = state()
    for number in range(60):
        output.publish(scene.answer(100.0 + number, number))
    output.publish(scene.answer(200.0))
    assert state() == before


def test_a_topic_costs_nothing_until_somebody_subscribes(
    listener: Listener, output: Any, tracked: list[Any], scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    from radan_ros.ros import hri

    made: list[str] = []
    for name in ("face_window", "tracked_landmarks", "face_picture"):
        original = getattr(hri, name)
        monkeypatch.setattr(
            hri, name, lambda *args, n=name, f=original, **options: (made.append(n), f(*args, **options))[1]
        )
    publish(listener, output, tracked, scene.answer(100.0, 1))
    assert made == []
    from hri_msgs.msg import NormalizedRegionOfInterest2D

    rois = listener.listen("/humans/faces/f0001/roi", NormalizedRegionOfInterest2D)
    listener.wait(lambda: output._faces["f0001"]._roi.get_subscription_count(), "the subscription")
    publish(listener, output, tracked, scene.answer(100.1, 1))
    assert made == ["face_window"]
    listener.wait(lambda: rois, "the region")


def test_a_face_without_a_known_confidence_counts_as_sure(
    listener: Listener, output: Any, tracked: list[Any], scene: Scene
) -> None:
    from hri_msgs.msg import NormalizedRegionOfInterest2D

    for number, (confidence, expected) in enumerate(((0.625, 0.625), (float("nan"), 1.0))):
        answer = scene.answer(100.0 + number, number)
        answer.tracks[0] = replace(answer.tracks[0], face=replace(answer.tracks[0].face, confidence=confidence))
        publish(listener, output, tracked, answer)
        rois = listener.listen(f"/humans/faces/f{number:04d}/roi", NormalizedRegionOfInterest2D)
        face = output._faces[f"f{number:04d}"]
        listener.wait(lambda face=face: face._roi.get_subscription_count(), "the subscription")
        output.publish(answer)
        assert listener.wait(lambda rois=rois: rois, "the region")[0].c == expected


def test_two_nodes_on_one_list_are_warned_of(
    listener: Listener, output: Any, tracked: list[Any], scene: Scene, capfd: pytest.CaptureFixture[str]
) -> None:
    from hri_msgs.msg import IdsList

    publish(listener, output, tracked, scene.answer(100.0, 1))
    assert "another node" not in capfd.readouterr().err
    other = listener.node.create_publisher(IdsList, "/humans/faces/tracked", 1)
    listener.wait(lambda: listener.node.count_publishers("/humans/faces/tracked") == 2, "the other one")
    for number in (2, 3):
        publish(listener, output, tracked, scene.answer(100.0 + number, number))
    listener.node.destroy_publisher(other)
    assert capfd.readouterr().err.count("another node publishes /humans/faces/tracked") == 1


# The real node.


@pytest.fixture(scope="module")
def node(environment: dict[str, str]) -> Iterator[Process]:
    process = Process(*AT_ONCE, "-p", "device:=cpu", "-p", "detection_period:=0.0", environment=environment)
    yield process
    alive, log = process.alive(), process.log()
    process.kill()
    assert alive and "Traceback" not in log, log


@pytest.fixture
def client(node: Process) -> Iterator[Client]:
    from hri_msgs.msg import IdsList

    assert node.alive(), node.log()
    with connected("/radan", outputs=("faces",)) as found:
        listen(found, "tracked", IdsList, "/humans/faces/tracked")
        found.wait(lambda: found.count_publishers("/humans/faces/tracked"), "the list of faces")
        yield found


def listen(client: Client, name: str, kind: Any, topic: str) -> list[Any]:
    client.received[name] = []
    client.listen(name, kind, topic)
    return client.received[name]


def answered(client: Client, pixels: np.ndarray, faces: int, *topics: str) -> tuple[Image, dict[str, Any]]:
    """Show the node a picture until so many faces are on the list: the message, and its answers."""
    for _ in range(60):  # two seconds: a face stays on the list for `retain`
        message = client.image(pixels, frame="head_camera")
        answers = client.ask(message, ("faces", "tracked", *topics))
        if len(answers["tracked"].ids) == faces == len(answers["faces"].faces):
            return message, answers
    raise AssertionError(f"never {faces} faces: {answers['faces']}, {answers['tracked']}")


def listen_to_face(client: Client, name: str) -> None:
    from hri_msgs.msg import FacialLandmarks, NormalizedRegionOfInterest2D

    kinds = (NormalizedRegionOfInterest2D, FacialLandmarks, Image, Image)
    for topic, kind in zip(TOPICS, kinds, strict=True):
        listen(client, topic, kind, f"/humans/faces/{name}/{topic}")


def test_a_face_is_shown_to_ros4hri(client: Client, astronaut: np.ndarray) -> None:
    from radan_ros.ros.hri import face_picture

    height, width = astronaut.shape[:2]
    _, answers = answered(client, astronaut, 1)
    name = answers["tracked"].ids[0]
    assert name == f"f{answers['faces'].faces[0].id:04d}"
    listen_to_face(client, name)
    message, answers = answered(client, astronaut, 1, *TOPICS)
    assert list(answers["tracked"].ids) == [name]
    for answer in answers.values():
        assert answer.header == message.header
    pixels = np.asarray(answers["faces"].faces[0].landmarks_px).reshape(68, 2)

    points = np.array([[p.x, p.y, p.c] for p in answers["landmarks"].landmarks])
    assert (answers["landmarks"].height, answers["landmarks"].width) == (height, width)
    assert points.shape == (70, 3)
    assert np.allclose(points[:68, :2], (pixels + 0.5) / (width, height), atol=1e-6)
    assert ((points[:68, 2] >= 0.5) & (points[:68, 2] <= 1)).all() and (points[68:, 2] == 0).all()
    for pupil, corners in ((68, (36, 39)), (69, (42, 45))):
        eye = np.mean([ASTRONAUT_MARKS[corner] for corner in corners], axis=0)
        assert np.abs(points[pupil, :2] * (width, height) - eye).max() < 6

    roi = answers["roi"]
    inside = (points[:, :2] >= (roi.xmin, roi.ymin)) & (points[:, :2] <= (roi.xmax, roi.ymax))
    assert inside.all() and roi.c == points[0, 2]
    left, top, right, bottom = np.array([roi.xmin, roi.ymin, roi.xmax, roi.ymax]) * (width, height, width, height)
    assert 150 < left < right < 300 and 20 < top < 85 and 165 < bottom < 200, "the astronaut's face with its forehead"

    for topic in ("cropped", "aligned"):
        picture = answers[topic]
        assert (picture.height, picture.width, picture.encoding, picture.step) == (128, 128, "bgr8", 384)
        shown = np.frombuffer(picture.data, np.uint8).reshape(128, 128, 3).astype(int)
        expected = face_picture(astronaut, pixels, aligned=topic == "aligned")
        assert np.abs(shown - expected).max() <= 2


def transform(client: Client, header: Header, child: str) -> Any:
    """The transform to a frame at the time of a header."""
    return client.wait(
        lambda: [
            t
            for m in client.received["tf"]
            for t in m.transforms
            if t.header.stamp == header.stamp and t.child_frame_id == child
        ],
        f"the frame {child}",
    )[-1]


def test_frames_are_those_of_rep_155(client: Client, astronaut: np.ndarray) -> None:
    message, answers = answered(client, astronaut, 1)
    name, face = answers["tracked"].ids[0], answers["faces"].faces[0]
    head = transform(client, message.header, f"face_{name}")
    assert head.header == message.header
    ours = transform(client, message.header, f"face_{face.id}")
    assert head.transform == ours.transform, "the frame that is there without ROS4HRI"

    gaze = transform(client, message.header, f"gaze_{name}")
    assert gaze.header.frame_id == f"face_{name}"
    t = gaze.transform.translation
    assert (t.x, t.y, t.z) == (0, 0, 0), "at the sellion"
    axes = matrix(head.transform.rotation) @ matrix(gaze.transform.rotation)
    head_axes = matrix(head.transform.rotation)
    assert np.allclose(axes, np.stack([-head_axes[:, 1], -head_axes[:, 2], head_axes[:, 0]], axis=1))
    # She looks into the camera, whose x is right, y down, z forward.
    assert np.allclose(axes, np.diag([-1, 1, -1]), atol=0.45)


def matrix(q: Any) -> np.ndarray:
    """The rotation (3, 3) of a quaternion: its columns are the frame's axes in its parent."""
    rotation, _ = cv2.Rodrigues(2 * np.arctan2(np.linalg.norm([q.x, q.y, q.z]), q.w) * unit([q.x, q.y, q.z]))
    return rotation


def unit(vector: list[float]) -> np.ndarray:
    return np.array(vector) / np.linalg.norm(vector)


def test_all_topics_are_reliable(client: Client, astronaut: np.ndarray) -> None:
    name = answered(client, astronaut, 1)[1]["tracked"].ids[0]
    topics = ["/humans/faces/tracked", *(f"/humans/faces/{name}/{topic}" for topic in TOPICS)]
    for topic in topics:
        found = client.wait(lambda t=topic: client.get_publishers_info_by_topic(t), topic)
        assert [f.qos_profile.reliability for f in found] == [ReliabilityPolicy.RELIABLE]


def test_an_empty_list_where_there_is_no_face(client: Client, astronaut: np.ndarray) -> None:
    name = answered(client, astronaut, 1)[1]["tracked"].ids[0]
    client.wait(lambda: client.count_publishers(f"/humans/faces/{name}/roi"), "the face's topics")
    message, answers = answered(client, np.full((120, 160, 3), 90, np.uint8), 0)
    assert answers["tracked"].header == message.header
    for topic in TOPICS:
        client.wait(lambda t=topic: not client.count_publishers(f"/humans/faces/{name}/{t}"), "the topics' end")


def test_two_faces_have_two_names(client: Client, couple: np.ndarray) -> None:
    _, answers = answered(client, couple, 2)
    assert sorted(answers["tracked"].ids) == sorted(f"f{face.id:04d}" for face in answers["faces"].faces)


def test_humans_can_be_switched_off_and_on_again(client: Client, astronaut: np.ndarray) -> None:
    def publish(*names: str) -> None:
        result = client.set(publish=list(names))[0]
        assert result.successful, result.reason

    answered(client, astronaut, 1)
    client.received["tracked"].clear()
    publish("meshes")
    client.wait(lambda: client.received["tracked"] and not client.received["tracked"][-1].ids, "an empty list")
    client.wait(lambda: not client.count_publishers("/humans/faces/tracked"), "the end of the list")
    client.ask(client.image(astronaut))
    publish("meshes", "humans")
    client.wait(lambda: client.count_publishers("/humans/faces/tracked"), "the list")
    answered(client, astronaut, 1)


def test_another_time_to_come_back_takes_nobody_away(client: Client, astronaut: np.ndarray) -> None:
    name = answered(client, astronaut, 1)[1]["tracked"].ids[0]
    topics = ("/humans/faces/tracked", f"/humans/faces/{name}/roi")

    def publishers() -> list[bytes]:
        return [bytes(p.endpoint_gid) for topic in topics for p in client.get_publishers_info_by_topic(topic)]

    before = client.wait(lambda: len(publishers()) == 2 and publishers(), "the topics")
    client.received["tracked"].clear()
    try:
        assert client.set(retain=2.0)[0].successful
        _, answers = answered(client, astronaut, 1)
        assert answers["tracked"].ids == [name] and all(m.ids == [name] for m in client.received["tracked"])
        assert publishers() == before, "the topics are those of before"
    finally:
        client.set(retain=1.0)


def test_deactivating_empties_the_list(client: Client, astronaut: np.ndarray) -> None:
    name = answered(client, astronaut, 1)[1]["tracked"].ids[0]
    client.received["tracked"].clear()
    assert client.change("deactivate")
    last = client.wait(lambda: client.received["tracked"], "a list without an image")[-1]
    assert last.ids == [] and last.header.frame_id == "head_camera"
    client.wait(lambda: not client.count_publishers(f"/humans/faces/{name}/roi"), "the end of the face's topics")
    assert client.change("activate")
    client.wait(lambda: client.images.get_subscription_count(), "the node's subscription")
    answered(client, astronaut, 1)
