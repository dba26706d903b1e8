"""Image to faces: agreement with the reference code, the two-step box, bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ASTRONAUT_BOX, frontal_parameters

from radan_ros import Model, Pipeline, open_detector, open_model
from radan_ros.face_models import FaceModel, read_3ddfa
from radan_ros.model import Whitening, builtin_model, read_whitening
from radan_ros.networks import open_network
from radan_ros.pose import decompose_camera, reference_euler

COUPLE = np.array([ASTRONAUT_BOX, [1024 - ASTRONAUT_BOX[2], 79, 1024 - ASTRONAUT_BOX[0], 171]], np.float32)


@pytest.fixture(scope="module")
def trained(shared: Path, model_folder: Path) -> Model:
    """The real checkpoint with 3DDFA's dense face model."""
    v2 = shared / "models" / "3ddfa_v2"
    network = open_network(v2 / "weights" / "mb05_120x120.pth", device="cpu")
    return Model(
        "mb05", network, read_whitening(v2 / "configs" / "param_mean_std_62d_120x120.pkl"), read_3ddfa(model_folder)
    )


@pytest.fixture(scope="module")
def picture(shared: Path) -> np.ndarray:
    return cv2.imread(str(shared / "images" / "test1.jpg"))


@pytest.fixture(scope="module")
def expected(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "expected" / "3ddfa_v1_test1.npz") as file:
        return dict(file)


def test_compat_mode_reproduces_the_reference(
    trained: Model, picture: np.ndarray, expected: dict[str, np.ndarray]
) -> None:
    pipeline = Pipeline(trained, compat=True)
    faces = pipeline(picture, [expected["face0_box"], expected["face1_box"]])
    vertices = pipeline.vertices(faces)
    assert len(faces) == 2
    to_reference = np.array([1, 1, -1], np.float32)  # its third axis grows towards the viewer
    for i, face in enumerate(faces):
        assert np.abs(face.roi - expected[f"face{i}_roi"]).max() < 1e-3
        # "Parameters to 1e-3", in the units that the network gives them in.
        whitened = (face.parameters - expected[f"face{i}_params"]) / trained.whitening.std
        assert np.abs(whitened).max() < 1e-3
        assert np.abs((face.landmarks * to_reference).T - expected[f"face{i}_landmarks68"]).max() < 0.1
        assert np.abs((vertices[i] * to_reference).T - expected[f"face{i}_vertices"]).max() < 0.1
        angles = reference_euler(face.parameters[:12].reshape(3, 4))
        assert np.abs(np.rad2deg(np.array(angles) - expected[f"face{i}_pose_yaw_pitch_roll"])).max() < 0.1


def test_dlib_finds_the_boxes_of_the_reference_and_ours_land_within_two_pixels(
    trained: Model, picture: np.ndarray, expected: dict[str, np.ndarray]
) -> None:
    detector = open_detector("dlib_hog", min_face=40)
    found = detector(picture)
    assert len(found) == 2 and found[0].score >= found[1].score
    for i, detection in enumerate(found):
        assert np.abs(detection.box - expected[f"face{i}_box"]).max() < 3
    for i, face in enumerate(Pipeline(trained, detector)(picture)):
        # The default differs from the reference by its pixel conventions: at most one pixel of the crop, here 2.9.
        distance = np.linalg.norm(face.landmarks[:, :2].T - expected[f"face{i}_landmarks68"][:2], axis=0)
        assert 0.5 < distance.mean() < 4


def test_landmarks_move_with_the_picture(builtin: Model, astronaut: np.ndarray) -> None:
    """One affine map used both ways: shifting picture and box by whole pixels shifts the landmarks by as many."""
    pipeline = Pipeline(builtin)
    [face] = pipeline(astronaut, [ASTRONAUT_BOX])
    shifted = np.roll(astronaut, (40, 30), axis=(0, 1))
    [moved] = pipeline(shifted, [np.array(ASTRONAUT_BOX) + [30, 40, 30, 40]])
    assert np.abs(moved.landmarks - face.landmarks - [30, 40, 0]).max() < 0.05


def test_two_step_crops_around_the_first_answer(builtin: Model, astronaut: np.ndarray) -> None:
    pipeline = Pipeline(builtin)
    [one] = pipeline(astronaut, [ASTRONAUT_BOX])
    [two] = pipeline(astronaut, [ASTRONAUT_BOX], two_step=True)
    side = np.ptp(one.landmarks[:, :2], axis=0).max() * np.sqrt(2)
    assert np.isclose(two.roi[2] - two.roi[0], side, rtol=1e-3)
    again = pipeline.regress(astronaut, [two.roi])[0]
    assert np.allclose(again.landmarks, two.landmarks, atol=1e-2), "parameters and crop belong together"


def test_a_batch_answers_as_its_faces_one_by_one(builtin: Model, couple: np.ndarray) -> None:
    pipeline = Pipeline(builtin)
    given = [*COUPLE, COUPLE[0] + 4]
    together = pipeline(couple, given)
    for box, face in zip(given, together, strict=True):
        assert np.abs(pipeline(couple, [box])[0].landmarks - face.landmarks).max() < 0.05
    of_meshes = pipeline.vertices(together)[:, builtin.face_model.landmarks]
    assert np.abs(of_meshes - np.stack([face.landmarks for face in together])).max() < 0.05


def test_boxes_that_are_no_boxes_give_no_face(builtin: Model, astronaut: np.ndarray) -> None:
    assert Pipeline(builtin)(astronaut, [[0, 0, np.inf, np.inf], [np.nan] * 4, [10, 10, 5, 5]]) == []


def test_no_face_is_an_empty_answer(builtin: Model) -> None:
    pipeline = Pipeline(builtin, open_detector("dlib_hog"))
    grey = np.full((480, 640, 3), 127, np.uint8)
    assert pipeline(grey) == [] == pipeline(grey, np.zeros((0, 4))) == pipeline.regress(grey, [])
    assert pipeline.vertices([]).shape == (0, len(builtin.face_model.mean), 3)
    assert pipeline.regress(grey, [(0, 0, 2, 2), (np.nan, 0, 9, 9), (9000, 0, 9100, 100)]) == []


class Constant:
    """A network of constant answer, to try the pipeline without a trained one."""

    name, device = "constant", "cpu"

    def __init__(self, answer: np.ndarray) -> None:
        self.answer = answer

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        assert crops.shape[1:] == (120, 120, 3) and crops.dtype == np.uint8
        return np.repeat(self.answer[None], len(crops), axis=0)

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, None]:
        return self(crops), None


@pytest.fixture
def frontal(small_face: FaceModel) -> Model:
    """A 'network' that sees a frontal face in the middle of every crop, as large as following crops it."""
    whitening = Whitening(np.zeros(62, np.float32), np.ones(62, np.float32))
    return Model("constant", Constant(frontal_parameters(small_face)), whitening, small_face)


def test_the_network_frame_is_placed_upright_and_centred(frontal: Model) -> None:
    [face] = Pipeline(frontal).regress(np.zeros((480, 640, 3), np.uint8), [(100, 50, 340, 290)])
    # A point at the middle of the crop is at the middle of the box: its centre minus half a pixel.
    points = Pipeline(frontal).vertices([face])[0]
    front = points[np.argmax(frontal.face_model.mean[:, 2])]
    assert np.allclose((face.box[:2] + face.box[2:]) / 2, [219.5, 169.5], atol=1e-3)
    top = points[np.argmax(frontal.face_model.mean[:, 1])]
    assert top[1] < front[1] and front[2] < top[2], "y down; the front is nearer"
    weak = decompose_camera(face.camera)
    assert np.allclose(weak.rotation, np.diag([1, -1, -1]), atol=1e-6)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        "x.jpg",
    ],
)
def test_wrong_images_are_refused(frontal: Model, image: object) -> None:
    with pytest.raises(ValueError, match="image"):
        Pipeline(frontal)(image, np.zeros((0, 4)))  # type: ignore[arg-type]


def test_wrong_boxes_are_refused(frontal: Model) -> None:
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        Pipeline(frontal)(np.zeros((9, 9, 3), np.uint8), [[1, 2, 3]])
    with pytest.raises(ValueError, match="no detector"):
        Pipeline(frontal)(np.zeros((9, 9, 3), np.uint8))


def test_model_folders_open_in_both_layouts(
    shared: Path, model_folder: Path, model_folder_v2: Path, tmp_path: Path
) -> None:
    second = open_model(model_folder_v2, device="cpu")
    assert second.name == "mb05_120x120" and len(second.face_model.mean) == 38365
    shutil.copytree(model_folder, tmp_path / "v1")
    (tmp_path / "v1" / "models").mkdir()
    with pytest.raises(ValueError, match="models.*found: none"):
        open_model(tmp_path / "v1")
    shutil.copy(model_folder_v2 / "weights" / "mb05_120x120.pth", tmp_path / "v1" / "models" / "net.pth.tar")
    assert open_model(tmp_path / "v1", device="cpu").name == "net"
    crops = np.random.default_rng(0).integers(0, 256, (1, 120, 120, 3), np.uint8)
    assert second.network(crops).shape == (1, 62)


@pytest.mark.parametrize(
    "lost", ["weights/mb05_120x120.pth", "configs/param_mean_std_62d_120x120.pkl", "configs/tri.pkl"]
)
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damaged_model_folders_are_named(model_folder_v2: Path, tmp_path: Path, lost: str, damage: str) -> None:
    shutil.copytree(model_folder_v2, tmp_path / "m")
    file = tmp_path / "m" / lost
    content = file.read_bytes()
    file.unlink()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises((ValueError, OSError), match=file.name):
        open_model(tmp_path / "m", device="cpu")


@pytest.mark.parametrize("lost", ["network.pth", "whitening.npz", "face_model.npz"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damaged_folders_of_our_layout_are_named(tmp_path: Path, lost: str, damage: str) -> None:
    shutil.copytree(builtin_model(), tmp_path / "m")
    file = tmp_path / "m" / lost
    content = file.read_bytes()
    file.unlink()
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises((ValueError, OSError), match=lost):
        open_model(tmp_path / "m", device="cpu")


def test_what_is_no_model_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        open_model(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no model folder"):
        open_model(tmp_path)
    (tmp_path / "model.yaml").write_text("name: x\n")
    with pytest.raises(ValueError, match="model.yaml.*lacks network"):
        open_model(tmp_path)
    (tmp_path / "model.yaml").write_text("{")
    with pytest.raises(ValueError, match="model.yaml"):
        open_model(tmp_path)
