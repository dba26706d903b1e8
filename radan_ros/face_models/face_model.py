"""A linear 3D morphable model: mean + shape basis + expression basis."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class FaceModel:
    """Mean face, bases and topology. Axes: x to the subject's left, y to the scalp, z out of the face.

    Attributes
    ----------
    name : str
    mean : (V, 3) float32
        Model units.
    shape_basis, expression_basis : (V, 3, n) float32
        Displacement per unit of each coefficient, model units. 40 and 10 modes in the 62-parameter family.
    triangles : (T, 3) int32
        0-based vertex indices, counter-clockwise seen from outside.
    landmarks : (68,) int32
        Vertex of each landmark, iBUG/dlib order.
    codes : (V, 3) float32
        Projected normalized coordinate code (PNCC colour, red green blue), 0 .. 255.
    unit : float
        Metres per model unit.
    uv : (V, 2) float32, optional
        Texture coordinates, 0 .. 1, u to the picture's right, v up.
    regions : (V,) uint8, optional
        Part of the face that a vertex belongs to (the built-in model: `radan_ros.face_models.making.template`).
    expression_names : tuple of str
        A name for each expression mode; empty where they are not known.

    Raises
    ------
    ValueError
        When the arrays do not fit together.
    """

    name: str
    mean: NDArray[np.float32]
    shape_basis: NDArray[np.float32]
    expression_basis: NDArray[np.float32]
    triangles: NDArray[np.int32]
    landmarks: NDArray[np.int32]
    codes: NDArray[np.float32]
    unit: float
    uv: NDArray[np.float32] | None = None
    regions: NDArray[np.uint8] | None = None
    expression_names: tuple[str, ...] = ()
    _basis: NDArray[np.float32] = field(init=False, repr=False)  # (n, 3 V): one row a mode, shape then expression

    def __post_init__(self) -> None:
        v = len(self.mean)
        for what, array, expected in (
            ("mean", self.mean, (v, 3)),
            ("shape_basis", self.shape_basis, (v, 3, self.shape_basis.shape[-1])),
            ("expression_basis", self.expression_basis, (v, 3, self.expression_basis.shape[-1])),
            ("triangles", self.triangles, (len(self.triangles), 3)),
            ("landmarks", self.landmarks, (68,)),
            ("codes", self.codes, (v, 3)),
            ("uv", self.uv, (v, 2)),
            ("regions", self.regions, (v,)),
        ):
            if array is not None and array.shape != expected:
                raise ValueError(f"face model {self.name}: {what} has shape {array.shape}, not {expected}")
        for what, array in (
            ("mean", self.mean),
            ("shape_basis", self.shape_basis),
            ("expression_basis", self.expression_basis),
            ("codes", self.codes),
            ("uv", self.uv),
        ):
            if array is not None and not np.isfinite(array).all():
                raise ValueError(f"face model {self.name}: {what} is not finite")
        for what, indices in (("triangles", self.triangles), ("landmarks", self.landmarks)):
            if indices.size and not (0 <= indices.min() and indices.max() < v):
                raise ValueError(f"face model {self.name}: {what} refer to vertices outside 0 .. {v - 1}")
        if not (np.isfinite(self.unit) and self.unit > 0):
            raise ValueError(f"face model {self.name}: a unit of {self.unit} m")
        expressions = self.expression_basis.shape[-1]
        if self.expression_names and len(self.expression_names) != expressions:
            raise ValueError(
                f"face model {self.name}: {len(self.expression_names)} expression_names of {expressions} modes"
            )
        both = np.concatenate([self.shape_basis.reshape(3 * v, -1), self.expression_basis.reshape(3 * v, -1)], axis=1)
        object.__setattr__(self, "_basis", np.ascontiguousarray(both.T, np.float32))

    @property
    def modes(self) -> int:
        """Number of shape and expression modes together."""
        return len(self._basis)

    @cached_property
    def version(self) -> str:
        """Sixteen hexadecimal digits that change with any array of the model."""
        digest = hashlib.sha256()
        for array in (self.mean, self._basis, self.triangles, self.landmarks, self.codes, np.float64(self.unit)):
            digest.update(np.ascontiguousarray(array).tobytes())
        for optional in (self.uv, self.regions):
            if optional is not None:
                digest.update(np.ascontiguousarray(optional).tobytes())
        return digest.hexdigest()[:16]

    def vertices(self, coefficients: ArrayLike) -> NDArray[np.float32]:
        """Dense shapes.

        Parameters
        ----------
        coefficients : (N, modes) array_like
            Shape then expression coefficients.

        Returns
        -------
        (N, V, 3) float32
            Model units.
        """
        values = self._coefficients(coefficients)
        return (self.mean.reshape(1, -1) + values @ self._basis).reshape(len(values), -1, 3)

    def landmark_points(self, coefficients: ArrayLike) -> NDArray[np.float32]:
        """The 68 landmarks of the shapes: like `vertices`, (N, 68, 3), without the cost of the dense shape."""
        values = self._coefficients(coefficients)
        mean, basis = self._landmark_rows
        return (mean + values @ basis).reshape(len(values), 68, 3)

    @cached_property
    def _landmark_rows(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        basis = self._basis.reshape(self.modes, -1, 3)[:, self.landmarks]
        return self.mean[self.landmarks].reshape(1, -1), np.ascontiguousarray(basis.reshape(self.modes, -1))

    def _coefficients(self, coefficients: ArrayLike) -> NDArray[np.float32]:
        values = np.asarray(coefficients, np.float32)
        if values.ndim != 2 or values.shape[1] != self.modes:
            raise ValueError(f"coefficients have shape {values.shape}, not (N, {self.modes}) of face model {self.name}")
        return values
