"""The recorder: what goes over the wire comes back from the bag, for a reader that knows no type of this package."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("radan_ros.msg", reason="needs this package's messages: make build")
pytest.importorskip("rosbags", reason="the recorder needs rosbags")
pytest.importorskip("skimage", reason="the built-in picture comes with scikit-image")

from ament_index_python.packages import get_package_prefix  # noqa: E402
from radan_ros.msg import Face, FaceArray, FaceTopology  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from rclpy.serialization import deserialize_message  # noqa: E402
from rosbags.highlevel import AnyReader  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from radan_ros import Model  # noqa: E402
from radan_ros.fastdds import PROFILE_VARIABLES  # noqa: E402
from radan_ros.tools import demo, demo_pictures, play, record  # noqa: E402
from radan_ros.tools.sources import Astronaut  # noqa: E402

TYPES = (
    *(f"radan_ros/msg/{name}" for name in ("Face", "FaceArray", "FaceMesh", "FaceMeshArray", "FaceTopology")),
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CameraInfo",
    "tf2_msgs/msg/TFMessage",
    "diagnostic_msgs/msg/DiagnosticArray",
)
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)  # fmt: skip
RECORD = [sys.executable, "-m", "radan_ros.tools.record"]
PLAY = [sys.executable, "-m", "radan_ros.tools.play"]
DEMO = [sys.executable, "-m", "radan_ros.tools.demo"]
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


@pytest.fixture
def node() -> Iterator[Any]:
    """A node that is spun by a thread."""
    context = rclpy.Context()
    rclpy.init(context=context)
    made = rclpy.create_node("bag_test", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(made)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield made
    executor.shutdown(timeout_sec=2)
    thread.join(2)
    made.destroy_node()
    context.try_shutdown()


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def _until(condition: Any, timeout: float = 20) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def _faces(number: int) -> FaceArray:
    message = FaceArray(height=480, width=640, model="model", version="c0ffee", metric=True)
    message.header.stamp.sec, message.header.stamp.nanosec = 1700000000 + number, 123456789
    message.header.frame_id = "camera_optical_frame"
    for index in range(number):
        face = Face(id=index, score=0.5 * index, box=np.arange(4, dtype=np.float32))
        face.landmarks_px = np.arange(136, dtype=np.float32) + index
        face.parameters = np.linspace(-1, 1, 62).astype(np.float32)
        face.pose.pose.position.z = 0.75
        message.faces.append(face)
    return message


@pytest.mark.parametrize("name", TYPES)
def test_the_hash_is_that_of_the_recorded_definition(name: str) -> None:
    # Once as the generator wrote it, once computed by rosbags from the definition that goes into the bag: the text
    # therefore has every field and every contained type.
    store = get_typestore(Stores.EMPTY)
    first, *others = record.message_definition(name).split(record.SEPARATOR)
    types = dict(get_types_from_msg(first, name))
    for part in others:
        head, _, text = part.partition("\n")
        package, short = head.removeprefix("MSG: ").split("/")
        types.update(get_types_from_msg(text, f"{package}/msg/{short}"))
    store.register(types)
    assert record.type_hash(name) == store.hash_rihs01(name)


def test_without_an_installed_hash_it_is_made_from_the_definition(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Humble installs none."""
    installed, share = record.type_hash("radan_ros/msg/FaceArray"), record._share
    monkeypatch.setattr(record, "_share", lambda name, end: tmp_path / "no" if end == ".json" else share(name, end))
    assert record.type_hash("radan_ros/msg/FaceArray") == installed


def test_a_definition_keeps_the_comments_and_has_each_contained_type_once() -> None:
    text = record.message_definition("radan_ros/msg/FaceArray")
    assert text.startswith("# All faces of one image")
    heads = [line for line in text.splitlines() if line.startswith("MSG: ")]
    assert len(heads) == len(set(heads))
    assert {"MSG: radan_ros/Face", "MSG: std_msgs/Header", "MSG: builtin_interfaces/Time"} <= set(heads)


def test_a_type_that_is_not_installed_is_named() -> None:
    with pytest.raises(LookupError, match="nowhere_msgs"):
        record.message_definition("nowhere_msgs/msg/Thing")
    with pytest.raises(LookupError, match="Nothing.msg"):
        record.message_definition("std_msgs/msg/Nothing")
    with pytest.raises(LookupError, match="Nothing.msg"):
        record.type_hash("std_msgs/msg/Nothing")


def test_messages_of_this_package_come_back_from_a_reader_without_its_types(node: Any, tmp_path: Path) -> None:
    publishers = {
        "bag_test/faces": node.create_publisher(FaceArray, "bag_test/faces", BEST_EFFORT),
        "bag_test/topology": node.create_publisher(FaceTopology, "bag_test/topology", LATCHED),
    }
    topology = FaceTopology(model="model", version="c0ffee", vertex_count=3, triangles=[0, 1, 2])
    publishers["bag_test/topology"].publish(topology)  # before anybody listens
    recorder = record.BagRecorder(node, tmp_path / "bag", keep_times=True)
    assert recorder.wait_for(list(publishers), 20) == []
    faces = recorder.topics["/bag_test/faces"]
    _until(lambda: publishers["bag_test/faces"].get_subscription_count() == 1)
    sent = [_faces(number) for number in range(3)]
    for message in sent:
        publishers["bag_test/faces"].publish(message)
    _until(lambda: faces.count == 3 and recorder.topics["/bag_test/topology"].count == 1)
    recorder.close()

    with AnyReader([tmp_path / "bag"]) as reader:
        connections = {connection.topic: connection for connection in reader.connections}
        assert connections["/bag_test/faces"].digest == record.type_hash("radan_ros/msg/FaceArray")
        assert connections["/bag_test/faces"].ext.offered_qos_profiles[0].reliability.name == "BEST_EFFORT"
        assert connections["/bag_test/topology"].ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"
        raws = {topic: [] for topic in connections}
        for connection, _, raw in reader.messages():
            raws[connection.topic].append((raw, reader.deserialize(raw, connection.msgtype)))
    # The bytes are those of the wire (what pads them is arbitrary), and the reader finds the fields where they belong.
    assert [deserialize_message(bytes(raw), FaceArray) for raw, _ in raws["/bag_test/faces"]] == sent
    last = raws["/bag_test/faces"][2][1]
    assert [face.id for face in last.faces] == [0, 1] and last.version == "c0ffee"
    assert np.array_equal(last.faces[1].landmarks_px, np.arange(136, dtype=np.float32) + 1)
    assert last.faces[0].pose.pose.position.z == 0.75
    assert raws["/bag_test/topology"][0][1].triangles.tolist() == [0, 1, 2]
    assert faces.stamps == [1700000000_123456789 + n * 10**9 for n in range(3)]
    # Published now, stamped in 2023: the latency is the difference.
    assert all(time.time() - 1.7e9 - 60 < ms / 1e3 + n < time.time() - 1.7e9 for n, ms in enumerate(faces.latencies))


def test_two_types_under_one_name_are_refused(node: Any, tmp_path: Path) -> None:
    context = rclpy.Context()  # a second participant: one alone cannot publish two types under a name
    rclpy.init(context=context)
    other = rclpy.create_node("other_bag_test", context=context)
    recorder = record.BagRecorder(node, tmp_path / "bag")
    try:
        kept = (
            node.create_publisher(FaceArray, "bag_test/mixed", RELIABLE),
            other.create_publisher(FaceTopology, "bag_test/mixed", RELIABLE),
        )
        _until(lambda: len(node.get_publishers_info_by_topic("/bag_test/mixed")) == len(kept))
        with pytest.raises(LookupError, match=r"FaceArray and as .*FaceTopology"):
            recorder.add("bag_test/mixed")
    finally:
        recorder.close()
        other.destroy_node()
        context.try_shutdown()
    assert (tmp_path / "bag" / "metadata.yaml").is_file()


def test_what_the_disk_cannot_take_is_counted(node: Any, tmp_path: Path) -> None:
    publisher = node.create_publisher(FaceArray, "bag_test/slow", RELIABLE)
    recorder = record.BagRecorder(node, tmp_path / "bag", queue_bytes=100)
    assert recorder.wait_for(["bag_test/slow"], 20) == []
    _until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(_faces(1))
    topic = recorder.topics["/bag_test/slow"]
    _until(lambda: topic.count == 1)
    recorder.close()
    assert topic.dropped == 1  # larger than the whole queue
    # A recording of days must not grow in memory, unless it was asked to.
    assert topic.stamps == topic.published == []


def test_a_bag_that_the_disk_does_not_take_is_an_error(node: Any, tmp_path: Path) -> None:
    publisher = node.create_publisher(Image, "bag_test/large", RELIABLE)
    recorder = record.BagRecorder(node, tmp_path / "bag")
    assert recorder.wait_for(["bag_test/large"], 20) == []
    _until(lambda: publisher.get_subscription_count() == 1)
    message = play.ImageMessage((480, 640), "mono8", "eye")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # as a full disk, without filling one
    try:
        for seed in range(5):  # noise, which cannot be compressed
            message.set(np.random.default_rng(seed).integers(0, 256, (480, 640), np.uint8))
            publisher.publish(message.message)
        _until(lambda: recorder.topics["/bag_test/large"].count == 5)
        with pytest.raises(OSError, match="the bag is incomplete"):
            recorder.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert recorder.failed is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_play_and_record_as_programs(number: int, reliability: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    bag = tmp_path / "bag"
    recorder = subprocess.Popen(
        [*RECORD, str(bag), "camera_info", "seen", "--ros-args", "-r", "camera_info:=/c/camera_info"],
        env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        options = ["--frames", "12", "--encoding", "bayer_rggb8", "--fov", "90", "--frame-id", "eye", "--rate", "20"]
        options += ["--best-effort"] if reliability == "best_effort" else []
        player = subprocess.run(
            [*PLAY, "astronaut", *options, "--wait-for-subscribers", "--ros-args"]
            + ["-r", "image:=/seen", "-r", "camera_info:=/c/camera_info"],
            env=environment, cwd=tmp_path, timeout=60, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert player.returncode == 0, player.stderr
        assert player.stdout.startswith("12 images of 640x480")
        time.sleep(0.5)  # best effort has no acknowledgement to wait for
        recorder.send_signal(number)
        output, _ = recorder.communicate(timeout=20)
    finally:
        recorder.kill()
    assert recorder.returncode == 0, output
    assert "/seen (sensor_msgs/msg/Image)" in output
    with AnyReader([bag]) as reader:
        images = [
            reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages() if c.topic == "/seen"
        ]  # fmt: skip
        infos = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages() if c.topic == "/c/camera_info"]
    # Best effort may lose some on a busy machine; what comes is whole and in order.
    assert len(images) == 12 or (reliability == "best_effort" and images)
    sent = [play.encode(frame, "bayer_rggb8") for frame in itertools.islice(Astronaut(), 12)]
    last = -1
    for image in images:
        assert (image.height, image.width, image.step, image.encoding) == (480, 640, 640, "bayer_rggb8")
        assert image.header.frame_id == "eye"
        last = next(k for k in range(last + 1, 12) if np.array_equal(image.data.reshape(480, 640), sent[k]))
    stamps = [image.header.stamp.sec * 10**9 + image.header.stamp.nanosec for image in images]
    assert stamps == sorted(set(stamps))
    # 90 degrees over 640 pixels: the focal length is half the width; the centre is between the middle pixels.
    assert infos and infos[-1].k.reshape(3, 3) == pytest.approx(np.array([[320, 0, 319.5], [0, 320, 239.5], [0, 0, 1]]))
    assert infos[-1].header.frame_id == "eye"
    if reliability == "reliable":  # else the image of a CameraInfo may be lost
        assert {i.header.stamp.sec * 10**9 + i.header.stamp.nanosec for i in infos} <= set(stamps)


@pytest.mark.parametrize("encoding", play.BYTES_PER_PIXEL)
def test_every_encoding_keeps_its_colours_and_its_row_length(encoding: str) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    pixels = play.encode(frame, encoding)
    message = play.ImageMessage((6, 8), encoding, "eye")
    message.set(pixels)
    assert bytes(message.message.data) == pixels.tobytes()
    assert message.message.step * 6 == len(message.message.data) == 48 * play.BYTES_PER_PIXEL[encoding]
    if encoding in ("rgb8", "rgba8"):
        assert np.array_equal(pixels[..., :3], frame[..., ::-1])
    if encoding == "bayer_rggb8":
        assert np.array_equal(pixels[::2, ::2], frame[::2, ::2, 2]) and np.array_equal(
            pixels[1::2, 1::2], frame[1::2, 1::2, 0]
        )
        assert np.array_equal(pixels[::2, 1::2], frame[::2, 1::2, 1])
    if encoding == "mono16":
        assert np.array_equal(pixels >> 8, play.encode(frame, "mono8"))


def test_record_refuses_a_bag_that_exists_and_says_when_nobody_publishes(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    refused = _run([*RECORD, "there", "x"], tmp_path)
    assert refused.returncode == 1 and "exists already" in refused.stderr
    nobody = _run([*RECORD, "new", "silence", "--duration", "1"], tmp_path)
    assert nobody.returncode == 1 and "nobody published /silence" in nobody.stderr
    with AnyReader([tmp_path / "new"]) as reader:
        assert reader.message_count == 0


def test_record_says_in_one_line_why_it_cannot_write(tmp_path: Path) -> None:
    run = _run([*RECORD, "/proc/nope/bag", "--all"], tmp_path)
    assert run.returncode == 1 and run.stderr.startswith("record: ") and "/proc/nope" in run.stderr
    assert run.stderr.count("\n") == 1
    # Hides the installed one: `python -m` looks in the working directory first.
    (tmp_path / "rosbags.py").write_text("raise ImportError('no such thing')")
    run = _run([*RECORD, "bag", "--all"], tmp_path)
    assert run.returncode == 1 and run.stderr.startswith("record: ") and "pip install rosbags" in run.stderr
    assert run.stderr.count("\n") == 1 and not (tmp_path / "bag").exists()


@pytest.mark.parametrize("gap", [0.0, 0.002, 0.02])
def test_an_impatient_user_gets_a_whole_recording(gap: float, node: Any, tmp_path: Path) -> None:
    publisher = node.create_publisher(Image, "bag_test/impatient", RELIABLE)
    program = str(Path(get_package_prefix("radan_ros")) / "lib" / "radan_ros" / "record")
    recorder = subprocess.Popen(
        [program, "bag", "bag_test/impatient"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        _until(lambda: publisher.get_subscription_count() > 0)
        for _ in range(20):
            publisher.publish(Image(height=480, width=640, encoding="mono8", step=640, data=bytes(480 * 640)))
        recorder.send_signal(signal.SIGINT)
        time.sleep(gap)
        recorder.send_signal(signal.SIGINT)
        recorder.send_signal(signal.SIGTERM)
        _, said = recorder.communicate(timeout=20)
    finally:
        recorder.kill()
    assert (recorder.returncode, said) == (0, "")
    assert (tmp_path / "bag" / "metadata.yaml").is_file()
    with AnyReader([tmp_path / "bag"]) as reader:
        assert [c.topic for c in reader.connections] == ["/bag_test/impatient"]


@pytest.mark.parametrize("program", [RECORD, PLAY], ids=["record", "play"])
def test_wrong_ros_arguments_and_names_are_told_in_one_line(program: list[str], tmp_path: Path) -> None:
    name = program[-1].rpartition(".")[2]
    arguments = ["bag", "x"] if program is RECORD else ["astronaut", "--frames", "1"]
    cases = {
        "nope.yaml": ["--ros-args", "--params-file", "/nope.yaml"],
        "__node:=a-b": ["--ros-args", "-r", "__node:=a-b"],
        "bad topic!": ["bad topic!"] if program is RECORD else ["--wait-for", "bad topic!"],
    }
    for words, wrong in cases.items():
        run = _run([*program, *arguments, *wrong], tmp_path)
        assert run.returncode == 1 and run.stderr.count("\n") == 1, run.stderr
        assert run.stderr.startswith(f"{name}: ") and words in run.stderr
    assert not any(tmp_path.iterdir()), "nothing was begun"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_standard_output_costs_a_line_and_no_recording(tmp_path: Path) -> None:
    for name, command in {
        "play": [*PLAY, "astronaut", "--frames", "2", "--ros-args", "-r", "__ns:=/bag_test/full"],
        "record": [*RECORD, "bag", "--all", "--duration", "1"],
    }.items():
        with open("/dev/full", "w") as full:
            run = subprocess.run(
                command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
            )
        assert run.returncode == 1
        assert run.stderr == f"{name}: standard output: No space left on device\n"
    assert (tmp_path / "bag" / "metadata.yaml").is_file()


@pytest.mark.parametrize("duration", ["-1", "0", "nan", "inf", "soon"])
def test_record_refuses_a_duration_that_is_none(duration: str, tmp_path: Path) -> None:
    run = _run([*RECORD, "bag", "--all", "--duration", duration], tmp_path)
    assert run.returncode == 2 and "--duration" in run.stderr and not (tmp_path / "bag").exists()


@pytest.mark.parametrize("end", ["dry", "SIGTERM", "SIGINT"])
def test_play_in_a_loop_ends(end: str, node: Any, tmp_path: Path) -> None:
    picture = tmp_path / "pictures" / "a.png"
    picture.parent.mkdir()
    assert cv2.imwrite(str(picture), np.full((4, 6, 3), 9, np.uint8))
    seen: list[Image] = []
    node.create_subscription(Image, "bag_test/looped", seen.append, RELIABLE)
    rate = "50" if end == "dry" else "0.01"  # in the middle of a long sleep
    player = subprocess.Popen(
        [*PLAY, str(picture.parent), "--loop", "--rate", rate, "--wait-for-subscribers", "--ros-args"]
        + ["-r", "image:=bag_test/looped"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        _until(lambda: len(seen) > (2 if end == "dry" else 0))
        if end == "dry":
            picture.unlink()
        else:
            player.send_signal(getattr(signal, end))
        _, errors = player.communicate(timeout=20)
    finally:
        player.kill()
    if end == "dry":
        assert player.returncode == 1 and errors.startswith("play: ") and errors.endswith("no frame\n")
    else:
        assert player.returncode == 0 and not errors


def test_the_demo_chooses_a_dds_profile_where_the_user_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in PROFILE_VARIABLES}
    monkeypatch.setattr(os, "environ", environment | {"ROS_DISTRO": "kilted", PROFILE_VARIABLES[0]: ""})
    demo.set_environment()
    assert os.environ[PROFILE_VARIABLES[1]].endswith("fastdds.xml")
    monkeypatch.setattr(os, "environ", environment | {"ROS_DISTRO": "kilted", PROFILE_VARIABLES[0]: "mine.xml"})
    demo.set_environment()
    assert PROFILE_VARIABLES[1] not in os.environ


def test_the_demo_colours_the_built_in_face_and_no_other(builtin: Model) -> None:
    colours = demo_pictures.mesh_colours(builtin.face_model.version)
    assert np.shape(colours) == builtin.face_model.mean.shape and len(np.unique(colours, axis=0)) > 3
    assert np.shape(demo_pictures.mesh_colours("c0ffee")) == (3,)


def test_the_demo_says_in_one_line_why_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    run = _run([*DEMO, "--out", "file/out"], tmp_path)
    assert run.returncode == 1 and run.stderr.startswith("demo: ") and run.stderr.count("\n") == 1


def _children(process: int) -> set[int]:
    found = set()
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        found.update(int(child) for child in task.read_text().split())
    return found


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("moment", ["one process", "two processes", "playing"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_processes_of_the_demo(number: int, moment: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen([*DEMO, "--frames", "900"], cwd=tmp_path, stdout=output, stderr=output)
    children: set[int] = set()
    try:
        if moment == "playing":
            _until(lambda: "playing 900 images" in log.read_text(), 60)
        else:
            _until(lambda: len(_children(process.pid)) >= (1 if moment == "one process" else 2), 60)
        end = time.monotonic() + 60
        # Again and again, as somebody would who is out of patience: that must not disturb the ending.
        while process.poll() is None:
            children |= _children(process.pid)
            process.send_signal(number)
            assert time.monotonic() < end, "the demo does not end"
            time.sleep(0.05)
        assert children and not [child for child in children if Path(f"/proc/{child}").exists()]
        assert process.returncode in (130, -number)  # -number: in Python's own ending, after ours
    finally:
        process.kill()
        for child in children:
            if Path(f"/proc/{child}").exists():
                os.kill(child, signal.SIGKILL)


def test_play_says_in_one_line_what_it_cannot_open(tmp_path: Path) -> None:
    run = _run([*PLAY, "missing.mp4"], tmp_path)
    assert (
        run.returncode == 1
        and run.stderr.startswith("play: missing.mp4: no such file")
        and "Traceback" not in run.stderr
    )
