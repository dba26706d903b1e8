"""The demo's bag as pictures: the messages of one image, drawn. Reads the bag alone, without ROS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros import drawing
from radan_ros.camera import CameraModel
from radan_ros.face_models.making.pictures import region_colours
from radan_ros.model import open_face_model
from radan_ros.pictures import write_picture
from radan_ros.pose import FACING
from radan_ros.tools.record import header_stamp

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader

PICTURES = ("overlay.png", "depth.png", "pncc.png", "mesh.png")
PER_IMAGE = ("/image", "/radan/faces", "/radan/meshes", "/radan/depth", "/radan/pncc")


@dataclass
class Frame:
    """The recorded messages of one image, by topic; `stamp` is the header's in ns."""

    stamp: int
    messages: dict[str, Any]
    sharpness: float


def read_bag(bag: Path) -> tuple[list[Any], Frame | None, dict[str, Any]]:
    """Read what the pictures need.

    Returns
    -------
    faces : list of radan_ros/FaceArray
        All, in order.
    frame : Frame or None
        All messages of the sharpest image near the middle of those with most faces.
    latched : dict
        The last message of the topics that do not follow the images.
    """
    from rosbags.highlevel import AnyReader

    with AnyReader([bag]) as reader:
        faces, times = [], []
        latched: dict[str, Any] = {}
        single = ("/radan/topology", "/camera_info", "/diagnostics")
        wanted = [c for c in reader.connections if c.topic in (*single, "/radan/faces")]
        for connection, time_ns, raw in reader.messages(wanted):
            message = reader.deserialize(raw, connection.msgtype)
            if connection.topic in single:
                latched[connection.topic] = message
            else:
                faces.append(message)
                times.append(time_ns)
        most = max((len(message.faces) for message in faces), default=0)
        best = [k for k, message in enumerate(faces) if len(message.faces) == most]
        frame = None
        if best:
            middle = min(best, key=lambda k: abs(k - len(faces) / 2))
            stamps = {_stamp(faces[k]) for k in best}
            for candidate in _complete_frames(reader, times[middle] - 500_000_000, times[middle] + 500_000_000, stamps):
                if frame is None or candidate.sharpness > frame.sharpness:
                    frame = candidate
    return faces, frame, latched


def _complete_frames(reader: AnyReader, start: int, stop: int, stamps: set[int]) -> Iterator[Frame]:
    """Frames of these stamps within a time of the bag of which every topic was recorded; one at a time in memory."""
    pending: dict[int, dict[str, tuple[str, bytes]]] = {}
    wanted = [c for c in reader.connections if c.topic in PER_IMAGE]
    for connection, _, raw in reader.messages(wanted, start=start, stop=stop):
        stamp = header_stamp(raw)
        if stamp not in stamps or stamp is None:
            continue
        parts = pending.setdefault(stamp, {})
        parts[connection.topic] = (connection.msgtype, raw)
        if len(parts) == len(PER_IMAGE):
            messages = {topic: reader.deserialize(data, kind) for topic, (kind, data) in pending.pop(stamp).items()}
            yield Frame(stamp, messages, _sharpness(messages["/image"], messages["/radan/faces"]))


def _stamp(message: Any) -> int:
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def _pixels(message: Any) -> NDArray[Any]:
    """An image message of 8-bit colour or 32FC1 as (H, W, 3) or (H, W), without what pads its rows."""
    kind, channels = (np.dtype(np.float32), 1) if message.encoding == "32FC1" else (np.dtype(np.uint8), 3)
    kind = kind.newbyteorder(">" if message.is_bigendian else "<")
    row = message.width * channels * kind.itemsize
    rows = np.asarray(message.data, np.uint8).reshape(message.height, message.step)[:, :row]
    pixels = np.ascontiguousarray(rows).view(kind).reshape(message.height, message.width, channels)
    return pixels[:, :, 0] if channels == 1 else pixels


def _sharpness(image: Any, faces: Any) -> float:
    """Variance of the Laplacian in the boxes of the faces, each at one size; the least of them."""
    grey = cv2.cvtColor(_pixels(image), cv2.COLOR_BGR2GRAY)
    values = []
    for face in faces.faces:
        left, top, right, bottom = np.clip(np.rint(face.box), 0, [*grey.shape[::-1], *grey.shape[::-1]]).astype(int)
        if right - left > 8 and bottom - top > 8:
            patch = cv2.resize(grey[top:bottom, left:right], (128, 128), interpolation=cv2.INTER_AREA)
            values.append(float(cv2.Laplacian(patch, cv2.CV_32F).var()))
    return min(values, default=0.0)


def draw(out: Path, frame: Frame, latched: dict[str, Any]) -> None:
    """Write the four pictures of one recorded frame; OSError when the disk does not take one."""
    image = _pixels(frame.messages["/image"])
    array = frame.messages["/radan/faces"]
    meshes = {mesh.id: mesh.vertices.reshape(-1, 3) for mesh in frame.messages["/radan/meshes"].meshes}
    camera = _camera(latched.get("/camera_info"), image.shape[:2])
    topology = latched.get("/radan/topology")
    triangles = None if topology is None else topology.triangles.reshape(-1, 3).astype(np.int32)
    faces = []
    for face in array.faces:
        position = face.pose.pose.position
        vertices = meshes.get(face.id)
        if vertices is not None:
            vertices = np.column_stack([camera.project(vertices), vertices[:, 2]])
        degrees = drawing.angles_text((face.yaw, face.pitch, face.roll))
        faces.append(
            drawing.DrawnFace(
                landmarks=face.landmarks_px.reshape(68, 2),
                label=f"face {face.id}   {position.z:.2f} m   {degrees}",
                number=int(face.id),
                rotation=_rotation(face.pose.pose.orientation),
                origin=(position.x, position.y, position.z),
                vertices=vertices,
            )
        )
    overlay = drawing.overlay(image, faces, camera, triangles)
    if not faces:
        overlay = drawing.draw_label(overlay, "no face", (8, 0))
    write_picture(out / "overlay.png", overlay)
    write_picture(out / "depth.png", drawing.colour_depth(_pixels(frame.messages["/radan/depth"])))
    write_picture(out / "pncc.png", np.ascontiguousarray(_pixels(frame.messages["/radan/pncc"])[:, :, ::-1]))
    poses = [(face.id, face.pose.pose) for face in array.faces if face.id in meshes]
    if poses and topology is not None and triangles is not None:
        nearest, pose = min(poses, key=lambda item: item[1].position.z)
        in_head = meshes[nearest] - [pose.position.x, pose.position.y, pose.position.z]
        in_head = in_head @ _rotation(pose.orientation)
        albedo = mesh_colours(topology.version)
        write_picture(out / "mesh.png", drawing.mesh_views(in_head @ FACING.T, triangles, albedo=albedo))


def mesh_colours(version: str) -> ArrayLike:
    """Colours of the mesh of a face model: lips, eyes and so on where it is the built-in one, else that of clay."""
    try:
        face_model = open_face_model("builtin")
    except (ValueError, OSError):
        return drawing.CLAY
    return region_colours(face_model) if face_model.version == version else drawing.CLAY


def _camera(info: Any, size: tuple[int, int]) -> CameraModel:
    if info is None or (info.height, info.width) != size:
        return CameraModel.from_field_of_view(size, np.radians(60))
    return CameraModel.from_calibration(size, info.k, info.d, info.distortion_model)


def _rotation(q: Any) -> NDArray[np.float64]:
    x, y, z, w = q.x, q.y, q.z, q.w
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
