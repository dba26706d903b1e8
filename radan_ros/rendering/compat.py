"""The depth and PNCC pictures of the reference implementation (3DDFA), mistakes included, for comparing with it.

The reference calls larger z nearer, rescales the depth of each face to 0..1 on its own, and draws one face after the
other, so that the last one wins wherever they overlap, be it nearer or not. Where a value is 0 the earlier face shows
through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import Renderer
from .cpu import CpuRenderer


def reference_depth_and_pncc(
    vertices_list: Sequence[npt.NDArray[Any]],
    triangles: npt.NDArray[Any],
    codes: npt.NDArray[Any],
    size: tuple[int, int],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Draw faces as the reference does.

    Parameters
    ----------
    vertices_list : F arrays (V, 3)
        x and y in pixels, and the reference's z, larger is nearer. Not changed (the reference does change its own).
    triangles : (T, 3) integers, from 0
    codes : (V, 3) uint8 or floats, 0 to 255
    size : (height, width)

    Returns
    -------
    depth : (H, W) float32
        0 (farthest of the face, and no face) to 255 (nearest).
    pncc : (H, W, 3) uint8
        Rounded, as OpenCV writes the reference's floats.

    Raises
    ------
    ValueError
        As `Renderer`; also when the depths of a face are not finite or all equal, which the reference divides by.
    """
    renderer = Renderer(triangles, codes)
    # Ours truncates colours: with half a level more it rounds. (`Renderer` takes none over 255.)
    colours = CpuRenderer(np.asarray(triangles), np.asarray(codes, np.float32) + np.float32(0.5))
    depth = np.zeros(size, np.float32)
    pncc = np.zeros((*size, 3), np.uint8)
    for i, vertices in enumerate(vertices_list):
        face = np.array(vertices, np.float32)
        z = face[:, 2]
        extent = np.ptp(z) if z.size else np.float32(np.nan)
        if not 0 < extent < np.inf:
            raise ValueError(f"face {i}: the reference's depth needs finite z that differ")
        face[:, 2] = -(z - z.min()) / extent
        picture = renderer.render([face], size, colour=False)
        grey = np.nan_to_num(picture.depth * np.float32(-255), nan=0.0)
        depth[grey > 0] = grey[grey > 0]
        shown = np.isfinite(picture.depth)
        pncc[shown] = colours.render([face], *depth.shape, True)[1][shown]
    return depth, pncc
