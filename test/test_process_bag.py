"""Bags in, bags with the node's topics out: what the node answers, and the same after every interruption."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("radan_ros.msg", reason="needs this package's messages: make build")
pytest.importorskip("rosbags", reason="bags are read with rosbags")
pytest.importorskip("skimage", reason="the built-in picture comes with scikit-image")

import cv2  # noqa: E402
import yaml  # noqa: E402
from ament_index_python import get_package_prefix  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import TransformStamped  # noqa: E402
from radan_ros.msg import Face, FaceArray, FaceTopology  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from ros_client import running_node  # noqa: E402
from rosbags.highlevel import AnyReader  # noqa: E402
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from test_replay import Ear, _answers_read, _assert_ends, _faces, _listens, _node  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from radan_ros.networks.runtime import OpenVinoNetwork  # noqa: E402
from radan_ros.ros.cdr import without_padding_noise  # noqa: E402
from radan_ros.ros.images import image_message  # noqa: E402
from radan_ros.ros.offline import Plan, node_names, pickled, unpickled  # noqa: E402
from radan_ros.ros.outputs import PnccOutput  # noqa: E402
from radan_ros.ros.parameters import from_values  # noqa: E402
from radan_ros.tools import process_bag  # noqa: E402
from radan_ros.tools.bags import Bag, BagTopic, bag_name  # noqa: E402
from radan_ros.tools.naming import distinct_names  # noqa: E402
from radan_ros.tools.play import camera_info  # noqa: E402
from radan_ros.tools.record import bag_qos  # noqa: E402
from radan_ros.tools.salvage import SalvageReader  # noqa: E402
from radan_ros.tools.segments import SegmentedBag  # noqa: E402
from radan_ros.tools.sources import Astronaut  # noqa: E402

IMAGES = 24
SIZE = (240, 320)
START = 1_700_000_000_000_000_000  # ns
STEP = 33_333_333  # ns
FOREIGN = "lab_msgs/msg/Reading"  # installed nowhere
STORE = get_typestore(Stores.ROS2_JAZZY)
STORE.register(get_types_from_msg("float64 value\nlab_msgs/Unit unit\n", FOREIGN))
STORE.register(get_types_from_msg("string name\n", "lab_msgs/msg/Unit"))
Message = tuple[str, str, int, bytes]
VIEWS = ("meshes", "depth", "pncc", "points", "markers", "overlay")


def _pictures(count: int) -> list[np.ndarray]:
    source = Astronaut()
    return [cv2.resize(source.frame(3 * k), SIZE[::-1], interpolation=cv2.INTER_AREA) for k in range(count)]


def _header(k: int, frame: str = "eye") -> Header:
    header = Header(frame_id=frame)
    header.stamp.sec, header.stamp.nanosec = divmod(START + k * STEP, 10**9)
    return header


def _messages(count: int = IMAGES) -> list[Message]:
    """A camera whose first CameraInfo comes behind its first image, readings of a type unknown here, and a still TF."""
    info = camera_info(SIZE, math.radians(25), "eye")
    still = TFMessage()
    out = [("/tf_static", "tf2_msgs/msg/TFMessage", START, bytes(serialize_message(still)))]
    reading, unit = STORE.types[FOREIGN], STORE.types["lab_msgs/msg/Unit"]
    for k, picture in enumerate(_pictures(count)):
        ns = START + k * STEP
        info.header = _header(k)
        out += [
            ("/cam/image_raw", "sensor_msgs/msg/Image", ns + 10, serialize_message(_image(k, picture))),
            ("/cam/camera_info", "sensor_msgs/msg/CameraInfo", ns + 20, serialize_message(info)),
            ("/lab", FOREIGN, ns + 30, bytes(STORE.serialize_cdr(reading(float(k), unit("mm")), FOREIGN))),
        ]
    return out


def _image(k: int, picture: np.ndarray, frame: str = "eye") -> Image:
    return image_message(_header(k, frame), picture, "bgr8")


# Whose folder radan_ros has no messages: from there it is not to be imported.
REPOSITORY = Path(__file__).resolve().parents[1]
FORMS = {
    "mcap": (StoragePlugin.MCAP, CompressionMode.NONE, 9),
    "mcap, compressed": (StoragePlugin.MCAP, CompressionMode.STORAGE, 9),
    "sqlite3": (StoragePlugin.SQLITE3, CompressionMode.NONE, 9),
    "sqlite3, each message compressed": (StoragePlugin.SQLITE3, CompressionMode.MESSAGE, 9),
    "sqlite3, compressed": (StoragePlugin.SQLITE3, CompressionMode.FILE, 8),
}


def _write(folder: Path, messages: list[Message], form: str = "mcap") -> Path:
    plugin, mode, version = FORMS[form]
    writer = Writer(folder, version=version, storage_plugin=plugin)
    if mode != CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for topic, kind, ns, raw in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], ns, raw)
    return folder


def _read(path: Path) -> list[Message]:
    bag = Bag(str(path))
    return [(topic.name, topic.type, ns, raw) for topic, ns, raw in bag.messages(list(bag.topics.values()))]


def _run(*arguments: object) -> int:
    return process_bag.main([str(a) for a in arguments])


def _answers(path: Path, topic: str = "/radan/faces") -> list[FaceArray]:
    return [deserialize_message(raw, FaceArray) for name, _, _, raw in _read(path) if name == topic]


def _contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def _stamp(message: FaceArray) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return _messages()


@pytest.fixture(scope="module")
def bag(messages: list[Message], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("bags") / "bag", messages)


@pytest.fixture(scope="module")
def done(bag: Path) -> Path:
    """The bag with all of the node's topics, in segments of ten images."""
    out = bag.parent / "done"
    assert _run(bag, "--out", out, "--publish", "all", "--segment", "10") == 0
    return out / "bag"


# --------------------------------------------------------------------------------------------------------- the result


def test_the_output_has_the_input_byte_by_byte_and_behind_each_image_its_answer(
    done: Path, messages: list[Message]
) -> None:
    read = _read(done)
    ours = ("/radan/", "/tf")
    assert [m for m in read if not (m[0].startswith(ours) and m[0] != "/tf_static")] == messages
    assert [m[2] for m in read] == sorted(m[2] for m in read)
    images = [m for m in messages if m[0] == "/cam/image_raw"]
    for view in ("faces", *VIEWS):
        answers = [m for m in read if m[0] == f"/radan/{view}"]
        assert [m[2] for m in answers] == [m[2] for m in images]
    answers = _answers(done)
    assert [_stamp(m) for m in answers] == [START + k * STEP for k in range(IMAGES)]
    assert sum(len(m.faces) for m in answers) == IMAGES - 1  # a face is published when it is seen again
    # The first CameraInfo comes behind the first image, which knows it all the same.
    assert all(m.metric and m.header.frame_id == "eye" for m in answers)
    assert {m[0] for m in read[:2]} == {"/radan/topology", "/tf_static"} and {m[2] for m in read[:2]} == {START}
    transforms = [deserialize_message(m[3], TFMessage) for m in read if m[0] == "/tf"]
    assert [t.transforms[0].child_frame_id for t in transforms] == ["face_0"] * (IMAGES - 1)


def test_a_reader_without_any_types_reads_all_of_the_output(done: Path) -> None:
    with AnyReader([done]) as reader:
        assert {c.msgtype for c in reader.connections} >= {FOREIGN, "radan_ros/msg/FaceArray"}
        topology = next(c for c in reader.connections if c.topic == "/radan/topology")
        assert topology.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"
        values = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages() if c.topic == "/lab"]
        assert [v.value for v in values] == list(range(IMAGES)) and values[0].unit.name == "mm"
        meshes = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages() if c.topic == "/radan/meshes"]
        told = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages([topology])]
    assert len(meshes[-1].meshes[0].vertices) == 3 * told[0].vertex_count
    files = sorted(p.name for p in done.iterdir())
    assert files == ["bag_0.mcap", "bag_1.mcap", "bag_2.mcap", "metadata.yaml"]  # 10, 10 and 4 images


def test_two_runs_give_the_same_bytes_with_one_thread_or_more(done: Path, bag: Path, tmp_path: Path) -> None:
    arguments = (bag, "--publish", "all", "--segment", "10", "--threads", "1")
    assert _run(*arguments, "--out", tmp_path) == 0
    assert _contents(tmp_path / "bag") == _contents(done)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_bag_gives_the_same_answers(
    form: str, done: Path, messages: list[Message], tmp_path: Path
) -> None:
    path = _write(tmp_path / "bag", messages, form)
    storage = form.split(",")[0]
    assert _run(path, "--out", tmp_path / "out", "--storage", storage, "--only-ours", "--publish", "faces") == 0
    read = _read(tmp_path / "out" / "bag")
    assert {m[0] for m in read} == {"/radan/faces", "/radan/topology"}
    assert [m for m in read if m[0] == "/radan/faces"] == [m for m in _read(done) if m[0] == "/radan/faces"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_metadata_are_what_rosbag2_of_humble_reads(storage: str, bag: Path, tmp_path: Path) -> None:
    assert _run(bag, "--out", tmp_path, "--storage", storage) == 0
    text = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    # As its metadata_io.cpp and qos.cpp decode them: a text, in which enumerations are numbers.
    for entry in text["topics_with_message_count"]:
        told = entry["topic_metadata"]["offered_qos_profiles"]
        assert isinstance(told, str)
        for profile in yaml.safe_load(told) or ():
            for name in ("history", "depth", "reliability", "durability", "liveliness"):
                assert isinstance(profile[name], int), name
    of_topology = next(t for t in text["topics_with_message_count"] if t["topic_metadata"]["name"] == "/radan/topology")
    (profile,) = yaml.safe_load(of_topology["topic_metadata"]["offered_qos_profiles"])
    assert (profile["durability"], profile["reliability"]) == (1, 1), "late ones get it, too"
    # What version 9 holds besides is there as well.
    assert of_topology["topic_metadata"]["type_description_hash"].startswith("RIHS01_") and text["custom_data"]
    if storage == "sqlite3":  # the node that plays takes it from there
        with contextlib.closing(sqlite3.connect(tmp_path / "bag" / "bag_0.db3")) as base:
            rows = base.execute("SELECT name, type, serialization_format, offered_qos_profiles FROM topics").fetchall()
        assert {yaml.safe_load(row[3])[0]["history"] for row in rows if row[3]} <= {0, 1, 2, 3}


def test_definitions_that_an_old_bag_lacks_come_from_elsewhere(messages: list[Message], tmp_path: Path) -> None:
    path = _write(tmp_path / "old", messages, "sqlite3")
    base = sqlite3.connect(path / "old.db3")  # as Humble wrote it
    base.executescript(
        "DROP TABLE message_definitions; DROP TABLE schema; DROP TABLE metadata;"
        "ALTER TABLE topics DROP COLUMN type_description_hash;"
    )
    base.close()
    text = (path / "metadata.yaml").read_text().replace("version: 9", "version: 5")
    lines = [line for line in text.splitlines() if "type_description_hash" not in line]
    (path / "metadata.yaml").write_text("\n".join(lines))
    assert _run(path, "--out", tmp_path / "out") == 0
    copied = [m for m in _read(tmp_path / "out" / "old") if not m[0].startswith(("/radan/", "/tf"))]
    assert copied == [m for m in messages if not m[0].startswith("/tf")]
    with AnyReader([tmp_path / "out" / "old"]) as reader:
        known = {c.topic: c.msgdef.data for c in reader.connections}
    assert "uint32 height" in known["/cam/image_raw"] and known["/lab"] == ""


def test_a_bag_that_was_processed_before_is_not_processed_twice_over(done: Path, tmp_path: Path) -> None:
    assert _run(done, "--out", tmp_path, "--publish", "all") == 0
    assert _read(tmp_path / "bag") == _read(done)


@pytest.mark.parametrize(("publish", "ours"), [("faces", "/radan/faces"), ("tf", "/tf"), ("markers", "/radan/markers")])
def test_of_what_the_node_said_before_nothing_stays_beside_what_it_says_now(
    publish: str, ours: str, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(done, "--out", tmp_path, "--publish", publish) == 0
    said = capsys.readouterr().err
    assert "answered anew: /radan/depth, /radan/faces, " in said and "frames of faces on /tf" in said
    read = _read(tmp_path / "bag")
    of_input = {"/cam/image_raw", "/cam/camera_info", "/lab", "/tf_static"}
    assert {m[0] for m in read} == {*of_input, "/radan/topology", ours}
    assert [m for m in read if m[0] == ours] == [m for m in _read(done) if m[0] == ours]


def test_each_file_of_the_output_has_messages(bag: Path, tmp_path: Path) -> None:
    assert _run(bag, "--out", tmp_path, "--only-ours", "--segment", str(IMAGES // 2)) == 0
    text = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert [file["message_count"] for file in text["files"]] == [1 + IMAGES - 1, IMAGES]
    assert all(START <= f["starting_time"]["nanoseconds_since_epoch"] < START + 10**9 for f in text["files"])


def test_transforms_of_others_stay_with_their_quality_of_service_beside_ours(tmp_path: Path) -> None:
    qos = (bag_qos(QoSProfile(depth=7, durability=DurabilityPolicy.TRANSIENT_LOCAL)),)
    arm = TFMessage(transforms=[TransformStamped(child_frame_id="arm")])
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        image = writer.add_connection("/cam/image", "sensor_msgs/msg/Image", typestore=STORE)
        frames = writer.add_connection("/tf", "tf2_msgs/msg/TFMessage", typestore=STORE, offered_qos_profiles=qos)
        for k, picture in enumerate(_pictures(3)):
            writer.write(frames, START + k * STEP, serialize_message(arm))
            writer.write(image, START + k * STEP, serialize_message(_image(k, picture)))
    assert _run(tmp_path / "bag", "--out", tmp_path / "out") == 0
    out = Bag(str(tmp_path / "out" / "bag"))
    assert sorted(profile.depth for profile in out.topics["/tf"].qos) == [7, 100]
    frames = [deserialize_message(m[3], TFMessage).transforms[0].child_frame_id for m in _read(out.path) if "/tf" in m]
    assert sorted(frames) == ["arm", "arm", "arm", "face_0", "face_0"]


# -------------------------------------------------------------------------------------------------------- the cameras


def _two_cameras() -> list[Message]:
    out = []
    for k, picture in enumerate(_pictures(6)):
        ns = START + k * STEP
        packed = CompressedImage(header=_header(k, "r"), format="jpeg", data=cv2.imencode(".jpg", picture)[1].tobytes())
        depth = image_message(_header(k), np.zeros((4, 4), np.uint16), "16UC1")
        for n, side in enumerate(("left", "right", "depth")):
            info = camera_info(SIZE, math.radians(25), side[0])
            out.append((f"/{side}/camera_info", "sensor_msgs/msg/CameraInfo", ns + n, serialize_message(info)))
        out += [
            ("/left/image", "sensor_msgs/msg/Image", ns + 10, serialize_message(_image(k, picture, "l"))),
            ("/left/image/compressed", "sensor_msgs/msg/CompressedImage", ns + 11, serialize_message(packed)),
            ("/right/image/compressed", "sensor_msgs/msg/CompressedImage", ns + 12, serialize_message(packed)),
            ("/depth/image", "sensor_msgs/msg/Image", ns + 13, serialize_message(depth)),
        ]
    return out


def test_each_camera_gets_topics_and_frames_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path / "bag", _two_cameras())
    assert _run(path, "--out", tmp_path / "out") == 0
    assert "/depth/image is left out: its images are of depth (16UC1)" in capsys.readouterr().err
    out = tmp_path / "out" / "bag"
    topics = {name for name in Bag(str(out)).topics if "radan" in name}
    assert topics == {f"/{side}/radan/{name}" for side in ("left", "right") for name in ("faces", "topology")}
    frames = {
        t.child_frame_id: t.header.frame_id
        for m in _read(out)
        if m[0] == "/tf"
        for t in deserialize_message(m[3], TFMessage).transforms
    }
    assert frames == {"left_face_0": "l", "right_face_0": "r"}
    left, right = (_answers(out, f"/{side}/radan/faces") for side in ("left", "right"))
    assert [len(m.faces) for m in left] == [len(m.faces) for m in right] == [0, 1, 1, 1, 1, 1]
    # The same pictures, once through JPEG.
    assert np.abs(left[-1].faces[0].landmarks_px - right[-1].faces[0].landmarks_px).max() < 3

    assert (
        _run(path, "--out", tmp_path / "one", "--topics", "right/image/compressed", "--name", "n", "--only-ours") == 0
    )
    assert {t for t in Bag(str(tmp_path / "one" / "bag")).topics} == {"/n/faces", "/n/topology", "/tf"}


def test_a_camera_without_calibration_beside_others_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = [m for m in _two_cameras()[:14] if m[0] != "/right/camera_info"]
    path = _write(tmp_path / "bag", messages)
    assert _run(path, "--out", tmp_path / "out", "--only-ours") == 0
    said = capsys.readouterr().err
    assert "/right/image/compressed is left out: no CameraInfo beside it; --topics takes it" in said
    assert "left/image" not in said


def test_two_cameras_never_share_a_frame() -> None:
    names = ("/a/b/image", "/a_b/image", "/a/b_2/image")
    cameras = tuple(BagTopic(name, "sensor_msgs/msg/Image", 1, False, "") for name in names)
    made = node_names(Plan(cameras, from_values({"publish": [""]})))
    assert [namespace for namespace, _ in made] == ["/a/b", "/a_b", "/a/b_2"]
    assert made[0][1] == "a_b_" and len({prefix for _, prefix in made}) == 3


def test_a_bad_image_costs_its_own_answer_and_is_named(
    messages: list[Message], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = list(messages[:31])
    numbers = [i for i, m in enumerate(spoilt) if m[0] == "/cam/image_raw"]
    wrong = _image(3, np.zeros((*SIZE, 3), np.uint8))
    wrong.step = 7
    same = ((numbers[3], serialize_message(wrong)), (numbers[4], serialize_message(wrong)))
    for number, raw in (*same, (numbers[5], b"\0\1\0\0")):
        spoilt[number] = (*spoilt[number][:3], raw)
    path = _write(tmp_path / "bag", spoilt)
    assert _run(path, "--out", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "3 images could not be answered (/cam/image_raw, image 4: step is 7 bytes" in said
    assert "(2 times); /cam/image_raw, image 6: " in said and "image 5" not in said
    assert len(_answers(tmp_path / "out" / "bag")) == 10 - 3
    assert [m for m in _read(tmp_path / "out" / "bag") if m[0][:4] in ("/cam", "/lab")] == spoilt[1:]
    # The next call finds it done, and says the same.
    assert _run(path, "--out", tmp_path / "out") == 1 and "image 4: step is 7" in capsys.readouterr().err


def test_faces_that_no_pose_fits_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = camera_info(SIZE, math.radians(56), "eye")
    info.d = [-10.0, 0.0, 0.0, 0.0, 0.0]  # as of a calibration that went wrong: no ray leads to her face
    messages = [("/cam/camera_info", "sensor_msgs/msg/CameraInfo", START, serialize_message(info))]
    for k, picture in enumerate(_pictures(4)):
        raw = serialize_message(_image(k, picture))
        messages.append(("/cam/image", "sensor_msgs/msg/Image", START + k * STEP, raw))
    path = _write(tmp_path / "bag", messages)
    for _ in range(2):  # the second run finds it done, and says the same
        assert _run(path, "--out", tmp_path / "out", "--only-ours") == 1
        said = capsys.readouterr().err
        assert f"{path}: 3 faces in all images were left out, for no pose fits them\n" in said
    assert [len(m.faces) for m in _answers(tmp_path / "out" / "bag")] == [0] * 4


# ---------------------------------------------------------------------------------------------------------- as live


def test_a_recording_that_is_processed_and_played_is_what_the_live_node_said(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    number = 30
    with Ear(diagnostics=("/diagnostics", DiagnosticArray)) as ear, _node("live") as node:
        ear.wait(lambda: _listens(node), "the node")
        with running_node(program="record", arguments=(str(path), "--all")) as recorder:
            ear.wait(lambda: (_answers_read(ear, "live") or set()) >= {"faces", "/tf"}, "the recorder")
            arguments = ["astronaut", "--frames", str(number), "--wait-for", "/replay/live/faces"]
            rules = ("-r", "image:=/replay/image", "-r", "camera_info:=/replay/camera_info")
            player = running_node(
                *rules, program="play", arguments=(*arguments, "--wait-for-subscribers", "2")
            )  # the node and the recorder
            with player as process:
                _assert_ends(process, ear)
            assert recorder.interrupt()[0] == 0, recorder.log()
    live = _answers(path, "/replay/live/faces")
    frames = [m[3] for m in _read(path) if m[0] == "/tf"]
    assert len(live) == number and frames
    # Said under the live node's name, what it said is replaced.
    names = ("--namespace", "/replay", "--name", "live")
    assert _run(path, "--out", tmp_path / "out", "--topics", "/replay/image", *names) == 0
    out = str(tmp_path / "out" / "bag")
    heard = {
        "faces": ("/replay/live/faces", FaceArray),
        "image": ("/replay/image", Image),
        "tf": ("/replay/tf", TFMessage),
    }
    with Ear(**heard) as ear:
        topics = ["/replay/live/faces", "/replay/image", "/tf"]
        arguments = (out, "--topics", *topics, "--wait-for-subscribers")
        with running_node("-r", "/tf:=/replay/tf", program="play", arguments=arguments) as process:
            _assert_ends(process, ear)
        ear.wait(lambda: len(ear.heard["faces"]) == number, "all answers")
        ear.wait(lambda: len(ear.heard["tf"]) == len(frames), "all frames")
        replayed = _faces(ear.heard["faces"])
        assert [deserialize_message(raw, TFMessage) for raw in ear.heard["tf"]] == [
            deserialize_message(raw, TFMessage) for raw in frames
        ]
    assert [_stamp(m) for m in replayed] == [_stamp(m) for m in live]
    assert [[f.id for f in m.faces] for m in replayed] == [[f.id for f in m.faces] for m in live]
    assert sum(len(m.faces) for m in live) > number / 2
    for ours, theirs in zip(replayed, live, strict=True):
        assert ours.metric and theirs.metric
        for a, b in zip(ours.faces, theirs.faces, strict=True):
            assert np.abs(a.landmarks_px - b.landmarks_px).max() < 1e-3  # pixels
            assert np.abs(a.landmarks - b.landmarks).max() < 1e-5  # metres
            poses = [f.pose.pose.position for f in (a, b)], [f.pose.pose.orientation for f in (a, b)]
            for one, other in poses:
                assert all(abs(getattr(one, n) - getattr(other, n)) < 1e-5 for n in one.get_fields_and_field_types())


# ----------------------------------------------------------------------------------------------------- interruptions


COMMAND = [sys.executable, "-m", "radan_ros.tools.process_bag"]
# Slow enough to be caught in the middle.
SLOW = """
import sys, time
from radan_ros.ros import engine
from radan_ros.tools.process_bag import main
answer = engine.Engine.answer
engine.Engine.answer = lambda *arguments: (time.sleep(0.05), answer(*arguments))[1]
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_ended_goes_on_and_gives_the_same_bytes(
    number: int, done: Path, bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(bag), "--out", str(tmp_path), "--publish", "all", "--segment", "10"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments, "--set", "max_faces=10"], stderr=subprocess.PIPE, text=True
    )
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "bag.partial" / "bag_0").is_dir():
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.002)
        process.send_signal(number)
        said = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert not (tmp_path / "bag").exists()
    if number == signal.SIGINT:
        assert process.returncode == 130 and said.endswith("run again to go on\n") and "Traceback" not in said
    assert _run(*arguments, "--set", "max_faces=9") == 1  # made otherwise
    assert "was made otherwise (parameters); --overwrite" in capsys.readouterr().err
    assert _run(*arguments) == 0
    assert _contents(tmp_path / "bag") == _contents(done)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bag"]
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "bag").iterdir())]
    assert _run(*arguments) == 0
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "bag").iterdir())] == before, "done already"
    assert "was processed before" in capsys.readouterr().err


def test_wherever_a_run_ends_the_next_one_goes_on(
    done: Path, bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (bag, "--out", tmp_path, "--publish", "all", "--segment", "10")
    rename = os.rename
    runs = 0

    def end(before: Any, after: Any) -> None:
        """Once after each step: its effect is there, and nothing of what follows."""
        rename(before, after)
        raise OSError("the power is gone")

    monkeypatch.setattr(os, "rename", end)
    while not (tmp_path / "bag").exists():
        assert _run(*arguments) == 1
        runs += 1
    assert runs == 3 + 3 + 1  # segments, files, the whole
    assert _run(*arguments) == 0
    assert _contents(tmp_path / "bag") == _contents(done)


def _stop_after(renames: int, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[object]) -> None:
    """A run that ends behind so many of its segments."""
    left = [renames]

    def end(before: Any, after: Any) -> None:
        RENAME(before, after)
        left[0] -= 1
        if not left[0]:
            raise OSError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", end)
        assert _run(*arguments) == 1


RENAME = os.rename


def test_faces_that_vanish_and_a_calibration_that_changes_are_the_same_behind_each_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages, black = [], np.zeros((*SIZE, 3), np.uint8)
    for k, picture in enumerate([*_pictures(6), *[black] * 4]):
        ns = START + k * STEP
        if k in (0, 3):  # once, and once another
            info = camera_info(SIZE, math.radians(25 + 10 * k), "eye")
            messages.append(("/cam/camera_info", "sensor_msgs/msg/CameraInfo", ns, serialize_message(info)))
        messages.append(("/cam/image", "sensor_msgs/msg/Image", ns + 1, serialize_message(_image(k, picture))))
    path = _write(tmp_path / "bag", messages)
    arguments = [path, "--only-ours", "--publish", "faces", "markers", "--segment", "2", "--out"]
    assert _run(*arguments, tmp_path / "whole") == 0
    markers = [
        deserialize_message(m[3], MarkerArray) for m in _read(tmp_path / "whole" / "bag") if "/radan/markers" in m
    ]
    assert any(marker.action == Marker.DELETE for array in markers[5:] for marker in array.markers)
    runs = 0
    while not (tmp_path / "pieces" / "bag.partial" / "metadata.yaml").exists():
        _stop_after(1, monkeypatch, [*arguments, tmp_path / "pieces"])
        runs += 1
    assert runs == 5 + 1 and _run(*arguments, tmp_path / "pieces") == 0
    assert _contents(tmp_path / "pieces" / "bag") == _contents(tmp_path / "whole" / "bag")


def test_what_a_power_cut_leaves_of_the_last_segments_is_made_again(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [bag, "--segment", "8", "--out"]
    assert _run(*arguments, tmp_path / "whole") == 0
    whole = _contents(tmp_path / "whole" / "bag")
    _stop_after(2, monkeypatch, [*arguments, tmp_path / "cut"])
    for damaged in ("bag_1/bag_1.mcap", "bag_1/state", "bag_0/metadata.yaml", "bag_0/seal"):
        out = tmp_path / damaged.replace("/", "-")
        shutil.copytree(tmp_path / "cut", out)
        (out / "bag.partial" / damaged).write_bytes(b"")
        assert _run(*arguments, out) == 0
        assert _contents(out / "bag") == whole, damaged
    capsys.readouterr()
    (tmp_path / "cut" / "bag.partial" / "job.json").write_bytes(b"")
    assert _run(*arguments, tmp_path / "cut") == 1
    said = capsys.readouterr().err
    assert "job.json is damaged; --overwrite makes it anew" in said and said.count("\n") == 1
    assert _run(*arguments, tmp_path / "cut", "--overwrite") == 0 and _contents(tmp_path / "cut" / "bag") == whole


def test_all_of_a_segment_is_on_the_disk_before_it_gets_its_name(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[tuple[int, int]] = set()  # file and size
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        synced.add((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))

    def rename(before: Path, after: Path) -> None:
        missing = [p for p in (before, *before.rglob("*")) if (p.stat().st_ino, p.stat().st_size) not in synced]
        assert not [p for p in missing if p.is_file() or p == before], missing
        RENAME(before, after)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    assert _run(bag, "--out", tmp_path, "--only-ours", "--segment", "12") == 0


def test_a_view_that_failed_before_an_interruption_is_told_behind_it(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [bag, "--out", tmp_path, "--only-ours", "--publish", "faces", "pncc", "--segment", "8"]
    with monkeypatch.context() as patch:
        patch.setattr(PnccOutput, "publish", lambda *_: 1 / 0)
        _stop_after(2, monkeypatch, arguments)
    capsys.readouterr()
    assert _run(*arguments) == 1 and "publishing pncc: division by zero" in capsys.readouterr().err


def test_progress_counts_what_is_read_and_what_this_run_answers(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_bag, "TICK", 0.0)
    job = process_bag.Job(str(bag), str(tmp_path / "out"), only_ours=True, segment=8, publish=("faces",))
    told: list[tuple[int, int, int]] = []
    assert process_bag.process(job, lambda *now: told.append(now)).answered == IMAGES
    # In the bag, images and CameraInfo matter; behind the last image there is one.
    assert {total for _, total, _ in told} == {2 * IMAGES} and told[-1][0] >= 2 * IMAGES - 1
    assert told[-1][2] == IMAGES and told == sorted(told)
    arguments = [bag, "--out", tmp_path, "--only-ours", "--segment", "8", "--publish", "faces"]
    _stop_after(2, monkeypatch, arguments)
    told.clear()
    result = process_bag.process(replace(job, target=str(tmp_path / "bag")), lambda *now: told.append(now))
    assert result.begun == 16 and told[0][2] == 0 and told[-1][2] == IMAGES - 16


def test_a_bag_that_is_written_is_not_written_by_another(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = SegmentedBag(tmp_path / "bag", {}, storage="mcap", compression="none")
    assert _run(bag, "--out", tmp_path) == 1 and "being written by another program" in capsys.readouterr().err
    assert _run(bag, "--out", tmp_path, "--overwrite") == 1 and (tmp_path / "bag.partial" / "job.json").is_file()
    other.close()
    assert _run(bag, "--out", tmp_path, "--overwrite") == 0


def test_a_bag_that_was_changed_in_place_is_another_one(
    messages: list[Message], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _write(tmp_path / "bag", messages[:13], "sqlite3")
    assert _run(path, "--out", tmp_path / "out", "--publish", "tf") == 0
    size = (path / "bag.db3").stat().st_size
    base = sqlite3.connect(path / "bag.db3")
    base.execute("UPDATE messages SET timestamp = timestamp + 1")
    base.commit()
    base.close()
    assert (path / "bag.db3").stat().st_size == size
    assert _run(path, "--out", tmp_path / "out", "--publish", "tf") == 1
    assert "was made otherwise (bag); --overwrite makes it anew" in capsys.readouterr().err


def test_a_bag_that_was_repaired_in_its_middle_is_another_one(
    messages: list[Message], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _write(tmp_path / "bag", messages, "mcap, compressed")
    file = path / "bag.mcap"
    whole = file.read_bytes()
    _spoil_chunk(path)
    assert file.stat().st_size == len(whole) and file.read_bytes()[-(1 << 17) :] == whole[-(1 << 17) :]
    assert _run(path, "--out", tmp_path / "out", "--publish", "tf") == 1
    capsys.readouterr()
    file.write_bytes(whole)
    assert _run(path, "--out", tmp_path / "out", "--publish", "tf") == 1
    assert "was made otherwise (bag); --overwrite makes it anew" in capsys.readouterr().err
    assert _run(path, "--out", tmp_path / "out", "--publish", "tf", "--overwrite") == 0


def test_numbers_of_a_gpu_and_of_a_processor_are_not_joined_in_a_bag(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [bag, "--out", tmp_path, "--only-ours", "--publish", "tf", "--segment", "8"]
    with monkeypatch.context() as patch:
        patch.setattr(OpenVinoNetwork, "device", "cuda:1")
        _stop_after(2, monkeypatch, arguments)
    capsys.readouterr()
    assert _run(*arguments) == 1 and "was made otherwise (device); --overwrite" in capsys.readouterr().err
    monkeypatch.setattr(OpenVinoNetwork, "device", "cuda:0")
    assert _run(*arguments) == 0


def test_a_name_keeps_what_follows_its_dots(messages: list[Message], tmp_path: Path) -> None:
    runs = [_write(tmp_path / "bags" / f"run.{k}", messages[:7]) for k in (1, 2)]
    out = tmp_path / "out"
    for run in runs:
        assert _run(run, "--out", out, "--only-ours", "--publish", "tf", "--overwrite") == 0
    assert {p.name for p in out.iterdir()} == {"run.1", "run.2"}
    assert (out / "run.1" / "metadata.yaml").is_file()

    file = runs[0] / "run.1.mcap"
    other = _write(tmp_path / "monday" / "run.1", messages[:7])
    names = [file, file.with_suffix(".db3.zstd"), runs[1], runs[1] / ".." / "run.1" / "x.y.mcap", tmp_path / "no.bag"]
    assert distinct_names(names, bag_name) == ["run.1_mcap", "run.1_db3.zstd", "run.2", "x.y", "no.bag"]
    assert distinct_names([runs[0], other], bag_name) == ["bags_run.1", "monday_run.1"]


def test_no_recording_and_nothing_of_others_is_removed(
    messages: list[Message], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = _write(tmp_path / "data" / "bag", messages[:7])
    inner = _write(tmp_path / "a" / "one" / "two", messages[:7])
    one = _write(tmp_path / "b" / "one", messages[:7])
    kept = _contents(bag), _contents(inner)
    for arguments in (
        (bag / "bag.mcap", "--out", tmp_path / "data"),
        (one, inner / "two.mcap", "--out", tmp_path / "a"),
        (bag, "--out", bag),
        (bag / "bag.mcap", "--out", bag),
        (bag, "--out", bag / "deeper"),
    ):
        assert _run(*arguments, "--overwrite") == 2
        assert "--out is where the bag lies" in capsys.readouterr().err
    out = tmp_path / "out"
    (out / "bag").mkdir(parents=True)
    (out / "bag" / "thesis.txt").write_text("years")
    for more in ((), ("--overwrite",)):
        assert _run(bag, "--out", out, *more) == 1
        said = capsys.readouterr().err
        assert "was not made by this program" in said and "--overwrite" not in said and said.count("\n") == 1
    RENAME(out / "bag", out / "bag.partial")
    assert _run(bag, "--out", out, "--overwrite") == 1 and "was not made by" in capsys.readouterr().err
    RENAME(out / "bag.partial", out / "elsewhere")
    (out / "bag").symlink_to(out / "nowhere")
    assert _run(bag, "--out", out) == 1 and "was not made by this program" in capsys.readouterr().err
    (out / "bag").unlink()

    assert _run(bag, "--out", out) == 0
    RENAME(out / "elsewhere" / "thesis.txt", out / "bag" / "thesis.txt")
    assert _run(bag, "--out", out, "--overwrite") == 1 and "it holds thesis.txt" in capsys.readouterr().err
    assert (out / "bag" / "thesis.txt").read_text() == "years"
    (out / "bag" / "thesis.txt").unlink()
    assert (_contents(bag), _contents(inner)) == kept

    # Nor what there is, for an input of which nothing can be made.
    made = _contents(out / "bag")
    shutil.rmtree(bag)
    _write(bag, [*messages[:7], ("/radan/faces", *messages[3][1:])])
    assert _run(bag, "--out", out, "--overwrite") == 1 and "/radan/faces is lab_msgs" in capsys.readouterr().err
    assert _contents(out / "bag") == made


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(done: Path, bag: Path, tmp_path: Path) -> None:
    arguments = [str(bag), "--out", str(tmp_path), "--publish", "all", "--segment", "10"]
    size = max(len(content) for content in _contents(done).values())
    code = (  # as a full disk, without filling one
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2},) * 2);"
        "from radan_ros.tools.process_bag import main; sys.exit(main(sys.argv[1:]))"
    )
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and run.stderr.count("\n") == 1, run.stderr
    assert "File too large; run again to go on" in run.stderr and "bag" in run.stderr
    assert not (tmp_path / "bag").exists()
    assert _run(*arguments) == 0
    assert _contents(tmp_path / "bag") == _contents(done)


def test_a_state_holds_what_it_should_and_nothing_else() -> None:
    model = object()
    assert unpickled(pickled({"a": [np.arange(3)], "m": model}, model), model)["m"] is model
    with pytest.raises(Exception, match=r"a state holds no posix\.system"):
        unpickled(b"cposix\nsystem\n(S'true'\ntR.", model)


# ------------------------------------------------------------------------------------------------------- damaged bags


def _cut(path: Path) -> None:
    """A recording that was cut off in the middle of its file."""
    (path / "metadata.yaml").unlink()
    file = next(path.iterdir())
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


def _lose_metadata(path: Path) -> None:
    (path / "metadata.yaml").unlink()


def _spoil_chunk(path: Path) -> None:
    """A chunk in the middle of an MCAP that cannot be unpacked."""
    file = next(path.glob("*.mcap"))
    content = bytearray(file.read_bytes())
    begin = content.index(b"\x28\xb5\x2f\xfd", len(content) // 2)
    content[begin : begin + 100] = bytes(100)
    file.write_bytes(bytes(content))


def _spoil_page(path: Path) -> None:
    """Pages of the table of messages, where its rows begin."""
    file = next(path.glob("*.db3"))
    base = sqlite3.connect(file)
    (root,) = base.execute("SELECT rootpage FROM sqlite_master WHERE name = 'messages'").fetchone()
    (size,) = base.execute("PRAGMA page_size").fetchone()
    base.close()
    content = bytearray(file.read_bytes())
    # An interior page: 12 bytes of head, then the places of its cells, which begin with the number of a page.
    head = (root - 1) * size
    assert content[head] == 5
    cells = struct.unpack_from(">H", content, head + 3)[0]
    for k in (cells // 2, cells // 2 + 1):
        (place,) = struct.unpack_from(">H", content, head + 12 + 2 * k)
        (page,) = struct.unpack_from(">I", content, head + place)
        content[(page - 1) * size : page * size] = bytes(size)
    file.write_bytes(bytes(content))


def _cut_file(path: Path) -> None:
    file = next(path.glob("*.zstd"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


DAMAGES: dict[str, tuple[str, Callable[[Path], None], str, int]] = {
    "cut": ("mcap", _cut, "without its index", 8),
    "cut, compressed": ("mcap, compressed", _cut, "without its index", 8),
    "no metadata": ("mcap", _lose_metadata, "metadata.yaml is missing", IMAGES),
    "no metadata, sqlite3": ("sqlite3, each message compressed", _lose_metadata, "metadata.yaml is missing", IMAGES),
    "bad chunk": ("mcap, compressed", _spoil_chunk, "is damaged: 0 of its messages could be read (it held", 12),
    "bad page": ("sqlite3", _spoil_page, "lie in damaged pages", 8),
    "cut database": ("sqlite3", _cut, "messages", 8),
    "cut, packed": ("sqlite3, compressed", _cut_file, "damaged", 8),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_bag_gives_what_can_be_read_and_says_what_was_lost(
    damage: str, messages: list[Message], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form, spoil, said, least = DAMAGES[damage]
    path = _write(tmp_path / "bag", messages, form)
    spoil(path)
    assert _run(path, "--out", tmp_path / "out") == 1
    errors = capsys.readouterr().err
    assert said in errors and "Traceback" not in errors
    read = _read(tmp_path / "out" / "bag")
    copied = [m for m in read if m[0] in ("/cam/image_raw", "/lab", "/cam/camera_info")]
    assert set(copied) <= set(messages) and len({m[3] for m in copied}) == len(copied)  # nothing twice, nothing wrong
    assert [m[2] for m in copied] == sorted(m[2] for m in copied)
    images = [m for m in copied if m[0] == "/cam/image_raw"]
    assert len(images) >= least and len(_answers(tmp_path / "out" / "bag")) == len(images)
    if "metadata" not in damage:
        assert len(copied) < len(messages) - 1
    before = _answers(tmp_path / "out" / "bag")
    assert _run(path, "--out", tmp_path / "out") == 1 and said in capsys.readouterr().err  # done, and still damaged
    assert before


def test_what_is_no_bag_or_empty_is_one_line(tmp_path: Path, bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "junk.mcap").write_bytes(b"junk" * 100)
    texts = _write(tmp_path / "texts", [m for m in _messages(1) if m[0] == "/lab"])
    out = tmp_path / "out"
    assert _run(tmp_path / "junk.mcap", tmp_path / "nowhere", texts, bag, "--out", out, "--publish", "tf") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    for name, why in (("nowhere", "no such file"), ("junk.mcap", "does not begin as an MCAP"), ("texts", "no images")):
        assert any(name in line and why in line for line in lines)
    assert (out / "bag" / "metadata.yaml").is_file()  # the rest goes on
    assert _run(bag, "--out", bag.parent) == 2 and "name another folder" in capsys.readouterr().err
    assert _run(bag, "--out", out, "--set", "max_faces=0") == 2 and "max_faces is 0, not" in capsys.readouterr().err
    assert _run(bag, "--out", out, "--set", "publish=[x]") == 2 and "named by --publish" in capsys.readouterr().err
    assert _run(bag, "--out", out, "--name", "9!") == 2 and "no name of a node" in capsys.readouterr().err
    assert _run(bag, "--out", out, "--ray", "127.0.0.1:1") == 1 and "nothing answers" in capsys.readouterr().err
    assert _run(bag, "--out", out, "--set", "faces=1") == 2 and "faces is no parameter" in capsys.readouterr().err
    assert _run(bag, "--out", out, "--model", tmp_path / "x") == 1 and str(tmp_path / "x") in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bag_that_cannot_be_had_costs_itself_alone(
    workers: int, messages: list[Message], done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound, annex, secret = (_write(tmp_path / name, messages[:7]) for name in ("sound", "annex", "secret"))
    (annex / "annex.mcap").unlink()
    (annex / "annex.mcap").symlink_to(tmp_path / "not fetched")
    secret.chmod(0)
    far = tmp_path / ("x" * 300)  # longer than a name may be
    given = ["", annex, far, sound, *([secret] if os.geteuid() else [])]  # root reads all
    assert _run(*given, "--out", tmp_path / "out", "--publish", "tf", "--workers", workers) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(given) - 1
    assert sum("an empty name" in line for line in lines) == 1
    for path, why in ((annex, "No such file"), (far, "File name too long"), (secret, "Permission denied")):
        assert path not in given or sum(str(path) in line and why in line for line in lines) == 1, path
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"sound"}
    secret.chmod(0o700)


def test_of_a_bag_of_which_a_file_is_elsewhere_the_others_are_taken(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shutil.copytree(done, tmp_path / "bag")
    (path / "bag_1.mcap").unlink()
    (path / "bag_1.mcap").symlink_to(tmp_path / "not fetched")
    arguments = (path, "--out", tmp_path / "out", "--only-ours", "--publish", "faces")
    assert _run(*arguments) == 1 and "bag_1.mcap: nothing of it can be read" in capsys.readouterr().err
    assert len(_answers(tmp_path / "out" / "bag")) == IMAGES - 10
    (path / "bag_1.mcap").unlink()
    shutil.copy(done / "bag_1.mcap", path)
    assert _run(*arguments) == 1 and "was made otherwise (bag)" in capsys.readouterr().err
    assert _run(*arguments, "--overwrite") == 0 and len(_answers(tmp_path / "out" / "bag")) == IMAGES


def test_a_folder_for_the_results_may_be_in_ones_home(
    messages: list[Message], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "bag", messages[:7])
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert _run(path, "--out", "~/out", "--only-ours", "--publish", "tf") == 0
    assert (tmp_path / "home" / "out" / "bag" / "metadata.yaml").is_file() and not (tmp_path / "~").exists()


def test_an_error_that_nobody_foresaw_costs_its_own_bag(
    messages: list[Message], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    strange, sound = (_write(tmp_path / name, messages[:7]) for name in ("strange", "sound"))

    def opened(text: str, **more: bool) -> Bag:
        if text == str(strange):
            raise KeyError(text)
        return Bag(text, **more)

    monkeypatch.setattr(process_bag, "Bag", opened)
    assert _run(strange, sound, "--out", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "strange: KeyError: " in said
    assert (tmp_path / "out" / "sound" / "metadata.yaml").is_file()


def test_what_a_recorder_that_was_killed_left_in_its_log_is_read(messages: list[Message], tmp_path: Path) -> None:
    path = _write(tmp_path / "bag", messages, "sqlite3")
    (path / "metadata.yaml").unlink()
    file = path / "bag.db3"
    base = sqlite3.connect(file)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("DELETE FROM messages WHERE id > 70")
    base.commit()
    base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    topic, time_ns, raw = base.execute("SELECT topic_id, timestamp, data FROM messages WHERE id = 70").fetchone()
    base.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", (topic, time_ns + 1, raw))
    base.commit()
    kept = {p.name: p.read_bytes() for p in path.iterdir()}
    base.close()
    for name, content in kept.items():
        (path / name).write_bytes(content)
    reader = SalvageReader(path)
    assert sum(1 for _ in reader.messages(reader.connections)) == 71
    reader.close()


# ------------------------------------------------------------------------------------------------------- many bags


@pytest.mark.parametrize("how", ["workers", "ray"])
def test_several_bags_at_a_time_give_what_one_at_a_time_gives(how: str, done: Path, bag: Path, tmp_path: Path) -> None:
    if how == "ray":
        pytest.importorskip("ray", reason="an optional extra")
    more = tmp_path / "more" / "bag2"
    more.parent.mkdir()
    _write(more, _messages(6))
    (tmp_path / "bad.mcap").write_bytes(b"junk")
    options = ["--publish", "all", "--segment", "10", "--workers", "2", "--threads", "1"]
    options += ["--ray"] if how == "ray" else []
    program = Path(get_package_prefix("radan_ros")) / "lib" / "radan_ros" / "process_bag"  # as it is installed
    command = [sys.executable, str(program), str(bag), str(more), str(tmp_path / "bad.mcap")]
    command += ["--out", str(tmp_path / "out"), *options]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1 and "bad.mcap" in run.stderr and run.stderr.count("\n") == 1, run.stderr
    assert len(run.stdout.splitlines()) == 2
    assert _contents(tmp_path / "out" / "bag") == _contents(done)
    assert len(_answers(tmp_path / "out" / "bag2")) == 6
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["bag", "bag2"]


def test_no_worker_outlives_a_program_that_is_killed(bag: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(bag, other)
    command = [*COMMAND, str(bag), str(other), "--out", str(tmp_path / "out"), "--publish", "all", "--workers", "3"]
    process = subprocess.Popen(command)
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "out" / "bag.partial" / "writing").is_dir():
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.01)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= 2
    finally:
        process.kill()
        process.wait()
    end = time.monotonic() + 20
    while left := [child for child in children if Path(f"/proc/{child}").exists() and not _ended(child)]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


def _ended(process: str) -> bool:
    """Whether a process is one that only waits to be fetched."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_products_are_computed_by_one_thread_while_bags_are_processed(bag: Path, tmp_path: Path) -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    with threadpool_limits(limits=3, user_api="blas"):
        process_bag._parts.cache_clear()
        assert _run(bag, "--out", tmp_path, "--publish", "tf", "--only-ours") == 0
        assert {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"} == {1}


# ----------------------------------------------------------------------------------------------------------- the bytes


def test_the_bytes_between_the_fields_of_a_message_are_always_zero() -> None:
    message = FaceArray(model="odd", version="length", faces=[Face(id=1, parameters=[1.0, 2.0, 3.0]), Face()])
    message.header.frame_id = "x"
    raw = serialize_message(message)
    clean = without_padding_noise(raw, FaceArray)
    # Behind the frame's "x", the empty byte of which ends at 18: the height, at a multiple of four behind the head.
    noisy = bytearray(clean)
    noisy[18:20] = b"\x55\xaa"
    assert deserialize_message(bytes(noisy), FaceArray) == message
    assert bytes(noisy) != clean == without_padding_noise(bytes(noisy), FaceArray)
    assert deserialize_message(clean, FaceArray) == message
    with pytest.raises(ValueError, match="no FaceTopology in CDR"):
        without_padding_noise(clean, FaceTopology)


def test_parameters_come_from_a_file_and_from_the_command_line(bag: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("/**:\n  ros__parameters:\n    smoothing: 0.0\n    use_sim_time: true\n    publish: ['pncc']\n"
                    "radan:\n  ros__parameters:\n    max_faces: 3\n")  # fmt: skip
    arguments = ["b", "--out", "o", "--params-file", str(file), "--set", "max_faces=2", "frame_prefix=x_"]
    values = process_bag._parameters(process_bag._parser().parse_args(arguments))
    assert values == {"smoothing": 0.0, "max_faces": 2, "frame_prefix": "x_"}
    job = process_bag.Job(str(bag), str(tmp_path / "out"), values, only_ours=True)
    assert process_bag.process(job).troubles == ()
    assert process_bag.process(replace(job, parameters={}, overwrite=True)).answered == IMAGES
    with_file = {f.id for m in _answers(tmp_path / "out") for f in m.faces}
    assert with_file == {0}
