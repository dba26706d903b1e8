"""The built-in model: what its weights must know of a face, on a picture that everybody has, and without ../shared.

Errors of landmarks are in parts of the distance between the outer corners of the eyes.
"""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ASTRONAUT_BOX, ASTRONAUT_MARKS

from radan_ros import CameraModel, Face, Model, Pipeline, boxes, open_detector
from radan_ros.metric import metric_face
from radan_ros.model import builtin_model
from radan_ros.networks import load_checkpoint, network_state
from radan_ros.pose import consistency, euler_from_rotation
from radan_ros.training.augmentation import MIRRORED

EYES = float(np.linalg.norm(np.subtract(ASTRONAUT_MARKS[36], ASTRONAUT_MARKS[45])))  # pixels
PORTRAIT = CameraModel.from_field_of_view((512, 512), np.radians(25))


@pytest.fixture(scope="module")
def pipeline(builtin: Model) -> Pipeline:
    return Pipeline(builtin, open_detector())


@pytest.fixture(scope="module")
def face(pipeline: Pipeline, astronaut: np.ndarray) -> Face:
    """The astronaut's face, found and then cropped as when it is followed."""
    [found] = pipeline(astronaut, two_step=True)
    return found


def error(landmarks: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return np.linalg.norm(landmarks[:, :2] - expected[:, :2], axis=1) / EYES


def angles(face: Face, model: Model) -> np.ndarray:
    """Yaw, pitch and roll, degrees."""
    return np.degrees(euler_from_rotation(metric_face(face, model.face_model, PORTRAIT).pose.rotation))


def test_it_is_small_and_opens_by_itself(builtin: Model) -> None:
    assert builtin.name == "radan_mobile" and builtin.face_model.unit == 1
    assert builtin.network_file == builtin_model() / "network.pth"
    assert builtin.network_file.stat().st_size <= 4 << 20
    _, state = network_state(load_checkpoint(builtin.network_file))
    assert sum(values.size for values in state.values()) <= 1.6e6, "with the statistics of the batch norms"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch is asked for the GPU")
def test_it_opens_without_torch_where_there_is_no_gpu() -> None:
    code = """
import sys, radan_ros
from radan_ros.networks.runtime import _gpu_driver
assert radan_ros.open_model().network.device == "cpu" or _gpu_driver()
assert "torch" not in sys.modules or _gpu_driver()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_default_detector_finds_the_astronaut_alone(astronaut: np.ndarray) -> None:
    [detection] = open_detector()(astronaut)
    assert boxes.iou(detection.box, ASTRONAUT_BOX) > 0.9
    assert len(open_detector(threshold=0.0)(astronaut)) > 1, "dlib's own threshold sees a face in her sleeve"


def test_landmarks_are_where_the_hand_marked_them(face: Face) -> None:
    distance = error(face.landmarks[list(ASTRONAUT_MARKS)], np.array([*ASTRONAUT_MARKS.values()]))
    assert distance.max() < 0.07 and distance.mean() < 0.045, dict(zip(ASTRONAUT_MARKS, distance, strict=True))


def test_a_mirrored_face_has_mirrored_landmarks(pipeline: Pipeline, face: Face, astronaut: np.ndarray) -> None:
    [mirrored] = pipeline(np.ascontiguousarray(astronaut[:, ::-1]), two_step=True)
    back = mirrored.landmarks[MIRRORED, :2] * [-1, 1] + [511, 0]
    distance = error(back, face.landmarks)
    assert distance.mean() < 0.035 and distance.max() < 0.08
    assert np.abs(angles(mirrored, pipeline.model) * [-1, 1, -1] - angles(face, pipeline.model)).max() < 5


@pytest.mark.parametrize("turn", [20.0, -20.0])
def test_a_turned_picture_has_turned_landmarks(
    pipeline: Pipeline, face: Face, astronaut: np.ndarray, turn: float
) -> None:
    middle = (222, 130)  # of her face
    matrix = cv2.getRotationMatrix2D(middle, turn, 1)
    picture = cv2.warpAffine(astronaut, matrix, (512, 512), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    [turned] = pipeline(picture, [ASTRONAUT_BOX], two_step=True)
    distance = error(turned.landmarks, face.landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2])
    assert distance.mean() < 0.045 and distance.max() < 0.1
    yaw, pitch, roll = angles(turned, pipeline.model) - angles(face, pipeline.model)
    assert abs(roll - turn) < 5 and abs(yaw) < 8 and abs(pitch) < 8


def test_a_box_that_is_off_moves_the_landmarks_little(pipeline: Pipeline, face: Face, astronaut: np.ndarray) -> None:
    random = np.random.default_rng(0)
    left, top, right, bottom = boxes.square_from_landmarks(face.landmarks)
    side = right - left
    centres = np.array([left + right, top + bottom]) / 2 + random.uniform(-0.08, 0.08, (20, 2)) * side
    halves = side / 2 * random.uniform(0.88, 1.12, (20, 1))
    faces = pipeline.regress(astronaut, list(np.hstack([centres - halves, centres + halves])))
    distances = np.array([error(f.landmarks, face.landmarks) for f in faces])
    assert len(faces) == 20 and distances.mean() < 0.03 and distances.mean(axis=1).max() < 0.05
    assert min(consistency(f.camera) for f in faces) > 0.9, "cameras are nearly rotations"
    assert min(f.confidence for f in faces) > 0.9


def test_her_head_is_upright_frontal_and_as_large_as_heads_are(builtin: Model, face: Face) -> None:
    yaw, pitch, roll = angles(face, builtin)
    # By the marks of her eyes she leans by 1.4 degrees to her left.
    assert abs(yaw) < 10 and abs(pitch) < 20 and abs(roll + 1.4) < 5
    points = builtin.face_model.landmark_points(face.coefficients[None])[0]
    assert 0.078 < np.linalg.norm(points[36] - points[45]) < 0.1, "metres between the outer corners of her eyes"
    assert 0.1 < np.linalg.norm(points[27] - points[8]) < 0.14, "metres from sellion to chin"
    # The pinhole camera and 88 mm between the outer corners of adults' eyes (Farkas, 1994) tell the same distance.
    pose = metric_face(face, builtin.face_model, PORTRAIT).pose
    assert np.isclose(pose.translation[2], PORTRAIT.matrix[0, 0] * 0.088 / EYES, rtol=0.12)
    assert pose.residual < 0.04 * EYES
