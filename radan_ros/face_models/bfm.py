"""Readers of the Basel face model as 3DDFA and 3DDFA_V2 ship it. The files are the user's: the model is licensed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radan_ros.face_models.face_model import FaceModel
from radan_ros.pickles import load_arrays

_UNIT = 1e-6  # the Basel face model is in micrometres


def read_3ddfa(folder: str | Path) -> FaceModel:
    """Read 3DDFA's (and RADAN's) ``train.configs`` with ``visualize/tri.mat``.

    Parameters
    ----------
    folder : path
        Holds ``train.configs/`` (``u_shp``, ``u_exp``, ``w_shp_sim``, ``w_exp_sim``, ``keypoints_sim``,
        ``pncc_code`` as ``.npy``) and ``visualize/tri.mat`` (or ``train.configs/tri.mat``).

    Raises
    ------
    ValueError
        Names the file that is missing, unreadable or of another shape.
    """
    configs = Path(folder) / "train.configs"
    neutral, offset = _array(configs / "u_shp.npy"), _array(configs / "u_exp.npy")
    if neutral.shape != offset.shape:
        raise ValueError(f"{configs}: u_shp.npy has shape {neutral.shape}, u_exp.npy {offset.shape}")
    triangles_file = configs.parent / "visualize" / "tri.mat"
    if not triangles_file.exists() and (configs / "tri.mat").exists():
        triangles_file = configs / "tri.mat"
    return _face_model(
        "bfm_3ddfa",
        neutral + offset,
        _array(configs / "w_shp_sim.npy"),
        _array(configs / "w_exp_sim.npy"),
        _array(configs / "keypoints_sim.npy"),
        _read_tri_mat(triangles_file),
        _array(configs / "pncc_code.npy"),
        configs,
    )


def read_3ddfa_v2(bfm: str | Path) -> FaceModel:
    """Read 3DDFA_V2's ``bfm_noneck_v3.pkl`` with ``tri.pkl`` and ``ncc_code.npy`` beside it.

    Raises
    ------
    ValueError
        Names the file that is missing, unreadable or of another shape. No pickled code is executed.
    """
    path = Path(bfm)
    slim = path.with_name(path.stem + "_slim.pkl")  # as the authors offer it for download
    if not path.exists() and slim.exists():
        path = slim
    content = _pickle(path)
    if not isinstance(content, dict) or not {"u", "w_shp", "w_exp", "keypoints"} <= set(content):
        raise ValueError(f"{path}: not 3DDFA_V2's face model (no u, w_shp, w_exp, keypoints in it)")
    # Files of 3DDFA_V2 before its release 0.12 hold the triangles themselves.
    triangles = content["tri"] if "tri" in content else _pickle(path.with_name("tri.pkl"))
    return _face_model(
        "bfm_3ddfa_v2",
        np.asarray(content["u"]),
        np.asarray(content["w_shp"]),
        np.asarray(content["w_exp"]),
        np.asarray(content["keypoints"]),
        np.asarray(triangles),
        _array(path.with_name("ncc_code.npy")),
        path,
    )


def _face_model(
    name: str,
    mean: NDArray[Any],
    shape_basis: NDArray[Any],
    expression_basis: NDArray[Any],
    keypoints: NDArray[Any],
    triangles: NDArray[Any],
    codes: NDArray[Any],
    source: Path,
) -> FaceModel:
    try:
        points = np.ascontiguousarray(mean, np.float32).reshape(-1, 3)
        v = len(points)
        return FaceModel(
            name=name,
            mean=points,
            # The released bases may have up to 199 and 29 modes; the family's networks give the first 40 and 10.
            shape_basis=np.ascontiguousarray(shape_basis[:, :40], np.float32).reshape(v, 3, 40),
            expression_basis=np.ascontiguousarray(expression_basis[:, :10], np.float32).reshape(v, 3, 10),
            # Both store the triangles (3, T), wound clockwise seen from outside.
            triangles=_wound_outwards(points, np.ascontiguousarray(triangles.T, np.int32)),
            # x, y, z rows of each landmark in the flat basis
            landmarks=np.ascontiguousarray(keypoints.reshape(-1, 3)[:, 0] // 3, np.int32),
            codes=np.ascontiguousarray(codes.T * 255.0, np.float32),
            unit=_UNIT,
        )
    except (ValueError, IndexError) as e:
        raise ValueError(f"{source}: {e}") from None


def _wound_outwards(points: NDArray[np.float32], triangles: NDArray[np.int32]) -> NDArray[np.int32]:
    """Turn all triangles over when most of their normals point away from where the face looks (+z)."""
    if (
        triangles.ndim != 2
        or triangles.shape[1] != 3
        or triangles.min(initial=0) < 0
        or triangles.max(initial=0) >= len(points)
    ):
        return triangles  # FaceModel says what is wrong
    a, b, c = (points[triangles[:, i]].astype(np.float64) for i in range(3))
    if np.cross(b - a, c - a)[:, 2].sum() < 0:
        return np.ascontiguousarray(triangles[:, ::-1])
    return triangles


def _array(path: Path) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (ValueError, EOFError, OSError) as e:
        raise ValueError(f"{path}: not a NumPy array file: {e}") from None


def _pickle(path: Path) -> Any:
    try:
        return load_arrays(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None


def _read_tri_mat(path: Path) -> NDArray[Any]:
    from scipy.io import loadmat

    try:
        triangles = loadmat(path)["tri"]
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except KeyError:
        raise ValueError(f"{path}: no array 'tri' in it") from None
    except Exception as e:  # scipy raises many kinds on a damaged file
        raise ValueError(f"{path}: not a Matlab file: {e}") from None
    return np.asarray(triangles).astype(np.int32) - 1  # Matlab counts from 1
