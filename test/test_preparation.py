"""Preparation of training samples: labels that fit the crops exactly, what is believed, and who gets in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from radan_ros import boxes
from radan_ros.face_models import FaceModel, read_3ddfa, write_face_model
from radan_ros.fitting import contour_share, fit_landmarks
from radan_ros.model import read_whitening
from radan_ros.pipeline import Pipeline, cameras_in_crop, transform
from radan_ros.pose import HEAD_IN_MODEL, decompose_camera, euler_from_rotation, head_rotation, rotation_from_euler
from radan_ros.rendering import render
from radan_ros.tools import prepare
from radan_ros.training.preparation import (
    Labels,
    common_offset,
    label_pictures,
    parameters_of,
    prepare_samples,
    read_labelled_pictures,
)
from radan_ros.training.samples import MARGIN, Samples, read_samples

SIZE = 200


def camera(yaw: float) -> np.ndarray:
    linear = 0.5 * rotation_from_euler(np.deg2rad(yaw), 0.1, -0.05) @ HEAD_IN_MODEL.T
    return np.column_stack([linear, [100, 95, 30]]).astype(np.float32)


def yaws(samples: Samples) -> np.ndarray:
    heads = [head_rotation(decompose_camera(c).rotation) for c in cameras_in_crop(samples.parameters)]
    return np.rad2deg([euler_from_rotation(h)[0] for h in heads])


def projected(samples: Samples, face_model: FaceModel) -> np.ndarray:
    shapes = face_model.landmark_points(samples.parameters[:, 12:])
    return transform(cameras_in_crop(samples.parameters), shapes)[..., :2]


@pytest.fixture(scope="module")
def head(small_face: FaceModel) -> FaceModel:
    """The half ellipsoid with its landmarks spread, and its jaw on its rim: as on a face, the outermost points."""
    landmarks = small_face.landmarks.copy()
    landmarks[:17] = np.concatenate([25 * np.arange(15, 31, 2), [30 * 25 + 12], 25 * np.arange(30, 14, -2) + 24])
    return replace(small_face, landmarks=landmarks)


@pytest.fixture(scope="module")
def folder(head: FaceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of six exact heads, turned by 0 to 50 degrees, and one whose marks are nonsense."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "images").mkdir()
    random = np.random.default_rng(5)
    cameras = np.stack([camera(y) for y in (0, -10, 20, -30, 40, 50, 0)])
    coefficients = random.normal(size=(7, 50)).astype(np.float32)
    marked = transform(cameras, head.landmark_points(coefficients))[..., :2]
    meshes = transform(cameras, head.vertices(coefficients))
    for i, mesh in enumerate(meshes):
        drawn = render([mesh], head.triangles, head.codes, (SIZE, SIZE))
        cv2.imwrite(str(root / "images" / f"{i}.png"), drawn.colour)
    marked[6] = random.uniform(20, 180, (68, 2))
    names = np.array([f"{i}.png" for i in range(7)])
    split = np.array(["train"] * 4 + ["val"] * 2 + ["train"])
    np.savez(root / "labels.npz", names=names, landmarks=marked, split=split)
    return root


@pytest.fixture(scope="module")
def prepared(folder: Path, head: FaceModel) -> tuple[Labels, Samples]:
    pictures = read_labelled_pictures(folder, "train")
    labels = label_pictures(pictures, head)
    return labels, prepare_samples(pictures, labels, head, copies=3, seed=4)


def test_parameters_are_those_that_the_pipeline_undoes(head):
    """Camera in the image -> parameters -> the pipeline's own way back: the same landmarks in the image."""
    cameras, roi = np.stack([camera(20), camera(-70)]), np.array([[31.5, 20, 151.5, 140], [-20, 5, 160, 185]])
    coefficients = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    parameters = parameters_of(cameras, coefficients, roi)
    back = np.stack([Pipeline._camera(Pipeline(None), p, r) for p, r in zip(parameters, roi, strict=True)])
    points = head.landmark_points(coefficients)
    there, again = transform(cameras, points), transform(back, points)
    np.testing.assert_allclose(again[..., :2], there[..., :2], atol=1e-3)
    # Depth from the model's origin.
    np.testing.assert_allclose(again[..., 2], there[..., 2] - cameras[:, 2, 3:], atol=1e-3)
    np.testing.assert_array_equal(parameters[:, 11], 0)


def test_landmarks_and_parameters_of_samples_agree(prepared, head):
    _, samples = prepared
    near = projected(samples, head) - samples.landmarks
    jaw = np.abs(near)[:, :17].max()
    assert np.abs(near)[:, 17:].mean() < 0.3 and jaw < 8  # pixels of the crop: exact but for the priors of the fit


def test_crops_are_canonical_and_show_what_the_labels_say(prepared, head):
    _, samples = prepared
    for points in samples.landmarks:
        np.testing.assert_allclose(boxes.square_from_landmarks(points), [0, 0, 120, 120], atol=1e-3)
    # The drawn head, on black, lies where its mesh is projected to.
    meshes = transform(cameras_in_crop(samples.parameters), head.vertices(samples.parameters[:, 12:]))
    meshes[..., :2] += MARGIN
    for crop, mesh, name in zip(samples.crops, meshes, samples.names, strict=True):
        there = np.isfinite(render([mesh], head.triangles, head.codes, crop.shape[:2]).depth)
        seen = crop.max(axis=2) > 0
        common = (there & seen).sum() / there.sum()
        assert common > 0.95, name


def test_nonsense_is_left_out_and_the_rest_is_believed(prepared):
    labels, samples = prepared
    np.testing.assert_array_equal(labels.parameter_weights, [1, 1, 1, 1, 0])
    assert labels.landmark_weights[4].max() == 0 and labels.errors[4] > 0.1
    assert [n for n in samples.names if n.startswith("6")] == []
    assert sorted(set(samples.names)) == sorted(samples.names) and len(samples) == 16


def test_copies_are_turned_further_to_their_own_side(prepared):
    _, samples = prepared
    turned = yaws(samples).reshape(4, 4)
    assert (np.abs(turned[:, 1:]) > np.abs(turned[:, :1]) + 4).all() and np.abs(turned).max() <= 91
    assert (np.sign(turned[1:]) == np.sign(turned[1:, :1])).all()
    # One copy in each third of what is left to 90 degrees.
    assert (np.diff(np.abs(turned[:, 1:]), axis=1) > 0).all() and (np.abs(turned[:, 3]) > 60).all()
    np.testing.assert_array_equal(samples.names[:4], ["0.png", "0.png#1", "0.png#2", "0.png#3"])


def test_far_jaw_is_the_fit_s_on_turned_faces_and_the_mark_on_frontal_ones(prepared, folder, head):
    labels, samples = prepared
    marked = np.load(folder / "labels.npz")["landmarks"][[0, 1, 2, 3]]
    fitted = transform(labels.fit.cameras, head.landmark_points(labels.fit.coefficients))[:4, :, :2]
    # The first face looks at the camera: all its marks stand.
    np.testing.assert_allclose(labels.landmarks[0], marked[0], atol=0.2)
    moved = np.linalg.norm(labels.landmarks[:4] - marked, axis=2)
    assert np.abs(labels.landmarks[:4, 17:] - marked[:, 17:]).max() < 1e-6
    # Turned by 30 degrees to the subject's right: the far side is the right one, 0 to 7.
    assert moved[3, 8:].max() < 1e-6
    share = contour_share(labels.fit.cameras)[3, :8, None]
    assert share.max() < 0.3
    np.testing.assert_allclose(labels.landmarks[3, :8], share * marked[3, :8] + (1 - share) * fitted[3, :8], atol=1e-3)
    plain, turned = samples.landmark_weights[12], samples.landmark_weights[15]
    assert (turned[:8] < plain[:8]).all() and (turned[8:] == 1).all()
    np.testing.assert_allclose(turned[:8], 0.5, atol=1e-3)


def test_the_same_seed_gives_the_same_samples_with_any_workers(prepared, folder, head):
    labels, samples = prepared
    pictures = read_labelled_pictures(folder, "train")
    again = prepare_samples(pictures, labels, head, copies=3, seed=4, workers=2)
    other = prepare_samples(pictures, labels, head, copies=3, seed=5)
    for name in ("crops", "parameters", "landmarks", "landmark_weights", "parameter_weights", "names"):
        np.testing.assert_array_equal(getattr(again, name), getattr(samples, name))
    assert not np.array_equal(other.parameters, samples.parameters)


def test_a_split_must_be_named_where_there_are_some(folder):
    with pytest.raises(ValueError, match="name one of its splits: train, val"):
        read_labelled_pictures(folder)
    with pytest.raises(ValueError, match="has no split test"):
        read_labelled_pictures(folder, "test")
    np.testing.assert_array_equal(read_labelled_pictures(folder, "val").names, ["4.png", "5.png"])


def test_other_labels_keep_the_folder_s_splits(folder, tmp_path):
    """A model's own labels of all pictures: the people of the validation set stay out."""
    with np.load(folder / "labels.npz") as file:
        points = file["landmarks"]
    names = np.array(["4.png", "2.png", "unknown.png", "0.png"])
    np.savez(tmp_path / "own.npz", names=names, landmarks=points[:4])
    with pytest.raises(ValueError, match="own.npz: name one of its splits: train, val"):
        read_labelled_pictures(folder, labels=tmp_path / "own.npz")
    np.testing.assert_array_equal(
        read_labelled_pictures(folder, "train", tmp_path / "own.npz").names, ["2.png", "0.png"]
    )
    np.testing.assert_array_equal(read_labelled_pictures(folder, "val", tmp_path / "own.npz").names, ["4.png"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"split": np.array(["train"] * 3)}, "3 texts of split for 7 pictures"),
        ({"split": np.arange(7)}, "lacks split, a list of texts"),
        ({"names": np.arange(7)}, "lacks names, a list of texts"),
        ({"landmarks": np.zeros((7, 136))}, r"landmarks is float64 \(7, 136\)"),
        ({"landmarks68_2d": np.zeros((6, 68, 2))}, r"landmarks68_2d is float64 \(6, 68, 2\)"),
        ({"teacher_spread": np.array(["a"] * 7)}, "teacher_spread is <U1"),
    ],
)
def test_labels_that_do_not_fit_are_named(folder, tmp_path, damage, message):
    with np.load(folder / "labels.npz") as file:
        np.savez(tmp_path / "labels.npz", **({name: file[name] for name in file} | damage))
    with pytest.raises(ValueError, match=f"labels.npz: .*{message}"):
        read_labelled_pictures(tmp_path, "train")


def test_a_file_that_holds_no_labels_is_named_without_advice_on_pickles(folder, tmp_path):
    (tmp_path / "garbage.jpg").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"garbage\.jpg: not a \.npz file of labels$"):
        read_labelled_pictures(folder, labels=tmp_path / "garbage.jpg")


def test_marks_count_where_the_teacher_knows_nothing(head, tmp_path):
    """NaN is what is not known: of single points, of the teacher's whole face, of its spread."""
    cameras = np.stack([camera(0)] * 4)
    points = transform(cameras, head.landmark_points(np.zeros((4, 50)))).astype(np.float64)
    teacher, spread = points * [1, 1, -1], np.array([0.004, np.nan, 0.004, 0.004])
    teacher[1] = np.nan
    teacher[2, [30, 60]] = np.nan
    marked = points[..., :2] + 0.5
    marked[3, 20] = np.nan
    names = np.array(list("abcd"))
    np.savez(tmp_path / "labels.npz", names=names, landmarks68_2d=marked, teacher_landmarks68_3d=teacher)
    labels = label_pictures(read_labelled_pictures(tmp_path), head)
    assert labels.parameter_weights.min() == 1 and np.isfinite(labels.landmarks).all()
    np.testing.assert_allclose(labels.landmarks[:3], points[:3, :, :2], atol=0.3)  # levelled
    np.savez(tmp_path / "labels.npz", names=names, teacher_landmarks68_3d=teacher, teacher_spread=spread)
    labels = label_pictures(read_labelled_pictures(tmp_path), head)
    np.testing.assert_array_equal(labels.parameter_weights, [1, 0, 1, 1])
    assert np.isfinite(labels.landmark_weights).all()


def test_samples_that_training_could_not_bear_are_refused(prepared):
    samples = prepared[1].take(slice(0, 2))
    gap = samples.landmarks.copy()
    gap[1, 5] = np.nan
    for change, message in (
        ({"landmarks": gap}, "landmarks is not finite, of sample 1"),
        ({"landmark_weights": -samples.landmark_weights}, "landmark_weights is negative, of sample 0"),
        ({"crops": samples.crops.astype(np.float32)}, "crops is float32"),
        ({"parameters": samples.parameters[:1]}, r"parameters is float32 \(1, 62\)"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(samples, **change)


def test_a_teacher_s_points_count_as_its_spread_says(folder, head, tmp_path):
    cameras = np.stack([camera(0)] * 3)
    points = transform(cameras, head.landmark_points(np.zeros((3, 50))))
    towards_viewer = points * [1, 1, -1]
    spread = np.array([0.005, 0.009, 0.02])
    np.savez(
        tmp_path / "labels.npz", names=np.array(["a", "b", "c"]), teacher_landmarks68_3d=towards_viewer,
        teacher_spread=spread,
    )  # fmt: skip
    labels = label_pictures(read_labelled_pictures(tmp_path), head)
    np.testing.assert_allclose(labels.parameter_weights, [1, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(labels.landmark_weights[:, 20], [1, 0.5, 0], atol=1e-6)
    for fitted, true in zip(labels.fit.cameras, cameras, strict=True):
        np.testing.assert_allclose(
            decompose_camera(fitted).rotation, decompose_camera(true).rotation, atol=0.02
        )  # and not mirrored in depth


def test_the_program_writes_samples_and_says_what_it_left_out(folder, head, tmp_path, capsys):
    write_face_model(tmp_path / "face.npz", head)
    arguments = [str(folder), str(tmp_path / "out"), "--face-model", str(tmp_path / "face.npz"), "--seed", "1"]
    assert prepare.main([*arguments, "--split", "val", "--profiled-only", "--copies", "2"]) == 0
    samples = read_samples(tmp_path / "out")
    np.testing.assert_array_equal(samples.names, ["4.png#1", "4.png#2", "5.png#1", "5.png#2"])
    assert prepare.main([*arguments, "--split", "train", "--copies", "0"]) == 0
    said = capsys.readouterr()
    assert "1 left out" in said.out and "4 samples" in said.out
    assert prepare.main(arguments) == 1
    assert prepare.main([str(tmp_path), str(tmp_path / "out")]) == 1
    (tmp_path / "file").write_text("")
    arguments[1] = str(tmp_path / "file" / "out")
    assert prepare.main([*arguments, "--split", "train"]) == 1
    said = capsys.readouterr()
    assert "pictures fitted" not in said.out, "a place that cannot be written is named before the work"
    lines = said.err.splitlines()
    assert len(lines) == 3 and all(line.startswith("radan-prepare: ") for line in lines)


def test_a_picture_that_cannot_be_read_is_named(folder, head, tmp_path):
    pictures = replace(read_labelled_pictures(folder, "train"), folder=tmp_path)
    labels = label_pictures(pictures, head)
    with pytest.raises(ValueError, match=r"0\.png: not a picture"):
        prepare_samples(pictures, labels, head)


def test_labels_outside_of_their_picture_are_named(folder, head):
    pictures = read_labelled_pictures(folder, "train").take(slice(0, 1))
    assert pictures.marked is not None
    for wrong in (pictures.marked + 5000, pictures.marked / 100):
        elsewhere = replace(pictures, marked=wrong)
        with pytest.raises(ValueError, match=r"0\.png: the labels lie outside"):
            prepare_samples(elsewhere, label_pictures(elsewhere, head), head)


def test_real_faces_marked_and_taught(shared: Path, model_folder: Path):
    """ytf68: marks inside the face stand, the teacher gives depth, no person of val gets in."""
    deviations = read_whitening(model_folder / "train.configs" / "param_whitening.pkl").std[12:]
    model = read_3ddfa(model_folder)
    pictures = read_labelled_pictures(shared / "datasets" / "ytf68", "train")
    with np.load(shared / "datasets" / "ytf68" / "labels.npz") as file:
        people = dict(zip(file["names"], file["person"], strict=True))
        held_back = set(file["person"][file["split"] == "val"])
    assert not {people[n] for n in pictures.names} & held_back
    some = pictures.take(slice(0, 6))
    labels = label_pictures(some, model, deviations=deviations, levelled=0)
    assert some.marked is not None and some.teacher is not None
    np.testing.assert_array_equal(labels.landmarks[:, 17:], some.marked[:, 17:])
    taught = fit_landmarks(model, some.teacher, deviations=deviations)
    depth = [transform(f.cameras, model.landmark_points(f.coefficients))[..., 2] for f in (labels.fit, taught)]
    depth = [d - d.mean(axis=1, keepdims=True) for d in depth]
    size = np.sqrt(np.ptp(some.marked, axis=1).prod(axis=1))[:, None]
    assert (np.abs(depth[0] - depth[1]) / size).mean() < 0.03
    samples = prepare_samples(some, labels, model, copies=2)
    assert len(samples) == 18
    near = np.linalg.norm(projected(samples, model) - samples.landmarks, axis=2).mean()
    assert near < 2.5  # pixels of the crop: the marks' own noise


def test_the_offset_that_all_marked_points_share_is_found_and_a_few_wild_pictures_do_not_count() -> None:
    random = np.random.default_rng(3)
    teacher = random.uniform(0, 100, (40, 68, 3))
    size = np.sqrt(np.ptp(teacher[..., :2], axis=1).prod(axis=1))
    marked = teacher[..., :2] + np.array([0.02, -0.01]) * size[:, None, None]
    marked[:5] += random.normal(0, 50, (5, 1, 2))
    marked[:, :17] += 30  # another definition of the jaw
    marked[10, 40] = np.nan
    np.testing.assert_allclose(common_offset(marked, teacher), [0.02, -0.01], atol=1e-9)
    np.testing.assert_array_equal(common_offset(np.full_like(marked, np.nan), teacher), [0, 0])
