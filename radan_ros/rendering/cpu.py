"""The CPU renderer: depth and colour in one z-buffered pass, compiled by Numba.

A dense face at video size is made of triangles smaller than a pixel, so the time goes into triangles that cover no
pixel centre and into mispredicted branches, not into filling. Hence three stages, run over blocks of triangles that
stay in the cache:

1. Each vertex is snapped once to a grid of 1/4096 pixel and gets its *cell*: the first pixel column and row at or
   after it, cut to the image. A triangle whose three cells share a column or a row covers no pixel centre (or is
   outside the image) and is dropped after three loads; the list of the others is written without a branch.
2. Edge functions say which pixels of the remaining boxes are inside, for boxes of up to 2 x 2 pixels in a vectorised
   loop; again the list of hits is written without a branch.
3. Hits are tested against the depth picture, and depth and colour are interpolated and stored. (Colour only for the
   pixels that stay visible was tried: a face hides 5 % of itself, so that a second visit costs more than it saves.)

The snapped coordinates are integers held in floating point, so that the edge functions are exact up to 8192 pixels
from the origin: two triangles that share an edge give every pixel on it to exactly one of the two (the top-left rule
of graphics hardware). ``kernel.cu`` does the same arithmetic in the same order, and equal depths go to the lower
triangle in both, so that the pictures are the same. For that reason there is no ``fastmath`` here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from radan_ros.compiled import compiled
from radan_ros.normals import vertex_normals

Array = npt.NDArray[Any]

SUBPIXELS = 4096  # grid steps in a pixel
LIMIT = 2.0**24  # pixels; float32 cannot tell neighbouring pixels apart beyond
NO_CELL = 0xFFFFFFFF  # the cell of a vertex that cannot be drawn
BLOCK = 1024  # triangles per block
HITS = 1 << 14  # room for hits; the list is drawn when it is full

_UNIT = np.float64(SUBPIXELS)
_U32 = np.uint32


@compiled
def _snap(vertices: Array, width: int, height: int, snapped: Array, columns: Array, rows: Array, cells: Array) -> None:
    """Vertices (V, 3) -> (V, 4) snapped x, y (grid steps) and depth, and (V,) cells (column << 16 | row).

    `columns` and `rows` (V,) float32 are scratch: with them the second loop runs over contiguous arrays and is
    vectorised.
    """
    unit = np.float32(SUBPIXELS)
    pixel = np.float32(1.0 / SUBPIXELS)
    limit = np.float32(LIMIT)
    largest = np.float32(3.4028234663852886e38)
    nan = np.float32(np.nan)
    zero = np.float32(0)
    right = np.float32(width)
    bottom = np.float32(height)
    for i in range(vertices.shape[0]):
        x, y, z = vertices[i, 0], vertices[i, 1], vertices[i, 2]
        usable = (abs(x) <= limit) & (abs(y) <= limit) & (abs(z) <= largest)  # false for NaN
        column = np.rint(x * unit)
        row = np.rint(y * unit)
        snapped[i, 0] = column
        snapped[i, 1] = row
        snapped[i, 2] = z
        columns[i] = column if usable else nan
        rows[i] = row
    for i in range(cells.shape[0]):
        column = np.ceil(columns[i] * pixel)
        row = np.ceil(rows[i] * pixel)
        usable = not np.isnan(column)
        # Not min and max: the comparisons turn NaN, which has no integer, into zero, and they are vectorised.
        column = right if column > right else column
        row = bottom if row > bottom else row
        column = column if column > zero else zero
        row = row if row > zero else zero
        cell = (_U32(np.int32(column)) << _U32(16)) | _U32(np.int32(row))
        cells[i] = cell if usable else _U32(NO_CELL)


@compiled
def _on_top_left(
    x0: float, y0: float, x1: float, y1: float, x2: float, y2: float, e0: float, e1: float, e2: float
) -> bool:
    """Whether a pixel on an edge (some e is 0) belongs to the triangle: when each such edge is a left or a top one."""
    sign = 1.0 if e0 + e1 + e2 > 0.0 else -1.0
    if e0 == 0.0 and not (sign * (y1 - y2) > 0.0 or (y1 == y2 and sign * (x2 - x1) > 0.0)):
        return False
    if e1 == 0.0 and not (sign * (y2 - y0) > 0.0 or (y2 == y0 and sign * (x0 - x2) > 0.0)):
        return False
    return not (e2 == 0.0 and not (sign * (y0 - y1) > 0.0 or (y0 == y1 and sign * (x1 - x0) > 0.0)))


@compiled
def _shade(
    triangles: Array, snapped: Array, codes: Array, hits: Array, count: int, depth: Array, colour: Array
) -> None:
    """Stage 3: hits (triangle, column << 16 | row) into the pictures."""
    with_colour = colour.shape[0] > 0
    top = np.float32(255)
    zero = np.float32(0)
    for k in range(count):
        triangle = hits[0, k]
        column = hits[1, k] >> _U32(16)
        row = hits[1, k] & _U32(0xFFFF)
        i0, i1, i2 = triangles[triangle, 0], triangles[triangle, 1], triangles[triangle, 2]
        px = np.float64(column) * _UNIT
        py = np.float64(row) * _UNIT
        x0 = np.float64(snapped[i0, 0]) - px
        y0 = np.float64(snapped[i0, 1]) - py
        x1 = np.float64(snapped[i1, 0]) - px
        y1 = np.float64(snapped[i1, 1]) - py
        x2 = np.float64(snapped[i2, 0]) - px
        y2 = np.float64(snapped[i2, 1]) - py
        e0 = x1 * y2 - x2 * y1
        e1 = x2 * y0 - x0 * y2
        e2 = x0 * y1 - x1 * y0
        area = e0 + e1 + e2
        if area == 0.0:
            continue
        if ((e0 == 0.0) | (e1 == 0.0) | (e2 == 0.0)) and not _on_top_left(x0, y0, x1, y1, x2, y2, e0, e1, e2):
            continue
        inverse = 1.0 / area
        w1 = e1 * inverse
        w2 = e2 * inverse
        z0 = np.float64(snapped[i0, 2])
        z = np.float32(z0 + w1 * (np.float64(snapped[i1, 2]) - z0) + w2 * (np.float64(snapped[i2, 2]) - z0))
        if z >= depth[row, column]:  # false on the NaN of an empty pixel
            continue
        depth[row, column] = z
        if with_colour:
            f1 = np.float32(w1)
            f2 = np.float32(w2)
            for c in range(3):
                c0 = codes[i0, c]
                value = c0 + f1 * (codes[i1, c] - c0) + f2 * (codes[i2, c] - c0)
                colour[row, column, c] = np.uint8(np.int32(min(max(value, zero), top)))


@compiled
def _draw(
    triangles: Array,
    snapped: Array,
    cells: Array,
    codes: Array,
    kept: Array,
    corners: Array,
    masks: Array,
    hits: Array,
    depth: Array,
    colour: Array,
) -> None:
    """Stages 1 to 3 for one face whose vertices are snapped. `kept`, `corners`, `masks` and `hits` are scratch."""
    low = _U32(0xFFFF)
    s16 = _U32(16)
    hit_count = np.uintp(0)
    total = triangles.shape[0]
    for start in range(0, total, BLOCK):
        kept_count = np.uintp(0)
        for t in range(np.uintp(start), np.uintp(min(start + BLOCK, total))):
            a, b, c = cells[triangles[t, 0]], cells[triangles[t, 1]], cells[triangles[t, 2]]
            differ = (a ^ b) | (a ^ c)
            kept[0, kept_count] = t
            kept_count += np.uintp(((differ & low) != 0) & (differ > low))

        # Gather: the box of pixels, and the corners relative to its first pixel.
        for k in range(kept_count):
            t = kept[0, k]
            i0, i1, i2 = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            a, b, c = cells[i0], cells[i1], cells[i2]
            left = min(a >> s16, b >> s16, c >> s16)
            first = min(a & low, b & low, c & low)
            wide = max(a >> s16, b >> s16, c >> s16) - left
            high = max(a & low, b & low, c & low) - first
            px = np.float64(left) * _UNIT
            py = np.float64(first) * _UNIT
            corners[0, k] = np.float64(snapped[i0, 0]) - px
            corners[1, k] = np.float64(snapped[i0, 1]) - py
            corners[2, k] = np.float64(snapped[i1, 0]) - px
            corners[3, k] = np.float64(snapped[i1, 1]) - py
            corners[4, k] = np.float64(snapped[i2, 0]) - px
            corners[5, k] = np.float64(snapped[i2, 1]) - py
            kept[1, k] = (left << s16) | first
            two_wide = _U32(wide > 1)
            two_high = _U32(high > 1)
            small = _U32((wide <= 2) & (high <= 2))
            allowed = _U32(1) | (two_wide << _U32(1)) | (two_high << _U32(2)) | ((two_wide & two_high) << _U32(3))
            kept[2, k] = small * allowed  # 0: a larger box

        # Which of the first 2 x 2 pixels of the box are inside, as four bits. No branch, no gather: vectorised.
        for k in range(kept_count):
            x0, x1, x2 = corners[0, k], corners[2, k], corners[4, k]
            y0, y1, y2 = corners[1, k], corners[3, k], corners[5, k]
            e0, e1, e2 = x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0
            right0, right1, right2 = (y1 - y2) * _UNIT, (y2 - y0) * _UNIT, (y0 - y1) * _UNIT
            down0, down1, down2 = (x2 - x1) * _UNIT, (x0 - x2) * _UNIT, (x1 - x0) * _UNIT
            mask = _U32((min(min(e0, e1), e2) >= 0.0) | (max(max(e0, e1), e2) <= 0.0))
            f0, f1, f2 = e0 + right0, e1 + right1, e2 + right2
            mask |= _U32((min(min(f0, f1), f2) >= 0.0) | (max(max(f0, f1), f2) <= 0.0)) << _U32(1)
            f0, f1, f2 = e0 + down0, e1 + down1, e2 + down2
            mask |= _U32((min(min(f0, f1), f2) >= 0.0) | (max(max(f0, f1), f2) <= 0.0)) << _U32(2)
            f0, f1, f2 = f0 + right0, f1 + right1, f2 + right2
            mask |= _U32((min(min(f0, f1), f2) >= 0.0) | (max(max(f0, f1), f2) <= 0.0)) << _U32(3)
            masks[k] = mask

        for k in range(kept_count):
            t = kept[0, k]
            place = kept[1, k]
            if kept[2, k] != 0:
                if hit_count + np.uintp(4) > np.uintp(HITS):
                    _shade(triangles, snapped, codes, hits, hit_count, depth, colour)
                    hit_count = np.uintp(0)
                mask = masks[k] & kept[2, k]
                hits[0, hit_count] = t
                hits[1, hit_count] = place
                hit_count += np.uintp(mask & _U32(1))
                hits[0, hit_count] = t
                hits[1, hit_count] = place + _U32(65536)
                hit_count += np.uintp((mask >> _U32(1)) & _U32(1))
                hits[0, hit_count] = t
                hits[1, hit_count] = place + _U32(1)
                hit_count += np.uintp((mask >> _U32(2)) & _U32(1))
                hits[0, hit_count] = t
                hits[1, hit_count] = place + _U32(65537)
                hit_count += np.uintp(mask >> _U32(3))
                continue
            a, b, c = cells[triangles[t, 0]], cells[triangles[t, 1]], cells[triangles[t, 2]]
            if (a == _U32(NO_CELL)) | (b == _U32(NO_CELL)) | (c == _U32(NO_CELL)):
                continue
            wide = max(a >> s16, b >> s16, c >> s16) - (place >> s16)
            high = max(a & low, b & low, c & low) - (place & low)
            x0, x1, x2 = corners[0, k], corners[2, k], corners[4, k]
            y0, y1, y2 = corners[1, k], corners[3, k], corners[5, k]
            e0, e1, e2 = x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0
            right0, right1, right2 = (y1 - y2) * _UNIT, (y2 - y0) * _UNIT, (y0 - y1) * _UNIT
            down0, down1, down2 = (x2 - x1) * _UNIT, (x0 - x2) * _UNIT, (x1 - x0) * _UNIT
            for v in range(high):
                r0 = e0 + down0 * np.float64(v)
                r1 = e1 + down1 * np.float64(v)
                r2 = e2 + down2 * np.float64(v)
                for u in range(wide):
                    if hit_count == np.uintp(HITS):
                        _shade(triangles, snapped, codes, hits, hit_count, depth, colour)
                        hit_count = np.uintp(0)
                    f0 = r0 + right0 * np.float64(u)
                    f1 = r1 + right1 * np.float64(u)
                    f2 = r2 + right2 * np.float64(u)
                    hits[0, hit_count] = t
                    hits[1, hit_count] = place + (_U32(u) << s16) + _U32(v)
                    hit_count += np.uintp((min(min(f0, f1), f2) >= 0.0) | (max(max(f0, f1), f2) <= 0.0))
    _shade(triangles, snapped, codes, hits, hit_count, depth, colour)


def _read_only(array: Array, dtype: type) -> Array:
    """An aligned, contiguous, read-only view or copy: always the same Numba type, so that nothing is compiled twice."""
    result = np.require(array, dtype, ["C", "A"]).view(np.ndarray)
    result = result.view()
    result.flags.writeable = False
    return result


class CpuRenderer:
    """Draws the faces of one topology.

    Arguments are checked by `radan_ros.rendering.Renderer`, which is the one to use.
    """

    def __init__(self, triangles: Array, codes: Array) -> None:
        vertex_count = len(codes)
        self._triangles = _read_only(triangles, np.uint32)  # unsigned: Numba adds no code for negative indices
        self._codes = _read_only(codes, np.float32)
        self._snapped = np.zeros((vertex_count, 4), np.float32)
        self._columns = np.zeros(vertex_count, np.float32)
        self._rows = np.zeros(vertex_count, np.float32)
        self._cells = np.zeros(vertex_count, np.uint32)
        self._kept = np.zeros((3, BLOCK), np.uint32)
        self._corners = np.zeros((6, BLOCK), np.float64)
        self._masks = np.zeros(BLOCK, np.uint32)
        self._hits = np.zeros((2, HITS), np.uint32)
        self._lock = threading.Lock()

    def render(self, faces: Sequence[Array], height: int, width: int, colour: bool) -> tuple[Array, Array]:
        """Depth (height, width) float32 and colour (height, width, 3) uint8, the latter (0, 0, 3) when not wanted."""
        warm_up()
        depth = np.full((height, width), np.nan, np.float32)
        pixels = np.zeros((height, width, 3) if colour else (0, 0, 3), np.uint8)
        with self._lock:
            for face in faces:
                self._add(face, depth, pixels)
        return depth, pixels

    def _add(self, face: Array, depth: Array, pixels: Array) -> None:
        """Draw one face into the pictures."""
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32: infinite, and skipped as such
            vertices = _read_only(face, np.float32)
        height, width = depth.shape
        _snap(vertices, width, height, self._snapped, self._columns, self._rows, self._cells)
        _draw(
            self._triangles,
            self._snapped,
            self._cells,
            self._codes,
            self._kept,
            self._corners,
            self._masks,
            self._hits,
            depth,
            pixels,
        )


_warm_up_lock = threading.Lock()
_warm = False


def warm_up() -> None:
    """Compile the kernels, or load them from Numba's cache, once in a process: 2 s the first time, 0.1 s later."""
    global _warm
    if _warm:
        return
    with _warm_up_lock:
        renderer = CpuRenderer(np.array([[0, 1, 2]]), np.zeros((3, 3)))
        face = np.array([[0.0, 0.0, 1.0], [3.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
        pictures = np.full((2, 2), np.nan, np.float32), np.zeros((2, 2, 3), np.uint8)
        for attempt in range(5):  # each of the kernels may fail once
            try:
                renderer._add(face, *pictures)
                vertex_normals(face, [[0, 1, 2]])  # what is drawn is mostly lit
                break
            except (
                OSError
            ):  # compiled, but the cache could not be written (a full disk): next time it is found in memory
                if attempt == 4:
                    raise
        _warm = True
