"""Depth and colour pictures of face meshes: one interface, Numba on the CPU and CuPy on the GPU, the same pictures.

All faces of an image go through one z-buffer, so that the nearer one wins at each pixel. Pixel centres are at
integers, x right, y down. A pixel belongs to a triangle when its centre is inside; a centre on an edge belongs to the
triangle right of or below that edge, so that triangles sharing an edge leave no hole and share no pixel. Both
windings are drawn. Between the corners of a triangle depth and colour are linear in the picture; the triangles of a
face mesh are about a pixel large, so that perspective inside a triangle does not matter.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Renderer", "Rendering", "render", "warm_up"]

Array = npt.NDArray[Any]

MAX_SIDE = 65534  # pixels; the CPU renderer keeps a column and a row in 16 bits each


@dataclass(frozen=True)
class Rendering:
    """What the camera sees of the faces.

    Attributes
    ----------
    depth : (H, W) float32
        The third coordinate of the vertices given (smaller is nearer), NaN where there is no face.
    colour : (H, W, 3) uint8
        The codes given, interpolated and truncated, in their channel order; 0 where there is no face. (0, 0, 3) when
        not asked for.
    """

    depth: npt.NDArray[np.float32]
    colour: npt.NDArray[np.uint8]


class _Backend(Protocol):
    def render(self, faces: Sequence[Any], height: int, width: int, colour: bool) -> tuple[Array, Array]: ...


class Renderer:
    """Draws faces of one topology. Checks and keeps (on the GPU: uploads) the topology once, and reuses its buffers.

    Parameters
    ----------
    triangles : (T, 3) integers
        Vertex indices, from 0. Copied.
    codes : (V, 3) uint8 or floats
        A colour per vertex, 0 to 255. Copied.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` and so on.

    Raises
    ------
    ValueError
        A wrong shape or dtype, an index outside 0..V-1, codes outside 0..255, or an unknown device.
    ImportError, RuntimeError
        A GPU is asked for, and CuPy or the device is not there.

    Notes
    -----
    `render` may be called from several threads; calls to one object follow one another.
    """

    def __init__(self, triangles: Any, codes: Any, device: str = "cpu") -> None:
        checked_codes = _checked_codes(codes)
        checked_triangles = _checked_triangles(triangles, len(checked_codes))
        self.device = device
        self.vertex_count = len(checked_codes)
        self.triangle_count = len(checked_triangles)
        number = _cuda_number(device)
        self._backend: _Backend
        if number is None:
            from .cpu import CpuRenderer

            self._backend = CpuRenderer(checked_triangles, checked_codes)
        else:
            from .gpu import GpuRenderer

            self._backend = GpuRenderer(checked_triangles, checked_codes, number)

    def render(self, vertices: Any, size: tuple[int, int], *, colour: bool = True) -> Rendering:
        """Draw all faces of an image.

        Parameters
        ----------
        vertices : sequence of F arrays (V, 3), or one (F, V, 3) array, real numbers
            x and y in pixels, and depth in any unit, smaller is nearer. F may be 0. Never changed. Triangles are cut
            to the image; those with a vertex that is not finite, or more than 2**24 pixels away, are skipped. On a
            GPU the arrays may lie there (CuPy, torch: anything with ``__cuda_array_interface__``) and are not copied
            down.
        size : (height, width)
            Of the pictures, 1 to 65534 each.
        colour : bool
            Whether the colour picture is wanted.

        Raises
        ------
        ValueError
            Saying which argument has which shape or dtype, and what it should have.
        """
        height, width = _checked_size(size)
        faces = _checked_faces(vertices, self.vertex_count, on_gpu=self.device != "cpu")
        if len(faces) * self.triangle_count >= 2**31:
            raise ValueError(
                f"{len(faces)} faces of {self.triangle_count} triangles are too many: 2**31 triangles or more"
            )
        return Rendering(*self._backend.render(faces, height, width, colour))


def render(
    vertices: Any, triangles: Any, codes: Any, size: tuple[int, int], *, device: str = "cpu", colour: bool = True
) -> Rendering:
    """Draw all faces of an image: `Renderer` in one call. For picture after picture keep a `Renderer`, which is faster.

    Parameters, result and errors are those of `Renderer` and `Renderer.render`.
    """
    return Renderer(triangles, codes, device).render(vertices, size, colour=colour)


def warm_up(device: str = "cpu") -> None:
    """Compile the renderer of a device, or load it from its cache, so that the first picture need not wait for it."""
    number = _cuda_number(device)
    if number is None:
        from . import cpu

        cpu.warm_up()
    else:
        from . import gpu

        gpu.warm_up(number)


def _cuda_number(device: str) -> int | None:
    """None for the CPU, the number of the device for a GPU."""
    if device == "cpu":
        return None
    name, colon, number = str(device).partition(":")
    if name == "cuda" and (number.isdecimal() or not colon):
        return int(number or 0)
    raise ValueError(f"device must be 'cpu', 'cuda' or 'cuda:<number>', not {device!r}")


def _checked_codes(codes: Any) -> Array:
    array = np.asarray(codes)
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"codes must have the shape (V, 3), not {array.shape}")
    if array.dtype.kind not in "uif":
        raise ValueError(f"codes must be uint8 or floats, not {array.dtype}")
    if array.size and not (array.min() >= 0 and array.max() <= 255):  # false for NaN as well
        raise ValueError("codes must lie in 0..255")
    return array.astype(np.float32)


def _checked_triangles(triangles: Any, vertex_count: int) -> Array:
    array = np.asarray(triangles)
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"triangles must have the shape (T, 3), not {array.shape}")
    if array.dtype.kind not in "ui":
        raise ValueError(f"triangles must be integers, not {array.dtype}")
    if array.size and not (array.min() >= 0 and array.max() < vertex_count):
        raise ValueError(
            f"triangles name vertices {array.min()} to {array.max()}, "
            f"but the codes have the vertices 0 to {vertex_count - 1}"
        )
    return array.astype(np.int32)


def _checked_size(size: Any) -> tuple[int, int]:
    try:
        height, width = (operator.index(side) for side in size)
    except (TypeError, ValueError):
        raise ValueError(f"size must be two integers (height, width), not {size!r}") from None
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ValueError(f"size (height, width) must lie in 1..{MAX_SIDE}, not {(height, width)}")
    if height * width >= 2**31:
        raise ValueError(f"size {(height, width)} is too large: 2**31 pixels or more")
    return height, width


def _checked_faces(vertices: Any, vertex_count: int, on_gpu: bool) -> list[Any]:
    """The faces as a list of (V, 3) arrays, on the host or, for the GPU renderer, on either side."""
    if _is_on_gpu(vertices) or isinstance(vertices, np.ndarray):
        shape = tuple(vertices.shape)
        if len(shape) != 3 and shape != (0,):
            raise ValueError(f"vertices must be F arrays (V, 3) or have the shape (F, V, 3), not {shape}")
    faces = []
    for i, face in enumerate(vertices):
        if _is_on_gpu(face):
            if not on_gpu:
                raise ValueError(
                    f"vertices of face {i} lie on a GPU, but this renderer is on the CPU: device='cuda' takes them"
                )
            array = face
        else:
            array = np.asarray(face)
            if array.dtype.kind not in "uif":
                raise ValueError(f"vertices of face {i} must be real numbers, not {array.dtype}")
        if tuple(array.shape) != (vertex_count, 3):
            raise ValueError(f"vertices of face {i} must have the shape ({vertex_count}, 3), not {tuple(array.shape)}")
        faces.append(array)
    return faces


def _is_on_gpu(array: Any) -> bool:
    return hasattr(array, "__cuda_array_interface__")
