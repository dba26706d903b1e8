"""The confidence: its arithmetic, what the built-in model says of faces and of background, and its training."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ASTRONAUT_BOX

from radan_ros import Model, Pipeline, boxes, open_detector, open_model
from radan_ros.presence import confidence
from radan_ros.training.augmentation import turn_of
from radan_ros.training.samples import MARGIN, WIDE_SIZE, Samples, write_samples

pytest.importorskip("torch", reason="training needs torch")
from radan_ros.networks import load_checkpoint
from radan_ros.tools import presence as tool
from radan_ros.training import presence
from radan_ros.training.preparation import read_labelled_pictures


def camera(least: float) -> np.ndarray:
    """A camera whose smaller scale is so much of the larger one."""
    return np.array([[100.0, 0, 0, 60], [0, 100 * least, 0, 60], [0, 0, 100, 0]])


def test_logits_become_probabilities() -> None:
    sure = confidence(np.zeros((5, 3, 4)), np.array([-1e4, -np.log(3), 0, np.log(3), 1e4], np.float32))
    assert sure.dtype == np.float32
    np.testing.assert_allclose(sure, [0, 0.25, 0.5, 0.75, 1], atol=1e-6)


def test_without_logits_the_camera_decides() -> None:
    sure = confidence(np.stack([camera(1.0), camera(0.95), camera(0.9), camera(0.8), np.zeros((3, 4))]))
    assert (np.diff(sure) < 0).all() and sure[1] > 0.95 and sure[3] < 0.05 and np.isfinite(sure).all()
    assert confidence(np.zeros((0, 3, 4))).shape == (0,)


# --- the built-in model


@pytest.fixture(scope="module")
def pipeline(builtin: Model) -> Pipeline:
    return Pipeline(builtin, open_detector("dlib_hog"))


def squares_beside(face: np.ndarray, image: np.ndarray, count: int, seed: int = 0) -> list[np.ndarray]:
    """Random squares of an image with an overlap of less than 0.2 with a face's square."""
    random = np.random.default_rng(seed)
    height, width = image.shape[:2]
    squares: list[np.ndarray] = []
    while len(squares) < count:
        side = np.exp(random.uniform(np.log(30), np.log(min(height, width))))
        centre = random.uniform([0, 0], [width, height])
        square = np.concatenate([centre - side / 2, centre + side / 2])
        if boxes.iou(square, face) < 0.2:
            squares.append(square)
    return squares


def test_a_face_is_one_wherever_the_square_is_drawn_around_it(pipeline: Pipeline, astronaut: np.ndarray) -> None:
    [found] = pipeline(astronaut)
    assert found.confidence > 0.9
    true = boxes.square_from_landmarks(found.landmarks)
    side, random = true[2] - true[0], np.random.default_rng(0)
    squares = []
    for _ in range(40):
        shift, grown = random.uniform(-0.12, 0.12, 2) * side, random.uniform(-0.1, 0.15) * side
        squares.append(true + np.concatenate([shift - grown, shift + grown]))
    answers = [answer.confidence for answer in pipeline.regress(astronaut, squares)]
    assert len(answers) == 40 and min(answers) > 0.5 and np.mean(answers) > 0.9


def test_what_is_no_face_is_dropped_and_not_followed(pipeline: Pipeline, astronaut: np.ndarray) -> None:
    [found] = pipeline(astronaut, [ASTRONAUT_BOX])
    squares = squares_beside(boxes.square_from_landmarks(found.landmarks), astronaut, 150)
    answers = pipeline.regress(astronaut, squares)
    assert np.mean([answer.confidence for answer in answers]) < 0.1
    kept = [answer for answer in answers if answer.confidence >= 0.5]
    assert len(kept) <= 0.05 * len(answers)
    for _ in range(5):
        squares = [boxes.square_from_landmarks(answer.landmarks) for answer in kept]
        kept = [answer for answer in pipeline.regress(astronaut, squares) if answer.confidence >= 0.5]
    # Those that were led to her face may stay.
    stray = [answer for answer in kept if boxes.iou(answer.box, found.box) < 0.3]
    assert len(stray) <= 0.01 * len(answers)


@pytest.mark.parametrize("name", ["coffee", "rocket", "coins", "brick", "grass", "chelsea"])
def test_pictures_without_people_have_no_faces(pipeline: Pipeline, name: str) -> None:
    data = pytest.importorskip("skimage.data", reason="the pictures come with scikit-image")
    image = getattr(data, name)()
    image = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    answers = pipeline.regress(image, squares_beside(np.zeros(4), image, 60))
    assert np.mean([answer.confidence for answer in answers]) < 0.15
    assert sum(answer.confidence >= 0.5 for answer in answers) <= 0.08 * len(answers)


def test_a_model_without_the_head_is_judged_by_its_cameras(shared: Path, model_folder_v2: Path) -> None:
    pipeline = Pipeline(open_model(model_folder_v2, device="cpu", threads=1), open_detector("dlib_hog", min_face=40))
    image = cv2.imread(str(shared / "images" / "test1.jpg"))
    faces = pipeline(image)
    assert len(faces) == 2 and min(face.confidence for face in faces) > 0.9
    beside = squares_beside(boxes.square_from_landmarks(faces[0].landmarks), image, 200)
    beside = [s for s in beside if boxes.iou(s, boxes.square_from_landmarks(faces[1].landmarks)) < 0.2]
    assert np.mean([answer.confidence >= 0.5 for answer in pipeline.regress(image, beside)]) < 0.25


def test_people_that_it_was_not_trained_on_are_told_from_what_is_beside_them(builtin: Model, shared: Path) -> None:
    looker = presence.Looker(builtin, 1)
    people = read_labelled_pictures(shared / "datasets" / "ytf68", "val")
    seen = presence.square_examples(
        looker, presence.photographs(people, 80, np.random.default_rng(1)), np.random.default_rng(1)
    )
    # The looker's features are what the built-in head sees.
    state = load_checkpoint(presence.checkpoint_of(builtin)).state
    logits = seen.features @ state["fc_presence.weight"][0].astype(np.float32) + state["fc_presence.bias"][0]
    rows = presence.measure(confidence(np.zeros((len(seen), 3, 4)), logits), seen)
    assert rows["faces"] > 150 and rows["others"] > 600
    assert rows["area under the curve"] > 0.995 and rows["calibration error"] < 0.02
    assert rows["lost"] < 0.03 and rows["passed"] < 0.02


# --- the training


def test_the_fit_finds_the_logistic_of_two_normal_clouds_and_its_calibration() -> None:
    random = np.random.default_rng(0)
    middle = np.array([0.8, -0.4, 0.0])
    # Five times as many others as faces: both count the same, so the logit stays 2 m x.
    fits = np.arange(60_000) % 6 == 0
    features = (random.normal(size=(60_000, 3)) + np.where(fits[:, None], middle, -middle)) * [1, 10, 0.1] + [5, 0, 0]
    weight, bias = presence.fit_head(features.astype(np.float32), fits)
    np.testing.assert_allclose(weight * [1, 10, 0.1], 2 * middle, atol=0.05)
    assert abs(bias + 5 * weight[0]) < 0.05
    again = presence.fit_head(features.astype(np.float32), fits)
    assert np.array_equal(weight, again[0]) and bias == again[1]
    error, rows = presence.calibration(confidence(np.zeros((60_000, 3, 4)), features @ weight + bias), fits)
    assert error < 0.01 and len(rows) == 15 and sum(count for *_, count in rows) == 60_000
    with pytest.raises(ValueError, match="0 crops with a face"):
        presence.fit_head(features.astype(np.float32), np.zeros(60_000, bool))


def test_measures_of_known_confidences() -> None:
    errors = np.array([0.03, 0.05, 0.10, 0.11, 0.15, 0.5, 0.9, 2.0, 0.3])
    sure = np.array([0.99, 0.9, 0.4, 0.8, 0.0, 0.1, 0.6, 0.2, 0.4])
    parameters = np.zeros((9, 62), np.float32)
    parameters[:, [0, 5, 10]] = 0.1
    kinds = np.array(["face"] * 5 + ["near", "near", "size", "size"])
    seen = presence.Examples(np.array(["a"] * 9), kinds, parameters, np.zeros((9, 0), np.float32), errors)
    rows = presence.measure(sure, seen)
    assert (rows["faces"], rows["others"]) == (4, 4), "the fifth is neither"
    # Of 16 pairs of a face and something else 1 is the wrong way round, and 1 equal.
    assert rows["area under the curve"] == (14 + 0.5) / 16
    assert rows["lost"] == rows["lost, yaw 0-30"] == 0.25 and rows["passed"] == 0.25
    assert rows["passed, near"] == 0.5 and rows["passed, size"] == 0
    # All are alone in their bins but those of 0.4: a face and something else.
    assert np.isclose(rows["calibration error"], (0.01 + 0.1 + 0.2 + 2 * 0.1 + 0.1 + 0.6 + 0.2) / 8)


def test_copies_of_a_picture_are_kept_for_measuring_together() -> None:
    names = [f"{i:05d}.jpg" for i in range(2000)]
    kept = presence.held_out(names)
    assert np.array_equal(kept, presence.held_out([f"{name}#3" for name in names]))
    assert 0.07 < kept.mean() < 0.13


@pytest.fixture(scope="module")
def sets(builtin: Model, astronaut: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of samples and one of photographs: the astronaut in 24 sizes and lights, labelled by the model."""
    root, random = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    [face] = Pipeline(builtin)(astronaut, [ASTRONAUT_BOX], two_step=True)
    images, landmarks, crops, parameters, points = [], [], [], [], []
    for _ in range(24):
        factor, bright = random.uniform(0.5, 1.2), random.uniform(0.6, 1.2)
        size = (int(512 * factor), int(300 * factor))
        image = cv2.resize(cv2.convertScaleAbs(astronaut[:300], alpha=bright), size)
        # cv2.resize maps centres as boxes do: x + 1/2 is scaled.
        scale = np.array(size) / [512, 300]
        images.append(image)
        landmarks.append((face.landmarks[:, :2] + 0.5) * scale - 0.5)
        square = boxes.square_from_landmarks(landmarks[-1]).astype(np.float64)
        [seen] = Pipeline(builtin).regress(image, [square])
        margin = (square[2] - square[0]) * MARGIN / 120
        crops.append(boxes.crop(image, square + np.array([-1, -1, 1, 1]) * margin, WIDE_SIZE))
        parameters.append(seen.parameters)
        to_crop = np.linalg.inv(boxes.crop_to_image(square))
        points.append(landmarks[-1] @ to_crop[:2, :2].T + to_crop[:2, 2])
    names = np.array([f"{i}.png" for i in range(24)])
    samples = Samples(
        np.stack(crops),
        np.array(parameters, np.float32),
        np.array(points, np.float32),
        np.ones((24, 68), np.float32),
        np.ones(24, np.float32),
        names,
    )
    assert all(abs(turn_of(row)) < 0.3 for row in samples.parameters)
    write_samples(root / "samples", samples, builtin.face_model)
    (root / "photographs" / "images").mkdir(parents=True)
    for name, image in zip(names, images, strict=True):
        cv2.imwrite(str(root / "photographs" / "images" / str(name)), image)
    np.savez(root / "photographs" / "labels.npz", names=names, landmarks=np.array(landmarks))
    return root / "samples", root / "photographs"


def model_copy(builtin: Model, folder: Path) -> Path:
    shutil.copytree(presence.checkpoint_of(builtin).parent, folder)
    return folder


def test_the_training_puts_a_head_into_a_model_and_changes_nothing_else(
    builtin: Model, sets: tuple[Path, Path], astronaut: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, photographs = sets
    states = []
    for name in ("first", "second"):
        folder = model_copy(builtin, tmp_path / name)
        arguments = [str(folder), "--samples", str(samples), "--photographs", str(photographs), "--count", "12"]
        assert tool.main([*arguments, "--threads", "1"]) == 0
        assert "area under the curve" in capsys.readouterr().out
        states.append(load_checkpoint(folder / "network.pth").state)
    before = load_checkpoint(presence.checkpoint_of(builtin)).state
    assert states[0].keys() == states[1].keys() == before.keys() | {"fc_presence.weight", "fc_presence.bias"}
    for name, value in states[0].items():
        assert value.dtype == states[1][name].dtype and np.array_equal(value, states[1][name]), "the same every time"
        if not name.startswith("fc_presence."):
            assert value.dtype == before[name].dtype and np.array_equal(value, before[name])
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted(
        path.name for path in presence.checkpoint_of(builtin).parent.iterdir()
    )
    learned = Pipeline(open_model(tmp_path / "first", device="cpu", threads=1))
    [face] = learned(astronaut, [ASTRONAUT_BOX], two_step=True)
    [other] = learned.regress(astronaut, [(330, 300, 500, 470)])
    assert face.confidence > 0.9 and other.confidence < 0.2


def test_what_cannot_be_trained_is_refused_in_one_line(
    builtin: Model, sets: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], small_model: Path
) -> None:
    samples, photographs = map(str, sets)
    model = str(model_copy(builtin, tmp_path / "model"))
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ([str(small_model), "--samples", samples, "--photographs", photographs], "network.xml: a head is written into"),
        ([model, "--samples", str(tmp_path / "empty"), "--photographs", photographs], "crops.npy is missing"),
        ([model, "--samples", samples, "--photographs", str(tmp_path / "empty")], "labels.npz is missing"),
        ([model, "--samples", samples, "--photographs", "a", "b", "c"], "at most one file of labels"),
    ):
        assert tool.main(arguments) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and words in error and error.startswith("radan-train-presence: ")


def test_only_radan_mobile_has_a_head(shared: Path, model_folder_v2: Path) -> None:
    with pytest.raises(ValueError, match="a mobilenet_v1 x0.5; only radan_mobile"):
        presence.Looker(open_model(model_folder_v2, device="cpu"))
