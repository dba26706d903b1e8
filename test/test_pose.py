"""Rotations, the head frame's conventions, and the perspective fit on exact projections."""

from __future__ import annotations

import numpy as np
import pytest

from radan_ros import pose
from radan_ros.camera import CameraModel
from radan_ros.face_models import FaceModel
from radan_ros.metric import SELLION, to_head_frame

ANGLES = np.deg2rad([-170, -90, -89, -45, -1e-3, 0, 20, 89, 90, 135])


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    """Angle of the rotation from a to b, degrees."""
    return float(np.rad2deg(np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1))))


def random_rotation(random: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(random.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


@pytest.mark.parametrize("pitch", [a for a in ANGLES if abs(a) <= np.pi / 2 + 1e-9])
def test_euler_angles_give_back_the_rotation_also_at_the_gimbal(pitch: float) -> None:
    for yaw in ANGLES:
        for roll in ANGLES:
            rotation = pose.rotation_from_euler(yaw, pitch, roll)
            assert np.allclose(rotation @ rotation.T, np.eye(3)) and np.isclose(np.linalg.det(rotation), 1)
            again = pose.rotation_from_euler(*pose.euler_from_rotation(rotation))
            assert np.allclose(rotation, again, atol=1e-6)
            if abs(abs(pitch) - np.pi / 2) > 1e-3:
                assert np.allclose(pose.euler_from_rotation(rotation)[1], pitch, atol=1e-9)


def test_signs_of_yaw_pitch_and_roll_are_those_of_the_documentation() -> None:
    facing = pose.rotation_from_euler(0, 0, 0)
    assert np.allclose(facing[:, 0], [0, 0, -1]), "x out of the face: towards the camera"
    assert np.allclose(facing[:, 1], [1, 0, 0]), "y to the subject's left: right in the image"
    assert np.allclose(facing[:, 2], [0, -1, 0]), "z to the scalp: up in the image"
    assert pose.rotation_from_euler(0.3, 0, 0)[0, 0] > 0, "yaw > 0: nose to the subject's left, right in the image"
    assert pose.rotation_from_euler(0, 0.3, 0)[1, 0] > 0, "pitch > 0: nose down"
    scalp = pose.rotation_from_euler(0, 0, 0.3)[:, 2]
    assert scalp[0] < 0, "roll > 0: scalp to the subject's right, left in the image"


def test_quaternions_are_unit_and_rotate_like_their_matrix() -> None:
    random = np.random.default_rng(1)
    half_turns = [np.diag(d).astype(float) for d in ([1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1])]
    for rotation in half_turns + [random_rotation(random) for _ in range(200)]:
        x, y, z, w = pose.quaternion_from_rotation(rotation)
        assert np.isclose(x * x + y * y + z * z + w * w, 1) and w >= 0
        again = np.array([
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ])  # fmt: skip
        assert np.allclose(again, rotation, atol=1e-9)


def test_nearest_rotation_is_orthonormal_and_recovers_a_scaled_one() -> None:
    random = np.random.default_rng(2)
    for _ in range(50):
        true = random_rotation(random)
        rotation, scale = pose.nearest_rotation(3.5 * true[:2])
        assert np.allclose(rotation, true) and np.isclose(scale, 3.5)
        rotation, _ = pose.nearest_rotation(true[:2] + 0.05 * random.normal(size=(2, 3)))
        assert np.allclose(rotation @ rotation.T, np.eye(3)) and np.isclose(np.linalg.det(rotation), 1)
        assert angle_between(rotation, true) < 15


@pytest.mark.parametrize("field_of_view", [35, 60, 100])
@pytest.mark.parametrize("distance", [0.4, 1.0, 4.0])
@pytest.mark.parametrize("off_axis", [0, 15, 25])
def test_perspective_fit_is_exact_on_exact_projections(
    small_face: FaceModel, field_of_view: float, distance: float, off_axis: float
) -> None:
    camera = CameraModel.from_field_of_view((720, 1280), np.deg2rad(field_of_view))
    shape = small_face.landmark_points(np.zeros((1, 50)))[0]
    points = to_head_frame(shape, shape[SELLION], small_face.unit)
    random = np.random.default_rng(3)
    for _ in range(10):
        true = pose.rotation_from_euler(*np.deg2rad(random.uniform([-70, -40, -40], [70, 40, 40])))
        turn = np.deg2rad(off_axis)
        position = distance * np.array([np.sin(turn), 0.1, np.cos(turn)])
        pixels = camera.project(points @ true.T + position)
        # The guess is the weak perspective of the same points, as a network that is right would give it.
        weak = _weak_perspective(points, pixels)
        fit = pose.perspective_fit(points, pixels, camera, weak)
        assert angle_between(fit.rotation, true) < 0.5
        assert np.linalg.norm(fit.translation - position) < 0.01 * distance
        assert fit.residual < 0.05
        assert np.allclose(fit.covariance, fit.covariance.T) and np.linalg.eigvalsh(fit.covariance).min() > 0
        # One image cannot tell a larger head from a nearer one: the spread lies along the ray.
        assert np.sqrt(fit.covariance[2, 2]) > 0.03 * position[2]


def _weak_perspective(points: np.ndarray, pixels: np.ndarray) -> pose.WeakPerspective:
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    solution, *_ = np.linalg.lstsq(homogeneous, pixels.astype(np.float64), rcond=None)
    rotation, scale = pose.nearest_rotation(solution[:3].T)
    return pose.WeakPerspective(scale, rotation, np.append(solution[3], 0))


def test_perspective_fit_covers_the_error_that_landmark_noise_makes(small_face: FaceModel) -> None:
    camera = CameraModel.from_field_of_view((480, 640), np.deg2rad(60))
    shape = small_face.landmark_points(np.zeros((1, 50)))[0]
    points = to_head_frame(shape, shape[SELLION], small_face.unit)
    true, position = pose.rotation_from_euler(0.4, 0.1, -0.1), np.array([0.1, -0.05, 0.8])
    exact = camera.project(points @ true.T + position)
    random = np.random.default_rng(4)
    normalised = []
    for _ in range(300):
        pixels = exact + random.normal(size=exact.shape)
        fit = pose.perspective_fit(points, pixels, camera, _weak_perspective(points, exact), size_spread=0)
        delta = fit.rotation @ true.T
        turned = np.array([delta[2, 1] - delta[1, 2], delta[0, 2] - delta[2, 0], delta[1, 0] - delta[0, 1]]) / 2
        error = np.concatenate([fit.translation - position, turned])
        normalised.append(error @ np.linalg.solve(fit.covariance, error))
    # Squared Mahalanobis distances of six free parameters average six; the fit reports per-point noise of
    # sqrt(2) sigma as its residual, so it may be up to twice too careful but never too sure.
    assert 2.0 < np.mean(normalised) < 7.0


def test_consistency_is_one_for_scaled_rotations_and_small_for_others() -> None:
    rotation = random_rotation(np.random.default_rng(5))
    assert np.isclose(pose.consistency(np.hstack([3 * rotation, np.zeros((3, 1))])), 1)
    assert pose.consistency(np.array([[2, 0, 0, 5], [0, 1, 0, 5], [0, 0, 1, 0]])) == 0.5
    assert pose.consistency(np.zeros((3, 4))) == 0


def test_uncertain_geometry_is_refused(small_face: FaceModel) -> None:
    camera = CameraModel.from_field_of_view((480, 640), 1.0)
    points = np.zeros((68, 3))
    with pytest.raises(ValueError, match="camera|singular|front"):
        pose.perspective_fit(
            points, np.full((68, 2), np.nan), camera, pose.WeakPerspective(100, np.eye(3), np.zeros(3))
        )
