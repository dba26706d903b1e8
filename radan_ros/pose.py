"""Rotations, the head frame, and the two cameras: weak perspective as the network gives it, perspective in metres.

Head frame (REP-155 axes): x out of the face, y to the subject's left, z to the scalp, origin at the sellion.
Face-model frame (3DDFA and ours): x to the subject's left, y to the scalp, z out of the face.
Camera frame (REP-103 optical): x right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros.camera import CameraModel

# Columns: the head frame's axes in the face model's frame.
HEAD_IN_MODEL = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
# Columns: the axes, in the camera frame, of a head that faces the camera squarely.
FACING = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])


class WeakPerspective(NamedTuple):
    """Parts of a weak-perspective camera: pixels per model unit, (3, 3) true rotation, (3,) translation in pixels."""

    scale: float
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]


_STEPS = 30  # of the perspective fit, at most; it takes three or four
# A step that is to lower the sum of squares by less, which is in squared standard deviations, is the last one: what is
# left after it is of a higher order.
_SMALL = 1e-2


@dataclass(frozen=True)
class HeadPose:
    """Pose of the head frame in the camera frame.

    Attributes
    ----------
    rotation : (3, 3) float64
        Columns are the head frame's axes in the camera frame; orthonormal, determinant 1.
    translation : (3,) float64
        The sellion in the camera frame, metres.
    covariance : (6, 6) float64
        Of (x, y, z, rotation about the camera frame's fixed x, y, z axes): m^2, m rad, rad^2.
    residual : float
        Root mean square distance of the reprojected landmarks, pixels.
    """

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    covariance: NDArray[np.float64]
    residual: float


class PerspectiveFit(NamedTuple):
    """Pose of a head, and the (M,) float64 coefficients of the modes that its shape was given."""

    pose: HeadPose
    coefficients: NDArray[np.float64]


def nearest_rotation(rows: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """The rotation and scale nearest to two measured rows of a scaled rotation (least squares, by SVD).

    Parameters
    ----------
    rows : (2, 3) array_like
        First two rows of scale times rotation, not quite orthogonal. The third follows from them: of a
        weak-perspective camera only these two are seen in the image.

    Returns
    -------
    rotation : (3, 3) float64
    scale : float
    """
    u, singular, vt = np.linalg.svd(np.asarray(rows, np.float64), full_matrices=False)
    two = u @ vt
    return np.vstack([two, np.cross(two[0], two[1])]), float(singular.mean())


def decompose_camera(camera: ArrayLike) -> WeakPerspective:
    """Split a (3, 4) weak-perspective camera into scale, true rotation and translation."""
    matrix = np.asarray(camera, np.float64)
    rotation, scale = nearest_rotation(matrix[:2, :3])
    return WeakPerspective(scale, rotation, matrix[:, 3].copy())


def consistency(camera: ArrayLike) -> float:
    """How near a (3, 4) weak-perspective camera is to a scaled rotation: smaller over larger singular value, 0 .. 1."""
    singular = np.linalg.svd(np.asarray(camera, np.float64)[:2, :3], compute_uv=False)
    return float(singular[1] / singular[0]) if singular[0] > 0 else 0.0


def euler_from_rotation(rotation: ArrayLike) -> tuple[float, float, float]:
    """Yaw, pitch, roll of a head rotation against a head that faces the camera.

    Intrinsic z-y-x angles about the head's own axes: yaw > 0 turned to the subject's left, pitch > 0 nose down,
    roll > 0 tilted to the subject's right shoulder. At pitch = +-90 degrees only
    yaw -+ roll is defined: roll is 0 there.

    Parameters
    ----------
    rotation : (3, 3) array_like
        Head frame in the camera frame.

    Returns
    -------
    (float, float, float)
        Radians; yaw and roll in (-pi, pi], pitch in [-pi/2, pi/2].
    """
    r = FACING.T @ np.asarray(rotation, np.float64)
    horizontal = float(np.hypot(r[0, 0], r[1, 0]))
    pitch = float(np.arctan2(-r[2, 0], horizontal))
    if horizontal < 1e-6:
        return float(np.arctan2(-r[0, 1], r[1, 1])), pitch, 0.0
    return float(np.arctan2(r[1, 0], r[0, 0])), pitch, float(np.arctan2(r[2, 1], r[2, 2]))


def rotation_from_euler(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """Inverse of `euler_from_rotation`: radians to the (3, 3) head frame in the camera frame."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    return np.asarray(FACING @ z @ y @ x)


def reference_euler(camera: ArrayLike) -> tuple[float, float, float]:
    """Yaw, pitch, roll as 3DDFA's code prints them, for comparison with its figures only (radians).

    Parameters
    ----------
    camera : (3, 4) array_like
        The network's camera: y up, crop pixels. Its rows are normalised one by one, not made orthogonal.
    """
    rows = np.asarray(camera, np.float64)[:2, :3]
    r1, r2 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    r3 = np.cross(r1, r2)
    if abs(r3[0]) >= 1:  # gimbal lock: the reference's branch, which noise never takes
        return float(np.copysign(np.pi / 2, r3[0])), float(np.arctan2(r1[1], r1[2])), 0.0
    yaw = np.arcsin(r3[0])
    cosine = np.cos(yaw)
    return (
        float(yaw),
        float(np.arctan2(r3[1] / cosine, r3[2] / cosine)),
        float(np.arctan2(r2[0] / cosine, r1[0] / cosine)),
    )


def quaternion_from_rotation(rotation: ArrayLike) -> tuple[float, float, float, float]:
    """Unit quaternion (x, y, z, w) of a (3, 3) rotation, w >= 0 (Shepperd's method: stable for every angle)."""
    r = np.asarray(rotation, np.float64)
    trace = r[0, 0] + r[1, 1] + r[2, 2]
    q = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0], r[2, 1] - r[1, 2]],
            [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1], r[0, 2] - r[2, 0]],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], trace],
        ]
    )
    # Each row i is 4 q_i q (with 1 missing on the diagonal); the row of the largest component is the safe one.
    row = int(np.argmax(np.diag(q)))
    q[row, row] += 1
    best = q[row] / np.linalg.norm(q[row])
    best = best if best[3] >= 0 else -best
    return float(best[0]), float(best[1]), float(best[2]), float(best[3])


def head_rotation(model_to_camera: ArrayLike) -> NDArray[np.float64]:
    """Rotation of the head frame in the camera frame, from the rotation of the face-model frame in it."""
    return np.asarray(np.asarray(model_to_camera, np.float64) @ HEAD_IN_MODEL)


def looking_along(direction: ArrayLike) -> NDArray[np.float64]:
    """The shortest rotation (3, 3) that brings the optical axis to a direction (3,) in front of the camera.

    A face in that direction shows itself to the camera as one straight ahead does that is not turned by it.
    """
    vector = np.asarray(direction, np.float64)
    x, y, z = vector / np.sqrt(vector @ vector)
    skew = np.array([[0, 0, x], [0, 0, y], [-x, -y, 0]])
    return np.eye(3) + skew + skew @ skew / (1 + z)


def perspective_fit(
    points: ArrayLike,
    pixels: ArrayLike,
    camera: CameraModel,
    rotation: ArrayLike,
    *,
    modes: ArrayLike | None = None,
    pixel_sigma: float = 1.0,
    independent: float | None = None,
    size_spread: float = 0.04,
    focal_spread: float = 0.0,
) -> PerspectiveFit:
    """Pose, and within limits the shape, of a head in metres from its landmarks in the image (Levenberg-Marquardt).

    The weak-perspective rotation is wrong off the image's centre, and it knows no distance; this fit is right for both
    as far as the head's true size is the assumed one. It minimises the squared distances of the landmarks over
    `pixel_sigma` squared plus the squared coefficients of `modes`: without modes, perspective n-point. All is done in
    the frame of a camera that looks straight at the face, so that a face at the edge of a wide lens is fitted as well
    as one in the middle.

    Parameters
    ----------
    points : (N, 3) array_like
        Landmarks in the head frame, metres, N >= 4, not all in one line.
    pixels : (N, 2) array_like
        The same landmarks in the image.
    camera : CameraModel
    rotation : (3, 3) array_like
        Weak-perspective rotation of the head frame, against the image's axes: where the fit starts.
    modes : (3, N, M) array_like, optional
        How the shape may change: x, y and z of each landmark in the head frame, metres for a coefficient of 1, which is
        one standard deviation of it.
    pixel_sigma : float
        Assumed standard deviation of a landmark's x and y, pixels. In the covariance the residual replaces it where
        that is larger.
    independent : float, optional
        So many independent landmarks would tell as much as these, whose errors have common causes: for the covariance.
        Without it, all of them are independent.
    size_spread : float
        Assumed relative standard deviation of the head's size, which a single image cannot tell from distance.
        4 % is about the spread of adult head breadth and length in anthropometric surveys (Gordon et al., 2014).
    focal_spread : float
        Standard deviation of the logarithm of the camera's focal length, where that is assumed: for the covariance.

    Returns
    -------
    PerspectiveFit

    Raises
    ------
    ValueError
        When the landmarks determine no pose, or the fit does not end in front of the camera.
    """
    model, observed = np.asarray(points, np.float64), np.asarray(pixels, np.float64)
    basis = np.zeros((3, len(model), 0)) if modes is None else np.asarray(modes, np.float64)
    rays = np.column_stack([camera.unproject(observed), np.ones(len(model))])
    if not np.isfinite(rays).all():
        raise ValueError("the landmarks have no rays: they are not finite, or outside of what the lens can see")
    ahead = looking_along(rays.mean(axis=0))
    rays = rays @ ahead
    if rays[:, 2].min() <= 0:
        raise ValueError("the landmarks are spread over more than the camera sees")
    target = rays[:, :2] / rays[:, 2:]
    spread, in_pixels = target.std(axis=0).mean(), observed.std(axis=0).mean()
    if not (spread > 0 and in_pixels > 0):
        raise ValueError("the landmarks determine no pose: they are all in one place")
    sigma = pixel_sigma * spread / in_pixels
    fitted = _Levenberg(model, basis, target, sigma)
    fitted.start(np.asarray(rotation, np.float64))
    fitted.run()

    in_camera = (fitted.shape @ fitted.rotation.T + fitted.position) @ ahead.T
    distance = camera.project(in_camera).astype(np.float64) - observed
    residual = float(np.sqrt(np.mean(np.sum(distance**2, axis=1))))
    if not (np.isfinite(residual) and in_camera[:, 2].min() > 0):
        raise ValueError("the perspective fit did not end in front of the camera")
    covariance = fitted.covariance() * max(1.0, residual**2 / 2 / pixel_sigma**2)  # of x and y together
    turned = np.diag(covariance)[3:]
    if not (turned.min() > 0 and turned.max() < 1):  # squared radians; negative where rounding is all that there is
        raise ValueError("the landmarks determine no pose: they lie in a line, or do not fit")
    covariance *= len(model) / (independent or len(model))
    both = np.kron(np.eye(2), ahead)
    covariance = both @ covariance @ both.T
    position = ahead @ fitted.position
    along = np.append(position, np.zeros(3))
    covariance += size_spread**2 * np.outer(along, along)
    bent = _by_focal_length(position)
    covariance += focal_spread**2 * np.outer(bent, bent)
    return PerspectiveFit(HeadPose(ahead @ fitted.rotation, position, covariance, residual), fitted.coefficients)


def _by_focal_length(position: NDArray[np.float64]) -> NDArray[np.float64]:
    """Derivative (6,) of position and rotation by the logarithm of the focal length, the image being the same.

    A longer lens shows what is farther off: z grows with it, x and y stay. The ray of the face turns to the axis by
    sin(theta) cos(theta), theta being their angle, and the head turns with it, about (y, -x, 0): it keeps the side that
    it shows. Written without theta, which has no direction on the axis.
    """
    x, y, z = position
    turn = z / (position @ position)
    return np.array([0, 0, z, turn * y, -turn * x, 0])


class _Levenberg:
    """Levenberg-Marquardt over position (3), a small rotation (3) and coefficients (M), of a face straight ahead.

    Points (N, 3) and modes (3, N, M) in the head frame, metres; target (N, 2): x / z, y / z; sigma in the same.
    """

    def __init__(
        self, points: NDArray[np.float64], modes: NDArray[np.float64], target: NDArray[np.float64], sigma: float
    ) -> None:
        self.points, self.modes, self.target, self.sigma = points, modes, target, sigma
        self.coefficients = np.zeros(modes.shape[2])
        self.shape = points

    def start(self, rotation: NDArray[np.float64]) -> None:
        """The rotation as given, at the distance and place at which the points are as large as seen, and there."""
        turned = self.points @ rotation.T
        centre, middle = turned.mean(axis=0), self.target.mean(axis=0)
        flat, seen = turned[:, :2] - centre[:2], self.target - middle
        scale = float((flat * seen).sum() / max((flat * flat).sum(), 1e-12))
        if not scale > 0:
            raise ValueError("the landmarks determine no pose: they are not seen as the given rotation shows them")
        self.rotation, self.position = rotation, np.append(middle, 1.0) / scale - centre
        self.cost = self._cost(self.rotation, self.position, self.coefficients)
        if not np.isfinite(self.cost):
            raise ValueError("the perspective fit starts at or behind the camera: the face is too near")

    def run(self) -> None:
        """Steps until they no longer help."""
        import cv2

        damping = 0.0
        for _ in range(_STEPS):
            jacobian, error = self._linear()
            self.normal = jacobian.T @ jacobian
            diagonal = np.einsum("ii->i", self.normal)
            diagonal[6:] += 1
            gradient = jacobian.T @ error
            gradient[6:] -= self.coefficients
            while True:
                damped = self.normal + np.diag(damping * diagonal) if damping else self.normal
                step = _solved(damped, gradient)
                turn, _ = cv2.Rodrigues(step[3:6])
                rotation, position = turn @ self.rotation, self.position + step[:3]
                coefficients = self.coefficients + step[6:]
                cost = self._cost(rotation, position, coefficients)
                if cost <= self.cost or damping > 1e6:
                    break
                damping = max(10 * damping, 1e-3)
            if cost <= self.cost:
                self.rotation, self.position, self.coefficients, self.cost = rotation, position, coefficients, cost
                self.shape = self.points + (self.modes @ coefficients).T
            if not step @ gradient > _SMALL:
                break
            damping /= 10

    def covariance(self) -> NDArray[np.float64]:
        """Of position and rotation, the coefficients being unknown, (6, 6)."""
        return _solved(self.normal, np.eye(len(self.normal), 6))[:6]

    def _cost(
        self, rotation: NDArray[np.float64], position: NDArray[np.float64], coefficients: NDArray[np.float64]
    ) -> float:
        placed = (self.points + (self.modes @ coefficients).T) @ rotation.T + position
        if not placed[:, 2].min() > 0:
            return float("inf")
        error = self.target - placed[:, :2] / placed[:, 2:]
        return float((error**2).sum() / self.sigma**2 + coefficients @ coefficients)

    def _linear(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Derivative (2 N, 6 + M) of the seen points by the unknowns, and their distance from the target (2 N,)."""
        arm = self.shape @ self.rotation.T
        depth = 1 / (arm[:, 2] + self.position[2])
        seen = (arm[:, :2] + self.position[:2]) * depth[:, None]
        moved = np.zeros((3, len(arm), 6 + len(self.coefficients)))
        moved[[0, 1, 2], :, [0, 1, 2]] = 1
        # A small rotation w about the head's origin moves a point p by w x p.
        moved[0, :, 4], moved[0, :, 5] = arm[:, 2], -arm[:, 1]
        moved[1, :, 3], moved[1, :, 5] = -arm[:, 2], arm[:, 0]
        moved[2, :, 3], moved[2, :, 4] = arm[:, 1], -arm[:, 0]
        moved[:, :, 6:] = (self.rotation @ self.modes.reshape(3, -1)).reshape(self.modes.shape)
        jacobian = (moved[:2] - seen.T[:, :, None] * moved[2]) * (depth / self.sigma)[:, None]
        error = (self.target - seen).T.ravel() / self.sigma
        return jacobian.reshape(-1, moved.shape[2]), error


def _solved(normal: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        return np.asarray(np.linalg.solve(normal, right))
    except np.linalg.LinAlgError:
        raise ValueError("the landmarks determine no pose: the equations are singular") from None
