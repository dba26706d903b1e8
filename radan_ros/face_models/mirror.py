"""What the mirror image of a face is in the coefficients of its model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from radan_ros.face_models.face_model import FaceModel


def mirror_vertices(face_model: FaceModel, tolerance: float = 1e-4) -> NDArray[np.int32]:
    """The vertex that lies where the mirror (x to -x) puts each vertex of the mean face.

    Parameters
    ----------
    face_model : FaceModel
    tolerance : float
        Largest distance from there, metres.

    Returns
    -------
    (V,) int32
        Its own inverse.

    Raises
    ------
    ValueError
        When the model is not mirror symmetric, as that of Basel is not.
    """
    from scipy.spatial import cKDTree

    mean = face_model.mean.astype(np.float64) * face_model.unit
    # Closed lips have vertices at the same place: their neighbours tell them apart.
    corners = face_model.triangles
    ring = corners[:, [1, 2, 0]].ravel()
    count = np.maximum(np.bincount(corners.ravel(), minlength=len(mean)), 1)
    next_ones = [np.bincount(corners.ravel(), mean[ring, axis], len(mean)) for axis in range(3)]
    last_ones = [np.bincount(ring, mean[corners.ravel(), axis], len(mean)) for axis in range(3)]
    around = (np.array(next_ones) + np.array(last_ones)).T / (2 * count[:, None])
    known = np.concatenate([mean, around], axis=1)
    nearest = cKDTree(known).query(known * (-1, 1, 1, -1, 1, 1))[1]
    distances = np.linalg.norm(mean * (-1, 1, 1) - mean[nearest], axis=1)
    if distances.max() > tolerance or not np.array_equal(nearest[nearest], np.arange(len(mean))):
        raise ValueError(
            f"face model {face_model.name} is not mirror symmetric: a vertex's mirror image is up to "
            f"{1e3 * distances.max():.2f} mm from the nearest vertex"
        )
    return np.asarray(nearest, np.int32)


def mirror_coefficients(face_model: FaceModel, tolerance: float = 0.01) -> NDArray[np.float32]:
    """The matrix that turns a face's coefficients into those of its mirror image.

    Parameters
    ----------
    face_model : FaceModel
    tolerance : float
        Largest share of a mode that its mirror image may have outside the modes.

    Returns
    -------
    (n, n) float32
        ``mirrored = coefficients @ matrix``; its own inverse. The mirrored shape is the shape at the mirrored vertices
        (`mirror_vertices`) with x of the other sign.

    Raises
    ------
    ValueError
        When the mean or the modes are not mirror symmetric, or a mode moves nothing.
    """
    other = mirror_vertices(face_model)
    n = face_model.modes
    basis = np.concatenate([face_model.shape_basis, face_model.expression_basis], axis=2).astype(np.float64)
    flat = basis.reshape(-1, n)
    mirrored = (basis[other] * np.array([-1, 1, 1])[:, None]).reshape(-1, n)
    size = np.linalg.norm(flat, axis=0)
    if not size.all():
        raise ValueError(f"face model {face_model.name}: mode {size.argmin()} moves nothing")
    unit = flat / size
    matrix = np.linalg.solve(unit.T @ unit, unit.T @ mirrored) / size[:, None]
    left = np.linalg.norm(mirrored - flat @ matrix, axis=0) / np.linalg.norm(mirrored, axis=0)
    if left.max() > tolerance:
        raise ValueError(
            f"face model {face_model.name} is not mirror symmetric: {left.max():.1%} of mode {left.argmax()}'s mirror "
            "image is outside its modes"
        )
    return np.asarray(matrix.T, np.float32)
