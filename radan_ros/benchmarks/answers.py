"""A model's answers for labelled faces, or those of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from radan_ros import boxes
from radan_ros.benchmarks.faces import Array, LabelledFaces
from radan_ros.benchmarks.labelled import numbers_of_shape
from radan_ros.benchmarks.scoring import Answers
from radan_ros.detectors import Detector
from radan_ros.model import Model, open_model
from radan_ros.pictures import read_picture
from radan_ros.pipeline import Pipeline
from radan_ros.pose import nearest_rotation
from radan_ros.training.pictures import prediction_grid

GIVEN, BOXES, DETECTOR = "given", "boxes", "detector"
OURS, REFERENCE = "ours", "3DDFA's (--compat)"
_BATCH = 16
_SAME_FACE = 0.2  # least overlap of a detection with the box of the given points
_TO_VIEWER = np.array([1.0, 1.0, -1.0])


def open_models(folders: Sequence[str | Path | None], device: str, threads: int | None) -> dict[str, Model]:
    """Models by name; those of one name are told apart by their folders. ValueError where a folder comes twice."""
    opened = [(folder, open_model(folder, device=device, threads=threads)) for folder in folders]
    names = [model.name for _, model in opened]
    models = {m.name if names.count(m.name) == 1 else f"{m.name} ({f or 'built-in'})": m for f, m in opened}
    if len(models) < len(opened):
        raise ValueError("a model folder is named twice")
    return models


def place(crop_landmarks: Array, squares: Array, origin: int, compat: bool) -> Array:
    """Points in 120 px crops to the pictures that the crops were cut from.

    Parameters
    ----------
    crop_landmarks : (N, P, 2 or 3) float64
        As `Pipeline` answers for the whole crop: crop pixels.
    squares : (N, 4) float64
        Boxes of the crops: `LabelledFaces.uncut`, or `LabelledFaces.squares` with `compat`.
    origin : int
        Number of the first pixel in that file. Matlab's boxes, from 1, end with their last pixel, ours one past it.
    compat : bool
        As 3DDFA's benchmark does it: the box as the file has it, crop pixels times a scale. That is a pixel and more
        off from where the crop was, and much more where the box was cut off at the picture's edge.

    Returns
    -------
    (N, P, 2 or 3) float64
        In the file's pixels; a third coordinate grows with the crop.
    """
    edges = squares if compat else squares - np.array([origin, origin, 0, 0])
    scale = ((edges[:, 2:] - edges[:, :2]) / boxes.CROP_SIZE)[:, None]
    placed = crop_landmarks.copy()
    if compat:
        placed[..., :2] = crop_landmarks[..., :2] * scale + edges[:, None, :2]
    else:
        placed[..., :2] = (crop_landmarks[..., :2] + 0.5) * scale + edges[:, None, :2] - 0.5 + origin
    placed[..., 2:] *= scale.mean(axis=2, keepdims=True)
    return placed


def rotations_of(parameters: NDArray[np.float32]) -> Array:
    """Rotations (N, 3, 3) of answers (N, 62) in the networks' frame: x right, y up, z towards the viewer."""
    rows = [nearest_rotation(p[:12].reshape(3, 4)[:2, :3])[0] for p in np.asarray(parameters, np.float64)]
    return np.array(rows).reshape(-1, 3, 3)


def answer(
    model: Model,
    faces: LabelledFaces,
    crops: str,
    *,
    detector: Detector | None = None,
    compat: bool = False,
    bar: tqdm[Any] | None = None,
) -> Answers:
    """Let a model look at every face once.

    Parameters
    ----------
    model : Model
    faces : LabelledFaces
    crops : {'given', 'boxes', 'detector'}
        The crops that came with the benchmark; squares around the given points; or where the detector finds the face.
        A face that no detection covers, or whose answer is not finite, is not found.
    detector : Detector, optional
        For the last.
    compat : bool
        3DDFA's pixel conventions.
    bar : tqdm, optional
        A step a face.

    Raises
    ------
    ValueError, OSError
        A picture cannot be read, or a given crop is not 120 x 120.
    """
    pipeline = Pipeline(model, detector, compat=compat)
    pictures = pictures_of(faces, crops)
    count = len(faces)
    landmarks, squares = np.full((count, 68, 3), np.nan), np.full((count, 4), np.nan)
    parameters = np.full((count, 62), np.nan, np.float32)
    for start in range(0, count, _BATCH):
        part = range(start, min(start + _BATCH, count))
        images = [read_picture(pictures[i]) for i in part]
        rois = [_square(image, faces, i, crops, detector) for image, i in zip(images, part, strict=True)]
        for i, found in zip(part, pipeline.regress_many(images, rois), strict=True):
            for face in found:
                landmarks[i], squares[i] = face.landmarks * _TO_VIEWER, face.roi
                parameters[i] = face.parameters
        if bar is not None:
            bar.update(len(part))
    if crops == GIVEN:
        squares_of_crops = faces.squares if compat else faces.uncut
        assert squares_of_crops is not None
        landmarks = place(landmarks, squares_of_crops, faces.origin, compat)
    elif not compat:
        landmarks[..., :2] += faces.origin
    rotations = np.full((count, 3, 3), np.nan)
    known = np.isfinite(parameters).all(axis=1)
    rotations[known] = rotations_of(parameters[known])
    return Answers(landmarks, rotations, squares, parameters)


def pictures_of(faces: LabelledFaces, crops: str) -> list[Path]:
    """The pictures that a source of crops reads; ValueError where they are not there."""
    if crops == GIVEN:
        if faces.squares is None:
            raise ValueError(f"{faces.name} has no given crops (--crops boxes or detector)")
        return faces.pictures
    if faces.squares is None:
        return faces.pictures
    if faces.whole is None:
        raise ValueError(f"{faces.name}: its whole pictures are not there, only crops (--crops given)")
    return faces.whole


def _square(
    image: NDArray[np.uint8], faces: LabelledFaces, index: int, crops: str, detector: Detector | None
) -> list[NDArray[np.float32]]:
    """The square to look at in a picture; none where the face is not found."""
    if crops == GIVEN:
        if image.shape[:2] != (boxes.CROP_SIZE, boxes.CROP_SIZE):
            size = f"{image.shape[1]} x {image.shape[0]}"
            raise ValueError(f"{faces.pictures[index]}: is {size}, not a crop of {boxes.CROP_SIZE} pixels a side")
        return [np.array([0, 0, boxes.CROP_SIZE, boxes.CROP_SIZE], np.float32)]
    points = faces.annotations[0].points[index][:, :2] - faces.origin
    points = points[np.isfinite(points).all(axis=1)]
    if detector is None:
        return [boxes.square_from_landmarks(points)]
    tight = np.concatenate([points.min(axis=0), points.max(axis=0) + 1])
    found = max(detector(image), key=lambda detection: boxes.iou(detection.box, tight), default=None)
    if found is None or boxes.iou(found.box, tight) < _SAME_FACE:
        return []
    return [boxes.square_from_detection(found.box)]


def read_predictions(path: str | Path, faces: LabelledFaces) -> tuple[Answers, bool]:
    """Points that somebody predicted, in an .npz file.

    ``landmarks`` (N, 68, 2 or 3): pixels as the annotations count them, third away from the viewer as in `Face`. Or
    ``crop_landmarks`` (N, 2 or 3, 68): pixels of the given crops, as 3DDFA's ``reconstruct_vertex`` gives them (third
    towards the viewer) and placed as its benchmark does. NaN for faces that were not found. Optional: ``rotations``
    (N, 3, 3), see `scoring.Answers`; ``names`` (N,), file names in the benchmark's order.

    Returns
    -------
    answers : Answers
    in_crops : bool
        Whether they were answers for the given crops.

    Raises
    ------
    ValueError, OSError
        Name the file and what is missing or does not fit.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file}
    except OSError:
        raise
    except Exception:  # zip and header errors of many kinds
        raise ValueError(f"{path}: not a .npz file of predictions") from None
    count = len(faces)
    if "names" in content and [Path(str(n)).name for n in content["names"]] != [p.name for p in faces.pictures]:
        raise ValueError(f"{path}: its names are not those of {faces.name}, in its order")
    if "landmarks" in content:
        given = numbers_of_shape(f"{path}: landmarks", content["landmarks"], (count, 68, 2), (count, 68, 3))
        landmarks = given * _TO_VIEWER[: given.shape[2]]
    elif "crop_landmarks" in content:
        if faces.squares is None:
            raise ValueError(f"{path}: crop_landmarks, but {faces.name} has no given crops")
        given = numbers_of_shape(f"{path}: crop_landmarks", content["crop_landmarks"], (count, 2, 68), (count, 3, 68))
        landmarks = np.ascontiguousarray(given.transpose(0, 2, 1))
        landmarks = place(landmarks, faces.squares, faces.origin, compat=True)
    else:
        raise ValueError(f"{path}: has neither landmarks nor crop_landmarks")
    rotations = None
    if "rotations" in content:
        rotations = numbers_of_shape(f"{path}: rotations", content["rotations"], (count, 3, 3))
    return Answers(landmarks, rotations), "landmarks" not in content


def sheet(faces: LabelledFaces, answers: Answers, model: Model, crops: str, which: Sequence[int]) -> NDArray[np.uint8]:
    """Given and predicted points of some of the faces that were found, in their crops, side by side.

    Only where 68 points were given: `prediction_grid` joins them to a face.
    """
    assert answers.squares is not None and answers.parameters is not None
    pictures = pictures_of(faces, crops)
    seen = np.stack([boxes.crop(read_picture(pictures[index]), answers.squares[index]) for index in which])
    given = points_in_crops(faces, crops, answers.squares, which)
    return prediction_grid(seen, given, answers.parameters[list(which)], model.face_model)


def points_in_crops(faces: LabelledFaces, crops: str, squares: Array, which: Sequence[int]) -> Array:
    """The first annotation's points of n faces in pixels of their crops, (n, P, 2).

    Crops are the given ones, or of squares (N, 4) in pictures, whose pixels count from 0.
    """
    if crops == GIVEN:
        assert faces.uncut is not None
        squares = faces.uncut - np.array([faces.origin, faces.origin, 0, 0])
    given = []
    for index in which:
        to_crop = np.linalg.inv(boxes.crop_to_image(squares[index]))
        points = faces.annotations[0].points[index][:, :2] - faces.origin
        given.append(points @ to_crop[:2, :2].T + to_crop[:2, 2])
    return np.stack(given)
