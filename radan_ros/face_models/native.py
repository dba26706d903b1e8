"""Our own format of a face model: one compressed ``.npz`` without pickles, the same bytes for the same model.

(The members' bytes are the same everywhere; compressed, they are with the same zlib: zlib-ng packs them differently.)

Arrays named as the attributes of `FaceModel`, a number ``format``, and optionally each basis as 16-bit multiples of a
step (``shape_basis_step``, ``expression_basis_step``, model units). Format 2; format 1 had no uv, no regions, no names
and no steps.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from radan_ros.face_models.face_model import FaceModel
from radan_ros.files import whole_file

FORMAT = 2
_ARRAYS = {
    "mean": np.float32,
    "shape_basis": np.float32,
    "expression_basis": np.float32,
    "triangles": np.int32,
    "landmarks": np.int32,
    "codes": np.float32,
}
_OPTIONAL = {"uv": np.float32, "regions": np.uint8}
_BASES = ("shape_basis", "expression_basis")


def write_face_model(path: str | Path, model: FaceModel, *, step: float | None = None) -> None:
    """Write a face model as one compressed ``.npz``.

    Parameters
    ----------
    path : path
    model : FaceModel
    step : float, optional
        Keep the bases as 16-bit multiples of this (model units), which is a third of the size: every displacement is
        rounded by at most half of it. Without it they are kept as they are.

    Raises
    ------
    ValueError
        When a displacement is more than 32767 steps.
    OSError
        When it cannot be written.
    """
    arrays: dict[str, Any] = {"format": np.int64(FORMAT), "name": np.str_(model.name), "unit": np.float64(model.unit)}
    arrays |= {name: getattr(model, name) for name in _ARRAYS}
    arrays |= {name: getattr(model, name) for name in _OPTIONAL if getattr(model, name) is not None}
    if model.expression_names:
        arrays["expression_names"] = np.array(model.expression_names)
    if step is not None:
        for name in _BASES:
            multiples = np.rint(arrays[name] / np.float64(step))
            if np.abs(multiples).max(initial=0) > 32767:
                raise ValueError(f"{path}: {name} does not fit into 16 bits in steps of {step}")
            arrays[name], arrays[f"{name}_step"] = multiples.astype("<i2"), np.float64(step)
    with whole_file(Path(path)) as part, zipfile.ZipFile(part, "w") as archive:
        for name, array in arrays.items():
            # numpy.savez stamps its members with the time of day.
            member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            member.compress_type, member.create_system = zipfile.ZIP_DEFLATED, 3
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)


def read_face_model(path: str | Path) -> FaceModel:
    """Read what `write_face_model` wrote, in this format or an earlier one.

    Raises
    ------
    ValueError
        Names the file and what is missing or does not fit.
    OSError
        When it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if "format" not in file or not 1 <= int(file["format"]) <= FORMAT:
                raise ValueError(f"is no face model of format 1 to {FORMAT}")
            missing = [name for name in (*_ARRAYS, "name", "unit") if name not in file]
            if missing:
                raise ValueError(f"lacks {', '.join(missing)}")
            kept = _ARRAYS | {name: dtype for name, dtype in _OPTIONAL.items() if name in file}
            arrays: dict[str, Any] = {name: np.ascontiguousarray(file[name], dtype) for name, dtype in kept.items()}
            for name in _BASES:
                if f"{name}_step" in file:
                    arrays[name] *= np.float32(file[f"{name}_step"])
            if "expression_names" in file:
                arrays["expression_names"] = tuple(str(name) for name in file["expression_names"])
            return FaceModel(name=str(file["name"]), unit=float(file["unit"]), **arrays)
    except OSError:
        raise
    except Exception as e:  # NumPy, zipfile and zlib raise many kinds on a damaged file
        raise ValueError(f"{path}: {e}") from None
