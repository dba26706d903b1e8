"""Views of the faces for people: markers, a coloured point cloud and a picture. All in the frame of the image."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from radan_ros import drawing
from radan_ros.ros.answer import Answer
from radan_ros.ros.images import flat_array, image_message
from radan_ros.ros.topics import Host, View

NAMESPACES = ("mesh", "axes", "landmarks", "ids")  # of the markers, whose id is that of the face
LIFETIME = 1  # seconds after which a viewer removes markers that nothing renewed: the node or the camera is gone
MOST_TRIANGLES = 40_000  # of a mesh in a marker: 120 bytes each, in every image
AXIS_LENGTH, AXIS_WIDTH = 0.07, 0.004  # metres
LANDMARK_SIZE, TEXT_SIZE = 0.003, 0.03  # metres
TEXT_RISE = 0.14  # metres from the sellion, towards the scalp: above the forehead
SAME_SURFACE = 0.002  # metres that a vertex that is seen may lie behind the depth picture: curvature in a pixel

# One point and one colour as they stand in a serialised marker. Values that no face has.
_POINT, _COLOUR = (-7.25e77, 3.5e-77, 1.75e99), (-0.25, 1.5e9, -3.0, 0.125)
_PLACEHOLDER = struct.pack("=I3dI4f", 1, *_POINT, 1, *_COLOUR)


class Markers(View):
    """``~/markers``: of each face its mesh, head axes, landmarks and id, in a namespace each."""

    def __init__(self, node: Host) -> None:
        super().__init__(node, MarkerArray, "~/markers")
        self._shown: set[int] = set()
        self._topology: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]] | None = None

    def publish(self, answer: Answer) -> None:
        """Publish the markers of an answer; delete those of faces that are gone."""
        gone = self._shown - {track.id for track in answer.tracks}
        self.skip(answer)
        if self._topology is None or self._topology[0] is not answer.face_model.triangles:
            kept, triangles = fewer_triangles(answer.face_model.mean, answer.face_model.triangles, MOST_TRIANGLES)
            self._topology = answer.face_model.triangles, kept, triangles
        _, kept, triangles = self._topology
        message = MarkerArray()
        for number in sorted(gone):
            message.markers += [_marker(answer.header, ns, number, Marker.DELETE) for ns in NAMESPACES]
        meshes = []
        for track, metric, vertices in zip(answer.tracks, answer.metric, answer.vertices, strict=True):
            colour = np.array(drawing.colour_of(track.id)[::-1]) / 255
            message.markers += _face_markers(answer.header, track.id, colour, metric.pose, metric.landmarks)
            points, corners = vertices[kept].astype(np.float64), triangles.ravel()
            # Viewers leave coloured triangles unlit.
            tint = np.ones((len(points), 4), np.float32)
            tint[:, :3] = np.clip(drawing.shade(points, triangles)[:, None] * 1.15 * (0.75 * colour + 0.25), 0, 1)
            meshes.append((points[corners], tint[corners]))
        self._publisher.publish(serialised(message, meshes))

    def skip(self, answer: Answer) -> None:
        """The faces of this answer are on show."""
        self._shown = {track.id for track in answer.tracks}

    def state(self) -> list[int]:
        """Ids of the faces that are on show."""
        return sorted(self._shown)

    def restore(self, state: list[int]) -> None:
        """These faces are on show."""
        self._shown = set(state)

    def clear(self) -> None:
        """Delete all markers."""
        if self._shown:
            self._shown.clear()
            self._publisher.publish(MarkerArray(markers=[Marker(action=Marker.DELETEALL)]))


class Cloud(View):
    """``~/points``: the vertices that the camera sees, in the colours of the image."""

    def __init__(self, node: Host) -> None:
        super().__init__(node, PointCloud2, "~/points")
        self._last: Header | None = None

    def publish(self, answer: Answer) -> None:
        """Publish the points of all faces of an answer in one cloud, which is empty without a face."""
        self._last = answer.header
        placed = answer.vertices_in_image.reshape(-1, 3)
        seen = visible(placed, answer.rendering.depth)
        columns, rows = np.rint(placed[seen, :2]).astype(np.intp).T
        self._publisher.publish(
            cloud_message(answer.header, answer.vertices.reshape(-1, 3)[seen], answer.image[rows, columns])
        )

    def clear(self) -> None:
        """Replace the last cloud by an empty one."""
        if self._last is not None:
            empty = np.zeros((0, 3), np.float32)
            self._publisher.publish(cloud_message(self._last, empty, empty.astype(np.uint8)))
            self._last = None


class Overlay(View):
    """``~/overlay``: the image with meshes, landmarks, head axes and ids drawn on it (bgr8)."""

    def __init__(self, node: Host) -> None:
        super().__init__(node, Image, "~/overlay")

    def publish(self, answer: Answer) -> None:
        """Publish the picture of an answer; without a face it is the image."""
        self._publisher.publish(image_message(answer.header, answer.overlay(), "bgr8"))


# ------------------------------------------------------------------------------------------------------- markers


def _marker(header: Header, namespace: str, number: int, action: int = Marker.ADD) -> Marker:
    message = Marker(header=header, ns=namespace, id=number, action=action, lifetime=Duration(sec=LIFETIME))
    message.pose.orientation.w = 1.0
    return message


def _face_markers(
    header: Header, number: int, colour: NDArray[np.floating], pose: Any, landmarks: NDArray[np.floating]
) -> list[Marker]:
    """The markers of one face; the mesh has placeholders, which `serialised` replaces."""
    mesh, axes, dots, text = (_marker(header, namespace, number) for namespace in NAMESPACES)
    plain = ColorRGBA(r=float(colour[0]), g=float(colour[1]), b=float(colour[2]), a=1.0)
    mesh.type = Marker.TRIANGLE_LIST
    mesh.scale.x = mesh.scale.y = mesh.scale.z = 1.0
    mesh.color = plain
    mesh.points, mesh.colors = (_points([_POINT]), [ColorRGBA(**dict(zip("rgba", _COLOUR, strict=True)))])
    axes.type = Marker.LINE_LIST
    axes.scale.x = AXIS_WIDTH
    tips = pose.translation + AXIS_LENGTH * pose.rotation.T
    axes.points = _points(np.stack([np.broadcast_to(pose.translation, (3, 3)), tips], axis=1).reshape(-1, 3).tolist())
    axes.colors = [ColorRGBA(r=r / 255, g=g / 255, b=b / 255, a=1.0) for b, g, r in drawing.AXIS_COLOURS for _ in "12"]
    axes.color = plain
    dots.type = Marker.SPHERE_LIST
    dots.scale.x = dots.scale.y = dots.scale.z = LANDMARK_SIZE
    dots.points = _points(landmarks.astype(np.float64).tolist())
    dots.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    text.type = Marker.TEXT_VIEW_FACING
    text.scale.z = TEXT_SIZE
    text.text = f"face {number}"
    text.pose.position = _points([(pose.translation + TEXT_RISE * pose.rotation[:, 2]).tolist()])[0]
    text.color = plain
    return [mesh, axes, dots, text]


def _points(values: Sequence[Sequence[float]]) -> list[Point]:
    return [Point(x=x, y=y, z=z) for x, y, z in values]


def serialised(message: MarkerArray, meshes: Sequence[tuple[NDArray[np.float64], NDArray[np.float32]]]) -> bytes:
    """A marker array as the bytes that go over the wire, with its meshes put in.

    rclpy would make and serialise one Python object per point: 400 ms for the 64,770 of the built-in face model,
    against 0.3 ms this way. In CDR both sequences are a count and plain numbers, and their sizes are multiples of 8
    bytes, so that nothing behind them is aligned differently.

    Parameters
    ----------
    message : MarkerArray
        Each marker of a mesh holds the placeholders of `_face_markers`.
    meshes : sequence of ((P, 3) float64, (P, 4) float32)
        Their points and colours (red, green, blue, opacity, 0 to 1) in the order of the markers.

    Raises
    ------
    RuntimeError
        When the middleware does not serialise as plain CDR.
    """
    parts = serialize_message(message).split(_PLACEHOLDER)
    if len(parts) != len(meshes) + 1:
        raise RuntimeError("this middleware does not serialise markers as CDR: leave 'markers' out of publish")
    out: list[Any] = [parts[0]]
    for (points, colours), rest in zip(meshes, parts[1:], strict=True):
        count = struct.pack("=I", len(points))
        out += [count, points, count, colours, rest]
    return b"".join(out)


def fewer_triangles(
    points: NDArray[np.float32], triangles: NDArray[np.int32], most: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Thin a mesh out: the vertices of each cell of a grid become one of them, triangles that lose a corner vanish.

    Parameters
    ----------
    points : (V, 3) float32
        Any unit.
    triangles : (T, 3) int32
        Vertex indices.
    most : int
        Triangles that may be left; a mesh of no more stays as it is.

    Returns
    -------
    kept : (K,) int32
        The vertices that are left.
    triangles : (M, 3) int32
        Indices into `kept`, turning as before.
    """
    cells = np.sqrt(most)  # along the longest side; a surface of that many by as many squares has twice the triangles
    kept: NDArray[np.integer] = np.arange(len(points))
    left: NDArray[np.integer] = triangles
    while len(left) > most:
        size = np.ptp(points, axis=0).max() / cells
        column, row, layer = np.floor((points - points.min(axis=0)) / size).astype(np.int64).T
        across = int(cells) + 2
        _, kept, cell = np.unique((layer * across + row) * across + column, return_index=True, return_inverse=True)
        left = cell[triangles]
        left = left[(left != np.roll(left, 1, axis=1)).all(axis=1)]
        cells *= 0.9
    return kept.astype(np.int32), left.astype(np.int32)


# --------------------------------------------------------------------------------------------------------- cloud


def visible(placed: NDArray[np.float32], depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which vertices the camera sees: those in the image with no surface in front of them.

    Parameters
    ----------
    placed : (P, 3) float32
        x, y in pixels, third the depth in metres.
    depth : (H, W) float32
        Picture of all meshes, metres; NaN where there is none.

    Returns
    -------
    (P,) bool
    """
    height, width = depth.shape
    x, y, z = placed.T
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)  # false for NaN
    left, top = (np.floor(np.where(inside, v, 0)).astype(np.intp) for v in (x, y))
    # Of the four pixels around it the farthest: a slanted surface lies between them.
    around = np.full(len(placed), -np.inf, np.float32)
    for column in (left, left + 1):
        for row in (top, top + 1):
            sampled = depth[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
            around = np.fmax(around, sampled)
    return np.asarray(inside & (z <= around + SAME_SURFACE))


def cloud_message(header: Header, points: NDArray[np.float32], colours: NDArray[np.uint8]) -> PointCloud2:
    """Coloured points as an unorganised cloud of the fields x, y, z and rgb, as PCL has them.

    Parameters
    ----------
    header : std_msgs.msg.Header
        Copied as it is.
    points : (P, 3) float32
        Metres, all finite.
    colours : (P, 3) uint8
        BGR.
    """
    data = np.zeros((len(points), 16), np.uint8)
    data[:, :12] = np.ascontiguousarray(points, "<f4").view(np.uint8)
    data[:, 12:15] = colours  # a little-endian 0x00RRGGBB, to be read as a float
    message = PointCloud2(header=header, height=1, width=len(points), point_step=16, row_step=16 * len(points))
    message.is_dense = True
    message.fields = [
        PointField(name=name, offset=4 * k, datatype=PointField.FLOAT32, count=1)
        for k, name in enumerate(("x", "y", "z", "rgb"))
    ]
    message.data = flat_array("B", data)
    return message
