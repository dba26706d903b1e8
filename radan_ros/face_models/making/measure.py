"""How well a face model fits faces that it was not made from: ICT-FaceKit's, and landmarks on photographs.

For measuring only: nothing of what is read here goes into the model.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from radan_ros.face_models.face_model import FaceModel
from radan_ros.face_models.making.anatomy import Array, similarity_moves
from radan_ros.face_models.making.template import BROW, LIPS, SKIN
from radan_ros.fitting import fit_landmarks
from radan_ros.normals import vertex_normals

# Expressions of ICT-FaceKit that are fitted, and the fields that make them.
EXPRESSIONS = {
    "jawOpen": ("jawOpen",),
    "mouthSmile": ("mouthSmile_L", "mouthSmile_R"),
    "mouthPucker": ("mouthPucker",),
    "eyeBlink": ("eyeBlink_L", "eyeBlink_R"),
    "browInnerUp": ("browInnerUp_L", "browInnerUp_R"),
}

_STARTS, _ITERATIONS = 3, 8  # rounds with the landmarks alone, and with closest points
_CANDIDATES = 6  # triangles that a closest point is sought on: those of the nearest centroids
_POINTS = 2500  # vertices that a fit looks at; the figures are over all
# Against coefficients of unit variance the closest points count as 300 of 1 mm error, and so do the landmarks, each.
_SURFACE_WEIGHT, _LANDMARK_WEIGHT = 300 / 0.001**2, 1 / 0.001**2
# Along the surface a closest point says little.
_SLIDING = 0.1


@dataclass(frozen=True)
class Surface:
    """A face to be fitted: vertices (V, 3) metres, triangles (T, 3), landmarks (68,) vertices; x to its left, y up."""

    vertices: Array
    triangles: NDArray[np.int64]
    landmarks: NDArray[np.int64]


@dataclass(frozen=True)
class Fit:
    """A face model on a surface.

    Attributes
    ----------
    coefficients : (n,) float64
    distances : (m,) float64
        From the vertices looked at to the surface, metres of the surface.
    landmark_errors : (68,) float64
        Between the landmarks of both, metres of the surface.
    """

    coefficients: Array
    distances: Array
    landmark_errors: Array


class IctFaces:
    """Random faces of ICT-FaceKit light (Li et al., "Learning Formation of Physically-Based Face Attributes", CVPR
    2020), in metres.

    Parameters
    ----------
    folder : path
        Holds ``ict_face_light.npz``.

    Raises
    ------
    ValueError
        Names the file that is missing or is something else.
    """

    def __init__(self, folder: str | Path) -> None:
        path = Path(folder) / "ict_face_light.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                self._neutral, self._identity, self._expression = (
                    file[name].astype(np.float64) * 0.01 for name in ("neutral", "identity", "expression")
                )
                self._names = [str(name) for name in file["expression_names"]]
                self._landmarks = file["landmarks68"].astype(np.int64)
                self._triangles = file["triangles"].astype(np.int64)
            if self._landmarks.shape != (68,) or {self._identity.shape[1:], self._expression.shape[1:]} != {
                (len(self._neutral), 3)
            }:
                raise ValueError("its arrays do not fit together")
            if lacking := {field for fields in EXPRESSIONS.values() for field in fields} - set(self._names):
                raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
        except FileNotFoundError:
            raise ValueError(f"{path} is missing") from None
        except Exception as e:  # zip and header errors of many kinds
            raise ValueError(f"{path}: not ICT-FaceKit's face: {e}") from None

    def identities(self, count: int) -> Iterator[Surface]:
        """Faces of independent unit normal coefficients, always the same ones."""
        random = np.random.default_rng(0)
        for _ in range(count):
            yield self._surface(np.tensordot(random.normal(size=len(self._identity)), self._identity, 1))

    def expression(self, name: str) -> Surface:
        """The neutral face with an expression of `EXPRESSIONS` at full strength."""
        return self._surface(sum(self._expression[self._names.index(field)] for field in EXPRESSIONS[name]))

    def _surface(self, displacement: Array) -> Surface:
        return Surface(self._neutral + displacement, self._triangles, self._landmarks)


def fit_surface(face_model: FaceModel, surface: Surface, looked_at: NDArray[np.int64]) -> Fit:
    """Align a face model with a surface and deform it onto it.

    A similarity and all coefficients together, by closest points as in iterated closest points, mostly along the
    surface's normals; the landmarks start it and stay in it. Unit normal coefficients are its prior.

    Parameters
    ----------
    face_model : FaceModel
    surface : Surface
    looked_at : (m,) int64
        Vertices of the model that the surface has a counterpart for.
    """
    basis = np.concatenate([face_model.shape_basis, face_model.expression_basis], axis=2) * np.float64(face_model.unit)
    mean = face_model.mean * np.float64(face_model.unit)
    n = basis.shape[2]
    points = looked_at[:: max(1, len(looked_at) // _POINTS)]
    count = len(points)
    rows = np.concatenate([points, face_model.landmarks])
    search = SurfaceSearch(surface)
    given = surface.vertices[surface.landmarks]
    place = Similarity.between(given, mean[face_model.landmarks])  # from the surface into the model's frame
    coefficients = np.zeros(n)
    for iteration in range(_STARTS + _ITERATIONS):
        current = mean[rows] + basis[rows] @ coefficients
        moves = np.concatenate([basis[rows], similarity_moves(current)], axis=2)
        of_landmarks = moves[count:].reshape(-1, n + 7)
        normal = _LANDMARK_WEIGHT * of_landmarks.T @ of_landmarks
        right = _LANDMARK_WEIGHT * of_landmarks.T @ (place.apply(given) - mean[face_model.landmarks]).ravel()
        if iteration >= _STARTS:
            closest, normals = search.closest(place.undo(current[:count]))
            closest, normals = place.apply(closest), normals @ place.rotation.T
            residual = closest - mean[points]
            away = np.linalg.norm(closest - current[:count], axis=1)
            # Robust (Geman and McClure): what has no counterpart does not pull.
            weight = _SURFACE_WEIGHT / count / (1 + (away / 0.01) ** 2) ** 2
            along = np.einsum("va,vam->vm", normals, moves[:count])
            normal += along.T @ (along * weight[:, None])
            right += along.T @ (np.einsum("va,va->v", normals, residual) * weight)
            free = moves[:count].reshape(-1, n + 7)
            sliding = _SLIDING * np.repeat(weight, 3)
            normal += free.T @ (free * sliding[:, None])
            right += free.T @ (residual.ravel() * sliding)
        normal[np.arange(n), np.arange(n)] += 1.0
        solution = np.linalg.solve(normal, right)
        coefficients = solution[:n]
        # The small similarity of the model is undone on the surface's side.
        moved = current + similarity_moves(current) @ solution[n:]
        place = Similarity.between(moved, current).after(place)
    final = place.undo(mean + basis @ coefficients)
    closest, _ = search.closest(final[looked_at])
    return Fit(
        coefficients,
        np.linalg.norm(closest - final[looked_at], axis=1),
        np.linalg.norm(given - final[face_model.landmarks], axis=1),
    )


@dataclass(frozen=True)
class IctFigures:
    """How well a model fits ICT-FaceKit; metres.

    Attributes
    ----------
    identities, identity_landmarks : (n,) float64
        For each random identity the mean distance from the model's skin to the surface, and between the landmarks.
    expressions, expression_landmarks : dict of str to float
        The same for each expression of the neutral face.
    """

    identities: Array
    identity_landmarks: Array
    expressions: dict[str, float]
    expression_landmarks: dict[str, float]


def measure_on_ict(face_model: FaceModel, folder: str | Path, identities: int = 100) -> IctFigures:
    """Fit random identities and the expressions of ICT-FaceKit.

    Distances are from the model to the surface, over the vertices of the model's skin, lips and brows: that head has no
    eyeballs and no inside of the mouth, and goes on beyond the face.

    Raises
    ------
    ValueError
        When the folder does not hold it, or the model has no regions.
    """
    if face_model.regions is None:
        raise ValueError(f"face model {face_model.name} has no regions: what is its skin is not known")
    skin = np.flatnonzero(np.isin(face_model.regions, (SKIN, LIPS, BROW)))
    faces = IctFaces(folder)
    surfaces = [*faces.identities(identities), *(faces.expression(name) for name in EXPRESSIONS)]
    shown = tqdm(surfaces, unit="face", desc="ICT-FaceKit", disable=not sys.stderr.isatty())
    fits = [fit_surface(face_model, surface, skin) for surface in shown]
    distances = [float(fit.distances.mean()) for fit in fits]
    landmarks = [float(fit.landmark_errors.mean()) for fit in fits]
    return IctFigures(
        np.array(distances[:identities]),
        np.array(landmarks[:identities]),
        dict(zip(EXPRESSIONS, distances[identities:], strict=True)),
        dict(zip(EXPRESSIONS, landmarks[identities:], strict=True)),
    )


def measure_on_photographs(face_model: FaceModel, folder: str | Path, count: int = 500) -> Array:
    """Fit landmarks that people or programs set on photographs, of faces that look about ahead.

    Parameters
    ----------
    face_model : FaceModel
    folder : path
        Holds ``labels.npz`` with ``landmarks68_2d`` (n, 68, 2) pixels and ``teacher_camera`` (n, 3, 4).
    count : int
        Number of photographs, evenly from all whose yaw is below 15 degrees.

    Returns
    -------
    (m,) float64
        Mean distance of the 68 landmarks on each, over the square root of the area of their box.

    Raises
    ------
    ValueError
        When the folder does not hold them, or no such face.
    """
    path = Path(folder) / "labels.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            points, cameras = file["landmarks68_2d"].astype(np.float64), file["teacher_camera"].astype(np.float64)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except Exception as e:  # zip and header errors of many kinds
        raise ValueError(f"{path}: not labelled faces: {e}") from None
    if points.shape[1:] != (68, 2) or cameras.shape != (len(points), 3, 4):
        raise ValueError(f"{path}: not labelled faces: landmarks {points.shape}, cameras {cameras.shape}")
    ahead = cameras[:, 2, 0] / np.linalg.norm(cameras[:, 2, :3], axis=1)
    points = points[(np.abs(ahead) < np.sin(np.radians(15))) & np.isfinite(points).all(axis=(1, 2))]
    if not len(points):
        raise ValueError(f"{path}: no face with 68 landmarks looks ahead")
    points = points[np.linspace(0, len(points) - 1, min(count, len(points))).astype(int)]
    sizes = np.sqrt(np.ptp(points, axis=1).prod(axis=1))
    return np.asarray(fit_landmarks(face_model, points).residuals.mean(axis=1) / sizes, np.float64)


@dataclass(frozen=True)
class Similarity:
    """``scale * points @ rotation.T + shift``."""

    scale: float
    rotation: Array
    shift: Array

    @staticmethod
    def between(source: Array, target: Array) -> Similarity:
        """That which takes `source` (n, 3) nearest to `target` (n, 3) (Umeyama 1991)."""
        a, b = source - source.mean(axis=0), target - target.mean(axis=0)
        u, d, vt = np.linalg.svd(b.T @ a)
        turn = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
        rotation = (u * turn) @ vt
        scale = float((d * turn).sum() / (a**2).sum())
        return Similarity(scale, rotation, target.mean(axis=0) - scale * source.mean(axis=0) @ rotation.T)

    def apply(self, points: Array) -> Array:
        """Points (n, 3) moved."""
        return np.asarray(self.scale * points @ self.rotation.T + self.shift)

    def undo(self, points: Array) -> Array:
        """Points (n, 3) moved back."""
        return np.asarray((points - self.shift) @ self.rotation / self.scale)

    def after(self, first: Similarity) -> Similarity:
        """First the one, then this."""
        return Similarity(self.scale * first.scale, self.rotation @ first.rotation, self.apply(first.shift[None])[0])


class SurfaceSearch:
    """Nearest points on a surface whose triangles are of about the same size each."""

    def __init__(self, surface: Surface) -> None:
        from scipy.spatial import cKDTree

        self._corners = surface.vertices[surface.triangles]
        self._normals = vertex_normals(surface.vertices, surface.triangles)[surface.triangles]
        self._tree = cKDTree(self._corners.mean(axis=1))

    def closest(self, points: Array) -> tuple[Array, Array]:
        """The nearest point to each of `points` (n, 3), and the unit normal there, (n, 3) each.

        Among the triangles of the nearest `_CANDIDATES` centroids; the normals are interpolated between the vertices.
        """
        near = self._tree.query(points, _CANDIDATES)[1]
        a, b, c = (self._corners[near][:, :, k] for k in range(3))
        weights = _barycentric(points[:, None], a, b, c)
        places = weights[..., :1] * a + weights[..., 1:2] * b + weights[..., 2:] * c
        best = ((places - points[:, None]) ** 2).sum(axis=2).argmin(axis=1)
        row = np.arange(len(points))
        normal = np.einsum("vk,vka->va", weights[row, best], self._normals[near[row, best]])
        return places[row, best], normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)


def _barycentric(p: Array, a: Array, b: Array, c: Array) -> Array:
    """Barycentric coordinates (..., 3) of the points of triangles that are nearest to p: inside, else on an edge."""
    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-30)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inside = np.stack([1 - v - w, v, w], axis=-1)
    edges = []
    for first, second, start, end in ((0, 1, a, b), (1, 2, b, c), (2, 0, c, a)):
        along = end - start
        t = np.clip(((p - start) * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-30), 0, 1)
        place = np.zeros_like(inside)
        place[..., first], place[..., second] = 1 - t, t
        edges.append((place, ((start + t[..., None] * along - p) ** 2).sum(-1)))
    distance = np.stack([d for _, d in edges])
    nearest = np.take_along_axis(
        np.stack([place for place, _ in edges]), distance.argmin(axis=0)[None, ..., None], axis=0
    )[0]
    return np.where((inside >= 0).all(axis=-1, keepdims=True), inside, nearest)
