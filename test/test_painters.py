"""Views that other processes draw: the same bytes, whoever draws them, and nothing is lost or left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("radan_ros.msg", reason="needs this package's messages: make build")
pytest.importorskip("rosbags", reason="bags are read with rosbags")
pytest.importorskip("skimage", reason="the built-in picture comes with scikit-image")

from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from rosbags.rosbag2 import CompressionFormat, CompressionMode  # noqa: E402
from test_process_bag import SIZE, START, STEP, Message, _contents, _image, _messages, _read, _run, _write  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from radan_ros.camera import CameraModel  # noqa: E402
from radan_ros.model import open_model  # noqa: E402
from radan_ros.ros import offline  # noqa: E402
from radan_ros.ros.answer import Answer  # noqa: E402
from radan_ros.ros.painters import Painters, Scenery  # noqa: E402
from radan_ros.ros.parameters import from_values  # noqa: E402
from radan_ros.tools.chunks import writer  # noqa: E402

GONE = range(8, 14)  # images without the face
# With painters also for a few images.
PROGRAM = (
    "import sys; from radan_ros.ros import offline; offline.PAINTERS_PAY = 1; "
    "from radan_ros.tools.process_bag import main; raise SystemExit(main(sys.argv[1:]))"
)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cameras, one of them JPEG, whose face goes and comes back."""
    messages: list[Message] = []
    for topic, kind, ns, raw in _messages(18):
        k = (ns - START) // STEP
        if topic == "/cam/image_raw" and k in GONE:
            raw = serialize_message(_image(k, np.full((*SIZE, 3), 90, np.uint8)))
        messages.append((topic, kind, ns, raw))
        if topic == "/cam/image_raw":
            messages.append(("/other/image/compressed", "sensor_msgs/msg/CompressedImage", ns + 1, _jpeg(raw)))
        if topic == "/cam/camera_info":
            messages.append(("/other/camera_info", kind, ns + 1, raw))
    return _write(tmp_path_factory.mktemp("bags") / "bag", messages)


def _jpeg(raw: bytes) -> bytes:
    import cv2
    from sensor_msgs.msg import CompressedImage, Image

    image = deserialize_message(raw, Image)
    pixels = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)
    message = CompressedImage(header=image.header, format="bgr8; jpeg compressed bgr8")
    message.data = cv2.imencode(".jpg", pixels)[1].tobytes()
    return bytes(serialize_message(message))


OPTIONS = ("--publish", "all", "--segment", "10", "--set", "retain=0.05")


@pytest.fixture(scope="module")
def plain(bag: Path) -> Path:
    """What comes of the bag in one thread."""
    assert _run(bag, "--out", bag.parent / "plain", *OPTIONS, "--threads", "1") == 0
    return bag.parent / "plain" / "bag"


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Painters also for a few images; the numbers of those that were begun."""
    begun: list[int] = []

    class Counted(Painters):
        def __init__(self, number: int, *rest: object) -> None:
            begun.append(number)
            super().__init__(number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(offline, "PAINTERS_PAY", 1)
    monkeypatch.setattr(offline, "Painters", Counted)
    yield begun


@pytest.mark.parametrize(("threads", "painters"), [(2, 1), (6, 3)])
def test_any_number_of_painters_gives_the_bytes_of_none(
    threads: int, painters: int, bag: Path, plain: Path, tmp_path: Path, many: list[int]
) -> None:
    assert _run(bag, "--out", tmp_path, *OPTIONS, "--threads", threads) == 0
    assert many == [painters]
    assert _contents(tmp_path / "bag") == _contents(plain)
    # The bag is one in which views depend on the answers before: markers are taken away, here and in the other file.
    arrays = [deserialize_message(m[3], MarkerArray) for m in _read(plain) if m[0] == "/cam/radan/markers"]
    assert [i for i, a in enumerate(arrays) if any(m.action == Marker.DELETE for m in a.markers)] == [GONE.start]


def test_few_images_or_views_or_one_thread_need_no_painters(
    bag: Path, tmp_path: Path, many: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _run(bag, "--out", tmp_path / "1", "--threads", "4") == 0  # faces and TF
    assert _run(bag, "--out", tmp_path / "2", "--publish", "depth", "--threads", "1") == 0
    monkeypatch.setattr(offline, "PAINTERS_PAY", 100)
    assert _run(bag, "--out", tmp_path / "3", "--publish", "depth", "--threads", "4") == 0
    assert not many


def _painters_of(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            if folder.name.isdigit() and int(words[1]) == pid and "painters" in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except (OSError, IndexError):
            continue
    return found


def _begin(bag: Path, out: Path, sealed: bool = True) -> tuple[subprocess.Popen[str], list[int]]:
    """A run that draws, with its first segment `sealed`, and its painters."""
    command = [sys.executable, "-c", PROGRAM, str(bag), "--out", str(out), *OPTIONS, "--threads", "3"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    painters: list[int] = []
    while not painters or (sealed and not (out / "bag.partial" / "bag_0").is_dir()):
        assert time.monotonic() < end and process.poll() is None
        painters = _painters_of(process.pid)
        time.sleep(0.002)
    return process, painters


def _gone(pids: list[int], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() and _state(pid) != "Z" for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_painters_end_with_their_program_and_the_next_run_goes_on(
    number: int, bag: Path, plain: Path, tmp_path: Path
) -> None:
    process, painters = _begin(bag, tmp_path)
    try:
        process.send_signal(number)
        said = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert _gone(painters)
    if number == signal.SIGINT:
        assert process.returncode == 130 and "Traceback" not in said
    assert _run(bag, "--out", tmp_path, *OPTIONS) == 0
    assert _contents(tmp_path / "bag") == _contents(plain)


def test_a_painter_that_is_killed_ends_the_run_with_a_line_and_the_next_one_goes_on(
    bag: Path, plain: Path, tmp_path: Path
) -> None:
    process, painters = _begin(bag, tmp_path, sealed=False)
    try:
        os.kill(painters[0], signal.SIGKILL)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 1
    assert said.endswith("a process that draws was ended from outside (memory?); run again to go on\n")
    assert "Traceback" not in said and _gone(painters)
    assert _run(bag, "--out", tmp_path, *OPTIONS) == 0
    assert _contents(tmp_path / "bag") == _contents(plain)


def test_a_view_that_fails_in_a_painter_is_named_and_costs_no_other() -> None:
    face_model = open_model().face_model
    views = ("meshes", "overlay", "pncc")
    scene = Scenery("radan", "/", from_values({"publish": list(views)}))
    header = _image(0, np.zeros((*SIZE, 3), np.uint8)).header
    picture = np.full((*SIZE, 3), 50, np.uint8)
    camera = CameraModel.from_field_of_view(SIZE, 1.0)
    good = Answer.of(header, picture, camera, face_model, [], [])
    # One metric face to no track: every view that has to pair them fails.
    bad = Answer.of(header, picture, camera, face_model, [], [None])  # type: ignore[list-item]
    painters = Painters(1, face_model, [scene])
    try:
        state = dict.fromkeys(views)
        results = [painters.paint(0, answer, state).result(60) for answer in (good, bad, good)]
    finally:
        painters.close()
    assert [name for name, _ in results[0].messages] == ["/radan/meshes", "/radan/pncc", "/radan/overlay"]
    assert set(results[1].failed) == set(views) and all(results[1].failed.values())
    assert [bytes(raw) for _, raw in results[2].messages] == [bytes(raw) for _, raw in results[0].messages]
    with pytest.raises(RuntimeError):
        painters.paint(0, good, state).result(60)


# ------------------------------------------------------------------------------------------------------------- chunks


@pytest.mark.parametrize("threads", [1, 4])
def test_chunks_that_are_compressed_beside_are_written_in_their_order(threads: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # Some compress in no time and some do not, so that the later ones are ready first.
    sizes = rng.integers(1, 3_000_000, 40)
    messages = [
        ("/a" if k % 3 else "/b", k, (rng.integers(0, 256, n, np.uint8) if k % 2 else np.zeros(n, np.uint8)).tobytes())
        for k, n in enumerate(sizes)
    ]
    with ThreadPoolExecutor(threads) as pool:
        for name, beside in (("plain", None), ("beside", pool)):
            made = writer(tmp_path / name / "bag", "mcap", beside)
            made.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            with made:
                kind = {"msgdef": "uint8[] data\n", "rihs01": "RIHS01_" + 64 * "0"}
                topics = {topic: made.add_connection(topic, "lab_msgs/msg/Raw", **kind) for topic in ("/a", "/b")}
                for topic, ns, raw in messages:
                    made.write(topics[topic], ns, raw)
    plain, beside = ((tmp_path / name / "bag" / "bag.mcap").read_bytes() for name in ("plain", "beside"))
    assert plain == beside and len(plain) < sizes.sum()
    assert [(m[0], m[2], m[3]) for m in _read(tmp_path / "beside" / "bag")] == messages
