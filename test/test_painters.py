"""Views that other processes draw: the same bytes, whoever draws them, and nothing is lost or left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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
from radan_ros.ros.painters import Painted, Painters, Scenery  # noqa: E402
from radan_ros.ros.parameters import from_values  # noqa: E402
from radan_ros.tools import process_bag  # noqa: E402
from radan_ros.tools.ahead import WriteBehind, read_ahead  # noqa: E402
from radan_ros.tools.chunks import writer  # noqa: E402
from radan_ros.tools.segments import SegmentedBag  # noqa: E402

GONE = range(8, 14)  # images without the face
# With painters also for a few images, and slow enough that it is caught in the middle.
PROGRAM = """
import sys, time
from radan_ros.ros import engine, offline
from radan_ros.tools.process_bag import main
offline.PAINTERS_PAY = 1
answer = engine.Engine.answer
engine.Engine.answer = lambda *arguments: (time.sleep(0.05), answer(*arguments))[1]
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cameras, one of them JPEG, whose face goes and comes back."""
    messages: list[Message] = []
    for topic, kind, ns, raw in _messages(26):
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


# The first segment ends with the last image that has the face: what is then on show goes into its state.
OPTIONS = ("--publish", "all", "--segment", "16", "--set", "retain=0.05")


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
            if (
                folder.name.isdigit()
                and int(words[1]) == pid
                and "radan_ros.ros.painters" in (folder / "cmdline").read_text()
            ):
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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
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
    assert process.returncode == (143 if number == signal.SIGTERM else -number) and "Traceback" not in said
    assert (tmp_path / "bag.partial" / "bag_0").is_dir()
    assert _run(bag, "--out", tmp_path, *OPTIONS) == 0
    assert _contents(tmp_path / "bag") == _contents(plain)


@pytest.mark.parametrize("sealed", [False, True])  # while it loads, and while it draws
def test_a_painter_that_is_killed_ends_the_run_with_a_line_and_the_next_one_goes_on(
    sealed: bool, bag: Path, plain: Path, tmp_path: Path
) -> None:
    process, painters = _begin(bag, tmp_path, sealed)
    try:
        if sealed:
            os.kill(painters[0], signal.SIGINT)  # is no concern of theirs
            time.sleep(0.3)
            assert _state(painters[0]) != "Z" and process.poll() is None
        os.kill(painters[0], signal.SIGKILL)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 1
    assert said.endswith("a process that draws was ended from outside (signal 9; memory?); run again to go on\n")
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
    with pytest.raises(RuntimeError, match="after shutdown"):
        painters.paint(0, good, state)


def test_a_painter_that_cannot_begin_says_why(bag: Path) -> None:
    scene = Scenery("radan", "/", from_values({"publish": ["depth"]}))
    picture = np.zeros((*SIZE, 3), np.uint8)
    camera = CameraModel.from_field_of_view(SIZE, 1.0)
    answer = Answer.of(_image(0, picture).header, picture, camera, open_model().face_model, [], [])
    painters = Painters(1, "no face model", [scene])  # type: ignore[arg-type]
    try:
        with pytest.raises(RuntimeError, match="a process that draws: 'str' object has no attribute"):
            painters.paint(0, answer, {"depth": None}).result(60)
    finally:
        painters.close()


def test_what_a_painter_could_not_make_is_told_and_in_the_exit_status(
    bag: Path, tmp_path: Path, many: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(Painters):
        def _paint(self, *arguments: Any) -> Painted:
            painted = super()._paint(*arguments)
            return Painted([m for m in painted.messages if "overlay" not in m[0]], {"overlay": "out of paint"})

    monkeypatch.setattr(offline, "Painters", Failing)
    arguments = (bag, "--out", tmp_path, "--topics", "/cam/image_raw", "--publish", "depth", "overlay")
    assert _run(*arguments, "--threads", "2") == 1
    assert "/cam/image_raw: publishing overlay: out of paint\n" in capsys.readouterr().err
    read = _read(tmp_path / "bag")
    assert sum(m[0] == "/radan/depth" for m in read) == 26 and not any(m[0] == "/radan/overlay" for m in read)


def test_behind_an_answer_that_takes_its_time_no_more_is_read_than_a_bound(
    bag: Path, tmp_path: Path, many: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, done = threading.Event(), threading.Event()
    highest = [0]

    class Slow(Painters):
        def _paint(self, *arguments: Any) -> Painted:
            held.wait(60)
            return super()._paint(*arguments)

    sizes: dict[str, int] = {}
    add = process_bag._LineUp.add

    def counted(self: Any, item: Any) -> None:
        messages = [len(i[2]) for i in self._waiting if isinstance(i, tuple) and len(i) == 3]
        sizes["now"] = sum(messages) + sum(i.size for i in self._waiting if not isinstance(i, tuple))
        highest[0] = max(highest[0], sizes["now"])
        add(self, item)

    def watch() -> None:
        last = -1
        while sizes.get("now", -2) != last or last <= 0:  # until it stands still
            last = sizes.get("now", -2)
            if done.wait(1):
                break
        held.set()

    monkeypatch.setattr(offline, "Painters", Slow)
    monkeypatch.setattr(process_bag._LineUp, "add", counted)
    monkeypatch.setattr(process_bag, "HELD", 2_000_000)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        arguments = (bag, "--out", tmp_path, "--topics", "/cam/image_raw", "--publish", "depth", "--threads", "8")
        assert _run(*arguments) == 0
    finally:
        done.set()
        watcher.join()
    # An image takes 230 kB, as a message and as pixels: 26 of them are 12 MB, eight answers 3.7 MB.
    assert 1_000_000 < highest[0] < 3_000_000


# ------------------------------------------------------------------------------------------------ disks that fail once


@pytest.mark.parametrize("number", [3, 40, 130, -2, -1])
def test_nothing_is_lost_where_a_disk_fails_once(
    number: int, bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--segment", "16", "--threads", "4")
    assert _run(bag, "--out", tmp_path / "whole", *options) == 0
    total = len(_read(tmp_path / "whole" / "bag"))
    counted = [0]
    write = SegmentedBag.write

    def fail_once(self: SegmentedBag, *message: Any) -> None:
        counted[0] += 1
        if counted[0] == (number if number > 0 else total + 1 + number):
            raise OSError(5, "Input/output error")
        write(self, *message)

    monkeypatch.setattr(SegmentedBag, "write", fail_once)
    monkeypatch.setattr(process_bag, "LOT", 1000)  # as where a lot is full just then
    assert _run(bag, "--out", tmp_path, *options) == 1
    assert "Input/output error; run again to go on\n" in capsys.readouterr().err
    assert _run(bag, "--out", tmp_path, *options) == 0
    assert _contents(tmp_path / "bag") == _contents(tmp_path / "whole" / "bag")


def test_nothing_is_written_behind_a_job_that_failed() -> None:
    done: list[object] = []

    def fail() -> None:
        time.sleep(0.05)  # others wait by then
        raise OSError("once")

    with pytest.raises(OSError, match="once"), WriteBehind(8, undo=lambda: done.append("undone")) as behind:
        for job in (lambda: done.append(1), fail, lambda: done.append(2), lambda: done.append(3)):
            behind(job)
    assert done == [1, "undone"]


def test_jobs_wait_by_their_bytes_and_an_error_is_told_at_once() -> None:
    gate = threading.Event()
    done: list[int] = []

    def job(number: int) -> None:
        gate.wait(30)
        done.append(number)

    with WriteBehind(100, 10) as behind:
        behind(job, 0, size=50)  # by itself
        caller = threading.Thread(target=behind, args=(job, 1), kwargs={"size": 1})
        caller.start()
        caller.join(0.2)
        assert caller.is_alive(), "waits for the large one"
        gate.set()
        caller.join(30)
        assert done[0] == 0
    assert done == [0, 1]

    def fail() -> None:
        raise OSError("at once")

    behind = WriteBehind(100)
    with pytest.raises(OSError, match="at once"):
        behind(fail)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            behind(lambda: None)
            time.sleep(0.01)


def test_what_waits_is_not_written_after_an_interruption() -> None:
    gate = threading.Event()
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt), WriteBehind(8) as behind:
        behind(gate.wait, 30)
        behind(done.append, 1)
        threading.Timer(0.2, gate.set).start()
        raise KeyboardInterrupt
    assert done == []


def test_small_items_are_read_ahead_by_their_bytes_and_large_ones_by_their_number() -> None:
    for size, least, highest in ((10, 1000, 1 << 20), (1 << 22, 1, 5)):
        made: list[int] = []

        def items(made: list[int] = made) -> Iterator[int]:
            for k in range(5000):
                made.append(k)
                yield k

        stream = read_ahead(items(), 4, lambda _, size=size: size)  # type: ignore[misc]
        assert next(stream) == 0
        end = time.monotonic() + 30
        while len(made) - 1 < least and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)  # and no further
        assert least <= len(made) - 1 <= highest
        stream.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "reader"]


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
