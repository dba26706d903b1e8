"""Triangle meshes by relaxation: curves cut by a size, edge flips, centroids on a surface, flat maps.

Nothing here knows of faces. All functions are deterministic, and coordinates are rounded wherever an iteration would
let the last bits of one CPU or another grow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.linalg import spsolve

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


def cut_curve(curve: Array, size: Callable[[Array], Array], multiple: int = 1) -> Array:
    """Points along a curve, as far from each other as `size` says.

    Parameters
    ----------
    curve : (M, 3) float64
        A fine polyline.
    size : (N, 3) -> (N,)
        Wanted distance at a place.
    multiple : int
        The number of pieces is a multiple of it.

    Returns
    -------
    (n, 3) float64
        From the first to the last point of the curve, both included, n >= 2.
    """
    steps = np.sqrt((np.diff(curve, axis=0) ** 2).sum(1))
    needed = np.concatenate([[0.0], np.cumsum(steps / size((curve[1:] + curve[:-1]) / 2))])
    pieces = max(1, round(float(needed[-1]) / multiple)) * multiple
    at = np.linspace(0.0, needed[-1], pieces + 1)
    return np.stack([np.interp(at, needed, curve[:, axis]) for axis in range(curve.shape[1])], axis=1)


def inside_polygon(points: Array, polygon: Array) -> NDArray[np.bool_]:
    """Whether (N, 2) points lie inside a closed polygon (M, 2), by the even-odd rule."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    x, y = points[:, :1], points[:, 1:]
    crosses = (start[:, 1] > y) != (end[:, 1] > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = start[:, 0] + (y - start[:, 1]) * (end[:, 0] - start[:, 0]) / (end[:, 1] - start[:, 1])
        return (np.count_nonzero(crosses & (x < at), axis=1) % 2).astype(bool)


def edges_of(triangles: Indices) -> tuple[Indices, Indices]:
    """Inner edges of a mesh, and those of its border.

    Parameters
    ----------
    triangles : (T, 3) int64

    Returns
    -------
    inner : (E, 6) int64
        Columns a, b, c, d, s, t: triangle s has the directed edge a-b and the corner c, triangle t has b-a and d.
    border : (B, 2) int64
        Directed as in their only triangle.
    """
    count = len(triangles)
    a, b, c = (triangles[:, [k, (k + 1) % 3, (k + 2) % 3]].T for k in range(3))
    start, end, tip = (np.concatenate([a[k], b[k], c[k]]) for k in range(3))
    owner = np.tile(np.arange(count), 3)
    key = np.minimum(start, end) * (triangles.max() + 1) + np.maximum(start, end)
    order = np.lexsort([start, key])
    key, start, end, tip, owner = key[order], start[order], end[order], tip[order], owner[order]
    twin = np.flatnonzero(key[1:] == key[:-1])
    inner = np.stack([start[twin], end[twin], tip[twin], tip[twin + 1], owner[twin], owner[twin + 1]], axis=1)
    single = np.ones(len(key), bool)
    single[twin] = single[twin + 1] = False
    return inner, np.stack([start[single], end[single]], axis=1)


def flip_edges(points: Array, triangles: Indices, rounds: int) -> Indices:
    """Turn edges whose opposite angles sum to more than 180 degrees (Delaunay's rule on a surface).

    Parameters
    ----------
    points : (N, 3) float64
    triangles : (T, 3) int64
    rounds : int
        In each, a set of edges of which no two belong to one triangle is turned, worst first.

    Returns
    -------
    (T, 3) int64
    """
    triangles = triangles.copy()
    base = triangles.max() + 1
    for _ in range(rounds):
        inner, border = edges_of(triangles)
        a, b, c, d, s, t = inner.T
        excess = -(_cotangent(points, c, a, b) + _cotangent(points, d, a, b))
        normal = _normals(points, np.stack([a, b, c], 1)) + _normals(points, np.stack([b, a, d], 1))
        upright = (_normals(points, np.stack([a, d, c], 1)) * normal).sum(1) > 0
        upright &= (_normals(points, np.stack([d, b, c], 1)) * normal).sum(1) > 0
        keys = np.minimum(c, d) * base + np.maximum(c, d)
        existing = np.minimum(inner[:, 0], inner[:, 1]) * base + np.maximum(inner[:, 0], inner[:, 1])
        rim = border.min(1) * base + border.max(1)
        bad = np.flatnonzero((excess > 1e-3) & upright & ~np.isin(keys, existing) & ~np.isin(keys, rim))
        if not len(bad):
            break
        rank = np.empty(len(bad), np.int64)
        rank[np.lexsort([bad, np.round(excess[bad], 6)])] = np.arange(len(bad))
        best = np.full(len(triangles), -1)
        np.maximum.at(best, s[bad], rank)
        np.maximum.at(best, t[bad], rank)
        chosen = bad[(best[s[bad]] == rank) & (best[t[bad]] == rank)]
        chosen = chosen[np.unique(keys[chosen], return_index=True)[1]]
        triangles[s[chosen]] = np.stack([a, d, c], 1)[chosen]
        triangles[t[chosen]] = np.stack([d, b, c], 1)[chosen]
    return triangles


def relax(
    points: Array,
    triangles: Indices,
    fixed: NDArray[np.bool_],
    size: Callable[[Array], Array],
    project: Callable[[Array], Array],
    rounds: int,
    grid: float,
) -> tuple[Array, Indices]:
    """Even out a mesh on a surface: centroids of the triangles around, weighted by density, and edge flips in between.

    Parameters
    ----------
    points : (N, 3) float64
    triangles : (T, 3) int64
    fixed : (N,) bool
        Points that stay.
    size : (N, 3) -> (N,)
        Wanted edge length at a place.
    project : (N, 3) -> (N, 3)
        Onto the surface.
    rounds : int
    grid : float
        Coordinates are rounded to it after every round.

    Returns
    -------
    points, triangles
    """
    points = np.round(points / grid) * grid
    triangles = flip_edges(points, triangles, 60)
    free = np.flatnonzero(~fixed)
    for _ in range(rounds):
        corners = points[triangles]
        centre = corners.mean(1)
        doubled = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        weight = np.sqrt((doubled * doubled).sum(1)) / size(centre) ** 4
        corner = triangles.T.ravel()
        sums = np.stack(
            [np.bincount(corner, np.tile(w, 3), len(points)) for w in (*(weight * centre.T), weight)], axis=1
        )
        target = sums[free, :3] / sums[free, 3:]
        # Whole steps would swing to and fro between neighbours.
        points[free] = np.round(project(points[free] + 0.6 * (target - points[free])) / grid) * grid
        triangles = flip_edges(points, triangles, 2)
    return points, flip_edges(points, triangles, 60)


def flatten(points: Array, triangles: Indices, fixed: Indices, places: Array) -> Array:
    """A flat map without overlaps (Floater's mean value coordinates) of a mesh with a convex fixed border.

    Parameters
    ----------
    points : (N, 3) float64
    triangles : (T, 3) int64
    fixed : (n,) int64
        Vertices whose places are given; all border vertices of the mesh, along a convex polygon.
    places : (n, 2) float64

    Returns
    -------
    (N, 2) float64
    """
    corners = points[triangles]
    rows, columns, values = [], [], []
    for k in range(3):
        here, left, right = corners[:, k], corners[:, (k + 1) % 3], corners[:, (k + 2) % 3]
        to_left, to_right = left - here, right - here
        r1, r2 = np.sqrt((to_left**2).sum(1)), np.sqrt((to_right**2).sum(1))
        cosine = (to_left * to_right).sum(1) / (r1 * r2)
        half = np.sqrt(np.maximum(1 - cosine, 0) / np.maximum(1 + cosine, 1e-12))
        rows += [triangles[:, k], triangles[:, k]]
        columns += [triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3]]
        values += [half / r1, half / r2]
    count = len(points)
    weights = coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (count, count)
    ).tocsr()
    total = np.asarray(weights.sum(1)).ravel()
    result = np.zeros((count, 2))
    result[fixed] = places
    free = np.setdiff1d(np.arange(count), fixed)
    system = csr_matrix((total[free], (np.arange(len(free)), np.arange(len(free))))) - weights[free][:, free]
    known = weights[free][:, fixed] @ places
    result[free] = spsolve(system.tocsc(), known)
    return result


def ladder(outer: Indices, inner: Indices) -> Indices:
    """Triangles between two rows of vertices of the same length, counter-clockwise where `inner` is left of `outer`."""
    a, b, c, d = outer[:-1], outer[1:], inner[1:], inner[:-1]
    return np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def halving(outer: Indices, inner: Indices) -> Indices:
    """Triangles between a ring and one of half as many vertices, each beside an even one of `outer`, inside it."""
    even, odd, next_even = outer[::2], outer[1::2], np.roll(outer[::2], -1)
    after = np.roll(inner, -1)
    return np.concatenate([
        np.stack([even, odd, inner], 1), np.stack([odd, after, inner], 1), np.stack([odd, next_even, after], 1)
    ])  # fmt: skip


def disc(rings: int) -> tuple[Array, Indices]:
    """A disc of even triangles: a centre and rings of 6, 12, 18 ... vertices.

    Returns
    -------
    polar : (N, 2) float64
        Radius 0 .. 1 and angle of each vertex; the rings start at angle 0 and run counter-clockwise.
    triangles : (T, 3) int64
    """
    radius = np.concatenate([[0.0], np.repeat(np.arange(1, rings + 1) / rings, 6 * np.arange(1, rings + 1))])
    angle = np.concatenate([[0.0], *(2 * np.pi * np.arange(6 * k) / (6 * k) for k in range(1, rings + 1))])
    triangles = []
    for k in range(1, rings + 1):
        first, below = 1 + 3 * k * (k - 1), 1 + 3 * (k - 1) * (k - 2) if k > 1 else 0
        n, m = 6 * k, max(6 * (k - 1), 1)
        i = np.arange(n)
        start = i - i // k  # the inner ring has one vertex less per sixth
        triangles.append(np.stack([first + i, first + (i + 1) % n, below + start % m], 1))
        if k > 1:
            whole = i[i % k != 0]
            s = whole - whole // k
            triangles.append(np.stack([below + (s - 1) % m, first + whole, below + s % m], 1))
    return np.stack([radius, angle], 1), np.concatenate(triangles)


def smallest_angles(points: Array, triangles: NDArray[np.integer]) -> Array:
    """Smallest angle of each triangle, degrees."""
    corners = points[triangles]
    angles = []
    for k in range(3):
        u, v = corners[:, (k + 1) % 3] - corners[:, k], corners[:, (k + 2) % 3] - corners[:, k]
        angles.append(np.arctan2(np.sqrt((np.cross(u, v) ** 2).sum(1)), (u * v).sum(1)))
    return np.degrees(np.min(angles, axis=0))


def _normals(points: Array, triangles: Indices) -> Array:
    a, b, c = points[triangles[:, 0]], points[triangles[:, 1]], points[triangles[:, 2]]
    return np.cross(b - a, c - a)


def _cotangent(points: Array, at: Indices, a: Indices, b: Indices) -> Array:
    u, v = points[a] - points[at], points[b] - points[at]
    return (u * v).sum(1) / np.maximum(np.sqrt((np.cross(u, v) ** 2).sum(1)), 1e-12)
