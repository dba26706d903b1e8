"""fit_landmarks: on landmarks whose camera and coefficients are known, and on given points of real faces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from radan_ros.face_models import FaceModel, read_3ddfa
from radan_ros.fitting import LandmarkFit, contour_share, fit_landmarks
from radan_ros.model import read_whitening
from radan_ros.pipeline import transform
from radan_ros.pose import HEAD_IN_MODEL, decompose_camera, head_rotation, rotation_from_euler


def cameras(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray, scale: float = 0.5) -> np.ndarray:
    """Cameras (N, 3, 4) of heads turned by these degrees, in the middle of a picture of 200 pixels."""
    angles = np.deg2rad(np.stack([yaw, pitch, roll], axis=1))
    linear = [scale * rotation_from_euler(*a) @ HEAD_IN_MODEL.T for a in angles]
    return np.stack([np.column_stack([m, [100, 90, 30]]) for m in linear]).astype(np.float32)


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Degrees between the rotations of two cameras."""
    r, q = decompose_camera(a).rotation, decompose_camera(b).rotation
    return float(np.rad2deg(np.arccos(np.clip((np.trace(r.T @ q) - 1) / 2, -1, 1))))


@pytest.fixture(scope="module")
def face(small_face: FaceModel) -> FaceModel:
    """The half ellipsoid with modes of 2 mm, so that 50 of them stay a face."""
    scale = np.float32(2)
    return replace(
        small_face, shape_basis=small_face.shape_basis * scale, expression_basis=small_face.expression_basis * scale
    )


@pytest.fixture(scope="module")
def heads(face: FaceModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Twelve random faces of yaw -80 to 80 degrees: cameras, coefficients and exact landmarks (12, 68, 3)."""
    random = np.random.default_rng(3)
    count = 12
    turned = cameras(np.linspace(-80, 80, count), random.uniform(-30, 30, count), random.uniform(-20, 20, count))
    coefficients = random.normal(size=(count, face.modes)).astype(np.float32)
    return turned, coefficients, transform(turned, face.landmark_points(coefficients))


def projected(face: FaceModel, fit: LandmarkFit) -> np.ndarray:
    return transform(fit.cameras, face.landmark_points(fit.coefficients))


def test_exact_3d_landmarks_give_back_camera_and_coefficients(face, heads):
    true_cameras, true_coefficients, landmarks = heads
    fit = fit_landmarks(face, landmarks, noise=1e-5, iterations=20)
    assert fit.residuals.max() < 0.01
    assert max(angle(a, b) for a, b in zip(fit.cameras, true_cameras, strict=True)) < 0.3
    np.testing.assert_allclose(fit.cameras, true_cameras, atol=0.1)
    np.testing.assert_allclose(fit.coefficients, true_coefficients, atol=0.2)


def test_depth_is_measured_from_any_origin(face, heads):
    landmarks = heads[2]
    fit = fit_landmarks(face, landmarks)
    moved = fit_landmarks(face, landmarks + [0, 0, 250])
    np.testing.assert_allclose(moved.cameras, fit.cameras + np.float32([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 250]]),
                               atol=1e-2)  # fmt: skip


def test_2d_landmarks_give_back_the_pose(face, heads):
    true_cameras, _, landmarks = heads
    fit = fit_landmarks(face, landmarks[..., :2], noise=1e-3, contour=False, iterations=20)
    assert fit.residuals.max() < 0.2
    wrong = [angle(a, b) for a, b in zip(fit.cameras, true_cameras, strict=True)]
    # Waves in depth that these modes can take for a turn are decided by the prior.
    assert np.median(wrong) < 5 and max(wrong) < 8
    # What is not seen, the distance, is fixed by a convention.
    np.testing.assert_allclose(projected(face, fit)[..., 2].mean(axis=1), 0, atol=1e-3)
    assert fit.residuals.dtype == np.float32 and fit.residuals.shape == (12, 68)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_cameras_are_scaled_proper_rotations(face, heads, dimensions):
    noisy = heads[2] + np.random.default_rng(0).normal(0, 2, heads[2].shape)
    for camera in fit_landmarks(face, noisy[..., :dimensions]).cameras:
        linear = camera[:, :3].astype(np.float64)
        scale = np.cbrt(np.linalg.det(linear))
        assert scale > 0
        np.testing.assert_allclose(linear @ linear.T / scale**2, np.eye(3), atol=1e-5)


def test_residuals_are_distances_to_the_projected_model(face, heads):
    noisy = heads[2] + np.random.default_rng(0).normal(0, 2, heads[2].shape)
    fit = fit_landmarks(face, noisy)
    np.testing.assert_allclose(fit.residuals, np.linalg.norm(noisy - projected(face, fit), axis=2), atol=1e-3)


def test_outlying_landmarks_do_not_move_the_others(face, heads):
    landmarks = heads[2].copy()
    wrong = np.zeros(68, bool)
    wrong[[3, 20, 33, 41, 50, 60]] = True
    landmarks[:, wrong, :2] += 25  # pixels, on faces of about 80
    robust = fit_landmarks(face, landmarks)
    plain = fit_landmarks(face, landmarks, robust=False)
    good, bad = robust.residuals[:, ~wrong].mean(), plain.residuals[:, ~wrong].mean()
    assert good < 0.5 and good < bad / 4
    assert robust.residuals[:, wrong].min() > 15


def test_a_weight_of_zero_leaves_a_landmark_out(face, heads):
    landmarks, weights = heads[2].copy(), np.ones((12, 68))
    weights[:, 10:20] = 0
    first = fit_landmarks(face, landmarks, weights=weights)
    landmarks[:, 10:20] += 500
    second = fit_landmarks(face, landmarks, weights=weights)
    np.testing.assert_array_equal(first.cameras, second.cameras)
    np.testing.assert_array_equal(first.coefficients, second.coefficients)
    landmarks[:, 10:20] = np.nan
    third = fit_landmarks(face, landmarks)
    np.testing.assert_array_equal(third.cameras, first.cameras)
    assert np.isnan(third.residuals[:, 10:20]).all() and np.isfinite(third.residuals[:, 20:]).all()


def test_stronger_priors_stay_nearer_to_the_mean_face(face, heads):
    fits = [fit_landmarks(face, heads[2], shape_prior=p, expression_prior=p) for p in (0.1, 1, 30)]
    lengths = [np.linalg.norm(fit.coefficients) for fit in fits]
    assert lengths[0] > lengths[1] > 1.5 * lengths[2]
    shapes_only = fit_landmarks(face, heads[2], expression_prior=1e9).coefficients
    assert np.abs(shapes_only[:, 40:]).max() < 1e-3 < np.abs(shapes_only[:, :40]).max()


def test_deviations_are_the_scale_of_the_coefficients(face, heads):
    """A basis a million times smaller with deviations of a million is the same model (3DDFA's are like that)."""
    scaled = replace(face, shape_basis=face.shape_basis / np.float32(2**20))
    deviations = np.repeat([2.0**20, 1], [40, 10])
    fit, same = fit_landmarks(face, heads[2]), fit_landmarks(scaled, heads[2], deviations=deviations)
    np.testing.assert_allclose(same.coefficients / deviations, fit.coefficients, atol=1e-3)
    with pytest.raises(ValueError, match="give the standard deviations"):
        fit_landmarks(replace(scaled, expression_basis=face.expression_basis / 1e6), heads[2])


def test_far_jaw_points_on_the_outline_do_not_turn_the_head(face):
    """A face turned by 45 degrees whose far jaw points were marked 6 px inside of where the model has them."""
    turned = cameras(np.array([45.0]), np.zeros(1), np.zeros(1))
    landmarks = transform(turned, face.landmark_points(np.zeros((1, face.modes))))[..., :2]
    landmarks[:, 9:17, 0] -= 6
    careful = angle(fit_landmarks(face, landmarks).cameras[0], turned[0])
    credulous = angle(fit_landmarks(face, landmarks, contour=False).cameras[0], turned[0])
    assert careful < 2 and careful < credulous


def test_too_few_landmarks_and_no_faces(face, heads):
    landmarks = heads[2][:2].copy()
    landmarks[0, 5:] = np.nan
    for nothing in (np.zeros((68, 2)), np.stack([np.arange(68), np.zeros(68)], axis=1)):
        flat = fit_landmarks(face, np.stack([nothing, landmarks[1, :, :2]]))
        assert np.isnan(flat.cameras[0]).all() and np.isfinite(flat.cameras[1]).all(), "a point and a line are no face"
    fit = fit_landmarks(face, landmarks)
    assert np.isnan(fit.cameras[0]).all() and np.isfinite(fit.cameras[1]).all()
    assert np.isnan(fit.coefficients[0]).all() and np.isnan(fit.residuals[0]).all()
    share = contour_share(fit.cameras)
    assert np.isnan(share[0]).all() and np.isfinite(share[1]).all()
    for dimensions in (2, 3):
        empty = fit_landmarks(face, np.zeros((0, 68, dimensions)))
        assert [a.shape for a in empty] == [(0, 3, 4), (0, face.modes), (0, 68)]
    assert fit_landmarks(face, []).cameras.shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"landmarks": np.zeros((68, 2))}, "landmarks have shape"),
        ({"weights": np.ones((1, 67))}, "weights have shape"),
        ({"weights": -np.ones((1, 68))}, "at least 0"),
        ({"noise": 0}, "noise must be above 0"),
        ({"deviations": np.ones(3)}, "deviations are not 50"),
    ],
)
def test_bad_input_is_named(face, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_landmarks(face, **{"landmarks": np.zeros((1, 68, 2)), **arguments})


def test_real_faces_are_fitted_within_two_percent(shared: Path, model_folder: Path):
    """Given 2D points of ytf68 by a model of the BFM family; and the frame: 3DDFA's depth negated is ours."""
    deviations = read_whitening(model_folder / "train.configs" / "param_whitening.pkl").std[12:]
    model = read_3ddfa(model_folder)
    with np.load(shared / "datasets" / "ytf68" / "labels.npz") as file:
        rows = np.flatnonzero(file["split"] == "train")[:150]
        given, teacher = file["landmarks68_2d"][rows], file["teacher_landmarks68_3d"][rows] * [1, 1, -1]
    size = np.sqrt(np.ptp(given, axis=1).prod(axis=1))[:, None]
    fit = fit_landmarks(model, given, deviations=deviations)
    assert (fit.residuals / size)[:, 17:].mean() < 0.02
    deep = fit_landmarks(model, teacher, deviations=deviations)
    assert (deep.residuals / size).mean() < 0.005
    turns = [head_rotation(decompose_camera(c).rotation) for c in deep.cameras]
    assert np.mean([r[2, 0] < 0 for r in turns]) == 1  # all look at the camera
    assert np.median([angle(a, b) for a, b in zip(fit.cameras, deep.cameras, strict=True)]) < 8
