"""Our own format of a face model: one uncompressed-or-compressed ``.npz`` without pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from radan_ros.face_models.face_model import FaceModel

FORMAT = 1
_ARRAYS = {
    "mean": np.float32,
    "shape_basis": np.float32,
    "expression_basis": np.float32,
    "triangles": np.int32,
    "landmarks": np.int32,
    "codes": np.float32,
}


def write_face_model(path: str | Path, model: FaceModel) -> None:
    """Write a face model as one compressed ``.npz``: arrays named as the attributes of `FaceModel`, a format number."""
    arrays = {name: getattr(model, name) for name in _ARRAYS}
    with open(path, "wb") as file:
        np.savez_compressed(
            file, format=np.int64(FORMAT), name=np.str_(model.name), unit=np.float64(model.unit), **arrays
        )


def read_face_model(path: str | Path) -> FaceModel:
    """Read what `write_face_model` wrote.

    Raises
    ------
    ValueError
        Names the file and what is missing or does not fit.
    OSError
        When it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if "format" not in file or int(file["format"]) != FORMAT:
                raise ValueError(f"is no face model of format {FORMAT}")
            missing = [name for name in (*_ARRAYS, "name", "unit") if name not in file]
            if missing:
                raise ValueError(f"lacks {', '.join(missing)}")
            arrays: dict[str, Any] = {name: np.ascontiguousarray(file[name], dtype) for name, dtype in _ARRAYS.items()}
            return FaceModel(name=str(file["name"]), unit=float(file["unit"]), **arrays)
    except OSError:
        raise
    except Exception as e:  # NumPy, zipfile and zlib raise many kinds on a damaged file
        raise ValueError(f"{path}: {e}") from None
