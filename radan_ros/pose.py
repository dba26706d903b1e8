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


def perspective_fit(
    points: ArrayLike,
    pixels: ArrayLike,
    camera: CameraModel,
    guess: WeakPerspective,
    *,
    pixel_sigma: float = 1.0,
    size_spread: float = 0.04,
) -> HeadPose:
    """Pose of a rigid head in metres from its landmarks in the image (perspective n-point, Levenberg-Marquardt).

    The weak-perspective rotation is wrong off the image's centre, and it knows no distance; this fit is right for both
    as far as the head's true size is the assumed one.

    Parameters
    ----------
    points : (N, 3) array_like
        Landmarks in the head frame, metres, N >= 4, not all in one line.
    pixels : (N, 2) array_like
        The same landmarks in the image.
    camera : CameraModel
    guess : WeakPerspective
        Of the head frame, in pixels per metre, against image pixels: where the fit starts.
    pixel_sigma : float
        Assumed standard deviation of a landmark, pixels; the residual replaces it where that is larger.
    size_spread : float
        Assumed relative standard deviation of the head's size, which a single image cannot tell from distance.
        4 % is about the spread of adult head breadth and length in anthropometric surveys (Gordon et al., 2014).

    Returns
    -------
    HeadPose

    Raises
    ------
    ValueError
        When the fit fails, or does not end in front of the camera.
    """
    import cv2

    model = np.ascontiguousarray(points, np.float64)
    observed = np.ascontiguousarray(pixels, np.float64)
    rays = camera.unproject(observed)
    focal = float(np.sqrt(camera.matrix[0, 0] * camera.matrix[1, 1]))
    start = _perspective_start(model, rays, focal, guess)
    identity, none = np.eye(3), np.zeros(0)
    rotation_vector, _ = cv2.Rodrigues(start[0])
    translation = start[1].reshape(3, 1)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-10)
    try:
        rotation_vector, fitted = cv2.solvePnPRefineLM(
            model, rays, identity, none, rotation_vector, translation, criteria
        )
    except cv2.error as e:
        raise ValueError(f"the perspective fit failed: {' '.join(str(e).split())}") from None
    rotation, _ = cv2.Rodrigues(rotation_vector)
    position = np.asarray(fitted, np.float64).reshape(3)
    in_camera = model @ rotation.T + position
    if not np.isfinite(in_camera).all() or in_camera[:, 2].min() <= 0:
        raise ValueError("the perspective fit did not end in front of the camera")
    projected = in_camera[:, :2] / in_camera[:, 2:]
    residual = focal * float(np.sqrt(np.mean(np.sum((projected - rays) ** 2, axis=1))))
    jacobian = _pose_jacobian(in_camera, position)
    sigma = max(residual, pixel_sigma) / focal
    try:
        covariance = np.asarray(sigma**2 * np.linalg.inv(jacobian.T @ jacobian), np.float64)
    except np.linalg.LinAlgError:
        raise ValueError("the landmarks do not determine a pose: they lie in a line") from None
    along = np.concatenate([position, np.zeros(3)])
    covariance += size_spread**2 * np.outer(along, along)
    return HeadPose(np.asarray(rotation, np.float64), position, covariance, residual)


def _perspective_start(
    model: NDArray[np.float64], rays: NDArray[np.float64], focal: float, guess: WeakPerspective
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Start of the fit: the weak-perspective rotation turned onto the ray of the face, at the distance of its scale."""
    distance = focal / guess.scale
    direction = np.append(rays.mean(axis=0), 1.0)
    # A weak-perspective camera looks along the face's ray, not along the optical axis: turn by the angle between.
    axis = np.array([-direction[1], direction[0], 0.0])
    sine, norm = np.linalg.norm(axis), np.linalg.norm(direction)
    turn = np.eye(3)
    if sine > 1e-9:
        x, y, _ = axis / sine
        s, c = sine / norm, 1.0 / norm
        skew = np.array([[0, 0, y], [0, 0, -x], [-y, x, 0]])
        turn = np.eye(3) + s * skew + (1 - c) * skew @ skew
    rotation = turn @ guess.rotation
    centre = rotation @ model.mean(axis=0)
    return rotation, distance * direction - centre


def _pose_jacobian(in_camera: NDArray[np.float64], translation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Derivative of x / z, y / z by translation and by a small rotation about the fixed axes at the origin, (2N, 6)."""
    x, y, z = in_camera.T
    zero = np.zeros_like(z)
    by_point = np.stack(
        [np.stack([1 / z, zero, -x / z**2], axis=1), np.stack([zero, 1 / z, -y / z**2], axis=1)], axis=1
    )
    arm = in_camera - translation
    # d(rotation p) = omega x p = -[p]_x omega
    skew = np.zeros((len(arm), 3, 3))
    skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -arm[:, 2], arm[:, 1], -arm[:, 0]
    skew -= skew.transpose(0, 2, 1)
    return np.concatenate([by_point, -by_point @ skew], axis=2).reshape(-1, 6)
