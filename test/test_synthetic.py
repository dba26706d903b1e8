"""Synthetic faces: their labels agree with their pictures, and they vary as they should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from radan_ros.boxes import square_from_landmarks
from radan_ros.face_models import FaceModel
from radan_ros.model import open_face_model
from radan_ros.pipeline import cameras_in_crop, transform
from radan_ros.pose import decompose_camera, euler_from_rotation, head_rotation
from radan_ros.training.samples import MARGIN
from radan_ros.training.synthetic import SyntheticFaces, SyntheticSettings
from radan_ros.training.synthetic.geometry import grid_triangles, outer_border, refine, signed_distance

PLAIN = SyntheticSettings(headwear=False, glasses=0, occluders=0)


@pytest.fixture(scope="module")
def face_model() -> FaceModel:
    return open_face_model("builtin")


@pytest.fixture(scope="module")
def faces(face_model: FaceModel) -> SyntheticFaces:
    return SyntheticFaces(face_model)


def test_landmarks_are_the_projected_parameters_and_fill_the_crop(faces: SyntheticFaces) -> None:
    samples = faces.samples(6, seed=1)
    points = faces.face_model.landmark_points(samples.parameters[:, 12:])
    in_crop = transform(cameras_in_crop(samples.parameters), points)
    assert np.abs(in_crop[..., :2] - samples.landmarks).max() < 0.01
    assert np.abs(in_crop[..., 2].mean(axis=1)).max() < 0.01
    for landmarks in samples.landmarks:
        np.testing.assert_allclose(square_from_landmarks(landmarks), [0, 0, 120, 120], atol=0.01)
    for camera in cameras_in_crop(samples.parameters):
        weak = decompose_camera(camera)
        np.testing.assert_allclose(camera[:, :3], weak.scale * weak.rotation, atol=1e-4 * weak.scale)


def test_marks_on_the_landmarks_appear_at_the_labels(face_model: FaceModel) -> None:
    settings = replace(PLAIN, yaw=20, pitch=10, roll=30)
    plain, marked = SyntheticFaces(face_model, settings), SyntheticFaces(face_model, replace(settings, marks=True))
    for seed in range(3):
        crop, parameters, landmarks = plain.render_face(np.random.default_rng(seed))
        with_marks, _, _ = marked.render_face(np.random.default_rng(seed))
        change = np.abs(crop.astype(int) - with_marks).sum(axis=2)
        y, x = np.nonzero(change)
        distance = np.linalg.norm(np.stack([x, y], 1)[:, None] - (landmarks + MARGIN)[None], axis=2)
        assert len(x) > 60
        # Nothing else is green: the triangles around a landmark are, and their neighbours fade out of it.
        around = face_model.triangles[np.isin(face_model.triangles, face_model.landmarks).any(axis=1)]
        corners = face_model.vertices(parameters[None, 12:])[0][around]
        longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max()
        scale = decompose_camera(cameras_in_crop(parameters[None])[0]).scale
        assert distance.min(axis=1).max() < 2 * scale * longest + 1 < 8
        # Brows, eyes, nose and lips look to the camera: nearly all have their marks, centred on the labels.
        assert (distance.min(axis=0)[17:60] < 1.5).mean() > 0.9
        weight = change[y, x]
        nearest = distance.argmin(axis=1)
        offsets = [
            np.average(np.stack([x, y], 1)[nearest == i], axis=0, weights=weight[nearest == i]) - landmarks[i] - MARGIN
            for i in range(30, 36)
            if (nearest == i).any()
        ]
        assert np.abs(np.mean(offsets, axis=0)).max() < 0.4


def test_the_same_seed_gives_the_same_face_whoever_renders_it(faces: SyntheticFaces) -> None:
    one, again = faces.samples(3, seed=5), faces.samples(3, seed=5, workers=2)
    np.testing.assert_array_equal(one.crops, again.crops)
    np.testing.assert_array_equal(one.parameters, again.parameters)
    np.testing.assert_array_equal(faces.samples(2, seed=5).crops, one.crops[:2])


def test_other_seeds_give_other_faces(faces: SyntheticFaces) -> None:
    crops = np.concatenate([faces.samples(4, seed=seed).crops for seed in (5, 6)]).astype(float)
    difference = np.abs(crops[:, None] - crops[None]).mean(axis=(2, 3, 4))
    assert difference[~np.eye(len(crops), dtype=bool)].min() > 10


def test_poses_shapes_and_expressions_cover_their_range(faces: SyntheticFaces) -> None:
    parameters = np.stack([faces.random_parameters(np.random.default_rng([3, i])) for i in range(2000)])
    assert np.isfinite(parameters).all()
    rotations = [head_rotation(decompose_camera(c).rotation) for c in cameras_in_crop(parameters)]
    yaw, pitch, roll = np.degrees([euler_from_rotation(r) for r in rotations]).T
    settings = faces.settings
    count, _ = np.histogram(yaw, np.linspace(-settings.yaw, settings.yaw, 11))
    assert count.sum() == len(yaw) and count.min() > 0.7 * len(yaw) / 10  # even
    for angle, limit in ((pitch, settings.pitch), (roll, settings.roll)):
        assert np.abs(angle).max() <= limit + 0.1
        assert (angle > 0.8 * limit).any() and (angle < -0.8 * limit).any()
        assert 0.2 * limit < angle.std() < 0.6 * limit
    shape, expression = parameters[:, 12:52], parameters[:, 52:]
    assert np.abs(shape).max() <= settings.shape_limit + 1e-6
    np.testing.assert_allclose(shape.std(axis=0), 1, atol=0.1)
    assert ((expression.std(axis=0) > 0.3) & (expression.std(axis=0) < 1.6)).all()


def test_the_head_has_no_open_back(face_model: FaceModel) -> None:
    """Where the mask alone would let the background through, the head does not: looked at from all around."""
    from radan_ros.rendering import render
    from radan_ros.training.synthetic.head import Head

    head = Head(face_model)
    for yaw in np.radians([0, 60, 90, 120, 180]):
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        seen = (head.mean - head.centre) @ turn.T * [400, -400, -400] + [100, 100, 0]
        depth = render([seen], head.triangles, np.zeros((len(seen), 3)), (200, 200), colour=False).depth
        rows = depth[72:92]  # the forehead, above the ears
        filled = np.isfinite(rows)
        spans = [np.ptp(np.nonzero(row)[0]) + 1 for row in filled]
        assert (filled.sum(axis=1) == spans).all()


def test_photographs_come_into_the_background(face_model: FaceModel, tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "red.png"), np.full((300, 400, 3), (0, 0, 250), np.uint8))
    with_photographs = SyntheticFaces(face_model, replace(PLAIN, photographs=str(tmp_path)))
    corners = with_photographs.samples(12, seed=2).crops[:, :12, :12].astype(int)
    red = (corners[..., 2] > 120).all(axis=(1, 2)) & (corners[..., :2] < 30).all(axis=(1, 2, 3))
    assert 2 <= red.sum() <= 11


def test_what_is_wrong_is_named(face_model: FaceModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="yaw"):
        SyntheticSettings(yaw=-1)
    with pytest.raises(ValueError, match="glasses"):
        SyntheticSettings(glasses=2)
    for spread in (float("inf"), float("nan"), -1.0):
        with pytest.raises(ValueError, match="shape_spread"):
            SyntheticSettings(shape_spread=spread)
    with pytest.raises(ValueError, match="photograph_limit"):
        SyntheticSettings(photograph_limit=0)
    with pytest.raises(ValueError, match=f"{tmp_path}.*no picture"):
        SyntheticFaces(face_model, SyntheticSettings(photographs=str(tmp_path)))
    with pytest.raises(ValueError, match="missing.*does not exist"):
        SyntheticFaces(face_model, SyntheticSettings(photographs=str(tmp_path / "missing")))
    fewer = replace(face_model, shape_basis=face_model.shape_basis[..., :10])
    with pytest.raises(ValueError, match="10 shape"):
        SyntheticFaces(fewer)


def test_refining_keeps_the_surface() -> None:
    points = np.random.default_rng(0).normal(size=(20, 3))
    triangles = grid_triangles(4, 5)
    chosen = np.arange(len(triangles)) % 3 == 0
    finer, ends = refine(triangles, chosen, len(points))
    more = np.concatenate([points, points[ends].mean(axis=1)])

    def area(corners: np.ndarray) -> float:
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        return float(np.linalg.norm(across, axis=1).sum())

    assert len(finer) == len(triangles) + 3 * chosen.sum()
    assert area(more[finer]) == pytest.approx(area(points[triangles]))


def test_border_and_distance_on_a_square() -> None:
    border = outer_border(grid_triangles(4, 5))
    assert sorted(border) == [0, 1, 2, 3, 4, 5, 9, 10, 14, 15, 16, 17, 18, 19]
    steps = np.abs(np.diff(np.append(border, border[0])))
    assert set(steps) == {1, 5}
    with pytest.raises(ValueError, match="no border"):
        outer_border(np.array([[0, 1, 2], [0, 2, 1]], np.int32))
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]])
    points = np.array([[1, 1], [1, 1.5], [3, 1], [3, 3]], np.float32)
    np.testing.assert_allclose(signed_distance(points, square), [-1, -0.5, 1, 2**0.5], atol=1e-6)
