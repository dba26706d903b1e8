"""Rotations, the head frame's conventions, and the perspective fit on exact projections."""

from __future__ import annotations

import cv2
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


@pytest.mark.parametrize("pitch", [-89.0, 0.0, 89.0])
def test_euler_angles_do_not_jump_near_the_gimbal(pitch: float) -> None:
    """A turn of 0.01 degrees changes no angle by more than it must: by 1 / cos(pitch) as much, 0.6 degrees at 89."""
    random = np.random.default_rng(6)
    for yaw in (-89, 0, 89):
        for roll in (-89, 0, 89):
            rotation = pose.rotation_from_euler(*np.deg2rad([yaw, pitch, roll]))
            before = np.rad2deg(pose.euler_from_rotation(rotation))
            assert np.allclose(before, [yaw, pitch, roll], atol=1e-6)
            axis = random.normal(size=3)
            turn = cv2.Rodrigues(np.deg2rad(0.01) * axis / np.linalg.norm(axis))[0]
            after = np.rad2deg(pose.euler_from_rotation(turn @ rotation))
            assert np.abs(after - before).max() < 0.0101 / np.cos(np.deg2rad(pitch))


def test_looking_along_a_direction_is_the_shortest_turn_to_it() -> None:
    random = np.random.default_rng(7)
    assert np.allclose(pose.looking_along([0, 0, 3]), np.eye(3))
    for direction in random.normal(size=(20, 3)) * [1, 1, 0.1] + [0, 0, 0.5]:
        turn, unit = pose.looking_along(direction), direction / np.linalg.norm(direction)
        assert np.allclose(turn @ [0, 0, 1], unit) and np.allclose(turn @ turn.T, np.eye(3))
        assert np.isclose(angle_between(np.eye(3), turn), np.rad2deg(np.arccos(unit[2])), atol=1e-5)


@pytest.fixture(scope="module")
def head(small_face: FaceModel) -> np.ndarray:
    """Landmarks (68, 3) of a head in its frame, metres."""
    shape = small_face.landmark_points(np.zeros((1, 50)))[0]
    return to_head_frame(shape, shape[SELLION], small_face.unit)


@pytest.mark.parametrize("field_of_view", [35, 60, 100])
@pytest.mark.parametrize("distance", [0.4, 1.0, 4.0])
@pytest.mark.parametrize("off_axis", [0, 15, 25])
def test_perspective_fit_is_exact_on_exact_projections(
    head: np.ndarray, field_of_view: float, distance: float, off_axis: float
) -> None:
    camera = CameraModel.from_field_of_view((720, 1280), np.deg2rad(field_of_view))
    random = np.random.default_rng(3)
    for _ in range(10):
        true = pose.rotation_from_euler(*np.deg2rad(random.uniform([-70, -40, -40], [70, 40, 40])))
        turn = np.deg2rad(off_axis)
        position = distance * np.array([np.sin(turn), 0.1, np.cos(turn)])
        pixels = camera.project(head @ true.T + position)
        # It starts where the weak perspective of the same points is, as a network that is right would give it.
        fit, _ = pose.perspective_fit(head, pixels, camera, _weak_rotation(head, pixels))
        assert angle_between(fit.rotation, true) < 0.05
        assert np.linalg.norm(fit.translation - position) < 0.001 * distance
        assert fit.residual < 0.05
        assert np.allclose(fit.covariance, fit.covariance.T) and np.linalg.eigvalsh(fit.covariance).min() > 0
        # One image cannot tell a larger head from a nearer one: the spread lies along the ray.
        assert np.sqrt(fit.covariance[2, 2]) > 0.03 * position[2]


def _weak_rotation(points: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    solution, *_ = np.linalg.lstsq(homogeneous, pixels.astype(np.float64), rcond=None)
    return pose.nearest_rotation(solution[:3].T)[0]


@pytest.mark.parametrize("turned", [20, 40, 60])
def test_perspective_fit_finds_the_pose_from_a_wrong_start(head: np.ndarray, turned: float) -> None:
    camera = CameraModel.from_field_of_view((480, 640), np.deg2rad(60))
    random = np.random.default_rng(8)
    for _ in range(20):
        true, position = pose.rotation_from_euler(*random.uniform(-0.5, 0.5, 3)), np.array([0.05, -0.1, 0.6])
        axis = random.normal(size=3) * [0.3, 0.3, 1]  # mostly in the plane: in depth, the mirrored pose is near
        start = cv2.Rodrigues(np.deg2rad(turned) * axis / np.linalg.norm(axis))[0] @ true
        fit, _ = pose.perspective_fit(head, camera.project(head @ true.T + position), camera, start)
        assert angle_between(fit.rotation, true) < 0.05


def test_modes_are_found_where_the_pixels_show_them_and_stay_where_they_do_not(head: np.ndarray) -> None:
    camera = CameraModel.from_field_of_view((480, 640), np.deg2rad(60))
    random = np.random.default_rng(9)
    modes = 0.002 * random.normal(size=(3, 68, 8))  # 2 mm for a coefficient of one standard deviation
    modes[:, SELLION] = 0
    true, position = pose.rotation_from_euler(0.4, 0.1, -0.1), np.array([0.1, -0.05, 0.5])
    coefficients = random.normal(size=8)
    pixels = camera.project((head + (modes @ coefficients).T) @ true.T + position)
    start = _weak_rotation(head, pixels)
    sharp, found = pose.perspective_fit(head, pixels, camera, start, modes=modes, pixel_sigma=0.01)
    assert np.abs(found - coefficients).max() < 0.02 and sharp.residual < 0.05
    assert angle_between(sharp.rotation, true) < 0.05
    _, kept = pose.perspective_fit(head, pixels, camera, start, modes=modes, pixel_sigma=100.0)
    assert np.abs(kept).max() < 0.2 * np.abs(found).max(), "landmarks that tell nothing leave the shape as it was"
    rigid, none = pose.perspective_fit(head, pixels, camera, start)
    assert len(none) == 0 and rigid.residual > 10 * sharp.residual


def _surprise(fit: pose.HeadPose, true: np.ndarray, position: np.ndarray) -> float:
    """Squared Mahalanobis distance of a fit from the truth."""
    turned = cv2.Rodrigues(fit.rotation @ true.T)[0].ravel()
    error = np.concatenate([fit.translation - position, turned])
    return float(error @ np.linalg.solve(fit.covariance, error))


@pytest.mark.parametrize("off_axis", [0, 40])
@pytest.mark.parametrize("deformable", [False, True])
def test_covariance_is_that_of_the_errors_that_landmark_noise_makes(
    head: np.ndarray, deformable: bool, off_axis: float
) -> None:
    camera = CameraModel.from_field_of_view((480, 640), np.deg2rad(100))
    ahead = np.deg2rad(off_axis)
    true = pose.rotation_from_euler(0.4, 0.1, -0.1)
    position = 0.4 * np.array([np.sin(ahead), -0.05, np.cos(ahead)])
    random = np.random.default_rng(4)
    modes = 0.003 * random.normal(size=(3, 68, 12)) if deformable else None
    surprises = []
    for _ in range(200):
        shape = head if modes is None else head + (modes @ random.normal(size=12)).T
        exact = camera.project(shape @ true.T + position)
        pixels = exact + random.normal(size=exact.shape)
        fit, _ = pose.perspective_fit(
            head, pixels, camera, _weak_rotation(head, exact), modes=modes, pixel_sigma=1.0, size_spread=0
        )
        surprises.append(_surprise(fit, true, position))
    # Six free parameters average six; off the axis of a wide lens pixels are no even measure of angles.
    assert 5 < np.mean(surprises) < 7.2


def test_covariance_along_the_ray_is_that_of_heads_of_unknown_size(head: np.ndarray) -> None:
    camera = CameraModel.from_field_of_view((480, 640), np.deg2rad(60))
    true, position = pose.rotation_from_euler(-0.3, 0.2, 0.1), np.array([0.2, 0.1, 0.9])
    errors, spreads = [], []
    for size in np.random.default_rng(5).normal(1, 0.04, 100):
        pixels = camera.project(size * head @ true.T + position)
        fit, _ = pose.perspective_fit(head, pixels, camera, true, pixel_sigma=0.1, size_spread=0.04)
        ray = position / np.linalg.norm(position)
        errors.append(ray @ (fit.translation - position))
        spreads.append(np.sqrt(ray @ fit.covariance[:3, :3] @ ray))
        assert np.linalg.norm(np.cross(ray, fit.translation)) < 1e-3, "only the distance is unknown"
        assert angle_between(fit.rotation, true) < 0.1
    assert 0.8 < np.std(errors) / np.mean(spreads) < 1.25


def test_covariance_by_an_unknown_focal_length_is_that_of_other_lenses(head: np.ndarray) -> None:
    """Fits of the same pixels through lenses 2 % apart: along z, not along the ray, and turned as the ray is."""
    camera, longer = (CameraModel.from_calibration((480, 640), [f, 0, 320, 0, f, 240, 0, 0, 1]) for f in (500, 510))
    true, position = pose.rotation_from_euler(0.2, 0.1, 0.1), np.array([0.1, -0.15, 0.6])
    pixels = camera.project(head @ true.T + position)
    here, there = (pose.perspective_fit(head, pixels, c, true)[0] for c in (camera, longer))
    turned = cv2.Rodrigues(there.rotation @ here.rotation.T)[0].ravel()
    moved = np.concatenate([there.translation - here.translation, turned]) / np.log(1.02)
    plain, spread = (
        pose.perspective_fit(head, pixels, camera, true, size_spread=0, focal_spread=s)[0].covariance for s in (0, 1)
    )
    values, vectors = np.linalg.eigh(spread - plain)
    assert np.abs(values[:-1]).max() < 1e-6 * values[-1], "one unknown"
    found = vectors[:, -1] * np.sqrt(values[-1]) * np.sign(vectors[2, -1])
    assert np.abs(found - moved)[:3].max() < 0.02 and np.allclose(found[[0, 1, 2, 5]], [0, 0, 0.6, 0])
    # About: a head that is not turned with its ray shows other sides, too.
    assert np.linalg.norm(found[3:] - moved[3:]) < 0.4 * np.linalg.norm(found[3:]), (found, moved)


def test_landmarks_with_common_errors_tell_less(head: np.ndarray) -> None:
    camera = CameraModel.from_field_of_view((480, 640), np.deg2rad(60))
    true = pose.rotation_from_euler(0.2, 0.0, 0.1)
    pixels = camera.project(head @ true.T + [0, 0, 0.7])
    all_independent, _ = pose.perspective_fit(head, pixels, camera, true, size_spread=0)
    four, _ = pose.perspective_fit(head, pixels, camera, true, independent=4, size_spread=0)
    assert np.allclose(four.covariance, 17 * all_independent.covariance)


def test_consistency_is_one_for_scaled_rotations_and_small_for_others() -> None:
    rotation = random_rotation(np.random.default_rng(5))
    assert np.isclose(pose.consistency(np.hstack([3 * rotation, np.zeros((3, 1))])), 1)
    assert pose.consistency(np.array([[2, 0, 0, 5], [0, 1, 0, 5], [0, 0, 1, 0]])) == 0.5
    assert pose.consistency(np.zeros((3, 4))) == 0


def _spoiled(pixels: np.ndarray, what: str) -> np.ndarray:
    spoiled = pixels.copy()
    if what == "not finite":
        spoiled[5] = np.nan
    elif what == "one place":
        spoiled[:] = pixels[0]
    else:
        spoiled[:] = 2 * pixels.mean(axis=0) - pixels
    return spoiled


@pytest.mark.parametrize("what", ["not finite", "one place", "upside down"])
def test_landmarks_without_a_pose_are_refused(head: np.ndarray, what: str) -> None:
    camera = CameraModel.from_field_of_view((480, 640), 1.0)
    start = pose.rotation_from_euler(0, 0, 0)
    pixels = camera.project(head @ start.T + [0, 0, 0.5]).astype(np.float64)
    with pytest.raises(ValueError, match="landmarks"):
        pose.perspective_fit(head, _spoiled(pixels, what), camera, start)


def test_points_in_a_line_are_refused() -> None:
    camera = CameraModel.from_field_of_view((480, 640), 1.0)
    start = pose.rotation_from_euler(0, 0, 0)
    for direction in ([0.1, 0.3, 1.0], [0.0, 1.0, 0.0], [0.0, 0.2, 1.0]):
        line = np.linspace(-0.1, 0.1, 68)[:, None] * np.array(direction)
        with pytest.raises(ValueError, match="the landmarks determine no pose"):
            pose.perspective_fit(line, camera.project(line @ start.T + [0, 0, 0.5]), camera, start)
