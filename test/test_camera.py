"""Cameras: projection and its inverse, distortion models, and refusal of bad calibrations."""

from __future__ import annotations

import numpy as np
import pytest

from radan_ros.camera import CameraModel

K = [500.0, 0, 320, 0, 510.0, 235, 0, 0, 1]
LENSES = {
    "none": ("plumb_bob", []),
    "plumb_bob": ("plumb_bob", [-0.28, 0.08, 0.001, -0.0005, 0.0]),
    "rational_polynomial": ("rational_polynomial", [0.4, -0.1, 0.001, -0.001, 0.02, 0.7, -0.05, 0.01]),
    "equidistant": ("equidistant", [0.02, -0.01, 0.004, -0.001]),
}


@pytest.mark.parametrize("lens", LENSES)
def test_unproject_undoes_project(lens: str) -> None:
    name, d = LENSES[lens]
    camera = CameraModel.from_calibration((480, 640), K, d, name)
    random = np.random.default_rng(0)
    points = random.uniform([-0.5, -0.4, 0.8], [0.5, 0.4, 3.0], size=(200, 3))
    rays = camera.unproject(camera.project(points))
    assert np.allclose(rays, points[:, :2] / points[:, 2:], atol=1e-4)


def test_plumb_bob_bends_by_the_published_formula() -> None:
    name, d = LENSES["plumb_bob"]
    camera = CameraModel.from_calibration((480, 640), K, d, name)
    x, y = 0.3, -0.2
    k1, k2, p1, p2, k3 = d
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    bent = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    assert np.allclose(camera.project([[0.6, -0.4, 2.0]])[0], [500 * bent[0] + 320, 510 * bent[1] + 235], atol=1e-3)


def test_points_behind_the_camera_have_no_pixel() -> None:
    for name, d in LENSES.values():
        pixels = CameraModel.from_calibration((480, 640), K, d, name).project([[0.1, 0, -1], [0, 0, 0], [0, 0, 1]])
        assert np.isnan(pixels[:2]).all() and np.allclose(pixels[2], [320, 235], atol=1e-3)


def test_points_far_outside_are_not_folded_back_into_the_image() -> None:
    name, d = "plumb_bob", [-0.28, 0.0, 0.0, 0.0, 0.0]
    camera = CameraModel.from_calibration((480, 640), K, d, name)
    x = np.linspace(0, 5, 200)
    pixels = camera.project(np.stack([x, 0 * x, np.ones_like(x)], axis=1))[:, 0]
    seen = np.isfinite(pixels)
    assert seen[:30].all() and not seen[-1], "radial growth ends at sqrt(1 / (3 * 0.28)) = 1.09"
    assert abs(x[seen].max() - 1.09) < 0.05 and (np.diff(pixels[seen]) > 0).all()


def test_a_rectified_image_uses_p_and_no_distortion() -> None:
    p = [400.0, 0, 300, 0, 0, 400, 200, 0, 0, 0, 1, 0]
    camera = CameraModel.from_calibration((480, 640), K, LENSES["plumb_bob"][1], "plumb_bob", p, rectified=True)
    assert camera.matrix[0, 0] == 400 and camera.distortion.size == 0


@pytest.mark.parametrize("lens", LENSES)
def test_a_part_of_the_image_sees_what_the_whole_sees_there(lens: str) -> None:
    name, d = LENSES[lens]
    whole = CameraModel.from_calibration((480, 640), K, d, name)
    part = whole.part((80, 200), (40, 60), (2, 4))
    points = np.random.default_rng(0).uniform([-0.5, -0.4, 0.8], [0.5, 0.4, 3.0], size=(50, 3))
    assert np.allclose(part.project(points) * [2, 4] + [40, 60], whole.project(points), atol=1e-3)
    assert part.size == (80, 200) and part.calibrated and whole.matrix[0, 2] == 320


def test_field_of_view_spans_the_width() -> None:
    camera = CameraModel.from_field_of_view((480, 640), np.deg2rad(60))
    edge = camera.unproject([[-0.5, 239.5], [639.5, 239.5]])
    assert np.allclose(np.rad2deg(np.arctan(edge[:, 0])), [-30, 30]) and not camera.calibrated


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(k=[0.0] * 9), "K.*not calibrated"),
        (dict(k=K, p=[0.0] * 12, rectified=True), "P.*not calibrated"),
        (dict(k=[np.nan] * 9), "K is not finite"),
        (dict(k=[*K[:2], np.inf, *K[3:]]), "K is not finite"),
        (dict(k=K, p=[400.0, 0, 300, np.nan, 0, 400, 200, 0, 0, 0, 1, 0], rectified=True), "P is not finite"),
        (dict(k=[500.0, 0, 0, 0, 510.0, 0, 0, 0, 1]), "K has its principal point at 0, 0"),
        (dict(k=K, p=[400.0, 0, 0, 0, 0, 400, 0, 0, 0, 0, 1, 0], rectified=True), "P has its principal point at 0, 0"),
        (dict(k=K, d=[0.1] * 5, distortion_model="fancy"), "fancy.*unknown"),
        (dict(k=K, d=[0.1] * 3), "3 coefficients"),
        (dict(k=K, d=[np.inf] * 5), "D is not finite"),
    ],
)
def test_bad_calibrations_are_refused_by_name(arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CameraModel.from_calibration((480, 640), **arguments)


def test_a_region_may_begin_at_the_principal_point() -> None:
    part = CameraModel.from_calibration((480, 640), K).part((245, 320), (320, 235), (1, 1))
    assert np.allclose(part.matrix[:2, 2], 0) and np.allclose(part.project([[0, 0, 1.0]]), 0)


@pytest.mark.parametrize("focal", [1e-3, 1e9])
def test_a_focal_length_of_no_lens_is_refused(focal: float) -> None:
    k = [focal, 0, 320, 0, focal, 240, 0, 0, 1]
    with pytest.raises(ValueError, match="no lens gives 640x480"):
        CameraModel.from_calibration((480, 640), k)
