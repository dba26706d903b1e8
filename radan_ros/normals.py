"""Normals of the vertices of a mesh."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros.compiled import compiled


def vertex_normals(vertices: ArrayLike, triangles: ArrayLike) -> NDArray[np.float64]:
    """Unit normals out of the surface, weighted by the triangles' areas; zero where a vertex has no triangle.

    Parameters
    ----------
    vertices : (V, 3) array_like
        In a right-handed frame, as the camera's. What is not finite counts as zero.
    triangles : (T, 3) array_like
        Vertex indices, counter-clockwise seen from outside.

    Returns
    -------
    (V, 3) float64

    Raises
    ------
    IndexError
        When a triangle names a vertex that is not there.
    """
    # Always the same types for Numba: nothing is compiled twice.
    points = np.ascontiguousarray(np.nan_to_num(np.asarray(vertices, np.float64), posinf=0.0, neginf=0.0))
    indices = np.asarray(triangles)
    if indices.size and not (0 <= indices.min() and indices.max() < len(points)):
        raise IndexError(f"triangles name vertices {indices.min()} to {indices.max()} of {len(points)}")
    faces = np.ascontiguousarray(indices, np.int32).view()
    faces.flags.writeable = False
    normals = np.empty_like(points)
    try:
        fill_normals(points, faces, normals)
    except OSError:  # compiled, but the cache could not be written (a full disk): now it is found in memory
        fill_normals(points, faces, normals)
    return normals


@compiled
def fill_normals(points: Any, triangles: Any, normals: Any) -> None:
    """Write the unit normals of points (V, 3) into `normals` (V, 3), of the same dtype. Indices are not checked."""
    normals[:] = 0
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax = points[j, 0] - points[i, 0]
        ay = points[j, 1] - points[i, 1]
        az = points[j, 2] - points[i, 2]
        bx = points[k, 0] - points[i, 0]
        by = points[k, 1] - points[i, 1]
        bz = points[k, 2] - points[i, 2]
        x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for v in (i, j, k):
            normals[v, 0] += x
            normals[v, 1] += y
            normals[v, 2] += z
    for v in range(points.shape[0]):
        x, y, z = normals[v, 0], normals[v, 1], normals[v, 2]
        scale = np.float32(1) / max(np.sqrt(x * x + y * y + z * z), np.float32(1e-20))
        normals[v, 0] = x * scale
        normals[v, 1] = y * scale
        normals[v, 2] = z * scale
