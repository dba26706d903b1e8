"""Pose adaptive features: the reference's numbers, and the same place of the face at the same place in every pose."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import frontal_parameters
from scipy.spatial import cKDTree

from radan_ros import Model
from radan_ros.face_models import FaceModel
from radan_ros.paf import GRID, Anchors, open_anchors, paf_crop, spread_anchors
from radan_ros.pipeline import cameras_in_crop, transform
from radan_ros.pose import HEAD_IN_MODEL, rotation_from_euler
from radan_ros.rendering import render


@pytest.mark.parametrize("number", [0, 1])
def test_compat_gives_the_pictures_of_the_reference(number: int, shared: Path, small_face: FaceModel) -> None:
    expected = np.load(shared / "expected" / "3ddfa_v1_test1.npz")
    anchors = open_anchors(small_face, shared / "models" / "3ddfa_v1")  # of which only the number of modes is read
    crop, parameters = expected[f"face{number}_crop"], expected[f"face{number}_params"]
    picture = paf_crop(crop, parameters, anchors, 3, compat=True)
    same = (picture == expected[f"face{number}_paf"]).all(axis=2)
    assert same.mean() > 0.999, "an anchor may be half way between two pixels"
    ours = paf_crop(crop, parameters, anchors, 3).astype(int)
    assert 0.5 < np.abs(ours - picture).mean() < 12, "alike, but not rounded"


def test_anchors_are_spread_over_the_built_in_face(builtin: Model) -> None:
    face = builtin.face_model
    anchors = open_anchors(face)
    assert anchors.mean.shape == (GRID**2, 3) and anchors.basis.shape == (GRID**2, 3, face.modes)
    grid = anchors.mean.reshape(GRID, GRID, 3) * face.unit
    assert np.allclose(grid[..., 1], grid[:, :1, 1], atol=1e-3), "a row is at one height"
    depth = grid[..., 2] - (face.mean[:, 2].min() + face.mean[:, 2].max()) / 2 * face.unit
    assert (np.diff(grid[:, 0, 1]) < 0).all(), "from the forehead to the chin"
    assert (np.diff(np.arctan2(grid[..., 0], depth), axis=1) > 0).all(), "from the subject's right to the left"
    assert np.abs(grid - grid[:, ::-1] * [-1, 1, 1]).max() < 2e-3, "symmetric as the face"
    assert cKDTree(face.mean).query(anchors.mean)[0].max() * face.unit < 4e-3, "on the mesh"
    landmarks = cKDTree(anchors.mean).query(face.mean[face.landmarks[17:]])[0] * face.unit
    assert landmarks.max() < 5e-3, "brows, eyes, nose and mouth have anchors near"
    # They move with the mesh: the shape at an anchor is that of the mesh there.
    coefficients = np.random.default_rng(0).normal(0, 1, face.modes).astype(np.float32)
    moved, mesh = anchors.mean + anchors.basis @ coefficients, face.vertices(coefficients[None])[0]
    nearest = cKDTree(face.mean).query(anchors.mean)[1]
    steps = np.linalg.norm((moved - anchors.mean) - (mesh - face.mean)[nearest], axis=1)
    assert np.percentile(steps, 99) < 0.2 * np.linalg.norm(mesh - face.mean, axis=1).mean()


def turned(face: FaceModel, yaw: float) -> np.ndarray:
    """Parameters (62,) of a face in the middle of the crop, turned to the subject's left by `yaw` degrees."""
    parameters = frontal_parameters(face)
    rotation = rotation_from_euler(np.radians(yaw), 0, 0) @ HEAD_IN_MODEL.T * [[1], [-1], [-1]]  # y up, z to the viewer
    middle = face.mean.mean(axis=0)
    scale = 0.6 * parameters[0]
    camera = np.column_stack([scale * rotation, [60.5, 60.5, 0] - scale * rotation @ middle])
    parameters[:12] = camera.ravel()
    return parameters


def test_every_pose_shows_the_same_place_of_the_face_at_the_same_place(builtin: Model) -> None:
    face = builtin.face_model
    anchors = spread_anchors(face)
    low, size = face.mean.min(axis=0), np.ptp(face.mean, axis=0)
    codes, truth = ((points - low) / size * 255 for points in (face.mean, anchors.mean))
    seen_in = {}
    for yaw in (-35, 0, 35):
        parameters = turned(face, yaw)
        mesh = transform(cameras_in_crop(parameters[None]), face.mean[None])
        crop = render(mesh, face.triangles, codes.clip(0, 255), (120, 120)).colour
        picture = paf_crop(crop, parameters, anchors, 1)
        assert picture.shape == (GRID, GRID, 3)
        error = np.abs(picture.reshape(-1, 3) - truth).max(axis=1).reshape(GRID, GRID)
        seen_in[yaw] = (error < 16).mean(axis=0)
    middle, left, right = slice(24, 40), slice(44, 56), slice(8, 20)
    assert all(seen[middle].mean() > 0.8 for seen in seen_in.values())
    assert seen_in[-35][left].mean() > 0.85 > 0.5 > seen_in[-35][right].mean(), "turned away, the near side is seen"
    assert seen_in[35][right].mean() > 0.85 > 0.5 > seen_in[35][left].mean()


def test_the_kernel_shows_the_pixels_around_each_anchor() -> None:
    """One anchor on each pixel of a square: blocks of a picture whose colours tell their place."""
    rows, columns = np.mgrid[28 : 28 + GRID, 28 : 28 + GRID]
    anchors = Anchors(
        np.stack([columns, rows, 0 * rows], axis=-1).reshape(-1, 3).astype(np.float32),
        np.zeros((GRID**2, 3, 50), np.float32),
    )
    parameters = np.zeros(62, np.float32)
    # Networks count from 1, and y from below: this camera gives the anchors' own figures in the crop.
    parameters[:12] = [1, 0, 0, 1, 0, -1, 0, 120, 0, 0, -1, 0]
    y, x = np.mgrid[:120, :120]
    crop = np.stack([x, y, x + y], axis=-1).astype(np.uint8)
    picture = paf_crop(crop, parameters, anchors, 5)
    blocks = picture.reshape(GRID, 5, GRID, 5, 3)
    assert np.array_equal(blocks[:, 2, :, 2, 0], columns) and np.array_equal(blocks[:, 2, :, 2, 1], rows)
    assert np.array_equal(blocks[:, 0, :, 4, 0], columns + 2) and np.array_equal(blocks[:, 0, :, 4, 1], rows - 2)
    shifted = paf_crop(crop, parameters, anchors, 1, compat=True)
    assert np.array_equal(shifted[..., 0], columns + 1) and np.array_equal(shifted[..., 1], rows + 1)


def test_anchors_beyond_the_crop_take_its_edge() -> None:
    far = Anchors(np.full((GRID**2, 3), 1e4, np.float32), np.zeros((GRID**2, 3, 50), np.float32))
    parameters = np.zeros(62, np.float32)
    parameters[[0, 5, 10]] = 1, -1, 1
    crop = np.zeros((120, 120, 3), np.uint8)
    crop[-1, -1] = 200
    assert (paf_crop(crop, parameters, far, 3) == 200).all()
    kept = paf_crop(crop, parameters, far, 3, compat=True)
    assert (kept.reshape(GRID, 3, GRID, 3, 3)[:, 2, :, 2] == 200).all() and (kept == 200).mean() < 0.2
    for kernel in (0, 2, -3, 121):
        with pytest.raises(ValueError, match=str(kernel)):
            paf_crop(crop, parameters, far, kernel)


def test_damaged_anchors_are_named(small_face: FaceModel, tmp_path: Path) -> None:
    (tmp_path / "train.configs").mkdir()
    assert np.array_equal(open_anchors(small_face, tmp_path).mean, spread_anchors(small_face).mean), "no file: ours"
    path = tmp_path / "train.configs" / "Model_PAF.pkl"
    whole = {
        "mu_filter": np.zeros((12288, 1), np.float32),
        "w_filter": np.zeros((12288, 40), np.float32),
        "w_exp_filter": np.zeros((12288, 10), np.float32),
    }
    for content in (
        b"nothing",
        pickle.dumps([1]),
        pickle.dumps({**whole, "w_filter": whole["w_filter"][:-1]}),
        pickle.dumps({**whole, "w_exp_filter": whole["w_exp_filter"][:, :3]}),
        pickle.dumps({**whole, "mu_filter": whole["w_filter"]}),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"Model_PAF.pkl"):
            open_anchors(small_face, tmp_path)
    path.write_bytes(pickle.dumps(whole))
    assert open_anchors(small_face, tmp_path).basis.shape == (GRID**2, 3, 50)
