"""The node's parameters: what ROS is told of them, and what changes do to a node that works."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("radan_ros.msg", reason="needs ROS and the built package: make test")
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.srv import DescribeParameters
from rclpy.parameter import Parameter
from ros_client import AT_ONCE, LATCHED, Client, Process, camera, connected, running_node

from radan_ros import Model, Pipeline
from radan_ros.ros.parameters import OUTPUTS, Settings, changed
from radan_ros.ros.subscriptions import RateLimit

CONFIG = Path(__file__).resolve().parents[1] / "config" / "radan.yaml"


def test_the_configuration_file_holds_all_parameters_with_their_defaults() -> None:
    values = yaml.safe_load(CONFIG.read_text())["/**"]["ros__parameters"]
    defaults = Settings()
    assert set(values) == {field.name for field in fields(Settings)}
    for name, value in values.items():
        default = getattr(defaults, name)
        assert type(value) is (list if isinstance(default, tuple) else type(default)), name
        assert (tuple(value) if isinstance(value, list) else value) == default, name


def test_settings_change_as_a_whole_or_not_at_all() -> None:
    before = Settings()
    after = changed(before, [Parameter("max_faces", value=3), Parameter("use_sim_time", value=True)])
    assert after.max_faces == 3 and before.max_faces == 10, "others are not ours, and the old settings stay"
    for name, value, words in [
        ("smoothing", math.nan, "smoothing is nan"),
        ("detector", "magic", "magic"),
        ("publish", ["meshes", "smoke"], "smoke"),
        ("image_transport", "theora", "theora"),
    ]:
        with pytest.raises(ValueError, match=words):
            changed(before, [Parameter("max_faces", value=3), Parameter(name, value=value)])


def test_an_empty_name_publishes_nothing() -> None:
    assert changed(Settings(), [Parameter("publish", value=[""])]).publish == ()


@pytest.mark.parametrize(("rate", "kept"), [(0.0, 300), (10.0, 100), (20.0, 200), (29.0, 290), (100.0, 300)])
def test_a_rate_limit_keeps_its_rate_on_the_average(rate: float, kept: int) -> None:
    limit = RateLimit(rate)
    jitter = [0.002 * math.sin(1.7 * k) for k in range(300)]
    taken = [k for k in range(300) if not limit.skips(1e9 + k / 30 + jitter[k])]
    assert abs(len(taken) - kept) <= 0.02 * kept


def test_a_rate_limit_lets_standing_and_looped_stamps_through() -> None:
    limit = RateLimit(1.0)
    assert [limit.skips(0.0) for _ in range(5)] == [False] * 5
    assert [limit.skips(t) for t in (100.0, 100.1, 5.0, 5.1)] == [False, True, False, True]


# ------------------------------------------------------------------------------------------- a node that works


@pytest.fixture(scope="module")
def node() -> Iterator[Process]:
    with running_node("-r", "__ns:=/tuned", "-p", "device:=cpu") as process:
        yield process
        assert process.alive(), process.log()
        status, _ = process.interrupt()
        assert status == 0 and "Traceback" not in process.log(), process.log()


@pytest.fixture(scope="module")
def load(node: Process) -> Iterator[None]:
    """A camera at 30 Hz."""
    with camera("/tuned/image"):
        yield


@pytest.fixture(scope="module")
def client(load: None) -> Iterator[Client]:
    with connected("/tuned/radan", "/tuned/image", outputs=("faces",)) as found:
        found.wait(lambda: faces_of(found), "a face")
        yield found


def faces_of(client: Client) -> list[Any]:
    return client.received["faces"][-1].faces if client.received["faces"] else []


def stamps(client: Client, first: int) -> list[float]:
    """Stamps of the answers from one on, seconds."""
    return [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in client.received["faces"][first:]]


def after(client: Client, condition: Any, what: str) -> Any:
    """The first answer from now on for which a condition holds."""
    seen = len(client.received["faces"])

    def new() -> Any:
        return next((m for m in client.received["faces"][seen:] if condition(m)), None)

    return client.wait(new, what)


def test_every_parameter_is_described(client: Client) -> None:
    names = [field.name for field in fields(Settings)]
    descriptors = client.call(DescribeParameters, "describe_parameters", names=names).descriptors
    for descriptor, value in zip(descriptors, client.get(*names), strict=True):
        assert len(descriptor.description) > 15, descriptor.name
        ranges = descriptor.floating_point_range or descriptor.integer_range
        assert bool(ranges) == (isinstance(value, int | float) and not isinstance(value, bool)), descriptor.name
        assert not descriptor.read_only or "Read-only: " in descriptor.description, "and says why"
    assert {d.name for d in descriptors if d.read_only} == {"frame_prefix", "image_transport"}


def test_wrong_values_are_refused_with_a_reason_and_change_nothing(client: Client, tmp_path: Path) -> None:
    cases: dict[str, tuple[Any, str]] = {
        "detector": ("magic", "magic"),
        "model": ("/nowhere", "/nowhere does not exist"),
        "device": ("cuda:77", "cuda:77"),
        "detector_min_face": (7, "detector_min_face"),
        "max_faces": (0, "max_faces"),
        "min_confidence": (1.5, "min_confidence"),
        "smoothing": (math.nan, "smoothing"),
        "detection_period": ("often", "type"),
        "publish": (["meshes", "smoke"], "smoke"),
        "frame_prefix": ("left_", "read-only"),
        "image_transport": ("compressed", "read-only"),
    }
    before = client.get(*cases)
    for name, (value, words) in cases.items():
        [result] = client.set(**{name: value})
        assert not result.successful and words in result.reason, (name, result.reason)
    broken = tmp_path / "model.yaml"
    broken.write_text("name: x\nnetwork: none.pth\nwhitening: w.npz\nface_model: f.npz\n")
    [result] = client.set(model=str(tmp_path))
    assert not result.successful and "none.pth" in result.reason
    assert client.get(*cases) == before
    after(client, lambda m: m.faces, "the face, still")


def test_a_change_of_several_parameters_is_applied_whole_or_not(client: Client) -> None:
    refused = client.set_atomically(max_rate=5.0, detector="magic")
    assert not refused.successful and "magic" in refused.reason
    assert client.get("max_rate", "detector") == [0.0, "dlib_hog"]
    first = len(client.received["faces"]) + 1  # the last one of before may still be on its way
    client.wait(lambda: len(client.received["faces"]) > first + 5, "answers")
    seconds = stamps(client, first)
    assert min(b - a for a, b in zip(seconds, seconds[1:], strict=False)) < 0.19, "not at 5 Hz"
    accepted = client.set_atomically(max_faces=4, smoothing=0.5, retain=1.0, detection_period=0.25)
    assert accepted.successful, accepted.reason
    assert client.get("max_faces", "smoothing", "retain", "detection_period") == [4, 0.5, 1.0, 0.25]
    after(client, lambda m: m.faces, "the face")


def test_the_model_is_opened_before_it_is_taken_while_images_are_answered(client: Client, small_model: Path) -> None:
    [face] = faces_of(client)
    got: list[Any] = []
    subscription = client.create_subscription(type(client.topology()), "/tuned/radan/topology", got.append, LATCHED)
    client.wait(lambda: got, "the topology of now")
    for model, name in ((str(small_model), "half_ellipsoid"), ("", "radan")):
        [result] = client.set(model=model)
        assert result.successful, result.reason
        client.wait(lambda name=name: got[-1].model == name, f"the topology of {name}")
        answer = after(client, lambda m, name=name: m.model == name, f"answers with {name}")
        assert answer.version == got[-1].version
    again = after(client, lambda m: m.faces, "the face").faces[0]
    assert again.id > face.id, "tracks begin anew"
    client.destroy_subscription(subscription)
    assert client.status() == DiagnosticStatus.OK


def test_the_rate_limit_skips_images_before_any_work(client: Client) -> None:
    before = client.diagnostics(lambda v: float(v["rate_in"]) > 0, "images")
    assert client.set(max_rate=5.0)[0].successful
    first = len(client.received["faces"]) + 1  # the last one of before may still be on its way
    client.wait(lambda: len(client.received["faces"]) > first + 5, "answers")
    seconds = stamps(client, first)
    assert min(b - a for a, b in zip(seconds, seconds[1:], strict=False)) > 0.15
    client.diagnostics(lambda v: int(v["skipped"]) > int(before["skipped"]), "skipped images")
    assert client.set(max_rate=0.0)[0].successful
    after(client, lambda m: m.faces, "the face")


def test_a_higher_rate_does_not_wait_for_the_old_period_to_end(client: Client) -> None:
    skipped = int(client.diagnostics(lambda v: True, "anything")["skipped"])
    assert client.set(max_rate=0.1)[0].successful
    client.diagnostics(lambda v: int(v["skipped"]) > skipped + 3, "skipped images")
    last = len(client.received["faces"]) - 1
    assert client.set(max_rate=30.0)[0].successful
    client.wait(lambda: len(client.received["faces"]) > last + 3, "answers")
    seconds = stamps(client, last)
    assert max(b - a for a, b in zip(seconds, seconds[1:], strict=False)) < 6, "not 10 s"
    assert client.set(max_rate=0.0)[0].successful
    after(client, lambda m: m.faces, "the face")


def test_outputs_come_and_go(client: Client) -> None:
    assert client.count_publishers("/tuned/radan/meshes") == 1
    assert client.set(publish=["depth"])[0].successful
    client.wait(lambda: client.count_publishers("/tuned/radan/meshes") == 0, "the meshes to go")
    assert client.count_publishers("/tuned/radan/depth") == 1 and client.count_publishers("/tuned/radan/faces") == 1
    assert client.set(publish=[""])[0].successful
    client.wait(lambda: client.count_publishers("/tuned/radan/depth") == 0, "the depth to go")
    assert client.set(publish=list(OUTPUTS))[0].successful
    client.wait(lambda: client.count_publishers("/tuned/radan/meshes") == 1, "the meshes to come back")
    assert client.get("publish") == [list(OUTPUTS)]


def test_no_face_is_sure_enough_for_a_confidence_of_one(client: Client, builtin: Model, astronaut: Any) -> None:
    if math.isnan(Pipeline(builtin).regress(astronaut, [[150, 60, 300, 210]])[0].confidence):
        pytest.skip("the model tells no confidence")
    assert client.set(min_confidence=1.0)[0].successful
    after(client, lambda m: not m.faces, "an image without faces")
    assert client.set(min_confidence=0.5)[0].successful
    after(client, lambda m: m.faces, "the face again")


def test_the_field_of_view_changes_the_distance(astronaut: Any) -> None:
    with (
        running_node("-r", "__ns:=/lens", *AT_ONCE),
        connected("/lens/radan", "/lens/image", outputs=("faces",)) as client,
    ):

        def distance() -> float:
            return client.ask(client.image(astronaut))["faces"].faces[0].pose.pose.position.z

        wide = distance()
        assert client.set(assumed_field_of_view=30.0)[0].successful
        assert distance() > 1.8 * wide
