"""Pose adaptive features (3DDFA, Zhu et al., 2017): a face's crop sampled at 64 x 64 anchors that lie on the face.

Whatever the pose, the same place of the picture shows the same place of the face.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros.face_models import FaceModel
from radan_ros.pickles import load_arrays
from radan_ros.pipeline import cameras_in_crop
from radan_ros.texture import flatten_to_texels

Floats = NDArray[np.float32]

GRID = 64  # anchors along and across
_FINE = 16  # steps between two anchors when the border of the face is looked for


@dataclass(frozen=True)
class Anchors:
    """64 x 64 points of a face model: row by row from the forehead to the chin, from the subject's right to the left.

    Attributes
    ----------
    mean : (4096, 3) float32
        Model units.
    basis : (4096, 3, n) float32
        Displacement per unit of each coefficient, shape then expression.
    """

    mean: Floats
    basis: Floats


def open_anchors(face_model: FaceModel, folder: str | Path | None = None) -> Anchors:
    """The anchors of a face model: 3DDFA's own where `folder` has them, else points spread over its mesh.

    Parameters
    ----------
    face_model : FaceModel
    folder : path, optional
        3DDFA's model folder: its ``train.configs/Model_PAF.pkl`` is taken if it is there.

    Raises
    ------
    ValueError
        Names the file when it is damaged or does not belong to the face model.
    """
    if folder is not None:
        path = Path(folder) / "train.configs" / "Model_PAF.pkl"
        if path.is_file():
            return _read_anchors(path, face_model.modes)
    return spread_anchors(face_model)


def spread_anchors(face_model: FaceModel) -> Anchors:
    """Anchors on the mean face seen from a vertical axis through its middle.

    The rows are evenly spaced in height, and each spans the face at its height, from border to border, evenly in
    angle. (3DDFA's lie on a like cylinder, but of one breadth for all rows.)
    """
    mean = face_model.mean.astype(np.float64)
    low, high = mean.min(axis=0), mean.max(axis=0)
    around = mean - (0.0, low[1], (low[2] + high[2]) / 2)
    radius = np.hypot(around[:, 0], around[:, 2])
    angle = np.arctan2(around[:, 0], around[:, 2])
    # As a texture whose rows are heights and whose columns are angles; of several layers the outermost is seen.
    unrolled = np.stack([0.5 + angle / (2 * np.pi), around[:, 1] / (high[1] - low[1]), -radius], axis=1)
    corners = unrolled[face_model.triangles]
    whole = np.ptp(corners[..., 0], axis=1) < 0.5  # not across the seam at the back
    triangles = face_model.triangles[whole]
    texels = flatten_to_texels(unrolled, triangles, (GRID, 4 * _FINE * GRID))
    chosen = _spread_in_rows(texels.row, texels.column)
    at, weights = triangles[texels.triangle[chosen]], texels.weights[chosen]
    basis = np.concatenate([face_model.shape_basis, face_model.expression_basis], axis=2)
    return Anchors(np.einsum("nk,nkj->nj", weights, face_model.mean[at]), np.einsum("nk,nkjm->njm", weights, basis[at]))


def paf_crop(
    crop: NDArray[np.uint8], parameters: ArrayLike, anchors: Anchors, kernel: int = 3, *, compat: bool = False
) -> NDArray[np.uint8]:
    """The pose adaptive feature picture of a face: for each anchor, the crop's pixels around it.

    Parameters
    ----------
    crop : (120, 120, 3) uint8
        What the network saw (`boxes.crop`, for `compat` `boxes.crop_reference`), of the same step as the parameters.
    parameters : (62,) array_like
        `Face.parameters`.
    anchors : Anchors
        `open_anchors`.
    kernel : int
        Side of the square that is taken around each anchor, pixels of the crop; odd.
    compat : bool
        3DDFA's numbers: its pixel convention, anchors rounded to whole pixels and kept away from the crop's edge.
        Otherwise bilinear; beyond the edge, the edge's pixels go on.

    Returns
    -------
    (64 kernel, 64 kernel, 3) uint8

    Raises
    ------
    ValueError
        For an even kernel or one larger than the crop.
    """
    side = crop.shape[0]
    if kernel % 2 == 0 or not 0 < kernel < side:
        raise ValueError(f"a PAF kernel of {kernel} is not odd, or not between 1 and {side}")
    values = np.asarray(parameters, np.float32)
    shape = anchors.mean + anchors.basis @ values[12:]
    camera = cameras_in_crop(values[None], compat)[0]
    centres = (shape @ camera[:2, :3].T + camera[:2, 3]).reshape(GRID, 1, GRID, 1, 2)
    reach = kernel // 2
    if compat:
        centres = np.clip(np.round(centres), reach, side - reach - 1)
    steps = np.arange(-reach, reach + 1, dtype=np.float32)
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(1, kernel, 1, kernel, 2)
    at = (centres + offsets).reshape(GRID * kernel, GRID * kernel, 2).astype(np.float32)
    picture = cv2.remap(crop, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(picture, np.uint8)


def _spread_in_rows(rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.intp]:
    """Of pixels in reading order, those that lie evenly along each of the 64 rows: (4096,) indices."""
    first = np.searchsorted(rows, np.arange(GRID))
    last = np.searchsorted(rows, np.arange(GRID), side="right") - 1
    left, right = columns[first], columns[last]
    wanted = left[:, None] + (right - left)[:, None] * (np.arange(GRID) + 0.5) / GRID
    # A whole line of reading order, so that one search does for all rows; the next pixel where there is a hole.
    width = columns.max() + 1
    line, target = rows * width + columns, (np.arange(GRID)[:, None] * width + wanted).ravel()
    after = np.searchsorted(line, target).clip(1, len(line) - 1)
    return np.where(target - line[after - 1] < line[after] - target, after - 1, after)


def _read_anchors(path: Path, modes: int) -> Anchors:
    content = load_arrays(path)
    count = 3 * GRID * GRID
    arrays = (
        [content.get(key) for key in ("mu_filter", "w_filter", "w_exp_filter")] if isinstance(content, dict) else []
    )
    if not arrays or any(not isinstance(a, np.ndarray) or a.size % count or not a.size for a in arrays):
        raise ValueError(f"{path}: no 64 x 64 anchors (mu_filter, w_filter, w_exp_filter) in it")
    # 3DDFA goes down the columns.
    mean, shape, expression = (
        np.asarray(a, np.float32).reshape(GRID, GRID, 3, -1).swapaxes(0, 1).reshape(GRID * GRID, 3, -1) for a in arrays
    )
    basis = np.ascontiguousarray(np.concatenate([shape[..., :40], expression[..., :10]], axis=2))
    if basis.shape[2] != modes or mean.shape[2] != 1:
        raise ValueError(f"{path}: anchors of {basis.shape[2]} modes, but the face model has {modes}")
    return Anchors(np.ascontiguousarray(mean[..., 0]), basis)
