"""Fit a face model to 68 landmarks: camera, shape and expression, for many faces at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros.face_models import FaceModel

LANDMARKS = 68
JAW = slice(0, 17)  # 0 at the subject's right ear, 8 the chin, 16 at the left ear
NOISE = 0.015
_CONTOUR_ANGLE = np.deg2rad(20.0)  # yaw at which a far jaw point in 2D is believed 1/e as much as a frontal one
_ROBUST_SCALE = 2.385  # Cauchy's weight function at this many standard deviations: 95 % efficient on Gaussian noise
_BATCH = 256  # faces solved together; their normal equations stay in the cache
_Array = NDArray[np.float64]


class LandmarkFit(NamedTuple):
    """Fitted faces.

    Attributes
    ----------
    cameras : (N, 3, 4) float32
        Scaled rotations and offsets, model units to image pixels: x right, y down, third away from the viewer.
        Fitted to 2D landmarks the third offset is free: the 68 model points then have a mean third coordinate of 0.
    coefficients : (N, modes) float32
        Shape then expression.
    residuals : (N, 68) float32
        Distance of each given landmark from the projected one, in pixels (in 3D where landmarks are), whatever its
        weight; NaN where the landmark is not finite, and of a face that was not fitted.
    """

    cameras: NDArray[np.float32]
    coefficients: NDArray[np.float32]
    residuals: NDArray[np.float32]


def fit_landmarks(
    face_model: FaceModel,
    landmarks: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    deviations: ArrayLike | None = None,
    noise: float = NOISE,
    shape_prior: float = 1.0,
    expression_prior: float = 1.0,
    contour: bool = True,
    robust: bool = True,
    iterations: int = 12,
) -> LandmarkFit:
    """Fit camera, shape and expression to landmarks: Gauss-Newton on all unknowns with Gaussian priors.

    Minimises, for each face, the squared landmark distances over the squared noise plus the squared coefficients over
    their squared deviations (the maximum a posteriori of a linear model under a scaled orthographic camera; Blanz,
    Mehl, Vetter and Seidel, 3DPVT 2004). Landmarks that fit badly count less from round to round (Cauchy weights).

    Parameters
    ----------
    face_model : FaceModel
        Not planar in its landmarks.
    landmarks : (N, 68, 2) or (N, 68, 3) array_like
        Image pixels, x right, y down. A third column is depth in pixels, of the same scale as x and y, positive away
        from the viewer, from any origin. (3DDFA's third coordinate points to the viewer: negate it.)
        Points that are not finite are left out. N may be 0: an empty fit. Left and right are taken as given: landmarks
        of a mirrored picture whose points were not renumbered are not recognised as such, and fit badly.
    weights : (N, 68) array_like, optional
        At least 0; the squared distance of a landmark is multiplied by it. 0 leaves it out.
    deviations : (modes,) array_like, optional
        Standard deviations of the coefficients; without it 1, as in the built-in model. Models of the BFM family come
        with a whitening file: ``read_whitening(path).std[12:]``.
    noise : float
        Standard deviation of a landmark in each coordinate, relative to the size of the face (the square root of the
        area of the landmarks' box). Larger: the priors weigh more.
    shape_prior, expression_prior : float
        Factors of the squared coefficients: 0 trusts the landmarks alone, more than 1 keeps nearer to the mean face.
    contour : bool
        2D landmarks only: on turned faces the jaw points of the far side were marked on the visible outline, which is
        not where the model's points are; they count less the further the head is turned. Set it to False where the
        jaw points are projections of the model's own.
    robust : bool
        Lower the weight of landmarks that do not fit.
    iterations : int
        Rounds, at least 1.

    Returns
    -------
    LandmarkFit
        A face with fewer than 6 usable landmarks, or with all of them on one row or column, is not fitted: NaN
        everywhere.

    Raises
    ------
    ValueError
        Shapes that do not fit, negative weights or priors, no noise, or deviations that cannot be those of the model.
    """
    points = np.asarray(landmarks, np.float64)
    if not points.size and points.ndim == 1:  # an empty list
        points = points.reshape(0, LANDMARKS, 2)
    if points.ndim != 3 or points.shape[1] != LANDMARKS or points.shape[2] not in (2, 3):
        raise ValueError(f"landmarks have shape {points.shape}, not (N, 68, 2) or (N, 68, 3)")
    believed = np.ones(points.shape[:2]) if weights is None else np.array(weights, np.float64)
    if believed.shape != points.shape[:2]:
        raise ValueError(f"weights have shape {believed.shape}, not {points.shape[:2]}")
    if not (np.isfinite(believed).all() and (believed >= 0).all()):
        raise ValueError("weights must be finite and at least 0")
    if not (noise > 0 and shape_prior >= 0 and expression_prior >= 0 and iterations >= 1):
        raise ValueError(
            f"noise {noise}, shape_prior {shape_prior}, expression_prior {expression_prior}, iterations {iterations}: "
            "noise must be above 0, priors at least 0, iterations at least 1"
        )
    scales = _deviations(face_model, deviations)
    shape_modes = face_model.shape_basis.shape[-1]
    prior = np.repeat([shape_prior, expression_prior], [shape_modes, face_model.modes - shape_modes])
    # In units of deviations: all unknown coefficients are of the order of 1.
    zero = np.zeros((1, face_model.modes))
    mean = face_model.landmark_points(zero)[0].astype(np.float64)
    unit = np.diag(scales)
    basis = (face_model.landmark_points(unit).astype(np.float64) - mean).transpose(1, 2, 0)

    n = len(points)
    cameras, coefficients = np.full((n, 3, 4), np.nan), np.full((n, face_model.modes), np.nan)
    residuals = np.full((n, LANDMARKS), np.nan)
    finite = np.asarray(np.isfinite(points).all(axis=2))
    believed[~finite] = 0
    sizes = _sizes(points, believed)
    usable = np.flatnonzero(((believed > 0).sum(axis=1) >= 6) & (sizes > 0))
    for start in range(0, len(usable), _BATCH):
        rows = usable[start : start + _BATCH]
        given = np.where(finite[rows, :, None], points[rows], 0)
        flat = given.shape[2] == 2
        solver = _Solver(mean, basis, prior, given, believed[rows], noise * sizes[rows], contour and flat, robust)
        solver.run(iterations)
        cameras[rows] = solver.cameras()
        coefficients[rows] = solver.coefficients * scales
        residuals[rows] = np.where(finite[rows], np.linalg.norm(solver.errors(), axis=2), np.nan)
    return LandmarkFit(cameras.astype(np.float32), coefficients.astype(np.float32), residuals.astype(np.float32))


def _sizes(points: _Array, weights: _Array) -> _Array:
    """Square root of the area of the box of each face's landmarks of any weight, (N,); NaN where there is none."""
    used = np.where(weights[..., None] > 0, points[..., :2], np.nan)
    return np.asarray(np.sqrt((np.fmax.reduce(used, axis=1) - np.fmin.reduce(used, axis=1)).prod(axis=1)))


def contour_share(cameras: ArrayLike) -> NDArray[np.float64]:
    """How far the jaw points that are seen in an image are those of the face model.

    Parameters
    ----------
    cameras : (N, 3, 4) array_like
        Model to image pixels, as `fit_landmarks` gives them.

    Returns
    -------
    (N, 68) float64
        1 for all points of a frontal face; falling to 0 with the yaw for the jaw points of the far side, where the
        visible outline runs over the cheek instead. NaN where a camera is.
    """
    axes = np.asarray(cameras, np.float64)[:, :, 2]  # the model's z axis in the image
    return _contour_share(axes[:, 0] / np.linalg.norm(axes, axis=1))


def _contour_share(sine: _Array) -> _Array:
    """`contour_share` of the sines (N,) of the yaws, positive to the image's right."""
    angle = np.arcsin(np.clip(np.abs(sine), 0, 1))
    share = np.ones((len(sine), LANDMARKS))
    far_side = np.where((sine > 0)[:, None], np.arange(LANDMARKS) >= 9, np.arange(LANDMARKS) < 8)
    far_side[:, JAW.stop :] = False
    share = np.where(far_side, np.exp(-((angle / _CONTOUR_ANGLE) ** 2))[:, None], share)
    return np.where(np.isnan(sine)[:, None], np.nan, share)


def _deviations(face_model: FaceModel, given: ArrayLike | None) -> _Array:
    scales = np.ones(face_model.modes) if given is None else np.asarray(given, np.float64)
    if scales.shape != (face_model.modes,) or not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise ValueError(f"deviations are not {face_model.modes} finite numbers of at least 0")
    moved = face_model.landmark_points(np.diag(scales)) - face_model.mean[face_model.landmarks]
    largest = float(np.abs(moved).max(initial=0)) / float(np.ptp(face_model.mean[face_model.landmarks], axis=0).max())
    if face_model.modes and not 1e-3 < largest < 1:
        raise ValueError(
            f"deviations: one deviation of a coefficient of face model {face_model.name} moves landmarks by up to "
            f"{largest:.1e} of the face; give the standard deviations of its coefficients"
        )
    return scales


class _Solver:
    """One batch of B faces with D coordinates a landmark (2 or 3) and M modes."""

    def __init__(
        self,
        mean: _Array,
        basis: _Array,
        prior: _Array,
        points: _Array,
        weights: _Array,
        sigma: _Array,  # (B,), of each coordinate of a landmark, pixels
        contour: bool,
        robust: bool,
    ) -> None:
        self.mean, self.basis, self.prior = mean, basis, prior
        self.points, self.weights, self.sigma = points, weights, sigma
        self.contour, self.robust = contour, robust
        count = len(points)
        self.dimensions = points.shape[2]
        self.coefficients = np.zeros((count, len(prior)))
        self.shape = np.broadcast_to(mean, (count, *mean.shape))
        self.rotation, self.scale, self.offset = self._start()

    def _start(self) -> tuple[_Array, _Array, _Array]:
        """Camera of the mean face: the best affine map, brought to the nearest scaled rotation."""
        total = self.weights.sum(axis=1)[:, None]
        model_centre = self.weights @ self.mean / total
        centre = np.einsum("bk,bkd->bd", self.weights, self.points) / total
        model = self.mean - model_centre[:, None]
        image = self.points - centre[:, None]
        weighted = model * self.weights[..., None]
        moment = model.transpose(0, 2, 1) @ weighted
        moment += 1e-6 * np.trace(moment, axis1=1, axis2=2)[:, None, None] * np.eye(3)  # few or flat points
        affine = np.linalg.solve(moment, weighted.transpose(0, 2, 1) @ image).transpose(0, 2, 1)
        u, singular, vt = np.linalg.svd(affine, full_matrices=False)
        if self.dimensions == 2:
            two = u @ vt
            rotation = np.concatenate([two, np.cross(two[:, :1], two[:, 1:])], axis=1)
        else:
            flip = np.ones_like(singular)
            flip[:, 2] = np.sign(np.linalg.det(u @ vt))
            rotation = (u * flip[:, None]) @ vt
        scale = singular.mean(axis=1)
        turned = np.einsum("bij,bj->bi", rotation[:, : self.dimensions], model_centre)
        return rotation, scale, centre - scale[:, None] * turned

    def run(self, iterations: int) -> None:
        """Gauss-Newton rounds."""
        for i in range(iterations):
            # The first rounds, far from the solution, cannot tell which landmarks are wrong.
            self._step(self._weights(self.robust and i >= 3))

    def errors(self) -> _Array:
        """Given minus projected landmarks, (B, 68, D) pixels."""
        d = self.dimensions
        projected = self.scale[:, None, None] * (self.shape @ self.rotation[:, :d].transpose(0, 2, 1))
        return self.points - projected - self.offset[:, None]

    def _weights(self, robust: bool) -> _Array:
        weights = self.weights
        if self.contour:
            weights = weights * _contour_share(self.rotation[:, 0, 2])
        if robust:
            distance = np.linalg.norm(self.errors(), axis=2)
            # Where the whole face fits worse than the noise says, only what stands out of it is an outlier.
            typical = np.nanmedian(np.where(weights > 0, distance, np.nan), axis=1)
            scale = _ROBUST_SCALE * np.maximum(self.sigma, typical)
            weights = weights / (1 + (distance / scale[:, None]) ** 2)
        return weights

    def _step(self, weights: _Array) -> None:
        """One Gauss-Newton step over rotation (3), log scale, offset (D) and coefficients (M)."""
        d, count = self.dimensions, len(self.points)
        rows = self.rotation[:, :d]
        turned = self.shape @ self.rotation.transpose(0, 2, 1) * self.scale[:, None, None]
        jacobian = np.zeros((count, LANDMARKS, d, 4 + d + len(self.prior)))
        # A small rotation w about the image's axes moves a point p by w x p.
        x, y, z = turned[..., 0], turned[..., 1], turned[..., 2]
        jacobian[:, :, 0, 1], jacobian[:, :, 0, 2] = z, -y
        jacobian[:, :, 1, 0], jacobian[:, :, 1, 2] = -z, x
        if d == 3:
            jacobian[:, :, 2, 0], jacobian[:, :, 2, 1] = y, -x
        jacobian[..., 3] = turned[..., :d]
        jacobian[..., 4 : 4 + d] = np.eye(d)
        # (B, 1, d, 3) @ (1, 68, 3, M)
        jacobian[..., 4 + d :] = (self.scale[:, None, None] * rows)[:, None] @ self.basis[None]
        root = np.sqrt(weights)[..., None] / self.sigma[:, None, None]
        jacobian *= root[..., None]
        jacobian = jacobian.reshape(count, LANDMARKS * d, -1)
        error = (self.errors() * root).reshape(count, -1, 1)
        transposed = jacobian.transpose(0, 2, 1)
        normal, gradient = transposed @ jacobian, (transposed @ error)[..., 0]
        prior = np.concatenate([np.zeros(4 + d), self.prior])
        diagonal = np.arange(len(prior))
        gradient[:, 4 + d :] -= self.prior * self.coefficients
        normal[:, diagonal, diagonal] += prior
        normal[:, diagonal, diagonal] *= 1 + 1e-6  # solvable, too, where priors are 0
        normal[:, diagonal, diagonal] += 1e-9
        step = np.linalg.solve(normal, gradient[..., None])[..., 0]
        # Far from the solution a linear step may overshoot.
        turn = step[:, :3]
        length = np.linalg.norm(turn, axis=1)
        turn = turn * np.minimum(1, 0.5 / np.maximum(length, 1e-12))[:, None]
        self.rotation = _rotations(turn) @ self.rotation
        self.scale = self.scale * np.exp(np.clip(step[:, 3], -0.5, 0.5))
        self.offset = self.offset + step[:, 4 : 4 + d]
        self.coefficients = self.coefficients + step[:, 4 + d :]
        self.shape = self.mean + (self.coefficients @ self.basis.reshape(-1, len(self.prior)).T).reshape(
            count, LANDMARKS, 3
        )

    def cameras(self) -> _Array:
        """(B, 3, 4), model to image."""
        linear = self.scale[:, None, None] * self.rotation
        offset = self.offset
        if self.dimensions == 2:
            depth = -np.einsum("bj,bkj->bk", linear[:, 2], self.shape).mean(axis=1)
            offset = np.concatenate([offset, depth[:, None]], axis=1)
        return np.concatenate([linear, offset[..., None]], axis=2)


def _rotations(vectors: _Array) -> _Array:
    """Rotation vectors (B, 3) in radians to matrices (B, 3, 3) (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    x, y, z = (vectors / np.maximum(angle[:, 0], 1e-12)).T
    zero = np.zeros_like(x)
    skew = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    return np.asarray(np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew)
