"""Benchmarks: folders in 3DDFA's formats, scores against loops and hand-worked numbers, plain code against ours."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from radan_ros import Detection, Model, Pipeline, boxes, open_model
from radan_ros.benchmarks import plain, plots, scoring, speed
from radan_ros.benchmarks.answers import (
    BOXES,
    GIVEN,
    answer,
    place,
    points_in_crops,
    read_predictions,
    rotations_of,
    sheet,
)
from radan_ros.benchmarks.faces import uncut_squares
from radan_ros.benchmarks.labelled import FITTED, LABELLED, read_aflw2000, read_folder, read_pts
from radan_ros.benchmarks.timing import Range, interleaved
from radan_ros.face_models import FaceModel, read_face_model
from radan_ros.networks import load_checkpoint, network_state
from radan_ros.rendering import Renderer
from radan_ros.tools import benchmark, evaluate
from radan_ros.training import evaluation

# Yaws at and beside every edge of the bins, beyond 90 and of both signs.
YAWS = np.array([0, -30, 30.001, 60, -60.001, 95, 12, -45, 75], np.float32)
OTHER_YAWS = np.array([5, -31, 29, 61, -10, 88, -99, 30, 60], np.float32)
COUNT = len(YAWS)
SIDE = 450  # pixels of a picture of AFLW2000-3D
# Middles of the faces in it, and how large they are: over the left edge, over right and bottom, over left and top, over
# all four, and within.
MIDDLES = [(40, 220), (410, 400), (50, 60), (220, 230), (200, 210), (170, 250), (240, 190), (220, 220), (180, 190)]
SCALES = [1, 1, 1, 5, 1, 1.1, 0.9, 0.8, 0.7]
# AFLW's 21 points by iBUG's numbers from 1, as 3DDFA lists them.
MADE_OF = [
    [18], [20], [22], [23], [25], [27], [37], [37, 38, 39, 40, 41, 42], [40], [43], [43, 44, 45, 46, 47, 48], [46],
    [3], [32], [31], [36], [15], [49], [61, 62, 63, 64, 65, 66, 67, 68], [55], [9],
]  # fmt: skip


def _run(*arguments: str | Path) -> int:
    return benchmark.main([str(argument) for argument in arguments])


def _results(out: Path) -> dict[str, list[dict[str, Any]]]:
    content: dict[str, list[dict[str, Any]]] = json.loads((out / "benchmark.json").read_text())
    return content


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """test.data and test.configs as their users have them, with nine made-up faces of AFLW2000-3D and nine of AFLW."""
    random = np.random.default_rng(3)
    root = tmp_path_factory.mktemp("originals")
    (root / "test.configs").mkdir()
    names = [f"image{number:05}.jpg" for number in range(2, 2 + COUNT)]
    for data in ("AFLW2000-3D_crop", "AFLW_GT_crop"):
        (root / "test.data" / data).mkdir(parents=True)
        (root / "test.data" / f"{data}.list").write_text("\n".join(names) + "\n")
        for name in names:
            crop = random.integers(0, 256, (120, 120, 3), np.uint8)
            assert cv2.imwrite(str(root / "test.data" / data / name), crop)
    points = random.normal(0, 30, (COUNT, 3, 68)) * np.reshape(SCALES, (COUNT, 1, 1))
    points[:, :2] += np.array(MIDDLES, float)[:, :, None]
    points = points.astype(np.float32)
    squares = np.clip([_reference_square(of_face) for of_face in points], 1, SIDE)
    again = points[:, :2] + random.normal(0, 3, (COUNT, 2, 68))
    of_21 = random.uniform(40, 200, (COUNT, 2, 21))
    of_21[:, :, 5] = -1
    of_21[2, 0, 11] = -1  # not visible either: one coordinate is enough
    arrays = {
        "AFLW2000-3D_crop.roi_box": squares.astype(np.float32),
        "AFLW2000-3D.pts68": points.astype(np.float32),
        "AFLW2000-3D-Reannotated.pts68": again.astype(np.float32),
        "AFLW2000-3D.pose": YAWS,
        "AFLW2000-3D-new.pose": OTHER_YAWS,
        "AFLW_GT_crop_roi_box": squares.astype(np.uint16),
        "AFLW_GT_pts21": of_21.astype(np.float32),
        "AFLW_GT_pts68": points[:, :2].astype(np.float32),
        "AFLW_GT_crop_yaws": YAWS,
    }
    for name, array in arrays.items():
        np.save(root / "test.configs" / f"{name}.npy", array)
    return root


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Points in crops, as 3DDFA's code answers them."""
    path = tmp_path_factory.mktemp("predicted") / "points.npz"
    np.savez(path, crop_landmarks=np.random.default_rng(4).normal(60, 15, (COUNT, 3, 68)).astype(np.float32))
    return path


def _reference_square(points: np.ndarray) -> list[int]:
    """The square of 3DDFA's crop of a face with points (2 or 3, 68), in pixels from 1: before it is cut."""

    def whole(value: float) -> int:
        return int(math.copysign(math.floor(abs(value) + 0.5), value))

    x, y = ([float(value) for value in axis] for axis in points[:2])
    length = max(max(x) - min(x), max(y) - min(y)) / 2 * 2 * math.sqrt(2)
    left, top = (whole((min(axis) + max(axis)) / 2 - length / 2) for axis in (x, y))
    return [left, top, left + whole(length), top + whole(length)]


def _reference_scores(errors: list[float], yaws: np.ndarray) -> tuple[list[float], list[float], float, float]:
    """Means and standard deviations by bin, mean and standard deviation of the means, all in percent; by loops."""
    parts: list[list[float]] = [[], [], []]
    for error, yaw in zip(errors, yaws.tolist(), strict=True):
        parts[0 if abs(yaw) <= 30 else 1 if abs(yaw) <= 60 else 2].append(100 * error)

    def mean_and_std(values: list[float]) -> tuple[float, float]:
        mean = sum(values) / len(values)
        return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))

    means, stds = zip(*(mean_and_std(part) for part in parts), strict=True)
    return [*means], [*stds], *mean_and_std([*means])


def _box_size(points: np.ndarray) -> float:
    width = max(points[0]) - min(points[0])
    height = max(points[1]) - min(points[1])
    return math.sqrt(float(width) * float(height))


def _reference_68(crop_points: np.ndarray, square: np.ndarray, given: np.ndarray) -> float:
    """3DDFA's error of one face: (2 or 3, 68) in the crop against (2 or 3, 68) in the picture."""
    left, top, right, bottom = square.tolist()
    total = 0.0
    for i in range(68):
        x = crop_points[0, i] * (right - left) / 120 + left
        y = crop_points[1, i] * (bottom - top) / 120 + top
        total += math.hypot(x - given[0, i], y - given[1, i])
    return total / 68 / _box_size(given)


def _reference_21(crop_points: np.ndarray, square: np.ndarray, given: np.ndarray, box: np.ndarray) -> float:
    """The same with 21 points, of which those at -1 are not visible."""
    left, top, right, bottom = square.tolist()
    distances = []
    for i, made_of in enumerate(MADE_OF):
        if given[0, i] == -1 or given[1, i] == -1:
            continue
        x = sum(crop_points[0, n - 1] * (right - left) / 120 + left for n in made_of) / len(made_of)
        y = sum(crop_points[1, n - 1] * (bottom - top) / 120 + top for n in made_of) / len(made_of)
        distances.append(math.hypot(x - given[0, i], y - given[1, i]))
    return sum(distances) / len(distances) / _box_size(box)


def _reference_3d(crop_points: np.ndarray, given: np.ndarray) -> float:
    """RADAN's 3D error of one face: each axis brought to the given points' least and most."""
    squares = np.zeros(68)
    volume = 1.0
    for said, true in zip(crop_points, given, strict=True):
        for i in range(68):
            share = (said[i] - min(said)) / (max(said) - min(said))
            squares[i] += (share * (max(true) - min(true)) + min(true) - true[i]) ** 2
        volume *= max(true) - min(true)
    return float(sum(math.sqrt(square) for square in squares) / 68 / volume ** (1 / 3))


def _check(table: dict[str, Any], errors: list[float], yaws: np.ndarray) -> None:
    means, stds, mean, std = _reference_scores(errors, yaws)
    np.testing.assert_allclose([row["mean"] for row in table["bins"]], means, rtol=1e-5)
    np.testing.assert_allclose([row["std"] for row in table["bins"]], stds, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose([table["of_bins"]["mean"], table["of_bins"]["std"]], [mean, std], rtol=1e-4)
    assert sum(row["count"] for row in table["bins"]) == COUNT and table["missing"] == 0


def test_aflw2000_is_scored_as_3ddfa_and_radan_score_it(originals: Path, predicted: Path, tmp_path: Path) -> None:
    assert _run("aflw2000", "--data", originals, "--predictions", predicted, "--out", tmp_path) == 0
    configs = originals / "test.configs"
    said = np.load(predicted)["crop_landmarks"].astype(float)
    squares = np.load(configs / "AFLW2000-3D_crop.roi_box.npy").astype(float)
    files = {"original": "AFLW2000-3D.pts68.npy", "re-annotated": "AFLW2000-3D-Reannotated.pts68.npy"}
    yaws = {FITTED: YAWS, LABELLED: OTHER_YAWS}
    seen = set()
    for table in _results(tmp_path)["errors"]:
        given = np.load(configs / files[table["annotation"]]).astype(float)
        if table["dimensions"] == 2:
            errors = [_reference_68(*of_face) for of_face in zip(said, squares, given, strict=True)]
            assert table["alignment"] == "none"
        else:
            errors = [_reference_3d(*of_face) for of_face in zip(said, given, strict=True)]
            assert "stretched" in table["alignment"]
        _check(table, errors, yaws[table["split"]])
        seen.add((table["annotation"], table["split"], table["dimensions"]))
    both = {("original", s, 2) for s in yaws} | {("re-annotated", s, 2) for s in yaws}
    assert seen == both | {("original", s, 3) for s in yaws}  # the re-annotated points have no depth


def test_aflw_is_scored_as_3ddfa_scores_it(originals: Path, predicted: Path, tmp_path: Path) -> None:
    assert _run("aflw", "--data", originals, "--predictions", predicted, "--out", tmp_path) == 0
    configs = originals / "test.configs"
    said = np.load(predicted)["crop_landmarks"].astype(float)
    arrays = [np.load(configs / f"AFLW_GT_{n}.npy").astype(float) for n in ("crop_roi_box", "pts21", "pts68")]
    (table,) = _results(tmp_path)["errors"]
    assert (table["points"], table["dimensions"]) == (21, 2)
    # Placed as 3DDFA places them, and said so.
    assert table["crops"].startswith("given") and table["pixels"].startswith("3DDFA's")
    _check(table, [_reference_21(*of_face) for of_face in zip(said, *arrays, strict=True)], YAWS)


def test_a_score_worked_out_by_hand(originals: Path, tmp_path: Path) -> None:
    """Points in a box of 100 x 64, size 80, and each predicted 3 and 4 pixels off: 5 / 80 is 6.25 %."""
    root = tmp_path / "data"
    (root / "test.data").mkdir(parents=True)
    (root / "test.data" / "AFLW2000-3D_crop.list").write_text("a.jpg\nb.jpg\n")
    (root / "test.configs").mkdir()
    points = np.zeros((2, 3, 68), np.float32)
    points[:, 0], points[:, 1] = np.linspace(0, 100, 68), np.linspace(64, 0, 68)
    arrays = {
        "AFLW2000-3D.pts68": points,
        "AFLW2000-3D-Reannotated.pts68": points[:, :2] * 2,
        "AFLW2000-3D.pose": np.array([-70, 20], np.float32),
        "AFLW2000-3D-new.pose": np.array([40, 45], np.float32),
        "AFLW2000-3D_crop.roi_box": np.array([[0, 0, 120, 120]] * 2, np.float32),
    }
    for name, array in arrays.items():
        np.save(root / "test.configs" / f"{name}.npy", array)
    said = points[:, :2].transpose(0, 2, 1).copy()
    said[0] += [3, 4]
    np.savez(tmp_path / "p.npz", landmarks=said, names=["a.jpg", "b.jpg"])
    assert _run("aflw2000", "--data", root, "--predictions", tmp_path / "p.npz", "--out", tmp_path) == 0
    first, second = (t for t in _results(tmp_path)["errors"] if t["annotation"] == "original")
    assert [row["mean"] for row in first["bins"]] == [0, None, pytest.approx(6.25)]
    assert [first["of_bins"][what] for what in ("mean", "std")] == pytest.approx([3.125, 3.125])
    assert [row["count"] for row in second["bins"]] == [0, 2, 0]
    with np.load(tmp_path / "faces.npz") as file:
        np.testing.assert_allclose(file["p.npz, original, 2D"], [6.25, 0], rtol=1e-6)
        assert file["names"].tolist() == ["a.jpg", "b.jpg"] and file[FITTED].tolist() == [-70, 20]
    assert "author" in first["crops"] and first["pixels"] == "as given"
    text = (tmp_path / "benchmark.txt").read_text()
    assert "annotation original, 68 points in 2D" in text and "alignment: none" in text and "6.250" in text


def test_bins_of_3ddfa_have_their_upper_end() -> None:
    table = evaluation.by_yaw_3ddfa(np.arange(6.0), [30, -30.1, 60, -60.1, 90, 120])
    assert [row.count for row in table.values()] == [1, 2, 3]
    means = evaluation.spread_of_bins(table)
    assert (means.mean, means.count) == ((0 + 1.5 + 4) / 3, 3) and means.mean == evaluation.mean_of_bins(table)


def test_points_that_are_not_given_do_not_count() -> None:
    given = np.zeros((2, 4, 2))
    given[:, 1] = [10, 40]
    given[:, 3] = np.nan
    predicted = np.nan_to_num(given) + [0, 1]
    predicted[1, 0] += [0, 5]
    np.testing.assert_allclose(evaluation.nme(predicted, given), [1 / 20, 8 / 3 / 20])
    np.testing.assert_allclose(evaluation.nme(predicted, given, [2, 4]), [1 / 2, 8 / 3 / 4])


def test_answers_are_placed_where_the_crop_was_cut() -> None:
    """A dot in a picture, cut with a box as Matlab counts, is found again; 3DDFA's way back is over a pixel off."""
    picture = np.zeros((300, 320, 3), np.float32)
    dot = np.array([171.0, 140.0])
    x, y = np.meshgrid(np.arange(320), np.arange(300))
    picture[:] = 255 * np.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / 72)[..., None]
    first, last = 31, 270  # columns and rows of the picture, from 1, the last one included: 240 pixels
    crop = cv2.resize(picture[first - 1 : last, first - 1 : last], (120, 120), interpolation=cv2.INTER_AREA)[..., 0]
    v, u = np.indices(crop.shape)
    seen = np.array([[[(crop * u).sum(), (crop * v).sum()]]]) / crop.sum()
    square = np.array([[first, first, last, last]], float)
    np.testing.assert_allclose(place(seen, square, 1, compat=False)[0, 0] - 1, dot, atol=0.02)
    matlab = seen + 1  # 3DDFA's networks answer in Matlab's pixels, and so do its files
    off = place(matlab, square, 1, compat=True)[0, 0] - 1 - dot
    assert (np.abs(off) > 0.5).all() and (np.abs(off) < 1.5).all()


def test_boxes_that_were_cut_at_the_edges_are_made_whole_again(originals: Path) -> None:
    faces = read_aflw2000(originals)
    points = faces.annotations[0].points
    assert faces.squares is not None and faces.uncut is not None
    whole = np.array([_reference_square(of_face.T) for of_face in points], float)
    cut = (faces.squares != whole).sum(axis=1)
    assert cut.tolist() == [1, 2, 2, 4, 0, 0, 0, 0, 0]  # sides
    np.testing.assert_array_equal(faces.uncut, whole)
    # Perfect answers in the crops, of pixels from 0, are perfect in the pictures, and drawn where they were.
    scale = (whole[:, 2:] - whole[:, :2] + 1)[:, None] / 120
    in_crops = (points[..., :2] - whole[:, None, :2] + 0.5) / scale - 0.5
    errors = evaluation.nme(place(in_crops, faces.uncut, 1, compat=False), points)
    np.testing.assert_allclose(errors, 0, atol=1e-9)
    assert evaluation.nme(place(in_crops, faces.squares, 1, compat=False), points)[:4].min() > 0.02
    drawn = points_in_crops(faces, GIVEN, np.tile([0.0, 0, 120, 120], (COUNT, 1)), [3, 0, 7])
    np.testing.assert_allclose(drawn, in_crops[[3, 0, 7]], atol=1e-6)
    assert not np.allclose(in_crops[0], in_crops[3], atol=1)


def test_boxes_that_were_made_from_other_points_stay() -> None:
    points = np.random.default_rng(6).uniform(100, 300, (3, 68, 2))
    points[:, 0], points[:, 1] = 100, 300  # 200 wide: a square of 283 from 59
    boxes_ = np.array([[59, 59, 342, 342], [40, 59, 342, 342], [100, 100, 300, 300]], float)
    np.testing.assert_array_equal(uncut_squares(boxes_, points), boxes_)


@pytest.fixture(scope="module")
def with_poses(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """The same with the whole pictures and their .mat files, and the poses in these: pitch, yaw, roll in degrees."""
    from scipy.io import savemat

    root = tmp_path_factory.mktemp("with_poses")
    for part in ("test.data", "test.configs"):
        (root / part).symlink_to(originals / part)
    (root / "AFLW2000").mkdir()
    poses = np.random.default_rng(5).uniform(-80, 80, (COUNT, 3))
    poses[1, 2], poses[4, 0] = 99.5, -120  # beyond what is measured
    for number, pose in enumerate(poses):
        stem = root / "AFLW2000" / f"image{number + 2:05}"
        cv2.imwrite(f"{stem}.jpg", np.full((SIDE, SIDE, 3), 90, np.uint8))
        row = np.array([[*np.radians(pose), 100, 100, 0, 1e-3]], np.float32)
        savemat(f"{stem}.mat", {"Pose_Para": row, "pt3d_68": np.zeros((3, 68))})
    return root, poses


def test_a_model_on_given_crops(
    with_poses: tuple[Path, np.ndarray], small_model: Path, small_face: FaceModel, tmp_path: Path
) -> None:
    """The small model answers one frontal face, so that its points and its errors of the pose are known."""
    root, poses = with_poses
    with np.load(small_model / "whitening.npz") as whitening:
        mean = whitening["mean"].astype(float)
    camera = mean[:12].reshape(3, 4)
    points = camera[:, :3] @ read_face_model(small_model / "face_model.npz").mean[small_face.landmarks].T
    points += camera[:, 3:]
    reference = points * [[1], [-1], [1]] + [[0], [121], [0]]  # 3DDFA's reconstruct_vertex
    given = np.load(root / "test.configs" / "AFLW2000-3D.pts68.npy").astype(float)
    squares = np.load(root / "test.configs" / "AFLW2000-3D_crop.roi_box.npy").astype(float)

    run = ("aflw2000", "--data", root, "--model", small_model, "--device", "cpu")
    assert _run(*run, "--compat", "--out", tmp_path / "compat") == 0
    table = _results(tmp_path / "compat")["errors"][0]
    errors = [_reference_68(reference, square, of_face) for square, of_face in zip(squares, given, strict=True)]
    _check(table, errors, YAWS)
    assert table["pixels"].startswith("3DDFA's") and table["crops"].startswith("given")

    assert _run(*run, "--out", tmp_path / "ours") == 0
    results = _results(tmp_path / "ours")
    # Ours lie where the crop was, beyond the picture's edges too: centres from 0 in the crop to centres from 1 in the
    # picture.
    shown = np.stack([points[0] - 1, 120 - points[1]])
    errors = []
    for of_face in given:
        left, top, right, _ = _reference_square(of_face)
        moved = (shown + 0.5) * ((right - left + 1) / 120) + [[left], [top]] - 0.5
        errors.append(float(np.hypot(*(moved - of_face[:2])).mean() / _box_size(of_face)))
    _check(results["errors"][0], errors, YAWS)
    for name in ("errors.png", "worst.png", "some.png"):
        assert cv2.imread(str(tmp_path / "ours" / name)) is not None, name

    within = (np.abs(poses) <= 99).all(axis=1)
    assert within.sum() == COUNT - 2
    theirs, ours = results["poses"]
    assert (theirs["faces"], theirs["beyond"], theirs["missing"]) == (COUNT - 2, 2, 0)
    expected = np.abs(poses[within]).mean(axis=0)
    np.testing.assert_allclose([theirs["pitch"], theirs["yaw"], theirs["roll"]], expected, rtol=1e-4)
    np.testing.assert_allclose(theirs["mean"], expected.mean(), rtol=1e-4)
    assert "Pose_Para" in theirs["convention"] and "ours" in ours["convention"]


def test_poses_of_the_mat_files_are_the_matlab_code_s() -> None:
    """R = Rx Ry Rz, each written out; the head's angles in our convention have the opposite signs."""
    for pitch, yaw, roll in ((0.3, -0.7, 0.5), (-0.9, 1.2, -1.0), (0.0, 0.0, 0.4)):
        c, s = math.cos, math.sin
        x = np.array([[1, 0, 0], [0, c(pitch), s(pitch)], [0, -s(pitch), c(pitch)]])
        y = np.array([[c(yaw), 0, -s(yaw)], [0, 1, 0], [s(yaw), 0, c(yaw)]])
        z = np.array([[c(roll), s(roll), 0], [-s(roll), c(roll), 0], [0, 0, 1]])
        (rotation,) = scoring.rotations_of_poses([[pitch, yaw, roll]])
        np.testing.assert_allclose(rotation, x @ y @ z, atol=1e-12)
        np.testing.assert_allclose(scoring.poses_of_rotations(rotation), [[pitch, yaw, roll]], atol=1e-12)
    alone = np.diag([0.2, 0.4, -0.6])  # pitch, yaw, roll: one axis each
    nodded, turned, tilted = scoring.rotations_of_poses(alone)
    np.testing.assert_allclose(
        scoring.our_angles([nodded, turned, tilted]), [[0, -0.2, 0], [-0.4, 0, 0], [0, 0, 0.6]], atol=1e-12
    )
    # Columns are the head's axes, x right, y up: the nose (z) goes up, to the left; the scalp (y) to the left.
    assert nodded[1, 2] > 0 and turned[0, 2] < 0 and tilted[0, 1] < 0


def test_parameters_that_were_made_from_a_pose_have_that_pose(with_poses: tuple[Path, np.ndarray]) -> None:
    """A network's camera is a scale, the rotation of ``Pose_Para`` and a place: turned heads measure no error."""
    root, poses = with_poses
    cameras = np.zeros((COUNT, 3, 4))
    cameras[..., :3] = 1e-3 * scoring.rotations_of_poses(np.radians(poses))
    cameras[..., 3] = [60, 70, -50]
    parameters = np.hstack([cameras.reshape(COUNT, 12), np.ones((COUNT, 50))]).astype(np.float32)
    answers = scoring.Answers(np.zeros((COUNT, 68, 3)), rotations_of(parameters))
    for table in scoring.score_poses(read_aflw2000(root), answers, "made", "none"):
        assert table.faces == COUNT - 2
        np.testing.assert_allclose([table.yaw, table.pitch, table.roll], 0, atol=2e-3)


def test_given_rotations_are_measured_too(with_poses: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    root, poses = with_poses
    off = poses.copy()
    off[:, 1] += np.where(np.abs(poses[:, 1]) < 70, 3, 0)
    rotations = scoring.rotations_of_poses(np.radians(off))
    np.savez(tmp_path / "p.npz", crop_landmarks=np.zeros((COUNT, 2, 68)), rotations=rotations)
    assert _run("aflw2000", "--data", root, "--predictions", tmp_path / "p.npz", "--out", tmp_path) == 0
    theirs, ours = _results(tmp_path)["poses"]
    measured = (np.abs(poses) <= 99).all(axis=1)
    share = (np.abs(poses[measured, 1]) < 70).mean()
    np.testing.assert_allclose([theirs[a] for a in ("pitch", "yaw", "roll")], [0, 3 * share, 0], atol=1e-3)
    assert 0 < ours["mean"]  # another order of turns: another error


def test_whole_pictures_instead_of_crops(
    with_poses: tuple[Path, np.ndarray], originals: Path, small_model: Path, tmp_path: Path
) -> None:
    root, _ = with_poses
    faces = read_aflw2000(root)
    model = open_model(small_model, device="cpu", threads=1)
    answers = answer(model, faces, "boxes")
    assert answers.squares is not None
    for number, points in enumerate(faces.annotations[0].points):
        np.testing.assert_allclose(answers.squares[number], boxes.square_from_landmarks(points[:, :2] - 1), atol=1e-3)
    run = ("aflw2000", "--model", small_model, "--crops", "boxes", "--device", "cpu")
    assert _run(*run, "--data", root, "--out", tmp_path) == 0
    assert all("around the given points" in table["crops"] for table in _results(tmp_path)["errors"])
    with pytest.raises(ValueError, match="whole pictures are not there"):
        answer(model, read_aflw2000(originals), "boxes")


@pytest.fixture(scope="module")
def portraits(astronaut: np.ndarray, builtin: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three portraits with .pts files: their points are what the built-in model answers in squares around them."""
    folder = tmp_path_factory.mktemp("portraits")
    (face,) = Pipeline(builtin)(astronaut, [(181, 79, 273, 171)])
    for _ in range(5):  # until the square around the answer is the one that it was answered for
        (face,) = Pipeline(builtin).regress(astronaut, [boxes.square_from_landmarks(face.landmarks)])
    for name in ("a", "b", "blank"):
        picture = np.full_like(astronaut, 90) if name == "blank" else astronaut
        assert cv2.imwrite(str(folder / f"{name}.png"), picture)
        rows = "\n".join(f"{x:.4f} {y:.4f}" for x, y in face.landmarks[:, :2] + 1)  # Matlab's pixels
        (folder / f"{name}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    return folder


def test_answers_count_pixels_as_the_annotations_do(portraits: Path, builtin: Model) -> None:
    """Of files that count from 1, points and answers are one higher; the squares, of pictures, are the same."""
    from_1 = read_folder(portraits)
    (annotation,) = from_1.annotations
    assert from_1.origin == 1, "as .pts files do"
    from_0 = replace(from_1, origin=0, annotations=(replace(annotation, points=annotation.points - 1),))
    low, high = (answer(builtin, faces, BOXES) for faces in (from_0, from_1))
    assert low.squares is not None and high.squares is not None
    np.testing.assert_allclose(high.squares, low.squares, atol=1e-3)
    np.testing.assert_allclose(high.landmarks[..., :2], low.landmarks[..., :2] + 1, atol=0.02)
    np.testing.assert_allclose(high.landmarks[..., 2], low.landmarks[..., 2], atol=0.02)


@pytest.mark.parametrize("origin", [0, 1])
def test_a_sheet_shows_the_given_points_where_they_are(
    portraits: Path, astronaut: np.ndarray, builtin: Model, origin: int
) -> None:
    """A white dot at each; so has the answer, which is theirs."""
    faces = read_folder(portraits)
    (annotation,) = faces.annotations
    points = annotation.points - faces.origin
    left, top, right, _ = square = boxes.square_from_landmarks(points[0])
    faces = replace(faces, origin=origin, annotations=(replace(annotation, points=points + origin),))
    shown = sheet(faces, answer(builtin, faces, BOXES), builtin, BOXES, [0, 1])
    pixels = np.rint((points[0] + 0.5 - [left, top]) * 240 / (right - left) - 0.5).astype(int)
    bare = np.kron(boxes.crop(astronaut, square), np.ones((2, 2, 1), np.uint8))
    white, *halves = ((half[pixels[:, 1], pixels[:, 0]] > 180).all(axis=1).mean() for half in (bare, *_halves(shown)))
    assert white < 0.25 and min(halves) > 0.9  # teeth are white, too


def _halves(shown: np.ndarray) -> list[np.ndarray]:
    """Given and answer of the first two faces of a sheet."""
    return np.split(shown[:, :960], 4, axis=1)


def test_missing_faces_keep_the_curve_below_all() -> None:
    errors, share = plots.cumulative(np.array([3.0, np.nan, 1.0, np.nan]))
    assert errors.tolist() == [1, 3] and share.tolist() == [0.25, 0.5]


def test_pictures_with_pts_files(portraits: Path, tmp_path: Path) -> None:
    assert _run("photographs", "--data", portraits, "--out", tmp_path, "--device", "cpu") == 0
    (table,) = _results(tmp_path)["errors"]
    assert table["annotation"] == ".pts files" and table["of_faces"]["count"] == 3
    errors = table["of_faces"]["median"]
    assert errors < 1  # the same face again, where the first one was seen


def test_predictions_that_are_the_numbers_of_pts_files_are_perfect(portraits: Path, tmp_path: Path) -> None:
    lines = [(portraits / f"{name}.pts").read_text().splitlines()[3:-1] for name in ("a", "b", "blank")]
    np.savez(tmp_path / "p.npz", landmarks=np.array([[line.split() for line in of_face] for of_face in lines], float))
    run = ("photographs", "--data", portraits, "--predictions", tmp_path / "p.npz")
    assert _run(*run, "--out", tmp_path) == 0
    (table,) = _results(tmp_path)["errors"]
    assert table["of_faces"]["count"] == 3 and table["of_faces"]["mean"] == 0


def test_faces_that_the_detector_does_not_find_are_missing(portraits: Path, tmp_path: Path) -> None:
    run = ("photographs", "--data", portraits, "--crops", "detector", "--device", "cpu")
    assert _run(*run, "--out", tmp_path) == 0
    (table,) = _results(tmp_path)["errors"]
    assert table["missing"] == 1 and table["of_faces"]["count"] == 2 and "detector" in table["crops"]
    assert "1 faces missing" in (tmp_path / "benchmark.txt").read_text()


def test_labels_and_pts_files_say_the_same(portraits: Path, tmp_path: Path) -> None:
    names = ["a.png", "b.png", "blank.png"]
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / name).write_bytes((portraits / name).read_bytes())
    points = np.stack([read_pts(portraits / name.replace("png", "pts")) for name in names]) - 1
    np.savez(tmp_path / "labels.npz", names=np.array(names), landmarks=points)
    labels, files = read_folder(tmp_path), read_folder(portraits)
    with pytest.raises(ValueError, match="no split val without labels"):
        read_folder(portraits, "val")
    np.testing.assert_allclose(labels.annotations[0].points, files.annotations[0].points - 1)
    np.testing.assert_allclose(labels.yaws["yaw of a fit"], files.yaws["yaw of a fit"], atol=1e-6)
    assert [p.name for p in labels.pictures] == [p.name for p in files.pictures] == names


def test_depth_of_predictions_counts_away_from_the_viewer(originals: Path, tmp_path: Path) -> None:
    """As in `Face`, where AFLW2000-3D's files count towards the viewer: the true points turned over have no error."""
    faces = read_aflw2000(originals)
    true = faces.annotations[0].points
    np.savez(tmp_path / "p.npz", landmarks=true * [1, 1, -1])
    answers, in_crops = read_predictions(tmp_path / "p.npz", faces)
    assert not in_crops
    tables = scoring.score(faces, answers, "file", "", "")
    assert [t.of_faces.mean for t in tables if t.annotation == "original"] == pytest.approx([0] * 4, abs=1e-9)


@pytest.mark.parametrize(
    ("broken", "wrong"),
    [
        (("test.configs", None), "test.configs is missing"),
        (("test.configs/AFLW2000-3D.pose.npy", np.zeros(5)), "not numbers (9,)"),
        (("test.configs/AFLW2000-3D.pose.npy", "no numbers"), "AFLW2000-3D.pose.npy"),
        (("test.configs/AFLW2000-3D.pts68.npy", np.zeros((9, 68, 3))), "not numbers (9, 3, 68)"),
        (("test.configs/AFLW2000-3D-Reannotated.pts68.npy", np.full((9, 2, 68), np.nan)), "not finite"),
        (("test.configs/AFLW2000-3D-Reannotated.pts68.npy", np.zeros((9, 4, 68))), "(9, 2, 68) or (9, 3, 68)"),
        (("test.data/AFLW2000-3D_crop/image00004.jpg", b"none"), "image00004.jpg"),
        (("test.data/AFLW2000-3D_crop/image00003.jpg", None), "image00003.jpg"),
        (("test.data/AFLW2000-3D_crop/image00005.jpg", 64), "64 x 64"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    originals: Path,
    small_model: Path,
    tmp_path: Path,
    broken: tuple[str, Any],
    wrong: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import shutil

    root = tmp_path / "data"
    shutil.copytree(originals, root)
    path, content = root / broken[0], broken[1]
    if content is None:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    elif isinstance(content, int):
        cv2.imwrite(str(path), np.zeros((content, content, 3), np.uint8))
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    run = ("aflw2000", "--data", root, "--model", small_model, "--device", "cpu", "--out", tmp_path / "out")
    assert _run(*run) == 1
    error = capsys.readouterr().err
    assert wrong in error and error.count("\n") == 1 and error.startswith("radan-benchmark: ")


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ({"points": np.zeros((COUNT, 68, 2))}, "neither landmarks nor crop_landmarks"),
        ({"landmarks": np.zeros((3, 68, 2))}, "not numbers (9, 68, 2)"),
        ({"landmarks": np.zeros((COUNT, 68, 2)), "names": np.array(["x.jpg"] * COUNT)}, "names"),
        ({"crop_landmarks": np.zeros((COUNT, 2, 68)), "rotations": np.zeros((COUNT, 3))}, "rotations"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    originals: Path, tmp_path: Path, content: dict[str, Any], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "p.npz", **content)
    assert _run("aflw2000", "--data", originals, "--predictions", tmp_path / "p.npz", "--out", tmp_path) == 1
    error = capsys.readouterr().err
    assert wrong in error and "p.npz" in error and error.count("\n") == 1


def test_a_disk_that_is_full_is_one_line(
    originals: Path, predicted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    assert _run("aflw", "--data", originals, "--predictions", predicted, "--out", tmp_path / "out") == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("out of luck\nat all"), MemoryError(), cv2.error("too large")])
def test_errors_of_libraries_are_one_line(
    portraits: Path,
    tmp_path: Path,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(benchmark, "answer", fail)
    monkeypatch.setattr(evaluate, "open_models", fail)
    said = (" ".join(str(error).split()) or "MemoryError") + "\n"
    assert _run("photographs", "--data", portraits, "--out", tmp_path, "--device", "cpu") == 1
    assert capsys.readouterr().err.endswith(f"radan-benchmark: {said}")
    assert evaluate.main(["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"radan-evaluate: {said}"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--speed", "aflw"),
        ("aflw2000",),
        ("aflw", "--data", ".", "--predictions", "x", "--model", "y"),
        ("aflw", "--data", ".", "--split", "val"),
        ("aflw2000", "--data", ".", "--split", "val"),
        ("photographs", "--data", ".", "--split", "val"),  # no labels.npz
        ("--speed", "--split", "val"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(list(arguments))
    assert stopped.value.code == 2


def test_jobs_take_turns_and_each_round_counts() -> None:
    calls = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4  # once to warm up
    assert all(of_job.shape == (3,) and (of_job >= 0).all() for of_job in times.values())
    assert Range.of([3.0, 1.0, 2.0, 9.0]) == Range(1.0, 2.5, 9.0)


def test_plain_stages_answer_as_ours(builtin: Model, astronaut: np.ndarray) -> None:
    """What is timed against each other does the same work."""
    pytest.importorskip("torch")
    pipeline = Pipeline(builtin, compat=True)
    square = boxes.square_from_detection([181, 79, 273, 171])
    (face,) = pipeline.regress(astronaut, [square])
    crops = speed.varied_crops(astronaut, square, 3)
    assert builtin.network_file is not None
    spec, state = network_state(load_checkpoint(builtin.network_file))
    answers = plain.network(spec, state, "cpu")(crops)[:, :62]
    np.testing.assert_allclose(answers, builtin.network(crops), atol=2e-3)
    np.testing.assert_allclose(plain.place(face.parameters, square), face.camera, rtol=1e-4, atol=1e-3)
    (mesh,) = plain.reconstruction(builtin.face_model)([face.camera], [face.coefficients])
    np.testing.assert_allclose(mesh, pipeline.vertices([face])[0], atol=2e-2)
    size = astronaut.shape[:2]
    face_model = builtin.face_model
    depth, colour = plain.depth_and_codes([mesh], face_model.triangles, face_model.codes, size)
    ours = Renderer(face_model.triangles, face_model.codes).render([mesh], size)
    inside = np.isfinite(ours.depth)
    assert inside.sum() > 5000 and (colour.any(axis=2) == inside).mean() > 0.999
    np.testing.assert_allclose(depth[inside][:, 0], ours.depth[inside], atol=0.1)
    assert np.mean(np.abs(colour[inside] - ours.colour[inside]) < 1.5) > 0.99


def test_speed_is_measured_beside_plain_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    for name, value in (("BATCHES", (1, 2)), ("HEIGHTS", (120,)), ("SEEDED", speed.SEEDED[1:]), ("_PAUSE", 0)):
        monkeypatch.setattr(speed, name, value)
    assert _run("--speed", "--quick", "--devices", "cpu", "--threads", "1", "--out", tmp_path) == 0
    content = json.loads((tmp_path / "speed.json").read_text())
    stages = [row["stage"] for row in content["rows"]]
    assert list(dict.fromkeys(stages)) == ["detector", "network", "reconstruction", "rendering", "pipeline"]
    for row in content["rows"]:
        for what in ("ours", "plain", "ratio"):
            assert 0 < row[what]["least"] <= row[what]["median"] <= row[what]["most"]
    assert {row["name"] for row in content["rows"] if row["stage"] == "network"} >= {"mobilenet_v1 x1 (seeded)"}
    assert cv2.imread(str(tmp_path / "speed.png")) is not None
    printed = capsys.readouterr().out
    assert "| pipeline |" in printed and printed == (tmp_path / "speed.txt").read_text() + f"written to {tmp_path}\n"


def test_speed_without_a_face_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((240, 320, 3), 90, np.uint8))
    assert _run("--speed", "--quick", "--data", tmp_path, "--devices", "cpu", "--out", tmp_path) == 1
    assert "no face was found" in capsys.readouterr().err


def test_figures_on_real_photographs(shared: Path, model_folder_v2: Path, tmp_path: Path) -> None:
    """3DDFA_V2's MobileNet is 3.8 % off at the median of tight boxes."""
    run = ("ytf68", "--data", shared / "datasets", "--model", model_folder_v2, "--device", "cpu")
    assert _run(*run, "--out", tmp_path) == 0
    (table,) = _results(tmp_path)["errors"]
    assert table["of_faces"]["count"] == 342 and 3.7 < table["of_faces"]["median"] < 4.2
    low, middle, high = table["bins"]
    assert 3.7 < low["mean"] < 4.3 < middle["mean"] < 5.5 and high["count"] == 0 and high["mean"] is None


def test_detections_of_the_astronaut_are_taken_by_overlap(portraits: Path, builtin: Model) -> None:
    """A surer detection elsewhere is not the face that was labelled."""

    class Elsewhere:
        name = "elsewhere"

        def __call__(self, image: np.ndarray) -> list[Detection]:
            return [Detection(np.array([300, 300, 400, 400], np.float32), 9.0)] + (
                [Detection(np.array([181, 79, 273, 171], np.float32), 1.0)] if image.std() > 5 else []
            )

    answers = answer(builtin, read_folder(portraits), "detector", detector=Elsewhere())
    assert answers.found.tolist() == [True, True, False] and answers.squares is not None
    square = boxes.square_from_detection([181, 79, 273, 171])
    np.testing.assert_allclose(answers.squares[:2], [square] * 2, atol=1e-3)
