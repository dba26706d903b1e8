"""Meshes to files for other programs: PLY (binary) and OBJ, with a colour per vertex. Written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Colours = NDArray[np.uint8]


def for_viewers(vertices: Floats) -> Floats:
    """Points (…, 3) in the camera frame (x right, y down, z forward) as viewers show them upright: y up, z to the eye.

    A half turn about x: right-handed stays right-handed.
    """
    return vertices * np.array([1, -1, -1], vertices.dtype)


def vertex_colours(image: NDArray[np.uint8], pixels: NDArray[np.floating]) -> Colours:
    """Colours of an image at points, the nearest pixel's.

    Parameters
    ----------
    image : (H, W, 3) uint8
        BGR.
    pixels : (V, 2) floats
        x, y; points outside the image take the colour of its edge, those that are not finite are grey.

    Returns
    -------
    (V, 3) uint8
        Red, green, blue.
    """
    xy = np.asarray(pixels)
    known = np.isfinite(xy).all(axis=1, keepdims=True)
    limits = np.array([image.shape[1] - 1, image.shape[0] - 1])
    columns, rows = np.clip(np.rint(np.where(known, xy, 0)), 0, limits).astype(np.intp).T
    return np.asarray(np.where(known, image[rows, columns, ::-1], 128), np.uint8)


def write_mesh(path: str | Path, vertices: Floats, triangles: NDArray[np.integer], colours: Colours) -> Path:
    """Write a mesh as its file's ending says.

    Parameters
    ----------
    path : path
        ``.ply`` or ``.obj``. An existing file is replaced.
    vertices : (V, 3) float32
    triangles : (T, 3) integers
        Vertex indices from 0, counter-clockwise seen from outside.
    colours : (V, 3) uint8
        Red, green, blue.

    Returns
    -------
    Path
        Absolute.

    Raises
    ------
    ValueError
        For another ending.
    OSError
        When the file cannot be written.
    """
    target = Path(path).absolute()
    if target.suffix not in _WRITERS:
        raise ValueError(f"format '{target.suffix.lstrip('.')}' is unknown (known: {', '.join(FORMATS)})")
    content = _WRITERS[target.suffix](vertices, triangles, colours)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _ply(vertices: Floats, triangles: NDArray[np.integer], colours: Colours) -> bytes:
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment metres; x right, y up, z towards the viewer\n"
        f"element vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
        f"element face {len(triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    points = np.empty(len(vertices), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    points["xyz"], points["rgb"] = vertices, colours
    faces = np.empty(len(triangles), [("count", "u1"), ("indices", "<i4", 3)])
    faces["count"], faces["indices"] = 3, triangles
    return header.encode() + points.tobytes() + faces.tobytes()


def _obj(vertices: Floats, triangles: NDArray[np.integer], colours: Colours) -> bytes:
    values = np.concatenate([vertices, colours / 255], axis=1)
    points = "v %.7g %.7g %.7g %.4g %.4g %.4g\n" * len(values) % tuple(values.ravel().tolist())
    faces = "f %d %d %d\n" * len(triangles) % tuple((np.asarray(triangles) + 1).ravel().tolist())
    return f"# metres; x right, y up, z towards the viewer; colours behind the vertices\n{points}{faces}".encode()


_WRITERS: dict[str, Callable[[Floats, NDArray[np.integer], Colours], bytes]] = {".ply": _ply, ".obj": _obj}
FORMATS = tuple(suffix[1:] for suffix in _WRITERS)
