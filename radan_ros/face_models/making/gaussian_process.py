"""Shape modes of a face from a Gaussian process on its template: no scans, but what is known of faces in advance.

Luethi et al., "Gaussian Process Morphable Models", PAMI 2018: deformations of a template are a Gaussian process whose
covariance is a sum of squared-exponential kernels of several scales; its leading eigenfunctions are the modes of a
morphable model. Here the process is mirror symmetric, varies more per centimetre where faces do (about the eyes, the
nose, the mouth and the chin), leaves out what the camera explains anyway (position, size, nodding), and keeps the
eyeballs round and under their lids.

Its deviations are set so that about the deviations of `MEASURES` come out, rather too large than too small: a fit to a
photograph needs room.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radan_ros.face_models.making.anatomy import Array, Eyeball, keep_lids_on
from radan_ros.face_models.making.template import Template


@dataclass(frozen=True)
class Scale:
    """One squared-exponential kernel.

    Attributes
    ----------
    sigma : float
        Its length, metres: two points so far apart move with a correlation of 0.61.
    deviation : (float, float, float)
        Standard deviation of the displacement in x, y and z, metres. All differ, so that no two modes are of equal
        variance and every machine finds the same.
    features, jaw : float
        How much larger the deviation is at the eyes, nose, mouth and chin, and at the angles of the jaw, than far from
        them: 1 is twice as large.
    """

    sigma: float
    deviation: tuple[float, float, float]
    features: float = 0.0
    jaw: float = 0.0


SCALES = (
    Scale(0.120, (0.0030, 0.0056, 0.0051)),
    Scale(0.060, (0.0022, 0.0034, 0.0036), jaw=1.3),
    Scale(0.030, (0.0011, 0.0014, 0.0016), features=0.8),
    Scale(0.015, (0.0003, 0.0005, 0.0006), features=3.0),
)


@dataclass(frozen=True)
class Measure:
    """A distance along one axis, and how much it differs between adults.

    Attributes
    ----------
    name : str
    first, second : int
        Landmarks that it lies between.
    axis : int
        0 x, 1 y, 2 z.
    mean, deviation : float
        Of adults of one sex, about, metres.
    """

    name: str
    first: int
    second: int
    axis: int
    mean: float
    deviation: float

    @property
    def deviation_without_size(self) -> float:
        """What is left of the deviation when all faces are brought to one size, metres."""
        return float(np.sqrt(self.deviation**2 - (_SIZE_VARIATION * self.mean) ** 2))

    def deviation_in(self, shape_basis: NDArray[np.floating], landmarks: NDArray[np.int32]) -> float:
        """Its standard deviation in a model with these modes (V, 3, n) of unit-variance coefficients, model units."""
        rows = shape_basis[landmarks[[self.first, self.second]], self.axis].astype(np.float64)
        return float(np.linalg.norm(rows[0] - rows[1]))


# Rounded figures of the order published by Z. Zhuang and B. Bradtmiller (Head-and-Face Anthropometric Survey of U.S.
# Respirator Users, J. Occup. Environ. Hyg. 2, 2005) and L. G. Farkas (Anthropometry of the Head and Face, 1994): from
# memory, not copied from their tables nor checked against them.
MEASURES = (
    Measure("breadth of the face", 0, 16, 0, 0.139, 0.0067),
    Measure("breadth of the jaw", 4, 12, 0, 0.115, 0.0097),
    Measure("height of the face, sellion to chin", 27, 8, 1, 0.118, 0.0066),
    Measure("height of the nose", 27, 33, 1, 0.050, 0.0040),
    Measure("breadth of the nose", 31, 35, 0, 0.035, 0.0040),
    Measure("protrusion of the nose", 33, 30, 2, 0.020, 0.0027),
    Measure("breadth of the mouth", 48, 54, 0, 0.050, 0.0041),
    Measure("distance of the inner corners of the eyes", 39, 42, 0, 0.0325, 0.0027),
    Measure("distance of the outer corners of the eyes", 36, 45, 0, 0.090, 0.0040),
    Measure("height of the opening of the eye", 44, 46, 1, 0.0108, 0.0012),
    Measure("height of the brow over the eye", 24, 44, 1, 0.020, 0.0028),
    Measure("height of the upper lip", 33, 62, 1, 0.0215, 0.0024),
    Measure("height of the red of the upper lip", 51, 62, 1, 0.0085, 0.0015),
    Measure("height of the red of the lower lip", 57, 66, 1, 0.0095, 0.0016),
    Measure("height of the chin", 66, 8, 1, 0.046, 0.0038),
)
# Coefficient of variation that all measures of a face have in common.
_SIZE_VARIATION = 0.035
# Landmarks of the brows, the nose, the eyes, the mouth and the chin, and how far their influence goes (metres).
_FEATURES = np.r_[7:10, 17:68]
_REACH = 0.012
_JAW, _JAW_REACH = np.r_[2:6, 11:15], 0.02
# Points that the process is computed at (Nystroem's method), on one half of the face.
_SUPPORT = 320


def shape_modes(template: Template, eyes: tuple[Eyeball, Eyeball], count: int = 40) -> Array:
    """The leading modes of the process.

    Parameters
    ----------
    template : Template
    eyes : (Eyeball, Eyeball)
    count : int
        Number of modes.

    Returns
    -------
    (V, 3, count) float64
        Metres per unit of its coefficient, which has the mean 0 and the variance 1; sorted by variance. The modes are
        orthogonal to each other over the vertices, each vertex counting the same, and mirror symmetric.

    Notes
    -----
    Which 40 dimensions are kept is decided with the features counting more than the cheeks and the forehead (they are
    what a face is known by, and small): the modes leave the least error by that measure.
    """
    vertices = template.vertices
    fields = _without_camera(keep_lids_on(_process(vertices, template.landmarks), eyes, vertices), vertices)
    flat = fields.reshape(-1, fields.shape[-1])
    weights = np.repeat(1 + 3 * nearness(vertices, vertices[template.landmarks[_FEATURES]], _REACH), 3)
    chosen = _leading(flat, weights, count)
    modes = _leading(chosen, np.ones(len(flat)), count)
    half = np.repeat(vertices[:, 0] > 1e-6, 3)
    largest = np.abs(modes[half]).argmax(axis=0)
    modes *= np.sign(modes[half][largest, np.arange(count)])
    modes = modes.reshape(len(vertices), 3, count)
    # Symmetric to the last digit.
    return np.asarray((modes + modes[template.mirror] * np.array([-1, 1, 1])[:, None]) / 2)


def nearness(points: Array, features: Array, reach: float) -> Array:
    """1 at a feature, falling to 0 with the distance from the nearest one; `points` (n, 3), `features` (m, 3): (n,)."""
    from scipy.spatial import cKDTree

    distance = cKDTree(features).query(points)[0]
    return np.asarray(np.exp(-(distance**2) / (2 * reach**2)))


def _process(vertices: Array, landmarks: NDArray[np.int32]) -> Array:
    """A factor (V, 3, r) of the covariance over the mesh: the process is this times r independent unit normals.

    Nystroem's method: with the kernel K_mm among some points and K_nm from the vertices to them, K is about
    K_nm K_mm^-1 K_mn, and the factor is K_nm K_mm^-1/2. The three axes are independent.
    """
    support = farthest_points(vertices, np.flatnonzero(vertices[:, 0] >= -1e-6), landmarks[30], _SUPPORT)
    features = nearness(vertices, vertices[landmarks[_FEATURES]], 2 * _REACH)
    jaw = nearness(vertices, vertices[landmarks[_JAW]], _JAW_REACH)
    squared = ((vertices[:, None] - vertices[None, support]) ** 2).sum(axis=2)
    across = (((vertices * (-1, 1, 1))[:, None] - vertices[None, support]) ** 2).sum(axis=2)
    factors = []
    for axis, sign in enumerate((-1.0, 1.0, 1.0)):
        kernel = np.zeros_like(squared)
        for scale in SCALES:
            amplitude = scale.deviation[axis] * (1 + scale.features * features + scale.jaw * jaw)
            near, far = (np.exp(-d / (2 * scale.sigma**2)) for d in (squared, across))
            if axis > 0:
                # The two halves vary alike: where they meet they would vary more, by up to the square root of 2.
                own = np.exp(-2 * vertices[:, 0] ** 2 / scale.sigma**2)
                amplitude = amplitude / np.sqrt(1 + own)
            kernel += amplitude[:, None] * amplitude[support] * (near + sign * far)
        values, vectors = np.linalg.eigh(kernel[support])
        kept = values > 1e-7 * values[-1]
        factor = np.zeros((len(vertices), 3, kept.sum()))
        factor[:, axis] = kernel @ (vectors[:, kept] / np.sqrt(values[kept]))
        factors.append(factor)
    return np.concatenate(factors, axis=2)


def farthest_points(points: Array, among: NDArray[np.int64], first: int, count: int) -> NDArray[np.int64]:
    """Indices of `count` points, each the one farthest from those before it, chosen `among` some, from `first` on."""
    chosen = [int(first)]
    distance = np.full(len(among), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, ((points[among] - points[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(among[distance.argmax()]))
    return np.array(chosen)


def _without_camera(fields: Array, vertices: Array) -> Array:
    """Take out what a camera explains: shift up and forwards, size, and nodding (the others are not symmetric)."""
    from_centre = vertices - vertices.mean(axis=0)
    x, y, z = from_centre.T
    nothing = np.zeros_like(x)
    motions = np.stack([
        np.stack([nothing, nothing + 1, nothing], axis=1),
        np.stack([nothing, nothing, nothing + 1], axis=1),
        from_centre,
        np.stack([nothing, -z, y], axis=1),
    ])  # fmt: skip
    basis = np.linalg.qr(motions.reshape(4, -1).T)[0]
    flat = fields.reshape(-1, fields.shape[-1])
    return (flat - basis @ (basis.T @ flat)).reshape(fields.shape)


def _leading(factor: Array, weights: Array, count: int) -> Array:
    """The best `count` columns that together stand for a covariance given by its factor: orthogonal, largest first.

    `factor` (n, r), `weights` (n,): orthogonal and best by the weighted sum of squares; (n, count).
    """
    values, vectors = np.linalg.eigh(factor.T @ (weights[:, None] * factor))
    return np.asarray(factor @ vectors[:, ::-1][:, :count])
