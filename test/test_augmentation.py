"""Augmentation: labels move exactly with the picture, and what spoils pictures does what its name says."""

from __future__ import annotations

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest

from radan_ros.boxes import square_from_landmarks
from radan_ros.pipeline import cameras_in_crop, transform
from radan_ros.training import augmentation
from radan_ros.training.augmentation import (
    DETECTOR,
    FOLLOWER,
    MIRRORED,
    AugmentationSettings,
    augment,
    inner_crop,
    mirror_parameters,
    move_parameters,
    swap_tiles,
    turn_of,
)
from radan_ros.training.samples import MARGIN

OFF = AugmentationSettings(
    jitter_boxes=False,
    rotation_std=0.0,
    **{f.name: 0.0 for f in fields(AugmentationSettings) if f.name.endswith("_share")},
)
GEOMETRY = replace(
    OFF, jitter_boxes=True, detector_share=0.5, rotation_std=12.0, large_rotation_share=0.3, mirror_share=0.5
)


class SymmetricFace:
    """68 points and 50 modes, of which some mirror to themselves and some to their negative."""

    def __init__(self) -> None:
        random = np.random.default_rng(3)
        self.mean = self._symmetric(random.normal(size=(68, 3)), 1.0) * [0.05, 0.07, 0.04]
        self.signs = np.where(np.arange(50) % 3 == 0, -1.0, 1.0)
        self.modes = np.stack([0.003 * self._symmetric(random.normal(size=(68, 3)), s) for s in self.signs], axis=-1)
        self.mirror = np.diag(self.signs)

    @staticmethod
    def _symmetric(points: np.ndarray, sign: float) -> np.ndarray:
        return points + sign * points[MIRRORED] * [-1, 1, 1]

    def parameters(self, random: np.random.Generator, yaw: float | None = None) -> np.ndarray:
        """A face somewhere near the middle of the crop, turned by at most 80 degrees each way."""
        y, p, r = np.radians(random.uniform(-80, 80, 3) * [1, 0.4, 0.3])
        if yaw is not None:
            y, p, r = yaw, 0.0, 0.0
        turn = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        nod = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
        tilt = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
        camera = np.column_stack([random.uniform(300, 500) * tilt @ nod @ turn, [60, 62, random.uniform(-5, 5)]])
        return np.concatenate([camera.ravel(), random.normal(size=50)]).astype(np.float32)

    def project(self, parameters: np.ndarray) -> np.ndarray:
        """Landmarks (68, 3) in crop pixels."""
        shape = (self.mean + self.modes @ parameters[12:]).astype(np.float32)
        return transform(cameras_in_crop(parameters[None]), shape[None])[0]


@pytest.fixture(scope="module")
def face() -> SymmetricFace:
    return SymmetricFace()


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A wide crop with edges of every strength and colour."""
    y, x = np.mgrid[:184, :184]
    waves = [np.sin(x / 7) * 60, np.cos(y / 9) * 60, np.sign(np.sin((x + y) / 11)) * 50]
    return np.clip(120 + np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


def test_switched_off_it_takes_the_inner_crop(face: SymmetricFace, picture: np.ndarray) -> None:
    parameters = face.parameters(np.random.default_rng(0))
    landmarks = face.project(parameters)[:, :2]
    out = augment(picture, parameters, landmarks, np.random.default_rng(1), OFF, mirror=face.mirror)
    assert np.array_equal(out.crop, inner_crop(picture)) and not out.mirrored
    np.testing.assert_allclose(out.parameters, parameters, atol=1e-5)
    np.testing.assert_allclose(out.landmarks, landmarks, atol=1e-4)


def test_projecting_augmented_parameters_gives_the_augmented_landmarks(
    face: SymmetricFace, picture: np.ndarray
) -> None:
    random = np.random.default_rng(0)
    mirrored = 0
    for _ in range(100):
        parameters = face.parameters(random)
        given = face.project(parameters)
        out = augment(picture, parameters, given[:, :2], random, GEOMETRY, mirror=face.mirror)
        again = face.project(out.parameters)
        assert np.abs(again[:, :2] - out.landmarks).max() < 1e-3
        # Depths scale as distances in the picture do: the map is a similarity in three dimensions.
        before, after = given[MIRRORED] if out.mirrored else given, again
        scale = np.linalg.norm(after[0, :2] - after[16, :2]) / np.linalg.norm(before[0, :2] - before[16, :2])
        np.testing.assert_allclose(np.ptp(after[:, 2]), scale * np.ptp(before[:, 2]), rtol=1e-4)
        mirrored += out.mirrored
    assert 25 < mirrored < 75


def test_a_turn_in_the_picture_leaves_the_depth_row_but_for_its_scale(face: SymmetricFace) -> None:
    parameters = face.parameters(np.random.default_rng(5))
    c, s = 1.3 * np.cos(0.6), 1.3 * np.sin(0.6)
    moved = move_parameters(parameters, np.array([[c, -s, 11.0], [s, c, -4.0]]))
    np.testing.assert_allclose(moved[8:12], 1.3 * parameters[8:12], rtol=1e-5)
    assert np.array_equal(moved[12:], parameters[12:])
    old, new = (p[:8].reshape(2, 4)[:, :3].astype(float) for p in (parameters, moved))
    np.testing.assert_allclose(new @ new.T, 1.69 * old @ old.T, atol=1.0)  # of 2e5


def test_many_parameters_move_as_each_does(face: SymmetricFace) -> None:
    random = np.random.default_rng(2)
    several = np.stack([face.parameters(random) for _ in range(6)])
    affine = np.array([[0.9, 0.2, 3.0], [-0.2, 0.9, 5.0]])
    together = move_parameters(several.reshape(2, 3, 62), affine).reshape(6, 62)
    np.testing.assert_array_equal(together, np.stack([move_parameters(p, affine) for p in several]))


def test_mirroring_twice_is_nothing_and_a_mirrored_camera_is_no_mirror(face: SymmetricFace) -> None:
    assert np.array_equal(MIRRORED[MIRRORED], np.arange(68))
    parameters = face.parameters(np.random.default_rng(8))
    once = mirror_parameters(parameters, face.mirror)
    assert np.linalg.det(once[:12].reshape(3, 4)[:, :3].astype(float)) > 0
    np.testing.assert_allclose(turn_of(once), -turn_of(parameters), atol=1e-6)
    np.testing.assert_allclose(mirror_parameters(once, face.mirror), parameters, atol=1e-4)


def test_mirrored_landmarks_of_a_face_are_where_the_other_side_was(shared) -> None:
    """iBUG order on real points: a mirrored frontal face has nearly the points of the face."""
    labels = np.load(shared / "datasets" / "congress" / "labels.npz")
    points = labels["teacher_landmarks68_3d"][..., :2]
    frontal = np.abs(labels["teacher_camera"][:, 0, 2] / labels["teacher_camera"][:, 0, 0]) < 0.05
    centred = points[frontal] - points[frontal].mean(axis=1, keepdims=True)
    size = np.ptp(centred, axis=1).mean()
    apart = np.linalg.norm(centred - centred[:, MIRRORED] * [-1, 1], axis=2).mean(axis=0) / size
    assert frontal.sum() > 30 and apart.max() < 0.12


def test_a_painted_mark_moves_with_its_landmark(face: SymmetricFace) -> None:
    random = np.random.default_rng(4)
    seen = 0
    for k in range(60):
        parameters = face.parameters(random)
        landmarks = face.project(parameters)[:, :2]
        x, y = np.rint(np.clip(landmarks[k], 0, 119) + MARGIN).astype(int)
        landmarks[k] = [x - MARGIN, y - MARGIN]
        wide = np.zeros((184, 184, 3), np.uint8)
        wide[y, x] = 255
        wide = cv2.GaussianBlur(wide, (13, 13), 2) * 10
        out = augment(wide, parameters, landmarks, random, GEOMETRY, mirror=face.mirror)
        where = out.landmarks[MIRRORED[k] if out.mirrored else k]
        if not ((where > 9) & (where < 110)).all():
            continue
        grey = out.crop[..., 0].astype(float)
        near = np.zeros_like(grey)
        column, row = np.rint(where).astype(int)
        near[row - 9 : row + 10, column - 9 : column + 10] = grey[row - 9 : row + 10, column - 9 : column + 10]
        centre = np.array([(near * np.arange(120)).sum(), (near * np.arange(120)[:, None]).sum()]) / near.sum()
        assert np.abs(centre - where).max() < 0.15
        seen += 1
    assert seen > 30


@pytest.mark.parametrize("name", ["detector", "follower"])
def test_squares_are_off_as_measured(face: SymmetricFace, picture: np.ndarray, name: str) -> None:
    expected = DETECTOR if name == "detector" else FOLLOWER
    settings = replace(OFF, jitter_boxes=True, detector_share=float(name == "detector"), box_spread=1.0)
    random = np.random.default_rng(0)
    off, turns = [], []
    for _ in range(600):
        parameters = face.parameters(random, yaw=random.uniform(-0.84, 0.84))
        out = augment(picture, parameters, face.project(parameters)[:, :2], random, settings)
        true = square_from_landmarks(out.landmarks)
        side = true[2] - true[0]
        # What the network sees is the square 0 .. 120 around the true one.
        off.append([(60 - (true[0] + true[2]) / 2) / side, (60 - (true[1] + true[3]) / 2) / side, np.log(120 / side)])
        turns.append(turn_of(parameters))
    values, sines = np.array(off), np.array(turns)
    assert np.ptp(sines) > 1.4
    slope, offset = np.polyfit(sines, values[:, 0], 1)
    np.testing.assert_allclose([offset, slope], [expected.x, expected.x_turn], atol=0.01)
    np.testing.assert_allclose(np.std(values[:, 0] - slope * sines), expected.x_std, rtol=0.15)
    np.testing.assert_allclose(values[:, 1:].mean(axis=0), [expected.y, expected.size], atol=0.015)
    np.testing.assert_allclose(values[:, 1:].std(axis=0), [expected.y_std, expected.size_std], rtol=0.15)


def test_the_same_generator_gives_the_same_sample(face: SymmetricFace, picture: np.ndarray) -> None:
    parameters = face.parameters(np.random.default_rng(1))
    landmarks = face.project(parameters)[:, :2]
    untouched = picture.copy()
    every = AugmentationSettings(**{f.name: 1.0 for f in fields(AugmentationSettings) if f.name.endswith("_share")})
    samples = [
        augment(picture, parameters, landmarks, np.random.default_rng(seed), every, mirror=face.mirror)
        for seed in (7, 7, 8)
    ]
    for a, b in zip(samples[0], samples[1], strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(samples[0].crop, samples[2].crop)
    assert np.array_equal(picture, untouched)
    assert samples[0].crop.shape == (120, 120, 3) and samples[0].crop.dtype == np.uint8
    assert samples[0].parameters.dtype == samples[0].landmarks.dtype == np.float32


def _roughness(picture: np.ndarray) -> float:
    return sum(float(np.abs(np.diff(picture.astype(float), axis=axis)).mean()) for axis in (0, 1))


def test_each_spoiling_does_what_it_says(picture: np.ndarray) -> None:
    crop = np.ascontiguousarray(inner_crop(picture))
    for seed in range(20):
        random = np.random.default_rng(seed)
        grey = augmentation.recolour(crop, random, coloured=False, grey=True)
        assert np.ptp(grey.astype(int), axis=2).max() <= 1
        luma = crop @ np.array([0.114, 0.587, 0.299])
        assert np.abs(grey[..., 0] - luma).max() <= 1.01
        assert _roughness(augmentation.blur(crop, random)) < _roughness(crop)
        reduced = augmentation.reduce_resolution(crop, random, 24)
        assert (reduced != crop).any() and np.abs(reduced.mean(axis=(0, 1)) - crop.mean(axis=(0, 1))).max() < 6
        flat = np.full((120, 120, 3), 128, np.uint8)
        assert augmentation.add_noise(flat, random, 14.0).std() < 14.5
        lit = augmentation.light(flat, random).astype(float)
        assert np.ptp(lit.mean(axis=2)) > 10 and np.abs(np.diff(lit, axis=1)).mean() < 8
        pressed = augmentation.compress(crop, random)
        assert 0 < np.abs(pressed.astype(int) - crop).mean() < 30
        covered = (augmentation.occlude(crop, np.zeros((184, 184, 3), np.uint8), random, 0.5) != crop).any(axis=2)
        assert 0 < covered.mean() <= 3 * 0.25


def test_noise_has_the_strength_that_was_drawn() -> None:
    flat = np.full((120, 120, 3), 128, np.uint8)
    strengths = [augmentation.add_noise(flat, np.random.default_rng(s), 14.0).std() for s in range(200)]
    np.testing.assert_allclose(np.percentile(strengths, [10, 50, 90]), [1.4, 7, 12.6], atol=1.2)


def test_patches_come_from_the_donor(picture: np.ndarray) -> None:
    crop = np.zeros((120, 120, 3), np.uint8)
    donor = np.full((184, 184, 3), (1, 2, 3), np.uint8)
    cut = [
        (augmentation.occlude(crop, donor, np.random.default_rng(s)) == (1, 2, 3)).all(axis=2).any() for s in range(60)
    ]
    assert 25 < sum(cut) < 60


def test_swapped_tiles_are_the_tiles_in_another_order(picture: np.ndarray) -> None:
    random = np.random.default_rng(0)
    crops = random.integers(0, 256, (200, 120, 120, 3), dtype=np.uint8)
    before = crops.copy()
    swapped = swap_tiles(crops, random, 4)
    assert np.array_equal(crops, before)

    def sums(pictures: np.ndarray) -> np.ndarray:
        return pictures.reshape(-1, 4, 30, 4, 30, 3).astype(np.int64).sum(axis=(2, 4, 5)).reshape(-1, 16)

    old, new = sums(crops), sums(swapped)
    assert np.array_equal(np.sort(old), np.sort(new))
    moved = (old != new).sum(axis=1)
    # n swaps with the first tile move n tiles and the first one; less where a tile is swapped back.
    assert set(moved) <= {0, 2, 3, 4, 5} and {2, 3, 4, 5} <= set(moved)
    assert (new[:, 0] == old[:, 0]).mean() < 0.1
    # Every other tile is as likely to move.
    share = (old != new)[:, 1:].mean(axis=0)
    assert share.min() > 0.06 and share.max() < 0.3
    one = swap_tiles(crops, random, 1)
    assert set((sums(one) != old).sum(axis=1)) == {2}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mirror_share", 1.1), ("blur_share", -0.1), ("rotation_std", 90), ("smallest_resolution", 4),
        ("smallest_resolution", 24.5), ("noise_std", float("nan")), ("lowest_quality", 0), ("jitter_boxes", 1),
        ("largest_patch", "half"), ("grey_share", True),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        AugmentationSettings(**{field: value})


def test_swaps_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="max_tiles"):
        swap_tiles(np.zeros((1, 120, 120, 3), np.uint8), np.random.default_rng(0), 16)
