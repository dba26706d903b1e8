"""Small tools on triangle meshes. Points (n, 3) in metres, triangles (t, 3) of 0-based indices."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from radan_ros.compiled import compiled

Floats = NDArray[np.float32]
Triangles = NDArray[np.int32]


class Part(NamedTuple):
    """A piece of the scene: points (n, 3), triangles (t, 3), linear RGB albedo (n, 3), gloss (n,) of its highlights."""

    points: Floats
    triangles: Triangles
    albedo: Floats
    gloss: Floats


def part(points: Any, triangles: Triangles, albedo: Any, gloss: Any) -> Part:
    """A `Part` of one gloss and of one colour, or as many as points; a grid of both is made a list."""
    xyz = np.ascontiguousarray(points, np.float32).reshape(-1, 3)
    colours = np.asarray(albedo, np.float32)
    colours = colours.reshape(-1, 3) if colours.ndim > 1 else np.broadcast_to(colours, xyz.shape)
    return Part(xyz, triangles, colours, np.broadcast_to(np.float32(gloss), len(xyz)))


def refine(triangles: Triangles, chosen: NDArray[np.bool_], vertex_count: int) -> tuple[Triangles, NDArray[np.int32]]:
    """Cut chosen triangles into four at the middles of their sides.

    Neighbours that are not chosen stay whole: the new points lie on their sides, so that nothing gapes.

    Parameters
    ----------
    triangles : (t, 3) int32
    chosen : (t,) bool
    vertex_count : int

    Returns
    -------
    triangles : (t + 3 * chosen.sum(), 3) int32
        The new points have the indices from vertex_count on.
    ends : (m, 2) int32
        The two old points between which each new one lies.
    """
    cut = triangles[chosen]
    sides = np.sort(np.concatenate([cut[:, [0, 1]], cut[:, [1, 2]], cut[:, [2, 0]]]), axis=1)
    ends, where = np.unique(sides, axis=0, return_inverse=True)
    ab, bc, ca = (where.reshape(3, -1) + vertex_count).astype(np.int32)
    a, b, c = cut.T
    small = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    pieces = [triangles[~chosen], *(np.stack(corners, axis=1) for corners in small)]
    return np.concatenate(pieces).astype(np.int32), ends.astype(np.int32)


def outer_border(triangles: Triangles) -> NDArray[np.int32]:
    """The longest closed chain of sides that belong to one triangle only, as an ordered list of points.

    Raises
    ------
    ValueError
        The mesh has no border.
    """
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    _, first, count = np.unique(np.sort(sides, axis=1), axis=0, return_index=True, return_counts=True)
    following = {int(a): int(b) for a, b in sides[first[count == 1]]}
    if not following:
        raise ValueError("the face model's mesh has no border: a face, not a whole head, is needed")
    chains = []
    while following:
        start, point = following.popitem()
        chain = [start]
        while point in following:
            chain.append(point)
            point = following.pop(point)
        chains.append(chain)
    return np.array(max(chains, key=len), np.int32)


@cache
def grid_triangles(rows: int, columns: int, *, closed: bool = False) -> Triangles:
    """Triangles of points in a (rows, columns) grid; `closed` joins the last column to the first."""
    row = np.arange(rows - 1)[:, None]
    column = np.arange(columns if closed else columns - 1)[None, :]
    beside = (column + 1) % columns
    a, b = row * columns + column, row * columns + beside
    c, d = a + columns, b + columns
    halves = [np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)]
    triangles = np.concatenate(halves).astype(np.int32)
    triangles.flags.writeable = False  # the same array is given to all
    return triangles


def tube(path: Any, radii: Any, sides: int = 10, *, closed: bool = False) -> tuple[Floats, Triangles]:
    """A tube around a line.

    Parameters
    ----------
    path : (n, 3) array_like
    radii : float or (n,) array_like
    sides : int
    closed : bool
        The line ends where it begins.
    """
    line = np.asarray(path, np.float64)
    along = np.roll(line, -1, axis=0) - np.roll(line, 1, axis=0) if closed else np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-12
    # Any direction that no part of the line has: the one along which it extends least.
    reference = np.eye(3)[np.abs(along).max(axis=0).argmin()]
    u = np.cross(along, reference)
    u /= np.linalg.norm(u, axis=1, keepdims=True) + 1e-12
    v = np.cross(along, u)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    r = np.broadcast_to(np.asarray(radii, np.float64), len(line))[:, None, None]
    ring = line[:, None] + r * (np.cos(angle)[:, None] * u[:, None] + np.sin(angle)[:, None] * v[:, None])
    triangles = grid_triangles(len(line) + closed, sides, closed=True) % (len(line) * sides)
    return ring.reshape(-1, 3).astype(np.float32), triangles.astype(np.int32)


def ellipsoid(centre: Any, radii: Any, rows: int = 9, columns: int = 14) -> tuple[Floats, Triangles]:
    """A closed ellipsoid with its poles along the second axis."""
    polar, around = np.meshgrid(
        np.linspace(0, np.pi, rows), np.linspace(0, 2 * np.pi, columns, endpoint=False), indexing="ij"
    )
    unit = np.stack([np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)], -1)
    points = unit.reshape(-1, 3) * np.asarray(radii) + np.asarray(centre)
    return points.astype(np.float32), grid_triangles(rows, columns, closed=True)


def signed_distance(points: Floats, polygon: NDArray[Any]) -> Floats:
    """Distance of points (n, 2) to the edge of a polygon (m, 2), negative inside."""
    p = points[:, None].astype(np.float32)
    a = polygon[None].astype(np.float32)
    b = np.roll(a, -1, axis=1)
    side = b - a
    t = np.clip(((p - a) * side).sum(-1) / np.maximum((side**2).sum(-1), 1e-12), 0, 1)
    distance = np.sqrt((((a + t[..., None] * side) - p) ** 2).sum(-1)).min(axis=1)
    straddles = (a[..., 1] > p[..., 1]) != (b[..., 1] > p[..., 1])
    run = np.where(side[..., 1] == 0, 1, side[..., 1])
    crosses = straddles & (p[..., 0] < a[..., 0] + (p[..., 1] - a[..., 1]) / run * side[..., 0])
    return np.where(crosses.sum(axis=1) % 2 == 1, -distance, distance).astype(np.float32)


def smooth_step(value: Any, low: float, high: float) -> Any:
    """0 at low and before, 1 at high and after, smooth between; low may be the larger."""
    t = np.clip((value - np.float32(low)) * np.float32(1.0 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


@compiled
def turned(points: Any, rotation: Any) -> Any:
    """Points (n, 3) float32 turned by a rotation (3, 3) float32. (BLAS would wake threads for it.)"""
    result = np.empty_like(points)
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        for c in range(3):
            result[i, c] = rotation[c, 0] * x + rotation[c, 1] * y + rotation[c, 2] * z
    return result
