"""Pictures from arrays: landmarks, boxes, axes and meshes on an image; depth in colours; a shaded mesh.

Every function returns a new picture, (H, W, 3) uint8 BGR, and leaves its inputs as they are. Points are in pixels,
x right, y down, pixel centres at integers; the camera frame is x right, y down, z forward, in metres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros.camera import CameraModel

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

# BGR; distinct for colour-blind eyes too (after Okabe and Ito, 2008), on skin as well as on dark.
PALETTE: tuple[Colour, ...] = (
    (233, 180, 86),
    (66, 228, 240),
    (167, 121, 204),
    (115, 158, 0),
    (0, 159, 230),
    (178, 114, 0),
)
CLAY: Colour = (196, 206, 216)
AXIS_COLOURS: tuple[Colour, Colour, Colour] = ((60, 60, 235), (80, 200, 60), (240, 130, 40))  # x red, y green, z blue

# The 68 landmarks in iBUG/dlib order as lines: (first, one past the last, closed).
PARTS = (
    (0, 17, False),  # jaw
    (17, 22, False),  # brow on the subject's right
    (22, 27, False),  # brow on the subject's left
    (27, 31, False),  # bridge of the nose
    (31, 36, False),  # under the nose
    (36, 42, True),  # eye on the subject's right
    (42, 48, True),  # eye on the subject's left
    (48, 60, True),  # outer lips
    (60, 68, True),  # inner lips
)

# The pose box in the head frame, metres: the corners of its rear square, then of the larger one in front.
_POSE_BOX = np.array(
    [
        [x, side * y, side * z - 0.03]
        for x, side in ((-0.02, 0.08), (0.07, 0.092))
        for y, z in ((-1, -1), (-1, 1), (1, 1), (1, -1))
    ]
)
_POSE_BOX_EDGES = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])

_SHIFT = 5  # OpenCV draws with coordinates in 1/32 pixel
_FARTHEST = 2**24  # pixels: what those can hold
_BACKGROUND = (38, 34, 32)
_OUTLINE = (30, 30, 30)
_FONT = cv2.FONT_HERSHEY_SIMPLEX

# Unit vectors towards the lights, in the camera frame, and their strengths: above left, and a weak one from the right.
_LIGHTS = (((-0.40, -0.60, -0.70), 0.72), ((0.85, -0.10, -0.50), 0.26))
_AMBIENT = 0.16


@dataclass(frozen=True)
class DrawnFace:
    """What `overlay` shows of a face.

    Attributes
    ----------
    landmarks : (68, 2) array_like
        Pixels.
    label : str
        Text at its box.
    number : int
        Chooses the colour.
    rotation : (3, 3) array_like, optional
        Head frame in the camera frame (columns are its axes).
    origin : (3,) array_like, optional
        Origin of the head frame in the camera frame, metres.
    vertices : (V, 3) array_like, optional
        Mesh: x, y in pixels, third the depth, smaller is nearer.
    """

    landmarks: ArrayLike
    label: str = ""
    number: int = 0
    rotation: ArrayLike | None = None
    origin: ArrayLike | None = None
    vertices: ArrayLike | None = None


def colour_of(number: int) -> Colour:
    """Colour (BGR) of a face by its id."""
    return PALETTE[number % len(PALETTE)]


def angles_text(angles: Sequence[float]) -> str:
    """Yaw, pitch and roll, radians, as a label has them: whole degrees with their signs."""
    names = zip(("yaw", "pitch", "roll"), angles, strict=True)
    return " ".join(f"{name} {round(math.degrees(angle)):+d}" for name, angle in names)


def draw_landmarks(
    image: Picture, points: ArrayLike, colour: Colour = PALETTE[0], *, in_place: bool = False
) -> Picture:
    """Draw 68 landmarks as dots, joined along jaw, brows, nose, eyes and lips.

    Parameters
    ----------
    image : (H, W, 3) uint8
        BGR.
    points : (68, 2) array_like
        Pixels. A part with a point that is not finite is left out.
    in_place : bool
        Draw on the image itself, which saves a copy.
    """
    pixels = np.asarray(points, np.float64)[:, :2]
    out = image if in_place else image.copy()
    size = _size(pixels)
    width = 1 if size < 260 else 2
    for first, last, closed in PARTS:
        part = pixels[first:last]
        if _drawable(part):
            cv2.polylines(out, [_fixed(part)], closed, colour, width, cv2.LINE_AA, _SHIFT)
    radius = float(np.clip(size / 130, 0.9, 4.0))
    dots = pixels[(np.abs(pixels) < _FARTHEST).all(axis=1)]  # false for NaN
    _dots(out, dots, radius + 0.6, _OUTLINE)
    _dots(out, dots, radius, (255, 255, 255))
    return out


def draw_box(image: Picture, box: ArrayLike, label: str = "", colour: Colour = PALETTE[0]) -> Picture:
    """Draw the corners of a box, with a label above it (below where there is no room).

    Parameters
    ----------
    image : (H, W, 3) uint8
        BGR.
    box : (4,) array_like
        Left, top, right, bottom in pixels.
    """
    out = image.copy()
    corners = np.asarray(box, np.float64)
    if not _drawable(corners):
        return out
    left, top, right, bottom = corners
    arm = 0.16 * min(right - left, bottom - top)
    width = 1 if right - left < 120 else 2
    for x, y, dx, dy in ((left, top, 1, 1), (right, top, -1, 1), (left, bottom, 1, -1), (right, bottom, -1, -1)):
        corner = _fixed(np.array([[x + dx * arm, y], [x, y], [x, y + dy * arm]]))
        cv2.polylines(out, [corner], False, colour, width, cv2.LINE_AA, _SHIFT)
    return draw_label(out, label, (left, top), colour, below=bottom) if label else out


def draw_label(
    image: Picture,
    text: str,
    at: tuple[float, float],
    colour: Colour = PALETTE[0],
    *,
    below: float | None = None,
    in_place: bool = False,
) -> Picture:
    """Draw a line of text on a dark, translucent plate, its lower left corner at `at` or as near as the picture allows.

    Parameters
    ----------
    image : (H, W, 3) uint8
        BGR.
    text : str
        ASCII; the drawing font has no more.
    at : (float, float)
        x, y in pixels.
    below : float, optional
        y of the plate's upper edge where there is no room above `at`.
    in_place : bool
        Draw on the image itself.
    """
    out = image if in_place else image.copy()
    height, width = image.shape[:2]
    scale = float(np.clip(min(height, width) / 960, 0.42, 1.6))
    stroke = max(1, round(scale * 1.6))
    (text_width, text_height), base = cv2.getTextSize(text, _FONT, scale, stroke)
    pad = round(8 * scale) + 2
    plate_width, plate_height = text_width + 2 * pad + 3, text_height + base + pad
    top = round(at[1]) - plate_height - 4
    if top < 0:
        top = round(below) + 4 if below is not None and below + 4 + plate_height <= height else 0
    left = int(np.clip(round(at[0]), 0, max(0, width - plate_width)))
    top = int(np.clip(top, 0, max(0, height - plate_height)))
    plate = out[top : top + plate_height, left : left + plate_width]
    plate[:] = np.rint(plate * 0.32 + np.array(_BACKGROUND) * 0.68).astype(np.uint8)
    plate[:, :3] = colour
    origin = (left + 3 + pad, top + pad // 2 + text_height)
    cv2.putText(out, text, origin, _FONT, scale, (245, 245, 245), stroke, cv2.LINE_AA)
    return out


def draw_axes(
    image: Picture,
    rotation: ArrayLike,
    origin: ArrayLike,
    camera: CameraModel,
    length: float = 0.07,
    *,
    in_place: bool = False,
) -> Picture:
    """Draw the axes of a frame: x red, y green, z blue; the farthest first, so that the nearer covers it.

    Parameters
    ----------
    image : (H, W, 3) uint8
        BGR.
    rotation : (3, 3) array_like
        Its columns are the axes in the camera frame.
    origin : (3,) array_like
        Camera frame, metres.
    camera : CameraModel
        With its distortion, so that the axes start at the nose also in the picture of a wide lens.
    length : float
        Of each axis, metres.
    in_place : bool
        Draw on the image itself.
    """
    out = image if in_place else image.copy()
    start = np.asarray(origin, np.float64)
    tips = start + length * np.asarray(rotation, np.float64).T
    points = np.vstack([start, tips])
    if not np.isfinite(points).all():
        return out
    pixels = camera.project(points).astype(np.float64)  # NaN behind the camera
    if not _drawable(pixels):
        return out
    reach = float(np.linalg.norm(pixels[1:] - pixels[0], axis=1).max())
    width = int(np.clip(round(reach / 40), 2, 6))
    for axis in np.argsort(-tips[:, 2]):
        _arrow(out, pixels[0], pixels[1 + axis], AXIS_COLOURS[axis], width)
    _dots(out, pixels[:1], width * 0.9, (255, 255, 255))
    return out


def draw_pose_box(
    image: Picture,
    rotation: ArrayLike,
    origin: ArrayLike,
    camera: CameraModel,
    colour: Colour = PALETTE[0],
    *,
    in_place: bool = False,
) -> Picture:
    """Draw a box before the face that widens towards where it looks, in the camera's perspective.

    The smaller square lies about the face, the larger one 9 cm before it; the farther edges are drawn first.

    Parameters
    ----------
    image : (H, W, 3) uint8
        BGR.
    rotation : (3, 3) array_like
        Head frame in the camera frame (columns are its axes): `HeadPose.rotation`.
    origin : (3,) array_like
        Origin of the head frame, the sellion, in the camera frame, metres: `HeadPose.translation`.
    camera : CameraModel
        With its distortion, as for `draw_axes`.
    colour : (int, int, int)
        BGR.
    in_place : bool
        Draw on the image itself.
    """
    out = image if in_place else image.copy()
    corners = np.asarray(origin, np.float64) + _POSE_BOX @ np.asarray(rotation, np.float64).T
    if not np.isfinite(corners).all():
        return out
    pixels = camera.project(corners).astype(np.float64)  # NaN behind the camera
    if not _drawable(pixels):
        return out
    width = int(np.clip(round(_size(pixels) / 120), 2, 6))
    edges = np.concatenate([_POSE_BOX_EDGES + 4, np.stack([np.arange(4), np.arange(4) + 4], axis=1), _POSE_BOX_EDGES])
    dark = tuple(int(c * 0.55) for c in colour)
    for number in np.argsort(-corners[edges, 2].mean(axis=1), kind="stable"):
        line = _fixed(pixels[edges[number]])
        cv2.polylines(out, [line], False, _OUTLINE, width + 2, cv2.LINE_AA, _SHIFT)
        # The square in front in full colour tells which way the box opens.
        cv2.polylines(out, [line], False, colour if number < 4 else dark, width, cv2.LINE_AA, _SHIFT)
    return out


def draw_reference_pose_box(image: Picture, camera: ArrayLike, landmarks: ArrayLike) -> Picture:
    """Draw the pose box of 3DDFA's code (``--compat``): without perspective, over jaw and brows, light green.

    Parameters
    ----------
    image : (H, W, 3) uint8
        BGR.
    camera : (3, 4) array_like
        The network's: ``Face.parameters[:12].reshape(3, 4)``.
    landmarks : (68, 3) array_like
        Pixels.
    """
    points = np.asarray(landmarks, np.float64)[:, :2]
    rows = np.asarray(camera, np.float64)[:2, :3]
    rear = np.ptp(points, axis=0).max() * math.sqrt(2) / 3
    front = int(rear * 4 / 3)
    signs = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]])
    corners = np.array([[x * half, y * half, z] for half, z in ((rear, 0), (front, front)) for x, y in signs])
    pixels = corners @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T * [1, -1]
    pixels = (pixels - pixels[:4].mean(axis=0) + points[:27].mean(axis=0)).astype(np.int32)
    out = image.copy()
    for square in (pixels[:4], pixels[4:]):
        cv2.polylines(out, [square], True, (40, 255, 0), 2, cv2.LINE_AA)
    for start, end in zip(pixels[:4], pixels[4:], strict=True):
        cv2.line(out, start.tolist(), end.tolist(), (40, 255, 0), 2, cv2.LINE_AA)
    return out


def draw_mesh(
    image: Picture,
    vertices: ArrayLike,
    triangles: ArrayLike,
    colour: Colour = PALETTE[0],
    opacity: float = 0.35,
    *,
    in_place: bool = False,
) -> Picture:
    """Draw a mesh over an image: lit, translucent, in one colour.

    Parameters
    ----------
    image : (H, W, 3) uint8
        BGR.
    vertices : (V, 3) array_like
        x, y in pixels, third the depth in any unit, smaller is nearer.
    triangles : (T, 3) array_like
        Vertex indices, counter-clockwise seen from outside.
    opacity : float
        0 leaves the image, 1 hides it.
    in_place : bool
        Draw on the image itself.
    """
    from radan_ros.rendering import render

    points = np.asarray(vertices, np.float32)
    out = image if in_place else image.copy()
    # Only where the mesh lies: a face fills a small part of most pictures.
    left, top, right, bottom = reach(points, (image.shape[0], image.shape[1]))
    if left >= right or top >= bottom:
        return out
    faces = np.asarray(triangles, np.int32)
    # The third axis only has to be in the scale of the others for the light to fall right.
    light = shade(in_pixels(points), faces, specular=0.1)[:, None]
    tint = np.clip(light * (0.75 * np.array(colour, np.float32) + 0.25 * 255) * 1.15, 0, 255).astype(np.float32)
    placed = points - np.array([left, top, 0], np.float32)
    rendering = render([placed], faces, tint, (bottom - top, right - left))
    # A soft rim instead of stairs.
    cover = cv2.GaussianBlur(np.isfinite(rendering.depth).astype(np.float32), (0, 0), 0.8)
    cover = np.clip(2 * cover - 1, 0, 1) * np.float32(opacity)
    patch = out[top:bottom, left:right]
    patch[:] = cv2.blendLinear(patch, rendering.colour, 1 - cover, cover)
    return out


def shade(vertices: ArrayLike, triangles: ArrayLike, *, specular: float = 0.22) -> NDArray[np.float32]:
    """Lambert's light on every vertex, with a little gloss.

    Parameters
    ----------
    vertices : (V, 3) array_like
        x right, y down, z forward, all in one unit.
    triangles : (T, 3) array_like
        Vertex indices, counter-clockwise seen from outside.
    specular : float
        Strength of the gloss (Blinn and Phong).

    Returns
    -------
    (V,) float32
        0 is black, 1 is white; may be a little more.
    """
    from radan_ros.normals import vertex_normals

    normals = vertex_normals(vertices, triangles)
    light = np.full(len(normals), _AMBIENT, np.float64)
    for direction, strength in _LIGHTS:
        towards = np.array(direction) / np.linalg.norm(direction)
        light += strength * np.clip(normals @ towards, 0, None)
        halfway = towards + np.array([0, 0, -1.0])
        halfway /= np.linalg.norm(halfway)
        light += strength * specular * np.clip(normals @ halfway, 0, None) ** 24
    return light.astype(np.float32)


def shaded_mesh(
    vertices: ArrayLike,
    triangles: ArrayLike,
    size: tuple[int, int] = (480, 480),
    yaw: float = 0.0,
    oversample: int = 3,
    *,
    albedo: ArrayLike = CLAY,
    extent: float | None = None,
) -> Picture:
    """A mesh in grey light on a dark ground, seen from far away (orthographic), filling the picture.

    Parameters
    ----------
    vertices : (V, 3) array_like
        Any unit; seen from the front: x right, y down, z away from the viewer.
    triangles : (T, 3) array_like
        Vertex indices, counter-clockwise seen from outside.
    size : (int, int)
        Height and width of the picture.
    yaw : float
        Radians by which the mesh is turned to the viewer's right before it is looked at.
    oversample : int
        The picture is drawn so many times larger and averaged, against stairs.
    albedo : (3,) or (V, 3) array_like
        Colour of the mesh or of each vertex, BGR, 0 .. 255.
    extent : float, optional
        Height of the picture in the unit of the vertices, its middle at their origin; without it the mesh fills it.
    """
    from radan_ros.rendering import render

    cosine, sine = math.cos(yaw), math.sin(yaw)
    points = np.asarray(vertices, np.float64)
    turn = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    if extent is None:
        points = points - (_low(points) + _high(points)) / 2
    points = points @ turn
    faces = np.asarray(triangles, np.int32)
    height, width = size[0] * oversample, size[1] * oversample
    if extent is None:
        low, high = _low(points), _high(points)
        sides = np.maximum(high - low, 1e-12)
        scale = 0.88 * min(width / sides[0], height / sides[1])
        middle = (low + high) / 2
    else:
        scale, middle = height / extent, np.zeros(3)
    placed = (points - middle) * scale + np.array([(width - 1) / 2, (height - 1) / 2, 0])
    tint = np.clip(shade(points, faces)[:, None] * np.asarray(albedo) * 1.1, 0, 255).astype(np.float32)
    rendering = render([placed.astype(np.float32)], faces, tint, (height, width))
    rows = np.linspace(1.25, 0.75, height, dtype=np.float32)[:, None, None]
    ground = np.broadcast_to(np.array(_BACKGROUND, np.float32) * rows, (height, width, 3))
    seen = np.isfinite(rendering.depth)[:, :, None]
    picture = np.where(seen, rendering.colour, ground).astype(np.float32)
    small = cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.rint(small).astype(np.uint8)


def mesh_views(
    vertices: ArrayLike, triangles: ArrayLike, size: tuple[int, int] = (480, 400), *, albedo: ArrayLike = CLAY
) -> Picture:
    """A mesh from the front, from three quarters and from the side, next to each other.

    Parameters as for `shaded_mesh`; `size` is that of one view.
    """
    return np.hstack([shaded_mesh(vertices, triangles, size, math.radians(y), albedo=albedo) for y in (0, 40, 90)])


def colour_depth(depth: ArrayLike, limits: tuple[float, float] | None = None) -> Picture:
    """A depth image in colours, near is red and far is blue, with a scale in metres at its right.

    Parameters
    ----------
    depth : (H, W) array_like
        Metres; NaN where there is nothing.
    limits : (float, float), optional
        Nearest and farthest depth of the colours; by default those of the image.

    Returns
    -------
    (H, W + scale, 3) uint8
    """
    metres = np.asarray(depth, np.float32)
    seen = np.isfinite(metres)
    height = metres.shape[0]
    picture = np.empty((*metres.shape, 3), np.uint8)
    picture[:] = _BACKGROUND
    if limits is None and seen.any():
        near, far = (float(v) for v in np.percentile(metres[seen], (0.5, 99.5)))
        limits = (near, max(far, near + 1e-3))
    size = float(np.clip(height / 960, 0.4, 1.4))
    margin = np.full((height, round(210 * size), 3), _BACKGROUND, np.uint8)
    if limits is None:
        cv2.putText(picture, "no face", (12, height // 2), _FONT, 2 * size, (180, 180, 180), 1, cv2.LINE_AA)
        return np.hstack([picture, margin])
    near, far = limits
    picture[seen] = _depth_colours(metres[seen], near, far)
    top, bottom = round(0.1 * height), round(0.9 * height)
    left, right = round(20 * size), round(64 * size)
    margin[top:bottom, left:right] = _depth_colours(np.linspace(near, far, bottom - top), near, far)[:, None]
    cv2.putText(margin, "m", (left, max(top - round(16 * size), 8)), _FONT, size, (220, 220, 220), 1, cv2.LINE_AA)
    for tick in _ticks(near, far):
        y = round(top + (bottom - 1 - top) * (tick - near) / (far - near))
        margin[y, right : right + round(14 * size)] = (220, 220, 220)
        text = (right + round(24 * size), y + round(10 * size))
        cv2.putText(margin, f"{tick:.2f}", text, _FONT, size, (220, 220, 220), 1, cv2.LINE_AA)
    return np.hstack([picture, margin])


def overlay(
    image: Picture, faces: Sequence[DrawnFace], camera: CameraModel | None = None, triangles: ArrayLike | None = None
) -> Picture:
    """All that is known of the faces, on the image: mesh tint, landmarks, axes of the head, label.

    Parameters
    ----------
    image : (H, W, 3) uint8
        BGR.
    faces : sequence of DrawnFace
    camera : CameraModel, optional
        Without it no axes.
    triangles : (T, 3) array_like, optional
        Of the meshes; without it no tint.
    """
    out = image.copy()
    # Far to near, so that what is nearer lies on top.
    order = sorted(faces, key=lambda face: -float(np.asarray(face.origin)[2]) if face.origin is not None else 0.0)
    for face in order:
        if face.vertices is not None and triangles is not None:
            draw_mesh(out, face.vertices, triangles, colour_of(face.number), in_place=True)
    for face in order:
        if camera is not None and face.rotation is not None and face.origin is not None:
            draw_axes(out, face.rotation, face.origin, camera, in_place=True)
    for face in order:
        draw_landmarks(out, face.landmarks, colour_of(face.number), in_place=True)
    for face in order:
        label_face(out, face.landmarks, face.label, colour_of(face.number))
    return out


def label_face(out: Picture, landmarks: ArrayLike, label: str, colour: Colour) -> None:
    """Draw a label on the image itself, above the face's forehead, or below its chin where there is no room."""
    points = np.asarray(landmarks, np.float64)[:, :2]
    if label and _drawable(points):
        # The landmarks end at the brows.
        left, top = points.min(axis=0)
        bottom = points[:, 1].max()
        draw_label(out, label, (left, top - 0.55 * (bottom - top)), colour, below=bottom, in_place=True)


def in_pixels(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """A mesh (V, 3), x and y in pixels, with its third axis scaled as x and y are (`pixels_per_depth`)."""
    scaled = points.copy()
    scaled[:, 2] *= pixels_per_depth(points)
    return scaled


def pixels_per_depth(points: NDArray[np.float32]) -> float:
    """About how many pixels one of the third axis of a mesh (V, 3) is, whose x and y are in pixels.

    A head is about as deep as it is wide: the ratio of the extents serves, since it is only for the light.
    """
    extent = _high(points) - _low(points)
    across = float(np.hypot(extent[0], extent[1])) / math.sqrt(2)
    return 0.8 * across / max(float(extent[2]), 1e-9)


def reach(points: NDArray[np.float32], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the finite points in a picture of `size`, with room for a soft rim."""
    rows = np.ascontiguousarray(points.T)  # minima along rows are several times as fast
    x, y = rows[:2, np.isfinite(rows).all(axis=0)]
    if not len(x):
        return 0, 0, 0, 0
    height, width = size
    left, right = np.clip((np.floor(x.min()) - 4, np.ceil(x.max()) + 5), 0, width)
    top, bottom = np.clip((np.floor(y.min()) - 4, np.ceil(y.max()) + 5), 0, height)
    return int(left), int(top), int(right), int(bottom)


def _depth_colours(metres: NDArray[np.floating], near: float, far: float) -> Picture:
    """(N,) depths to (N, 3) BGR: Turbo (Mikhailov, 2019) without its darkest ends, near is red."""
    level = 1 - np.clip((np.asarray(metres, np.float64) - near) / (far - near), 0, 1)
    index = np.rint(20 + level * 215).astype(np.uint8).reshape(-1, 1)
    return np.asarray(cv2.applyColorMap(index, cv2.COLORMAP_TURBO)[:, 0], np.uint8)


def _ticks(low: float, high: float) -> NDArray[np.float64]:
    """Round numbers between two, three to seven of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= 6:
            step *= factor
            break
    return np.asarray(np.arange(math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6) + 1) * step, np.float64)


def _arrow(out: Picture, start: NDArray[np.float64], end: NDArray[np.float64], colour: Colour, width: int) -> None:
    along = end - start
    length = float(np.linalg.norm(along))
    if length < 1:
        return
    along = along / length
    across = np.array([-along[1], along[0]])
    head = min(3.2 * width, 0.5 * length)
    neck = end - head * along
    shaft = (_fixed(start), _fixed(neck))
    tip = _fixed(np.array([end, neck + 0.5 * head * across, neck - 0.5 * head * across]))
    cv2.line(out, *shaft, _OUTLINE, width + 2, cv2.LINE_AA, _SHIFT)
    cv2.polylines(out, [tip], True, _OUTLINE, 3, cv2.LINE_AA, _SHIFT)
    cv2.line(out, *shaft, colour, width, cv2.LINE_AA, _SHIFT)
    cv2.fillPoly(out, [tip], colour, cv2.LINE_AA, _SHIFT)


def _dots(out: Picture, centres: NDArray[np.float64], radius: float, colour: Colour) -> None:
    """Discs with soft edges around (N, 2) pixels; OpenCV's small circles are polygons of few corners."""
    first = np.floor(centres - radius - 1).astype(np.int64)
    reach = np.arange(int(2 * radius) + 5)
    columns, rows = first[:, :1] + reach, first[:, 1:] + reach
    distance = np.hypot(rows[:, :, None] - centres[:, 1, None, None], columns[:, None] - centres[:, 0, None, None])
    cover = np.clip(radius + 0.5 - distance, 0, 1)
    height, width = out.shape[:2]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None] & (cover > 0)
    pixels = (rows[:, :, None] * width + columns[:, None])[inside]
    # Of two discs over a pixel the one that covers more of it, which is written last, counts.
    order = np.argsort(cover[inside])
    pixels, share = pixels[order], cover[inside][order][:, None]
    flat = out.reshape(-1, 3)
    flat[pixels] = np.rint(flat[pixels] * (1 - share) + np.array(colour) * share)


def _low(points: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(np.nanmin(np.ascontiguousarray(points.T), axis=1), np.float64)


def _high(points: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(np.nanmax(np.ascontiguousarray(points.T), axis=1), np.float64)


def _size(points: NDArray[np.float64]) -> float:
    finite = points[np.isfinite(points).all(axis=1)]
    return float(np.sqrt(np.prod(np.ptp(finite, axis=0)))) if len(finite) else 0.0


def _drawable(points: NDArray[np.float64]) -> bool:
    """Whether OpenCV's fixed-point coordinates can hold these."""
    return bool((np.abs(points) < _FARTHEST).all())  # false for NaN


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(points * 2**_SHIFT).astype(np.int32)
