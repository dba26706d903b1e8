"""Textures of faces: a mesh laid out flat, and the picture on it, with what the camera does not see filled in."""

from __future__ import annotations

from dataclasses import dataclass
from threading import RLock
from typing import NamedTuple
from weakref import WeakKeyDictionary

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros import drawing
from radan_ros.face_models import FaceModel
from radan_ros.face_models.mirror import mirror_vertices
from radan_ros.normals import vertex_normals

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]

# A colour is taken from the image where the surface is turned to the camera by at least such a cosine. The nearer the
# silhouette is (distance as a share of the face's size in the image), the larger it has to be: there a small error of
# the shape shows the background.
_FROM_EDGE, _FACING = (0.02, 0.035, 0.06), (0.7, 0.35, 0.12)
# So far beside a nearer part (the nose before the cheek) nothing is taken: an error of the shape shows that part.
_BESIDE = 0.012
# Depth that a surface may be behind the rendered one and is still the same: a share of the face's size.
_SAME = 0.02
_STEPS = 24  # of relaxation at each resolution of a filled picture


@dataclass(frozen=True)
class Texture:
    """A texture, its first row at the top (v = 1), as image files have it.

    Attributes
    ----------
    picture : (S, S, 3) uint8
        BGR, without holes.
    visible : (S, S) bool
        Texels whose colour comes from their own place in the image; the others were filled in, or belong to no
        triangle.
    """

    picture: NDArray[np.uint8]
    visible: NDArray[np.bool_]


def unwrap(face_model: FaceModel) -> Floats:
    """Texture coordinates of a face model: its own, or an injective unwrapping of its mean face; computed once.

    Each connected piece becomes a disc by Floater's mean value coordinates (2003), its longest border on a rounded
    square; other holes (the mouth) stay holes.

    Returns
    -------
    (V, 2) float32
        0 .. 1, u to the texture's right, v up.

    Raises
    ------
    ValueError
        When the model has none, and its mesh cannot be laid flat: a piece of it is closed or has handles.
    """
    if face_model.uv is not None:
        return face_model.uv
    with _once:
        if face_model not in _unwrapped:
            _unwrapped[face_model] = _laid_flat(face_model)
        return _unwrapped[face_model]


def mirror_uv(face_model: FaceModel) -> Floats:
    """Where the other side of the face is in the texture: for each vertex, `unwrap` of its mirror image; computed once.

    Of a model that is not mirror symmetric, the point of the mean face next to the mirror image.

    Returns
    -------
    (V, 2) float32
        Texture coordinates: what `sample_texture` takes as `mirror`.
    """
    with _once:
        if face_model not in _mirrored:
            _mirrored[face_model] = _of_the_other_side(unwrap(face_model), face_model)
        return _mirrored[face_model]


_once = RLock()  # threads that ask at the same time wait for the first
_unwrapped: WeakKeyDictionary[FaceModel, Floats] = WeakKeyDictionary()
_mirrored: WeakKeyDictionary[FaceModel, Floats] = WeakKeyDictionary()


def sample_texture(
    image: NDArray[np.uint8],
    vertices: ArrayLike,
    triangles: ArrayLike,
    uv: ArrayLike,
    size: int = 1024,
    mirror: ArrayLike | None = None,
    *,
    depth: Floats | None = None,
) -> Texture:
    """Texture of a face in an image.

    What the camera does not see well (hidden, near the silhouette, outside the image) is taken from the other side of
    the face and brought to the light of this one: the difference of the two at the edge of what is seen is continued
    smoothly over the hidden part, so that there is no seam (Perez et al., "Poisson image editing", 2003). What is seen
    on neither side is filled smoothly.

    Parameters
    ----------
    image : (H, W, 3) uint8
        BGR.
    vertices : (V, 3) array_like
        x, y in pixels (NaN where not in front of the camera), third the depth in any unit, smaller is nearer: of
        `Pipeline.vertices` or `metric.mesh_in_image`.
    triangles : (T, 3) array_like
        Vertex indices, counter-clockwise seen from outside.
    uv : (V, 2) array_like
        Texture coordinates: `unwrap`.
    size : int
        Side of the texture in pixels.
    mirror : (V, 2) array_like, optional
        `mirror_uv`: hidden parts are filled from the other side. Without it they are filled smoothly.
    depth : (H, W) float32, optional
        Depth of all faces in the image, in the unit of `vertices`, NaN where there is none (`Rendering.depth`): faces
        then hide each other. Without it a face hides only itself.
    """
    points, faces = np.asarray(vertices, np.float32), np.asarray(triangles, np.int64)
    flat = flatten_to_texels(uv, faces, size)
    place = _interpolated(points, faces[flat.triangle], flat.weights)
    facing = -vertex_normals(drawing.in_pixels(points), faces)[:, 2]
    turned = _interpolated(facing[:, None], faces[flat.triangle], flat.weights)[:, 0]

    visible = np.zeros((size, size), bool)
    visible[flat.row, flat.column] = _seen_well(points, faces, place, turned, image.shape[:2], depth)
    at = np.zeros((size, size, 2), np.float32)
    at[flat.row, flat.column] = np.nan_to_num(place[:, :2])
    own = cv2.remap(image, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    if mirror is None:
        return Texture(_as_picture(_filled(own, visible)), visible)

    other = np.full((size, size, 2), -1, np.float32)
    there = _interpolated(np.asarray(mirror, np.float32), faces[flat.triangle], flat.weights)
    other[flat.row, flat.column] = _to_texels(there, size)
    opposite = cv2.remap(own, other, None, cv2.INTER_LINEAR)
    seen_there = cv2.remap(visible.astype(np.float32), other, None, cv2.INTER_LINEAR) > 0.9995
    base = _filled(opposite, seen_there)
    return Texture(_as_picture(np.where(visible[..., None], own, base + _filled(own - base, visible))), visible)


class Texels(NamedTuple):
    """The N texels of a texture whose centres lie in a triangle.

    Attributes
    ----------
    row, column, triangle : (N,) integers
    weights : (N, 3) float32
        Of the triangle's corners; their sum is 1.
    """

    row: NDArray[np.integer]
    column: NDArray[np.integer]
    triangle: NDArray[np.integer]
    weights: Floats


def flatten_to_texels(uv: ArrayLike, triangles: ArrayLike, size: int | tuple[int, int]) -> Texels:
    """Which triangle covers which texel of a texture, and where in it.

    Parameters
    ----------
    uv : (V, 2) or (V, 3) array_like
        Texture coordinates; of triangles that overlap, those with the smaller third coordinate win.
    triangles : (T, 3) array_like
    size : int or (int, int)
        Side of the texture, or its height and width.
    """
    from radan_ros.rendering import render

    height, width = (size, size) if isinstance(size, int) else size
    faces = np.asarray(triangles, np.int64)
    places = np.asarray(uv, np.float64)
    corners = np.zeros((len(faces), 3, 3))
    corners[..., : places.shape[1]] = places[faces]
    corners[..., 0] = corners[..., 0] * width - 0.5
    corners[..., 1] = (1 - corners[..., 1]) * height - 0.5
    # Each triangle in a colour of its own, as three digits. The half keeps the truncation of the renderer away.
    digits = np.arange(len(faces))[:, None] // [1, 128, 128**2] % 128 + 0.5
    apart = np.arange(3 * len(faces)).reshape(-1, 3)
    picture = render([corners.reshape(-1, 3).astype(np.float32)], apart, np.repeat(digits, 3, axis=0), (height, width))
    row, column = np.nonzero(np.isfinite(picture.depth))
    triangle = picture.colour[row, column] @ np.array([1, 128, 128**2])
    a, b, c = (corners[triangle, k, :2] for k in range(3))
    texel = np.stack([column, row], axis=1).astype(np.float64)
    area = _cross(b - a, c - a)
    weights = np.stack(
        [_cross(b - texel, c - texel), _cross(c - texel, a - texel), _cross(a - texel, b - texel)], axis=1
    )
    return Texels(row, column, triangle, (weights / area[:, None]).astype(np.float32))


def _seen_well(
    points: Floats, faces: Indices, place: Floats, turned: Floats, size: tuple[int, int], depth: Floats | None
) -> NDArray[np.bool_]:
    """Whether the image shows surface points (N, 3) well enough to take their colours: (N,).

    `turned` has the cosine between the camera's axis and the normal at each of them.
    """
    from radan_ros.rendering import render

    left, top, right, bottom = drawing.reach(points, size)
    if left >= right or top >= bottom:
        return np.zeros(len(place), bool)
    if depth is None:
        part, codes = points - np.array([left, top, 0], np.float32), np.zeros((len(points), 3), np.uint8)
        depth = render([part], faces, codes, (bottom - top, right - left), colour=False).depth
    else:
        depth = depth[top:bottom, left:right]
    # The third axis in the scale of the others.
    to_pixels = drawing.pixels_per_depth(points)
    covered = np.asarray(np.isfinite(depth), np.bool_)
    extent = np.nanmax(points[:, :2], axis=0) - np.nanmin(points[:, :2], axis=0)
    face_size = float(np.sqrt(np.prod(extent)))

    pixel = np.rint(np.nan_to_num(place[:, :2], nan=-1e6)).astype(np.int64) - (left, top)
    inside = np.logical_and.reduce((pixel >= 0) & (pixel < (right - left, bottom - top)), axis=1)
    column, row = np.where(inside[:, None], pixel, 0).T
    beside = max(1, round(_BESIDE * face_size))
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * beside + 1, 2 * beside + 1))
    nearest = np.asarray(cv2.erode(np.where(covered, depth, np.float32(np.inf)), window))[row, column]
    steepness = np.sqrt(np.maximum(1 - turned**2, 0)) / np.maximum(turned, 1e-3)
    same = place[:, 2] - nearest < (1.5 * beside * steepness + _SAME * face_size) / to_pixels
    from_edge = np.asarray(cv2.distanceTransform(covered.astype(np.uint8), cv2.DIST_L2, 5))[row, column]
    turned_enough = turned > np.interp(from_edge / face_size, _FROM_EDGE, _FACING)
    # Within two pixels of the edge, interpolation reaches over it.
    return np.asarray(inside & same & turned_enough & (from_edge > 2))


def _filled(values: Floats, known: NDArray[np.bool_]) -> Floats:
    """A picture (H, W, 3) whose unknown pixels continue the known ones smoothly: Laplace's equation, coarse to fine."""
    if not known.any():
        return np.full_like(values, 128)
    if known.all():
        return values
    height, width = known.shape
    if min(height, width) <= 4:
        return np.where(known[..., None], values, values[known].mean(axis=0))
    half = ((width + 1) // 2, (height + 1) // 2)
    weight = known.astype(np.float32)
    share = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    mean = cv2.resize(values * weight[..., None], half, interpolation=cv2.INTER_AREA)
    coarse = _filled(mean / np.maximum(share, 1e-6)[..., None], share > 0)
    out = np.where(known[..., None], values, cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))
    unknown = (~known).astype(np.uint8)
    for _ in range(_STEPS):
        cv2.copyTo(cv2.blur(out, (3, 3), borderType=cv2.BORDER_REPLICATE), unknown, out)
    return out


def _as_picture(values: Floats) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _to_texels(uv: Floats, size: int) -> Floats:
    """Texture coordinates to columns and rows, texel centres at integers."""
    return np.stack([uv[:, 0] * size - 0.5, (1 - uv[:, 1]) * size - 0.5], axis=1).astype(np.float32)


def _interpolated(values: NDArray[np.floating], corners: NDArray[np.integer], weights: NDArray[np.floating]) -> Floats:
    """Values (V, n) of vertices at points of triangles, whose corners (N, 3) and weights (N, 3) are given: (N, n)."""
    return np.asarray(sum(values[corners[:, k]] * weights[:, k : k + 1] for k in range(3)), np.float32)


def _cross(a: Doubles, b: Doubles) -> Doubles:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _nearest_points(
    points: Doubles, triangles: NDArray[np.integer], queries: Doubles
) -> tuple[NDArray[np.integer], Doubles]:
    """Points of a mesh next to others: corners (N, 3) of their triangles, and weights (N, 3).

    Looked for in the triangles around the next vertex; beside a triangle, its weights are cut to 0 .. 1, which is not
    quite the nearest point.
    """
    from scipy.spatial import cKDTree

    nearest = cKDTree(points).query(queries)[1]
    order = np.argsort(triangles.ravel(), kind="stable")
    count = np.bincount(triangles.ravel(), minlength=len(points))
    first = np.cumsum(count) - count
    best = np.full(len(queries), np.inf)
    corners = np.repeat(nearest[:, None], 3, axis=1)
    weights = np.tile([1.0, 0.0, 0.0], (len(queries), 1))
    for k in range(count.max()):
        some = np.flatnonzero(count[nearest] > k)
        candidate = triangles[order[first[nearest[some]] + k] // 3]
        a, b, c = (points[candidate[:, i]] for i in range(3))
        u, v, w = b - a, c - a, queries[some] - a
        uu, uv, vv, wu, wv = ((p * q).sum(axis=1) for p, q in ((u, u), (u, v), (v, v), (w, u), (w, v)))
        area = np.maximum(uu * vv - uv * uv, 1e-30)
        s, t = (vv * wu - uv * wv) / area, (uu * wv - uv * wu) / area
        inside = np.clip(np.stack([1 - s - t, s, t], axis=1), 0, None)
        inside /= inside.sum(axis=1, keepdims=True)
        foot = inside[:, :1] * a + inside[:, 1:2] * b + inside[:, 2:] * c
        distance = np.linalg.norm(foot - queries[some], axis=1)
        closer = distance < best[some]
        best[some[closer]], corners[some[closer]], weights[some[closer]] = (
            distance[closer],
            candidate[closer],
            inside[closer],
        )
    return corners, weights


def _of_the_other_side(uv: Floats, face_model: FaceModel) -> Floats:
    try:
        return uv[mirror_vertices(face_model)]
    except ValueError:  # it is not symmetric
        mean = face_model.mean.astype(np.float64)
        corners, weights = _nearest_points(mean, face_model.triangles, mean * (-1, 1, 1))
        return _interpolated(uv, corners, weights)


def _laid_flat(face_model: FaceModel) -> Floats:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    points, triangles = face_model.mean.astype(np.float64), face_model.triangles.astype(np.int64)
    edges = np.concatenate([triangles[:, :2], triangles[:, 1:]])
    shape = (len(points), len(points))
    piece = connected_components(coo_array((np.ones(len(edges)), edges.T), shape), directed=False)[1]
    sizes = np.bincount(piece[triangles[:, 0]], minlength=piece.max() + 1)
    pieces = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    side = int(np.ceil(np.sqrt(len(pieces))))  # the pieces lie in the squares of a board
    uv = np.zeros((len(points), 2))
    for i, number in enumerate(pieces):
        inside = np.flatnonzero(piece == number)
        own = np.searchsorted(inside, triangles[piece[triangles[:, 0]] == number])
        try:
            uv[inside] = (_disc(points[inside], own) + (i % side, side - 1 - i // side)) / side
        except ValueError as error:
            raise ValueError(f"face model {face_model.name} cannot be laid flat: {error}") from None
    flat = uv.astype(np.float32)
    a, b, c = (flat[triangles[:, k]].astype(np.float64) for k in range(3))
    if (_cross(b - a, c - a) <= 0).any():
        raise ValueError(f"face model {face_model.name} cannot be laid flat: its triangles would overlap")
    return flat


def _disc(points: Doubles, triangles: Indices) -> Doubles:
    """A connected mesh with a border laid flat: (V, 2) in 0 .. 1, its longest border on a rounded square."""
    from scipy.sparse import coo_array, csr_array
    from scipy.sparse.csgraph import connected_components, depth_first_order

    from radan_ros.face_models.making import meshing

    border = meshing.edges_of(triangles)[1]
    if not len(border):
        raise ValueError("a piece of it is closed")
    if len(np.unique(border[:, 0])) < len(border):
        raise ValueError("two of its borders touch")
    shape = (len(points), len(points))
    loop = connected_components(coo_array((np.ones(len(border)), border.T), shape), directed=False)[1][border[:, 0]]
    step = points[border[:, 1]] - points[border[:, 0]]
    outer = np.bincount(loop, np.linalg.norm(step, axis=1)).argmax()

    # A mesh without holes maps without overlaps: each hole gets one more vertex, joined to its border.
    holes, number = np.unique(loop[loop != outer], return_inverse=True)
    rim = border[loop != outer]
    centres = (
        np.stack([points[rim[number == i, 0]].mean(axis=0) for i in range(len(holes))]) if len(holes) else points[:0]
    )
    closed = np.concatenate([triangles, np.column_stack([rim[:, ::-1], len(points) + number])])

    along = border[loop == outer]
    next_one = csr_array((np.ones(len(along)), along.T), shape)
    around = points[along[:, 0]] - points[along[:, 0]].mean(axis=0)
    # Its middle above and below.
    upper, lower = around[:, 1] - np.abs(around[:, 0]), around[:, 1] + np.abs(around[:, 0])
    lower[upper.argmax()] = np.inf
    top, lowest = along[[upper.argmax(), lower.argmin()], 0]
    ring = depth_first_order(next_one, top, directed=True, return_predecessors=False).astype(np.int64)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points[ring], axis=0), axis=1))])
    whole = length[-1] + np.linalg.norm(points[ring[-1]] - points[top])
    half = length[ring == lowest][0]
    # From the top over the face's right to the bottom, and back over its left.
    angle = np.pi / 2 + np.pi * np.interp(length, [0, half, whole], [0, 1, 2])
    c, s = np.cos(angle), np.sin(angle)
    radius = 0.48 * (np.abs(c) ** 4 + np.abs(s) ** 4) ** -0.25
    places = np.stack([0.5 + radius * c, 0.5 + radius * s], axis=1)
    if len(ring) == len(points) + len(centres):  # no vertex inside
        return places[np.argsort(ring)]
    return meshing.flatten(np.concatenate([points, centres]), closed, ring, places)[: len(points)]
