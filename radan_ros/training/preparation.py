"""Labelled pictures to training samples: the face model fitted to the labels, wide crops, and profiled copies.

The 68 landmarks of a sample are those of 300W-LP and AFLW2000-3D: the model's own points projected, also where the face
hides them. Points marked in a picture are the same as long as a face looks at the camera; on a turned face the marked
jaw of the far side lies on the visible outline instead. What is believed:

- marked 2D points: all 68 of a frontal face; of a turned one all but the far jaw, which changes over to the fit's
  projection the further the head is turned (`contour_share`), with down to half the weight;
- a teacher's 3D points: all, the less the more its answers to slightly different crops disagree; lids and inner lips
  less than the rest, because 3DDFA and its like follow blinks and open mouths only in part;
- both: the marked points in the picture, the teacher for their depth and for the far jaw, as long as the two agree.
  What all pictures of a set are marked off the teacher by, one offset in shares of the face's size, is taken off first
  (`common_offset`): points that come from a resampled video lie off by whole pixels;
- the far jaw of a turned face: down to half as much as the other points, however it is known;
- pictures that the model does not fit: less or not at all (`FITS_WELL`, `FITS_NOT`).

A profiled copy shows the same face turned further (see `profiling`). Its landmarks are the fit's points after the turn,
each with what the label differed from the fit before, turned along.
"""

from __future__ import annotations

import multiprocessing
import os
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radan_ros.boxes import CROP_SIZE, crop, crop_to_image, square_from_landmarks, usable
from radan_ros.face_models import FaceModel
from radan_ros.fitting import JAW, LandmarkFit, contour_share, fit_landmarks
from radan_ros.pipeline import CROP_FROM_NETWORK, transform
from radan_ros.pose import decompose_camera, euler_from_rotation, head_rotation, rotation_from_euler
from radan_ros.training.evaluation import face_sizes
from radan_ros.training.profiling import TurnableFace, extended
from radan_ros.training.samples import MARGIN, WIDE_SIZE, Samples
from radan_ros.workers import deaf_to_ctrl_c, end_with_parent

FITS_WELL, FITS_NOT = 0.025, 0.045  # mean residual of eyes, brows, nose, mouth over the face's size: weight 1; weight 0
SURE, UNSURE = 0.006, 0.012  # the teacher's spread: weight 1; weight 0
# Mean distance of marked and teacher's points over the face's size up to which the teacher's depth is used.
AGREE = 0.08
_TEACHER_NOISE = 0.01  # of `fit_landmarks`; best on landmarks left out of the fit
_HIDDEN_WEIGHT = 0.5  # of the far jaw of a profile
_TAUGHT_OPENING_WEIGHT = 0.3  # of lids and inner lips that only a teacher has placed
OPENING = np.array([37, 38, 40, 41, 43, 44, 46, 47, 61, 62, 63, 65, 66, 67])  # landmarks that blinks and speech move
_PITCH, _ROLL = 30.0, 8.0  # degrees, the largest that a copy is nodded and tilted
_STEEPEST = 45.0  # degrees of pitch that no copy goes beyond
_LEAST_TURN = 5.0  # degrees of yaw between a picture and its copies
_FLATTEST = 20.0  # degrees, the least yaw of a copy: there are enough such pictures
_INNER = np.arange(68) >= JAW.stop
_Array = NDArray[np.float64]


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures in a folder ``images`` with the labels that are there.

    Attributes
    ----------
    folder : Path
    names : (n,) str
        Files in ``images``.
    marked : (n, 68, 2) float64 or None
        Image pixels.
    teacher : (n, 68, 3) float64 or None
        Image pixels, third away from the viewer.
    spread : (n,) float64 or None
        Disagreement of the teacher's answers over the face's size.
    opening_weight : (n,) float64 or None
        How far the teacher's lids and inner lips are believed, 0 .. 1; None: as little as 3DDFA's.
    """

    folder: Path
    names: NDArray[np.str_]
    marked: _Array | None
    teacher: _Array | None
    spread: _Array | None
    opening_weight: _Array | None = None

    def __len__(self) -> int:
        return len(self.names)

    def take(self, which: Any) -> LabelledPictures:
        """Some of the pictures, by index array, mask or slice."""
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "folder"}
        taken: dict[str, Any] = {k: None if v is None else v[which] for k, v in columns.items()}
        return LabelledPictures(self.folder, **taken)


def read_labelled_pictures(
    folder: str | Path, split: str | None = None, labels: str | Path | None = None
) -> LabelledPictures:
    """Read ``labels.npz`` of a folder of labelled pictures.

    Keys: ``names``; ``landmarks68_2d`` (n, 68, 2), marked points; ``teacher_landmarks68_3d`` (n, 68, 3), as 3DDFA
    answers: third towards the viewer; ``teacher_spread`` (n,); ``opening_weight`` (n,), how far the teacher's lids and
    inner lips are believed; ``split`` (n,). Or plain ``landmarks``: (n, 68, 2)
    marked points or (n, 68, 3) with the third away from the viewer. NaN for points that are not known.

    Parameters
    ----------
    folder : path
    split : str, optional
        Only the pictures whose ``split`` says so. A folder that has splits wants one named, lest people of a validation
        set get into a training.
    labels : path, optional
        Another file than the folder's ``labels.npz``. Where it has no ``split``, that of the folder's own file holds,
        and pictures that the folder's file does not name are in no split.

    Raises
    ------
    ValueError
        Names the file and what is missing or does not fit.
    """
    root = Path(folder)
    path = root / "labels.npz" if labels is None else Path(labels)
    if not path.is_file():
        raise ValueError(f"{path} is missing: no labels of pictures")
    content = _read_arrays(path)
    names = _texts(path, "names", content.get("names"))
    count = len(names)
    plain = content.get("landmarks")
    marked, teacher = content.get("landmarks68_2d"), content.get("teacher_landmarks68_3d")
    if marked is not None:
        marked = _of_shape(path, "landmarks68_2d", marked, (count, 68, 2))
    if teacher is not None:
        teacher = _of_shape(path, "teacher_landmarks68_3d", teacher, (count, 68, 3)) * [1, 1, -1]
    if plain is not None and plain.ndim == 3 and plain.shape[2] == 3:
        teacher = _of_shape(path, "landmarks", plain, (count, 68, 3)) if teacher is None else teacher
    elif plain is not None and marked is None:
        marked = _of_shape(path, "landmarks", plain, (count, 68, 2))
    if marked is None and teacher is None:
        raise ValueError(f"{path}: lacks landmarks (landmarks, landmarks68_2d or teacher_landmarks68_3d)")
    per_picture = {name: content.get(name) for name in ("teacher_spread", "opening_weight")}
    spread, opening_weight = (
        None if array is None else _of_shape(path, name, array, (count,)) for name, array in per_picture.items()
    )
    if opening_weight is not None and not ((opening_weight >= 0) & (opening_weight <= 1)).all():
        raise ValueError(f"{path}: opening_weight is not 0 to 1")
    pictures = LabelledPictures(root, names, marked, teacher, spread, opening_weight)
    splits = _splits(root, path, content, names)
    if splits is None:
        if split is not None:
            raise ValueError(f"{path}: has no split {split}: no split at all")
        return pictures
    known = sorted({str(s) for s in splits} - {""})
    if split not in known:
        asked = "name one of its splits" if split is None else f"has no split {split}"
        raise ValueError(f"{path}: {asked}: {', '.join(known)}")
    return pictures.take(splits == split)


def has_splits(folder: str | Path) -> bool:
    """Whether the labels of a folder part its pictures by a ``split``; False also where there are no labels."""
    path = Path(folder) / "labels.npz"
    return path.is_file() and "split" in _read_arrays(path)


def _splits(root: Path, path: Path, content: dict[str, NDArray[Any]], names: NDArray[np.str_]) -> Any:
    """The split of each picture, (n,) str: of its labels, else of the folder's own; None where neither has any."""
    if "split" in content:
        return _texts(path, "split", content["split"], len(names))
    own = root / "labels.npz"
    if not own.is_file() or own.samefile(path):
        return None
    others = _read_arrays(own)
    if "split" not in others:
        return None
    known = _texts(own, "names", others.get("names"))
    of_name = dict(zip(known.tolist(), _texts(own, "split", others["split"], len(known)).tolist(), strict=True))
    return np.array([of_name.get(name, "") for name in names.tolist()], np.str_)


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file}
    except PermissionError:
        raise
    except Exception:  # zip and header errors of many kinds, with advice about pickles
        raise ValueError(f"{path}: not a .npz file of labels") from None


def _texts(path: Path, name: str, array: NDArray[Any] | None, count: int | None = None) -> NDArray[np.str_]:
    if array is None or array.ndim != 1 or array.dtype.kind != "U":
        raise ValueError(f"{path}: lacks {name}, a list of texts")
    if count is not None and len(array) != count:
        raise ValueError(f"{path}: {len(array)} texts of {name} for {count} pictures")
    return array


def _of_shape(path: Path, name: str, array: NDArray[Any], shape: tuple[int, ...]) -> _Array:
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {name} is {array.dtype} {array.shape}, not numbers {shape}")
    return array.astype(np.float64)


class Labels(NamedTuple):
    """What a set of pictures is labelled with, image pixels.

    Attributes
    ----------
    fit : LandmarkFit
    landmarks : (n, 68, 2) float64
    landmark_weights : (n, 68) float64
        As far as the labels are believed; 0 for all points of a picture that is not to be used.
    parameter_weights : (n,) float64
    errors : (n,) float64
        Mean distance of the 51 points inside the face from the fit over the face's size; infinite without a fit.
    """

    fit: LandmarkFit
    landmarks: _Array
    landmark_weights: _Array
    parameter_weights: _Array
    errors: _Array


def common_offset(marked: _Array, teacher: _Array) -> _Array:
    """How far marked points (n, 68, 2) lie from a teacher's (n, 68, 3) in all pictures alike: (2,), in face sizes.

    The median over the pictures of the mean over the points inside the face, so that neither a few bad pictures nor the
    two definitions of the jaw count. 0 where no picture has both.
    """
    apart = (marked - teacher[..., :2])[:, JAW.stop :] / face_sizes(teacher)[:, None, None]
    apart = apart[np.asarray(np.isfinite(apart).any(axis=(1, 2)))]
    return np.asarray(np.nanmedian(np.nanmean(apart, axis=1), axis=0)) if len(apart) else np.zeros(2)


def label_pictures(
    pictures: LabelledPictures, face_model: FaceModel, *, deviations: ArrayLike | None = None, levelled: float = 1.0
) -> Labels:
    """Fit the face model to the labels, and decide what is believed of them: see this module's head.

    Parameters
    ----------
    pictures : LabelledPictures
    face_model : FaceModel
    deviations : (modes,) array_like, optional
        See `fit_landmarks`.
    levelled : float
        Share of `common_offset` that is taken off the marked points, 0 .. 1. A set to measure on wants 0.
    """
    marked, teacher = pictures.marked, pictures.teacher
    if marked is not None and teacher is not None and levelled:
        sizes = face_sizes(teacher)
        sizes = np.where(np.isnan(sizes), face_sizes(marked), sizes)  # of pictures that the teacher does not know
        marked = marked - levelled * common_offset(marked, teacher) * sizes[:, None, None]

    if teacher is None:
        assert marked is not None
        points, fit = marked, fit_landmarks(face_model, marked, deviations=deviations)
    else:
        fit = fit_landmarks(face_model, teacher, deviations=deviations, noise=_TEACHER_NOISE)
        points = teacher[..., :2]
        if marked is not None:
            points, fit = _marked_and_taught(face_model, marked, teacher, fit, deviations)
    projected = transform(fit.cameras, face_model.landmark_points(np.nan_to_num(fit.coefficients)))[..., :2]
    known = np.asarray(np.isfinite(points).all(axis=2))
    share = np.where(known, 1.0, 0.0)
    if marked is not None:
        share *= np.nan_to_num(contour_share(fit.cameras))
    landmarks = projected + share[..., None] * (np.where(known[..., None], points, projected) - projected)
    inner = known & _INNER
    distance = np.linalg.norm(landmarks - projected, axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = (distance * inner).sum(axis=1) / inner.sum(axis=1) / face_sizes(landmarks)
    errors = np.where(np.isfinite(errors), errors, np.inf)
    parameter_weights = _falling(errors, FITS_WELL, FITS_NOT)
    landmark_weights = _falling(errors, FITS_NOT, 1.5 * FITS_NOT)[:, None] * np.where(known, 1, _HIDDEN_WEIGHT)
    if marked is None:
        taught = _TAUGHT_OPENING_WEIGHT if pictures.opening_weight is None else pictures.opening_weight[:, None]
        landmark_weights[:, OPENING] *= taught
    if marked is None and pictures.spread is not None:
        sure = _falling(np.where(np.isnan(pictures.spread), UNSURE, pictures.spread), SURE, UNSURE)
        parameter_weights, landmark_weights = parameter_weights * sure, landmark_weights * sure[:, None]
    return Labels(fit, landmarks, landmark_weights, parameter_weights, errors)


def _marked_and_taught(
    face_model: FaceModel, marked: _Array, teacher: _Array, taught: LandmarkFit, deviations: ArrayLike | None
) -> tuple[_Array, LandmarkFit]:
    """Fit to marked points with the teacher's depth and far jaw where both agree, to the marked points elsewhere."""
    apart = marked - teacher[..., :2]
    both = np.isfinite(apart).all(axis=2) & _INNER
    count = np.maximum(both.sum(axis=1), 1)
    apart = np.where(both[..., None], apart, 0)
    distance = np.linalg.norm(apart, axis=2).sum(axis=1) / count
    agreed = (distance < AGREE * face_sizes(teacher)) & (both.sum(axis=1) > 0)
    # The teacher's far jaw, moved as the marked points say that its face is off.
    moved = teacher.copy()
    moved[..., :2] += (apart.sum(axis=1) / count[:, None])[:, None]
    share = np.nan_to_num(contour_share(taught.cameras))[..., None]
    target = np.concatenate([share * marked + (1 - share) * moved[..., :2], moved[..., 2:]], axis=2)
    fit = fit_landmarks(face_model, target, deviations=deviations)
    if not agreed.all():
        flat = fit_landmarks(face_model, marked[~agreed], deviations=deviations)
        for whole, part in zip(fit, flat, strict=True):
            whole[~agreed] = part
    return marked, fit


def _falling(values: _Array, one: float, zero: float) -> _Array:
    """1 up to a value, 0 from another one on, and linear between."""
    return np.clip((zero - values) / (zero - one), 0, 1)


def parameters_of(cameras: ArrayLike, coefficients: ArrayLike, rois: ArrayLike) -> NDArray[np.float32]:
    """Cameras in an image to the parameters that a network should answer for crops of it.

    The inverse of what `Pipeline` does. The third offset, which nothing in a crop tells, is 0: the model's origin.

    Parameters
    ----------
    cameras : (N, 3, 4) array_like
        Model to image pixels, third axis away from the viewer.
    coefficients : (N, 50) array_like
    rois : (N, 4) array_like
        Squares of the image that are cropped.

    Returns
    -------
    (N, 62) float32
    """
    from_crop = np.linalg.inv(CROP_FROM_NETWORK)
    rows = []
    for camera, roi in zip(np.asarray(cameras, np.float64), np.asarray(rois, np.float64), strict=True):
        to_image = crop_to_image(roi)
        scale = to_image[0, 0]
        in_crop = np.eye(4)
        in_crop[:3] = camera / scale
        in_crop[:2, 3] -= to_image[:2, 2] / scale
        rows.append((from_crop @ in_crop)[:3])
        rows[-1][2, 3] = 0
    flat = np.array(rows).reshape(-1, 12)
    return np.concatenate([flat, np.asarray(coefficients)], axis=1).astype(np.float32)


@dataclass(frozen=True)
class _Task:
    """One picture to be cropped and turned; all in image pixels."""

    path: Path
    name: str
    camera: NDArray[np.float32]
    coefficients: NDArray[np.float32]
    landmarks: _Array
    landmark_weights: _Array
    parameter_weight: float
    copies: int
    plain: bool
    seed: int


def prepare_samples(
    pictures: LabelledPictures,
    labels: Labels,
    face_model: FaceModel,
    *,
    copies: int = 3,
    plain: bool = True,
    seed: int = 0,
    workers: int = 1,
    progress: bool = False,
) -> Samples:
    """Crop pictures, and turn copies of them.

    Pictures without any weight are left out; those whose fit is not believed are not turned. Where much of a crop lies
    outside its picture, half of such crops have black there, as in use, and half the picture's mirrored and blurred
    edge.

    Parameters
    ----------
    pictures : LabelledPictures
    labels : Labels
        Of these pictures, by `label_pictures`.
    face_model : FaceModel
        With 50 modes.
    copies : int
        Turned versions of each picture: away from the camera to the side that it is turned to already, to absolute yaws
        spread evenly from 20 (or its own) to 90 degrees, with some pitch and roll.
    plain : bool
        Whether the picture as it is is among the samples.
    seed : int
        The same seed gives the same samples, whatever the workers.
    workers : int
        Processes.
    progress : bool
        Show a bar on standard error.

    Returns
    -------
    Samples
        In the order of the pictures, the plain one first; copies are named ``name#1`` and so on.

    Raises
    ------
    ValueError
        Names the picture that cannot be read, or that its labels do not lie in; or nothing is left.
    """
    from tqdm import tqdm

    if face_model.modes != 50:
        raise ValueError(f"face model {face_model.name} has {face_model.modes} modes; a network answers 50")
    if copies < 0 or workers < 1 or not (plain or copies):
        raise ValueError(f"copies {copies}, workers {workers}: at least 0 and 1, and something to make")
    kept = np.flatnonzero(labels.landmark_weights.max(axis=1, initial=0) > 0)
    tasks = [
        _Task(
            pictures.folder / "images" / str(pictures.names[i]),
            str(pictures.names[i]),
            labels.fit.cameras[i],
            labels.fit.coefficients[i],
            labels.landmarks[i],
            labels.landmark_weights[i],
            float(labels.parameter_weights[i]),
            copies if labels.parameter_weights[i] > 0 else 0,
            plain,
            seed,
        )
        for i in kept
    ]
    rows: list[tuple[Any, ...]] = []
    with _mapped(face_model, tasks, workers) as results:
        for made in tqdm(results, total=len(tasks), unit="picture", disable=not progress):
            rows += made
    if not rows:
        raise ValueError(f"{pictures.folder}: no picture is left that the labels fit")
    crops, parameters, landmarks, landmark_weights, parameter_weights, names = zip(*rows, strict=True)
    return Samples(
        np.stack(crops),
        np.stack(parameters),
        np.stack(landmarks).astype(np.float32),
        np.stack(landmark_weights).astype(np.float32),
        np.array(parameter_weights, np.float32),
        np.array(names),
    )


@contextmanager
def _mapped(face_model: FaceModel, tasks: list[_Task], workers: int) -> Iterator[Iterable[list[tuple[Any, ...]]]]:
    if workers == 1:
        yield (_work(task, face_model) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")  # OpenCV's and Numba's threads do not survive a fork
    pool = ProcessPoolExecutor(workers, context, _start, (os.getpid(), face_model))
    try:
        with deaf_to_ctrl_c():
            made = pool.map(_work, tasks, chunksize=4)
        yield made
    finally:
        pool.shutdown(cancel_futures=True)


def read_photograph(path: Path) -> NDArray[np.uint8]:
    """Read a picture as (H, W, 3) uint8 BGR; ValueError names a file that is none."""
    import cv2

    content = np.fromfile(path, np.uint8) if path.is_file() else np.zeros(0, np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    if image is None:
        raise ValueError(f"{path}: not a picture that can be read")
    return np.asarray(image, np.uint8)


_worker_model: FaceModel | None = None


def _start(parent: int, face_model: FaceModel) -> None:
    import cv2

    global _worker_model
    end_with_parent(parent)
    _worker_model = face_model
    cv2.setNumThreads(1)


def _work(task: _Task, face_model: FaceModel | None = None) -> list[tuple[Any, ...]]:
    """The samples of one picture."""
    model = face_model or _worker_model
    assert model is not None
    image = read_photograph(task.path)
    if not usable(square_from_landmarks(task.landmarks), image.shape[:2]):
        raise ValueError(f"{task.path}: the labels lie outside of the picture, or their face is tiny or huge in it")
    # Of the name, not of the order: the same picture is turned alike in any set.
    random = np.random.default_rng([task.seed, zlib.crc32(task.name.encode())])
    rows = [_plain(task, image, random)] if task.plain else []
    yaws = _yaws(task.camera, task.copies, random)
    if len(yaws) == 0:
        return rows
    try:
        face = TurnableFace(image, model, task.camera, task.coefficients)
    except ValueError:  # more outside of the picture than inside: no copies
        return rows
    for number, yaw in enumerate(yaws, start=1):
        rows.append(_turned(task, face, model, _rotation(task.camera, yaw, random), number))
    return rows


def _plain(task: _Task, image: NDArray[np.uint8], random: np.random.Generator) -> tuple[Any, ...]:
    roi, to_crop = _frame(task.landmarks)
    wide = _wide(roi)
    outside = max(0.0, -wide[0], -wide[1], wide[2] - image.shape[1], wide[3] - image.shape[0]) / (wide[2] - wide[0])
    if outside > 0.1 and random.random() < 0.5:
        to_wide = np.linalg.inv(crop_to_image(wide, WIDE_SIZE))
        picture = extended(image, to_wide, WIDE_SIZE, WIDE_SIZE)
    else:
        picture = crop(image, wide, WIDE_SIZE)
    parameters = parameters_of(task.camera[None], task.coefficients[None], roi[None])[0]
    landmarks = task.landmarks @ to_crop[:2, :2].T + to_crop[:2, 2]
    weights = task.landmark_weights * _seen(task.camera)
    return picture, parameters, landmarks, weights, task.parameter_weight, task.name


def _turned(task: _Task, face: TurnableFace, face_model: FaceModel, rotation: _Array, number: int) -> tuple[Any, ...]:
    camera = face.turned(rotation)
    shape = face_model.landmark_points(task.coefficients[None])
    before = transform(task.camera[None], shape)[0, :, :2]
    after = transform(camera[None], shape)[0, :, :2].astype(np.float64)
    # What the label differs from the fit lies in the plane of the picture: turned along, it is foreshortened.
    landmarks = after + (task.landmarks - before) @ rotation[:2, :2].T
    roi, to_crop = _frame(landmarks)
    to_wide = np.linalg.inv(crop_to_image(_wide(roi), WIDE_SIZE))
    picture = face.picture(rotation, to_wide, (WIDE_SIZE, WIDE_SIZE))
    weights = task.landmark_weights * _seen(camera)
    parameters = parameters_of(camera[None], task.coefficients[None], roi[None])[0]
    placed = landmarks @ to_crop[:2, :2].T + to_crop[:2, 2]
    return picture, parameters, placed, weights, task.parameter_weight, f"{task.name}#{number}"


def _seen(camera: NDArray[np.float32]) -> _Array:
    """Factors (68,) of the landmark weights: less for the jaw of the far side."""
    return np.asarray(_HIDDEN_WEIGHT + (1 - _HIDDEN_WEIGHT) * contour_share(camera[None])[0])


def _frame(landmarks: _Array) -> tuple[NDArray[np.float32], _Array]:
    """The canonical square of landmarks, and the map from image to its crop's pixels."""
    roi = square_from_landmarks(landmarks)
    return roi, np.asarray(np.linalg.inv(crop_to_image(roi)), np.float64)


def _wide(roi: NDArray[np.float32]) -> _Array:
    margin = MARGIN / CROP_SIZE * (float(roi[2]) - float(roi[0]))
    return roi.astype(np.float64) + [-margin, -margin, margin, margin]


def _yaws(camera: NDArray[np.float32], copies: int, random: np.random.Generator) -> list[float]:
    """Yaws to turn to, degrees: away from the camera, one in each part of what is left to 90."""
    own = np.rad2deg(euler_from_rotation(head_rotation(decompose_camera(camera).rotation))[0])
    # Hardly turned: either side.
    side = np.sign(own) if abs(own) > _LEAST_TURN else random.choice([-1.0, 1.0])
    least = max(abs(own) + _LEAST_TURN, _FLATTEST)
    if least >= 90 or not copies:
        return []
    shares = (np.arange(copies) + random.uniform(size=copies)) / copies
    return [float(side * (least + (90 - least) * s)) for s in shares]


def _rotation(camera: NDArray[np.float32], yaw: float, random: np.random.Generator) -> _Array:
    """Rotation of the image's space to a yaw, nodded and tilted a little."""
    current = head_rotation(decompose_camera(camera).rotation)
    _, pitch, roll = np.rad2deg(euler_from_rotation(current))
    nodded = np.clip(pitch + random.uniform(-_PITCH, _PITCH), -_STEEPEST, _STEEPEST)
    target = rotation_from_euler(*np.deg2rad([yaw, nodded, roll + random.uniform(-_ROLL, _ROLL)]))
    return np.asarray(target @ current.T)
