"""The real node's lifecycle over DDS: every transition, also while images stream in; what it tells of its state."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("radan_ros.msg", reason="needs ROS and the built package: make test")
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import State, Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions
from radan_ros.srv import SaveMeshes
from rcl_interfaces.srv import SetParameters
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_client import AT_ONCE, OUTPUTS, Client, Process, camera, connected, running_node
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger
from test_export import READERS

from radan_ros import Model
from radan_ros.ros import engine
from radan_ros.ros import node as node_module
from radan_ros.ros import worker as worker_module
from radan_ros.ros.node import RadanNode
from radan_ros.ros.parameters import Settings
from radan_ros.ros.subscriptions import Arrival

LIFECYCLE = "radan_lifecycle_node"
NODE, IMAGE = "/life/radan", "/life/image"


@pytest.fixture(scope="module")
def node() -> Iterator[Process]:
    """One node that waits for transitions; each test leaves it unconfigured."""
    with running_node("-r", "__ns:=/life", "-p", "device:=cpu", program=LIFECYCLE) as process:
        yield process
        assert process.alive(), process.log()
        status, _ = process.interrupt()
        assert status == 0 and "Traceback" not in process.log(), process.log()


@pytest.fixture(scope="module")
def load(node: Process) -> Iterator[Process]:
    """A camera at 30 Hz."""
    with camera(IMAGE) as process:
        yield process


@pytest.fixture(scope="module")
def client(node: Process) -> Iterator[Client]:
    with connected(NODE, IMAGE, outputs=("faces",), active=False) as found:
        yield found


def answered(client: Client) -> None:
    """Wait for an answer with a face that comes from now on."""
    seen = len(client.received["faces"])
    client.wait(lambda: any(m.faces for m in client.received["faces"][seen:]), "a face")


def topics(client: Client) -> set[str]:
    """The node's outputs that are there."""
    return {name for name in OUTPUTS if client.count_publishers(f"{NODE}/{name}")}


def test_the_states_one_after_the_other(client: Client, load: Process) -> None:
    events: list[Any] = []
    client.create_subscription(TransitionEvent, f"{NODE}/transition_event", events.append, 10)
    client.wait(lambda: client.count_publishers(f"{NODE}/transition_event"), "transition_event")
    assert client.state() == "unconfigured" and not topics(client)
    client.summary(lambda level, text: level == DiagnosticStatus.OK and text == "unconfigured", "its state")

    assert client.change("configure")
    assert client.state() == "inactive"
    client.wait(lambda: topics(client) == set(OUTPUTS), "the publishers")
    assert client.count_subscribers(IMAGE) == 0 and not client.received["faces"], "not subscribed yet"
    client.diagnostics(lambda v: v["state"] == "inactive" and v["device"] == "cpu", "state and device")

    assert client.change("activate")
    answered(client)
    assert client.state() == "active"
    values = client.diagnostics(lambda v: v["state"] == "active" and float(v["rate_out"]) > 1, "rates")
    assert {"transport_ms_p50", "network_ms_p99", "publishing_ms_p50", "detection_ms_p50", "model"} <= set(values)
    assert int(values["detections"]) > 0 and int(values["tracks_new"]) >= 1

    assert client.change("deactivate")
    client.wait(lambda: client.count_subscribers(IMAGE) == 0, "the subscription to go")
    assert client.state() == "inactive" and topics(client) == set(OUTPUTS)
    client.diagnostics(lambda v: v["state"] == "inactive" and v["faces"] == "0", "no faces")

    assert client.change("cleanup")
    client.wait(lambda: not topics(client), "the publishers to go")
    assert client.state() == "unconfigured"
    names = [(e.start_state.label, e.goal_state.label) for e in events]
    for step in (("unconfigured", "configuring"), ("activating", "active"), ("deactivating", "inactive")):
        assert step in names


def test_what_tools_ask_of_it_is_answered(client: Client) -> None:
    states = client.call(GetAvailableStates, "get_available_states").available_states
    assert {"unconfigured", "inactive", "active", "finalized"} <= {state.label for state in states}
    transitions = client.call(GetAvailableTransitions, "get_available_transitions").available_transitions
    assert {t.transition.label for t in transitions} == {"configure", "shutdown"}


def test_impossible_transitions_are_refused_and_harm_nobody(node: Process, client: Client) -> None:
    assert not client.change("activate") and not client.change("cleanup") and not client.change("fly")
    wrong = Transition(id=Transition.TRANSITION_DEACTIVATE)
    assert not client.call(ChangeState, "change_state", transition=wrong).success
    assert client.state() == "unconfigured" and node.alive()


def test_services_say_why_they_cannot(client: Client) -> None:
    for kind, name in ((Trigger, "reset"), (SetBool, "pause"), (SaveMeshes, "save_meshes")):
        answer = client.call(kind, name)
        assert not answer.success and "unconfigured" in answer.message


def test_parameters_change_in_every_state(client: Client, load: Process) -> None:
    for state, transition in (("unconfigured", "configure"), ("inactive", "activate"), ("active", "deactivate")):
        assert client.state() == state
        assert client.set(max_faces=3)[0].successful
        for name, value in (("model", "/nowhere"), ("device", "cuda:77"), ("detector", "magic")):
            assert not client.set(**{name: value})[0].successful, (state, name)
        assert client.set(max_faces=5, detector_threshold=0.1)[0].successful
        assert client.get("max_faces") == [5] and client.change(transition)
    assert client.change("cleanup")
    client.set(max_faces=10, detector_threshold=0.2)


def test_transitions_under_load_leave_nothing_behind(node: Process, client: Client, load: Process) -> None:
    def cycle(deep: bool) -> None:
        if deep:
            assert client.change("configure")
        assert client.change("activate")
        answered(client)
        assert client.change("deactivate")
        if deep:
            assert client.change("cleanup")

    for _ in range(2):
        cycle(deep=True)
    threads, memory = node.status("Threads"), node.status("VmRSS")
    for _ in range(3):
        cycle(deep=True)
    assert client.change("configure")
    for _ in range(5):
        cycle(deep=False)
    assert client.change("cleanup")
    assert node.status("Threads") <= threads, "no thread is left"
    assert node.status("VmRSS") < memory + 30_000, "less than 30 MB more"
    assert node.alive() and "Traceback" not in node.log(), node.log()


def test_a_configuration_that_fails_leaves_it_unconfigured_with_the_reason(tmp_path: Path) -> None:
    with running_node("-r", "__ns:=/wrong", "-p", f"model:={tmp_path / 'm'}", program=LIFECYCLE) as process:
        with connected("/wrong/radan", "/wrong/image", active=False) as client:
            assert not client.change("configure")
            assert client.state() == "unconfigured"
            reason = client.summary(lambda level, _: level == DiagnosticStatus.ERROR, "an error")
            assert str(tmp_path / "m") in reason and reason in process.log()
            assert not client.change("activate") and "Traceback" not in process.log(), process.log()
            assert client.set(model="")[0].successful and client.change("configure"), "mended"
            client.summary(lambda level, text: level == DiagnosticStatus.OK and text == "inactive", "no error")
            # From inactive; from active and unconfigured below and in main() on a signal.
            assert client.change("shutdown") and client.state() == "finalized"
            client.summary(lambda level, text: text == "finalized", "the end")
            assert process.alive() and process.interrupt()[0] == 0, process.log()


@pytest.mark.parametrize("program", [LIFECYCLE, "radan_node"])
def test_an_interrupt_while_a_model_is_opened_ends_it(tmp_path: Path, program: str) -> None:
    (tmp_path / "configs").mkdir()
    slow = tmp_path / "configs" / "slow.yml"
    os.mkfifo(slow)
    model = Parameter("model", value=str(tmp_path)).to_parameter_msg()
    with running_node("-r", "__ns:=/slow", program=program) as process:
        with connected("/slow/radan", "/slow/image", outputs=(), active=program != LIFECYCLE) as client:
            if program == LIFECYCLE:
                assert client.change("configure")  # it is opened in the executor's thread; else beside it
            setter = client.create_client(SetParameters, "/slow/radan/set_parameters")
            client.wait(setter.service_is_ready, "its parameters")
            setter.call_async(SetParameters.Request(parameters=[model]))
            with contextlib.ExitStack() as stack:

                def opened() -> bool:
                    with contextlib.suppress(OSError):  # nobody reads it yet
                        stack.callback(os.close, os.open(slow, os.O_WRONLY | os.O_NONBLOCK))
                        return True
                    return False

                client.wait(opened, "the model being read")
                status, _ = process.interrupt()  # while nothing comes through the pipe
                assert status == 0 and "Traceback" not in process.log(), process.log()


def test_shutdown_from_active_under_load(astronaut: np.ndarray) -> None:
    with running_node("-r", "__ns:=/ended") as process, camera("/ended/image"):
        with connected("/ended/radan", "/ended/image", outputs=("faces",)) as client:
            answered(client)
            assert client.change("shutdown") and client.state() == "finalized"
            client.wait(lambda: client.count_subscribers("/ended/image") == 0, "the subscription to go")
            assert process.alive() and process.interrupt()[0] == 0
            assert "Traceback" not in process.log(), process.log()


# ------------------------------------------------------------------------------- a node in the test's own process


@pytest.fixture
def inside() -> Iterator[RadanNode]:
    """A node that nobody spins."""
    outermost = not rclpy.ok()
    if outermost:
        rclpy.init()
    made = RadanNode()
    yield made
    made.close()
    made.destroy_node()
    if outermost:
        rclpy.shutdown()


def misconfigure(node: RadanNode, topic: str) -> str:
    """Give a topic's QoS a depth that is no number, as a parameter file may: the parameter's name."""
    name = f"qos_overrides.{node.resolve_topic_name(topic)}.publisher.depth"
    node._parameter_overrides[name] = Parameter(name, value="ten")
    return name


def test_a_fault_of_ours_is_told_and_can_be_recovered_from(inside: RadanNode, monkeypatch: Any) -> None:
    monkeypatch.setattr(inside, "_configure", lambda: {}["fault"])
    assert inside.trigger_configure() == TransitionCallbackReturn.ERROR
    assert "KeyError" in inside._problem and inside._state == "unconfigured"
    assert inside._state_machine.current_state[0] == State.PRIMARY_STATE_UNCONFIGURED


@pytest.mark.parametrize("topic", ["/tf", "~/topology", "~/depth"])
def test_a_configuration_that_fails_halfway_leaves_no_publisher(inside: RadanNode, topic: str) -> None:
    before = [p.topic_name for p in inside.publishers]
    name = misconfigure(inside, topic)
    assert inside.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert name in inside._problem and inside._state == "unconfigured"
    assert [p.topic_name for p in inside.publishers] == before


def test_a_change_that_is_refused_halfway_changes_nothing(inside: RadanNode) -> None:
    inside.set_parameters([Parameter("publish", value=["meshes"])])
    assert inside.start()
    name = misconfigure(inside, "~/depth")
    before = [p.topic_name for p in inside.publishers]
    settings, parts = inside.settings, inside._engine.parts
    tracking = inside._engine.tracker.settings
    result = inside.set_parameters_atomically([
        Parameter("publish", value=["pncc", "depth"]), Parameter("threads", value=1), Parameter("max_faces", value=3)
    ])  # fmt: skip
    assert not result.successful and name in result.reason
    assert [p.topic_name for p in inside.publishers] == before
    assert inside.settings is settings and inside._engine.parts is parts and inside._engine.tracker.settings == tracking


def test_a_parameter_that_ends_in_an_unexpected_error_is_refused(inside: RadanNode, monkeypatch: Any) -> None:
    def broken(*_args: Any, **_options: Any) -> None:
        raise TypeError("a file of another kind")

    assert inside.start()
    monkeypatch.setattr(engine, "open_model", broken)
    result = inside.set_parameters_atomically([Parameter("threads", value=1)])
    assert not result.successful and result.reason == "TypeError: a file of another kind"
    assert inside.working() and inside.get_parameter("threads").value == 0


def test_nothing_holds_a_model_when_the_memory_of_a_gpu_is_freed(inside: RadanNode, monkeypatch: Any) -> None:
    left: list[bool] = []
    monkeypatch.setattr(engine.Engine, "device", "cuda:0")  # all that a deactivated node asks
    monkeypatch.setattr(node_module, "free_gpu", lambda: (engine.free_gpu(), left.append(network() is not None)))
    assert inside.start()
    network = weakref.ref(inside._engine.parts.model.network)
    assert inside.set_parameters_atomically([Parameter("threads", value=1)]).successful
    assert left == [False], "the model of before"
    network = weakref.ref(inside._engine.parts.model.network)
    assert inside.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert left == [False, False], "the model"
    assert inside.trigger_activate() == TransitionCallbackReturn.SUCCESS and inside.working()


def test_a_view_that_fails_is_counted_and_harms_no_other(
    inside: RadanNode, astronaut: np.ndarray, monkeypatch: Any
) -> None:
    def broken(_answer: Any) -> None:
        raise KeyError("a face")

    published: list[Any] = []
    inside.set_parameters([Parameter("publish", value=["meshes", "depth"])])
    assert inside.start()
    meshes, depth = (inside._outputs._views[name] for name in ("meshes", "depth"))
    for view, publish in ((meshes, broken), (depth, published.append)):
        monkeypatch.setattr(view, "wanted", lambda: True)
        monkeypatch.setattr(view, "publish", publish)
    answerer = inside._session.answerer
    arrival = Arrival(Image(height=512, width=512, step=1536, encoding="bgr8", data=astronaut.tobytes()), 0.0)
    inside._session.worker.call(lambda: answerer(arrival))
    assert len(published) == 1 and inside.statistics.counters["processed"] == 1
    assert inside.statistics.counters["bad"] == 1 and "meshes: KeyError" in inside.statistics.last_bad
    assert answerer.newest is published[0]


def test_a_worker_that_is_stuck_is_told_and_blocks_nobody(
    inside: RadanNode, astronaut: np.ndarray, monkeypatch: Any
) -> None:
    goes_on, and_on, said, taken = threading.Event(), threading.Event(), [], []
    monkeypatch.setattr(worker_module, "PATIENCE", 0.2)
    monkeypatch.setattr(node_module, "STUCK", 0.1)
    monkeypatch.setattr(inside._diagnostics, "publish", lambda message: said.append(message.status[0]))
    assert inside.start()
    session = inside._session
    monkeypatch.setattr(session.answerer, "_answer", lambda _: goes_on.wait(20))
    try:
        session.worker.put(Arrival(Image(), 0.0))
        while not session.worker.busy():
            time.sleep(0.01)
        refused = inside.set_parameters_atomically([Parameter("max_faces", value=3)])
        assert not refused.successful and "the worker has been at an image for" in refused.reason
        assert inside.settings.max_faces == inside._engine.tracker.settings.max_faces == 10
        for action in (inside.reset, lambda: inside.pause(True)):
            with pytest.raises(RuntimeError, match="the worker has been at an image for"):
                action()
        assert inside.trigger_deactivate() == TransitionCallbackReturn.FAILURE
        assert inside._session is session, "it is active still"
        assert not session.input.paused, "what is refused changes nothing"
        inside._diagnose()
        assert said[-1].level == DiagnosticStatus.WARN and "at one image for" in said[-1].message
    finally:
        goes_on.set()
    while session.worker.busy():
        time.sleep(0.01)
    inside._diagnose()
    assert "at one image for" not in said[-1].message and inside.settings.max_faces == 10, "given up is given up"
    assert inside.set_parameters_atomically([Parameter("max_faces", value=3)]).successful
    assert inside._engine.tracker.settings.max_faces == 3
    assert session.worker.call(lambda: time.sleep(0.4) or "done") == "done", "once begun, it may take long"
    # An image that waits is not begun any more: it could be the next to take for ever.
    monkeypatch.setattr(worker_module, "PATIENCE", 20.0)
    monkeypatch.setattr(session.answerer, "_answer", lambda arrival: taken.append(arrival) or and_on.wait(20))
    first, second = Arrival(Image(), 1.0), Arrival(Image(), 2.0)
    session.worker.put(first)
    while not taken:
        time.sleep(0.01)
    session.worker.put(second)
    threading.Timer(0.5, and_on.set).start()
    assert inside.trigger_deactivate() == TransitionCallbackReturn.SUCCESS and inside._session is None
    assert taken == [first] and not session.worker.alive()


def test_a_worker_that_is_stuck_does_not_keep_the_node_from_its_shutdown(
    inside: RadanNode, astronaut: np.ndarray, monkeypatch: Any
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(node_module, "LAST_WORK", 0.2)
    assert inside.start()
    session = inside._session
    answer = session.answerer._answer
    monkeypatch.setattr(session.answerer, "_answer", lambda arrival: goes_on.wait(20) and answer(arrival))
    try:
        image = Image(height=512, width=512, step=1536, encoding="bgr8", data=astronaut.tobytes())
        session.worker.put(Arrival(image, 0.0))
        while not session.worker.busy():
            time.sleep(0.01)
        assert inside.trigger_shutdown() == TransitionCallbackReturn.SUCCESS and inside._engine is None
        assert session.worker.alive()
    finally:
        goes_on.set()
    # What comes of it after all is nobody's business any more.
    assert session.worker.stop(20) and session.answerer.newest is None
    assert not inside.statistics.counters["processed"] and not inside.statistics.counters["bad"]


def test_rendering_goes_to_the_cpu_where_a_gpu_fails_at_its_first_picture(monkeypatch: Any, builtin: Model) -> None:
    class Broken(engine.Renderer):
        def render(self, *args: Any, **options: Any) -> Any:
            if self.asked != "cpu":
                raise TypeError("its compiler is not there")
            return super().render(*args, **options)

        def __init__(self, *args: Any, device: str) -> None:
            super().__init__(*args)
            self.asked = device

    class Elsewhere:
        device = "cuda:0"
        run = builtin.network.run

    monkeypatch.setattr(engine, "Renderer", Broken)
    monkeypatch.setattr(engine, "open_model", lambda *_args, **_options: replace(builtin, network=Elsewhere()))
    logger = rclpy.logging.get_logger("test")
    _, renderer = engine._open_model(Settings(), logger)
    assert renderer.asked == "cpu"
    with pytest.raises(ValueError, match="renderer on cuda:0: its compiler"):
        engine._open_model(Settings(device="cuda:0"), logger)


# --------------------------------------------------------------------------------- an active node among cameras


@pytest.fixture(scope="module")
def active() -> Iterator[Process]:
    with running_node("-r", "__ns:=/live", "-p", "camera_timeout:=1.6", *AT_ONCE) as process:
        yield process
        assert process.alive() and "Traceback" not in process.log(), process.log()


@pytest.fixture(scope="module")
def live(active: Process) -> Iterator[Client]:
    with connected("/live/radan", "/live/image", outputs=("faces", "meshes")) as found:
        yield found


def test_a_camera_that_never_came_stops_or_comes_back_is_told(active: Process, live: Client, astronaut: Any) -> None:
    live.summary(lambda level, text: level == DiagnosticStatus.WARN and "/live/image" in text, "no camera yet")

    def well() -> bool:
        return live.ask(live.image(astronaut)) and live.status() == DiagnosticStatus.OK

    live.wait(well, "all well")
    live.summary(lambda level, text: level == DiagnosticStatus.WARN and "no image on" in text, "a silent camera")
    live.diagnostics(lambda v: v["faces"] == "0", "faces taken from the views")
    live.wait(well, "all well again")
    assert "images come again" in active.log()


def test_reset_forgets_the_faces(live: Client, astronaut: Any, tmp_path: Path) -> None:
    [before] = live.ask(live.image(astronaut))["faces"].faces
    [again] = live.ask(live.image(astronaut))["faces"].faces
    assert again.id == before.id
    assert live.call(Trigger, "reset").success
    answer = live.call(SaveMeshes, "save_meshes", folder=str(tmp_path))
    assert not answer.success and "forgotten" in answer.message
    [after] = live.ask(live.image(astronaut))["faces"].faces
    assert after.id > before.id, "an id is never given twice"


def test_a_paused_node_counts_images_and_answers_none(live: Client, astronaut: Any) -> None:
    live.ask(live.image(astronaut))
    try:
        answer = live.call(SetBool, "pause", data=True)
        assert answer.success and answer.message == "paused"
        before = live.diagnostics(lambda v: v["state"] == "paused" and v["faces"] == "0", "its state")
        answers = len(live.received["faces"])
        for count in (1, 2):
            live.images.publish(live.image(astronaut))
            wanted = int(before["paused"]) + count
            values = live.diagnostics(lambda v, n=wanted: int(v["paused"]) >= n, "a counted image")
        assert values["processed"] == before["processed"] and len(live.received["faces"]) == answers
        assert live.status() == DiagnosticStatus.OK, "a paused node does not wait for the camera"
    finally:
        assert live.call(SetBool, "pause", data=False).success
    assert len(live.ask(live.image(astronaut))["faces"].faces) == 1


@pytest.fixture
def patient(live: Client) -> Iterator[None]:
    """The last answer is kept however long no image comes."""
    assert live.set(camera_timeout=0.0)[0].successful
    yield
    assert live.set(camera_timeout=1.6)[0].successful


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", READERS)
def test_meshes_are_saved_as_they_were_published(live: Client, couple: Any, tmp_path: Path, name: str) -> None:
    message = live.image(couple)
    published = live.ask(message, ("meshes",))["meshes"].meshes
    stamp = message.header.stamp
    answer = live.call(SaveMeshes, "save_meshes", folder=str(tmp_path / "new" / "folder"), format=name)
    assert answer.success, answer.message
    expected = [f"face_{mesh.id}_{stamp.sec * 10**9 + stamp.nanosec}.{name}" for mesh in published]
    assert sorted(Path(path).name for path in answer.files) == sorted(expected) and len(expected) == 2
    assert all(Path(path).parent == tmp_path / "new" / "folder" for path in answer.files)
    topology = live.topology()
    for mesh, path in zip(published, answer.files, strict=True):
        vertices, triangles, colours = READERS[name](Path(path))
        in_camera = np.asarray(mesh.vertices).reshape(-1, 3)
        assert np.allclose(vertices * [1, -1, -1], in_camera, atol=1e-6), "upright: y up, z to the viewer"
        assert np.array_equal(triangles, np.asarray(topology.triangles).reshape(-1, 3))
        red, _, blue = colours[topology.landmarks[30]]  # the tip of the nose
        assert red > blue + 20, "the colour of skin, red first"


@pytest.mark.usefixtures("patient")
def test_what_cannot_be_saved_is_said(live: Client, astronaut: Any, tmp_path: Path) -> None:
    live.ask(live.image(astronaut))
    file = tmp_path / "file"
    file.write_text("")
    for folder, name, words in ((tmp_path, "stl", "stl"), (file, "ply", str(file)), (file / "below", "", str(file))):
        answer = live.call(SaveMeshes, "save_meshes", folder=str(folder), format=name)
        assert not answer.success and words in answer.message and not answer.files
    live.ask(live.image(np.zeros((64, 64, 3), np.uint8)))
    answer = live.call(SaveMeshes, "save_meshes", folder=str(tmp_path))
    assert not answer.success and "no face" in answer.message


def test_a_camera_info_of_another_frame_is_said_once(active: Process, live: Client, astronaut: Any) -> None:
    from test_node import camera_info

    info = camera_info(512, 512, 500.0)
    info.header.frame_id = "another_frame"
    live.infos.publish(info)
    live.wait(lambda: live.ask(live.image(astronaut))["faces"].metric, "the calibration in use")
    for _ in range(3):
        assert live.ask(live.image(astronaut))["faces"].header.frame_id == "camera_optical_frame"
    assert active.log().count("another_frame") == 1


def test_a_late_subscriber_gets_pictures_from_then_on(live: Client, astronaut: Any) -> None:
    early = live.ask(live.image(astronaut))["faces"]
    assert live.count_subscribers("/live/radan/depth") == 0
    values = live.diagnostics(lambda v: int(v["processed"]) > 0, "an answer")
    assert values["rendered"] == "0", "no picture is made for nobody"
    live.ask(live.image(astronaut))  # the early one is then done with
    live.listen("depth", OUTPUTS["depth"], "/live/radan/depth")
    depth = live.ask(live.image(astronaut), ("faces", "depth"))["depth"]
    assert np.asarray(depth.data).size == 4 * 512 * 512
    assert all(m.header.stamp != early.header.stamp for m in live.received["depth"])


def test_two_cameras_have_a_node_each(astronaut: np.ndarray, couple: np.ndarray) -> None:
    with running_node("-r", "__ns:=/left", *AT_ONCE), running_node("-r", "__ns:=/right", *AT_ONCE):
        with (
            connected("/left/radan", "/left/image", outputs=("faces",)) as left,
            connected("/right/radan", "/right/image", outputs=("faces",)) as right,
        ):
            for _ in range(3):
                mine, other = left.image(astronaut), right.image(couple)
                left.images.publish(mine)
                assert len(right.ask(other)["faces"].faces) == 2
                assert len(left.ask(mine)["faces"].faces) == 1
            for client, own in ((left, mine), (right, other)):
                answers = {(m.height, m.width) for m in client.received["faces"]}
                assert answers == {(own.height, own.width)}, "nothing of the other camera"


# ---------------------------------------------------------------------------------------------- compressed images


def test_compressed_images_are_answered_as_raw_ones(astronaut: np.ndarray) -> None:
    grey = cv2.cvtColor(astronaut, cv2.COLOR_BGR2GRAY)
    cases = [
        ("bgr8; jpeg compressed bgr8", ".jpg", astronaut),
        ("rgb8; jpeg compressed bgr8", ".jpg", astronaut),
        ("jpeg", ".jpg", astronaut),
        ("rgb8; png compressed rgb8", ".png", astronaut[..., ::-1]),
        ("mono8; jpeg compressed ", ".jpg", grey),
        ("mono16; png compressed ", ".png", grey.astype(np.uint16) * 257),
        ("bgra8; png compressed bgra8", ".png", np.dstack([astronaut, grey])[..., [2, 1, 0, 3]]),
    ]
    remaps = ("-r", "__ns:=/small", "-r", "image:=/small/cam/image_raw")
    with running_node(*remaps, "-p", "image_transport:=compressed", *AT_ONCE) as process:
        with connected("/small/radan", "/small/cam/image_raw", outputs=("faces",), active=False) as client:
            client.images = client.create_publisher(CompressedImage, "/small/cam/image_raw/compressed", 5)
            client.wait(client.images.get_subscription_count, "the node's subscription")
            assert client.count_subscribers("/small/cam/image_raw") == 0

            def message(name: str, data: bytes) -> CompressedImage:
                return CompressedImage(header=client.image(grey).header, format=name, data=data)

            landmarks = []
            for name, suffix, pixels in cases:
                asked = message(name, cv2.imencode(suffix, pixels)[1].tobytes())
                answer = client.ask(asked)["faces"]
                assert answer.header == asked.header and (answer.height, answer.width) == (512, 512)
                [face] = answer.faces
                landmarks.append(np.asarray(face.landmarks_px))
            assert np.abs(np.array(landmarks) - landmarks[0]).max() < 12, "dlib's boxes move a little with the colours"
            png = cv2.imencode(".png", astronaut)[1].tobytes()
            bad = {
                "no JPEG or PNG": message("jpeg", b"not a picture"),
                "0 bytes": message("png", b""),
                "depth image": message("16UC1; compressedDepth", png),
                "does not fit": message(
                    "bayer_rggb8; png compressed bgra8", cv2.imencode(".png", cases[-1][2])[1].tobytes()
                ),
            }
            for words, wrong in bad.items():
                client.images.publish(wrong)
                client.wait(lambda words=words: words in process.log(), words)
            values = client.diagnostics(lambda v: int(v["bad"]) == len(bad), "all counted")
            assert words in values["last_bad_message"] and "image_raw/compressed" in values["last_bad_message"]
            assert len(client.ask(message("png", png))["faces"].faces) == 1 and process.alive()
