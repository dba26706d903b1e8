"""Markers, coloured points and overlay: what they show is what the node says of the faces, and nothing else."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("radan_ros.msg", reason="needs this package's messages: make build")

from geometry_msgs.msg import Point  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from ros_client import AT_ONCE, PATIENCE, Client, connected, running_node  # noqa: E402
from sensor_msgs.msg import Image, PointCloud2, PointField  # noqa: E402
from std_msgs.msg import ColorRGBA, Header  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from radan_ros import CameraModel, Model, Pipeline  # noqa: E402
from radan_ros.face_models import FaceModel  # noqa: E402
from radan_ros.metric import metric_face  # noqa: E402
from radan_ros.rendering import render  # noqa: E402
from radan_ros.ros import views  # noqa: E402
from radan_ros.ros.answer import Answer  # noqa: E402
from radan_ros.ros.outputs import Outputs  # noqa: E402
from radan_ros.ros.parameters import Settings  # noqa: E402
from radan_ros.tools.play import camera_info  # noqa: E402

FIELD_OF_VIEW = np.radians(30)
KINDS = {"mesh", "axes", "landmarks", "ids"}


# --------------------------------------------------------------------------------------------- the real node


@pytest.fixture(scope="module")
def node() -> Iterator[Any]:
    """A node that publishes a face at once, and forgets it at once."""
    with running_node("-r", "__ns:=/views", "-p", "device:=cpu", "-p", "retain:=0.0", *AT_ONCE) as process:
        yield process
        assert process.alive() and "Traceback" not in process.log(), process.log()


@pytest.fixture
def client(node: Any) -> Iterator[Client]:
    with connected("/views/radan", "/views/image", outputs=("faces", "meshes")) as found:
        found.received |= {"points": [], "overlay": [], "markers": []}
        found.listen("points", PointCloud2, "/views/radan/points")
        found.listen("overlay", Image, "/views/radan/overlay")
        take = found.received["markers"].append
        # Serialised: rclpy takes half a second to unpack those that no test looks at.
        found.create_subscription(MarkerArray, "/views/radan/markers", take, 50, raw=True)
        yield found


def _answers(client: Client, pixels: np.ndarray) -> tuple[Any, dict[str, Any], MarkerArray]:
    """An image, calibrated, with all that the node says of it."""
    info = camera_info(pixels.shape[:2], FIELD_OF_VIEW, "head_camera")
    client.wait(lambda: client.infos.publish(info) or _calibrated(client, pixels), "an answer in metres")
    client.received["markers"].clear()
    message = client.image(pixels, frame="head_camera")
    answers = client.ask(message, ("faces", "meshes", "points", "overlay"))
    client.wait(lambda: client.received["markers"], "markers")
    return message, answers, deserialize_message(client.received["markers"][-1], MarkerArray)


def _calibrated(client: Client, pixels: np.ndarray) -> bool:
    return bool(client.ask(client.image(pixels, frame="head_camera"))["faces"].metric)


def _array(points: list[Any], names: str = "xyz") -> np.ndarray:
    return np.array([[getattr(point, name) for name in names] for point in points])


def _cloud(message: PointCloud2) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 3) and their colours (P, 3), BGR, as PCL reads them."""
    assert [(f.name, f.offset, f.datatype, f.count) for f in message.fields] == [
        (name, 4 * k, PointField.FLOAT32, 1) for k, name in enumerate(("x", "y", "z", "rgb"))
    ]
    assert (message.height, message.row_step, message.point_step) == (1, 16 * message.width, 16)
    assert message.is_dense and not message.is_bigendian and len(message.data) == message.row_step
    values = np.frombuffer(message.data, "<f4").reshape(-1, 4)
    packed = values[:, 3].copy().view(np.uint32)
    return values[:, :3], np.stack([packed & 255, packed >> 8 & 255, packed >> 16 & 255], axis=1)


def _project(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return CameraModel.from_field_of_view(size, FIELD_OF_VIEW).project(points)


def test_markers_are_the_mesh_the_landmarks_the_pose_and_the_id(client: Client, couple: np.ndarray) -> None:
    message, answers, array = _answers(client, couple)
    triangles = np.asarray(client.topology().triangles)
    faces, meshes = answers["faces"].faces, answers["meshes"].meshes
    assert len(faces) == 2
    by_face = {(m.ns, m.id): m for m in array.markers if m.action == Marker.ADD}
    assert set(by_face) == {(kind, face.id) for kind in KINDS for face in faces}
    for marker in array.markers:
        assert marker.header == message.header
        assert marker.action == Marker.DELETE or marker.lifetime.sec > 0
    for face, mesh in zip(faces, meshes, strict=True):
        shown = by_face["mesh", face.id]
        vertices = np.asarray(mesh.vertices, np.float32).reshape(-1, 3)
        assert shown.type == Marker.TRIANGLE_LIST and (_array([shown.scale]) == 1).all()
        assert (_array([shown.pose.position]) == 0).all() and shown.pose.orientation.w == 1
        assert np.array_equal(_array(shown.points), vertices[triangles])
        colours = _array(shown.colors, "rgba")
        assert (
            len(colours) == len(triangles) and colours.min() >= 0 and colours.max() <= 1 and (colours[:, 3] == 1).all()
        )
        assert np.ptp(colours[:, 0]) > 0.3, "lit: viewers do not light coloured triangles"
        assert np.array_equal(_array(by_face["landmarks", face.id].points), np.reshape(face.landmarks, (68, 3)))
        axes = _array(by_face["axes", face.id].points).reshape(3, 2, 3)
        position = _array([face.pose.pose.position])[0]
        assert np.allclose(axes[:, 0], position) and by_face["axes", face.id].type == Marker.LINE_LIST
        along = (axes[:, 1] - axes[:, 0]) / np.linalg.norm(axes[:, 1] - axes[:, 0], axis=1, keepdims=True)
        assert np.allclose(along @ along.T, np.eye(3), atol=1e-9) and np.linalg.det(along) > 0
        assert along[0, 2] < -0.7, "x out of the face, to the camera"
        assert by_face["ids", face.id].text == f"face {face.id}"
        text = _array([by_face["ids", face.id].pose.position])[0]
        assert along[2] @ (text - position) > 0.1, "above the forehead"


def test_points_have_the_colours_of_the_image_where_they_are_seen(client: Client, couple: np.ndarray) -> None:
    message, answers, _ = _answers(client, couple)
    points, colours = _cloud(answers["points"])
    assert answers["points"].header == message.header
    vertices = np.concatenate([np.reshape(mesh.vertices, (-1, 3)) for mesh in answers["meshes"].meshes])
    assert 0.5 * len(vertices) < len(points) < 0.95 * len(vertices), "a face hides a part of itself"
    index = {tuple(vertex): k for k, vertex in enumerate(vertices.astype(np.float32))}
    assert all(tuple(point) in index for point in points)
    columns, rows = np.rint(_project(points, couple.shape[:2])).astype(int).T
    assert np.array_equal(colours, couple[rows, columns])


def test_the_overlay_is_the_image_but_for_the_faces(client: Client, couple: np.ndarray) -> None:
    message, answers, _ = _answers(client, couple)
    overlay = answers["overlay"]
    assert overlay.header == message.header and overlay.encoding == "bgr8"
    picture = np.frombuffer(overlay.data, np.uint8).reshape(couple.shape)
    changed = (picture != couple).any(axis=2)
    far = np.ones_like(changed)
    for face in answers["faces"].faces:
        left, top, right, bottom = (int(v) for v in face.box)
        reach = right - left
        far[max(0, top - reach) : bottom + reach // 2, max(0, left - reach) : right + reach] = False
        far[max(0, top - reach) : top, left:] = False  # the label, which begins above the face
        inside = changed[top:bottom, left:right]
        assert inside.mean() > 0.6, "the tint of the mesh"
    assert not changed[far].any() and far.mean() > 0.2


def test_markers_of_a_face_that_is_gone_are_deleted_once(client: Client, astronaut: np.ndarray) -> None:
    _, answers, array = _answers(client, astronaut)
    number = answers["faces"].faces[0].id
    assert {m.id for m in array.markers if m.action == Marker.ADD} == {number}
    client.received["markers"].clear()
    empty = np.full_like(astronaut, 90)

    def gone() -> Any:
        answers = client.ask(client.image(empty), ("faces", "points", "overlay"))
        return None if answers["faces"].faces else answers

    def deleted() -> list[tuple[str, int]]:
        small = (raw for raw in client.received["markers"] if len(raw) < 100_000)  # without a mesh
        arrays = [deserialize_message(raw, MarkerArray).markers for raw in small]
        return sorted((m.ns, m.id) for markers in arrays for m in markers if m.action == Marker.DELETE)

    answers = client.wait(gone, "an image without the face")
    assert answers["points"].width == 0
    assert np.array_equal(np.frombuffer(answers["overlay"].data, np.uint8), empty.ravel())
    client.wait(deleted, "the deletion of its markers")
    before = len(client.received["markers"])
    gone()
    client.wait(lambda: len(client.received["markers"]) > before, "the next markers")
    assert deleted() == sorted((kind, number) for kind in KINDS)


# ------------------------------------------------------------------------------- the views in this process


@pytest.fixture
def ros() -> Iterator[Any]:
    """A node named radan, its executor, and a function that spins until something holds."""
    context = rclpy.Context()
    rclpy.init(context=context)
    made = rclpy.create_node("radan", context=context, namespace="/views_here")
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(made)

    def wait(condition: Callable[[], Any], what: str) -> None:
        until = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < until, f"waited in vain for {what}"
            executor.spin_once(timeout_sec=0.02)

    yield made, wait
    executor.shutdown()
    made.destroy_node()
    context.try_shutdown()


@pytest.fixture
def answer(builtin: Model, astronaut: np.ndarray) -> Answer:
    """An answer that nobody has looked at yet."""
    from radan_ros.tracking import Track

    face = Pipeline(builtin)(astronaut, [[170, 60, 280, 180]])[0]
    camera = CameraModel.from_field_of_view(astronaut.shape[:2], FIELD_OF_VIEW)
    metric = metric_face(face, builtin.face_model, camera)
    fields = {name: None for name in Track.__dataclass_fields__} | {"id": 7, "face": face}
    track = Track(**fields)
    return Answer.of(Header(frame_id="eye"), astronaut, camera, builtin.face_model, [track], [metric])


def test_nothing_is_computed_for_views_that_nobody_sees(ros: Any, answer: Answer) -> None:
    node, wait = ros
    outputs = Outputs(node, Settings())
    computed = {"vertices", "vertices_in_image", "rendering"}
    outputs.publish_views(answer)
    assert not computed & set(vars(answer))
    heard: dict[str, list[Any]] = {"overlay": [], "points": [], "markers": []}
    subscription = node.create_subscription(Image, "/views_here/radan/overlay", heard["overlay"].append, 5)
    wait(lambda: outputs.publish_views(answer) or heard["overlay"], "an overlay")
    assert computed & set(vars(answer)) == {"vertices", "vertices_in_image"}, "no depth for an overlay"
    node.destroy_subscription(subscription)
    for name, kind in (("points", PointCloud2), ("markers", MarkerArray)):
        node.create_subscription(kind, f"/views_here/radan/{name}", heard[name].append, 5, raw=True)
        wait(lambda name=name: outputs.publish_views(answer) or heard[name], name)
    outputs.destroy()


def test_what_is_on_show_is_taken_back_once(ros: Any, answer: Answer) -> None:
    node, wait = ros
    shown: list[MarkerArray | PointCloud2] = []
    for view, kind, topic in ((views.Markers, MarkerArray, "markers"), (views.Cloud, PointCloud2, "points")):
        output = view(node)
        node.create_subscription(kind, f"/views_here/radan/{topic}", shown.append, 50)
        wait(output.wanted, topic)
        output.clear()  # nothing is on show yet
        output.publish(answer)
        output.clear()
        output.clear()
        output.publish(answer)
        wait(lambda: len(shown) >= 3, "three messages")
        first, cleared, again = shown
        if kind is MarkerArray:
            assert [m.action for m in cleared.markers] == [Marker.DELETEALL]
            assert {m.action for m in first.markers} == {m.action for m in again.markers} == {Marker.ADD}
        else:
            assert cleared.width == 0 < first.width == again.width and cleared.header == first.header
        shown.clear()
        output.destroy()


# ----------------------------------------------------------------------------------------- exact constructions


@pytest.mark.parametrize("length", range(9))
def test_serialised_markers_are_what_rclpy_makes_of_them(length: int) -> None:
    # Lengths of texts before and after the meshes move everything behind them.
    random = np.random.default_rng(length)
    meshes, plain, quick = [], MarkerArray(), MarkerArray()
    for number, count in enumerate((3, 300, 3)):
        points, colours = random.normal(size=(count, 3)), random.uniform(size=(count, 4)).astype(np.float32)
        meshes.append((points, colours))
        for array in (plain, quick):
            header = Header(frame_id="f" * length)
            pose = type("Pose", (), {"translation": np.ones(3), "rotation": np.eye(3)})
            made = views._face_markers(header, number, np.ones(3), pose, np.zeros((68, 3)))
            made[0].text = "t" * (length // 2)
            array.markers += [*made, Marker(ns="n" * number, action=Marker.DELETE)]
        mesh = plain.markers[-5]
        mesh.points = [Point(x=x, y=y, z=z) for x, y, z in points.tolist()]
        mesh.colors = [ColorRGBA(r=r, g=g, b=b, a=a) for r, g, b, a in colours.tolist()]
    ours, theirs = views.serialised(quick, meshes), serialize_message(plain)
    assert len(ours) == len(theirs)  # what pads them is arbitrary
    assert deserialize_message(ours, MarkerArray) == deserialize_message(theirs, MarkerArray)


def test_markers_that_are_serialised_in_another_way_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_PLACEHOLDER", struct.pack(">I3dI4f", 1, 1, 2, 3, 1, 1, 2, 3, 4))
    with pytest.raises(RuntimeError, match="leave 'markers' out of publish"):
        views.serialised(MarkerArray(markers=[Marker()]), [(np.zeros((3, 3)), np.zeros((3, 4), np.float32))])


@pytest.mark.parametrize("most", [20_000, 5000, 300])
def test_a_mesh_with_fewer_triangles_is_the_same_surface(most: int, builtin: Model) -> None:
    face_model = builtin.face_model
    kept, triangles = views.fewer_triangles(face_model.mean, face_model.triangles, most)
    points = face_model.mean[kept]
    assert most / 2 < len(triangles) <= most and len(np.unique(kept)) == len(kept)
    assert np.unique(triangles).max() < len(kept) and (np.diff(np.sort(triangles, axis=1), axis=1) > 0).all()
    assert np.array_equal(triangles, views.fewer_triangles(face_model.mean, face_model.triangles, most)[1])
    # Seen from the front: no holes, and as deep as before but for the size of a triangle.
    place = np.array([[800.0, 0, 0], [0, -800, 0], [0, 0, -1]])
    middle = np.array([100, 120, 0]) - (face_model.mean.min(axis=0) + face_model.mean.max(axis=0)) / 2 @ place
    size = (240, 200)
    before, after = (
        render([(mesh @ place + middle).astype(np.float32)], faces, np.zeros((len(mesh), 3)), size, colour=False).depth
        for mesh, faces in ((face_model.mean, face_model.triangles), (points, triangles))
    )
    edge = np.ptp(points, axis=0).max() / np.sqrt(most) * 3
    assert (np.isfinite(before) & ~np.isfinite(after)).mean() < 0.01 + edge
    assert np.nanmean(np.abs(before - after)) < edge


def test_a_mesh_of_few_triangles_stays_as_it_is(small_face: FaceModel) -> None:
    kept, triangles = views.fewer_triangles(small_face.mean, small_face.triangles, len(small_face.triangles))
    assert np.array_equal(kept, np.arange(len(small_face.mean))) and np.array_equal(triangles, small_face.triangles)


def test_seen_are_the_vertices_in_the_image_that_nothing_hides() -> None:
    def sheet(left: float, right: float, depth: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        x, y = (v.ravel() for v in np.meshgrid(np.linspace(left, right, 30), np.linspace(10.3, 69.7, 30)))
        corner = (np.arange(29)[:, None] * 30 + np.arange(29)).ravel()
        cells = np.stack([corner, corner + 1, corner + 31, corner, corner + 31, corner + 30], axis=1)
        return np.stack([x, y, depth(x)], axis=1).astype(np.float32), cells.reshape(-1, 3)

    far, triangles = sheet(-20.2, 99.8, lambda x: 1 + 0.02 * x)  # steep: 2 cm deeper with each pixel
    near, _ = sheet(30.2, 50.7, lambda x: np.full_like(x, 0.7))
    depth = render([far, near], triangles, np.zeros((900, 3)), (80, 90), colour=False).depth
    x, y = far[:, 0], far[:, 1]
    inside = (x > -0.5) & (x < 89.5)
    behind = (x > 30.2) & (x < 50.7)
    edge = (np.abs(x - 30.2) < 1.5) | (np.abs(x - 50.7) < 1.5) | (np.abs(x) < 1) | (np.abs(x - 89) < 1.5)
    edge |= (y < 12) | (y > 68)
    assert np.array_equal(views.visible(far, depth)[~edge], (inside & ~behind)[~edge])
    assert views.visible(near, depth)[(near[:, 1] > 12) & (near[:, 1] < 68)].all()
    odd = np.array([[np.nan, np.nan, 1], [40, 1e9, 0.5], [1e9, 1e9, -1], [np.inf, 40, 0.1]], np.float32)
    assert not views.visible(odd, depth).any()
    assert not views.visible(near, np.full((80, 90), np.nan, np.float32)).any()


def test_a_cloud_keeps_points_and_colours() -> None:
    random = np.random.default_rng(3)
    points = random.normal(size=(50, 3)).astype(np.float32)
    colours = random.integers(0, 256, (50, 3)).astype(np.uint8)
    colours[:2] = [[255, 0, 0], [0, 0, 255]]
    read, seen = _cloud(views.cloud_message(Header(frame_id="eye"), points, colours))
    assert np.array_equal(read, points) and np.array_equal(seen, colours)
    read, _ = _cloud(views.cloud_message(Header(), points[:0], colours[:0]))
    assert len(read) == 0


def test_rviz_shows_topics_that_there_are() -> None:
    config = yaml.safe_load((Path(__file__).parents[1] / "config" / "radan.rviz").read_text())
    manager = config["Visualization Manager"]
    shown = {d["Topic"]["Value"]: d for d in manager["Displays"] if "Topic" in d}
    kinds = {topic: display["Class"].removeprefix("rviz_default_plugins/") for topic, display in shown.items()}
    assert kinds == {
        "/image": "Image",
        "/radan/overlay": "Image",
        "/radan/depth": "Image",
        "/radan/markers": "MarkerArray",
        "/radan/points": "PointCloud2",
    }
    assert {d["Class"].rpartition("/")[2] for d in manager["Displays"]} == {*kinds.values(), "TF"}
    assert all(display["Enabled"] for display in manager["Displays"])
    # Cameras publish best effort; a reliable subscription would see nothing of them.
    assert shown["/image"]["Topic"]["Reliability Policy"] == "Best Effort"
    assert set(shown["/radan/markers"]["Namespaces"]) == set(views.NAMESPACES) == KINDS
