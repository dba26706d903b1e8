"""The real node, as a process of its own, over DDS: what it answers to pictures, and what it does with bad ones."""

from __future__ import annotations

import logging
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("radan_ros.msg", reason="needs ROS and the built package: make test")
import rclpy
from conftest import ASTRONAUT_MARKS
from radan_ros.msg import FaceArray
from rclpy.parameter import Parameter
from ros_client import AT_ONCE, PATIENCE, Client, Process, connected, pixels_of, running_node
from sensor_msgs.msg import CameraInfo

from radan_ros import CameraModel, Model
from radan_ros.fastdds import PROFILE_VARIABLES
from radan_ros.model import builtin_model
from radan_ros.ros import topics
from radan_ros.ros.diagnostics import Report, Statistics
from radan_ros.ros.messages import camera_from_info
from radan_ros.ros.parameters import Settings
from radan_ros.ros.subscriptions import Calibration
from radan_ros.training.augmentation import MIRRORED

ALL = ("faces", "meshes", "depth", "pncc")


@pytest.fixture(scope="module")
def node() -> Iterator[Any]:
    """One node, with the built-in model, for the tests that need no other: it has to outlive all of them."""
    with running_node("-p", "device:=cpu", "-p", "detection_period:=0.0", *AT_ONCE) as process:
        yield process
        assert process.alive(), process.log()
        status, _ = process.interrupt()
        assert status == 0 and "Traceback" not in process.log(), process.log()


@pytest.fixture
def client(node: Any) -> Iterator[Client]:
    with connected("/radan") as found:
        yield found


def quaternion_matrix(q: Any) -> np.ndarray:
    x, y, z, w = q.x, q.y, q.z, q.w
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def vector(v: Any) -> np.ndarray:
    return np.array([v.x, v.y, v.z])


def check_answer(client: Client, message: Any, answers: dict[str, Any], faces: int) -> None:
    """All that holds for every answer: header, sizes, units, finite numbers, rotations, one geometry on all topics."""
    topology = client.topology()
    array: FaceArray = answers["faces"]
    for answer in answers.values():
        assert answer.header == message.header
    assert (array.height, array.width) == (message.height, message.width)
    assert (array.model, array.version) == (topology.model, topology.version)
    assert len(array.faces) == faces == len(answers["meshes"].meshes)
    assert len({face.id for face in array.faces}) == faces
    assert answers["meshes"].version == topology.version
    depth, pncc = pixels_of(answers["depth"]), pixels_of(answers["pncc"])
    seen = depth[np.isfinite(depth)]
    assert depth.shape == pncc.shape[:2] == (message.height, message.width)
    assert (seen > 0).all(), "metres in front, or NaN"
    assert (pncc[~np.isfinite(depth)] == 0).all()
    assert np.isfinite(depth).any() == (faces > 0)
    for face, mesh in zip(array.faces, answers["meshes"].meshes, strict=True):
        assert face.id == mesh.id >= 0
        vertices = np.asarray(mesh.vertices, np.float32).reshape(-1, 3)
        landmarks = np.asarray(face.landmarks).reshape(68, 3)
        pixels = np.asarray(face.landmarks_px).reshape(68, 2)
        assert len(vertices) == topology.vertex_count and np.isfinite(vertices).all() and np.isfinite(pixels).all()
        assert 0.5 <= face.confidence <= 1
        assert len(face.parameters) == 62 and np.isfinite(face.parameters).all()
        assert np.allclose(vertices[topology.landmarks], landmarks, atol=1e-4)
        assumed = CameraModel.from_field_of_view((message.height, message.width), np.deg2rad(60))
        distance = np.linalg.norm(assumed.project(vertices[topology.landmarks]) - pixels, axis=1)
        assert np.median(distance) < 1, "pixels: the image shows the mesh where the landmarks are said to be"
        rotation = quaternion_matrix(face.pose.pose.orientation)
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9) and np.isclose(np.linalg.det(rotation), 1)
        position = vector(face.pose.pose.position)
        assert np.allclose(position, landmarks[27], atol=1e-4), "origin at the sellion"
        assert 0.1 < position[2] < 5, "metres in front of the camera"
        covariance = np.asarray(face.pose.covariance).reshape(6, 6)
        assert np.allclose(covariance, covariance.T) and np.linalg.eigvalsh(covariance).min() > 0
        assert abs(face.yaw) <= np.pi and abs(face.pitch) <= np.pi / 2 and abs(face.roll) <= np.pi
        left, top, right, bottom = face.box
        assert np.allclose([left, top, right, bottom], [*pixels.min(0), *pixels.max(0)], atol=1e-3)
        tf = client.wait(
            lambda face=face: [
                t
                for m in client.received["tf"]
                for t in m.transforms
                if t.header == message.header and t.child_frame_id == f"face_{face.id}"
            ],
            "the face's transform",
        )[-1]
        assert np.allclose(vector(tf.transform.translation), position)
        assert tf.transform.rotation == face.pose.pose.orientation
    if faces:  # the z-buffer shows parts of the meshes, nothing else
        depths = np.concatenate([np.asarray(mesh.vertices, np.float32)[2::3] for mesh in answers["meshes"].meshes])
        assert depths.min() - 1e-4 <= seen.min() <= seen.max() <= depths.max() + 1e-4


def test_a_face_is_answered_on_every_topic(client: Client, astronaut: np.ndarray) -> None:
    message = client.image(astronaut, frame="head_camera")
    answers = client.ask(message, ALL)
    check_answer(client, message, answers, faces=1)
    left, top, right, bottom = answers["faces"].faces[0].box
    assert 150 < left < right < 300 and 50 < top < bottom < 250, "where the astronaut's face is"
    assert not answers["faces"].metric, "no CameraInfo was sent"
    triangles = np.asarray(client.topology().triangles).reshape(-1, 3)
    vertices = np.asarray(answers["meshes"].meshes[0].vertices).reshape(-1, 3)
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    assert (np.sum(normals * a, axis=1) < 0).mean() > 0.7, "counter-clockwise seen from outside: normals to the camera"


def test_images_without_a_frame_give_faces_but_no_tf_and_that_is_said(
    node: Any, client: Client, astronaut: np.ndarray
) -> None:
    message = client.image(astronaut, frame="")
    assert len(client.ask(message)["faces"].faces) == 1
    client.ask(client.image(astronaut))
    client.wait(lambda: client.received["tf"], "the next image's transform")
    assert all(t.header.frame_id for m in client.received["tf"] for t in m.transforms)
    assert "have no frame_id" in node.log()


def test_an_image_without_a_face_is_an_answer(client: Client) -> None:
    message = client.image(np.full((120, 160, 3), 90, np.uint8))
    answers = client.ask(message, ALL)
    check_answer(client, message, answers, faces=0)


def test_two_faces_in_one_image(client: Client, couple: np.ndarray) -> None:
    message = client.image(couple)
    answers = client.ask(message, ALL)
    check_answer(client, message, answers, faces=2)
    first, second = (face.box[0] for face in answers["faces"].faces)
    assert abs(first - second) > 300


# As usb_cam and sensor_msgs name them.
YUV = {name: code for code, names in {
    cv2.COLOR_BGR2YUV_YUYV: ("yuyv", "yuv422_yuy2"), cv2.COLOR_BGR2YUV_UYVY: ("uyvy", "yuv422")
}.items() for name in names}  # fmt: skip


def encoded(image: np.ndarray, encoding: str) -> np.ndarray:
    if encoding in ("bgr8", "rgb8", "bgra8", "rgba8"):
        order = image if encoding.startswith("bgr") else image[..., ::-1]
        alpha = np.full_like(image[..., :1], 200)
        return np.concatenate([order, alpha], axis=2) if encoding.endswith("a8") else order
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    if encoding in YUV:
        return cv2.cvtColor(image, YUV[encoding])
    if encoding == "mono16":
        return grey.astype(np.uint16) * 257
    if encoding.startswith("bayer"):
        pattern = {"rggb": "rggb", "bggr": "bggr", "gbrg": "gbrg", "grbg": "grbg"}[encoding[6:10]]
        out = np.zeros(grey.shape, np.uint8)
        for i, colour in enumerate(pattern):
            y, x = divmod(i, 2)
            out[y::2, x::2] = image[y::2, x::2, "bgr".index(colour)]
        return out
    return grey


@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "bgra8", "rgba8", "mono16", "bayer_rggb8", "bayer_gbrg8", *YUV])
def test_encodings_show_the_same_face(client: Client, astronaut: np.ndarray, encoding: str) -> None:
    reference = client.ask(client.image(astronaut))["faces"].faces
    message = client.image(encoded(astronaut, encoding), encoding)
    found = client.ask(message)["faces"].faces
    assert len(found) == len(reference) == 1
    distance = np.abs(np.asarray(found[0].landmarks_px) - np.asarray(reference[0].landmarks_px))
    assert distance.max() < 12, "dlib's boxes move a little with the colours"


def asked_anew(client: Client, message: Any) -> Any:
    """The face of an image, cropped as it was detected: a small image in between makes the node lose its faces."""
    client.ask(client.image(np.zeros((1, 1, 3), np.uint8)))
    [face] = client.ask(message)["faces"].faces
    return face


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "mono8", "mono16", "bayer_rggb8", "yuyv", "yuv422"])
def test_padded_rows_are_read_by_step(client: Client, astronaut: np.ndarray, encoding: str) -> None:
    pixels = np.ascontiguousarray(encoded(astronaut, encoding))
    plain = asked_anew(client, client.image(pixels, encoding))
    rows = pixels.view(np.uint8).reshape(512, -1)
    padded = np.pad(rows, ((0, 0), (0, 8 * pixels.itemsize)), constant_values=77)
    message = client.image(pixels, encoding)
    message.step, message.data = padded.shape[1], padded.tobytes()[: -8 * pixels.itemsize]  # the last row may lack it
    found = asked_anew(client, message)
    assert np.abs(np.asarray(found.landmarks_px) - np.asarray(plain.landmarks_px)).max() < 0.01


def test_a_best_effort_camera_is_heard(node: Any, astronaut: np.ndarray) -> None:
    with connected("/radan", reliable=False) as client:
        assert len(client.ask(client.image(astronaut))["faces"].faces) == 1


def test_a_late_subscriber_gets_the_topology(client: Client, builtin: Model) -> None:
    topology, face_model = client.topology(), builtin.face_model
    assert topology.version == face_model.version and topology.vertex_count == len(face_model.mean)
    assert np.array_equal(np.asarray(topology.triangles).reshape(-1, 3), face_model.triangles)
    assert np.array_equal(topology.landmarks, face_model.landmarks)
    assert len(topology.pncc_code) == 3 * topology.vertex_count


def test_bad_images_are_counted_and_named_and_the_node_lives_on(
    node: Any, client: Client, astronaut: np.ndarray
) -> None:
    good = client.image(astronaut)

    def broken(**fields: Any) -> Any:
        message = client.image(astronaut)
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    cases = {
        "data holds 1000 bytes": broken(data=good.data[:1000]),
        "step is 100 bytes": broken(step=100),
        "encoding 'fancy' is not supported": broken(encoding="fancy"),
        "encoding '32FC1' is not supported": broken(encoding="32FC1"),
        "width is 511, but yuv422_yuy2 holds its pixels in pairs": broken(width=511, encoding="yuv422_yuy2"),
        "512x512 yuyv with step 1536 takes 785920": broken(data=good.data[:1000], encoding="yuyv"),
        "the image is empty": broken(width=0, height=0, step=0, data=b""),
    }
    before = int(client.diagnostics(lambda v: True, "anything")["bad"])
    for count, (words, message) in enumerate(cases.items(), start=1):
        client.images.publish(message)
        values = client.diagnostics(lambda v, n=before + count: int(v["bad"]) >= n, f"{words} counted")
        assert words in values["last_bad_message"] and "/image" in values["last_bad_message"]
        assert words in node.log()
    assert len(client.ask(client.image(astronaut))["faces"].faces) == 1
    assert client.status() == b"\x01", "a warning, soon after"
    for more, width in enumerate((600, 601, 602), start=1):
        client.images.publish(broken(width=width))
        wanted = before + len(cases) + more
        client.diagnostics(lambda v, n=wanted: int(v["bad"]) >= n, "one more")
    assert node.log().count("step is") == 1, "one kind of complaint is logged once a minute"


def test_programs_bring_enough_shared_memory_for_images(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for program in ("radan_node", "play"):
        with running_node("-r", "__ns:=/shared", program=program) as process:
            until = time.monotonic() + PATIENCE
            while process.shared_memory() < 1 << 25 and time.monotonic() < until:
                time.sleep(0.05)
            assert process.shared_memory() >= 1 << 25, f"{program}: {process.log()}"


def test_a_twenty_megapixel_image_is_answered(client: Client, astronaut: np.ndarray) -> None:
    large = cv2.resize(astronaut, (4480, 4480))
    answer = client.ask(client.image(large))["faces"]
    assert len(answer.faces) == 1 and answer.width == 4480


def test_a_one_pixel_image_is_answered(client: Client) -> None:
    assert client.ask(client.image(np.zeros((1, 1, 3), np.uint8)))["faces"].faces == []


def test_nothing_is_drawn_unless_somebody_looks(astronaut: np.ndarray) -> None:
    with running_node("-r", "__ns:=/quiet", "-p", "frame_prefix:=left_", *AT_ONCE):
        with connected("/quiet/radan", "/quiet/image", outputs=("faces",)) as client:
            for _ in range(3):
                client.ask(client.image(astronaut))
            values = client.diagnostics(lambda v: int(v["processed"]) >= 3, "three images")
            assert values["rendered"] == "0"
            tf = client.wait(lambda: client.received["tf"], "TF, which is always published")[-1]
            assert tf.transforms[0].child_frame_id.startswith("left_face_")
        with connected("/quiet/radan", "/quiet/image", outputs=("faces", "depth")) as client:
            client.ask(client.image(astronaut), ("faces", "depth"))
            client.diagnostics(lambda v: int(v["rendered"]) >= 1, "a drawn image")


def test_the_newest_image_wins_and_the_others_are_counted(astronaut: np.ndarray) -> None:
    slow = ("-p", "detection_period:=0.0", "-p", "detector_min_face:=25")
    with running_node("-r", "__ns:=/busy", *slow, *AT_ONCE):
        with connected("/busy/radan", "/busy/image", outputs=("faces",)) as client:
            client.ask(client.image(astronaut))
            values = client.diagnostics(lambda v: int(v["processed"]) >= 1, "the first image")
            before = sum(int(values[name]) for name in ("processed", "dropped", "lost"))
            messages = [client.image(astronaut) for _ in range(20)]
            for message in messages:
                client.images.publish(message)
                time.sleep(0.002)  # best effort: so many at once get lost
            client.wait(lambda: client._answers(messages[-1], ("faces",)), "the newest image's answer")
            values = client.diagnostics(
                lambda v: sum(int(v[name]) for name in ("processed", "dropped", "lost")) == before + 20,
                "all accounted for",
            )
            assert int(values["received"]) == int(values["processed"]) + int(values["dropped"])
            assert int(values["dropped"]) + int(values["lost"]) > 0, "twenty images at once are more than it can do"
            stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in client.received["faces"]]
            assert stamps == sorted(stamps)


def test_a_camera_without_a_clock_has_no_latency_from_the_stamp(astronaut: np.ndarray) -> None:
    with (
        running_node("-r", "__ns:=/clockless", *AT_ONCE),
        connected("/clockless/radan", "/clockless/image", outputs=("faces",)) as client,
    ):
        message = client.image(astronaut)
        stamp, message.header.stamp = message.header.stamp, type(message.header.stamp)()
        assert len(client.ask(message)["faces"].faces) == 1
        values = client.diagnostics(lambda v: "network_ms_p50" in v, "latencies")
        assert not {"transport_ms_p50", "stamp_to_faces_ms_p50"} & set(values) and "waiting_ms_p50" in values
        message.header.stamp = stamp
        client.ask(message)
        client.diagnostics(lambda v: {"transport_ms_p50", "stamp_to_faces_ms_p50"} <= set(v), "those of a stamp")


def camera_info(width: int, height: int, focal: float) -> CameraInfo:
    k = [focal, 0.0, width / 2, 0.0, focal, height / 2, 0.0, 0.0, 1.0]
    return CameraInfo(
        width=width,
        height=height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=k,
        p=[*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0],
    )


def test_camera_info_of_a_binned_region_is_of_the_image_that_comes() -> None:
    info = camera_info(1280, 960, 1000.0)
    whole = camera_from_info(info, rectified=False)
    assert whole.size == (960, 1280) and np.allclose(whole.matrix, np.reshape(info.k, (3, 3)))
    info.binning_x, info.binning_y = 2, 4
    for rectified in (False, True):
        binned = camera_from_info(info, rectified)
        assert binned.size == (240, 640)
        assert np.allclose(binned.matrix, [[500, 0, 320], [0, 250, 120], [0, 0, 1]])
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 200, 100, 600, 400
    region = camera_from_info(info, rectified=False)
    assert region.size == (100, 300)
    assert np.allclose(region.matrix, [[500, 0, 220], [0, 250, 95], [0, 0, 1]])


def test_what_makes_another_calibration_of_a_camera_info_is_looked_at_anew() -> None:
    statistics = Statistics()
    calibration = Calibration("/camera_info", Settings(), Report(logging.getLogger(__name__), statistics))
    assert calibration.state() == "none yet"
    wrong = camera_info(640, 480, 0.0)
    wrong.p[0] = wrong.p[5] = 400.0  # of the rectified image it has figures
    calibration.take(wrong)
    calibration.take(wrong)
    assert statistics.counters["bad"] == 1 and "not calibrated" in calibration.state()
    calibration.change(Settings(image_is_rectified=True))
    assert calibration.camera((480, 640), "").matrix[0, 0] == 400 and calibration.state() == "ok 640x480"
    calibration.change(Settings())
    for _ in range(3):
        calibration.take(camera_info(640, 480, np.nan))
    assert statistics.counters["bad"] == 3 and not calibration.camera((480, 640), "").calibrated
    good = camera_info(640, 480, 500.0)
    calibration.take(good)
    binned = camera_info(640, 480, 500.0)
    binned.binning_x = binned.binning_y = 2
    calibration.take(binned)
    assert calibration.camera((240, 320), "").matrix[0, 0] == 250
    calibration.take(wrong)
    calibration.change(Settings(max_faces=3))
    assert calibration.camera((240, 320), "").calibrated, "neither a bad one nor another parameter takes it away"


def test_a_calibration_that_does_not_go_with_the_images_is_told_as_long_as_it_does_not() -> None:
    calibration = Calibration("/camera_info", Settings(), Report(logging.getLogger(__name__), Statistics()))
    info = camera_info(640, 480, 500.0)
    info.header.frame_id = "eye"
    calibration.take(info)
    assert calibration.state() == "ok 640x480" and not calibration.trouble(), "no image yet"
    assert not calibration.camera((240, 320), "eye").calibrated
    assert calibration.state() == calibration.trouble() == "CameraInfo is for 640x480, the image is 320x240"
    assert calibration.camera((480, 640), "other").calibrated, "the frame alone does not make it another camera"
    assert calibration.trouble() == "CameraInfo on /camera_info is in the frame 'eye', the image in 'other'"
    assert calibration.state() == f"ok 640x480, but {calibration.trouble()}"
    assert calibration.camera((480, 640), "eye").calibrated
    assert calibration.state() == "ok 640x480" and not calibration.trouble()


def test_the_offset_of_a_second_camera_is_left_out_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    info = camera_info(640, 480, 500.0)
    info.p[3] = -60.0
    calibration = Calibration("/right/camera_info", Settings(), Report(logging.getLogger(__name__), Statistics()))
    calibration.take(info)
    assert not caplog.text, "K has none"
    for rectified in (True, False, True):
        calibration.change(Settings(image_is_rectified=rectified))
    assert caplog.text.count("P on /right/camera_info has Tx = -60, Ty = 0") == 1
    assert np.allclose(calibration.camera((480, 640), "").matrix, np.reshape(info.k, (3, 3)))


def test_the_durability_of_a_subscription_can_be_overridden() -> None:
    outermost = not rclpy.ok()
    if outermost:
        rclpy.init()
    override = Parameter("qos_overrides./lasting.subscription.durability", value="transient_local")
    node = rclpy.create_node("durability", parameter_overrides=[override])
    try:
        for topic, policy in (("/lasting", "TRANSIENT_LOCAL"), ("/other", "VOLATILE")):
            topics.subscription(node, CameraInfo, topic, print, topics.sensor())
            [found] = node.get_subscriptions_info_by_topic(topic)
            assert found.qos_profile.durability.name == policy
    finally:
        node.destroy_node()
        if outermost:
            rclpy.shutdown()


def test_camera_info_makes_the_pose_metric_and_zeros_are_refused(small_model: Path, astronaut: np.ndarray) -> None:
    with running_node(
        "-p",
        f"model:={small_model}",
        "-r",
        "__node:=metric",
        "-r",
        "image:=/cam/image_raw",
        "-r",
        "camera_info:=/cam/camera_info",
        *AT_ONCE,
    ) as process:
        with connected("/metric", "/cam/image_raw", outputs=("faces",)) as client:
            assumed = client.ask(client.image(astronaut))["faces"]
            assert not assumed.metric and "assuming a field of view" in process.log()
            spread = assumed.faces[0].pose
            assert spread.covariance[14] > (0.4 * spread.pose.position.z) ** 2, "the distance is a guess, and says so"
            for _ in range(5):
                client.infos.publish(camera_info(512, 512, 0.0))
            values = client.diagnostics(lambda v: int(v["bad"]) >= 1, "the refused CameraInfo")
            assert "not calibrated" in values["last_bad_message"] and "/cam/camera_info" in values["last_bad_message"]
            assert "not calibrated" in values["camera_info"]

            def distance_with(focal: float) -> float:
                """Distance once the calibration is in use; the images before it may still have the last one."""
                client.infos.publish(camera_info(512, 512, focal))
                client.wait(lambda: client.infos.get_subscription_count(), "the node's subscription")

                def answered() -> float | None:
                    answer = client.ask(client.image(astronaut))["faces"]
                    z = answer.faces[0].pose.pose.position.z
                    return z if answer.metric and abs(z - last[0]) > 0.3 * z else None

                last[0] = client.wait(answered, f"an answer with focal length {focal:g}")
                return last[0]

            last = [0.0]
            distances = [distance_with(500.0), distance_with(1000.0)]
            assert np.isclose(distances[1] / distances[0], 2, rtol=0.05), "twice the focal length, twice as far"
            values = client.diagnostics(lambda v: v["camera_info"].startswith("ok 512x512"), "the calibration")
            assert values["bad"] == "1", "the same refused CameraInfo counts once"
            assert client.change("deactivate") and client.set(max_faces=3)[0].successful and client.change("activate")
            assert client.ask(client.image(astronaut))["faces"].metric, "a calibration that came once is kept"
            assert client.change("deactivate") and client.change("cleanup")
            assert client.change("configure") and client.change("activate")
            assert not client.ask(client.image(astronaut))["faces"].metric, "until the cleanup"
            assert process.log().count("no usable CameraInfo on") == 2, "said again"
            client.infos.publish(camera_info(64, 64, 500.0))
            client.wait(
                lambda: not client.ask(client.image(astronaut))["faces"].metric,
                "CameraInfo of another size to be left out",
            )
            assert "CameraInfo is for 64x64" in process.log()
            values = client.diagnostics(lambda v: "CameraInfo is for" in v["camera_info"], "the reason")
            assert values["camera_info"] == "CameraInfo is for 64x64, the image is 512x512"
            assert client.set(camera_timeout=0.0)[0].successful  # else soon a warning of its own
            client.summary(lambda level, text: level == b"\x01" and text == values["camera_info"], "a warning")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_on_a_signal_under_load(astronaut: np.ndarray, number: int) -> None:
    with running_node("-r", "__ns:=/ending", "-p", "detection_period:=0.0", *AT_ONCE) as process:
        with connected("/ending/radan", "/ending/image") as client:
            client.ask(client.image(astronaut), ALL)
            for _ in range(5):
                client.images.publish(client.image(astronaut))
            status, _ = process.interrupt(number)  # within its PATIENCE
            assert status == 0, process.log()
            assert "Traceback" not in process.log() and "rror" not in process.log(), process.log()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_ends_it_without_a_traceback(number: int) -> None:
    for delay in (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0):
        process = Process("-r", "__ns:=/early")
        try:
            end = time.monotonic() + PATIENCE
            while not process.hears():  # before, the interpreter itself is interrupted
                assert process.alive() and time.monotonic() < end, process.log()
                time.sleep(0.01)
            time.sleep(delay)
            status, _ = process.interrupt(number)
            assert status == 0 and "Traceback" not in process.log(), process.log()
        finally:
            process.kill()


def start_fails(*ros_args: str) -> str:
    with running_node(*ros_args) as process:
        assert process.wait() == 1
        log = process.log()
    assert "cannot start" in log and "Traceback" not in log, log
    return log


def test_wrong_ros_arguments_end_it_with_one_line() -> None:
    assert "bad" in start_fails("-p", "bad")
    assert "nonexistent" in start_fails("--params-file", "/nonexistent.yaml")


def test_wrong_overrides_and_devices_are_told_with_their_names() -> None:
    override = "qos_overrides./seen.subscription.reliability:=sometimes"
    assert "topic /seen: " in start_fails("-r", "image:=/seen", "-p", override)
    assert "device 'cuda:77': " in start_fails("-p", "device:=cuda:77")
    assert "detector_min_face: " in start_fails("-p", "detector_min_face:=7")
    assert "frame_prefix '/robot_' " in start_fails("-p", "frame_prefix:=/robot_")


def test_compressed_images_are_named_by_the_topic_that_they_come_on() -> None:
    for rule, topic in {
        "image:=/there": "/there/compressed",
        "image/compressed:=/there/jpegs": "/there/jpegs",
    }.items():
        with running_node("-r", rule, "-p", "image_transport:=compressed") as process:
            end = time.monotonic() + PATIENCE
            while "waiting for images on" not in process.log():
                assert process.alive() and time.monotonic() < end, process.log()
                time.sleep(0.05)
            assert f"waiting for images on {topic}\n" in process.log()


def test_models_that_cannot_be_opened_end_it_with_one_line(tmp_path: Path) -> None:
    assert "does not exist" in start_fails("-p", "model:=/nowhere")
    shutil.copytree(builtin_model(), tmp_path / "m")
    (tmp_path / "m" / "network.pth").unlink()
    assert "network.pth" in start_fails("-p", f"model:={tmp_path / 'm'}")
    shutil.rmtree(tmp_path / "m")
    shutil.copytree(builtin_model(), tmp_path / "m")
    face = tmp_path / "m" / "face_model.npz"
    face.write_bytes(face.read_bytes()[:3000])
    assert "face_model.npz" in start_fails("-p", f"model:={tmp_path / 'm'}")


def test_a_checkpoint_of_another_network_is_told(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="writing a checkpoint needs torch")
    shutil.copytree(builtin_model(), tmp_path / "m")
    torch.save({"state_dict": {"layer.weight": torch.zeros(3, 3)}}, tmp_path / "m" / "other.pth")
    yaml = tmp_path / "m" / "model.yaml"
    yaml.write_text(yaml.read_text().replace("network.pth", "other.pth"))
    assert "other.pth" in start_fails("-p", f"model:={tmp_path / 'm'}")


@pytest.mark.parametrize(
    ("parameter", "word"),
    [
        ("detection_period:=-1.0", "detection_period"),
        ("max_faces:=0", "max_faces"),
        ("detector:=magic", "magic"),
        ("device:=toaster", "toaster"),
        ("detector_min_face:=10", "min_face"),
        ("max_faces:=many", "max_faces"),
    ],
)
def test_wrong_parameters_end_it_with_their_name(parameter: str, word: str) -> None:
    assert word in start_fails("-p", parameter)


def test_the_built_in_model_follows_two_faces(couple: np.ndarray) -> None:
    known = np.array([*ASTRONAUT_MARKS.values()])
    mirrored = known * [-1, 1] + [1023, 0]
    numbers = list(ASTRONAUT_MARKS)
    with running_node("-r", "__node:=builtin", *AT_ONCE), connected("/builtin") as client:
        for _ in range(3):
            message = client.image(couple)
            answers = client.ask(message, ALL)
            check_answer(client, message, answers, faces=2)
            faces = sorted(answers["faces"].faces, key=lambda face: face.box[0])
            left, right = (np.asarray(face.landmarks_px).reshape(68, 2) for face in faces)
            assert np.linalg.norm(left[numbers] - known, axis=1).max() < 6
            assert np.linalg.norm(right[MIRRORED][numbers] - mirrored, axis=1).max() < 6
        assert {face.id for face in faces} == {0, 1}


def test_a_trained_network_follows_two_faces_of_a_real_picture(shared: Path, model_folder_v2: Path) -> None:
    picture = cv2.imread(str(shared / "images" / "test1.jpg"))
    with np.load(shared / "expected" / "3ddfa_v1_test1.npz") as file:
        expected = [file[f"face{i}_landmarks68"][:2].T for i in (1, 0)]
    with running_node("-p", f"model:={model_folder_v2}", "-r", "__node:=real", *AT_ONCE), connected("/real") as client:
        for _ in range(3):
            message = client.image(picture)
            answers = client.ask(message, ALL)
            check_answer(client, message, answers, faces=2)
            faces = sorted(answers["faces"].faces, key=lambda face: face.box[0])
            for face, points in zip(faces, expected, strict=True):
                distance = np.linalg.norm(np.asarray(face.landmarks_px).reshape(68, 2) - points, axis=1)
                assert distance.mean() < 0.03 * np.ptp(points[:, 1]), "within 3 % of the face of the reference"
        assert {face.id for face in faces} == {0, 1}
