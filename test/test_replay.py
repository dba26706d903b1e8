"""Record and replay: a bag of the outputs, played into another node, gives the same faces; and what bags can hold."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("radan_ros.msg", reason="needs this package's messages: make build")
pytest.importorskip("rosbags", reason="bags are read with rosbags")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from radan_ros.msg import FaceArray  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from rclpy.serialization import deserialize_message  # noqa: E402
from ros_client import PATIENCE, Process, running_node  # noqa: E402
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from radan_ros.tools.bags import Bag, is_bag  # noqa: E402
from radan_ros.tools.sources import SourceError  # noqa: E402

IMAGES = 36  # 1.2 s at 30 Hz: a loop then goes back by more than what counts as a jump of a clock
START = 1_700_000_000_000_000_000  # ns
STEP = 20_000_000  # ns between two images of the made bags
STORE = get_typestore(Stores.ROS2_JAZZY)


class Ear:
    """A node that collects the serialised messages of some topics."""

    def __init__(self, **topics: tuple[str, Any]) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node(f"ear_{time.monotonic_ns()}", context=self.context)
        self.heard: dict[str, list[bytes]] = {name: [] for name in topics}
        for name, (topic, kind) in topics.items():
            latched = topic.endswith("tf_static")
            durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
            qos = QoSProfile(depth=200, durability=durability)
            self.node.create_subscription(kind, topic, self.heard[name].append, qos, raw=True)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
        """Spin until a condition holds."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"waited {seconds:g} s in vain for {what}"
            self._executor.spin_once(timeout_sec=0.02)


def _stamp(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def _node(name: str) -> Any:
    """A node on /replay/image, which answers the same images with the same faces."""
    remappings = {"__ns": "/replay", "__node": name, "image": "/replay/image", "camera_info": "/replay/camera_info"}
    rules = [word for old, new in remappings.items() for word in ("-r", f"{old}:={new}")]
    # However long player and recorder take to end, nothing is taken from the views: that would be a message more.
    return running_node(*rules, "-p", "deterministic_ids:=true", "-p", "camera_timeout:=0.0")


def _listens(process: Process) -> bool:
    assert process.alive(), process.log()
    return "waiting for images" in process.log()


def _answers_read(ear: Ear, name: str) -> set[str] | None:
    """Topics of the node /replay/`name` that it knows to be read, of an ear that hears diagnostics; None: not heard."""
    for raw in reversed(ear.heard["diagnostics"]):
        for status in deserialize_message(raw, DiagnosticArray).status:
            if status.name == f"/replay/{name}":
                read = next(v.value for v in status.values if v.key == "topics_read")
                return {topic.removeprefix(f"/replay/{name}/") for topic in read.split()}
    return None


def _faces(raws: list[bytes]) -> list[FaceArray]:
    return [deserialize_message(raw, FaceArray) for raw in raws]


def _distance(ours: list[FaceArray], theirs: list[FaceArray]) -> float:
    """Largest distance of a landmark's coordinate, pixels; the images have as many faces here and there."""
    pairs = [
        (a.landmarks_px, b.landmarks_px)
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(one.faces, other.faces, strict=True)
    ]
    return max(float(np.abs(np.subtract(a, b)).max()) for a, b in pairs)


def _assert_same(ours: list[FaceArray], theirs: list[FaceArray]) -> None:
    assert [_stamp(m) for m in ours] == [_stamp(m) for m in theirs]
    assert [[face.id for face in m.faces] for m in ours] == [[face.id for face in m.faces] for m in theirs]
    assert sum(len(m.faces) for m in ours) > IMAGES / 2
    assert _distance(ours, theirs) < 1e-3


def _assert_ends(player: Process, ear: Ear) -> str:
    ear.wait(lambda: not player.alive(), "the end of the player", 3 * PATIENCE)
    status, said = player.wait(), player.log()
    assert status == 0 and "sent again" not in said, said
    return said


def test_a_replayed_recording_gives_the_same_faces_and_a_loop_begins_anew(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the built-in picture comes with scikit-image")
    path = str(tmp_path / "bag")
    outputs = ("faces", "meshes", "depth", "pncc", "markers", "points", "overlay")
    with Ear(diagnostics=("/diagnostics", DiagnosticArray)) as ear, _node("first") as node:
        ear.wait(lambda: _listens(node), "the first node")
        ear.wait(lambda: _answers_read(ear, "first") is not None, "its diagnostics")
        assert not _answers_read(ear, "first")
        with running_node(program="record", arguments=(path, "--all")) as recorder:
            ear.wait(lambda: (_answers_read(ear, "first") or set()) >= {*outputs, "/tf"}, "the recorder")
            arguments = ["astronaut", "--frames", str(IMAGES), "--wait-for", "/replay/first/faces"]
            arguments += ["--wait-for-subscribers", "2"]  # the node and the recorder
            rules = ("-r", "image:=/replay/image", "-r", "camera_info:=/replay/camera_info")
            with running_node(*rules, program="play", arguments=tuple(arguments)) as player:
                _assert_ends(player, ear)
            assert recorder.interrupt()[0] == 0, recorder.log()
    bag = Bag(path)
    per_image = ("/replay/image", "/replay/camera_info", *(f"/replay/first/{name}" for name in outputs))
    assert {name: bag.topics[name].count for name in per_image} == dict.fromkeys(per_image, IMAGES)
    recorded = _faces([raw for _, _, raw in bag.messages([bag.topics["/replay/first/faces"]])])
    # Of the pictures in it, those of the camera are played; the node's own are not.
    assert [t.name for t in bag.choose() if t.is_image] == ["/replay/image"]

    with Ear(faces=("/replay/second/faces", FaceArray)) as ear, _node("second") as node:
        ear.wait(lambda: _listens(node), "the second node")
        chosen = (path, "--topics", "/replay/image", "replay/camera_info", "--wait-for", "/replay/second/faces")
        with running_node(program="play", arguments=(*chosen, "--rate", "5")) as player:
            assert _assert_ends(player, ear).startswith(f"{IMAGES} images of {path}")
        ear.wait(lambda: len(ear.heard["faces"]) == IMAGES, "all answers")
        replayed = _faces(ear.heard["faces"])
        _assert_same(replayed, recorded)

        ear.heard["faces"].clear()
        arguments = (*chosen, "--rate", "5", "--loop", "--frames", str(2 * IMAGES + 5))
        with running_node(program="play", arguments=arguments) as player:
            _assert_ends(player, ear)
        ear.wait(lambda: len(ear.heard["faces"]) == 2 * IMAGES + 5, "the answers of a loop")
        looped = _faces(ear.heard["faces"])
    known = {face.id for m in replayed for face in m.faces}
    for number in range(3):
        turn = looped[number * IMAGES : (number + 1) * IMAGES]
        ids = {face.id for m in turn for face in m.faces}
        assert ids and not ids & known  # somebody new, as far as the node can tell: ids go on
        known |= ids
        assert [_stamp(m) for m in turn] == [_stamp(m) for m in recorded[: len(turn)]]
        assert _distance(turn, recorded[: len(turn)]) < 1e-3


# ------------------------------------------------------------------------------------------------ what bags can hold


def _type(name: str) -> Any:
    return STORE.types[name]


def _header(ns: int, frame: str = "eye") -> Any:
    time_type, header = _type("builtin_interfaces/msg/Time"), _type("std_msgs/msg/Header")
    return header(time_type(*divmod(ns, 10**9)), frame)


def _messages(count: int = 6) -> list[tuple[str, str, int, bytes]]:
    """Topic, type, time and bytes of what a robot might record: two cameras, one compressed, depth, TF, a text."""
    out: list[tuple[str, str, int, Any]] = []
    region = _type("sensor_msgs/msg/RegionOfInterest")(0, 0, 0, 0, False)
    zero, one = np.zeros(3), np.eye(3).ravel()
    for k in range(count):
        ns = START + k * STEP
        header = _header(ns - 1_000_000)
        noise = np.random.default_rng(k).integers(0, 256, 4 * 6 * 3, np.uint8)
        info = _type("sensor_msgs/msg/CameraInfo")(
            header, 4, 6, "plumb_bob", np.zeros(5), one, one, np.zeros(12), 0, 0, region
        )
        image = _type("sensor_msgs/msg/Image")(header, 4, 6, "bgr8", 0, 18, noise)
        packed = _type("sensor_msgs/msg/CompressedImage")(header, "jpeg", noise[:52])
        out += [
            ("/left/camera_info", "sensor_msgs/msg/CameraInfo", ns, info),
            ("/left/image_raw", "sensor_msgs/msg/Image", ns + 1000, image),
            ("/right/camera_info", "sensor_msgs/msg/CameraInfo", ns + 2000, info),
            ("/right/image/compressed", "sensor_msgs/msg/CompressedImage", ns + 3000, packed),
            ("/radan/depth", "sensor_msgs/msg/Image", ns + 4000, image),
            ("/text", "std_msgs/msg/String", ns + 5000, _type("std_msgs/msg/String")(f"number {k}")),
        ]
    vector, turn = _type("geometry_msgs/msg/Vector3"), _type("geometry_msgs/msg/Quaternion")
    still = _type("geometry_msgs/msg/Transform")(vector(*zero), turn(0.0, 0.0, 0.0, 1.0))
    for k, child in enumerate(("left", "right")):
        transform = _type("geometry_msgs/msg/TransformStamped")(_header(START, "base"), child, still)
        message = _type("tf2_msgs/msg/TFMessage")([transform])
        out.append(("/tf_static", "tf2_msgs/msg/TFMessage", START + 10 + k, message))
    out.sort(key=lambda item: item[2])
    return [(topic, kind, ns, bytes(STORE.serialize_cdr(message, kind))) for topic, kind, ns, message in out]


FORMS = {
    "mcap": (StoragePlugin.MCAP, CompressionMode.NONE, 9),
    "mcap, compressed": (StoragePlugin.MCAP, CompressionMode.STORAGE, 9),
    "sqlite3": (StoragePlugin.SQLITE3, CompressionMode.NONE, 9),
    "sqlite3, each message compressed": (StoragePlugin.SQLITE3, CompressionMode.MESSAGE, 9),
    "sqlite3, compressed": (StoragePlugin.SQLITE3, CompressionMode.FILE, 8),
}


def _write(folder: Path, form: str, messages: list[tuple[str, str, int, bytes]]) -> Path:
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    plugin, mode, version = FORMS[form]
    writer = Writer(folder, version=version, storage_plugin=plugin)
    if mode != CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    ever = QosTime(0, 0)
    with writer:
        connections: dict[str, Any] = {}
        for topic, kind, ns, raw in messages:
            if topic not in connections:
                latched = QosDurability.TRANSIENT_LOCAL if topic == "/tf_static" else QosDurability.VOLATILE
                qos = Qos(
                    *(QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, latched, ever, ever),
                    *(QosLiveliness.AUTOMATIC, ever, False),
                )
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE, offered_qos_profiles=[qos])
            writer.write(connections[topic], ns, raw)
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_bag_gives_what_was_recorded(form: str, tmp_path: Path) -> None:
    messages = _messages()
    path = _write(tmp_path / "bag", form, messages)
    assert is_bag(str(path))
    bag = Bag(str(path))
    assert {topic.name: (topic.type, topic.count) for topic in bag.topics.values()} == {
        topic: (kind, sum(m[0] == topic for m in messages)) for topic, kind, _, _ in messages
    }
    assert [topic.name for topic in bag.topics.values() if topic.latched] == ["/tf_static"]
    assert bag.seconds == pytest.approx((messages[-1][2] - START) * 1e-9, abs=1e-6)
    read = [(topic.name, topic.type, ns, raw) for topic, ns, raw in bag.messages(list(bag.topics.values()))]
    assert read == messages
    assert [m[0] for m in messages if m[0] == "/text"] == [t.name for t, _, _ in bag.messages(bag.choose(["text"]))]
    for file in path.iterdir():
        if file.suffix in (".mcap", ".db3") and "compressed" not in form:
            assert is_bag(str(file)) and sum(1 for _ in Bag(str(file)).messages(bag.choose(["text"]))) == 6


def test_the_cameras_of_a_bag_are_played_unless_others_are_asked_for(tmp_path: Path) -> None:
    messages = _messages(2)
    bag = Bag(str(_write(tmp_path / "bag", "mcap", messages)))
    cameras = {"/left/image_raw", "/left/camera_info", "/right/image/compressed", "/right/camera_info"}
    assert {topic.name for topic in bag.choose()} == cameras | {"/tf_static"}
    assert [topic.name for topic in bag.choose(["text", "/radan/depth", "/text"])] == ["/text", "/radan/depth"]
    with pytest.raises(SourceError, match=r"no topic /left/image in this bag \(it has /left/camera_info"):
        bag.choose(["left/image"])
    uncalibrated = [m for m in messages if "camera_info" not in m[0]]
    images = {topic.name for topic in Bag(str(_write(tmp_path / "raw", "mcap", uncalibrated))).choose()}
    assert images == {"/left/image_raw", "/right/image/compressed", "/radan/depth", "/tf_static"}
    with pytest.raises(SourceError, match="no images in this bag"):
        Bag(str(_write(tmp_path / "text", "mcap", [m for m in messages if m[0] == "/text"]))).choose()


@pytest.mark.parametrize("form", ["sqlite3", "mcap, compressed"])
def test_a_bag_is_played_as_it_was_recorded(form: str, tmp_path: Path) -> None:
    messages = _messages()
    path = str(_write(tmp_path / "bag", form, messages))
    topics = {
        "left": ("/replay/left", Image),
        "info": ("/left/camera_info", CameraInfo),
        **({"right": ("/right/image/compressed", CompressedImage)} if form == "sqlite3" else {}),  # one camera will do
        "tf": ("/tf_static", TFMessage),  # latched: matches only who publishes for late comers
        "clock": ("/clock", Clock),
    }
    rules = ("-r", "/left/image_raw:=/replay/left")
    with Ear(**topics) as ear:
        arguments = (path, "--rate", "0.2", "--clock", "--wait-for-subscribers", "--loop", "--frames", "16")
        with running_node(*rules, program="play", arguments=arguments) as player:
            heard = ear.heard
            ear.wait(lambda: not player.alive(), "the end of the player")
            assert player.wait() == 0 and player.log().startswith("16 images"), player.log()
            took = re.search(r" in ([\d.]+) s at ", player.log())
    # One and a third times through, by 100 ms from image to image, the step between two passes included.
    assert took is not None and float(took[1]) >= 7 * 0.1 - 0.05
    for name in {"left", "right"} & set(heard):
        topic = {"left": "/left/image_raw", "right": "/right/image/compressed"}[name]
        sent = [raw for name_, _, _, raw in messages if name_ == topic]
        assert heard[name] == (sent + sent)[:8]
    assert heard["tf"] == 2 * [raw for name, _, _, raw in messages if name == "/tf_static"]
    clocks = [deserialize_message(raw, Clock).clock for raw in heard["clock"]]
    times = np.array([clock.sec * 10**9 + clock.nanosec for clock in clocks])
    assert START - STEP <= times.min() and times.max() <= messages[-1][2]
    backwards = np.flatnonzero(np.diff(times) < 0)
    assert len(backwards) == 1  # where the loop begins again
    assert len(times) > 16 + 8 * 2  # also between the messages


def test_an_image_that_nobody_answers_is_an_error_in_one_line(tmp_path: Path) -> None:
    path = str(_write(tmp_path / "bag", "mcap", _messages(2)))
    topics = ("--topics", "/left/image_raw")
    cases = {
        ("--wait-for", "/nothing", "--wait-timeout", "0.5", *topics): "nobody publishes /nothing",
        ("--wait-for", "/nothing"): "--wait-for goes with one topic of images, not 2",
        ("--wait-for", "/answers/bad", *topics): "has no header",
        ("--wait-for", "/answers/faces", "--wait-timeout", "15", *topics): "no answer on /answers/faces to image 1",
    }
    with Ear(image=("/left/image_raw", Image)) as ear:
        ear.node.create_publisher(FaceArray, "/answers/faces", 10)
        ear.node.create_publisher(Clock, "/answers/bad", 10)
        for arguments, reason in cases.items():
            with running_node(program="play", arguments=(path, *arguments)) as player:
                ear.wait(lambda player=player: not player.alive(), "the end of the player")
                said = player.log()
                assert player.wait() == 1 and said.startswith("play: ") and reason in said and said.count("\n") == 1


def _damaged(folder: Path) -> dict[str, str]:
    """Paths of what is no bag, and a part of what shall be said about it."""
    good = _write(folder / "good", "mcap", _messages(40))
    file = next(good.glob("*.mcap"))
    (folder / "short.mcap").write_bytes(file.read_bytes()[:3000])
    (folder / "text.mcap").write_text("not a bag")
    (folder / "text.db3").write_text("not a bag")
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "a.mcap").write_bytes(file.read_bytes())
    lost = _write(folder / "lost", "sqlite3", _messages(1))
    next(lost.glob("*.db3")).unlink()
    odd = _write(folder / "odd", "mcap", _messages(1))
    (odd / "metadata.yaml").write_text("rosbag2_bagfile_information: 3")
    changed = _write(folder / "changed", "sqlite3", _messages(1))
    text = (changed / "metadata.yaml").read_text()
    digest = Bag(str(changed)).topics["/left/image_raw"].digest
    (changed / "metadata.yaml").write_text(text.replace(digest, digest[:-4] + "0000"))
    names = ("short.mcap", "text.mcap", "text.db3", "unfinished", "lost", "odd")
    return dict.fromkeys(names, "cannot be read as a rosbag2") | {"changed": "another type when it was recorded"}


def test_what_is_no_bag_is_told_in_one_line(tmp_path: Path) -> None:
    for name, reason in _damaged(tmp_path).items():
        with running_node(program="play", arguments=(str(tmp_path / name), "--topics", "/left/image_raw")) as player:
            status, said = player.wait(), player.log()
        assert status == 1 and said.startswith(f"play: {tmp_path / name}: ") and reason in said, (name, said)
        assert said.count("\n") == 1, said


def test_a_bag_that_breaks_off_is_an_error_when_it_gets_there(tmp_path: Path) -> None:
    path = _write(tmp_path / "bag", "sqlite3, each message compressed", _messages())
    import sqlite3

    with sqlite3.connect(next(path.glob("*.db3"))) as database:
        database.execute("update messages set data = x'00' where id > 20")
    bag = Bag(str(path))
    read = []
    with pytest.raises(SourceError, match=f"{path}: damaged: "):
        for item in bag.messages(list(bag.topics.values())):
            read.append(item)
    assert len(read) == 20
