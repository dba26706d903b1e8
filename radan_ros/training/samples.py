"""Labelled face crops, and the folder format that they are kept in."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radan_ros.boxes import CROP_SIZE

MARGIN = 32  # pixels around the canonical crop, so that it can be moved, turned and scaled without black borders
WIDE_SIZE = CROP_SIZE + 2 * MARGIN


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
            if kind is np.float32 and not np.isfinite(array).all():
                raise ValueError(f"samples: {name} is not finite")
            if name.endswith("_weights") and (array < 0).any():
                raise ValueError(f"samples: {name} has negative weights")

    def __len__(self) -> int:
        return len(self.crops)

    def take(self, which: Any) -> Samples:
        """Some of the samples, by index array, mask or slice."""
        return Samples(**{f.name: getattr(self, f.name)[which] for f in fields(self)})


def write_samples(folder: str | Path, samples: Samples) -> None:
    """Write samples as ``crops.npy`` and ``labels.npz`` (the other attributes) into a folder, made where missing."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / "crops.npy", samples.crops)
    np.savez(root / "labels.npz", **{f.name: getattr(samples, f.name) for f in fields(samples) if f.name != "crops"})


def read_samples(folder: str | Path) -> Samples:
    """Read what `write_samples` wrote; the crops stay on disk, memory-mapped.

    Raises
    ------
    ValueError
        Names the file or the folder and what is missing, damaged or does not fit.
    PermissionError
        A file may not be read.
    """
    root = Path(folder)
    for name in ("crops.npy", "labels.npz"):
        if not (root / name).is_file():
            raise ValueError(f"{root / name} is missing: no folder of labelled crops")
    path = root / "crops.npy"
    try:
        crops = np.load(path, mmap_mode="r", allow_pickle=False)
        path = root / "labels.npz"
        with np.load(path, allow_pickle=False) as file:
            labels = {f.name: file[f.name] for f in fields(Samples) if f.name != "crops"}
    except PermissionError:
        raise
    except Exception:  # zip and header errors of many kinds
        raise ValueError(f"{path}: damaged or incomplete: prepare it again") from None
    try:
        return Samples(crops, **labels)
    except ValueError as e:
        raise ValueError(f"{root}: {e}") from None
