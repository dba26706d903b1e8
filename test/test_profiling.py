"""Face profiling: what it must leave alone, and what a turn of a known textured head must look like."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from radan_ros.face_models import FaceModel
from radan_ros.pipeline import transform
from radan_ros.pose import (
    FACING,
    HEAD_IN_MODEL,
    decompose_camera,
    euler_from_rotation,
    head_rotation,
    rotation_from_euler,
)
from radan_ros.rendering import render
from radan_ros.training.profiling import TurnableFace, profile_face, turn, turned_camera

SIZE = (240, 320)
NOTHING = np.zeros((1, 50), np.float32)


def camera(yaw: float = 0, pitch: float = 0, roll: float = 0) -> np.ndarray:
    """A head turned by these degrees, 100 pixels high, off the middle of the picture."""
    linear = 0.5 * rotation_from_euler(*np.deg2rad([yaw, pitch, roll])) @ HEAD_IN_MODEL.T
    return np.column_stack([linear, [150, 125, 40]]).astype(np.float32)


def angles(of: np.ndarray) -> np.ndarray:
    return np.rad2deg(euler_from_rotation(head_rotation(decompose_camera(of).rotation)))


@pytest.fixture(scope="module")
def textured(small_face: FaceModel) -> FaceModel:
    """The half ellipsoid with waves of 4 cm and another colour on each side, so that a wrong turn shows."""
    x, y, z = small_face.mean.T
    waves = [np.sin(x / 6), np.sin(y / 7), np.sin((x + y + z) / 8)]
    return replace(small_face, codes=(127 + 100 * np.stack(waves, axis=1)).astype(np.float32))


def picture_of(face: FaceModel, seen_by: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The head before a smooth background, and where it is drawn."""
    vertices = transform(seen_by[None], face.vertices(NOTHING))
    drawn = render(vertices, face.triangles, face.codes, SIZE)
    mask = np.isfinite(drawn.depth)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    image = np.stack([rows / 2, columns / 2, rows / 4 + columns / 4], axis=-1).astype(np.uint8)
    image[mask] = drawn.colour[mask]
    return image, mask


def test_no_turn_leaves_the_picture(textured):
    image, _ = picture_of(textured, camera(20))
    picture, same = profile_face(image, textured, camera(20), NOTHING[0], np.eye(3))
    np.testing.assert_allclose(same, camera(20), atol=1e-4)
    difference = np.abs(picture.astype(int) - image)
    assert picture.shape == image.shape and picture.dtype == np.uint8
    # The sheet is a resampling: only the outline of the head, a step, may change.
    assert difference.mean() < 2 and np.median(difference) <= 1


@pytest.mark.parametrize(
    ("start", "step"), [((0, 0), (30, 0)), ((0, 0), (-30, 0)), ((-20, 0), (-35, 0)), ((25, 5), (30, -10))]
)
def test_a_turned_picture_is_a_picture_of_the_turned_head(textured, start, step):
    before, after = camera(*start), camera(start[0] + step[0], start[1] + step[1])
    image, _ = picture_of(textured, before)
    rotation = decompose_camera(after).rotation @ decompose_camera(before).rotation.T
    picture, seen_by = profile_face(image, textured, before, NOTHING[0], rotation)
    wanted, mask = picture_of(textured, seen_by)
    inside = cv2.erode(mask.astype(np.uint8), np.ones((9, 9))) > 0
    error = np.abs(picture.astype(int) - wanted)[inside].mean()
    unturned = np.abs(image.astype(int) - wanted)[inside].mean()
    assert error < 12 and error < unturned / 4


def test_the_new_camera_is_the_rotation_after_the_old_one(textured):
    before, rotation = camera(25, -10, 5), turn(40, 15, -8)
    after = TurnableFace(picture_of(textured, before)[0], textured, before, NOTHING[0]).turned(rotation)
    old, new = decompose_camera(before), decompose_camera(after)
    np.testing.assert_allclose(new.rotation, rotation @ old.rotation, atol=1e-5)
    assert new.scale == pytest.approx(old.scale, rel=1e-5)
    between_ears = textured.mean[textured.landmarks[[0, 16]]].mean(axis=0)
    np.testing.assert_allclose(
        after[:, :3] @ between_ears + after[:, 3], before[:, :3] @ between_ears + before[:, 3], atol=1e-3
    )


def test_turns_have_the_signs_of_the_pose():
    np.testing.assert_allclose(turn(30, -20, 10), rotation_from_euler(*np.deg2rad([30, -20, 10])) @ FACING.T)
    facing = camera()
    for which in range(3):
        step = np.zeros(3)
        step[which] = 35
        np.testing.assert_allclose(angles(turned_camera(facing, turn(*step), np.zeros(3))), step, atol=1e-3)
    np.testing.assert_allclose(angles(turned_camera(camera(-30), turn(-45), np.zeros(3)))[0], -75, atol=1e-3)


def test_the_picture_far_from_the_head_stays(textured):
    image, _ = picture_of(textured, camera())
    picture, _ = profile_face(image, textured, camera(), NOTHING[0], turn(70))
    np.testing.assert_allclose(picture[:, -40:].astype(int), image[:, -40:], atol=2)


@pytest.mark.parametrize("step", [(0, 0), (90, 0), (-60, 25), (50, -30)])
def test_there_are_no_holes(textured, step):
    """A head that fills the picture, turned: every pixel takes a colour of the head or of the white around it."""
    close = camera()
    close[:2] *= 2
    close[:2, 3] = [100, 100]
    image = np.full((200, 200, 3), 255, np.uint8)
    face = replace(textured, codes=np.full_like(textured.codes, 180))
    drawn = render(transform(close[None], face.vertices(NOTHING)), face.triangles, face.codes, (200, 200))
    image[np.isfinite(drawn.depth)] = 180
    picture, _ = profile_face(image, face, close, NOTHING[0], turn(*step))
    assert picture.min() >= 178


def test_a_crop_of_the_turned_picture_is_the_crop(textured):
    image, _ = picture_of(textured, camera())
    face = TurnableFace(image, textured, camera(), NOTHING[0])
    whole = face.picture(turn(40))
    moved = np.array([[1, 0, -60], [0, 1, -50], [0, 0, 1.0]])
    part = face.picture(turn(40), moved, (150, 170))
    np.testing.assert_allclose(part.astype(int), whole[50:200, 60:230], atol=2)


def test_bad_input_is_named(textured):
    image, _ = picture_of(textured, camera())
    with pytest.raises(ValueError, match="uint8"):
        profile_face(image.astype(float), textured, camera(), NOTHING[0], np.eye(3))
    with pytest.raises(ValueError, match="camera"):
        profile_face(image, textured, np.eye(3), NOTHING[0], np.eye(3))
    with pytest.raises(ValueError, match="mirrors"):
        profile_face(image, textured, camera() * np.array([[1], [1], [-1]]), NOTHING[0], np.eye(3))
    for rotation in (np.eye(4), np.full((3, 3), np.nan)):
        with pytest.raises(ValueError, match="rotation"):
            profile_face(image, textured, camera(), NOTHING[0], rotation)
    with pytest.raises(ValueError, match="size of 0"):
        TurnableFace(image, textured, camera(), NOTHING[0], size=0)
    away = camera()
    away[0, 3] = 2000
    with pytest.raises(ValueError, match="does not lie in the image"):
        profile_face(image, textured, away, NOTHING[0], np.eye(3))
