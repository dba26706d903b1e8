"""The GPU renderer: the kernels of ``kernel.cu``, compiled and run by CuPy. It draws what the CPU renderer draws."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# No contraction, true division and denormal numbers: what the CPU does.
OPTIONS = ("--fmad=false", "--prec-div=true", "--ftz=false")
RASTERISE_BLOCK = 128  # threads
RESOLVE_BLOCK = 256


def kernel_source() -> str:
    """The text of ``kernel.cu``, which is installed beside this module."""
    return resources.files(__package__).joinpath("kernel.cu").read_text(encoding="utf-8")


def import_cupy() -> Any:
    """CuPy with a usable device.

    Raises
    ------
    ImportError
        CuPy is not installed.
    RuntimeError
        There is no CUDA device, or its driver does not work.
    """
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise ImportError(
            "rendering on a GPU needs CuPy: `pip install cupy-cuda12x` (or the package for your CUDA version), "
            "or use device='cpu'"
        ) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy has an exception class of its own for this
        raise RuntimeError(f"rendering on a GPU: CuPy finds no usable CUDA device ({error})") from error
    if count == 0:
        raise RuntimeError("rendering on a GPU: CuPy finds no CUDA device")
    return cupy


@functools.cache
def _kernels(device: int) -> tuple[Any, Any]:
    """The two kernels for a device. CuPy keeps the compiled code on disk."""
    cupy = import_cupy()
    with cupy.cuda.Device(device):
        module = cupy.RawModule(code=kernel_source(), options=OPTIONS, backend="nvrtc")
        return module.get_function("rasterise"), module.get_function("resolve")


class GpuRenderer:
    """Draws the faces of one topology on a GPU; its buffers stay there between calls.

    Arguments are checked by `radan_ros.rendering.Renderer`, which is the one to use.
    """

    def __init__(self, triangles: Array, codes: Array, device: int = 0) -> None:
        self._cupy = cupy = import_cupy()
        count = cupy.cuda.runtime.getDeviceCount()
        if not 0 <= device < count:
            raise RuntimeError(f"there is no CUDA device {device}: {count} found")
        self._device = device
        self._rasterise, self._resolve = _kernels(device)
        with cupy.cuda.Device(device):
            self._triangles = cupy.asarray(np.ascontiguousarray(triangles, np.int32))
            self._codes = cupy.asarray(np.ascontiguousarray(codes, np.float32))
            self._vertices = cupy.empty((0, len(codes), 3), cupy.float32)
            self._keys = cupy.empty(0, cupy.uint64)
            self._pictures = cupy.empty(0, cupy.uint8)
        self._lock = threading.Lock()

    def render(self, faces: Sequence[Any], height: int, width: int, colour: bool) -> tuple[Array, Array]:
        """As `CpuRenderer.render`; faces may be arrays on this device (CuPy, torch), which are not copied down."""
        with self._lock, self._cupy.cuda.Device(self._device):
            both = self._draw(faces, height, width, colour)
            host = both.get()  # the one copy down; waits for the kernels
        pixels = height * width
        depth = host[: 4 * pixels].view(np.float32).reshape(height, width)
        return depth, host[4 * pixels :].reshape((height, width, 3) if colour else (0, 0, 3))

    def _draw(self, faces: Sequence[Any], height: int, width: int, colour: bool) -> Any:
        """Both pictures in one array of bytes on the device: the depth, then the colour."""
        cupy = self._cupy
        pixels = height * width
        face_count = len(faces)
        vertex_count = len(self._codes)
        triangle_count = len(self._triangles)
        if len(self._vertices) < face_count:
            self._vertices = cupy.empty((face_count, vertex_count, 3), cupy.float32)
        for i, face in enumerate(faces):
            if hasattr(face, "__cuda_array_interface__"):
                self._vertices[i] = cupy.asarray(face)
            else:
                with np.errstate(over="ignore", invalid="ignore"):  # beyond float32: infinite, and skipped as such
                    self._vertices[i].set(np.ascontiguousarray(face, np.float32))
        if self._keys.size < pixels:
            self._keys = cupy.empty(pixels, cupy.uint64)
            self._pictures = cupy.empty(7 * pixels, cupy.uint8)
        self._keys.view(cupy.uint8).fill(0xFF)
        both = self._pictures[: (7 if colour else 4) * pixels]

        sizes = (np.int32(vertex_count), np.int32(triangle_count), np.int32(width), np.int32(height))
        jobs = face_count * triangle_count
        if jobs:
            self._rasterise(
                ((jobs + RASTERISE_BLOCK - 1) // RASTERISE_BLOCK,),
                (RASTERISE_BLOCK,),
                (self._vertices, self._triangles, np.int32(face_count), *sizes, self._keys),
            )
        self._resolve(
            ((pixels + RESOLVE_BLOCK - 1) // RESOLVE_BLOCK,),
            (RESOLVE_BLOCK,),
            (
                self._vertices,
                self._triangles,
                self._codes,
                *sizes,
                self._keys,
                both,
                np.int32(colour),
                both[4 * pixels :],
            ),
        )
        return both


def warm_up(device: int = 0) -> None:
    """Compile the kernels, or load them from CuPy's cache, and start the device."""
    face = np.array([[0.0, 0.0, 1.0], [3.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
    GpuRenderer(np.array([[0, 1, 2]]), np.zeros((3, 3)), device).render([face], 2, 2, True)
