"""Labelled face crops, and the folder format that they are kept in."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radan_ros.boxes import CROP_SIZE
from radan_ros.face_models import FaceModel
from radan_ros.files import whole_file

MARGIN = 32  # pixels around the canonical crop, so that it can be moved, turned and scaled without black borders
WIDE_SIZE = CROP_SIZE + 2 * MARGIN
_CROPS, _LABELS = "crops.npy", "labels.npz"


@dataclass(frozen=True)
class Samples:
    """Labelled crops. N of them; inner pixel (x, y) of a crop is its wide pixel (x + 32, y + 32).

    Attributes
    ----------
    crops : (N, 184, 184, 3) uint8
        BGR. The canonical 120 px crop (`boxes.square_from_landmarks` of the labels) lies in the middle.
    parameters : (N, 62) float32
        Camera, shape and expression in the frame in which the network answers (see `pipeline`), of the inner crop.
    landmarks : (N, 68, 2) float32
        Inner crop pixels, centres at integers, x right, y down.
    landmark_weights : (N, 68) float32
        How far each landmark is to be believed; 0 leaves it out.
    parameter_weights : (N,) float32
        The same for the parameters.
    names : (N,) str
    """

    crops: NDArray[np.uint8]
    parameters: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    landmark_weights: NDArray[np.float32]
    parameter_weights: NDArray[np.float32]
    names: NDArray[np.str_]

    def __post_init__(self) -> None:
        n = len(self.crops)
        for name, kind, shape in (
            ("crops", np.uint8, (n, WIDE_SIZE, WIDE_SIZE, 3)),
            ("parameters", np.float32, (n, 62)),
            ("landmarks", np.float32, (n, 68, 2)),
            ("landmark_weights", np.float32, (n, 68)),
            ("parameter_weights", np.float32, (n,)),
            ("names", np.str_, (n,)),
        ):
            array = getattr(self, name)
            if array.shape != shape or not np.issubdtype(array.dtype, kind):
                raise ValueError(f"samples: {name} is {array.dtype} {array.shape}, not {kind.__name__} {shape}")
            # A NaN of weight 0 is a NaN in the loss, too.
            if kind is np.float32 and not (finite := np.isfinite(array)).all():
                raise ValueError(f"samples: {name} is not finite, of sample {_first(~finite)} (from 0)")
            if name.endswith("_weights") and (array < 0).any():
                raise ValueError(f"samples: {name} is negative, of sample {_first(array < 0)} (from 0)")

    def __len__(self) -> int:
        return len(self.crops)

    def take(self, which: Any) -> Samples:
        """Some of the samples, by index array, mask or slice."""
        return Samples(**{f.name: getattr(self, f.name)[which] for f in fields(self)})


def _first(bad: NDArray[np.bool_]) -> int:
    """The first index along the first axis at which anything is bad."""
    return int(np.argwhere(bad)[0, 0])


def write_samples(folder: str | Path, samples: Samples, face_model: FaceModel) -> None:
    """Write samples as ``crops.npy`` and ``labels.npz`` into a folder, made where missing.

    The second has the other attributes, and as ``face_model`` the version of the face model that the parameters are of.
    Samples that lay there are replaced as a pair, and only by whole files.

    Raises
    ------
    OSError
        Names the file that cannot be written.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    arrays = {f.name: getattr(samples, f.name) for f in fields(samples) if f.name != "crops"}
    labels = root / _LABELS
    with whole_file(labels) as labels_part, whole_file(root / _CROPS) as crops_part:
        np.save(crops_part, samples.crops)
        np.savez(labels_part, face_model=np.array(face_model.version), **arrays)
        labels.unlink(missing_ok=True)  # the crops go first to their place, and old labels must not be beside them


def read_samples(folder: str | Path, face_model: FaceModel | None = None) -> Samples:
    """Read what `write_samples` wrote; the crops stay on disk, memory-mapped.

    Parameters
    ----------
    folder : path
    face_model : FaceModel, optional
        The one that the parameters have to be of, where the folder says it (those of others may not).

    Raises
    ------
    ValueError
        Names the file or the folder and what is missing, damaged or does not fit.
    PermissionError
        A file may not be read.
    """
    root = Path(folder)
    for name in (_CROPS, _LABELS):
        if not (root / name).is_file():
            raise ValueError(f"{root / name} is missing: no folder of labelled crops")
    path = root / _CROPS
    try:
        crops = np.load(path, mmap_mode="r", allow_pickle=False)
        path = root / _LABELS
        with np.load(path, allow_pickle=False) as file:
            labels = {f.name: file[f.name] for f in fields(Samples) if f.name in file}
            version = str(file["face_model"]) if "face_model" in file else None
    except PermissionError:
        raise
    except Exception:  # zip and header errors of many kinds
        raise ValueError(f"{path}: damaged or incomplete: prepare it again") from None
    missing = [f.name for f in fields(Samples) if f.name not in ("crops", *labels)]
    if missing:
        raise ValueError(f"{path}: has no {missing[0]}")
    if face_model is not None and version is not None and version != face_model.version:
        raise ValueError(f"{root}: prepared for another face model than {face_model.name}: prepare it again")
    try:
        return Samples(crops, **labels)
    except ValueError as e:
        raise ValueError(f"{root}: {e}") from None
