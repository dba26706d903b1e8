"""Faces to files for other programs: meshes as PLY, OBJ and glTF, and the text and Matlab files of 3DDFA.

Each file is written whole or not at all.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from radan_ros.files import write_atomically

Floats = NDArray[np.float32]
Colours = NDArray[np.uint8]

_MAT_DESCRIPTION = 116  # bytes


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


def write_landmarks(path: str | Path, landmarks: NDArray[np.floating]) -> Path:
    """Write landmarks as 3DDFA does: three lines x, y, z of 68 numbers, image pixels, z towards the viewer.

    Parameters
    ----------
    path : path
    landmarks : (68, 3) floats
        As in `Face.landmarks`: the third grows away from the viewer.
    """
    return write_atomically(path, _numbers(_towards_viewer(landmarks).T))


def write_vertices(path: str | Path, vertices: NDArray[np.floating]) -> Path:
    """Write the dense vertices as 3DDFA does: a Matlab file with the array ``vertex``, (3, V), image pixels.

    Parameters
    ----------
    path : path
        ``.mat``
    vertices : (V, 3) floats
        As of `Pipeline.vertices`: the third grows away from the viewer; in the file it grows towards the viewer.
    """
    from scipy.io import savemat

    content = io.BytesIO()
    savemat(content, {"vertex": _towards_viewer(vertices).T})
    # The description at its beginning has the time of day in it: without that, the same face gives the same bytes.
    description = b"MATLAB 5.0 MAT-file"
    return write_atomically(path, description.ljust(_MAT_DESCRIPTION) + content.getvalue()[_MAT_DESCRIPTION:])


def write_roibox(path: str | Path, roi: NDArray[np.floating]) -> Path:
    """Write the square that was cropped, (4,) left, top, right, bottom in pixels, as 3DDFA does: a number a line."""
    return write_atomically(path, _numbers(np.asarray(roi)))


def write_reference_mesh(
    path: str | Path, vertices: Floats, triangles: NDArray[np.integer], image: NDArray[np.uint8]
) -> Path:
    """Write a mesh with the numbers of 3DDFA's code (``--compat``): image pixels, mirrored in one way or the other.

    Parameters
    ----------
    path : path
        ``.ply`` (no colours) or ``.obj`` (x and y swapped, vertices clipped to the image, colours from 0 to 255).
    vertices : (V, 3) float32
        Of a `Pipeline` with ``compat=True``: image pixels, third away from the viewer.
    triangles : (T, 3) integers
        Of the face model, counter-clockwise seen from outside; 3DDFA's run the other way round.
    image : (H, W, 3) uint8
        BGR.

    Raises
    ------
    ValueError
        For another ending.
    OSError
        When the file cannot be written.
    """
    target = Path(path)
    points, turned = _towards_viewer(vertices), np.asarray(triangles)[:, ::-1]
    if target.suffix == ".ply":
        header = (
            f"ply\nformat ascii 1.0\nelement vertex {len(points)}\nproperty float x\nproperty float y\n"
            f"property float z\nelement face {len(turned)}\nproperty list uchar int vertex_indices\nend_header\n"
        )
        return write_atomically(
            target, (header + _lines("%.4f %.4f %.4f\n", points) + _lines("3 %d %d %d\n", turned)).encode()
        )
    if target.suffix == ".obj":
        points[:, :2] = np.clip(points[:, :2], 0, np.array(image.shape[1::-1]) - 1)
        values = np.concatenate([points[:, [1, 0, 2]], vertex_colours(image, points[:, :2])], axis=1)
        lines = _lines("v %.4f %.4f %.4f %d %d %d\n", values) + _lines("f %d %d %d\n", turned + 1)
        return write_atomically(target, lines.encode())
    raise _unknown(target, (".ply", ".obj"))


def write_mesh(
    path: str | Path,
    vertices: Floats,
    triangles: NDArray[np.integer],
    colours: Colours | None = None,
    *,
    uv: Floats | None = None,
    texture: NDArray[np.uint8] | None = None,
) -> Path:
    """Write a mesh as its file's ending says.

    Parameters
    ----------
    path : path
        ``.ply`` (binary), ``.obj`` or ``.glb`` (glTF 2.0 in one file). Existing files are replaced.
    vertices : (V, 3) float32
        Metres, x right, y up, z to the viewer: `for_viewers`.
    triangles : (T, 3) integers
        Vertex indices from 0, counter-clockwise seen from outside.
    colours : (V, 3) uint8, optional
        Red, green, blue (sRGB). Left out where there is a texture, except in ``.ply``, which takes no texture. Some
        programs (Blender, trimesh) show glTF's colours at vertices only when told to: there a texture is surer.
    uv : (V, 2) float32, optional
        Texture coordinates 0 .. 1, u to the texture's right, v up.
    texture : (S, S, 3) uint8, optional
        BGR, first row at the top. A ``.glb`` holds it as PNG; beside ``a.obj`` come ``a.mtl`` and ``a_texture.png``.

    Returns
    -------
    Path
        Absolute.

    Raises
    ------
    ValueError
        For another ending, for arrays that do not fit together, and for vertices that are not finite.
    OSError
        When a file cannot be written.
    """
    target = Path(path).absolute()
    if target.suffix not in _ENDINGS:
        raise _unknown(target, _ENDINGS)
    mesh = _checked(vertices, triangles, colours, uv, texture)
    if target.suffix == ".ply":
        return write_atomically(target, _ply(mesh))
    if target.suffix == ".glb":
        return write_atomically(target, _glb(mesh))
    if mesh.texture is None:
        return write_atomically(target, _obj(mesh, target.stem))
    # The mesh comes last: what it names is there already.
    write_atomically(target.with_name(f"{target.stem}_texture.png"), _png(mesh.texture))
    write_atomically(target.with_suffix(".mtl"), _mtl(target.stem))
    return write_atomically(target, _obj(mesh, target.stem))


class _Mesh(NamedTuple):
    vertices: Floats
    triangles: NDArray[np.int64]
    colours: Colours | None
    uv: Floats | None  # given if and only if `texture` is
    texture: NDArray[np.uint8] | None


def _checked(vertices: Any, triangles: Any, colours: Any, uv: Any, texture: Any) -> _Mesh:
    points, faces = np.asarray(vertices, np.float32), np.asarray(triangles, np.int64)
    for name, array, columns in (("vertices", points, 3), ("triangles", faces, 3)):
        if array.ndim != 2 or array.shape[1] != columns:
            raise ValueError(f"{name} have shape {array.shape}, not (N, {columns})")
    if not np.isfinite(points).all():
        raise ValueError("vertices are not finite")
    if faces.size and not (faces.min() >= 0 and faces.max() < len(points)):
        raise ValueError(f"triangles name vertices {faces.min()} to {faces.max()} of {len(points)}")
    if (uv is None) != (texture is None):
        raise ValueError("a texture needs texture coordinates, and they need it")
    for name, array, columns in (("colours", colours, 3), ("uv", uv, 2)):
        if array is not None and np.shape(array) != (len(points), columns):
            raise ValueError(f"{name} have shape {np.shape(array)}, not ({len(points)}, {columns})")
    return _Mesh(
        points,
        faces,
        None if colours is None else np.asarray(colours, np.uint8),
        None if uv is None else np.asarray(uv, np.float32),
        texture,
    )


def _unknown(path: Path, endings: tuple[str, ...]) -> ValueError:
    known = ", ".join(ending[1:] for ending in endings)
    return ValueError(f"{path}: format '{path.suffix.lstrip('.')}' is unknown (known: {known})")


def _towards_viewer(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Points (N, 3) in image pixels with the third axis as 3DDFA has it: a copy."""
    return np.asarray(points) * np.array([1, 1, -1], np.asarray(points).dtype)


def _numbers(rows: NDArray[np.floating]) -> bytes:
    content = io.BytesIO()
    np.savetxt(content, rows, fmt="%.3f")
    return content.getvalue()


def _lines(line: str, rows: NDArray[Any]) -> str:
    # One formatting of all numbers is several times as fast as one a line.
    return line * len(rows) % tuple(rows.ravel().tolist())


def _ply(mesh: _Mesh) -> bytes:
    names = ["xyz"] if mesh.colours is None else ["xyz", "rgb"]
    points = np.empty(len(mesh.vertices), [("xyz", "<f4", 3), ("rgb", "u1", 3)][: len(names)])
    points["xyz"] = mesh.vertices
    properties = "property float x\nproperty float y\nproperty float z\n"
    if mesh.colours is not None:
        points["rgb"] = mesh.colours
        properties += "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment metres; x right, y up, z towards the viewer\n"
        f"element vertex {len(points)}\n{properties}"
        f"element face {len(mesh.triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    faces = np.empty(len(mesh.triangles), [("count", "u1"), ("indices", "<i4", 3)])
    faces["count"], faces["indices"] = 3, mesh.triangles
    return header.encode() + points.tobytes() + faces.tobytes()


def _obj(mesh: _Mesh, name: str) -> bytes:
    head = "# metres; x right, y up, z towards the viewer"
    corners = mesh.triangles + 1
    if mesh.uv is not None:
        points = _lines("v %.7g %.7g %.7g\n", mesh.vertices) + _lines("vt %.7g %.7g\n", mesh.uv)
        faces = _lines("f %d/%d %d/%d %d/%d\n", np.repeat(corners, 2, axis=1))
        return os.fsencode(f"{head}\nmtllib {name}.mtl\n{points}usemtl face\n{faces}")
    if mesh.colours is None:
        points = _lines("v %.7g %.7g %.7g\n", mesh.vertices)
    else:
        head += "; colours behind the vertices"
        values = np.concatenate([mesh.vertices, mesh.colours / 255], axis=1)
        points = _lines("v %.7g %.7g %.7g %.4g %.4g %.4g\n", values)
    faces = _lines("f %d %d %d\n", corners)
    return f"{head}\n{points}{faces}".encode()


def _mtl(name: str) -> bytes:
    # The light is in the photograph already: no gloss (illumination model 1).
    # Names of files are bytes, and need be no UTF-8.
    return os.fsencode(f"newmtl face\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 1\nmap_Kd {name}_texture.png\n")


def _png(picture: NDArray[np.uint8]) -> bytes:
    import cv2

    return cv2.imencode(".png", picture)[1].tobytes()


# Of the glTF 2.0 specification (Khronos, 2021): types of buffers' views and of numbers, wrapping and filters.
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_UNSIGNED_SHORT, _UNSIGNED_INT, _FLOAT = 5123, 5125, 5126
_CLAMP, _LINEAR, _LINEAR_MIPMAP_LINEAR = 33071, 9729, 9987


class _Buffer:
    """The binary part of a glTF file and what describes it."""

    def __init__(self) -> None:
        self.content = b""
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, content: bytes, target: int | None = None) -> int:
        """Add bytes, at a multiple of four; returns the number of their view."""
        view = {"buffer": 0, "byteOffset": len(self.content), "byteLength": len(content)}
        self.views.append(view if target is None else {**view, "target": target})
        self.content += content + b"\0" * (-len(content) % 4)
        return len(self.views) - 1

    def accessor(self, array: NDArray[Any], kind: str, number: int, target: int, **more: Any) -> int:
        """Add the elements of an array, one a row, tightly packed."""
        view = self.view(np.ascontiguousarray(array).tobytes(), target)
        self.accessors.append({"bufferView": view, "componentType": number, "count": len(array), "type": kind, **more})
        return len(self.accessors) - 1


def _glb(mesh: _Mesh) -> bytes:
    from radan_ros.normals import vertex_normals

    if not len(mesh.triangles):
        raise ValueError("a glTF mesh needs a triangle")
    points = mesh.vertices.astype("<f4")
    normals = vertex_normals(points, mesh.triangles).astype("<f4")
    normals[~normals.any(axis=1)] = (0, 0, 1)  # of vertices without triangles; glTF wants unit vectors
    buffer = _Buffer()
    low, high = (limit(axis=0).tolist() for limit in (points.min, points.max))
    attributes = {
        "POSITION": buffer.accessor(points, "VEC3", _FLOAT, _ARRAY_BUFFER, min=low, max=high),
        "NORMAL": buffer.accessor(normals, "VEC3", _FLOAT, _ARRAY_BUFFER),
    }
    shading: dict[str, Any] = {"baseColorFactor": [1, 1, 1, 1], "metallicFactor": 0, "roughnessFactor": 1}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "radan_ros"},
        # The light is in the photograph already; viewers without this extension add theirs.
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "face"}],
    }
    if mesh.uv is not None and mesh.texture is not None:
        downwards = np.column_stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]]).astype("<f4")
        attributes["TEXCOORD_0"] = buffer.accessor(downwards, "VEC2", _FLOAT, _ARRAY_BUFFER)
        document["images"] = [{"bufferView": buffer.view(_png(mesh.texture)), "mimeType": "image/png"}]
        document["samplers"] = [
            {"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR, "wrapS": _CLAMP, "wrapT": _CLAMP}
        ]
        document["textures"] = [{"sampler": 0, "source": 0}]
        shading["baseColorTexture"] = {"index": 0}
    elif mesh.colours is not None:
        # The fourth channel fills the element to a multiple of four bytes.
        linear = np.full((len(points), 4), 65535, "<u2")
        linear[:, :3] = np.rint(65535 * linear_light(mesh.colours))
        attributes["COLOR_0"] = buffer.accessor(linear, "VEC4", _UNSIGNED_SHORT, _ARRAY_BUFFER, normalized=True)
    indices = buffer.accessor(mesh.triangles.reshape(-1).astype("<u4"), "SCALAR", _UNSIGNED_INT, _ELEMENT_ARRAY_BUFFER)
    document["meshes"] = [
        {"name": "face", "primitives": [{"attributes": attributes, "indices": indices, "material": 0, "mode": 4}]}
    ]
    document["materials"] = [
        {"name": "face", "pbrMetallicRoughness": shading, "extensions": {"KHR_materials_unlit": {}}}
    ]
    document["accessors"], document["bufferViews"] = buffer.accessors, buffer.views
    document["buffers"] = [{"byteLength": len(buffer.content)}]
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = _chunk(b"JSON", text) + _chunk(b"BIN\0", buffer.content)
    return b"glTF" + _uint32(2) + _uint32(12 + len(chunks)) + chunks


def _chunk(kind: bytes, content: bytes) -> bytes:
    return _uint32(len(content)) + kind + content


def _uint32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def linear_light(colours: Colours) -> NDArray[np.float64]:
    """Colours of pictures (sRGB, 0 .. 255) to amounts of light, 0 .. 1, which glTF has at vertices (IEC 61966-2-1)."""
    value = np.asarray(colours) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


_ENDINGS = (".ply", ".obj", ".glb")
FORMATS = tuple(suffix[1:] for suffix in _ENDINGS)
